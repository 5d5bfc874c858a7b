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
async fn what_a_condition_on_the_elements_of_an_array_reads_is_looked_at() {
    let schema = r#"
        default_subject = "user"
        [subject.user]
        [resource.file]
        collection = "files"
        [resource.file.relations]
        editor = { each = "members", field = "user", where = { rol = "editor" } }
        senior = { each = "members", field = "user", where = { level = { "$gt" = 1 } } }
        reader = { each = "members", field = "user", where = { role = "reader" } }
        [resource.file.permissions]
        read = "editor | senior | reader"
    "#;
    let file = |number: u32| {
        let level: Bson = if number.is_multiple_of(2) { 2.into() } else { "2".into() };
        doc! { "_id": oid(number), "members": [{ "user": oid(1), "role": "editor", "level": level }] }
    };
    let database = mongo().database().await;
    insert(&database, "files", (0..50).map(file).collect()).await;
    let found = examined(mongo(), database.name(), schema);
    found.remedy("wrong", "has `members.rol`, which `file#editor` reads; there is `members.role`");
    let levels = found.remedy("warning", "`files.members.level`: 25 number, 25 string, of 50 documents looked at");
    assert!(levels.contains("{ \"members.level\": { $type: \"string\" } }"), "{levels}");
    assert!(found.findings.iter().all(|finding| !finding.message.contains("`members.role`, which")), "{found:#?}");
    database.drop().await.unwrap();
}

/// No lookup finds these, not even under a `!`.
#[tokio::test]
async fn keys_in_mixed_case_and_values_on_the_way_to_a_key_are_named() {
    let schema = r#"
        default_subject = "user"
        [subject.user]
        [resource.file]
        [resource.file.relations]
        owner  = { collection = "owners", by = { field = "of", format = "file:{id}" }, field = "user" }
        banned = { collection = "bans", by = { field = "of", format = "file:{id}" }, field = "user" }
        barred = { collection = "bars", by = "target.file", field = "user" }
        named  = { collection = "names", by = "file", field = "user", format = "user:{id}" }
        [resource.file.permissions]
        read = "!banned & !barred & (owner | named)"
    "#;
    let database = mongo().database().await;
    let hex = oid(0xab).to_hex();
    let mixed = hex.replacen('a', "A", 1);
    let all = |collection: &'static str, of: Vec<Bson>| {
        let document = |(number, of): (i32, Bson)| doc! { "_id": number, "of": of.clone(), "target": { "file": oid(1) }, "user": oid(9) };
        (collection, (0..).zip(of).map(document).collect::<Vec<_>>())
    };
    let texts = || {
        let texts = [&hex, &hex.to_uppercase(), &mixed].map(|text| format!("file:{text}").into());
        // Neither is a text with hex digits.
        texts.into_iter().chain(["File:Ab".into(), "file:Ab".into()]).collect()
    };
    for (collection, documents) in [all("owners", texts()), all("bans", texts())] {
        insert(&database, collection, documents).await;
    }
    let bars = vec![
        doc! { "target": { "file": oid(1) }, "user": oid(9) },
        doc! { "_id": 7, "target": oid(1), "user": oid(9) },
    ];
    insert(&database, "bars", bars).await;
    let names = [&hex, &hex.to_uppercase(), &mixed].map(|text| doc! { "file": oid(1), "user": format!("user:{text}") });
    insert(&database, "names", names.into()).await;
    let found = examined(mongo(), database.name(), schema);
    let finding = found.finding("`names.user`: ");
    assert!(finding.message.contains("2 string, 1 string in mixed case, of 3 documents"), "{}", finding.message);
    assert!(finding.message.contains("`file#named` is indeterminate"), "{}", finding.message);
    for collection in ["owners", "bans"] {
        let message = &found.finding(&format!("`{collection}.of`: ")).message;
        assert!(message.contains("4 string, 1 string in mixed case, of 5 documents"), "{message}");
        assert!(message.contains("that one is never found, not even under a `!`"), "{message}");
    }
    let message = &found.finding("`bars.target.file`: ").message;
    assert!(
        message.contains("1 a value on the way to it that is no document") && message.contains("`_id` 7"),
        "{message}"
    );
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

/// Writes documents to a directory, as `mongoexport` does.
fn export(directory: &std::path::Path, collection: &str, documents: &[Document]) {
    let line = |document: &Document| Bson::Document(document.clone()).into_relaxed_extjson().to_string() + "\n";
    let text: String = documents.iter().map(line).collect();
    fs::write(directory.join(format!("{collection}.jsonl")), text).unwrap();
}

/// Folders of which some are gone, under a `!` without `must_exist`, with it, and where they only grant.
const TREE: &str = r#"
default_subject = "user"
subject.user.id = "objectid"

[resource.folder]
collection = "folders"

[resource.folder.relations]
owner = { field = "owner_id" }
banned = { field = "banned_ids" }
parent = { field = "parent_id", resource = "folder" }

[resource.folder.permissions]
barred = { is = "banned | parent.barred", private = true }
read = "!barred & owner"

[resource.file]
collection = "files"

[resource.file.relations]
folder = { field = "folder_id", resource = "folder", must_exist = true }
album = { each = "albums", field = "id", resource = "folder" }

[resource.file.permissions]
read = "folder.read | album.read"
"#;

fn tree() -> [(&'static str, Vec<Document>); 2] {
    let folder = |number: u32| {
        let parent: Bson = match number {
            0 => Bson::Null,
            7 | 8 => oid(900 + number).into(),
            _ => oid(number - 1).into(),
        };
        doc! { "_id": oid(number), "owner_id": oid(1), "parent_id": parent, "banned_ids": [oid(9)] }
    };
    let file = |number: u32| {
        let folder = if number < 4 { oid(950) } else { oid(number) };
        doc! { "_id": oid(100 + number), "folder_id": folder, "albums": [{ "id": oid(1) }, { "id": oid(960 + number) }] }
    };
    [("folders", (0..10).map(folder).collect()), ("files", (0..10).map(file).collect())]
}

#[track_caller]
fn assert_counts_dangling_edges(found: &Found) {
    found.assert_no_problem();
    let parents =
        "`folders.parent_id`: 2 of 9 edges, in 10 documents looked at, lead to no document of `folders` (e.g. `_id` 07";
    let remedy = found.remedy("warning", parents);
    assert!(remedy.starts_with("must_exist = true, on `folder#parent`"), "{remedy}");
    assert!(
        found.finding(parents).message.contains("what would exclude beyond them, under a `!`, does not"),
        "{found:#?}"
    );
    let folders = "`files.folder_id`: 4 of 10 edges, in 10 documents looked at, lead to no document of `folders`";
    let remedy = found.remedy("warning", folders);
    assert!(remedy.contains("unset the field"), "{remedy}");
    assert!(
        found.finding(folders).message.ends_with("`file#folder` is indeterminate, and denied with MALFORMED"),
        "{found:#?}"
    );
    let albums =
        found.finding("`files.albums.id`: 10 of 20 edges, in 10 documents looked at, lead to no document of `folders`");
    assert!(albums.message.ends_with("they grant nothing"), "{albums:?}");
}

#[tokio::test]
async fn edges_that_lead_to_nothing_are_counted_in_a_database_and_in_a_directory() {
    let database = mongo().database().await;
    let directory = tempfile::tempdir().unwrap();
    for (collection, documents) in tree() {
        export(directory.path(), collection, &documents);
        insert(&database, collection, documents).await;
    }
    assert_counts_dangling_edges(&examined(mongo(), database.name(), TREE));
    let schema = directory.path().join("schema.toml");
    fs::write(&schema, TREE).unwrap();
    let arguments = ["--schema", schema.to_str().unwrap(), "--documents", directory.path().to_str().unwrap()];
    assert_counts_dangling_edges(&doctor_with(&arguments, &[]));
}

#[tokio::test]
async fn a_directory_of_documents_is_looked_at_as_a_database_is_and_explain_names_a_misspelt_field() {
    let directory = tempfile::tempdir().unwrap();
    let files: Vec<Document> = (0..50).map(file).collect();
    export(directory.path(), "files", &files);
    export(directory.path(), "users", &[doc! { "_id": oid(1) }]);
    let bans = [doc! { "_id": 1, "file_id": oid(1).to_hex(), "user_id": oid(9) }, doc! { "_id": 2, "file_id": oid(2) }];
    export(directory.path(), "bans", &bans);
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("schema.toml"), SCHEMA).unwrap();
    let documents = directory.path().to_str().unwrap();
    let found = doctor_with(&["--schema", &path("schema.toml"), "--documents", documents], &[]);
    assert_eq!(found.code, 1, "{found:#?}");
    let misspelt =
        "no document of `files` (50 looked at) has `author_id`, which `file#owner` reads; there is `authorId`";
    found.remedy("wrong", misspelt);
    found.remedy("warning", "`bans.file_id`: 1 ObjectId, 1 string, of 2 documents looked at (e.g. `_id` 1 has string)");

    let (user, resource) = (format!("user:{}", oid(1).to_hex()), format!("file:{}", oid(3).to_hex()));
    let test = format!(
        "schema = \"schema.toml\"\ndocuments = \".\"\n[[test]]\nsubject = \"{user}\"\nresource = \"{resource}\"\ndenied = {{ read = \"MALFORMED\" }}\n"
    );
    fs::write(path("schema.test.toml"), test).unwrap();
    let tested = run_with(&["schema", "test", &path("schema.test.toml")], &[]);
    assert!(tested.output().contains("there is `authorId`"), "{tested:?}");

    let question = [user.as_str(), "read", resource.as_str()];
    let (schema, over) = (path("schema.toml"), ["--documents", documents]);
    let explained = run_with(&[&["explain", "--schema", &schema][..], &question, &over].concat(), &[]);
    assert_eq!(explained.code, 1, "{explained:?}");
    assert!(explained.stdout.contains(misspelt), "{explained:?}");

    // The same over a database.
    let database = faulty().await;
    let (uri, name) = (mongo().uri(), database.name());
    let variables = [("MONGODB_URI", uri.as_str()), ("MONGODB_DATABASE", name)];
    let explained = run_with(&[&["explain", "--schema", &schema][..], &question, &["--live"]].concat(), &variables);
    assert_eq!(explained.code, 1, "{explained:?}");
    assert!(explained.stdout.contains(misspelt), "{explained:?}");
}

#[tokio::test]
async fn names_of_types_and_dates_in_other_forms_are_named_with_what_a_schema_writes_for_them() {
    const SHARED: &str = r#"
default_subject = "user"
subject.user.id = "objectid"
subject.robot.id = "objectid"

[resource.file]
collection = "files"

[resource.file.relations]
shared = { collection = "grants", by = "file_id", field = "to", subject = ["user", "robot"], subject_type = "model", until = "ends" }

[resource.file.permissions]
read = "shared"
"#;
    let database = mongo().database().await;
    insert(&database, "files", vec![doc! { "_id": oid(1) }]).await;
    let grant = |number: u32, model: &str, to: Bson, ends: Bson| doc! { "_id": number, "file_id": oid(1), "to": to, "model": model, "ends": ends };
    let now = mongodb::bson::DateTime::now();
    let grants = vec![
        grant(1, "User", oid(1).into(), 1_800_000_000_i64.into()),
        grant(2, "user", oid(1).to_hex().into(), now.into()),
        grant(3, "robot", oid(1).into(), now.into()),
    ];
    insert(&database, "grants", grants).await;
    let found = examined(mongo(), database.name(), SHARED);
    let remedy = found
        .remedy("warning", "`grants.model`: 2 string, 1 the text \"User\", of 3 documents looked at (e.g. `_id` 1 has");
    assert!(remedy.contains("the schema expects `user` and `robot`") && remedy.contains("subject = {"), "{remedy}");
    let remedy =
        found.remedy("warning", "`grants.ends`: 2 date, 1 number, of 3 documents looked at (e.g. `_id` 1 has number)");
    assert!(remedy.contains("unit = \"seconds\""), "{remedy}");
    let remedy = found
        .remedy("warning", "`grants.to`: 2 ObjectId, 1 string, of 3 documents looked at (e.g. `_id` 2 has string)");
    assert!(remedy.contains("format = \"{id}\""), "{remedy}");
}
