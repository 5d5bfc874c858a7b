//! Three instances act as one: each sees every change, they share one change stream, and they share facts.
//!
//! Nothing fails here.

use std::time::Duration;

use bson::{Document, doc};
use permcached::{
    check::Consistency,
    question::{Question, Tier},
};
use tokio::time::sleep;

use super::{FILE, GUEST, NO_GRANT, OWNER, SCHEMA, SHARE, id, reads, share, shared_file};
use crate::support::{
    both::{found_in, shown},
    fleet::{Fleet, Instance},
    live::at_least,
    monitored::{commands, level},
    redis::redis,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_share_is_denied_on_all_three_instances_which_share_one_change_stream() {
    let fleet = Fleet::new(3, &redis().url(), SCHEMA, &shared_file()).await;
    fleet.until_bus_covers_all().await;
    fleet.until_followed_by(1).await;
    let [first, second, third] = [0, 1, 2].map(|place| &fleet.instances[place].live);
    let question = reads(first, FILE);
    fleet.until_cached(&question, GUEST).await;
    let moment = first.delete("shares", doc! { "_id": id(SHARE) }).await;
    fleet.until_applied(moment, &question, NO_GRANT).await;
    fleet.until_cached(&question, NO_GRANT).await;
    // The others accept a token of one instance.
    let back = second.insert("shares", vec![share(SHARE, FILE)]).await;
    let seen = second.ask(&question, at_least(back)).await.expect("an answer");
    for other in [first, third] {
        assert_eq!(other.answer(&question, at_least(seen.as_of.moment)).await, GUEST);
    }
    assert_eq!(fleet.followers().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fact_that_one_instance_has_loaded_is_served_to_the_others_from_redis() {
    let fleet = Fleet::new(3, &redis().url(), SCHEMA, &shared_files()).await;
    fleet.until_bus_covers_all().await;
    let [first, second, third] = [0, 1, 2].map(|place| &fleet.instances[place]);
    assert_taken_from_redis(first, &[second, third]).await;
}

/// How many shared files there are.
const FILES: u8 = 40;

/// Files with a share each, among them [`FILE`] with [`SHARE`].
pub fn shared_files() -> [(&'static str, Vec<Document>); 2] {
    let files = (0..FILES).map(|more| doc! { "_id": id(FILE + more), "owner_id": id(OWNER) }).collect();
    [("files", files), ("shares", (0..FILES).map(|more| share(SHARE + more, FILE + more)).collect())]
}

/// Asserts that the others take from Redis what the first instance has loaded, without asking MongoDB. If Redis is too slow for
/// one of them, tries another file: this one's facts in Redis may no longer be those that the first instance has written.
pub async fn assert_taken_from_redis(first: &Instance, others: &[&Instance]) {
    for file in (FILE..).take(usize::from(FILES)) {
        let question = reads(&first.live, file);
        let found = || found_in(&first.live.app.metrics, "source");
        let before = found();
        let loaded = first.live.fills(&question).await;
        assert!(found() >= before + 2, "it loads the file and its shares");
        let mut all_take = true;
        for other in others {
            other.live.until_applied(loaded).await;
            all_take = all_take && takes_from_redis(other, &question).await;
        }
        if all_take {
            return;
        }
        // The link is usually up again by then.
        sleep(Duration::from_millis(200)).await;
    }
    panic!("no file was taken from Redis by all of them");
}

/// Whether an instance answers from Redis.
async fn takes_from_redis(instance: &Instance, question: &Question) -> bool {
    instance.monitor.take();
    let checked = instance.live.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
    assert_eq!(shown(&instance.live.schema, checked.answer), GUEST);
    let finds = commands(&instance.monitor.take(), "find");
    let takes = checked.tier == Tier::Redis;
    assert!(!takes || finds.iter().all(|find| level(find) == "linearizable"), "{finds:?}");
    takes
}
