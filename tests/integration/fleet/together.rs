//! Three instances act as one.

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
    let fleet = Fleet::new(3, &redis().url(), SCHEMA, &shared_files()).await;
    fleet.until_told().await;
    let [first, second, third] = [0, 1, 2].map(|place| &fleet.instances[place]);
    take_from_redis(first, &[second, third]).await;
}

/// How many shared files there are to ask for.
const FILES: u8 = 40;

/// Some files that are shared, [`FILE`] by [`SHARE`] among them.
pub fn shared_files() -> [(&'static str, Vec<Document>); 2] {
    let files = (0..FILES).map(|more| doc! { "_id": id(FILE + more), "owner_id": id(OWNER) }).collect();
    [("files", files), ("shares", (0..FILES).map(|more| share(SHARE + more, FILE + more)).collect())]
}

/// What the first has loaded, the others take from Redis without asking MongoDB. Where Redis is too slow for one of them, it is
/// another file's turn: what is found of this one may no longer be what the first has written.
pub async fn take_from_redis(first: &Instance, others: &[&Instance]) {
    for file in (FILE..).take(usize::from(FILES)) {
        let question = reads(&first.live, file);
        let found = || found_in(&first.live.app.metrics, "source");
        let before = found();
        let loaded = first.live.fills(&question).await;
        assert!(found() >= before + 2, "the file, and its shares");
        let mut do_all = true;
        for other in others {
            other.live.heard(loaded).await;
            do_all = do_all && takes_from_redis(other, &question).await;
        }
        if do_all {
            return;
        }
        // The link is tried again by then, mostly.
        sleep(Duration::from_millis(200)).await;
    }
    panic!("they do not take it from Redis");
}

/// Whether an instance answers by what is in Redis.
async fn takes_from_redis(instance: &Instance, question: &Question) -> bool {
    instance.monitor.take();
    let checked = instance.live.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
    assert_eq!(shown(&instance.live.schema, checked.answer), GUEST);
    let finds = commands(&instance.monitor.take(), "find");
    let takes = checked.tier == Tier::Redis;
    assert!(!takes || finds.iter().all(|find| level(find) == "linearizable"), "{finds:?}");
    takes
}
