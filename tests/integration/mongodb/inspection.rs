//! The findings about a database at the start: missing, empty or unsuitable collections, and missing indexes. The `read` role
//! on the database is enough for these and for answers.
//!
//! What the command `doctor` makes of the findings is tested in `doctor`.

use std::{collections::BTreeMap, sync::Arc};

use mongodb::{
    Client, Database,
    bson::{Bson, Document, doc},
};
use permcached::{
    check::{CheckError, Consistency},
    schema::Schema,
    source::{
        Deadline,
        mongodb::{Finding, Mode, MongoDb},
    },
};

use super::{oid, read, small_fylora};
use crate::{
    rules::rule::NOW,
    support::{
        both::{Asked, TIME_MAX, fill, schema, shipped_schema, shown},
        monitored::{Monitor, commands, level},
        servers::{Mongo, mongo, secured_mongo},
    },
};

/// A document in each collection that the schema reads, and every index.
pub async fn full(database: &Database, schema: &Schema) {
    let mut collections = small_fylora();
    for name in schema.collections() {
        collections.entry(name.to_owned()).or_insert_with(|| vec![doc! { "_id": 1 }]);
    }
    fill(database, schema, &collections).await;
}

/// Runs a remedy that creates an index, like the MongoDB shell.
pub async fn make_index(database: &Database, remedy: &str, name: &str) {
    let (collection, rest) = remedy.strip_prefix("db.getCollection(").unwrap().split_once(").createIndex(").unwrap();
    let collection: String = serde_json::from_str(collection).unwrap();
    let key: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(rest.strip_suffix(')').unwrap()).unwrap();
    let key = Document::try_from(key).unwrap();
    let command = doc! { "createIndexes": collection, "indexes": [{ "key": key, "name": name }] };
    database.run_command(command).await.unwrap();
}

async fn all_findings(database: &Database, schema: &Arc<Schema>) -> Vec<Finding> {
    let source = MongoDb::open(Arc::clone(schema), database.clone()).await.expect("mongod answers");
    source.inspect().await.expect("mongod answers")
}

/// What matters to checks.
async fn findings(database: &Database, schema: &Arc<Schema>) -> Vec<Finding> {
    let all = all_findings(database, schema).await;
    all.into_iter().filter(|finding| !finding.is_of_lists()).collect()
}

fn no_index(collection: &str, field: &str) -> Finding {
    Finding::NoIndex { collection: collection.to_owned(), field: field.to_owned(), has_collation: false }
}

#[tokio::test]
async fn a_complete_database_has_no_findings() {
    for name in ["fylora.toml", "fylora-sharing.toml"] {
        let (database, schema) = (mongo().database().await, Arc::new(shipped_schema(name)));
        full(&database, &schema).await;
        assert_eq!(all_findings(&database, &schema).await, []);
    }
}

#[tokio::test]
async fn a_database_that_does_not_exist_lacks_all_collections() {
    let (database, schema) = (mongo().database().await, Arc::new(shipped_schema("fylora-sharing.toml")));
    let missing = |name: &str| Finding::Missing { collection: name.to_owned() };
    let all = ["files", "folders", "notes", "shares", "teams", "temporaryaccesses", "users"];
    assert_eq!(findings(&database, &schema).await, all.map(missing));
    let finding = missing("files");
    assert_eq!(finding.message(), "the collection `files` is missing");
    assert!(finding.remedy().contains("MONGODB_DATABASE"), "{}", finding.remedy());
}

#[tokio::test]
async fn an_empty_collection_is_found() {
    let (database, schema) = (mongo().database().await, Arc::new(shipped_schema("fylora.toml")));
    full(&database, &schema).await;
    database.collection::<Document>("notes").delete_many(doc! {}).await.unwrap();
    let empty = Finding::Empty { collection: "notes".to_owned() };
    assert_eq!(findings(&database, &schema).await, std::slice::from_ref(&empty));
    assert_eq!(empty.message(), "the collection `notes` is empty");
}

#[tokio::test]
async fn capped_collections_views_and_time_series_are_unsuitable() {
    let (database, schema) = (mongo().database().await, Arc::new(shipped_schema("fylora.toml")));
    full(&database, &schema).await;
    for name in ["files", "folders", "notes"] {
        database.collection::<Document>(name).drop().await.unwrap();
    }
    database.create_collection("files").capped(true).size(4_096).await.unwrap();
    let view = doc! { "create": "folders", "viewOn": "files", "pipeline": [] };
    database.run_command(view).await.unwrap();
    database.run_command(doc! { "create": "notes", "timeseries": { "timeField": "at" } }).await.unwrap();
    let unsuitable =
        |name: &str, what: &str| Finding::Unsuitable { collection: name.to_owned(), what: what.to_owned() };
    let expected =
        [unsuitable("files", "capped"), unsuitable("folders", "a view"), unsuitable("notes", "a timeseries")];
    assert_eq!(findings(&database, &schema).await, expected);
    assert_eq!(expected[1].message(), "the collection `folders` is a view, in which changes cannot be followed");
    let remedies = expected.map(|finding| finding.remedy());
    let capped = "copy the documents into a collection that is not capped, and give it the name \"files\"";
    assert_eq!(
        remedies,
        [capped, "name the collection that it is made of", "store the documents in an ordinary collection"]
    );
}

#[tokio::test]
async fn a_missing_index_is_found_with_the_command_that_creates_it() {
    let (database, schema) = (mongo().database().await, Arc::new(shipped_schema("fylora-sharing.toml")));
    full(&database, &schema).await;
    for name in ["shares", "temporaryaccesses"] {
        database.collection::<Document>(name).drop_indexes().await.unwrap();
    }
    let expected =
        [no_index("shares", "file_id"), no_index("shares", "folder_id"), no_index("temporaryaccesses", "resource_id")];
    let found = findings(&database, &schema).await;
    assert_eq!(found, expected);
    assert_eq!(found[0].remedy(), "db.getCollection(\"shares\").createIndex({ \"file_id\": 1 })");
    // The remedies create the missing indexes.
    for (number, finding) in found.into_iter().enumerate() {
        make_index(&database, &finding.remedy(), &format!("remedy {number}")).await;
    }
    assert_eq!(findings(&database, &schema).await, []);
}

#[tokio::test]
async fn an_index_counts_if_it_serves_every_lookup_by_the_field() {
    let (database, schema) = (mongo().database().await, Arc::new(shipped_schema("fylora.toml")));
    full(&database, &schema).await;
    let shares = database.collection::<Document>("shares");
    let key = doc! { "file_id": 1 };
    let cases = [
        (doc! { "key": { "file_id": -1 } }, true),
        (doc! { "key": { "file_id": 1, "is_active": 1 } }, true),
        (doc! { "key": { "file_id": "hashed" } }, true),
        (doc! { "key": key.clone(), "unique": true }, true),
        (doc! { "key": { "is_active": 1, "file_id": 1 } }, false),
        (doc! { "key": { "file_id": "text" } }, false),
        (doc! { "key": key.clone(), "partialFilterExpression": { "is_active": true } }, false),
        (doc! { "key": key.clone(), "hidden": true }, false),
        // It serves ids that are no texts (`collations`).
        (doc! { "key": key.clone(), "collation": { "locale": "fr" } }, true),
        // It lacks the documents without the field. A lookup by an id never finds those.
        (doc! { "key": key, "sparse": true }, true),
        (doc! { "key": { "$**": 1 } }, false),
    ];
    for (mut index, serves) in cases {
        shares.drop_indexes().await.unwrap();
        index.insert("name", "this");
        let other = doc! { "key": { "folder_id": 1 }, "name": "other" };
        let command = doc! { "createIndexes": "shares", "indexes": [index.clone(), other] };
        database.run_command(command).await.unwrap();
        let expected = if serves { vec![] } else { vec![no_index("shares", "file_id")] };
        assert_eq!(findings(&database, &schema).await, expected, "{index}");
    }
}

/// A database of the secured server with a small Fylora in it, by a client of a user with these roles.
async fn with_role(server: &Mongo, roles: &[&str], schema: &Schema) -> Database {
    let database = server.database().await;
    full(&database, schema).await;
    let name = format!("user_{}", database.name());
    let command = doc! { "createUser": &name, "pwd": "pw", "roles": roles, "mechanisms": ["SCRAM-SHA-256"] };
    database.run_command(command).await.unwrap();
    let uri = server.uri_of(&name, "pw", database.name());
    Client::with_uri_str(uri).await.unwrap().database(database.name())
}

#[tokio::test]
async fn the_read_role_is_enough() {
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let database = with_role(secured_mongo(), &["read"], &schema).await;
    assert_eq!(findings(&database, &schema).await, []);
    let source = MongoDb::open(Arc::clone(&schema), database).await.unwrap();
    assert_eq!(source.mode(), Mode::ReplicaSet);
    let asked = Asked::new(&schema, Arc::new(source));
    let questions = [read(&schema, 1), read(&schema, 2)];
    let checked = asked.checker.check(&questions, Consistency::FullyConsistent, Deadline::after(TIME_MAX)).await;
    let answers: Vec<String> = checked.into_iter().map(|checked| shown(&schema, checked.unwrap().answer)).collect();
    assert_eq!(answers, ["allowed by file#owner", "denied NO_GRANT"]);
}

#[tokio::test]
async fn without_a_role_every_question_is_unavailable_and_none_is_denied() {
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let database = with_role(secured_mongo(), &[], &schema).await;
    let source = MongoDb::open(Arc::clone(&schema), database).await.unwrap();
    let refused = source.inspect().await.expect_err("no role grants it");
    assert!(refused.to_string().ends_with("error 13 (Unauthorized)"), "{refused}");
    let asked = Asked::new(&schema, Arc::new(source));
    let questions = [read(&schema, 1), read(&schema, 2)];
    for checked in asked.checker.check(&questions, Consistency::MinimizeLatency, Deadline::after(TIME_MAX)).await {
        assert!(matches!(checked, Err(CheckError::Unavailable(_))), "{checked:?}");
    }
}

const BANS: &str = r#"
default_subject = "user"

[subject.user]

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner_id" }
banned = { collection = "bans", by = "ref.file", field = "user_id" }

[resource.file.permissions]
read = "!banned & owner"
"#;

/// The commands of an evaluation, explained: the number of index keys and of documents that mongod reads for each.
#[tokio::test]
async fn the_search_for_ids_in_other_forms_reads_only_what_it_finds() {
    let (database, schema) = (mongo().database().await, Arc::new(schema("bans.toml", BANS)));
    let other = |number: i32| doc! { "_id": number, "ref": { "file": oid(9) }, "user_id": oid(1) };
    let mut bans: Vec<Document> = (0..500).map(other).collect();
    for (number, value) in (500..).zip([doc! { "$id": oid(3) }.into(), Bson::Array(vec![Bson::Array(vec![])])]) {
        bans.push(doc! { "_id": number, "ref": { "file": value }, "user_id": oid(1) });
    }
    bans.push(doc! { "_id": 600, "ref": { "file": oid(3).to_hex() }, "user_id": oid(1) });
    let files = vec![doc! { "_id": oid(3), "owner_id": oid(1) }];
    fill(&database, &schema, &BTreeMap::from([("bans".to_owned(), bans), ("files".to_owned(), files)])).await;
    let monitor = Monitor::default();
    let client = monitor.client(mongo(), "mongodb-search").await;
    let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.unwrap();
    let asked = Asked::new(&schema, Arc::new(source));
    let checked = asked.check(&[read(&schema, 1)], NOW).await.remove(0).unwrap();
    assert_eq!(shown(&schema, checked.answer), "denied MALFORMED");
    let finds = commands(&monitor.take(), "find");
    let of_bans: Vec<_> = finds
        .into_iter()
        .filter(|find| find.get_str("find").is_ok_and(|name| name == "bans") && level(find) == "snapshot")
        .collect();
    assert_eq!(of_bans.len(), 2, "one for the file, one for structures");
    for find in of_bans {
        let find = doc! { "find": "bans", "filter": find.get_document("filter").unwrap().clone() };
        let explained = database.run_command(doc! { "explain": find, "verbosity": "executionStats" }).await.unwrap();
        let stats = explained.get_document("executionStats").unwrap();
        let [keys, documents, found] =
            ["totalKeysExamined", "totalDocsExamined", "nReturned"].map(|name| stats.get_i32(name).unwrap());
        assert!(
            keys <= 20 && documents <= 4 && (1..=2).contains(&found),
            "{keys} keys, {documents} documents: {explained}"
        );
    }
}

#[tokio::test]
async fn an_index_of_hashes_does_not_serve_a_relation_under_an_exclusion() {
    let (database, schema) = (mongo().database().await, Arc::new(schema("bans.toml", BANS)));
    for (collection, document) in [("files", doc! { "_id": oid(3) }), ("bans", doc! { "ref": { "file": oid(3) } })] {
        database.collection::<Document>(collection).insert_one(document).await.unwrap();
    }
    let index = |kind: Bson| doc! { "createIndexes": "bans", "indexes": [{ "key": { "ref.file": kind.clone() }, "name": kind.to_string() }] };
    database.run_command(index("hashed".into())).await.unwrap();
    assert_eq!(findings(&database, &schema).await, [no_index("bans", "ref.file")]);
    database.run_command(index(1.into())).await.unwrap();
    assert_eq!(findings(&database, &schema).await, []);
}

/// Shares name users, and files lead to folders. Lists search for users and folders; checks do not.
const LISTED: &str = r#"
default_subject = "user"

[subject.user]

[subject.link]
id = "string"
secret = true

[resource.folder]
collection = "folders"

[resource.folder.relations]
owner = { field = "owner_id" }
parent = { field = "parent_id", resource = "folder" }

[resource.folder.permissions]
read = "owner | parent.read"

[resource.file]
collection = "files"

[resource.file.relations]
folder = { field = "folder_id", resource = "folder" }
guest = { collection = "shares", by = "file_id", field = "user_id" }
link = { collection = "shares", by = "file_id", field = "token", subject = "link" }
granter = { collection = "shares", by = "user_id", field = "file_id" }

[resource.file.permissions]
read = "guest | link | granter | folder.read"
"#;

#[tokio::test]
async fn the_indexes_of_lists_are_named_apart_from_those_of_checks() {
    let (database, schema) = (mongo().database().await, Arc::new(schema("listed.toml", LISTED)));
    for name in ["folders", "files", "shares"] {
        database.collection::<Document>(name).insert_one(doc! { "_id": 1 }).await.unwrap();
    }
    let for_lists = |collection: &str, field: &str| Finding::NoListIndex {
        collection: collection.to_owned(),
        field: field.to_owned(),
        has_collation: false,
    };
    // An index that checks require is named once. No list searches for secrets or for the owners of files.
    let all = [
        no_index("shares", "file_id"),
        no_index("shares", "user_id"),
        for_lists("folders", "owner_id"),
        for_lists("folders", "parent_id"),
    ];
    assert_eq!(all_findings(&database, &schema).await, all);
    for finding in &all {
        assert!(!finding.is_fatal());
        make_index(&database, &finding.remedy(), &finding.remedy()).await;
    }
    assert_eq!(all_findings(&database, &schema).await, []);
}
