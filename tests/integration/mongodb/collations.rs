//! Collections with a default collation: where the schema compares texts, the application would compare them in another way.
//! `serve` does not start then, and `doctor` names the collection and the fields. Where it compares none, everything works, by
//! indexes with that collation.

use std::{fs, sync::Arc};

use mongodb::{
    Database,
    bson::{Bson, Document, doc},
};
use permcached::source::mongodb::{Finding, MongoDb};
use serde_json::Value;

use super::oid;
use crate::{
    rules::rule::NOW,
    support::{
        both::{Asked, Both, Collections, fill, question, schema, shown},
        command::{Ended, run_with},
        servers::mongo,
    },
};

/// Types with ids of both kinds, and every way to compare a text.
const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
collection = "users"
where = { role = { "$ne" = "blocked" } }

[subject.link]
id = "string"
secret = true

[resource.page]
id = "string"
collection = "pages"

[resource.page.relations]
owner = { field = "owner" }

[resource.page.permissions]
read = "owner"

[resource.file]
collection = "files"

[resource.file.relations]
owner  = { field = "owner", where = { tags = { "$elemMatch" = { label = { "$in" = [1, "mine"] }, level = 1 } } } }
member = { each = "members", field = "user", where = { role = "editor" }, document_where = { size = { "$gt" = 0 } } }
page   = { field = "page", resource = "page" }
anyone = { each = "shares", field = "user", wildcard = true }
open   = { where = { "$or" = [{ level = 1 }, { "flags.all" = { "$not" = { "$all" = ["closed"] } } }] } }
guest  = { collection = "shares", by = "file", field = "token", subject = "link" }
invitee = { collection = "invitations", by = { field = "target", format = "file:{id}" }, field = "user" }
viewer = {
  collection = "grants", by = "file", field = "id", subject = ["user", "link"], subject_type = "kind",
}
banned = { collection = "bans", by = "file", field = "user", where = { level = { "$type" = "string" }, size = { "$size" = 2 } } }

[resource.file.permissions]
read = "!banned & (owner | member | anyone | page.read | open | guest | invitee | viewer)"
"#;

/// As many types without any text.
const PLAIN: &str = r#"
default_subject = "user"

[subject.user]
collection = "users"
where = { is_active = { "$ne" = false } }

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner" }
guest = { collection = "shares", by = "file", field = "user", where = { bits = { "$bitsAllSet" = 1 } }, until = { field = "end", unit = "iso8601" } }
count = { collection = "counts", by = "number", field = "user" }

[resource.file.permissions]
read = "owner | guest"
"#;

/// Creates the collections of a schema with a default collation that ignores case.
async fn create(database: &Database, names: &[&str]) {
    for name in names {
        let collation = doc! { "locale": "en", "strength": 2 };
        database.run_command(doc! { "create": *name, "collation": collation }).await.unwrap();
    }
}

/// A source over a database, with a schema of this text.
async fn open(database: &Database, text: &str) -> MongoDb {
    MongoDb::open(Arc::new(schema("collated.toml", text)), database.clone()).await.unwrap()
}

async fn findings(database: &Database, text: &str) -> Vec<Finding> {
    let found = open(database, text).await.inspect().await.unwrap();
    found.into_iter().filter(Finding::is_fatal).collect()
}

const ALL: [&str; 7] = ["bans", "files", "grants", "invitations", "pages", "shares", "users"];

#[tokio::test]
async fn each_text_that_the_schema_compares_is_found() {
    let database = mongo().database().await;
    create(&database, &ALL).await;
    let found = |collection: &str, fields: &[&str]| Finding::Collation {
        collection: collection.to_owned(),
        collation: "`en`, strength 2".to_owned(),
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
    };
    let expected = [
        found("files", &["flags.all", "members.role", "page", "shares.user", "tags.label"]),
        found("grants", &["id", "kind"]),
        found("invitations", &["target"]),
        found("pages", &["_id"]),
        found("shares", &["token"]),
        found("users", &["role"]),
    ];
    assert_eq!(findings(&database, SCHEMA).await, expected);
    // A collation by which texts are compared byte by byte, and none.
    let plain = mongo().database().await;
    plain.run_command(doc! { "create": "pages", "collation": { "locale": "simple" } }).await.unwrap();
    plain.run_command(doc! { "create": "files" }).await.unwrap();
    assert_eq!(findings(&plain, SCHEMA).await, []);
    database.drop().await.unwrap();
}

/// The variables and the arguments of a command over this database.
fn run(database: &Database, text: &str, arguments: &[&str]) -> Ended {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("schema.toml");
    fs::write(&file, text).unwrap();
    let uri = mongo().uri();
    let variables = [
        ("MONGODB_URI", uri.as_str()),
        ("MONGODB_DATABASE", database.name()),
        ("AUTH_TOKENS", "backend:s3cret-0123456789"),
    ];
    run_with(&[arguments, &["--schema", file.to_str().unwrap()]].concat(), &variables)
}

#[tokio::test]
async fn serve_does_not_start_and_doctor_names_all_collections_at_once() {
    let database = mongo().database().await;
    create(&database, &["pages", "users"]).await;
    database.run_command(doc! { "create": "grants", "viewOn": "files", "pipeline": [] }).await.unwrap();
    let ended = tokio::task::spawn_blocking({
        let database = database.clone();
        move || {
            [
                run(&database, SCHEMA, &["serve", "--port", "0", "--bind", "127.0.0.1"]),
                run(&database, SCHEMA, &["doctor", "--json"]),
            ]
        }
    });
    let [served, examined] = ended.await.unwrap();
    assert_eq!((served.code, served.stdout.as_str()), (2, ""), "{served:?}");
    let remedy = "write each of these texts in one form";
    for words in [
        "the collection `pages` has the default collation `en`, strength 2",
        "in `_id`",
        "`users`",
        "in `role`",
        remedy,
        "`grants` is a view",
    ] {
        assert!(served.stderr.contains(words), "{words}: {served:?}");
    }
    let json: Value = serde_json::from_str(&examined.stdout).unwrap();
    assert_eq!(examined.code, 1, "{json:#}");
    for name in ["pages", "users"] {
        let of_collection = json["findings"].as_array().unwrap().iter().find(|finding| {
            finding["message"]
                .as_str()
                .unwrap()
                .starts_with(&format!("the collection `{name}` has the default collation"))
        });
        let finding = of_collection.unwrap_or_else(|| panic!("{name}: {json:#}"));
        assert_eq!(finding["verdict"], "wrong", "{finding}");
        assert!(finding["remedy"].as_str().unwrap().contains(remedy), "{finding}");
    }
    database.drop().await.unwrap();
}

#[tokio::test]
async fn without_texts_the_service_works_by_indexes_with_the_collation() {
    let documents = Collections::from([
        ("users".to_owned(), vec![doc! { "_id": oid(1) }, doc! { "_id": oid(2) }]),
        ("files".to_owned(), vec![doc! { "_id": oid(3), "owner": oid(1) }]),
        (
            "shares".to_owned(),
            vec![doc! { "_id": 1, "file": oid(3), "user": oid(2), "bits": 3, "end": "2999-01-01T00:00:00Z" }],
        ),
        ("counts".to_owned(), vec![doc! { "_id": 1, "number": 5 }]),
    ]);
    let database = mongo().database().await;
    create(&database, &["users", "files", "shares", "counts"]).await;
    fill(&database, &schema("plain.toml", PLAIN), &documents).await;
    assert_eq!(open(&database, PLAIN).await.inspect().await.unwrap(), []);
    // What the source asks, as mongod plans it.
    let find =
        doc! { "find": "shares", "filter": { "file": { "$in": [oid(3)] } }, "collation": { "locale": "simple" } };
    let plan = database.run_command(doc! { "explain": find, "verbosity": "queryPlanner" }).await.unwrap();
    let plan = Bson::Document(plan.get_document("queryPlanner").unwrap().get_document("winningPlan").unwrap().clone());
    assert!(plan.to_string().contains("\"IXSCAN\""), "{plan}");
    database.drop().await.unwrap();
}

#[tokio::test]
async fn a_text_lookup_does_not_use_an_index_with_a_collation_and_the_remedy_creates_another() {
    const BY_TEXT: &str = r#"
default_subject = "user"
[subject.user]
id = "string"
[resource.file]
id = "string"
[resource.file.relations]
guest = { collection = "shares", by = "file", field = "user" }
[resource.file.permissions]
read = "guest"
"#;
    let database = mongo().database().await;
    create(&database, &["shares"]).await;
    database.collection::<Document>("shares").insert_one(doc! { "_id": 1, "file": "a", "user": "ann" }).await.unwrap();
    let index = doc! { "key": { "file": 1 }, "name": "file_1" };
    database.run_command(doc! { "createIndexes": "shares", "indexes": [index] }).await.unwrap();
    let source = open(&database, BY_TEXT).await;
    let found = source.inspect().await.unwrap();
    let missing = found.iter().find(|finding| matches!(finding, Finding::NoIndex { .. })).unwrap();
    let remedy = "db.getCollection(\"shares\").createIndex({ \"file\": 1 }, { name: \"file_simple\", collation: { locale: \"simple\" } })";
    assert_eq!(missing.remedy(), remedy);
    let index = doc! { "key": { "file": 1 }, "name": "file_simple", "collation": { "locale": "simple" } };
    database.run_command(doc! { "createIndexes": "shares", "indexes": [index] }).await.unwrap();
    assert!(source.inspect().await.unwrap().iter().all(|finding| finding.is_fatal() || finding.is_of_lists()));
    database.drop().await.unwrap();
}

/// The queries of permcached compare byte by byte, as it does itself, whatever collation a collection has.
#[tokio::test]
async fn queries_compare_as_the_process_does() {
    let text = SCHEMA_OF_BANS;
    let collections = Collections::from([
        ("files".to_owned(), vec![doc! { "_id": "a", "owner": "ann" }, doc! { "_id": "b", "owner": "Ann" }]),
        (
            "bans".to_owned(),
            vec![
                doc! { "_id": 1, "file": "A", "user": "ann", "kind": "full" },
                doc! { "_id": 2, "file": "b", "shown": "b", "user": "ann", "kind": "FULL" },
            ],
        ),
    ]);
    let both = Both::new(schema("bans.toml", text), &collections).await;
    let asked = [("read", "a"), ("read", "b"), ("show", "a"), ("show", "b")];
    let questions =
        asked.map(|(permission, file)| question(&both.schema, "user:ann", permission, &format!("file:{file}")));
    let expected = both.ask(&questions, NOW).await;
    // The same documents in collections that ignore case.
    let database = mongo().database().await;
    create(&database, &["files", "bans"]).await;
    fill(&database, &both.schema, &collections).await;
    let source = MongoDb::open(Arc::clone(&both.schema), database.clone()).await.unwrap();
    let answers = Asked::new(&both.schema, Arc::new(source)).check(&questions, NOW).await;
    assert!(expected.iter().any(|[documents, _]| shown(&both.schema, *documents) == "allowed by file#granted"));
    for ([documents, _], checked) in expected.into_iter().zip(answers) {
        assert_eq!(documents, checked.unwrap().answer);
    }
    database.drop().await.unwrap();
}

const SCHEMA_OF_BANS: &str = r#"
default_subject = "user"
[subject.user]
id = "string"
[resource.file]
id = "string"
collection = "files"
[resource.file.relations]
owner  = { field = "owner" }
banned = { collection = "bans", by = "file", field = "user", where = { kind = "full" } }
granted = { collection = "bans", by = "shown", field = "user", where = { kind = { "$ne" = "full" } } }
[resource.file.permissions]
read = "!banned & owner"
show = "granted"
"#;
