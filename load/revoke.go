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

// How many shares are granted and revoked concurrently, each of its own file.
const revokersAtOnce = 4

// The minimum interval between two cycles of a share.
const revokeEvery = 200 * time.Millisecond

// The service's MAX_STALENESS, which these tests do not set: 2 s by default. A question asked later than this after an
// acknowledged write must get the new answer.
const stalenessMax = 2 * time.Second

// The deadline of one call.
const callMax = 10 * time.Second

// delay is the time from an acknowledged write to the first answer that reflects it.
type delay struct {
	revoked     bool // otherwise granted
	invalidated bool // Invalidate was called after the write, before the first question
	time        time.Duration
}

// revoker grants and revokes shares, and asks about them. It counts the answers, because the server counts them too.
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

// revoke runs cycles until the context ends, and finishes the cycles that have begun by then.
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
				// A cycle that has begun is finished, so that client and server count the same answers.
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

// learn gets the descriptions of the services from the server by reflection, as ghz does.
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

// cycle shares a file with a user, waits until they may read it, removes the share, and waits until they may not.
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

// await asks until the answer reflects the last write. It fails if an old answer comes too late.
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

// call makes a call with a request in JSON.
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
