//! Redis is down at the start, later frozen and killed for half a minute, and back, while three instances are asked about facts
//! that their memory does not hold.
//!
//! MongoDB does not fail here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bson::{doc, oid::ObjectId};
use permcached::{check::Consistency, facts::ANSWER_TIME, question::Tier};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{SCHEMA, USER, id};
use crate::support::{both::asked_of, fleet::Fleet, redis::Redis};

/// How long Redis is unreachable later, and how long it is down at the start.
const LOST: Duration = Duration::from_secs(30);
const LATE: Duration = Duration::from_secs(3);

const FILES: u16 = 2_000;

fn file(number: u16) -> ObjectId {
    let mut bytes = [7; 12];
    bytes[10..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// How many facts all instances have asked Redis for.
fn asked_of_redis(fleet: &Fleet) -> u64 {
    fleet.each().map(|live| asked_of(&live.app.metrics, "redis")).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_or_waits_while_redis_is_out_of_reach() {
    let mut redis = Redis::start(&[]);
    redis.kill();
    let files = (0..FILES).map(|number| doc! { "_id": file(number), "owner_id": id(USER) }).collect();
    // The memory is so small that each fact is loaded again.
    let settings = permcached::check::Settings { memory_bytes_max: 64 * 1_024, ..Default::default() };
    let fleet = Arc::new(Fleet::with(3, &redis.url(), SCHEMA, &[("files", files)], settings).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut askers = JoinSet::new();
    for place in 0..3 {
        let (fleet, is_over) = (Arc::clone(&fleet), Arc::clone(&is_over));
        askers.spawn(async move {
            let live = &fleet.instances[place].live;
            let (mut asked, mut slowest, mut from_redis) = (0_u64, Duration::ZERO, 0_u64);
            for number in (0..FILES).cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let question = live.question(&format!("user:{}", id(USER)), "read", &format!("file:{}", file(number)));
                let began = Instant::now();
                let checked = live.ask(&question, Consistency::MinimizeLatency).await.expect("no request fails");
                slowest = slowest.max(began.elapsed());
                asked += 1;
                from_redis += u64::from(checked.tier == Tier::Redis);
                sleep(Duration::from_millis(2)).await;
            }
            (asked, slowest, from_redis)
        });
    }
    sleep(LATE).await;
    redis.start_again();
    fleet.until_bus_covers_all().await;
    redis.freeze();
    // Requests that ask Redis just then wait; later ones do not.
    sleep(ANSWER_TIME * 20).await;
    let asked = asked_of_redis(&fleet);
    sleep(LOST / 2).await;
    assert_eq!(asked_of_redis(&fleet), asked, "a request waited for Redis again");
    redis.thaw();
    redis.kill();
    sleep(ANSWER_TIME * 20).await;
    let asked = asked_of_redis(&fleet);
    sleep(LOST / 2).await;
    assert_eq!(asked_of_redis(&fleet), asked, "a request waited for Redis again");
    redis.start_again();
    fleet.until_bus_covers_all().await;
    fleet.until_followed_by(1).await;
    is_over.store(true, Ordering::Relaxed);
    let (mut asked, mut from_redis) = (0, 0);
    for (requests, slowest, served) in askers.join_all().await {
        println!("{requests} requests, {served} of them served from Redis, the slowest took {slowest:?}");
        // The first request that asks the frozen Redis waits that long. The rest is MongoDB's time on a busy machine.
        assert!(slowest < ANSWER_TIME + Duration::from_secs(10), "{slowest:?}");
        asked += requests;
        from_redis += served;
    }
    assert!(asked > 1_000 && from_redis > 0, "{asked} requests, {from_redis} from Redis");
}
