//! Old and new side by side on one Redis: another schema or another format is another world, but for hints, which all of
//! one database hear.

use std::sync::Arc;

use bson::doc;
use permcached::{
    app::{App, Sharing},
    check::{Consistency, Settings},
    freshness::{Clock, LocalTime},
    invalidate::{Invalidated, Outdated, OutdatedDocument},
    link::{FORMAT, Names, Server},
    question::{Question, Subject},
    source::{Deadline, mongodb::MongoDb},
};

use super::{FILE, GUEST, SCHEMA, USER, id, reads, shared_file};
use crate::support::{
    both::{TIME_MAX, asked_of, counted, fill, found_in, schema},
    fleet::Fleet,
    live::{Live, until},
    redis::redis,
    servers::standalone_mongo,
};

/// How long a hint may take: less than a fact is believed without one.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// As the other, with one more way to share, in the same collections.
fn newer() -> String {
    let newer = SCHEMA.replace(
        "guest = {",
        "badge = { collection = \"shares\", by = \"file_id\", field = \"badge_user_id\" }\nguest = {",
    );
    newer.replace("owner | guest", "owner | badge | guest")
}

/// Invalidates, and says that others were told.
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

/// What one has put into Redis the other does not find there, nor the other way round.
async fn see_nothing_of_each_other(one: &Live, other: &Live) {
    let written = |live: &Live| counted(&live.app.metrics, "permcached_redis_facts_written_total");
    for (writer, reader) in [(one, other), (other, one)] {
        let question = reads(writer, FILE);
        let read = writer.ask(&question, Consistency::MinimizeLatency).await.expect("an answer");
        until(|| written(writer) >= 2).await;
        reader.heard(read.as_of.moment).await;
        reader.ask(&reads(reader, FILE), Consistency::MinimizeLatency).await.expect("an answer");
        assert!(asked_of(&reader.app.metrics, "redis") >= 2);
        assert_eq!(found_in(&reader.app.metrics, "redis"), 0);
    }
}

/// Each says four things that the other hears: what it remembers is read again.
async fn hear_each_other(one: &Live, other: &Live) {
    for (teller, hearer) in [(one, other), (other, one)] {
        let question = reads(hearer, FILE);
        for outdated in [file(&reads(teller, FILE)), subject(&reads(teller, FILE)), document(teller), Outdated::All] {
            hearer.remembers(&question).await;
            let before = hearer.ask(&question, Consistency::MinimizeLatency).await.expect("an answer").as_of;
            let told = invalidate(teller, &outdated).await.token;
            assert!(told.moment > before.moment);
            // Without being asked for the token.
            let marked = || {
                let freshness = hearer.app.checker.freshness();
                freshness.subject_mark(&question.subject) >= told.moment
                    || freshness.floor() >= told.moment
                    || hearer
                        .schema
                        .lookups_of(question.resource.kind)
                        .any(|lookup| freshness.key_mark(lookup, &question.resource.id) >= told.moment)
            };
            until(marked).await;
            assert_eq!(hearer.says(&question, Consistency::MinimizeLatency).await, GUEST);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_schema_hears_the_same_hints_and_nothing_else() {
    let fleet = Fleet::new(1, &redis().url(), SCHEMA, &shared_file()).await;
    let new = Arc::new(schema("newer.toml", &newer()));
    let new = fleet.start(new, &redis().url()).await.live;
    let old = &fleet.instances[0].live;
    // Each is alone with its own statements.
    until(|| old.app.is_leader() && new.app.is_leader()).await;
    see_nothing_of_each_other(old, &new).await;
    hear_each_other(old, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_format_hears_the_same_hints_and_nothing_else() {
    let fleet = Fleet::new(1, &redis().url(), SCHEMA, &shared_file()).await;
    let server = Server::parse(&redis().url()).expect("a URL of the test's own");
    let next = fleet.start_over(Arc::clone(&fleet.schema), async |schema, mongodb| {
        let identity = mongodb.identity().await.expect("mongod answers");
        Sharing::new(server, Names::new(&identity, schema.fingerprint(), FORMAT + 1))
    });
    let next = next.await.live;
    let own = &fleet.instances[0].live;
    until(|| own.app.is_leader() && next.app.is_leader()).await;
    see_nothing_of_each_other(own, &next).await;
    hear_each_other(own, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_change_streams_an_invalidation_still_reaches_every_instance() {
    let schema = Arc::new(schema("fleet.toml", SCHEMA));
    let database = standalone_mongo().database().await;
    let collections = shared_file().map(|(name, documents)| (name.to_owned(), documents)).into();
    fill(&database, &schema, &collections).await;
    let mut instances = Vec::new();
    for _ in 0..2 {
        let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.expect("mongod answers");
        let server = Server::parse(&redis().url()).expect("a URL of the test's own");
        let sharing = Sharing::over(server, &schema, &source).await.expect("mongod answers");
        // Nothing is read again by itself while the test takes place.
        let settings = Settings { staleness_max: std::time::Duration::from_mins(1), ..Settings::default() };
        let app = App::over_mongodb(Arc::clone(&schema), source, settings, Some(sharing));
        instances.push(Live::start(Arc::clone(&schema), database.clone(), app).await);
    }
    let [one, other] = instances.as_slice() else { panic!("there are two") };
    let question = reads(one, FILE);
    // Its ticks are far ahead of those of the one that tells it.
    for _ in 0..10_000 {
        let probe = other.app.checker.prober().probe_since(LocalTime::now(), Deadline::after(TIME_MAX)).await;
        probe.expect("a tick takes no server");
    }
    for live in &instances {
        live.remembers(&question).await;
    }
    database
        .collection::<bson::Document>("shares")
        .delete_one(doc! { "user_id": id(USER) })
        .await
        .expect("it is there");
    assert_eq!(other.says(&question, Consistency::MinimizeLatency).await, GUEST, "nobody has told it");
    let told = async {
        // Until it listens, nobody hears it.
        while other.says(&question, Consistency::MinimizeLatency).await == GUEST {
            let invalidated = invalidate(one, &file(&question)).await;
            assert_eq!(invalidated.token.clock, Clock::Local);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("it hears in the end");
    assert_eq!(one.says(&question, Consistency::MinimizeLatency).await, "denied NO_GRANT");
}
