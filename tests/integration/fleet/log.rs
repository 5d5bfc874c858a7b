//! Change batches that one peer publishes and another receives, over a real Redis: the log beside the messages, and the state
//! in which an instance starts.
//!
//! Runs no change stream: each peer is a bus with the freshness of an instance, and publishes what the test gives it. The
//! messages of a *lossy* peer are lost: its change batches are only in the log.

use std::{sync::Arc, time::Duration};

use permcached::{
    bus::{Bus, Hint, Peers, RedisChannel},
    fact::{Fact, FactKey},
    freshness::{Change, ChangeBatch, Changed, Clock, Freshness, LocalTime, Moment},
    link::{Link, Namespace, Server},
    question::{Id, LookupId},
    schema::Schema,
    source::{Deadline, Identity, Prober, mongodb::MongoDb},
    telemetry::{ChangeMetrics, Metrics},
};
use tokio::task::JoinSet;

use super::SCHEMA;
use crate::support::{
    both::{TIME_MAX, counted, schema},
    controlled::{ControlledSource, Fault},
    live::until,
    redis::{Redis, redis, secrets},
    servers::mongo,
};

/// An instance's bus, which receives or publishes.
pub struct Peer {
    pub freshness: Arc<Freshness>,
    pub bus: Arc<Bus>,
    prober: Prober,
    pub source: Arc<ControlledSource>,
    pub metrics: Arc<Metrics>,
    tasks: JoinSet<()>,
}

impl Peer {
    /// A peer that is connected to Redis, and has not begun.
    pub async fn new(redis: &Redis, namespace: Namespace) -> Self {
        let schema: Arc<Schema> = Arc::new(schema("fleet.toml", SCHEMA));
        let source = MongoDb::open(Arc::clone(&schema), mongo().database().await).await.expect("mongod answers");
        let source = Arc::new(ControlledSource::over(&schema, Arc::new(source)));
        let freshness = Arc::new(Freshness::new(&schema));
        let prober = Prober::new(Arc::clone(&source) as _, Arc::clone(&freshness), || {});
        let link =
            Link::new(Arc::new(Server::parse(&redis.url()).expect("a URL of the test's own")), Duration::from_secs(1));
        let metrics = Arc::new(Metrics::default());
        let channel = RedisChannel::new(link.clone(), namespace, Arc::clone(&metrics));
        let peers = Peers::new(channel, schema, Clock::Cluster, prober.clone(), Arc::clone(&metrics));
        let bus = Bus::new(Arc::clone(&freshness), Some(peers), ChangeMetrics::default());
        let mut tasks = JoinSet::new();
        let mut up = link.watch();
        tasks.spawn(link.run(|_| {}));
        up.wait_for(|up| *up).await.expect("the link exists");
        Self { freshness, bus: Arc::new(bus), prober, source, metrics, tasks }
    }

    /// A peer that has begun, and receives.
    pub async fn started(redis: &Redis, namespace: Namespace) -> Self {
        let mut peer = Self::new(redis, namespace).await;
        peer.begin().await;
        peer
    }

    /// Begins, and receives from then on.
    async fn begin(&mut self) {
        self.bus.begin(&self.prober, Deadline::after(TIME_MAX)).await.expect("mongod answers the probe");
        let bus = Arc::clone(&self.bus);
        self.tasks.spawn(async move { bus.listen().await });
        until(|| self.bus.covers_all_changes()).await;
    }

    /// The source's present moment.
    pub async fn now(&self) -> Moment {
        let probe = self.prober.probe_since(LocalTime::now(), Deadline::after(TIME_MAX)).await;
        probe.expect("mongod answers the probe").moment
    }

    /// Waits until the source's present is at this moment: who begins earlier takes no log that reaches there.
    pub async fn until_present(&self, moment: Moment) {
        while self.now().await < moment {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn publish(&self, from: Moment, to: Moment, changes: Vec<Change>) {
        self.bus.publish(ChangeBatch { from, to, changes }).await.expect("Redis takes it");
    }

    pub async fn until_applied(&self, moment: Moment) {
        until(|| self.freshness.watermark() >= moment).await;
    }

    /// Whether a fact with this stamp still counts.
    pub fn counts(&self, key: &FactKey, stamp: Moment) -> bool {
        let fact = Fact::absent(key.clone(), stamp);
        self.freshness.as_of(&fact, Moment::default(), self.freshness.epoch()).is_some()
    }

    fn metric(&self, name: &str) -> u64 {
        counted(&self.metrics, &format!("permcached_{name}_total"))
    }
}

/// A namespace that no other test uses.
fn namespace() -> Namespace {
    let collections = Vec::new();
    let database = format!("log-{}", fastrand::u64(..));
    Namespace::new(&Identity { set: None, database, collections }, [0; 32], 1, &secrets())
}

/// The namespace of a lossy peer: the same log, and a channel without subscribers.
pub fn lossy(namespace: &Namespace) -> Namespace {
    let mut lossy = namespace.clone();
    lossy.names.change_batches.push_str(":lost");
    lossy
}

pub fn key(number: u8) -> FactKey {
    FactKey::whole(LookupId(0), Id::ObjectId([number; 12]))
}

/// The moment `count` after another one.
pub fn after(moment: Moment, count: u64) -> Moment {
    Moment::from_count(moment.as_u64() + count)
}

pub fn changed(number: u8, at: Moment) -> Vec<Change> {
    vec![Change { at, what: Changed::Key(key(number)) }]
}

/// MongoDB answers no probe, so a moment ahead cannot be confirmed: it is dropped after half a second, and further ones at once.
/// To wait for each would take minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_cannot_be_confirmed_delays_no_other_message() {
    let namespace = namespace();
    let receiver = Peer::started(redis(), namespace.clone()).await;
    let leader = Peer::new(redis(), namespace).await;
    let start = receiver.freshness.watermark();
    let before = receiver.metric("bus_drops");
    receiver.source.set(Fault::ProbeHangs);
    let ahead = Moment::new(start.seconds() + 60, 1);
    leader.bus.publish_hint(&Hint::all(ahead)).await;
    for _ in 0..500 {
        leader.bus.publish_hint(&Hint::empty(ahead)).await;
    }
    leader.publish(start, after(start, 2), changed(1, after(start, 1))).await;
    receiver.until_applied(after(start, 2)).await;
    assert!(receiver.metric("bus_drops") > before + 500, "the hints are dropped");
    assert!(!receiver.counts(&key(1), start), "the change is applied");
    assert!(receiver.counts(&key(2), start), "and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_message_is_repaired_from_the_log() {
    let namespace = namespace();
    let receiver = Peer::started(redis(), namespace.clone()).await;
    let [leader, lossy] = [Peer::new(redis(), namespace.clone()).await, Peer::new(redis(), lossy(&namespace)).await];
    let start = receiver.freshness.watermark();
    leader.publish(start, after(start, 1), vec![]).await;
    lossy.publish(after(start, 1), after(start, 3), changed(1, after(start, 2))).await;
    leader.publish(after(start, 3), after(start, 4), vec![]).await;
    receiver.until_applied(after(start, 4)).await;
    assert!(!receiver.counts(&key(1), after(start, 1)), "the lost change is applied");
    assert!(receiver.counts(&key(1), after(start, 2)), "with its own moment");
    assert!(receiver.counts(&key(2), start), "and no other facts are dropped");
    assert_eq!(receiver.metric("bus_repairs"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_that_the_trimmed_log_cannot_fill_drops_all_earlier_facts() {
    let namespace = namespace();
    let receiver = Peer::started(redis(), namespace.clone()).await;
    let [leader, lossy] = [Peer::new(redis(), namespace.clone()).await, Peer::new(redis(), lossy(&namespace)).await];
    let start = receiver.freshness.watermark();
    lossy.publish(start, after(start, 3), changed(1, after(start, 2))).await;
    lossy.publish(after(start, 3), after(start, 4), vec![]).await;
    redis().run(&["XTRIM", &namespace.names.log, "MAXLEN", "1"]);
    leader.publish(after(start, 4), after(start, 5), vec![]).await;
    receiver.until_applied(after(start, 5)).await;
    assert!(!receiver.counts(&key(1), after(start, 1)), "the lost changes may be of any key");
    assert!(!receiver.counts(&key(2), after(start, 2)));
    assert!(receiver.counts(&key(2), after(start, 3)), "a fact read after the gap counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_starts_late_begins_with_the_last_chain_of_the_log_without_a_gap() {
    let namespace = namespace();
    let leader = Peer::new(redis(), namespace.clone()).await;
    let now = leader.now().await;
    let at = |back: u64| Moment::from_count(now.as_u64() - back);
    leader.publish(at(50), at(40), changed(1, at(45))).await;
    // A gap.
    leader.publish(at(30), at(20), changed(2, at(25))).await;
    leader.publish(at(20), at(10), changed(3, at(15))).await;
    let newcomer = Peer::started(redis(), namespace).await;
    assert_eq!((newcomer.freshness.floor(), newcomer.freshness.watermark()), (at(30), at(10)));
    for (fact, stamp, still_counts) in [
        (key(4), at(31), false),
        (key(4), at(30), true),
        (key(2), at(26), false),
        (key(2), at(25), true),
        (key(3), at(16), false),
        (key(3), at(12), true),
    ] {
        assert_eq!(newcomer.counts(&fact, stamp), still_counts, "{fact:?} of {}", now.as_u64() - stamp.as_u64());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_log_or_with_one_that_ends_after_a_probe_an_instance_starts_at_the_probe() {
    let namespace = namespace();
    let leader = Peer::new(redis(), namespace.clone()).await;
    let before = leader.now().await;
    let newcomer = Peer::started(redis(), namespace.clone()).await;
    assert_eq!(newcomer.freshness.floor(), newcomer.freshness.watermark());
    assert!(newcomer.freshness.floor() >= before, "there is no log: it starts at the probe");
    let later = Moment::new(before.seconds() + 600, 1);
    leader.publish(before, later, vec![]).await;
    let newcomer = Peer::started(redis(), namespace.clone()).await;
    assert_eq!(newcomer.freshness.floor(), newcomer.freshness.watermark());
    assert!(
        newcomer.freshness.watermark() >= before && newcomer.freshness.watermark() < later,
        "the log is of another epoch"
    );
    // A new leader removes such a log, to which it could append nothing.
    let watermark = newcomer.bus.take_over().await;
    assert_eq!(watermark, newcomer.freshness.watermark());
    assert_eq!(redis().read::<u64>(&["EXISTS", &namespace.names.log]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn change_batches_and_hints_of_moments_that_have_not_come_are_dropped() {
    let namespace = namespace();
    let receiver = Peer::started(redis(), namespace.clone()).await;
    let leader = Peer::new(redis(), namespace.clone()).await;
    let start = receiver.freshness.watermark();
    let late = Moment::new(start.seconds() + 3_600, 1);
    leader.publish(start, late, changed(1, late)).await;
    assert!(!leader.bus.publish_hint(&Hint::all(late)).await, "the log ends later: nothing can be appended");
    until(|| receiver.metric("bus_drops") >= 3).await;
    assert!(receiver.freshness.watermark() < late);
    assert!(receiver.freshness.floor() < late);
    // A moment that is ahead by less than the bound counts as one that has come.
    let soon = after(receiver.now().await, 2);
    leader.publish(start, soon, vec![]).await;
    receiver.until_applied(soon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_of_everything_is_logged_even_if_the_log_ends_later() {
    let namespace = namespace();
    let receiver = Peer::started(redis(), namespace.clone()).await;
    let leader = Peer::new(redis(), namespace.clone()).await;
    let start = receiver.freshness.watermark();
    let all_at = receiver.now().await;
    let log_end = after(all_at, 1);
    leader.publish(start, log_end, vec![]).await;
    assert!(leader.bus.publish_hint(&Hint::all(all_at)).await);
    until(|| receiver.freshness.floor() >= all_at).await;
    assert!(!receiver.counts(&key(1), start));
    let newcomer = Peer::started(redis(), namespace).await;
    assert!(newcomer.freshness.floor() >= all_at, "the invalidation counts for an instance that starts later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_batch_of_any_size_is_received_whole_and_the_log_stays_small() {
    let namespace = namespace();
    let receiver = Peer::started(redis(), namespace.clone()).await;
    let leader = Peer::new(redis(), namespace.clone()).await;
    let start = receiver.freshness.watermark();
    let id = |count: u64| Id::String(format!("{count:0>200}").into());
    let many = (1..=2_000).map(|count| {
        let key = FactKey::whole(LookupId(0), id(count));
        Change { at: after(start, count), what: Changed::Key(key) }
    });
    leader.publish(start, after(start, 2_000), many.collect()).await;
    receiver.until_applied(after(start, 2_000)).await;
    for count in [1, 2, 999, 2_000] {
        let key = FactKey::whole(LookupId(0), id(count));
        assert!(!receiver.counts(&key, after(start, count - 1)), "{count}");
        assert!(receiver.counts(&key, after(start, count)), "{count}");
    }
    let entries: Vec<(String, (String, Vec<u8>))> = redis().read(&["XRANGE", &namespace.names.log, "-", "+"]);
    assert!(entries.len() > 100, "it was cut into {} pieces", entries.len());
    assert!(entries.iter().all(|(_, (_, bytes))| bytes.len() <= 4_096));
    for count in 1..=1_100 {
        let at = after(start, 2_000 + count);
        leader.publish(at.previous(), at, vec![]).await;
    }
    assert_eq!(redis().read::<u64>(&["XLEN", &namespace.names.log]), 1_000);
    let life: u64 = redis().read(&["PTTL", &namespace.names.log]);
    assert!(life <= Duration::from_mins(5).as_millis() as u64);
}
