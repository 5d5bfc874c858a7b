package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jhump/protoreflect/desc"
	"github.com/jhump/protoreflect/dynamic"
	"github.com/jhump/protoreflect/dynamic/grpcdynamic"
	"github.com/jhump/protoreflect/grpcreflect"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// How many shares are granted and revoked at a time, each of a file of its own.
const revokersAtOnce = 4

// How often each of them begins anew at most.
const revokeEvery = 200 * time.Millisecond

// How old what an answer rests on may be: the service's MAX_STALENESS, which is not set here and 2 s by default. What is
// asked later than this after a write was acknowledged must be answered by it.
const stalenessMax = 2 * time.Second

// How long one of its calls may take.
const callMax = 10 * time.Second

// delay is how long after an acknowledged write the first answer went by it.
type delay struct {
	revoked     bool // else granted
	invalidated bool // and Invalidate was called after the write, before the first question
	time        time.Duration
}

// revoker grants and revokes, and asks. Its answers are counted, as the server counts them too.
type revoker struct {
	mutex    sync.Mutex
	answers  tally
	delays   []delay
	problems []string

	address      string
	shares       *mongo.Collection
	permissions  *desc.ServiceDescriptor
	invalidation *desc.ServiceDescriptor
	stub         grpcdynamic.Stub
	token, admin string
}

// revoke works until the context ends; what has been begun by then is ended.
func revoke(ctx context.Context, t *target) *revoker {
	r := &revoker{answers: tally{}, address: t.address, token: t.token, admin: t.admin}
	majority := options.Collection().SetWriteConcern(writeconcern.Majority())
	database := t.stack.client.Database(databaseName)
	r.shares = database.Collection("shares", majority)
	connection, err := grpc.NewClient(t.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.problem(err)
		return r
	}
	defer connection.Close()
	if err := r.learn(connection); err != nil {
		r.problem(err)
		return r
	}
	var all sync.WaitGroup
	for place := range revokersAtOnce {
		all.Go(func() {
			file, guest := objectID(revocableKind, place), objectID(userKind, place*7)
			document := bson.D{{Key: "_id", Value: file}, {Key: "owner_id", Value: objectID(userKind, userCount-1)}, {Key: "is_deleted", Value: false}}
			if _, err := database.Collection("files", majority).InsertOne(ctx, document); err != nil {
				r.problem(err)
				return
			}
			every := time.NewTicker(revokeEvery)
			defer every.Stop()
			for turn := 0; ; turn++ {
				select {
				case <-ctx.Done():
					return
				case <-every.C:
				}
				// What has been begun is ended, so that each answer is counted on both sides.
				if err := r.cycle(context.WithoutCancel(ctx), file, guest, turn%2 == 1); err != nil {
					r.problem(err)
					return
				}
			}
		})
	}
	all.Wait()
	return r
}

// learn asks the server what its calls look like, as ghz does.
func (r *revoker) learn(connection *grpc.ClientConn) error {
	reflection := grpcreflect.NewClientAuto(context.Background(), connection)
	defer reflection.Reset()
	var err error
	if r.permissions, err = reflection.ResolveService("permcached.v1.PermissionService"); err != nil {
		return err
	}
	r.invalidation, err = reflection.ResolveService("permcached.v1.InvalidationService")
	r.stub = grpcdynamic.NewStub(connection)
	return err
}

// cycle shares a file with somebody, waits until they may read it, takes the share away, and waits until they may not.
func (r *revoker) cycle(ctx context.Context, file, guest bson.ObjectID, invalidate bool) error {
	share := bson.D{{Key: "file_id", Value: file}, {Key: "shared_with_user_id", Value: guest}, {Key: "share_type", Value: "internal"}, {Key: "is_active", Value: true}}
	granted, err := r.shares.InsertOne(ctx, share)
	if err != nil {
		return err
	}
	if err := r.await(ctx, file, guest, true, false); err != nil {
		return err
	}
	if _, err := r.shares.DeleteOne(ctx, bson.D{{Key: "_id", Value: granted.InsertedID}}); err != nil {
		return err
	}
	return r.await(ctx, file, guest, false, invalidate)
}

// await asks until the answer is by what was just written, and judges how soon it is.
func (r *revoker) await(ctx context.Context, file, guest bson.ObjectID, allowed, invalidate bool) error {
	written := time.Now()
	if invalidate {
		request := fmt.Sprintf(`{"resources":[{"type":"file","id":%q}]}`, file.Hex())
		if _, err := r.call(ctx, r.invalidation, "Invalidate", r.admin, request); err != nil {
			return err
		}
	}
	question := fmt.Sprintf(`{"subject":{"type":"user","id":%q},"permission":"read","resource":{"type":"file","id":%q}}`, guest.Hex(), file.Hex())
	for {
		asked := time.Now()
		response, err := r.call(ctx, r.permissions, "Check", r.token, question)
		if err != nil {
			return err
		}
		got := response.GetFieldByName("answer").(*dynamic.Message)
		isAllowed := got.GetFieldByName("allowed").(bool)
		reason := got.FindFieldDescriptorByName("reason").GetEnumType().FindValueByNumber(got.GetFieldByName("reason").(int32))
		r.mutex.Lock()
		r.answers[answer(isAllowed, reason.GetName())]++
		if isAllowed == allowed {
			r.delays = append(r.delays, delay{revoked: !allowed, invalidated: invalidate, time: time.Since(written)})
		}
		r.mutex.Unlock()
		late := asked.Sub(written)
		switch {
		case isAllowed == allowed:
			return nil
		case invalidate:
			return fmt.Errorf("file %s: the old answer was given after Invalidate had returned", file.Hex())
		case late > stalenessMax:
			return fmt.Errorf("file %s: the old answer was given to a question asked %s after the write", file.Hex(), late)
		}
	}
}

// call makes a call with a request written as JSON.
func (r *revoker) call(ctx context.Context, service *desc.ServiceDescriptor, name, token, request string) (*dynamic.Message, error) {
	method := service.FindMethodByName(name)
	message := dynamic.NewMessage(method.GetInputType())
	if err := message.UnmarshalJSON([]byte(request)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), callMax)
	defer cancel()
	response, err := r.stub.InvokeRpc(ctx, method, message)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return dynamic.AsDynamicMessage(response)
}

func (r *revoker) problem(err error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.problems = append(r.problems, "Revoking: "+err.Error())
}
