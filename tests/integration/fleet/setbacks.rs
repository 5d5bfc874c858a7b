//! What goes wrong in Redis, and costs nobody an answer: what is remembered is forgotten when it changes, within the bound,
//! and nothing else is forgotten.
//!
//! Each test has a Redis of its own.

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

/// Three instances that remember, and what each held for too old when it started.
struct Setting {
    fleet: Fleet,
    question: Question,
    floors: Vec<Moment>,
}

impl Setting {
    async fn new(redis: &Redis) -> Self {
        let fleet = Fleet::new(3, &redis.url(), SCHEMA, &shared_file()).await;
        fleet.until_told().await;
        let question = reads(&fleet.instances[0].live, FILE);
        let floors = fleet.each().map(|live| live.first_floor).collect();
        Self { fleet, question, floors }
    }

    /// Takes the share away and gives it back, each by a bare write, and has all instances notice each time.
    async fn still_works(&self) {
        let live = &self.fleet.instances[0].live;
        self.fleet.remember(&self.question, GUEST).await;
        let gone = live.delete("shares", doc! { "_id": id(SHARE) }).await;
        self.fleet.notice(gone, &self.question, NO_GRANT).await;
        self.fleet.remember(&self.question, NO_GRANT).await;
        let back = live.insert("shares", vec![share(SHARE, FILE)]).await;
        self.fleet.notice(back, &self.question, GUEST).await;
    }

    /// Nothing was dropped that had not changed.
    fn dropped_nothing(&self) {
        for (live, floor) in self.fleet.each().zip(&self.floors) {
            assert_eq!(live.app.checker.freshness().floor(), *floor);
        }
    }

    /// All is as it was: others tell of all that changes, and one follows MongoDB.
    async fn is_as_before(&self) {
        self.fleet.until_told().await;
        self.fleet.until_followed_by(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_wiped() {
    let redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.still_works().await;
    redis.flush();
    setting.still_works().await;
    setting.dropped_nothing();
    setting.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_restarted_from_an_old_dump() {
    let mut redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.still_works().await;
    let old: Dump = redis.dump();
    setting.still_works().await;
    redis.restart_from(&old);
    setting.still_works().await;
    setting.is_as_before().await;
    setting.still_works().await;
    setting.dropped_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_rolled_back_by_a_failover() {
    let mut redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.still_works().await;
    let replica = Redis::replica_of(&redis);
    replica.promote();
    // What is said from here on gets lost.
    setting.still_works().await;
    redis.fail_over_losing_writes(&replica);
    setting.still_works().await;
    setting.is_as_before().await;
    setting.still_works().await;
    setting.dropped_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_and_back_each_follows_mongodb_meanwhile_and_nothing_is_dropped() {
    let mut redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.still_works().await;
    redis.kill();
    setting.fleet.until_followed_by(3).await;
    setting.still_works().await;
    redis.start_again();
    setting.is_as_before().await;
    setting.still_works().await;
    setting.dropped_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_frozen_for_longer_than_the_bound() {
    let redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.fleet.remember(&setting.question, GUEST).await;
    redis.freeze();
    let gone = setting.fleet.instances[0].live.delete("shares", doc! { "_id": id(SHARE) }).await;
    let deleted = Instant::now();
    // Whoever asks later than the bound after that sees it, and nobody gets an error.
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
    setting.fleet.notice(gone, &setting.question, NO_GRANT).await;
    redis.thaw();
    setting.is_as_before().await;
    let back = setting.fleet.instances[0].live.insert("shares", vec![share(SHARE, FILE)]).await;
    setting.fleet.notice(back, &setting.question, GUEST).await;
    setting.still_works().await;
    setting.dropped_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subscriber_is_killed() {
    let redis = Redis::start(&[]);
    let setting = Setting::new(&redis).await;
    setting.still_works().await;
    assert!(redis.kill_clients("pubsub") >= 3);
    setting.still_works().await;
    setting.is_as_before().await;
    setting.dropped_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_rejected_is_no_subscription() {
    let redis = Redis::start(&[]);
    redis.set_user("deaf", "secret", "~pc:* resetchannels +@all");
    let url = redis.url_of("deaf", "secret");
    let mut setting = Setting { floors: Vec::new(), ..Setting::new(&redis).await };
    let deaf = setting.fleet.start(setting.fleet.schema.clone(), &url).await;
    let floor = deaf.live.first_floor;
    setting.fleet.instances.push(deaf);
    // One speaks for those who listen, and one follows by itself.
    setting.fleet.until_followed_by(2).await;
    setting.still_works().await;
    let deaf = &setting.fleet.instances[3].live;
    assert!(!deaf.app.bus.covers_all_changes());
    assert_eq!(deaf.app.checker.freshness().floor(), floor);
    // Once it may, it listens.
    redis.set_user("deaf", "secret", "~pc:* &pc:* +@all");
    until(|| deaf.app.bus.covers_all_changes()).await;
    setting.fleet.until_followed_by(1).await;
    setting.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_down_from_the_start_and_there_later() {
    let mut redis = Redis::start(&[]);
    redis.kill();
    let fleet = Fleet::new(2, &redis.url(), SCHEMA, &shared_file()).await;
    let question = reads(&fleet.instances[0].live, FILE);
    let floors = fleet.each().map(|live| live.first_floor).collect();
    let setting = Setting { fleet, question, floors };
    setting.fleet.until_followed_by(2).await;
    setting.still_works().await;
    redis.start_again();
    setting.is_as_before().await;
    setting.still_works().await;
    setting.dropped_nothing();
}

/// The second up to which the log reaches.
fn log_end(redis: &Redis) -> u64 {
    let keys: Vec<Vec<u8>> = redis.read(&["KEYS", "pc:log:*"]);
    let Some(key) = keys.first() else { return 0 };
    let key = String::from_utf8(key.clone()).expect("a name");
    let last: Vec<(String, (String, Vec<u8>))> = redis.read(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]);
    last.first().and_then(|(id, _)| id.split_once('-')).map_or(0, |(seconds, _)| seconds.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_still_carries_what_is_said() {
    let policies =
        "noeviction allkeys-lru allkeys-lfu allkeys-random volatile-lru volatile-lfu volatile-random volatile-ttl";
    for policy in policies.split(' ') {
        let redis = Redis::start(&["--maxmemory", "3mb", "--maxmemory-policy", policy]);
        let setting = Setting::new(&redis).await;
        // An application fills it to the brim, and goes on writing.
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
            // Over full, so that it refuses whatever it may refuse.
            redis.run(&["CONFIG", "SET", "maxmemory", "1mb"]);
            assert!(set(0).is_err());
        }
        setting.still_works().await;
        // Somebody goes on to speak for longer than a lease lasts.
        let end = log_end(&redis);
        until(|| log_end(&redis) > end + 3).await;
        setting.still_works().await;
        setting.is_as_before().await;
    }
}
