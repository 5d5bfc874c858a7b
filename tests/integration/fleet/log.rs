//! What one says and another hears, statement by statement, over a real Redis: the log behind the messages, and what an
//! instance begins with.
//!
//! The listener is a bus with the freshness of an instance; the speakers are buses that say what the test has them say. One
//! of them is mute: what it says gets into the log, and its messages are lost.

use std::{sync::Arc, time::Duration};

use permcached::{
    bus::{Bus, Hint, RedisChannel},
    fact::{Fact, FactKey},
    freshness::{Change, ChangeBatch, Changed, Freshness, LocalTime, Moment},
    link::{Link, Names, Server},
    question::{Id, LookupId},
    schema::Schema,
    source::{Deadline, Identity, Prober, mongodb::MongoDb},
    telemetry::Metrics,
};
use tokio::task::JoinSet;

use super::SCHEMA;
use crate::support::{
    both::{TIME_MAX, counted, schema},
    live::until,
    redis::{Redis, redis},
    servers::mongo,
};

/// One who listens or speaks.
struct Party {
    freshness: Arc<Freshness>,
    bus: Arc<Bus>,
    prober: Prober,
    metrics: Arc<Metrics>,
    tasks: JoinSet<()>,
}

impl Party {
    /// One that is on the wire, and has not begun.
    async fn new(redis: &Redis, names: Names) -> Self {
        let schema: Arc<Schema> = Arc::new(schema("fleet.toml", SCHEMA));
        let source = MongoDb::open(Arc::clone(&schema), mongo().database().await).await.expect("mongod answers");
        let freshness = Arc::new(Freshness::new(&schema));
        let prober = Prober::new(Arc::new(source), Arc::clone(&freshness), || {});
        let link =
            Link::new(Arc::new(Server::parse(&redis.url()).expect("a URL of the test's own")), Duration::from_secs(1));
        let metrics = Arc::new(Metrics::default());
        let bus = Bus::new(Arc::clone(&freshness));
        let bus = bus.over(RedisChannel::new(link.clone(), names), schema, prober.clone(), Arc::clone(&metrics));
        let mut tasks = JoinSet::new();
        let mut up = link.watch();
        tasks.spawn(link.run(|_| {}));
        up.wait_for(|up| *up).await.expect("the link is there");
        Self { freshness, bus: Arc::new(bus), prober, metrics, tasks }
    }

    /// One that has begun, and listens.
    async fn listening(redis: &Redis, names: Names) -> Self {
        let mut party = Self::new(redis, names).await;
        party.begin().await;
        party
    }

    /// Begins, and listens.
    async fn begin(&mut self) {
        self.bus.begin(&self.prober, Deadline::after(TIME_MAX)).await.expect("mongod says what time it is");
        let bus = Arc::clone(&self.bus);
        self.tasks.spawn(async move { bus.listen().await });
        until(|| self.bus.covers_all_changes()).await;
    }

    /// The time of the source.
    async fn now(&self) -> Moment {
        let probe = self.prober.probe_since(LocalTime::now(), Deadline::after(TIME_MAX)).await;
        probe.expect("mongod says what time it is").moment
    }

    async fn says(&self, from: Moment, to: Moment, changes: Vec<Change>) {
        self.bus.publish(ChangeBatch { from, to, changes }).await.expect("Redis takes it");
    }

    async fn hears(&self, moment: Moment) {
        until(|| self.freshness.watermark() >= moment).await;
    }

    /// Whether a fact that was read at a moment still counts.
    fn believes(&self, key: &FactKey, stamp: Moment) -> bool {
        let fact = Fact::absent(key.clone(), stamp);
        self.freshness.as_of(&fact, Moment::default(), self.freshness.epoch()).is_some()
    }

    fn metric(&self, name: &str) -> u64 {
        counted(&self.metrics, &format!("permcached_{name}_total"))
    }
}

/// Names that nobody else has.
fn names() -> Names {
    let collections = Vec::new();
    let database = format!("log-{}", fastrand::u64(..));
    Names::new(&Identity { set: None, database, collections }, [0; 32], 1)
}

/// The same log, and another channel.
fn mute(names: &Names) -> Names {
    let mut mute = names.clone();
    mute.change_batches.push_str(":nobody");
    mute
}

fn key(number: u8) -> FactKey {
    FactKey { lookup: LookupId(0), id: Id::ObjectId([number; 12]) }
}

/// The moment so many after.
fn after(moment: Moment, count: u64) -> Moment {
    Moment::from_count(moment.as_u64() + count)
}

fn changed(number: u8, at: Moment) -> Vec<Change> {
    vec![Change { at, what: Changed::Key(key(number)) }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_message_is_repaired_from_the_log() {
    let names = names();
    let listener = Party::listening(redis(), names.clone()).await;
    let [leader, muted] = [Party::new(redis(), names.clone()).await, Party::new(redis(), mute(&names)).await];
    let start = listener.freshness.watermark();
    leader.says(start, after(start, 1), vec![]).await;
    muted.says(after(start, 1), after(start, 3), changed(1, after(start, 2))).await;
    leader.says(after(start, 3), after(start, 4), vec![]).await;
    listener.hears(after(start, 4)).await;
    assert!(!listener.believes(&key(1), after(start, 1)), "what was lost is known");
    assert!(listener.believes(&key(1), after(start, 2)), "as is when it happened");
    assert!(listener.believes(&key(2), start), "and nothing is dropped");
    assert_eq!(listener.metric("bus_repairs"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trimmed_log_drops_everything() {
    let names = names();
    let listener = Party::listening(redis(), names.clone()).await;
    let [leader, muted] = [Party::new(redis(), names.clone()).await, Party::new(redis(), mute(&names)).await];
    let start = listener.freshness.watermark();
    muted.says(start, after(start, 3), changed(1, after(start, 2))).await;
    muted.says(after(start, 3), after(start, 4), vec![]).await;
    redis().run(&["XTRIM", &names.log, "MAXLEN", "1"]);
    leader.says(after(start, 4), after(start, 5), vec![]).await;
    listener.hears(after(start, 5)).await;
    assert!(!listener.believes(&key(1), after(start, 1)), "what was lost may be about anything");
    assert!(!listener.believes(&key(2), after(start, 2)));
    assert!(listener.believes(&key(2), after(start, 3)), "what is read after it counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_born_late_begins_where_the_last_unbroken_chain_does() {
    let names = names();
    let leader = Party::new(redis(), names.clone()).await;
    let now = leader.now().await;
    let at = |back: u64| Moment::from_count(now.as_u64() - back);
    leader.says(at(50), at(40), changed(1, at(45))).await;
    // A gap.
    leader.says(at(30), at(20), changed(2, at(25))).await;
    leader.says(at(20), at(10), changed(3, at(15))).await;
    let born = Party::listening(redis(), names).await;
    assert_eq!((born.freshness.floor(), born.freshness.watermark()), (at(30), at(10)));
    for (fact, stamp, is_believed) in [
        (key(4), at(31), false),
        (key(4), at(30), true),
        (key(2), at(26), false),
        (key(2), at(25), true),
        (key(3), at(16), false),
        (key(3), at(12), true),
    ] {
        assert_eq!(born.believes(&fact, stamp), is_believed, "{fact:?} of {}", now.as_u64() - stamp.as_u64());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_reaches_past_a_probe_is_of_another_history_and_no_log_is_none() {
    let names = names();
    let leader = Party::new(redis(), names.clone()).await;
    let before = leader.now().await;
    let born = Party::listening(redis(), names.clone()).await;
    assert_eq!(born.freshness.floor(), born.freshness.watermark());
    assert!(born.freshness.floor() >= before, "there is no log");
    let later = Moment::new(before.seconds() + 600, 1);
    leader.says(before, later, vec![]).await;
    let born = Party::listening(redis(), names.clone()).await;
    assert_eq!(born.freshness.floor(), born.freshness.watermark());
    assert!(born.freshness.watermark() >= before && born.freshness.watermark() < later, "it is not ours");
    // Who is to speak has to have one to speak into.
    let watermark = born.bus.take_over().await;
    assert_eq!(watermark, born.freshness.watermark());
    assert_eq!(redis().read::<u64>(&["EXISTS", &names.log]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_a_later_moment_than_any_that_has_come_is_not_believed() {
    let names = names();
    let listener = Party::listening(redis(), names.clone()).await;
    let leader = Party::new(redis(), names.clone()).await;
    let start = listener.freshness.watermark();
    let late = Moment::new(start.seconds() + 3_600, 1);
    leader.says(start, late, changed(1, late)).await;
    assert!(
        !leader.bus.publish_hint(&Hint::all(late)).await,
        "the log is of another history: nothing more gets into it"
    );
    until(|| listener.metric("bus_drops") >= 3).await;
    assert!(listener.freshness.watermark() < late);
    assert!(listener.freshness.floor() < late);
    // What is ahead by less than the bound has come, as far as anybody can tell.
    let soon = after(listener.now().await, 2);
    leader.says(start, soon, vec![]).await;
    listener.hears(soon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_all_is_outdated_stands_in_the_log_also_where_that_has_got_past_it() {
    let names = names();
    let listener = Party::listening(redis(), names.clone()).await;
    let leader = Party::new(redis(), names.clone()).await;
    let start = listener.freshness.watermark();
    let all_at = listener.now().await;
    let said = after(all_at, 1);
    leader.says(start, said, vec![]).await;
    assert!(leader.bus.publish_hint(&Hint::all(all_at)).await);
    until(|| listener.freshness.floor() >= all_at).await;
    assert!(!listener.believes(&key(1), start));
    let born = Party::listening(redis(), names).await;
    assert!(born.freshness.floor() >= all_at, "also for who starts later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_of_any_size_is_heard_whole_and_the_log_stays_small() {
    let names = names();
    let listener = Party::listening(redis(), names.clone()).await;
    let leader = Party::new(redis(), names.clone()).await;
    let start = listener.freshness.watermark();
    let id = |count: u64| Id::String(format!("{count:0>200}").into());
    let many = (1..=2_000).map(|count| {
        let key = FactKey { lookup: LookupId(0), id: id(count) };
        Change { at: after(start, count), what: Changed::Key(key) }
    });
    leader.says(start, after(start, 2_000), many.collect()).await;
    listener.hears(after(start, 2_000)).await;
    for count in [1, 2, 999, 2_000] {
        let key = FactKey { lookup: LookupId(0), id: id(count) };
        assert!(!listener.believes(&key, after(start, count - 1)), "{count}");
        assert!(listener.believes(&key, after(start, count)), "{count}");
    }
    let longest: Vec<(String, (String, Vec<u8>))> = redis().read(&["XRANGE", &names.log, "-", "+"]);
    assert!(longest.len() > 100, "it was cut into {} pieces", longest.len());
    assert!(longest.iter().all(|(_, (_, bytes))| bytes.len() <= 4_096));
    for count in 1..=1_100 {
        let at = after(start, 2_000 + count);
        leader.says(at.previous(), at, vec![]).await;
    }
    assert_eq!(redis().read::<u64>(&["XLEN", &names.log]), 1_000);
    let life: u64 = redis().read(&["PTTL", &names.log]);
    assert!(life <= Duration::from_mins(5).as_millis() as u64);
}
