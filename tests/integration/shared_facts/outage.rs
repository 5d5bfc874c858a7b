//! Whatever is wrong with Redis: answers are as right as without it, and only the first to notice loses time.

use bson::doc;
use permcached::{check::Consistency, question::Tier};

use super::{FILE, GUEST, Instance, NO_GRANT, SHARE, World, id, in_time, while_up};
use crate::support::{
    live::{at_least, until},
    redis::Redis,
};

/// Answers from the source: before a change, and after it.
async fn answers_are_right(world: &World, instance: &Instance) {
    let (said, checked) = instance.says_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
    assert_eq!((said.as_str(), checked.tier), (GUEST, Tier::Source));
    let revoked = instance.live.delete("shares", doc! { "_id": id(SHARE) }).await;
    let (said, checked) = instance.says_anew(&world.reads(FILE), at_least(revoked)).await;
    assert_eq!((said.as_str(), checked.tier), (NO_GRANT, Tier::Source));
}

#[tokio::test]
async fn a_redis_that_freezes_costs_one_request_some_time_and_the_next_ones_nothing() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let instance = world.join().await;
    redis.freeze();
    let (said, checked) = instance.says_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
    assert_eq!((said.as_str(), checked.tier), (GUEST, Tier::Source));
    let asked = instance.asked();
    assert_eq!((asked, instance.link.is_up()), (2, false));
    for file in 2..10 {
        assert_eq!(instance.says_anew(&world.reads(file), Consistency::MinimizeLatency).await.0, NO_GRANT);
    }
    assert_eq!(instance.asked(), asked, "nobody waits for it");
    redis.thaw();
    until(|| instance.link.is_up()).await;
    let read = instance.fills(&world.reads(FILE)).await;
    instance.live.heard(read).await;
    let (said, checked) = instance.in_time(async || instance.says_and_hears(&world.reads(FILE)).await).await;
    assert_eq!((said.as_str(), checked.tier), (GUEST, Tier::Redis));
}

#[tokio::test]
async fn a_redis_that_wants_a_password_is_none() {
    let redis = Redis::with_password("secret");
    let world = World::new(&format!("redis://127.0.0.1:{}", redis.port())).await;
    let instance = world.start().await;
    answers_are_right(&world, &instance).await;
    assert_eq!((instance.asked(), instance.link.is_up()), (0, false));
    until(|| instance.unwritten("down") > 0).await;
}

#[tokio::test]
async fn a_user_without_the_right_to_read_or_to_ask_for_the_memory_harms_nothing() {
    let redis = Redis::start(&[]);
    for (name, rules, reason) in [
        ("nobody", "~pc:* +ping +client +hello", "refused"),
        ("writer", "~pc:* +ping +client +hello +mget +set", "refused"),
        ("stranger", "~other:* +ping +client +hello +mget +set +info", "refused"),
    ] {
        redis.set_user(name, "secret", rules);
        let attempt = async || {
            let world = World::new(&redis.url_of(name, "secret")).await;
            let instance = world.join().await;
            // A refusal is no outage: were it taken for one, no attempt would do.
            let attempt = async {
                answers_are_right(&world, &instance).await;
                instance.says_anew(&world.reads(2), Consistency::MinimizeLatency).await;
            };
            while_up(&instance.link, attempt).await.map(|()| instance)
        };
        let instance = in_time(attempt).await;
        until(|| instance.unwritten(reason) > 0 && instance.unwritten("paused") > 0).await;
        assert_eq!((instance.written(), redis.read::<u64>(&["DBSIZE"])), (0, 0), "{name}");
    }
}

#[tokio::test]
async fn a_replica_that_takes_no_writes_is_no_use_and_no_harm() {
    let primary = Redis::start(&[]);
    let replica = Redis::replica_of(&primary);
    let world = World::new(&replica.url()).await;
    let instance = world.join().await;
    answers_are_right(&world, &instance).await;
    instance.asks_until(&world.reads(FILE), || instance.unwritten("refused") > 0).await;
    assert_eq!(instance.written(), 0);
    until(|| instance.link.is_up()).await;
}
