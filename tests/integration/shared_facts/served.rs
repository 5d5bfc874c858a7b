//! What one instance has read serves others, as long as it counts.

use bson::doc;
use permcached::{check::Consistency, freshness::Moment, question::Tier};

use super::{FILE, GUEST, NO_GRANT, SHARE, World, id, raw};
use crate::support::{
    live::{at_least, until},
    redis::Redis,
};

/// How often Redis was asked for facts.
fn reads_of(redis: &Redis) -> u64 {
    let stats = redis.info("commandstats", "cmdstat_mget");
    let calls = stats.strip_prefix("calls=").and_then(|calls| calls.split(',').next()?.parse().ok());
    calls.unwrap_or_else(|| panic!("it says how often: {stats}"))
}

#[tokio::test]
async fn what_one_instance_has_read_another_does_not_ask_mongodb_for() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let (first, second) = (world.join().await, world.join().await);
    let counts = || [second.asked(), second.believed(), reads_of(&redis), second.written()];
    let attempt = async || {
        // What the second wrote in an attempt before, it must not find in this one.
        redis.flush();
        let read = first.fills(&world.reads(FILE)).await;
        second.live.heard(read).await;
        second.finds();
        let before = counts();
        let (said, checked) = second.says_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
        (said, checked.tier, second.finds(), before, counts())
    };
    let (said, tier, finds, before, after) = second.in_time(attempt).await;
    assert_eq!((said.as_str(), tier, finds), (GUEST, Tier::Redis, 0));
    let [asked, believed, reads, written] = before;
    assert_eq!(after, [asked + 2, believed + 2, reads + 1, written], "two facts at once, which are there already");
    // From now on it is remembered.
    assert_eq!(second.live.ask(&world.reads(FILE), Consistency::MinimizeLatency).await.unwrap().tier, Tier::Memory);
    assert_eq!(second.written(), written, "it is there already");
}

#[tokio::test]
async fn what_is_not_there_is_kept_for_a_shorter_time() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let first = world.join().await;
    first.fills(&world.reads(2)).await;
    let life = |collection| raw::<i64>(&world.url, &[b"TTL", &first.names.fact(&world.key(collection, 2))]);
    assert!((3_500..=3_600).contains(&life("files")), "{}", life("files"));
    assert!((1..=60).contains(&life("shares")), "{}", life("shares"));
}

/// As where an instance is held up between its read and its write.
#[tokio::test]
async fn a_late_fill_that_replaces_a_newer_one_is_not_believed() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let (first, second) = (world.join().await, world.join().await);
    first.fills(&world.reads(FILE)).await;
    let key = first.names.fact(&world.key("shares", FILE));
    let late: Vec<u8> = raw(&world.url, &[b"GET", &key]);
    let revoked = first.live.delete("shares", doc! { "_id": id(SHARE) }).await;
    first.live.heard(revoked).await;
    let (said, _) = first.says_anew(&world.reads(FILE), at_least(revoked)).await;
    assert_eq!(said, NO_GRANT);
    first.asks_until(&world.reads(FILE), || raw::<Vec<u8>>(&world.url, &[b"GET", &key]) != late).await;
    raw::<()>(&world.url, &[b"SET", &key, &late]);
    second.live.heard(revoked).await;
    let (said, checked) = second.says_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
    assert_eq!((said.as_str(), checked.tier), (NO_GRANT, Tier::Source));
}

#[tokio::test]
async fn a_fact_from_before_an_instance_began_to_hear_is_not_believed() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let first = world.join().await;
    first.fills(&world.reads(FILE)).await;
    let revoked = first.live.delete("shares", doc! { "_id": id(SHARE) }).await;
    let second = world.join().await;
    second.live.heard(revoked).await;
    let (said, checked) = second.says_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
    assert_eq!((said.as_str(), checked.tier), (NO_GRANT, Tier::Source));
    assert_eq!((second.asked(), second.believed()), (2, 0));
}

#[tokio::test]
async fn a_fact_of_a_moment_that_has_not_come_is_not_believed() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let second = world.join().await;
    let key = second.names.fact(&world.key("shares", FILE));
    let newest = second.live.app.checker.freshness().newest_moment();
    for ahead in [3_600_u64 << 32, u64::MAX - newest.as_u64()] {
        let future = Moment::from_count(newest.as_u64() + ahead);
        raw::<()>(&world.url, &[b"SET", &key, &world.no_share(future)]);
        let (said, _) = second.says_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
        assert_eq!(said, GUEST, "{future:?}");
    }
}

#[tokio::test]
async fn what_is_no_fact_is_as_good_as_nothing() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let second = world.join().await;
    let read = second.fills(&world.reads(FILE)).await;
    second.live.heard(read).await;
    let name = |collection| second.names.fact(&world.key(collection, FILE));
    let (file, share) = (name("files"), name("shares"));
    let values: [Vec<u8>; 2] = [raw(&world.url, &[b"GET", &file]), raw(&world.url, &[b"GET", &share])];
    let [of_file, of_share] = &values;
    let says_and_believes = async || {
        let before = second.believed();
        let (said, _) = second.says_and_hears(&world.reads(FILE)).await;
        (said, second.believed() - before)
    };
    let told = second.in_time(says_and_believes).await;
    assert_eq!(told, (GUEST.to_owned(), 2), "as they are they are believed");
    let mut values = vec![b"".to_vec(), b"x".to_vec(), br#"{"canRead":true}"#.to_vec(), vec![0xff; 100_000]];
    values.push(of_file.clone());
    values.push([of_share.as_slice(), &[0]].concat());
    values.extend((7..of_share.len()).map(|length| of_share[..length].to_vec()));
    for value in values {
        let attempt = async || {
            raw::<()>(&world.url, &[b"SET", &share, &value]);
            says_and_believes().await
        };
        assert_eq!(second.in_time(attempt).await, (GUEST.to_owned(), 1), "only the file: {value:?}");
        // What was read instead is written in its place.
        until(|| raw::<Vec<u8>>(&world.url, &[b"GET", &share]) != value).await;
    }
    raw::<()>(&world.url, &[b"DEL", &share]);
    raw::<()>(&world.url, &[b"HSET", &share, b"a", b"b"]);
    let (said, _) = second.says_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
    assert_eq!(said, GUEST);
}
