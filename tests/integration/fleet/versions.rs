//! Old and new instances on one Redis: with another schema or format they share nothing, except that hints reach every instance
//! over the same database.
//!
//! The encoding of hints has unit tests in `bus::hint`.

use std::sync::Arc;

use bson::doc;
use permcached::{
    app::{Parts, Sharing, assemble},
    check::{Consistency, Settings},
    freshness::{Clock, LocalTime},
    invalidate::{Invalidated, Outdated, OutdatedDocument},
    link::{FORMAT, Namespace, Server},
    list::ResourcePage,
    question::{Question, Subject},
    source::{Deadline, mongodb::MongoDb},
};

use super::{FILE, GUEST, SCHEMA, USER, id, reads, shared_file};
use crate::{
    lists::list_question,
    support::{
        both::{TIME_MAX, asked_of, counted, fill, found_in, schema, subject_text},
        fleet::Fleet,
        live::{Live, until},
        redis::{redis, secrets},
        servers::standalone_mongo,
    },
};

/// How long a hint may take: less than a fact counts without one.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// The schema with one more way to share, in the same collections.
fn newer() -> String {
    let newer = SCHEMA.replace(
        "guest = {",
        "badge = { collection = \"shares\", by = \"file_id\", field = \"badge_user_id\" }\nguest = {",
    );
    newer.replace("owner | guest", "owner | badge | guest")
}

/// Invalidates, and asserts that the hint was published.
async fn invalidate(live: &Live, outdated: &Outdated) -> Invalidated {
    let invalidated =
        live.app.invalidator.invalidate(outdated, Deadline::after(TIME_MAX)).await.expect("mongod answers");
    assert!(invalidated.is_published);
    invalidated
}

fn file(question: &Question) -> Outdated {
    Outdated::These { resources: vec![question.resource.clone()], documents: vec![], subjects: vec![] }
}

fn subject(question: &Question) -> Outdated {
    let subjects = vec![question.subject.clone()];
    assert!(matches!(question.subject, Subject::Known { .. }));
    Outdated::These { resources: vec![], documents: vec![], subjects }
}

fn document(live: &Live) -> Outdated {
    let shares = live.schema.collection_id("shares").expect("it is in the schema");
    let documents = vec![OutdatedDocument::new(shares, &id(super::SHARE).to_string())];
    Outdated::These { resources: vec![], documents, subjects: vec![] }
}

/// Asserts that neither instance finds in Redis what the other has written there.
async fn assert_no_facts_are_shared(one: &Live, other: &Live) {
    let written = |live: &Live| counted(&live.app.metrics, "permcached_redis_facts_written_total");
    for (writer, reader) in [(one, other), (other, one)] {
        let question = reads(writer, FILE);
        let read = writer.ask(&question, Consistency::MinimizeLatency).await.expect("an answer");
        until(|| written(writer) >= 2).await;
        reader.until_applied(read.as_of.moment).await;
        reader.ask(&reads(reader, FILE), Consistency::MinimizeLatency).await.expect("an answer");
        assert!(asked_of(&reader.app.metrics, "redis") >= 2);
        assert_eq!(found_in(&reader.app.metrics, "redis"), 0);
    }
}

/// Asserts that each instance receives the other's hints, of four kinds, and reads the facts again.
async fn assert_hints_are_shared(one: &Live, other: &Live) {
    for (sender, receiver) in [(one, other), (other, one)] {
        let question = reads(receiver, FILE);
        for outdated in [file(&reads(sender, FILE)), subject(&reads(sender, FILE)), document(sender), Outdated::All] {
            receiver.until_cached(&question).await;
            let before = receiver.ask(&question, Consistency::MinimizeLatency).await.expect("an answer").as_of;
            let token = invalidate(sender, &outdated).await.token;
            assert!(token.moment > before.moment);
            // The receiver's marks suffice: no request passes the token.
            let marked = || {
                let freshness = &receiver.app.freshness;
                freshness.subject_mark(&question.subject) >= token.moment
                    || freshness.floor() >= token.moment
                    || receiver
                        .schema
                        .lookups_of(question.resource.kind)
                        .any(|lookup| freshness.key_mark(lookup, &question.resource.id) >= token.moment)
            };
            until(marked).await;
            assert_eq!(receiver.answer(&question, Consistency::MinimizeLatency).await, GUEST);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_with_different_schemas_share_only_hints() {
    let fleet = Fleet::new(1, &redis().url(), SCHEMA, &shared_file()).await;
    let new = Arc::new(schema("newer.toml", &newer()));
    let new = fleet.start(new, &redis().url()).await.live;
    let old = &fleet.instances[0].live;
    // Each is the leader of its own schema's instances.
    until(|| old.app.is_leader() && new.app.is_leader()).await;
    assert_no_facts_are_shared(old, &new).await;
    assert_hints_are_shared(old, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_with_different_formats_share_only_hints() {
    let fleet = Fleet::new(1, &redis().url(), SCHEMA, &shared_file()).await;
    let server = Server::parse(&redis().url()).expect("a URL of the test's own");
    let next = fleet.start_sharing(Arc::clone(&fleet.schema), async |schema, mongodb| {
        let identity = mongodb.identity().await.expect("mongod answers");
        Sharing::new(server, Namespace::new(&identity, schema.fingerprint(), FORMAT + 1, &secrets()))
    });
    let next = next.await.live;
    let own = &fleet.instances[0].live;
    until(|| own.app.is_leader() && next.app.is_leader()).await;
    assert_no_facts_are_shared(own, &next).await;
    assert_hints_are_shared(own, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_change_streams_an_invalidation_reaches_every_instance() {
    let schema = Arc::new(schema("fleet.toml", SCHEMA));
    let database = standalone_mongo().database().await;
    let collections = shared_file().map(|(name, documents)| (name.to_owned(), documents)).into();
    fill(&database, &schema, &collections).await;
    let mut instances = Vec::new();
    for _ in 0..2 {
        let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.expect("mongod answers");
        let server = Server::parse(&redis().url()).expect("a URL of the test's own");
        let sharing = Sharing::over(server, &secrets(), &schema, &source.identity().await.expect("mongod answers"));
        // Long enough that no fact expires during the test.
        let settings = Settings { staleness_max: std::time::Duration::from_mins(1), ..Settings::default() };
        let parts = Parts::over_mongodb(Arc::clone(&schema), source);
        let app = assemble(Parts { sharing: Some(sharing), settings, ..parts });
        instances.push(Live::start(Arc::clone(&schema), database.clone(), app).await);
    }
    let [one, other] = instances.as_slice() else { panic!("there are two") };
    let question = reads(one, FILE);
    // The receiver's ticks are far ahead of the sender's.
    for _ in 0..10_000 {
        let probe = other.app.prober.probe_since(LocalTime::now(), Deadline::after(TIME_MAX)).await;
        probe.expect("a tick requires no server");
    }
    for live in &instances {
        live.until_cached(&question).await;
    }
    database
        .collection::<bson::Document>("shares")
        .delete_one(doc! { "user_id": id(USER) })
        .await
        .expect("it is there");
    assert_eq!(other.answer(&question, Consistency::MinimizeLatency).await, GUEST, "no hint was sent");
    let received = async {
        // A hint that is sent before the receiver is subscribed is lost, so it is sent again.
        while other.answer(&question, Consistency::MinimizeLatency).await == GUEST {
            let invalidated = invalidate(one, &file(&question)).await;
            assert_eq!(invalidated.token.clock, Clock::Local);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, received).await.expect("the hint is received in the end");
    assert_eq!(one.answer(&question, Consistency::MinimizeLatency).await, "denied NO_GRANT");

    // A list looks the share up by its user.
    let files = list_question(&schema, subject_text(&format!("user:{}", id(USER))), "read", "file");
    let is_listed = async || {
        let page = ResourcePage { size: 100, after: None, within: None };
        let deadline = Deadline::after(TIME_MAX);
        let list = other.app.lister.list_resources(&files, Consistency::MinimizeLatency, page, deadline).await;
        !list.expect("a list").resources.is_empty()
    };
    assert!(!is_listed().await);
    let [_, (_, shares)] = shared_file();
    database.collection::<bson::Document>("shares").insert_many(shares).await.expect("it is new");
    assert!(!is_listed().await, "no hint was sent");
    let received = async {
        while !is_listed().await {
            invalidate(one, &file(&question)).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, received).await.expect("the hint is received in the end");
}
