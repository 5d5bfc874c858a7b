//! MongoDB as the source, over a real replica set: tokens, limits, what is not there, ids of every form as keys. What goes
//! wrong is in `mongodb/faults.rs`, what is said about the database at start in `mongodb/inspection.rs`.

mod faults;
mod inspection;

use std::{collections::BTreeSet, sync::Arc};

use mongodb::bson::{Binary, Bson, Decimal128, Document, Timestamp, Uuid, doc, oid::ObjectId, spec::BinarySubtype};
use permcached::{
    check::{CheckError, Demand},
    freshness::{Clock, Moment, Token},
    question::Question,
    schema::Schema,
    source::{Deadline, mongodb::MongoDb},
};

use crate::{
    rules::rule::NOW,
    support::{
        both::{Asked, Both, Collections, TIME_MAX, fill, question, schema, shipped_schema, shown},
        monitored::{Monitor, commands, level},
        servers::mongo,
    },
};

fn oid(number: u8) -> ObjectId {
    ObjectId::from_bytes([number; 12])
}

/// User 1 owns file 3 in folder 4; user 2 may be its guest.
fn small_fylora() -> Collections {
    Collections::from([
        ("users".to_owned(), vec![doc! { "_id": oid(1) }, doc! { "_id": oid(2) }]),
        ("files".to_owned(), vec![doc! { "_id": oid(3), "owner_id": oid(1), "folder_id": oid(4) }]),
        ("folders".to_owned(), vec![doc! { "_id": oid(4), "owner_id": oid(1), "parent_id": null }]),
    ])
}

fn read(schema: &Schema, user: u8) -> Question {
    question(schema, &format!("user:{}", oid(user)), "read", &format!("file:{}", oid(3)))
}

fn token(time: Timestamp) -> Token {
    Token { clock: Clock::Cluster, moment: Moment::new(time.time, time.increment) }
}

#[tokio::test]
async fn a_token_of_a_write_is_honoured() {
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let database = mongo().database().await;
    fill(&database, &schema, &small_fylora()).await;
    let monitor = Monitor::default();
    let client = monitor.client(mongo(), "mongodb-token").await;
    let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.unwrap();
    let asked = Asked::new(&schema, Arc::new(source));
    let questions = [read(&schema, 2)];
    let share = doc! { "_id": 1, "file_id": oid(3), "share_type": "internal", "shared_with_user_id": oid(2) };
    let mut before = None;
    for _ in 0..8 {
        let grant = doc! { "insert": "shares", "documents": [share.clone()] };
        let revoke = doc! { "delete": "shares", "deletes": [{ "q": { "_id": 1 }, "limit": 1 }] };
        for (write, expected) in [(grant, "allowed by file#guest"), (revoke, "denied NO_GRANT")] {
            let written = token(database.run_command(write).await.unwrap().get_timestamp("operationTime").unwrap());
            monitor.take();
            let demand = Demand::AtLeastAsFresh(written);
            let checked = asked.checker.check(&questions, demand, Deadline::after(TIME_MAX)).await.remove(0).unwrap();
            assert_eq!(shown(&schema, checked.answer), expected);
            assert!(checked.as_of.moment >= written.moment, "{} {written}", checked.as_of);
            for find in commands(&monitor.take(), "find").iter().filter(|find| level(find) == "snapshot") {
                let after = find.get_document("readConcern").unwrap().get_timestamp("afterClusterTime").unwrap();
                assert!(token(after).moment >= written.moment, "{after:?} {written}");
            }
            // The answer's own moment is a token that covers what it saw.
            let demand = Demand::AtLeastAsFresh(checked.as_of.to_string().parse().unwrap());
            let again = asked.checker.check(&questions, demand, Deadline::after(TIME_MAX)).await.remove(0).unwrap();
            assert_eq!(shown(&schema, again.answer), expected);
            assert!(again.as_of.moment >= checked.as_of.moment);
            // An older token is no reason to look at the past.
            if let Some(before) = before.replace(written) {
                let demand = Demand::AtLeastAsFresh(before);
                let now = asked.checker.check(&questions, demand, Deadline::after(TIME_MAX)).await.remove(0).unwrap();
                assert_eq!(shown(&schema, now.answer), expected);
            }
        }
    }
}

#[tokio::test]
async fn a_token_from_the_future_is_refused() {
    let both = Both::new(shipped_schema("fylora-sharing.toml"), &small_fylora()).await;
    let questions = [read(&both.schema, 1)];
    let now = both.mongodb.check(&questions, NOW).await.remove(0).unwrap().as_of;
    for moment in [Moment::new(now.moment.seconds() + 1_000, 1), Moment::new(u32::MAX, u32::MAX)] {
        let demand = Demand::AtLeastAsFresh(Token { moment, ..now });
        let refused = both.mongodb.checker.check(&questions, demand, Deadline::after(TIME_MAX)).await.remove(0);
        assert!(matches!(refused, Err(CheckError::FutureToken)), "{refused:?}");
    }
    for clock in [Clock::Local, Clock::Revision] {
        let demand = Demand::AtLeastAsFresh(Token { clock, moment: Moment::from_count(1) });
        let refused = both.mongodb.checker.check(&questions, demand, Deadline::after(TIME_MAX)).await.remove(0);
        assert!(matches!(refused, Err(CheckError::ForeignToken { source_clock: "cluster", .. })), "{refused:?}");
    }
}

/// Grants of documents by number to users by number.
const GRANTS: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "integer"
    [resource.page]
    id = "integer"
    [resource.page.relations]
    reader = { collection = "grants", by = "page", field = "user" }
    banned = { collection = "bans", by = "page", field = "user" }
    [resource.page.permissions]
    read   = "reader"
    browse = "!banned"
"#;

/// So many grants of a page: the last is user 7's.
fn grants(page: i32, count: i32) -> impl Iterator<Item = Document> {
    (1..=count).map(move |number| doc! { "page": page, "user": if number == count { 7 } else { 1_000 + number } })
}

#[tokio::test]
async fn a_fact_of_more_than_1000_documents_is_indeterminate_and_the_rest_of_a_batch_is_answered() {
    let documents = grants(1, 1_001).chain(grants(2, 1_000)).chain(grants(3, 1)).collect();
    let bans = grants(1, 1_001).chain(grants(3, 1)).collect();
    let collections = Collections::from([("grants".to_owned(), documents), ("bans".to_owned(), bans)]);
    let both = Both::new(schema("grants.toml", GRANTS), &collections).await;
    let ask = |permission: &str, page: &str| question(&both.schema, "user:7", permission, &format!("page:{page}"));
    let batch = [
        (ask("read", "1"), "denied LIMIT"),
        (ask("read", "2"), "allowed by page#reader"),
        (ask("read", "3"), "allowed by page#reader"),
        (ask("read", "4"), "denied NO_GRANT"),
        // Not through a `!` either.
        (ask("browse", "1"), "denied LIMIT"),
        (ask("browse", "2"), "allowed"),
        (ask("browse", "3"), "denied EXCLUDED"),
    ];
    let questions: Vec<Question> = batch.iter().map(|(question, _)| question.clone()).collect();
    for (answers, (question, expected)) in both.ask(&questions, NOW).await.into_iter().zip(&batch) {
        assert_eq!(both.objection(answers, |text| text == *expected), None, "{question:?}");
        // Alone it is the same.
        let alone = both.ask(std::slice::from_ref(question), NOW).await[0];
        assert_eq!(both.objection(alone, |text| text == *expected), None, "{question:?}");
    }
}

/// A checker over a monitored client, over documents of the schema of grants.
async fn monitored_grants(app_name: &str, documents: Vec<Document>) -> (Asked, Monitor) {
    let schema = Arc::new(schema("grants.toml", GRANTS));
    let database = mongo().database().await;
    fill(&database, &schema, &Collections::from([("grants".to_owned(), documents)])).await;
    let monitor = Monitor::default();
    let client = monitor.client(mongo(), app_name).await;
    let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.unwrap();
    (Asked::new(&schema, Arc::new(source)), monitor)
}

#[tokio::test]
async fn a_lookup_of_more_than_40000_documents_is_split() {
    let documents = (0..42).flat_map(|page| grants(page, 1_000)).collect();
    let (asked, monitor) = monitored_grants("mongodb-split", documents).await;
    let schema = asked.checker.schema();
    let questions: Vec<Question> = (0..50).map(|page| question(schema, "user:7", "read", &format!("page:{page}"))).collect();
    monitor.take();
    let checked = asked.check(&questions, NOW).await;
    for (page, checked) in checked.into_iter().enumerate() {
        let expected = if page < 42 { "allowed by page#reader" } else { "denied NO_GRANT" };
        assert_eq!(shown(schema, checked.unwrap().answer), expected, "{page}");
    }
    let finds = commands(&monitor.take(), "find");
    let finds: Vec<_> = finds.iter().filter(|find| level(find) == "snapshot").collect();
    assert_eq!(finds.len(), 3, "all, and each half: {finds:?}");
}

#[tokio::test]
async fn documents_that_fit_in_no_reply_are_indeterminate_and_the_rest_of_a_batch_is_answered() {
    // 18 MB in 900 documents: a reply has 16.
    let filler = "x".repeat(20_000);
    let large = (0..900).map(|_| doc! { "page": 1, "user": &filler });
    let (asked, monitor) = monitored_grants("mongodb-large", large.chain(grants(2, 3)).collect()).await;
    let schema = asked.checker.schema();
    let questions = ["page:1", "page:2", "page:3"].map(|page| question(schema, "user:7", "read", page));
    monitor.take();
    let checked = asked.check(&questions, NOW).await;
    let answers: Vec<String> = checked.into_iter().map(|checked| shown(schema, checked.unwrap().answer)).collect();
    assert_eq!(answers, ["denied LIMIT", "allowed by page#reader", "denied NO_GRANT"]);
    // No cursor is left open.
    let events = monitor.take();
    let (finds, killed) = (commands(&events, "find"), commands(&events, "killCursors"));
    assert!(!killed.is_empty() && killed.len() < finds.len(), "{} {}", killed.len(), finds.len());
    assert!(commands(&events, "getMore").is_empty());
}

#[tokio::test]
async fn missing_collections_are_empty() {
    let schema = shipped_schema("fylora-sharing.toml");
    let everything = |schema: &Schema| {
        let subjects = [format!("user:{}", oid(1)), "link:token".to_owned(), "code:C0DE".to_owned()];
        let kinds = ["file", "folder", "note", "team"];
        let permission = |kind| if kind == "team" { "view" } else { "read" };
        let ask = |subject: &String| kinds.map(|kind| question(schema, subject, permission(kind), &format!("{kind}:{}", oid(3))));
        subjects.iter().flat_map(ask).collect::<Vec<Question>>()
    };
    // None at all, not even the database.
    let source = Arc::new(schema);
    let database = mongo().database().await;
    let mongodb = MongoDb::open(Arc::clone(&source), database).await.unwrap();
    let asked = Asked::new(&source, Arc::new(mongodb));
    for checked in asked.check(&everything(&source), NOW).await {
        let shown = shown(&source, checked.unwrap().answer);
        assert!(["denied SUBJECT_INACTIVE", "denied NOT_FOUND"].contains(&shown.as_str()), "{shown}");
    }
    // Those of shares and codes.
    let database = mongo().database().await;
    for (name, documents) in small_fylora() {
        database.collection::<Document>(&name).insert_many(documents).await.unwrap();
    }
    let mongodb = MongoDb::open(Arc::clone(&source), database).await.unwrap();
    let asked = Asked::new(&source, Arc::new(mongodb));
    let answers = asked.check(&everything(&source), NOW).await;
    let answers: Vec<String> = answers.into_iter().map(|checked| shown(&source, checked.unwrap().answer)).collect();
    let of_files: Vec<&str> = answers.iter().step_by(4).map(String::as_str).collect();
    assert_eq!(of_files, ["allowed by file#owner", "denied NO_GRANT", "denied NO_GRANT"]);
}

/// The same collection, looked up by the same fields, for resources whose ids have different forms.
const KEYS: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "integer"

    [resource.by_number]
    id = "integer"
    [resource.by_number.relations]
    flat   = { collection = "grants", by = "of", field = "user" }
    nested = { collection = "grants", by = "refs.of", field = "user" }
    [resource.by_number.permissions]
    read = "flat | nested"

    [resource.by_text]
    id = "string"
    [resource.by_text.relations]
    flat   = { collection = "grants", by = "of", field = "user" }
    nested = { collection = "grants", by = "refs.of", field = "user" }
    [resource.by_text.permissions]
    read = "flat | nested"

    [resource.by_uuid]
    id = "uuid"
    [resource.by_uuid.relations]
    flat   = { collection = "grants", by = "of", field = "user" }
    nested = { collection = "grants", by = "refs.of", field = "user" }
    [resource.by_uuid.permissions]
    read = "flat | nested"

    [resource.by_oid]
    [resource.by_oid.relations]
    flat   = { collection = "grants", by = "of", field = "user" }
    nested = { collection = "grants", by = "refs.of", field = "user" }
    [resource.by_oid.permissions]
    read = "flat | nested"

    [resource.numbered]
    id = "integer"
    collection = "numbered"
    [resource.numbered.relations]
    owner = { field = "owner" }
    [resource.numbered.permissions]
    read = "owner"
"#;

/// Values that are, or look like, ids.
fn key_values() -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().unwrap());
    let uuid = Uuid::parse_str("00112233-4455-6677-8899-aabbccddeeff").unwrap();
    let bytes = uuid.bytes().to_vec();
    let binary = |subtype| Bson::Binary(Binary { subtype, bytes: bytes.clone() });
    let mut values = vec![
        Bson::Int32(5), Bson::Int64(5), Bson::Double(5.0), decimal("5"), decimal("5.00"), decimal("0.5E1"), decimal("50E-1"),
        Bson::Double(5.5), decimal("5.5"), Bson::Double(f64::NAN), decimal("NaN"), decimal("Infinity"), Bson::Double(-0.0), decimal("-0"), Bson::Int32(0),
        Bson::Int64(9_007_199_254_740_993), Bson::Double(9_007_199_254_740_992.0), decimal("9007199254740993"),
        Bson::Int64(i64::MAX), Bson::Int64(i64::MIN), Bson::Double(-9_223_372_036_854_775_808.0), Bson::Double(9_223_372_036_854_775_808.0),
        decimal("9223372036854775807"), decimal("9223372036854775808"), decimal("1E+6000"), decimal("1E-6000"), decimal("5E+1"), Bson::Int32(50),
        "5".into(), "".into(), "*".into(), "050505050505050505050505".into(), "00112233-4455-6677-8899-aabbccddeeff".into(), "é".into(),
        "e\u{301}".into(), Bson::Symbol("5".into()), oid(5).into(), oid(6).into(), Bson::Binary(uuid.into()), binary(BinarySubtype::UuidOld),
        binary(BinarySubtype::Generic), Bson::Boolean(true), Bson::Null, doc! { "of": 5 }.into(), Bson::MinKey,
    ];
    values.extend([
        vec![Bson::Int32(5), "5".into()], vec![Bson::Double(5.0), Bson::Int32(5)], vec![], vec![Bson::Array(vec![5.into()])], vec![oid(5).into(), Bson::Binary(uuid.into())],
        vec![Bson::Null, decimal("5.0")],
    ].map(Bson::Array));
    values
}

/// Every id that these values could be.
const ASKED_FOR: [(&str, &[&str]); 4] = [
    (
        "by_number",
        &["5", "0", "50", "6", "9007199254740993", "9007199254740992", "9223372036854775807", "-9223372036854775808"],
    ),
    ("by_text", &["5", "050505050505050505050505", "00112233-4455-6677-8899-aabbccddeeff", "é", "e\u{301}"]),
    ("by_uuid", &["00112233-4455-6677-8899-aabbccddeeff"]),
    ("by_oid", &["050505050505050505050505", "060606060606060606060606"]),
];

/// The value that a question's id is in a query.
fn key_of(kind: &str, id: &str) -> Bson {
    match kind {
        "by_text" => id.into(),
        "by_uuid" => Bson::Binary(Uuid::parse_str(id).unwrap().into()),
        "by_oid" => ObjectId::parse_str(id).unwrap().into(),
        _ => Bson::Int64(id.parse().unwrap()),
    }
}

#[tokio::test]
async fn ids_of_every_form_are_found_as_mongod_finds_them() {
    let mut documents = Vec::new();
    for (number, value) in (0..).zip(key_values()) {
        documents.push(doc! { "_id": 4 * number, "user": 4 * number, "of": value.clone() });
        documents.push(doc! { "_id": 4 * number + 1, "user": 4 * number + 1, "refs": { "of": value.clone() } });
        documents.push(doc! { "_id": 4 * number + 2, "user": 4 * number + 2, "refs": [{ "of": "other" }, { "of": value.clone() }, 5] });
        documents.push(doc! { "_id": 4 * number + 3, "user": 4 * number + 3, "refs": [[{ "of": value }]] });
    }
    let count = i32::try_from(documents.len()).unwrap();
    // An `_id` is one of these and no array; equal ones exclude each other.
    let own = [Bson::Int32(1), Bson::Int64(2), Bson::Double(3.0), Bson::Decimal128("4.0".parse().unwrap()), Bson::Double(5.5), "6".into()];
    let numbered = (0..).zip(own).map(|(owner, id)| doc! { "_id": id, "owner": owner }).collect();
    let collections = Collections::from([("grants".to_owned(), documents), ("numbered".to_owned(), numbered)]);
    let both = Both::new(schema("keys.toml", KEYS), &collections).await;
    let oracle = both.database.collection::<Document>("grants");
    for (kind, ids) in ASKED_FOR {
        for id in ids {
            let key = key_of(kind, id);
            let mut found = BTreeSet::new();
            let mut cursor = oracle.find(doc! { "$or": [{ "of": key.clone() }, { "refs.of": key }] }).await.unwrap();
            while cursor.advance().await.unwrap() {
                found.insert(cursor.current().get_i32("user").unwrap());
            }
            assert!(!found.is_empty() || *id == "6", "{kind} {id}");
            let questions: Vec<Question> =
                (0..count).map(|user| question(&both.schema, &format!("user:{user}"), "read", &format!("{kind}:{id}"))).collect();
            for (user, answers) in (0..).zip(both.ask(&questions, NOW).await) {
                let wanted = if found.contains(&user) { "allowed" } else { "denied NO_GRANT" };
                let objection = both.objection(answers, |text| text.starts_with(wanted));
                assert_eq!(objection, None, "{kind}:{id} by {}, for mongod: {wanted}", collections["grants"][usize::try_from(user).unwrap()]);
            }
        }
    }
    for (owner, id) in [(0, "1"), (1, "2"), (2, "3"), (3, "4")] {
        let asked = [question(&both.schema, &format!("user:{owner}"), "read", &format!("numbered:{id}"))];
        let answers = both.ask(&asked, NOW).await[0];
        assert_eq!(both.objection(answers, |text| text == "allowed by numbered#owner"), None, "{id}");
    }
    for id in ["5", "6"] {
        let answers = both.ask(&[question(&both.schema, "user:4", "read", &format!("numbered:{id}"))], NOW).await[0];
        assert_eq!(both.objection(answers, |text| text == "denied NOT_FOUND"), None, "{id}");
    }
}
