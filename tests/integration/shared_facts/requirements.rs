//! A flight that finds facts in Redis brings them to who needs less and to who needs more: each tests them for itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use permcached::{
    fact::{Fact, FactKey},
    facts::{ANSWER_TIME, CachedFact, Facts, FreshnessRequirement, Memory, SharedFacts, codec},
    freshness::{Change, Changed, Clock, Freshness, LocalTime, Moment, Probe},
    link::{FORMAT, Link, Names, Server},
    question::{CollectionId, Id, Tier},
    schema::Schema,
    source::{Deadline, Identity, Source, SourceError},
    telemetry::Metrics,
};
use tokio::task::JoinSet;

use super::{SCHEMA, in_time, raw, while_up};
use crate::support::{both::schema, live::until, redis::Redis};

fn at(count: u64) -> Moment {
    Moment::from_count(count)
}

/// A source without documents, which counts its loads.
#[derive(Default)]
struct Empty(AtomicUsize);

#[async_trait]
impl Source for Empty {
    fn clock(&self) -> Clock {
        Clock::Cluster
    }

    async fn probe(&self, _: Deadline) -> Result<Moment, SourceError> {
        Err(SourceError::TimedOut)
    }

    async fn load(&self, keys: Vec<FactKey>, at: Moment, _: Deadline) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        self.0.fetch_add(1, Ordering::Relaxed);
        keys.into_iter().map(|key| (key.clone(), Ok(Fact::absent(key, at)))).collect()
    }

    async fn keys_of(&self, _: CollectionId, _: Vec<Id>, _: Moment, _: Deadline) -> Result<Vec<FactKey>, SourceError> {
        Ok(Vec::new())
    }
}

/// One fact, of moment 12 in Redis; everything is heard up to 10, and 20 is the newest moment.
struct One {
    facts: Facts,
    freshness: Arc<Freshness>,
    source: Arc<Empty>,
    key: FactKey,
    link: Link,
    redis: Redis,
    _tasks: JoinSet<()>,
}

impl One {
    async fn new() -> Self {
        let redis = Redis::start(&[]);
        let schema: Arc<Schema> = Arc::new(schema("shared.toml", SCHEMA));
        let lookup = schema.lookups().find(|(_, lookup)| &*lookup.collection == "shares").expect("there is one").0;
        let key = FactKey { lookup, id: Id::ObjectId([1; 12]) };
        let freshness = Arc::new(Freshness::new(&schema));
        freshness.begin_at(at(10));
        let probe = Probe { sent: LocalTime::now(), moment: at(20) };
        freshness.record_probe(probe, at(10), freshness.epoch(), || ());
        let identity = Identity { set: None, database: "app".to_owned(), collections: Vec::new() };
        let names = Names::new(&identity, schema.fingerprint(), FORMAT);
        let bytes = codec::encode(&schema, &Fact::absent(key.clone(), at(12))).expect("it is small");
        raw::<()>(&redis.url(), &[b"SET", &names.fact(&key), &bytes]);
        let metrics = Arc::new(Metrics::default());
        let link = Link::new(Arc::new(Server::parse(&redis.url()).expect("a URL")), ANSWER_TIME);
        let mut tasks = JoinSet::new();
        tasks.spawn(link.clone().run(|_| ()));
        until(|| link.is_up()).await;
        // Nothing is written: only who reads notices what becomes of Redis.
        let (shared, _) = SharedFacts::new(link.clone(), names, schema, Arc::clone(&metrics));
        let (source, memory) = (Arc::new(Empty::default()), Arc::new(Memory::new(1 << 20)));
        let facts = Facts::new(Arc::<Empty>::clone(&source), Arc::clone(&freshness), memory, metrics).sharing(shared);
        Self { facts, freshness, source, key, link, redis, _tasks: tasks }
    }

    async fn load(&self, requirement: FreshnessRequirement) -> CachedFact {
        let deadline = Deadline::after(Duration::from_secs(30));
        let mut loaded = self.facts.load(vec![self.key.clone()], requirement, deadline).await;
        loaded.remove(0).1.expect("the source answers")
    }
}

fn as_of(count: u64) -> FreshnessRequirement {
    FreshnessRequirement { as_of: at(count), stamp: Moment::default() }
}

fn from(tier: Tier, count: u64) -> (Tier, Moment) {
    (tier, at(count))
}

fn told(cached: &CachedFact) -> (Tier, Moment) {
    (cached.tier, cached.as_of)
}

#[tokio::test]
async fn what_is_true_as_of_too_early_a_moment_is_read_from_the_source() {
    for (requirement, expected) in [
        (as_of(12), from(Tier::Redis, 12)),
        (as_of(13), from(Tier::Source, 20)),
        (FreshnessRequirement { stamp: at(12), ..as_of(0) }, from(Tier::Redis, 12)),
        (FreshnessRequirement { stamp: at(13), ..as_of(0) }, from(Tier::Source, 20)),
    ] {
        let attempt = async || {
            let one = One::new().await;
            while_up(&one.link, one.load(requirement)).await
        };
        assert_eq!(told(&in_time(attempt).await), expected, "{requirement:?}");
    }
}

/// The runtime has one thread: both have boarded the flight before it begins.
#[tokio::test]
async fn who_joined_and_needs_more_than_what_was_found_asks_again() {
    for strict in [as_of(15), FreshnessRequirement { stamp: at(15), ..as_of(0) }] {
        let attempt = async || {
            let one = One::new().await;
            let both = async { tokio::join!(one.load(as_of(11)), one.load(strict)) };
            let loaded = while_up(&one.link, both).await?;
            Some((loaded, one.source.0.load(Ordering::Relaxed)))
        };
        let ((lax, strict), loads) = in_time(attempt).await;
        assert_eq!(told(&lax), from(Tier::Redis, 12));
        assert_eq!(told(&strict), from(Tier::Source, 20));
        assert_eq!(loads, 1);
    }
}

#[tokio::test]
async fn that_redis_does_not_answer_is_found_out_also_by_who_has_no_time_to_wait_for_it() {
    let one = One::new().await;
    one.redis.freeze();
    let deadline = Deadline::after(Duration::from_millis(40));
    one.facts.load(vec![one.key.clone()], as_of(0), deadline).await;
    until(|| !one.link.is_up()).await;
    assert_eq!(one.load(as_of(13)).await.as_of, at(20), "from the source, then or now");
}

#[tokio::test]
async fn who_joined_when_the_key_had_been_marked_asks_again() {
    let one = One::new().await;
    let mark = async {
        let change = Change { at: at(14), what: Changed::Key(one.key.clone()) };
        // The flight has found the fact and has not landed: nobody else runs meanwhile.
        one.freshness.mark(&[change], one.freshness.epoch());
    };
    let (first, ()) = tokio::join!(one.load(as_of(11)), mark);
    assert_eq!(told(&first), from(Tier::Source, 20));
}
