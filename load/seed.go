package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// How many documents there are. A user has ten files and a folder, and every third file or folder is shared. There are also
// some teams.
const (
	userCount   = 20_000
	folderCount = 20_000
	fileCount   = 200_000
	shareCount  = 70_000
	noteCount   = 20_000
	teamCount   = 2_000
	codeCount   = 5_000
	documents   = userCount + folderCount + fileCount + shareCount + noteCount + teamCount + codeCount
)

// The maximum number of documents in one insertion.
const insertMax = 5_000

// The kinds of documents, as the first byte of their ids.
const (
	userKind = iota + 1
	folderKind
	fileKind
	shareKind
	noteKind
	teamKind
	codeKind
	revocableKind // files of the mixed run, which no drawn question asks about
)

// objectID returns the id of a document by its kind and place, the same in each run.
func objectID(kind byte, place int) bson.ObjectID {
	var id bson.ObjectID
	id[0] = kind
	binary.BigEndian.PutUint64(id[4:], uint64(place))
	return id
}

// seed fills the database with documents such as an application that keeps and shares files has. They are the same each
// time.
func seed(ctx context.Context, database *mongo.Database) error {
	random := rand.New(rand.NewPCG(1, 2))
	anybody := func() bson.ObjectID { return objectID(userKind, random.IntN(userCount)) }
	one := func(in int) bool { return random.IntN(in) == 0 }
	past, future := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)

	// Each folder is in an earlier folder of the same owner, except every fourth. The trees are some folders deep.
	folderOwner := func(place int) bson.ObjectID { return objectID(userKind, place%(userCount/8)) }
	folder := func(place int) bson.D {
		document := bson.D{{Key: "name", Value: fmt.Sprintf("folder %d", place)}, {Key: "owner_id", Value: folderOwner(place)}, {Key: "is_deleted", Value: one(50)}}
		if above := place - userCount/8; above >= 0 && !one(4) {
			document = append(document, bson.E{Key: "parent_id", Value: objectID(folderKind, above)})
		}
		return document
	}
	file := func(place int) bson.D {
		document := bson.D{{Key: "name", Value: fmt.Sprintf("file %d", place)}, {Key: "size", Value: place}, {Key: "is_deleted", Value: one(50)}}
		if one(5) {
			return append(document, bson.E{Key: "owner_id", Value: anybody()})
		}
		within := random.IntN(folderCount)
		return append(document, bson.E{Key: "owner_id", Value: folderOwner(within)}, bson.E{Key: "folder_id", Value: objectID(folderKind, within)})
	}
	share := func(place int) bson.D {
		document := bson.D{{Key: "is_active", Value: !one(20)}, {Key: "created_by_id", Value: anybody()}}
		if one(5) {
			document = append(document, bson.E{Key: "folder_id", Value: objectID(folderKind, random.IntN(folderCount))})
		} else {
			document = append(document, bson.E{Key: "file_id", Value: objectID(fileKind, random.IntN(fileCount))})
		}
		switch {
		case one(20):
			document = append(document, bson.E{Key: "expires_at", Value: past})
		case one(3):
			document = append(document, bson.E{Key: "expires_at", Value: future})
		}
		if one(10) {
			return append(document, bson.E{Key: "share_type", Value: "public"}, bson.E{Key: "public_token", Value: fmt.Sprintf("token-%d", place)})
		}
		return append(document, bson.E{Key: "share_type", Value: "internal"}, bson.E{Key: "shared_with_user_id", Value: anybody()})
	}
	note := func(place int) bson.D {
		shared := bson.A{}
		for range random.IntN(4) {
			level := []string{"read", "write", "admin"}[random.IntN(3)]
			shared = append(shared, bson.D{{Key: "user_id", Value: anybody()}, {Key: "permission", Value: level}})
		}
		return bson.D{{Key: "title", Value: fmt.Sprintf("note %d", place)}, {Key: "owner_id", Value: anybody()}, {Key: "is_deleted", Value: one(50)}, {Key: "shared_with", Value: shared}}
	}
	team := func(place int) bson.D {
		members := bson.A{}
		for range 2 + random.IntN(20) {
			role := []string{"viewer", "member", "member", "admin"}[random.IntN(4)]
			members = append(members, bson.D{{Key: "user_id", Value: anybody()}, {Key: "role", Value: role}})
		}
		return bson.D{{Key: "name", Value: fmt.Sprintf("team %d", place)}, {Key: "owner_id", Value: anybody()}, {Key: "members", Value: members}, {Key: "is_active", Value: !one(30)}}
	}
	code := func(place int) bson.D {
		return bson.D{{Key: "access_code", Value: fmt.Sprintf("code-%d", place)}, {Key: "resource_type", Value: "file"},
			{Key: "resource_id", Value: objectID(fileKind, random.IntN(fileCount))}, {Key: "permissions", Value: bson.A{"view"}},
			{Key: "is_active", Value: true}, {Key: "expires_at", Value: future}}
	}
	user := func(place int) bson.D {
		return bson.D{{Key: "email", Value: fmt.Sprintf("user%d@example.com", place)}, {Key: "is_active", Value: !one(100)}}
	}

	for _, collection := range []struct {
		name    string
		kind    byte
		count   int
		make    func(place int) bson.D
		indexes []string
	}{
		{"users", userKind, userCount, user, nil},
		{"folders", folderKind, folderCount, folder, nil},
		{"files", fileKind, fileCount, file, nil},
		{"shares", shareKind, shareCount, share, []string{"file_id", "folder_id"}},
		{"notes", noteKind, noteCount, note, nil},
		{"teams", teamKind, teamCount, team, nil},
		{"temporaryaccesses", codeKind, codeCount, code, []string{"resource_id"}},
	} {
		into := database.Collection(collection.name)
		for _, field := range collection.indexes {
			index := mongo.IndexModel{Keys: bson.D{{Key: field, Value: 1}}}
			if _, err := into.Indexes().CreateOne(ctx, index); err != nil {
				return err
			}
		}
		var batch []any
		for place := range collection.count {
			id := bson.E{Key: "_id", Value: objectID(collection.kind, place)}
			batch = append(batch, append(bson.D{id}, collection.make(place)...))
			if len(batch) == insertMax || place == collection.count-1 {
				if _, err := into.InsertMany(ctx, batch, options.InsertMany().SetOrdered(false)); err != nil {
					return err
				}
				batch = batch[:0]
			}
		}
	}
	return nil
}
