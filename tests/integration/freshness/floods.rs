//! More changes than one batch of a change stream has, or than the feed keeps. The watermark still gets past them.

use std::time::Duration;

use bson::{Document, doc};
use permcached::{
    check::{Consistency, Settings},
    freshness::Moment,
    question::Question,
};
use tokio::time::{sleep, timeout};

use super::{GUEST, NO_GRANT, SCHEMA, USER, file, id, reads, share, users};
use crate::support::{both::shown, live::Live, monitored::FailPoint, servers::mongo};

/// This many changes take a change stream some seconds: longer than one answer may take.
const BULK: u32 = 60_000;

/// A transaction of this many writes has more changes at its moment than the feed keeps (its `EARLY_MAX` is 100,000). Each
/// write counts twice, as a document and as a key.
const CROWD: u32 = 55_000;

/// If a stream takes more than half a second for a thousand changes, this many take longer than the feed's longest patience
/// (its `PATIENCE_MAX` is 8 s).
const QUEUE: u32 = 20_000;

/// How long a busy machine may take for them.
const PATIENCE: Duration = Duration::from_mins(3);

/// An application that has cached a guest's share of file 1. There are other shares, with these fields. Its commands can be
/// made to fail without others.
async fn guest_among(app_name: &str, others: u32, fields: &Document) -> (Live, Question) {
    let numbered = |number: u32| {
        let mut other = doc! { "_id": i64::from(number), "active": true };
        other.extend(fields.clone());
        other
    };
    let shares = (0..others).map(numbered).chain([share(50, 1)]).collect();
    let all = [users(), ("files", vec![file(1)]), ("shares", shares)];
    let (live, _) = Live::named(app_name, SCHEMA, &all, Settings::default()).await;
    let question = reads(&live, USER, 1);
    assert_eq!(shown(&live.schema, live.until_cached(&question).await), GUEST);
    (live, question)
}

/// Waits until the watermark has reached a moment.
async fn watermark_reaches(live: &Live, moment: Moment) {
    let past = async {
        while live.app.freshness.watermark() < moment {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, past).await.expect("the feed gets past it in the end");
}

/// Ends all shares at one moment.
async fn end_all_at_once(live: &Live) -> Moment {
    let mut session = live.database.client().start_session().await.expect("a session");
    session.start_transaction().await.expect("a replica set has transactions");
    let shares = live.database.collection::<Document>("shares");
    shares.update_many(doc! {}, doc! { "$set": { "active": false } }).session(&mut session).await.expect("an update");
    session.commit_transaction().await.expect("a commit");
    live.transaction_time("shares").await
}

#[tokio::test]
async fn the_feed_gets_past_a_bulk_write_and_sees_later_changes() {
    let (live, question) = guest_among("bulk", BULK, &doc! {}).await;
    // Without a transaction each write has a moment of its own. The reply has the last of them.
    let others = doc! { "q": { "_id": { "$ne": id(50) } }, "u": { "$set": { "active": false } }, "multi": true };
    let moment = live.run(doc! { "update": "shares", "updates": [others] }).await;
    watermark_reaches(&live, moment).await;
    let moment = live.update("shares", doc! { "_id": id(50) }, doc! { "$set": { "active": false } }).await;
    watermark_reaches(&live, moment).await;
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT);
    assert_eq!(live.app.freshness.floor(), live.first_floor, "the floor stays");
}

#[tokio::test]
async fn more_changes_at_one_moment_than_are_kept_raise_the_floor() {
    let (live, question) = guest_among("crowd", CROWD, &doc! { "file_id": id(2) }).await;
    let freshness = &live.app.freshness;
    assert_eq!(freshness.floor(), live.first_floor);
    let moment = end_all_at_once(&live).await;
    watermark_reaches(&live, moment).await;
    assert!(freshness.floor() > live.first_floor, "the floor is raised, as not all changes were kept");
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT);
    // The feed goes on.
    let moment = live.update("shares", doc! { "_id": id(50) }, doc! { "$set": { "active": true } }).await;
    watermark_reaches(&live, moment).await;
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, GUEST);
}

#[tokio::test]
async fn the_feed_gets_past_a_transaction_that_takes_longer_than_its_patience() {
    let (live, question) = guest_among("queue", QUEUE, &doc! { "file_id": id(2) }).await;
    let slow = doc! { "failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": 600 };
    let slow = FailPoint::on(mongo(), "queue", "alwaysOn", slow).await;
    let moment = end_all_at_once(&live).await;
    watermark_reaches(&live, moment).await;
    slow.off().await;
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT);
    assert_eq!(live.app.freshness.floor(), live.first_floor, "the floor stays");
}
