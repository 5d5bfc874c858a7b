// Calls the Go code of docs/clients.md and docs/lists.md: reads one question per line from stdin, and writes one answer per line to stdout.
// `scripts/test-clients` writes the questions and checks the answers.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/status"

	pb "example.com/app/permcachedv1"
	"example.com/app/permissions"
)

type command struct {
	Do, User, File, Share, Token, Within string
	Files                                []string
	Size                                 uint32
	Own                                  json.RawMessage
	Since                                *struct{ Seconds, Increment uint32 }
}

type answer map[string]any

func perform(c command, client *permissions.Client, shares *mongo.Collection) (answer, error) {
	ctx := context.Background()
	question := permissions.Question(c.User, "read", "file", c.File)
	var consistency *pb.Consistency
	if c.Since != nil {
		consistency = permissions.Since(&pb.Moment{Seconds: c.Since.Seconds, Increment: c.Since.Increment})
	}
	switch c.Do {
	case "check":
		found, err := client.Check(ctx, question, consistency)
		return answer{"allowed": found.GetAllowed(), "reason": found.GetReason().String(), "granted_by": found.GetGrantedBy()}, err
	case "status":
		return answer{"status": client.HTTPStatus(ctx, question)}, nil
	case "readable":
		allowed, errors, err := client.Readable(ctx, c.User, c.Files)
		unanswered := map[string]string{}
		for id, failed := range errors {
			unanswered[id] = code.Code(failed.GetCode()).String()
		}
		return answer{"allowed": allowed, "unanswered": unanswered}, err
	case "find":
		var own bson.D
		if err := bson.UnmarshalExtJSON(c.Own, false, &own); err != nil {
			return nil, err
		}
		found, err := client.FindFiles(ctx, shares.Database().Collection("files"), c.User, own, consistency)
		names := []string{}
		for _, file := range found {
			names = append(names, file.Name)
		}
		return answer{"names": names}, err
	case "page":
		page, err := client.FilesPage(ctx, c.User, c.Token, c.Size, c.Within)
		ids := []string{}
		for _, resource := range page.GetResources() {
			ids = append(ids, resource.Id)
		}
		return answer{"ids": ids, "next": page.GetNextPageToken()}, err
	case "readers":
		found, err := client.Readers(ctx, c.File, "")
		ids, sets := []string{}, append([]string{}, found.GetSets()...)
		for _, subject := range found.GetSubjects() {
			ids = append(ids, subject.Id)
		}
		return answer{"ids": ids, "everybody": found.GetEverybody().String(), "sets": sets, "next": found.GetNextPageToken()}, err
	default:
		id, err := bson.ObjectIDFromHex(c.Share)
		if err != nil {
			return nil, err
		}
		moment, err := permissions.Unshare(ctx, shares, id)
		return answer{"seconds": moment.GetSeconds(), "increment": moment.GetIncrement()}, err
	}
}

func main() {
	deadline, err := strconv.Atoi(os.Getenv("PERMCACHED_DEADLINE_MS"))
	if err != nil {
		log.Fatal(err)
	}
	target, token := os.Getenv("PERMCACHED_TARGET"), os.Getenv("PERMCACHED_TOKEN")
	client, err := permissions.Connect(target, token, time.Duration(deadline)*time.Millisecond)
	if err != nil {
		log.Fatal(err)
	}
	database, err := mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGODB_URI")))
	if err != nil {
		log.Fatal(err)
	}
	shares := database.Database("app").Collection("shares")
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			log.Fatal(err)
		}
		found, err := perform(c, client, shares)
		if err != nil {
			found = answer{"error": code.Code(status.Code(err)).String()}
		}
		if err := out.Encode(found); err != nil {
			log.Fatal(err)
		}
	}
}
