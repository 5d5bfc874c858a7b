//! Three instances act as one.

use bson::doc;
use permcached::{check::Demand, question::Tier};

use super::{FILE, GUEST, NO_GRANT, SCHEMA, SHARE, id, reads, share, shared_file};
use crate::support::{
    both::shown,
    fleet::Fleet,
    live::{at_least, until},
    monitored::{commands, level},
    redis::redis,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_is_deleted_by_a_bare_write_is_denied_on_all_three_and_one_stream_is_open() {
    let fleet = Fleet::new(3, &redis().url(), SCHEMA, &shared_file()).await;
    fleet.until_told().await;
    fleet.until_followed_by(1).await;
    let [first, second, third] = [0, 1, 2].map(|place| &fleet.instances[place].live);
    let question = reads(first, FILE);
    fleet.remember(&question, GUEST).await;
    let moment = first.delete("shares", doc! { "_id": id(SHARE) }).await;
    fleet.notice(moment, &question, NO_GRANT).await;
    fleet.remember(&question, NO_GRANT).await;
    // A token from one is honoured by the others.
    let back = second.insert("shares", vec![share(SHARE, FILE)]).await;
    let seen = second.ask(&question, at_least(back)).await.expect("an answer");
    for other in [first, third] {
        assert_eq!(other.says(&question, at_least(seen.as_of.moment)).await, GUEST);
    }
    assert_eq!(fleet.followers().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fact_that_one_has_loaded_the_others_take_from_redis_without_asking_mongodb() {
    let fleet = Fleet::new(3, &redis().url(), SCHEMA, &shared_file()).await;
    fleet.until_told().await;
    let [first, second, third] = [0, 1, 2].map(|place| &fleet.instances[place]);
    let question = reads(&first.live, FILE);
    let loaded = first.live.ask(&question, Demand::MinimizeLatency).await.expect("an answer");
    assert_eq!(loaded.tier, Tier::Source);
    // It is written in the background: the file, and its shares.
    until(|| first.live.app.metrics.render().contains("permcached_redis_facts_written_total 2")).await;
    for other in [second, third] {
        other.live.heard(loaded.as_of.moment).await;
        other.monitor.take();
        let checked = other.live.ask(&question, Demand::MinimizeLatency).await.expect("an answer");
        assert_eq!((shown(&other.live.schema, checked.answer).as_str(), checked.tier), (GUEST, Tier::Redis));
        let finds = commands(&other.monitor.take(), "find");
        assert!(finds.iter().all(|find| level(find) == "linearizable"), "{finds:?}");
    }
}
