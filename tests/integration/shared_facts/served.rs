//! What one instance has read serves others, as long as it counts.

use bson::doc;
use permcached::{check::Demand, freshness::Moment, question::Tier};

use super::{FILE, GUEST, NO_GRANT, SHARE, World, id, raw};
use crate::support::{
    live::{at_least, until},
    redis::Redis,
};

#[tokio::test]
async fn what_one_instance_has_read_another_does_not_ask_mongodb_for() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let (first, second) = (world.join().await, world.join().await);
    let read = first.fills(&world.reads(FILE)).await;
    second.live.heard(read).await;
    second.finds();
    let (said, checked) = second.says_anew(&world.reads(FILE), Demand::MinimizeLatency).await;
    assert_eq!((said.as_str(), checked.tier), (GUEST, Tier::Redis));
    assert_eq!((second.asked(), second.believed(), second.finds()), (2, 2, 0));
    let stats = redis.info("commandstats", "cmdstat_mget");
    assert!(stats.starts_with("calls=2,"), "one for each of the two rounds: {stats}");
    // From now on it is remembered.
    assert_eq!(second.live.ask(&world.reads(FILE), Demand::MinimizeLatency).await.unwrap().tier, Tier::Memory);
    assert_eq!(second.written(), 0, "it is there already");
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
    until(|| raw::<Vec<u8>>(&world.url, &[b"GET", &key]) != late).await;
    raw::<()>(&world.url, &[b"SET", &key, &late]);
    second.live.heard(revoked).await;
    let (said, checked) = second.says_anew(&world.reads(FILE), Demand::MinimizeLatency).await;
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
    let (said, checked) = second.says_anew(&world.reads(FILE), Demand::MinimizeLatency).await;
    assert_eq!((said.as_str(), checked.tier), (NO_GRANT, Tier::Source));
    assert_eq!((second.asked(), second.believed()), (2, 0));
}

#[tokio::test]
async fn a_fact_of_a_moment_that_has_not_come_is_not_believed() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let second = world.join().await;
    let key = second.names.fact(&world.key("shares", FILE));
    let newest = second.live.app.checker.freshness().newest();
    for ahead in [3_600_u64 << 32, u64::MAX - newest.as_u64()] {
        let future = Moment::from_count(newest.as_u64() + ahead);
        raw::<()>(&world.url, &[b"SET", &key, &world.no_share(future)]);
        let (said, _) = second.says_anew(&world.reads(FILE), Demand::MinimizeLatency).await;
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
    let believed = second.believed();
    let (said, _) = second.says_anew(&world.reads(FILE), Demand::MinimizeLatency).await;
    assert_eq!((said.as_str(), second.believed()), (GUEST, believed + 2), "as they are they are believed");
    let mut values = vec![b"".to_vec(), b"x".to_vec(), br#"{"canRead":true}"#.to_vec(), vec![0xff; 100_000]];
    values.push(of_file.clone());
    values.push([of_share.as_slice(), &[0]].concat());
    values.extend((7..of_share.len()).map(|length| of_share[..length].to_vec()));
    for value in values {
        raw::<()>(&world.url, &[b"SET", &share, &value]);
        let believed = second.believed();
        let (said, _) = second.says_anew(&world.reads(FILE), Demand::MinimizeLatency).await;
        assert_eq!((said.as_str(), second.believed()), (GUEST, believed + 1), "only the file: {value:?}");
        // What was read instead is written in its place.
        until(|| raw::<Vec<u8>>(&world.url, &[b"GET", &share]) != value).await;
    }
    raw::<()>(&world.url, &[b"DEL", &share]);
    raw::<()>(&world.url, &[b"HSET", &share, b"a", b"b"]);
    let (said, _) = second.says_anew(&world.reads(FILE), Demand::MinimizeLatency).await;
    assert_eq!(said, GUEST);
}
