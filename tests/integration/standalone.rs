//! A mongod without a replica set. Reads have read concern local, tokens are of this instance's own clock, and tokens of
//! other clocks are refused (docs/freshness.md, point 13).
//!
//! How long a fact counts without change streams is tested in `freshness::single`.

use std::sync::Arc;

use mongodb::bson::{doc, oid::ObjectId};
use permcached::{
    check::{CheckError, Consistency},
    freshness::{Clock, Moment, Token},
    question::Tier,
    schema::Schema,
    source::{
        Deadline,
        mongodb::{Mode, MongoDb},
    },
};

use crate::support::{
    both::{Asked, Collections, TIME_MAX, fill, question, schema, shown},
    monitored::{Monitor, commands},
    servers::standalone_mongo,
};

const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    collection = "users"
    [resource.file]
    collection = "files"
    [resource.file.relations]
    owner = { field = "owner_id" }
    guest = { collection = "shares", by = "file_id", field = "user_id" }
    [resource.file.permissions]
    read  = "owner | guest"
    write = "owner"
"#;

fn id(number: u8) -> ObjectId {
    ObjectId::from_bytes([number; 12])
}

/// User 1 owns file 3. There is no file 4, and no collection `shares`.
fn documents() -> Collections {
    Collections::from([
        ("users".to_owned(), vec![doc! { "_id": id(1) }, doc! { "_id": id(2) }]),
        ("files".to_owned(), vec![doc! { "_id": id(3), "owner_id": id(1) }]),
    ])
}

async fn standalone(app_name: &str) -> (Asked, Arc<Schema>, Monitor, mongodb::Database) {
    let schema = Arc::new(schema("standalone.toml", SCHEMA));
    let database = standalone_mongo().database().await;
    fill(&database, &schema, &documents()).await;
    database.collection::<mongodb::bson::Document>("shares").drop().await.unwrap();
    let monitor = Monitor::default();
    let client = monitor.client(standalone_mongo(), app_name).await;
    let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.unwrap();
    assert_eq!(source.mode(), Mode::Standalone);
    monitor.take();
    (Asked::new(&schema, Arc::new(source)), schema, monitor, database)
}

#[tokio::test]
async fn reads_have_read_concern_local_and_tokens_are_of_the_local_clock() {
    let (asked, schema, monitor, database) = standalone("standalone-local").await;
    let file = format!("file:{}", id(3));
    let user = |number| format!("user:{}", id(number));
    let cases = [
        (user(1), "write", file.clone(), "allowed by file#owner"),
        (user(2), "read", file.clone(), "denied NO_GRANT"),
        (user(9), "read", file.clone(), "denied SUBJECT_INACTIVE"),
        (user(1), "read", format!("file:{}", id(4)), "denied NOT_FOUND"),
    ];
    let questions =
        cases.iter().map(|(subject, permission, resource, _)| question(&schema, subject, permission, resource));
    let questions: Vec<_> = questions.collect();
    let mut newest = Moment::default();
    for consistency in [Consistency::MinimizeLatency, Consistency::FullyConsistent, Consistency::MaxAge(TIME_MAX)] {
        let checked = asked.checker.check(&questions, consistency, Deadline::after(TIME_MAX)).await;
        let mut as_of = newest;
        for (checked, (.., expected)) in checked.into_iter().zip(&cases) {
            let checked = checked.unwrap();
            assert_eq!(shown(&schema, checked.answer), *expected);
            assert_eq!(checked.as_of.clock, Clock::Local);
            assert!(checked.as_of.to_string().starts_with('l'), "{}", checked.as_of);
            // A later answer has a later tick, unless it comes from memory.
            let is_new = checked.as_of.moment > newest;
            assert!(is_new != matches!(consistency, Consistency::MaxAge(_)), "{:?} {newest:?}", checked.as_of);
            as_of = as_of.max(checked.as_of.moment);
        }
        newest = as_of;
    }
    let finds = commands(&monitor.take(), "find");
    assert_eq!(finds.len(), 2 * 3, "no probe, and one find for each of three lookups unless it is cached: {finds:?}");
    for find in finds {
        assert_eq!(find.get_document("readConcern").unwrap(), &doc! { "level": "local" }, "{find}");
        assert!(find.contains_key("maxTimeMS"), "{find}");
    }

    // A fully consistent request sees at once what has been written.
    database.collection("shares").insert_one(doc! { "file_id": id(3), "user_id": id(2) }).await.unwrap();
    let checked = asked.checker.check(&questions[1..2], Consistency::FullyConsistent, Deadline::after(TIME_MAX)).await;
    assert_eq!(shown(&schema, checked[0].as_ref().unwrap().answer), "allowed by file#guest");
}

#[tokio::test]
async fn a_request_with_a_local_token_reads_the_database_and_other_tokens_are_refused() {
    let (asked, schema, ..) = standalone("standalone-tokens").await;
    let questions = [question(&schema, &format!("user:{}", id(1)), "read", &format!("file:{}", id(3)))];
    let check = async |token| {
        let consistency = Consistency::AtLeastAsFresh(token);
        asked.checker.check(&questions, consistency, Deadline::after(TIME_MAX)).await.remove(0)
    };
    let first = asked
        .checker
        .check(&questions, Consistency::FullyConsistent, Deadline::after(TIME_MAX))
        .await
        .remove(0)
        .unwrap();
    let second = check(first.as_of.to_string().parse().unwrap()).await.unwrap();
    assert!(second.as_of.moment > first.as_of.moment);

    let cluster = Token { clock: Clock::Cluster, moment: Moment::new(1_700_000_000, 1) };
    let refused = check(cluster).await;
    assert!(matches!(refused, Err(CheckError::ForeignToken { of: "cluster", source_clock: "local" })), "{refused:?}");
    let revision = Token { clock: Clock::Revision, moment: Moment::from_count(1) };
    let refused = check(revision).await;
    assert!(matches!(refused, Err(CheckError::ForeignToken { of: "revision", .. })), "{refused:?}");
    // A token of another instance, or from before a restart.
    let future = Token { clock: Clock::Local, moment: Moment::from_count(1 << 40) };
    let seen = check(future).await.unwrap();
    assert_eq!(seen.tier, Tier::Source, "a tick of another instance means nothing, so the database is read");
}
