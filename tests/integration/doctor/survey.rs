//! `permcached doctor` on documents that do not fit the schema: it names the field, the share of documents, one of them, what
//! follows and what to do. `schema test --live` and the start of `serve` say the same.

use std::fs;

use mongodb::{
    Database,
    bson::{Bson, Document, doc, oid::ObjectId},
};

use super::{Found, doctor_with};
use crate::support::{
    command::run_with,
    servers::{Mongo, mongo},
};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
collection = "users"

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "author_id" }
editor = { field = "editors" }
guest = { collection = "shares", by = "file_id", field = "user_id", until = "expires" }
banned = { collection = "bans", by = "file_id", field = "user_id" }
reviewer = { each = "reviews", field = "reviewer.id", where = { state = "open" } }
public = { where = { "meta.isPublic" = true } }
kept = { where = { roles = "admin" } }

[resource.file.permissions]
read = "!banned & (owner | editor | guest | reviewer | public | kept)"
"#;

fn oid(number: u32) -> ObjectId {
    let mut bytes = [7; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

async fn insert(database: &Database, collection: &str, documents: Vec<Document>) {
    database.collection::<Document>(collection).insert_many(documents).await.unwrap();
}

fn file(number: u32) -> Document {
    doc! {
        "_id": oid(number), "authorId": oid(1), "editors": { oid(1).to_hex(): "write" },
        "reviews": [{ "reviewer": { "_id": oid(2) }, "state": "open" }], "meta": { "is_public": true },
        "roles": { "admin": true },
    }
}

/// A database in which each field has another fault.
async fn faulty() -> Database {
    let database = mongo().database().await;
    insert(&database, "users", vec![doc! { "_id": oid(1) }]).await;
    insert(&database, "files", (0..50).map(file).collect()).await;
    let ban = |number: u32| {
        let file: Bson = match number {
            0..=2 => oid(number).to_hex().into(),
            3 => doc! { "$ref": "files", "$id": oid(3) }.into(),
            4 => Bson::Array(vec![Bson::Array(vec![oid(3).into()])]),
            _ => oid(number).into(),
        };
        doc! { "_id": format!("ban{number:04}"), "file_id": file, "user_id": oid(9) }
    };
    insert(&database, "bans", (0..1_000).map(ban).collect()).await;
    let share = |number: u32| {
        let file: Bson = if number < 4 { oid(number).to_hex().into() } else { oid(number).into() };
        let expires: Bson = if number == 5 { "2027-01-01".into() } else { mongodb::bson::DateTime::now().into() };
        doc! { "_id": format!("share{number:04}"), "file_id": file, "user_id": oid(9), "expires": expires }
    };
    insert(&database, "shares", (0..3_000).map(share).collect()).await;
    database
}

fn examined(server: &Mongo, database: &str, schema: &str) -> Found {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("schema.toml");
    fs::write(&file, schema).unwrap();
    let variables = [("MONGODB_URI", server.uri()), ("MONGODB_DATABASE", database.to_owned())];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    doctor_with(&["--schema", file.to_str().unwrap()], &variables)
}

#[tokio::test]
async fn documents_that_do_not_fit_the_schema_are_named_with_a_remedy() {
    let database = faulty().await;
    let found = examined(mongo(), database.name(), SCHEMA);
    assert_eq!(found.code, 1, "{found:#?}");

    let remedy = found.remedy(
        "wrong",
        "no document of `files` (50 looked at) has `author_id`, which `file#owner` reads; there is `authorId`",
    );
    assert!(remedy.contains("write `authorId`"), "{remedy}");
    let words = "has `meta.isPublic`, which `file#public` reads; there is `meta.is_public`";
    found.remedy("wrong", words);
    found.remedy("wrong", "has `reviews.reviewer.id`, which `file#reviewer` reads; there is `reviews.reviewer._id`");

    let bans = "`bans.file_id`: 995 ObjectId, 1 array in an array, 1 document, 3 string, of 1000 documents looked at (e.g. `_id` ban";
    let remedy = found.remedy("warning", bans);
    assert!(remedy.contains("db.getCollection(\"bans\").find("), "{remedy}");
    assert!(found.finding(bans).message.contains("`file#banned` is indeterminate under its `!`"), "{found:#?}");

    // The oldest documents are always among those that are looked at.
    let shares = &found.finding("`shares.file_id`: ").message;
    assert!(shares.contains(" 4 string, of ") && shares.contains(" documents looked at"), "{shares}");
    assert!(shares.ends_with("(e.g. `_id` share0000 has string): those 4 are never found"), "{shares}");
    let expires = found.finding("`shares.expires`: ");
    assert!(expires.message.contains("1 string") && expires.message.contains("share0005"), "{expires:?}");

    let editors = found.remedy("warning", "`files.editors`: 50 document");
    assert!(editors.contains("names of fields cannot be read") && editors.contains("`each`"), "{editors}");
    let roles = found.remedy("warning", "`files.roles`: 50 document");
    assert!(roles.contains("where = { \"roles.admin\" = true }"), "{roles}");
    assert!(found.finding("`files.roles`").message.contains("names such as `admin`"), "{found:#?}");
}

#[tokio::test]
async fn documents_that_fit_the_schema_are_not_mentioned() {
    let database = mongo().database().await;
    insert(&database, "users", vec![doc! { "_id": oid(1) }]).await;
    let file = doc! {
        "_id": oid(3), "author_id": oid(1), "editors": [oid(1)], "meta": { "isPublic": null }, "roles": ["admin"],
        "reviews": [{ "reviewer": { "id": oid(2) }, "state": "open" }],
    };
    insert(&database, "files", vec![file]).await;
    insert(&database, "bans", vec![doc! { "file_id": [oid(3)], "user_id": oid(1) }]).await;
    insert(&database, "shares", vec![doc! { "file_id": oid(3), "user_id": null }, doc! { "user_id": oid(1) }]).await;
    let found = examined(mongo(), database.name(), SCHEMA);
    found.assert_no_problem();
    let about_documents = found.findings.iter().find(|finding| finding.message.contains("looked at"));
    assert!(about_documents.is_none(), "{about_documents:?}");
}

#[tokio::test]
async fn a_schema_test_over_a_database_names_what_does_not_fit() {
    let database = faulty().await;
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("schema.toml"), SCHEMA).unwrap();
    let tests = directory.path().join("schema.test.toml");
    let (user, file) = (oid(9).to_hex(), oid(1).to_hex());
    let asked = format!(
        "[[test]]\nsubject = \"user:{user}\"\nresource = \"file:{file}\"\ndenied = {{ read = \"NO_GRANT\" }}\n"
    );
    fs::write(&tests, format!("schema = \"schema.toml\"\n{asked}")).unwrap();
    let uri = mongo().uri();
    let variables = [("MONGODB_URI", uri.as_str()), ("MONGODB_DATABASE", database.name())];
    let ended = run_with(&["schema", "test", tests.to_str().unwrap(), "--live"], &variables);
    let output = ended.output();
    assert!(output.contains("there is `authorId`") && output.contains("are never found"), "{output}");
}
