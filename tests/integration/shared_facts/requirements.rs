//! A load that finds a fact in Redis may be shared by requests with different requirements: each request tests the fact
//! for itself.
//!
//! Loads that read only the source are tested in `freshness::singleflight`.

use std::{sync::Arc, time::Duration};

use permcached::{
    fact::{Fact, FactKey},
    facts::{ANSWER_TIME, CachedFact, Facts, FreshnessRequirement, Memory, SharedFacts, codec},
    freshness::{Change, Changed, Freshness, LocalTime, Moment, Probe},
    link::{FORMAT, Link, Namespace, Server},
    question::{Id, Tier},
    schema::Schema,
    source::{Deadline, Identity},
    telemetry::Metrics,
};
use tokio::task::JoinSet;

use super::{SCHEMA, in_time, raw, while_up};
use crate::support::{
    both::schema,
    controlled::ControlledSource,
    live::until,
    memory_source::MemorySource,
    redis::{Redis, secrets},
};

fn at(count: u64) -> Moment {
    Moment::from_count(count)
}

/// One fact with stamp 12 in Redis. The watermark is 10, and the newest moment is 20. The source has no documents.
struct OneFact {
    facts: Facts,
    freshness: Arc<Freshness>,
    source: Arc<ControlledSource>,
    key: FactKey,
    link: Link,
    redis: Redis,
    _tasks: JoinSet<()>,
}

impl OneFact {
    async fn new() -> Self {
        let redis = Redis::start(&[]);
        let schema: Arc<Schema> = Arc::new(schema("shared.toml", SCHEMA));
        let lookup = schema.lookups().find(|(_, lookup)| &*lookup.collection == "shares").expect("there is one").0;
        let key = FactKey::whole(lookup, Id::ObjectId([1; 12]));
        let freshness = Arc::new(Freshness::new(&schema));
        freshness.begin_at(at(10));
        let probe = Probe { sent: LocalTime::now(), moment: at(20) };
        freshness.record_probe(probe, at(10), freshness.epoch(), || ());
        let identity = Identity { set: None, database: "app".to_owned(), collections: Vec::new() };
        let namespace = Namespace::new(&identity, schema.fingerprint(), FORMAT, &secrets());
        let bytes = codec::encode(&schema, &Fact::absent(key.clone(), at(12))).expect("it is small");
        let name = namespace.names.fact(&key);
        raw::<()>(&redis.url(), &[b"SET", &name, &namespace.codes.facts.sign(&name, &bytes)]);
        let metrics = Arc::new(Metrics::default());
        let link = Link::new(Arc::new(Server::parse(&redis.url()).expect("a URL")), ANSWER_TIME);
        let mut tasks = JoinSet::new();
        tasks.spawn(link.clone().run(|_| ()));
        until(|| link.is_up()).await;
        // No writer runs, so that only reads notice when Redis fails.
        let (shared, _) = SharedFacts::new(link.clone(), namespace, Arc::clone(&schema), Arc::clone(&metrics));
        let source = Arc::new(ControlledSource::over(&schema, Arc::new(MemorySource::new(&schema, at(20)))));
        let memory = Arc::new(Memory::new(1 << 20));
        let facts = Facts::new(Arc::clone(&source) as _, Arc::clone(&freshness), memory, Some(shared), metrics);
        Self { facts, freshness, source, key, link, redis, _tasks: tasks }
    }

    async fn load(&self, requirement: FreshnessRequirement) -> CachedFact {
        let deadline = Deadline::after(Duration::from_secs(30));
        let mut loaded = self.facts.load(vec![self.key.clone()], Vec::new(), requirement, deadline).await;
        loaded.remove(0).1.expect("the source answers")
    }
}

fn as_of(count: u64) -> FreshnessRequirement {
    FreshnessRequirement { as_of: at(count), stamp: Moment::default() }
}

fn served(tier: Tier, count: u64) -> (Tier, Moment) {
    (tier, at(count))
}

fn tier_and_moment(cached: &CachedFact) -> (Tier, Moment) {
    (cached.tier, cached.as_of)
}

#[tokio::test]
async fn a_fact_in_redis_that_is_too_old_for_the_request_is_read_from_the_source() {
    for (requirement, expected) in [
        (as_of(12), served(Tier::Redis, 12)),
        (as_of(13), served(Tier::Source, 20)),
        (FreshnessRequirement { stamp: at(12), ..as_of(0) }, served(Tier::Redis, 12)),
        (FreshnessRequirement { stamp: at(13), ..as_of(0) }, served(Tier::Source, 20)),
    ] {
        let attempt = async || {
            let one = OneFact::new().await;
            let loaded = while_up(&one.link, one.load(requirement)).await?;
            Some((loaded, one.source.moments()))
        };
        let (loaded, moments) = in_time(attempt).await;
        assert_eq!(tier_and_moment(&loaded), expected, "{requirement:?}");
        // The source is read at the newest moment, not only at the required one.
        let expected = if expected.0 == Tier::Source { vec![at(20)] } else { Vec::new() };
        assert_eq!(moments, expected, "{requirement:?}");
    }
}

/// The runtime has one thread, so that the second request joins before the load begins.
#[tokio::test]
async fn a_waiter_that_requires_more_than_was_found_loads_again() {
    for strict in [as_of(15), FreshnessRequirement { stamp: at(15), ..as_of(0) }] {
        let attempt = async || {
            let one = OneFact::new().await;
            let both = async { tokio::join!(one.load(as_of(11)), one.load(strict)) };
            let loaded = while_up(&one.link, both).await?;
            Some((loaded, one.source.moments()))
        };
        let ((lax, strict), moments) = in_time(attempt).await;
        assert_eq!(tier_and_moment(&lax), served(Tier::Redis, 12));
        assert_eq!(tier_and_moment(&strict), served(Tier::Source, 20));
        assert_eq!(moments, [at(20)]);
    }
}

#[tokio::test]
async fn a_request_near_its_deadline_notices_that_redis_does_not_answer() {
    let one = OneFact::new().await;
    one.redis.freeze();
    let deadline = Deadline::after(Duration::from_millis(40));
    one.facts.load(vec![one.key.clone()], Vec::new(), as_of(0), deadline).await;
    until(|| !one.link.is_up()).await;
    assert_eq!(one.load(as_of(13)).await.as_of, at(20), "from the source, in the first load or in this one");
    assert!(one.source.moments().iter().all(|moment| *moment == at(20)), "{:?}", one.source.moments());
}

#[tokio::test]
async fn a_fact_whose_key_is_marked_during_the_load_is_loaded_again() {
    let one = OneFact::new().await;
    let mark = async {
        let change = Change { at: at(14), what: Changed::Key(one.key.clone()) };
        // Runs on the only thread while the load is in flight.
        one.freshness.mark(&[change], one.freshness.epoch());
    };
    let (first, ()) = tokio::join!(one.load(as_of(11)), mark);
    assert_eq!(tier_and_moment(&first), served(Tier::Source, 20));
    assert_eq!(one.source.moments(), [at(20)]);
}
