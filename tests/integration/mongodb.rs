//! MongoDB as the source, over a real replica set: tokens, limits, and missing collections. `keys` has ids of every form as
//! keys, `listings` the ids that a query finds, `faults` failing servers, `inspection` the findings about a database, `journal` probes for which mongod writes its
//! journal.
//!
//! Runs no change stream: `freshness` does.

mod collations;
mod faults;
pub mod inspection;
mod journal;
mod keys;
mod listings;
mod unreadable;

use std::sync::Arc;

use mongodb::bson::{Document, Timestamp, doc, oid::ObjectId};
use permcached::{
    check::{CheckError, Consistency},
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
async fn an_answer_with_the_token_of_a_write_shows_that_write() {
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let database = mongo().database().await;
    fill(&database, &schema, &small_fylora()).await;
    let monitor = Monitor::default();
    let client = monitor.client(mongo(), "mongodb-token").await;
    let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.unwrap();
    let asked = Asked::new(&schema, Arc::new(source));
    let questions = [read(&schema, 2)];
    let share = doc! { "_id": 1, "file_id": oid(3), "share_type": "internal", "is_active": true, "shared_with_user_id": oid(2) };
    let mut before = None;
    for _ in 0..8 {
        let grant = doc! { "insert": "shares", "documents": [share.clone()] };
        let revoke = doc! { "delete": "shares", "deletes": [{ "q": { "_id": 1 }, "limit": 1 }] };
        for (write, expected) in [(grant, "allowed by file#guest"), (revoke, "denied NO_GRANT")] {
            let written = token(database.run_command(write).await.unwrap().get_timestamp("operationTime").unwrap());
            monitor.take();
            let consistency = Consistency::AtLeastAsFresh(written);
            let checked =
                asked.checker.check(&questions, consistency, Deadline::after(TIME_MAX)).await.remove(0).unwrap();
            assert_eq!(shown(&schema, checked.answer), expected);
            assert!(checked.as_of.moment >= written.moment, "{} {written}", checked.as_of);
            for find in commands(&monitor.take(), "find").iter().filter(|find| level(find) == "snapshot") {
                let after = find.get_document("readConcern").unwrap().get_timestamp("afterClusterTime").unwrap();
                assert!(token(after).moment >= written.moment, "{after:?} {written}");
            }
            // The `as_of` of the answer is a token for all that the answer shows.
            let consistency = Consistency::AtLeastAsFresh(checked.as_of.to_string().parse().unwrap());
            let again =
                asked.checker.check(&questions, consistency, Deadline::after(TIME_MAX)).await.remove(0).unwrap();
            assert_eq!(shown(&schema, again.answer), expected);
            assert!(again.as_of.moment >= checked.as_of.moment);
            // With an older token, the answer is not older.
            if let Some(before) = before.replace(written) {
                let consistency = Consistency::AtLeastAsFresh(before);
                let now =
                    asked.checker.check(&questions, consistency, Deadline::after(TIME_MAX)).await.remove(0).unwrap();
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
        let consistency = Consistency::AtLeastAsFresh(Token { moment, ..now });
        let refused = both.mongodb.checker.check(&questions, consistency, Deadline::after(TIME_MAX)).await.remove(0);
        assert!(matches!(refused, Err(CheckError::FutureToken)), "{refused:?}");
    }
    for clock in [Clock::Local, Clock::Revision] {
        let consistency = Consistency::AtLeastAsFresh(Token { clock, moment: Moment::from_count(1) });
        let refused = both.mongodb.checker.check(&questions, consistency, Deadline::after(TIME_MAX)).await.remove(0);
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
    reader = { collection = "grants", by = "page", field = "user", where = { is_void = { "$ne" = true } } }
    banned = { collection = "bans", by = "page", field = "user" }
    [resource.page.permissions]
    read   = "reader"
    browse = "!banned"
"#;

/// `count` grants of a page. The last one is user 7's.
fn grants(page: i32, count: i32) -> impl Iterator<Item = Document> {
    (1..=count).map(move |number| doc! { "page": page, "user": if number == count { 7 } else { 1_000 + number } })
}

#[tokio::test]
async fn a_fact_of_more_than_1000_documents_is_read_for_the_subject_and_the_rest_of_a_batch_is_answered() {
    // Documents that do not match the condition are not fetched, and do not count.
    let void = (0..1_500).map(|number| doc! { "page": 5, "user": number, "is_void": true });
    let documents =
        grants(1, 1_001).chain(grants(2, 1_000)).chain(grants(3, 1)).chain(void).chain(grants(5, 3)).collect();
    let bans = grants(1, 1_001).chain(grants(3, 1)).collect();
    let collections = Collections::from([("grants".to_owned(), documents), ("bans".to_owned(), bans)]);
    let both = Both::new(schema("grants.toml", GRANTS), &collections).await;
    let ask = |permission: &str, page: &str| question(&both.schema, "user:7", permission, &format!("page:{page}"));
    let batch = [
        (ask("read", "1"), "allowed by page#reader"),
        (ask("read", "2"), "allowed by page#reader"),
        (ask("read", "3"), "allowed by page#reader"),
        (ask("read", "4"), "denied NO_GRANT"),
        (ask("read", "5"), "allowed by page#reader"),
        (ask("browse", "1"), "denied EXCLUDED"),
        (ask("browse", "2"), "allowed"),
        (ask("browse", "3"), "denied EXCLUDED"),
    ];
    let questions: Vec<Question> = batch.iter().map(|(question, _)| question.clone()).collect();
    for (answers, (question, expected)) in both.ask(&questions, NOW).await.into_iter().zip(&batch) {
        assert_eq!(both.objection(answers, |text| text == *expected), None, "{question:?}");
        // A question alone has the same answer as in a batch.
        let alone = both.ask(std::slice::from_ref(question), NOW).await[0];
        assert_eq!(both.objection(alone, |text| text == *expected), None, "{question:?}");
    }
}

/// A checker whose client is monitored, over these grants.
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
    let schema = &asked.schema;
    // The first pages are read as if they had many grants. After some that have none, whole facts are read.
    let is_filtered =
        |find: &Document| find.get_document("filter").is_ok_and(|filter| filter.to_string().contains("user"));
    for page in 1_000.. {
        monitor.take();
        asked.check(&[question(schema, "user:7", "read", &format!("page:{page}"))], NOW).await;
        if !commands(&monitor.take(), "find").iter().any(is_filtered) {
            break;
        }
        assert!(page < 2_000, "pages without grants are still read as if they had many");
    }
    let questions: Vec<Question> =
        (0..50).map(|page| question(schema, "user:7", "read", &format!("page:{page}"))).collect();
    monitor.take();
    let checked = asked.check(&questions, NOW).await;
    for (page, checked) in checked.into_iter().enumerate() {
        let expected = if page < 42 { "allowed by page#reader" } else { "denied NO_GRANT" };
        assert_eq!(shown(schema, checked.unwrap().answer), expected, "{page}");
    }
    let finds = commands(&monitor.take(), "find");
    let finds: Vec<_> = finds.iter().filter(|find| level(find) == "snapshot").collect();
    assert_eq!(finds.len(), 3, "one find for all keys, and one for each half: {finds:?}");
}

#[tokio::test]
async fn a_fact_too_large_for_one_reply_is_indeterminate_and_the_rest_of_a_batch_is_answered() {
    // 900 documents of 18 MB in all. A reply has 16 MB at most.
    let filler = "x".repeat(20_000);
    let large = (0..900).map(|_| doc! { "page": 1, "user": &filler });
    let (asked, monitor) = monitored_grants("mongodb-large", large.chain(grants(2, 3)).collect()).await;
    let schema = &asked.schema;
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
        let ask = |subject: &String| {
            kinds.map(|kind| question(schema, subject, permission(kind), &format!("{kind}:{}", oid(3))))
        };
        subjects.iter().flat_map(ask).collect::<Vec<Question>>()
    };
    // The whole database is missing.
    let source = Arc::new(schema);
    let database = mongo().database().await;
    let mongodb = MongoDb::open(Arc::clone(&source), database).await.unwrap();
    let asked = Asked::new(&source, Arc::new(mongodb));
    for checked in asked.check(&everything(&source), NOW).await {
        let shown = shown(&source, checked.unwrap().answer);
        assert!(["denied SUBJECT_INACTIVE", "denied NOT_FOUND"].contains(&shown.as_str()), "{shown}");
    }
    // The collections of shares and codes are missing.
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
