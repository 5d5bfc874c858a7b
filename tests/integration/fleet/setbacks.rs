//! Faults of Redis: no request fails, every changed fact is read again within the bound, and no other facts are dropped.
//!
//! Shares no server: each test has a Redis of its own.

use std::time::Duration;

use bson::doc;
use permcached::{check::Consistency, freshness::Moment, question::Question};
use tokio::time::Instant;

use super::{FILE, GUEST, NO_GRANT, SCHEMA, SHARE, id, reads, share, shared_file};
use crate::support::{
    both::shown,
    fleet::Fleet,
    live::until,
    redis::{Redis, setbacks::Dump},
};

/// Three instances over one Redis, and the floor of each at its start.
struct Setting {
    fleet: Fleet,
    question: Question,
    floors: Vec<Moment>,
}

impl Setting {
    async fn new(redis: &Redis) -> Self {
        let fleet = Fleet::new(3, &redis.url(), SCHEMA, &shared_file()).await;
        fleet.until_bus_covers_all().await;
        let question = reads(&fleet.instances[0].live, FILE);
        let floors = fleet.each().map(|live| live.first_floor).collect();
        Self { fleet, question, floors }
    }

    /// Deletes the share and inserts it again, each by a plain write to MongoDB, and asserts that all instances apply both.
    async fn assert_works(&self) {
        let live = &self.fleet.instances[0].live;
        self.fleet.until_cached(&self.question, GUEST).await;
        let gone = live.delete("shares", doc! { "_id": id(SHARE) }).await;
        self.fleet.until_applied(gone, &self.question, NO_GRANT).await;
        self.fleet.until_cached(&self.question, NO_GRANT).await;
        let back = live.insert("shares", vec![share(SHARE, FILE)]).await;
        self.fleet.until_applied(back, &self.question, GUEST).await;
    }

    /// Asserts that no instance dropped facts that had not changed.
    fn assert_nothing_dropped(&self) {
        for (live, floor) in self.fleet.each().zip(&self.floors) {
            assert_eq!(live.app.freshness.floor(), *floor);
        }
    }

    /// Waits until the bus delivers every change to each instance again, and only one follows MongoDB.
    async fn until_recovered(&self) {
        self.fleet.until_bus_covers_all().await;
        self.fleet.until_followed_by(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_emptied_costs_no_facts() {
    let redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.assert_works().await;
    redis.flush();
    setting.assert_works().await;
    setting.assert_nothing_dropped();
    setting.until_recovered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_restarted_from_an_old_dump_costs_no_facts() {
    let mut redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.assert_works().await;
    let old: Dump = redis.dump();
    setting.assert_works().await;
    redis.restart_from(&old);
    setting.assert_works().await;
    setting.until_recovered().await;
    setting.assert_works().await;
    setting.assert_nothing_dropped();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_loses_the_last_writes_costs_no_facts() {
    let mut redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.assert_works().await;
    let replica = Redis::replica_of(&redis);
    replica.promote();
    // What is published from here on gets lost.
    setting.assert_works().await;
    redis.fail_over_losing_writes(&replica);
    setting.assert_works().await;
    setting.until_recovered().await;
    setting.assert_works().await;
    setting.assert_nothing_dropped();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_down_each_instance_follows_mongodb_and_no_facts_are_dropped() {
    let mut redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.assert_works().await;
    redis.kill();
    setting.fleet.until_followed_by(3).await;
    setting.assert_works().await;
    redis.start_again();
    setting.until_recovered().await;
    setting.assert_works().await;
    setting.assert_nothing_dropped();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_frozen_answers_stay_within_the_bound_and_no_request_fails() {
    let redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.fleet.until_cached(&setting.question, GUEST).await;
    redis.freeze();
    let gone = setting.fleet.instances[0].live.delete("shares", doc! { "_id": id(SHARE) }).await;
    let deleted = Instant::now();
    // A request later than the bound after the delete sees it, and no request fails.
    let bound = Duration::from_secs(2);
    while deleted.elapsed() < bound * 2 {
        for live in setting.fleet.each() {
            let asked = Instant::now();
            let answer = live.ask(&setting.question, Consistency::MinimizeLatency).await.expect("an answer").answer;
            if asked.duration_since(deleted) > bound {
                assert_eq!(shown(&live.schema, answer), NO_GRANT);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    setting.fleet.until_followed_by(3).await;
    setting.fleet.until_applied(gone, &setting.question, NO_GRANT).await;
    redis.thaw();
    setting.until_recovered().await;
    let back = setting.fleet.instances[0].live.insert("shares", vec![share(SHARE, FILE)]).await;
    setting.fleet.until_applied(back, &setting.question, GUEST).await;
    setting.assert_works().await;
    setting.assert_nothing_dropped();
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnected_subscribers_subscribe_again_and_drop_no_facts() {
    let redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.assert_works().await;
    assert!(redis.kill_clients("pubsub") >= 3);
    setting.assert_works().await;
    setting.until_recovered().await;
    setting.assert_nothing_dropped();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_may_not_subscribe_follows_mongodb_until_it_may() {
    let redis = Redis::start(&[]);
    redis.set_user("unsubscribed", "secret", "~pc:* resetchannels +@all");
    let url = redis.url_of("unsubscribed", "secret");
    let mut setting = Setting { floors: Vec::new(), ..Setting::new(&redis).await };
    let unsubscribed = setting.fleet.start(setting.fleet.schema.clone(), &url).await;
    let floor = unsubscribed.live.first_floor;
    setting.fleet.instances.push(unsubscribed);
    // The leader follows MongoDB for the subscribers, and the unsubscribed instance for itself.
    setting.fleet.until_followed_by(2).await;
    setting.assert_works().await;
    let unsubscribed = &setting.fleet.instances[3].live;
    assert!(!unsubscribed.app.bus.covers_all_changes());
    assert_eq!(unsubscribed.app.freshness.floor(), floor);
    // Once it may subscribe, it does.
    redis.set_user("unsubscribed", "secret", "~pc:* &pc:* +@all");
    until(|| unsubscribed.app.bus.covers_all_changes()).await;
    setting.fleet.until_followed_by(1).await;
    setting.assert_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_start_without_redis_use_it_once_it_is_up() {
    let mut redis = Redis::start(&[]);
    redis.kill();
    let fleet = Fleet::new(2, &redis.url(), SCHEMA, &shared_file()).await;
    let question = reads(&fleet.instances[0].live, FILE);
    let floors = fleet.each().map(|live| live.first_floor).collect();
    let setting = Setting { fleet, question, floors };
    setting.fleet.until_followed_by(2).await;
    setting.assert_works().await;
    redis.start_again();
    setting.until_recovered().await;
    setting.assert_works().await;
    setting.assert_nothing_dropped();
}

/// The second in which the log ends.
fn log_end(redis: &Redis) -> u64 {
    let keys: Vec<Vec<u8>> = redis.read(&["KEYS", "pc:log:*"]);
    let Some(key) = keys.first() else { return 0 };
    let key = String::from_utf8(key.clone()).expect("the key is text");
    let last: Vec<(String, (String, Vec<u8>))> = redis.read(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]);
    last.first().and_then(|(id, _)| id.split_once('-')).map_or(0, |(seconds, _)| seconds.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_still_carries_change_batches_and_the_lease() {
    let policies =
        "noeviction allkeys-lru allkeys-lfu allkeys-random volatile-lru volatile-lfu volatile-random volatile-ttl";
    for policy in policies.split(' ') {
        let redis = Redis::start(&["--maxmemory", "3mb", "--maxmemory-policy", policy]);
        let setting = Setting::new(&redis).await;
        // An application fills it completely, and keeps writing.
        let value = "x".repeat(1_000);
        let set = |key: u32| redis.try_run(&["SET", &format!("session:{key}"), &value, "EX", "1000"]);
        let refused = (0..3_000).filter(|key| set(*key).is_err()).count();
        let evicted: u64 = redis.info("stats", "evicted_keys").parse().expect("a number");
        assert_eq!(
            (refused > 0, evicted > 0),
            (policy == "noeviction", policy != "noeviction"),
            "{policy}: it is full"
        );
        if policy == "noeviction" {
            // Now it is more than full, so that it refuses every command that it can refuse.
            redis.run(&["CONFIG", "SET", "maxmemory", "1mb"]);
            assert!(set(0).is_err());
        }
        setting.assert_works().await;
        // An instance publishes for longer than a lease lasts.
        let end = log_end(&redis);
        until(|| log_end(&redis) > end + 3).await;
        setting.assert_works().await;
        setting.until_recovered().await;
    }
}
