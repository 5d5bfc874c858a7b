//! A Redis that fails or refuses: answers stay right, and only the first request that notices loses time.
//!
//! Outages that the bus notices are tested in `fleet`.

use bson::doc;
use permcached::{check::Consistency, question::Tier};

use super::{FILE, GUEST, Instance, NO_GRANT, SHARE, World, id, in_time, while_up};
use crate::support::{
    live::{at_least, until},
    redis::Redis,
};

/// The answers before and after a change are right, and come from the source.
async fn answers_are_right(world: &World, instance: &Instance) {
    let (answer, checked) = instance.answer_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
    assert_eq!((answer.as_str(), checked.tier), (GUEST, Tier::Source));
    let revoked = instance.live.delete("shares", doc! { "_id": id(SHARE) }).await;
    let (answer, checked) = instance.answer_anew(&world.reads(FILE), at_least(revoked)).await;
    assert_eq!((answer.as_str(), checked.tier), (NO_GRANT, Tier::Source));
}

#[tokio::test]
async fn a_frozen_redis_delays_one_request_and_no_later_ones() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let instance = world.join().await;
    redis.freeze();
    let (answer, checked) = instance.answer_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
    assert_eq!((answer.as_str(), checked.tier), (GUEST, Tier::Source));
    let asked = instance.asked();
    assert_eq!((asked, instance.link.is_up()), (2, false));
    for file in 2..10 {
        assert_eq!(instance.answer_anew(&world.reads(file), Consistency::MinimizeLatency).await.0, NO_GRANT);
    }
    assert_eq!(instance.asked(), asked, "no request asks Redis");
    redis.thaw();
    until(|| instance.link.is_up()).await;
    let read = instance.fills(&world.reads(FILE)).await;
    instance.live.until_applied(read).await;
    let (answer, checked) = instance.in_time(async || instance.answer_and_catch_up(&world.reads(FILE)).await).await;
    assert_eq!((answer.as_str(), checked.tier), (GUEST, Tier::Redis));
}

#[tokio::test]
async fn a_redis_that_requires_a_password_is_not_used() {
    let redis = Redis::with_password("secret");
    let world = World::new(&format!("redis://127.0.0.1:{}", redis.port())).await;
    let instance = world.start().await;
    answers_are_right(&world, &instance).await;
    assert_eq!((instance.asked(), instance.link.is_up()), (0, false));
    until(|| instance.unwritten("down") > 0).await;
}

#[tokio::test]
async fn answers_are_right_if_the_redis_user_lacks_a_right() {
    let redis = Redis::start(&[]);
    for (name, rules, reason) in [
        ("nobody", "~pc:* +ping +client +hello", "refused"),
        ("writer", "~pc:* +ping +client +hello +mget +set", "refused"),
        ("outsider", "~other:* +ping +client +hello +mget +set +info", "refused"),
    ] {
        redis.set_user(name, "secret", rules);
        let attempt = async || {
            let world = World::new(&redis.url_of(name, "secret")).await;
            let instance = world.join().await;
            // A refusal must not count as an outage: the link would go down, and no attempt would succeed.
            let attempt = async {
                answers_are_right(&world, &instance).await;
                instance.answer_anew(&world.reads(2), Consistency::MinimizeLatency).await;
            };
            while_up(&instance.link, attempt).await.map(|()| instance)
        };
        let instance = in_time(attempt).await;
        until(|| instance.unwritten(reason) > 0 && instance.unwritten("paused") > 0).await;
        assert_eq!((instance.written(), redis.read::<u64>(&["DBSIZE"])), (0, 0), "{name}");
    }
}

#[tokio::test]
async fn answers_are_right_over_a_replica_that_refuses_writes() {
    let primary = Redis::start(&[]);
    let replica = Redis::replica_of(&primary);
    let world = World::new(&replica.url()).await;
    let instance = world.join().await;
    answers_are_right(&world, &instance).await;
    instance.ask_until(&world.reads(FILE), || instance.unwritten("refused") > 0).await;
    assert_eq!(instance.written(), 0);
    until(|| instance.link.is_up()).await;
}
