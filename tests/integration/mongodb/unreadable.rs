//! Documents in which something cannot be read: text that is not UTF-8, names twice. What depends on it is indeterminate,
//! and the other documents of the same `find` are not affected.
//!
//! The events of such documents are tested in `freshness::unreadable`.

use std::{collections::BTreeMap, sync::Arc};

use bson::{Bson, Document, doc, oid::ObjectId};
use mongodb::Database;
use permcached::{question::Millis, source::mongodb::MongoDb};

use crate::support::{
    both::{Asked, fill, question, schema, shown},
    raw::{Raw, insert},
    servers::mongo,
};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
collection = "users"
where = { is_active = { "$ne" = false } }

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner_id" }
deleted = { where = { gone = true } }
locked = { where = { "meta.locked" = true } }
reader = { each = "readers", field = "user_id", where = { level = "read" } }
kept = { where = { keep = { "$exists" = true } } }
guest = { collection = "shares", by = "file_id", field = "user_id", where = { active = true }, until = "ends" }
banned = { collection = "bans", by = "file_id", field = "user_id", where = { lifted = { "$ne" = true } } }

[resource.file.permissions]
read = "!deleted & !locked & !banned & (owner | reader | guest)"
keep = "kept & owner"
"#;

const MALFORMED: &str = "denied MALFORMED";
const NO_GRANT: &str = "denied NO_GRANT";
const BAD: &[u8] = b"s3cret\xff";

fn id(number: u8) -> ObjectId {
    ObjectId::from_bytes([number; 12])
}

async fn application() -> (Asked, Database) {
    let schema = Arc::new(schema("unreadable.toml", SCHEMA));
    let database = mongo().database().await;
    let users = vec![doc! { "_id": id(100) }, doc! { "_id": id(101) }];
    fill(&database, &schema, &BTreeMap::from([("users".to_owned(), users)])).await;
    let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.unwrap();
    let commands = source.commands().clone();
    let asked = Asked::new(&schema, Arc::new(source));
    asked.metrics.show_commands(&commands);
    (asked, database)
}

/// The answers to whether the users may do this to the files, in one batch.
async fn ask(asked: &Asked, questions: &[(u8, &str, u8)]) -> Vec<String> {
    let one = |(user, permission, file): &(u8, &str, u8)| {
        question(&asked.schema, &format!("user:{}", id(*user)), permission, &format!("file:{}", id(*file)))
    };
    let questions: Vec<_> = questions.iter().map(one).collect();
    let checked = asked.check(&questions, Millis::from(1)).await;
    checked.into_iter().map(|checked| shown(&asked.schema, checked.expect("an answer").answer)).collect()
}

fn file(number: u8) -> Raw {
    Raw::of(&doc! { "_id": id(number), "owner_id": id(100) })
}

fn share(number: u8, file: u8) -> Raw {
    Raw::of(&doc! { "_id": id(number), "file_id": id(file), "user_id": id(101), "active": true })
}

#[tokio::test]
async fn one_document_that_cannot_be_read_does_not_affect_the_others_of_a_find() {
    let (asked, database) = application().await;
    for number in 1..=4 {
        insert(&database, "files", &file(number)).await;
    }
    insert(&database, "shares", &share(51, 1)).await;
    let bad = Raw::of(&doc! { "_id": id(52), "file_id": id(2), "active": true }).text(b"user_id", BAD);
    insert(&database, "shares", &bad).await;
    // Only one of the two keys may be the right one.
    let twice = Raw::of(&doc! { "_id": id(53), "file_id": id(3) }).and(&doc! { "file_id": id(4), "user_id": id(101) });
    insert(&database, "shares", &twice.and(&doc! { "active": true })).await;
    let answers = ask(&asked, &[1, 2, 3, 4].map(|file| (101, "read", file))).await;
    assert_eq!(answers, ["allowed by file#guest", MALFORMED, MALFORMED, NO_GRANT]);
    let owner = ask(&asked, &[1, 2, 3, 4].map(|file| (100, "read", file))).await;
    assert_eq!(owner, ["allowed by file#owner"; 4]);
    assert!(asked.metric("permcached_documents_unreadable_total{collection=\"shares\"}") >= 2);
}

/// mongod returns as many fields as the projection names, and none of those behind them: here `gone` a second time.
#[tokio::test]
async fn a_second_value_that_mongod_does_not_return_is_indeterminate() {
    let (asked, database) = application().await;
    let fields = |number: u8| doc! { "_id": id(number), "owner_id": id(100), "meta": {}, "readers": [], "keep": 1, "gone": false };
    for (number, again) in [(1, "keep"), (2, "meta"), (3, "readers")] {
        let fields = fields(number);
        let repeated = doc! { again: fields.get(again) };
        insert(&database, "files", &Raw::of(&fields).and(&repeated).and(&doc! { "gone": true })).await;
        assert_eq!(ask(&asked, &[(100, "read", number)]).await, [MALFORMED], "{again}");
    }
    insert(&database, "files", &Raw::of(&fields(4))).await;
    assert_eq!(ask(&asked, &[(100, "read", 4)]).await, ["allowed by file#owner"], "no name occurs twice");
}

#[tokio::test]
async fn a_name_that_occurs_twice_on_a_path_is_indeterminate_in_either_order() {
    let (asked, database) = application().await;
    let both = |name: &str, one: Bson, other: Bson| {
        let of = |first: &Bson, second: &Bson| Raw::of(&doc! { name: first }).and(&doc! { name: second });
        [of(&one, &other), of(&other, &one), of(&one, &one)]
    };
    let mut number = 0_u8;
    for fields in both("gone", true.into(), false.into()) {
        number += 1;
        insert(&database, "files", &file(number).and_all(fields)).await;
        assert_eq!(ask(&asked, &[(100, "read", number)]).await, [MALFORMED], "gone {number}");
    }
    for inner in both("locked", true.into(), false.into()) {
        number += 1;
        insert(&database, "files", &file(number).document(b"meta", &inner)).await;
        assert_eq!(ask(&asked, &[(100, "read", number)]).await, [MALFORMED], "locked {number}");
    }
    for meta in both("meta", doc! { "locked": true }.into(), doc! { "locked": false }.into()) {
        number += 1;
        insert(&database, "files", &file(number).and_all(meta)).await;
        assert_eq!(ask(&asked, &[(100, "read", number)]).await, [MALFORMED], "meta {number}");
    }
    for owners in both("owner_id", id(100).into(), id(102).into()) {
        number += 1;
        insert(&database, "files", &Raw::of(&doc! { "_id": id(number) }).and_all(owners)).await;
        assert_eq!(ask(&asked, &[(100, "read", number)]).await, [MALFORMED], "owner_id {number}");
    }
    for level in both("level", "read".into(), "none".into()) {
        number += 1;
        let reader = Raw::of(&doc! { "user_id": id(101) }).and_all(level);
        let readers = Raw::default().document(b"0", &reader);
        insert(&database, "files", &file(number).array(b"readers", &readers)).await;
        assert_eq!(ask(&asked, &[(101, "read", number)]).await, [MALFORMED], "level {number}");
        assert_eq!(ask(&asked, &[(100, "read", number)]).await, ["allowed by file#owner"], "level {number}");
    }
    for keep in both("keep", 1.into(), 2.into()) {
        number += 1;
        insert(&database, "files", &file(number).and_all(keep)).await;
        assert_eq!(ask(&asked, &[(100, "keep", number)]).await, [MALFORMED], "keep {number}");
    }
    // mongod compares the first value with a condition, and does not return the document if it does not match.
    let shares = both("active", true.into(), false.into()).into_iter().zip([MALFORMED, NO_GRANT, MALFORMED]);
    for (active, expected) in shares {
        number += 1;
        insert(&database, "files", &file(number)).await;
        let share = Raw::of(&doc! { "_id": id(number), "file_id": id(number), "user_id": id(101) }).and_all(active);
        insert(&database, "shares", &share).await;
        assert_eq!(ask(&asked, &[(101, "read", number)]).await, [expected], "active {number}");
    }
    for lifted in both("lifted", true.into(), false.into()) {
        number += 1;
        insert(&database, "files", &file(number)).await;
        let ban = Raw::of(&doc! { "_id": id(number), "file_id": id(number), "user_id": id(100) }).and_all(lifted);
        insert(&database, "bans", &ban).await;
        assert_eq!(ask(&asked, &[(100, "read", number)]).await, [MALFORMED], "lifted {number}");
    }
    number += 1;
    insert(&database, "files", &Raw::of(&doc! { "_id": id(number), "owner_id": id(110) })).await;
    for active in both("is_active", true.into(), false.into()) {
        database.collection::<Document>("users").delete_one(doc! { "_id": id(110) }).await.unwrap();
        insert(&database, "users", &Raw::of(&doc! { "_id": id(110) }).and_all(active)).await;
        assert_eq!(ask(&asked, &[(110, "read", number)]).await, [MALFORMED], "is_active");
    }
}

#[tokio::test]
async fn a_name_that_occurs_twice_where_no_relation_reads_changes_nothing() {
    let (asked, database) = application().await;
    insert(&database, "files", &file(1).and(&doc! { "title": 1 }).and(&doc! { "title": 2 })).await;
    insert(&database, "files", &file(2).text(b"title", BAD).element(0x10, BAD, &[1, 0, 0, 0])).await;
    assert_eq!(ask(&asked, &[(100, "read", 1), (100, "read", 2)]).await, ["allowed by file#owner"; 2]);
    assert_eq!(asked.metric("permcached_documents_unreadable_total{collection=\"files\"}"), 0);
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_a_value_of_a_wrong_type_wherever_it_stands() {
    let (asked, database) = application().await;
    let inner = Raw::default().element(0x10, BAD, &[1, 0, 0, 0]);
    let regex = |name: &[u8]| Raw::default().element(0x0B, name, b"s3cret\xff\0\0");
    let files = [
        Raw::default().text(b"gone", BAD),
        regex(b"gone"),
        Raw::default().document(b"gone", &inner),
        Raw::default().element(0x0E, b"gone", &[&[8, 0, 0, 0], BAD, &[0]].concat()),
        Raw::default().text(b"meta", BAD),
        Raw::default().document(b"meta", &Raw::default().text(b"locked", BAD)),
        regex(b"meta"),
    ];
    for (number, fields) in (1..).zip(files) {
        insert(&database, "files", &file(number).and_all(fields)).await;
        assert_eq!(ask(&asked, &[(100, "read", number)]).await, [MALFORMED], "{number}");
    }
    // A field with a name that is no text beside one that is read.
    insert(&database, "files", &file(20).document(b"meta", &inner.and(&doc! { "locked": false }))).await;
    assert_eq!(ask(&asked, &[(100, "read", 20)]).await, ["allowed by file#owner"]);
    // Names of elements of arrays may be anything.
    let reader = Raw::of(&doc! { "user_id": id(101), "level": "read" });
    insert(&database, "files", &file(21).array(b"readers", &Raw::default().document(BAD, &reader))).await;
    assert_eq!(ask(&asked, &[(101, "read", 21)]).await, ["allowed by file#reader"]);
    // An id that is no text, beside one that is.
    let readers = Raw::default().document(b"0", &Raw::of(&doc! { "level": "read" }).text(b"user_id", BAD));
    insert(&database, "files", &file(22).array(b"readers", &readers.document(b"1", &reader))).await;
    assert_eq!(ask(&asked, &[(101, "read", 22), (100, "read", 22)]).await[0], "allowed by file#reader");
}

#[tokio::test]
async fn a_document_whose_id_is_null_does_not_break_probes() {
    let (asked, database) = application().await;
    for collection in ["bans", "files", "shares", "users"] {
        let null = Raw::default().element(0x0A, b"_id", &[]).text(b"note", BAD);
        insert(&database, collection, &null).await;
    }
    insert(&database, "files", &file(1)).await;
    assert_eq!(ask(&asked, &[(100, "read", 1)]).await, ["allowed by file#owner"]);
}
