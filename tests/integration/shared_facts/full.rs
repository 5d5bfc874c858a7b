//! A Redis that others use as well: it is never filled, whatever it does when it is full.

use std::time::Duration;

use bson::doc;
use permcached::{check::Consistency, fact::Fact, fact::FactKey, freshness::Moment, question::Id};
use tokio::time::sleep;

use super::{FILE, GUEST, Instance, NO_GRANT, SHARE, World, id, in_time, while_up};
use crate::support::{
    live::{at_least, until},
    redis::Redis,
};

const MIB: u64 = 1_024 * 1_024;

/// How many values of 1 MiB a neighbour has.
const NEIGHBOURS: u64 = 13;

#[tokio::test]
async fn the_last_quarter_belongs_to_others() {
    let redis = Redis::start(&["--maxmemory", "25mb", "--maxmemory-policy", "noeviction"]);
    let world = World::new(&redis.url()).await;
    let instance = world.join().await;
    let most = 25 * MIB / 4 * 3;
    // A neighbour's values.
    for number in 0..NEIGHBOURS {
        redis.run(&["SETRANGE", &format!("neighbour-{number}"), "1048575", "x"]);
    }
    let lookup = world.lookup("files");
    for number in 0..80_000_i64 {
        let key = FactKey { lookup, id: Id::Integer(number) };
        instance.shared.put(&Fact::over_limit(key, Moment::new(1_790_000_000, 1)));
        if number % 500 == 0 {
            // The queue is bounded, too.
            let handled = |number| u64::try_from(number).unwrap();
            until(|| instance.live.handled() >= handled(number)).await;
            assert!(redis.used_memory() < most + MIB / 2, "{}", redis.used_memory());
        }
    }
    until(|| instance.unwritten("over_budget") > 0).await;
    sleep(Duration::from_millis(300)).await;
    let used = redis.used_memory();
    println!("{used} of {most} bytes, {} facts written", instance.written());
    assert!(used < most + MIB / 4 && used > most - MIB, "{used} of {most}, {} facts", instance.written());
    // What the neighbour gives up is filled again.
    for number in 0..NEIGHBOURS {
        assert_eq!(redis.read::<u64>(&["DEL", &format!("neighbour-{number}")]), 1, "nothing was evicted");
    }
    let written = instance.written();
    sleep(Duration::from_millis(300)).await;
    instance.asks_until(&world.reads(FILE), || instance.written() > written).await;
}

/// Full from one moment to the next, while it is believed that there is room.
async fn becomes_full(redis: &Redis, world: &World, instance: &Instance) {
    for file in (2..=49).step_by(2) {
        redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
        let before = instance.written();
        instance.says_anew(&world.reads(file), Consistency::MinimizeLatency).await;
        redis.run(&["CONFIG", "SET", "maxmemory", "1000"]);
        if instance.written() > before {
            instance.says_anew(&world.reads(file + 1), Consistency::MinimizeLatency).await;
        }
        if instance.unwritten("out_of_memory") > 0 {
            break;
        }
        // What it said last is forgotten by then.
        sleep(Duration::from_millis(300)).await;
    }
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
}

#[tokio::test]
async fn a_redis_without_memory_is_left_alone_for_a_while() {
    let redis = Redis::start(&["--maxmemory-policy", "noeviction"]);
    let attempt = async || {
        let world = World::new(&redis.url()).await;
        let instance = world.join().await;
        // That it is full is no outage: were it taken for one, no attempt would do.
        let attempt = async {
            becomes_full(&redis, &world, &instance).await;
            let written = instance.written();
            let (said, _) = instance.says_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
            (said, instance.written() - written)
        };
        while_up(&instance.link, attempt).await.map(|told| (told, instance))
    };
    let ((said, written), instance) = in_time(attempt).await;
    assert!(instance.unwritten("out_of_memory") > 0);
    assert_eq!((said.as_str(), written), (GUEST, 0));
    assert!(instance.unwritten("paused") > 0);
}

#[tokio::test]
async fn answers_are_right_whatever_redis_gives_up() {
    let policies =
        "noeviction allkeys-lru allkeys-lfu allkeys-random volatile-lru volatile-lfu volatile-random volatile-ttl";
    for policy in policies.split(' ') {
        let redis = Redis::start(&["--maxmemory-policy", policy]);
        let world = World::new(&redis.url()).await;
        let (first, second) = (world.join().await, world.join().await);
        for file in 1..=25 {
            first.fills(&world.reads(file)).await;
        }
        // Some of it has to go, where anything may.
        let used = redis.used_memory();
        redis.run(&["CONFIG", "SET", "maxmemory", &(used - 4_096).to_string()]);
        let _is_full = redis.try_run(&["SET", "neighbour", "x"]);
        let left: u64 = redis.read(&["DBSIZE"]);
        assert_eq!(left < 50, policy != "noeviction", "{policy}: {left}");
        let revoked = first.live.delete("shares", doc! { "_id": id(SHARE) }).await;
        second.live.heard(revoked).await;
        for file in 1..=25 {
            let (said, _) = second.says_anew(&world.reads(file), Consistency::MinimizeLatency).await;
            assert_eq!(said, NO_GRANT, "{policy}: {file}");
        }
        let (said, _) = first.says_anew(&world.reads(FILE), at_least(revoked)).await;
        assert_eq!(said, NO_GRANT, "{policy}");
    }
}
