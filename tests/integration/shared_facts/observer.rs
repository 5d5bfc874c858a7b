//! The observer: it finds and counts a fact that was corrupted in Redis, and the fact is read again. It does not count
//! facts that are right or merely outdated.
//!
//! How the alert on such a fact is worded is not tested here.

use std::time::Duration;

use bson::doc;
use permcached::{
    check::Consistency,
    fact::{Fact, FactKey},
    freshness::Changed,
    link::CODE_BYTES,
    question::Id,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{FILE, GUEST, Instance, NO_GRANT, SHARE, World, id, raw};
use crate::support::{
    fleet::Fleet,
    live::until,
    redis::{Redis, redis},
};

/// How long the observer may take to compare each of a few facts.
const PATIENCE: Duration = Duration::from_mins(1);

fn stale(instance: &Instance, tier: &str) -> u64 {
    instance.counter(&format!("permcached_stale_facts_total{{tier=\"{tier}\"}}"))
}

/// Starts the observer of an instance, at its highest rate.
fn start_observer(instance: &Instance) -> JoinHandle<()> {
    tokio::spawn(instance.live.app.observe(100))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_observer_finds_a_fact_that_was_corrupted_in_redis() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let (first, second) = (world.join().await, world.join().await);
    // Only the owner may read file 2. File 1 is shared with the guest.
    let task = start_observer(&second);
    let read = first.fills(&world.reads(FILE)).await.max(first.fills(&world.reads(2)).await);
    second.live.until_applied(read).await;
    // The fact of one file's shares is stored under the key of the other file, as if an instance with a bug had signed it.
    let [shared, unshared] = [FILE, 2].map(|file| first.name(&world, "shares", file));
    let bytes: Vec<u8> = raw(&world.url, &[b"GET", &shared]);
    let (_, content) = bytes.split_at(CODE_BYTES);
    let bytes = first.namespace.codes.facts.sign(&unshared, content);
    let corrupted = async || {
        raw::<()>(&world.url, &[b"SET", &unshared, &bytes]);
        second.answer_anew(&world.reads(2), Consistency::MinimizeLatency).await
    };
    let (answer, _) = second.in_time(corrupted).await;
    assert_eq!(answer, GUEST, "the answer is wrong, and only the observer can notice");
    until(|| stale(&second, "memory") > 0 && stale(&second, "redis") > 0).await;
    // The right fact also replaces the wrong one in Redis.
    let is_right = || raw::<Vec<u8>>(&world.url, &[b"GET", &unshared]) != bytes;
    until(is_right).await;
    // From then on, the answer is the one of MongoDB.
    let right = async {
        while second.live.answer(&world.reads(2), Consistency::MinimizeLatency).await != NO_GRANT {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, right).await.expect("it is read again");
    let (answer, _) = second.answer_anew(&world.reads(2), Consistency::MinimizeLatency).await;
    assert_eq!(answer, NO_GRANT, "the fact in Redis is right too");
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_every_instance_learn_of_a_fact_that_the_observer_found_wrong() {
    let files = vec![doc! { "_id": id(FILE), "owner_id": id(super::OWNER) }];
    let share = doc! { "_id": id(SHARE), "file_id": id(FILE), "user_id": id(super::USER) };
    let fleet = Fleet::new(2, &redis().url(), super::SCHEMA, &[("files", files), ("shares", vec![share])]).await;
    fleet.until_bus_covers_all().await;
    let mut streams: Vec<_> = fleet.each().map(|live| live.app.bus.subscribe(None)).collect();
    // A fact without the share, as if no change had told of it.
    let app = &fleet.instances[0].live.app;
    let (lookup, _) = app.schema.lookups().find(|(_, lookup)| &*lookup.collection == "shares").unwrap();
    let key = FactKey::whole(lookup, Id::ObjectId([FILE; 12]));
    app.memory.insert(&Fact::absent(key.clone(), app.freshness.watermark()), || true);
    let task = tokio::spawn(app.observe(100));
    for stream in &mut streams {
        let is_named = async {
            while !stream.next().await.changes.iter().any(|change| change.what == Changed::Key(key.clone())) {}
        };
        timeout(PATIENCE, is_named).await.expect("the key is named");
    }
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_that_are_right_or_merely_outdated_are_not_counted() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let instance = world.join().await;
    let task = start_observer(&instance);
    for round in 0..20_u8 {
        for file in 1..=5 {
            instance.live.ask(&world.reads(file), Consistency::MinimizeLatency).await.unwrap();
        }
        let share = doc! { "_id": id(SHARE) };
        if round % 2 == 0 {
            instance.live.delete("shares", share).await;
        } else {
            let again = doc! { "_id": id(SHARE), "file_id": id(FILE), "user_id": id(super::USER) };
            world.database.collection("shares").insert_one(again).await.unwrap();
        }
        let before = instance.counter("permcached_observed_facts_total");
        until(|| instance.counter("permcached_observed_facts_total") > before + 5).await;
    }
    assert_eq!((stale(&instance, "memory"), stale(&instance, "redis")), (0, 0));
    task.abort();
}
