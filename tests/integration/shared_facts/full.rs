//! A Redis that other applications use as well: permcached never fills it, and answers stay right when it is full.
//!
//! How permcached works with Redis servers of other kinds is tested in `redis_servers`.

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

/// How many values of 1 MiB another application has there.
const NEIGHBOURS: u64 = 13;

#[tokio::test]
async fn a_quarter_of_the_memory_stays_free() {
    let redis = Redis::start(&["--maxmemory", "25mb", "--maxmemory-policy", "noeviction"]);
    let world = World::new(&redis.url()).await;
    let instance = world.join().await;
    let most = 25 * MIB / 4 * 3;
    // The values of another application.
    for number in 0..NEIGHBOURS {
        redis.run(&["SETRANGE", &format!("neighbour-{number}"), "1048575", "x"]);
    }
    let lookup = world.lookup("files");
    for number in 0..80_000_i64 {
        let key = FactKey::whole(lookup, Id::Integer(number));
        instance.shared.put(&Fact::over_limit(key, Moment::new(1_790_000_000, 1)));
        if number % 500 == 0 {
            // Waits for the writer, as the queue is bounded too.
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
    // The memory that the other application frees is used again.
    for number in 0..NEIGHBOURS {
        assert_eq!(redis.read::<u64>(&["DEL", &format!("neighbour-{number}")]), 1, "nothing was evicted");
    }
    let written = instance.written();
    sleep(Duration::from_millis(300)).await;
    instance.ask_until(&world.reads(FILE), || instance.written() > written).await;
}

/// Makes Redis full right after the instance has written, while its write budget still allows more.
async fn fill_up(redis: &Redis, world: &World, instance: &Instance) {
    for file in (2..=49).step_by(2) {
        redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
        let before = instance.written();
        instance.answer_anew(&world.reads(file), Consistency::MinimizeLatency).await;
        redis.run(&["CONFIG", "SET", "maxmemory", "1000"]);
        if instance.written() > before {
            instance.answer_anew(&world.reads(file + 1), Consistency::MinimizeLatency).await;
        }
        if instance.unwritten("out_of_memory") > 0 {
            break;
        }
        // By then the server's last report of its memory has expired.
        sleep(Duration::from_millis(300)).await;
    }
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
}

#[tokio::test]
async fn no_facts_are_written_for_a_while_after_redis_was_out_of_memory() {
    let redis = Redis::start(&["--maxmemory-policy", "noeviction"]);
    let attempt = async || {
        let world = World::new(&redis.url()).await;
        let instance = world.join().await;
        // A full Redis must not count as an outage: the link would go down, and no attempt would succeed.
        let attempt = async {
            fill_up(&redis, &world, &instance).await;
            let written = instance.written();
            let (answer, _) = instance.answer_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
            (answer, instance.written() - written)
        };
        while_up(&instance.link, attempt).await.map(|result| (result, instance))
    };
    let ((answer, written), instance) = in_time(attempt).await;
    assert!(instance.unwritten("out_of_memory") > 0);
    assert_eq!((answer.as_str(), written), (GUEST, 0));
    assert!(instance.unwritten("paused") > 0);
}

#[tokio::test]
async fn answers_are_right_whatever_redis_evicts() {
    let policies =
        "noeviction allkeys-lru allkeys-lfu allkeys-random volatile-lru volatile-lfu volatile-random volatile-ttl";
    for policy in policies.split(' ') {
        let redis = Redis::start(&["--maxmemory-policy", policy]);
        let world = World::new(&redis.url()).await;
        let (first, second) = (world.join().await, world.join().await);
        for file in 1..=25 {
            first.fills(&world.reads(file)).await;
        }
        // Every policy but `noeviction` evicts some facts.
        let used = redis.used_memory();
        redis.run(&["CONFIG", "SET", "maxmemory", &(used - 4_096).to_string()]);
        let _is_full = redis.try_run(&["SET", "neighbour", "x"]);
        let left: u64 = redis.read(&["DBSIZE"]);
        assert_eq!(left < 50, policy != "noeviction", "{policy}: {left}");
        let revoked = first.live.delete("shares", doc! { "_id": id(SHARE) }).await;
        second.live.until_applied(revoked).await;
        for file in 1..=25 {
            let (answer, _) = second.answer_anew(&world.reads(file), Consistency::MinimizeLatency).await;
            assert_eq!(answer, NO_GRANT, "{policy}: {file}");
        }
        let (answer, _) = first.answer_anew(&world.reads(FILE), at_least(revoked)).await;
        assert_eq!(answer, NO_GRANT, "{policy}");
    }
}
