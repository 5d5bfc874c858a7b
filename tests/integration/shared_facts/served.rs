//! A fact that one instance has read serves others, as long as it counts.
//!
//! How fast that is, is not measured here.

use bson::doc;
use permcached::{
    check::Consistency,
    fact::FactKey,
    freshness::Moment,
    link::CODE_BYTES,
    question::{Id, Tier},
};

use super::{FILE, GUEST, NO_GRANT, SHARE, World, id, raw};
use crate::support::{
    live::{at_least, until},
    redis::Redis,
};

/// How many `MGET`s Redis has received.
fn mget_calls(redis: &Redis) -> u64 {
    let stats = redis.info("commandstats", "cmdstat_mget");
    let calls = stats.strip_prefix("calls=").and_then(|calls| calls.split(',').next()?.parse().ok());
    calls.unwrap_or_else(|| panic!("no number of calls in: {stats}"))
}

#[tokio::test]
async fn a_fact_that_one_instance_has_read_is_not_read_by_another() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let (first, second) = (world.join().await, world.join().await);
    let counts = || [second.asked(), second.used(), mget_calls(&redis), second.written()];
    let attempt = async || {
        // In this attempt the second instance must not find what it wrote in an earlier one.
        redis.flush();
        let read = first.fills(&world.reads(FILE)).await;
        second.live.until_applied(read).await;
        second.finds();
        let before = counts();
        let (answer, checked) = second.answer_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
        (answer, checked.tier, second.finds(), before, counts())
    };
    let (answer, tier, finds, before, after) = second.in_time(attempt).await;
    assert_eq!((answer.as_str(), tier, finds), (GUEST, Tier::Redis, 0));
    let [asked, used, mgets, written] = before;
    assert_eq!(after, [asked + 2, used + 2, mgets + 1, written], "two facts in one MGET, none written");
    // From now on they are cached in memory.
    assert_eq!(second.live.ask(&world.reads(FILE), Consistency::MinimizeLatency).await.unwrap().tier, Tier::Memory);
    assert_eq!(second.written(), written, "Redis has them already");
}

/// Redis does nothing else while a script runs.
#[tokio::test]
async fn no_script_reads_more_than_a_thousand_facts() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let instance = world.join().await;
    instance.fills(&world.reads(FILE)).await;
    let there = world.key("shares", FILE);
    let absent = (0..8_998_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        FactKey { id: Id::ObjectId([high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), ..there.clone() }
    });
    let keys: Vec<FactKey> = [there.clone()].into_iter().chain(absent).chain([there.clone()]).collect();
    let read = async || {
        let before = mget_calls(&redis);
        (instance.shared.get(&keys).await.len(), mget_calls(&redis) - before)
    };
    assert_eq!(instance.in_time(read).await, (2, 9), "the first and the last, in nine parts");
}

#[tokio::test]
async fn a_fact_without_documents_expires_earlier() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let first = world.join().await;
    first.fills(&world.reads(2)).await;
    let life = |collection| raw::<i64>(&world.url, &[b"TTL", &first.name(&world, collection, 2)]);
    assert!((3_500..=3_600).contains(&life("files")), "{}", life("files"));
    assert!((1..=60).contains(&life("shares")), "{}", life("shares"));
}

/// As if an instance were suspended between its read and its write.
#[tokio::test]
async fn an_outdated_fact_that_was_written_late_is_not_used() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let (first, second) = (world.join().await, world.join().await);
    first.fills(&world.reads(FILE)).await;
    let key = first.name(&world, "shares", FILE);
    let late: Vec<u8> = raw(&world.url, &[b"GET", &key]);
    let revoked = first.live.delete("shares", doc! { "_id": id(SHARE) }).await;
    first.live.until_applied(revoked).await;
    let (answer, _) = first.answer_anew(&world.reads(FILE), at_least(revoked)).await;
    assert_eq!(answer, NO_GRANT);
    first.ask_until(&world.reads(FILE), || raw::<Vec<u8>>(&world.url, &[b"GET", &key]) != late).await;
    raw::<()>(&world.url, &[b"SET", &key, &late]);
    second.live.until_applied(revoked).await;
    let (answer, checked) = second.answer_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
    assert_eq!((answer.as_str(), checked.tier), (NO_GRANT, Tier::Source));
}

#[tokio::test]
async fn a_fact_from_before_the_floor_of_a_new_instance_is_not_used() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let first = world.join().await;
    first.fills(&world.reads(FILE)).await;
    let revoked = first.live.delete("shares", doc! { "_id": id(SHARE) }).await;
    let second = world.join().await;
    second.live.until_applied(revoked).await;
    let (answer, checked) = second.answer_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
    assert_eq!((answer.as_str(), checked.tier), (NO_GRANT, Tier::Source));
    assert_eq!((second.asked(), second.used()), (2, 0));
}

#[tokio::test]
async fn a_fact_with_a_stamp_in_the_future_is_not_used() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let second = world.join().await;
    let key = second.name(&world, "shares", FILE);
    let newest = second.live.app.freshness.newest_moment();
    for ahead in [3_600_u64 << 32, u64::MAX - newest.as_u64()] {
        let future = Moment::from_count(newest.as_u64() + ahead);
        let signed = second.namespace.codes.facts.sign(&key, &world.no_share(future));
        raw::<()>(&world.url, &[b"SET", &key, &signed]);
        let (answer, _) = second.answer_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
        assert_eq!(answer, GUEST, "{future:?}");
    }
}

#[tokio::test]
async fn a_value_that_is_not_the_fact_of_its_key_is_a_miss() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let second = world.join().await;
    let read = second.fills(&world.reads(FILE)).await;
    second.live.until_applied(read).await;
    let name = |collection| second.name(&world, collection, FILE);
    let (file, share) = (name("files"), name("shares"));
    let values: [Vec<u8>; 2] = [raw(&world.url, &[b"GET", &file]), raw(&world.url, &[b"GET", &share])];
    let [of_file, of_share] = &values;
    let answer_and_used = async || {
        let before = second.used();
        let (answer, _) = second.answer_and_catch_up(&world.reads(FILE)).await;
        (answer, second.used() - before)
    };
    let result = second.in_time(answer_and_used).await;
    assert_eq!(result, (GUEST.to_owned(), 2), "unchanged, both facts are used");
    let mut values = vec![b"".to_vec(), b"x".to_vec(), br#"{"canRead":true}"#.to_vec(), vec![0xff; 100_000]];
    values.push(of_file.clone());
    values.push([of_share.as_slice(), &[0]].concat());
    // The same, as if an instance had signed it: the encoding itself is tested too.
    let (_, content) = of_share.split_at(CODE_BYTES);
    let sign = |content: &[u8]| second.namespace.codes.facts.sign(&share, content);
    values.extend((7..content.len()).map(|length| sign(&content[..length])));
    values.push(sign(&[content, &[0]].concat()));
    values.push(sign(&vec![0; 100_000]));
    for value in values {
        let attempt = async || {
            raw::<()>(&world.url, &[b"SET", &share, &value]);
            answer_and_used().await
        };
        assert_eq!(
            second.in_time(attempt).await,
            (GUEST.to_owned(), 1),
            "only the fact of the file is used: {value:?}"
        );
        // The fact that was read instead replaces the value.
        until(|| raw::<Vec<u8>>(&world.url, &[b"GET", &share]) != value).await;
    }
    raw::<()>(&world.url, &[b"DEL", &share]);
    raw::<()>(&world.url, &[b"HSET", &share, b"a", b"b"]);
    let (answer, _) = second.answer_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
    assert_eq!(answer, GUEST);
}
