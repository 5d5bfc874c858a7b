//! More changes at once than a change stream shows in one go, or than are kept: W gets past them all the same.

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

/// So many that a change stream takes seconds to show them: longer than it may take to answer.
const BULK: u32 = 60_000;

/// So many that a transaction makes more changes at its one moment than are kept (`EARLY_MAX` of the feed is 100,000): each
/// of these counts twice, as a document and as something that a key finds.
const CROWD: u32 = 55_000;

/// So many that a stream which shows a thousand of them in more than half a second takes longer than it ever has for what it
/// does not get past (`PATIENCE_MAX` of the feed is 8 s).
const QUEUE: u32 = 20_000;

/// How long a busy machine may take to show as many.
const PATIENCE: Duration = Duration::from_mins(3);

/// A guest's share of file 1, which is remembered, among other shares that have these fields. The application's own commands
/// can be made to fail.
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
    assert_eq!(shown(&live.schema, live.remembers(&question).await), GUEST);
    (live, question)
}

/// Waits until the feed has got past a moment.
async fn is_past(live: &Live, moment: Moment) {
    let past = async {
        while live.app.freshness.watermark() < moment {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, past).await.expect("it gets past it in the end");
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
async fn a_bulk_write_is_got_past_and_what_comes_after_it_is_noticed() {
    let (live, question) = guest_among("bulk", BULK, &doc! {}).await;
    // No transaction: each has a moment of its own, and the last of them is the command's.
    let others = doc! { "q": { "_id": { "$ne": id(50) } }, "u": { "$set": { "active": false } }, "multi": true };
    let moment = live.run(doc! { "update": "shares", "updates": [others] }).await;
    is_past(&live, moment).await;
    let moment = live.update("shares", doc! { "_id": id(50) }, doc! { "$set": { "active": false } }).await;
    is_past(&live, moment).await;
    assert_eq!(live.says(&question, Consistency::MinimizeLatency).await, NO_GRANT);
    assert_eq!(live.app.freshness.floor(), live.first_floor, "nothing was dropped");
}

#[tokio::test]
async fn more_changes_at_one_moment_than_are_kept_count_against_all_that_is_remembered() {
    let (live, question) = guest_among("crowd", CROWD, &doc! { "file_id": id(2) }).await;
    let freshness = &live.app.freshness;
    assert_eq!(freshness.floor(), live.first_floor);
    let moment = end_all_at_once(&live).await;
    is_past(&live, moment).await;
    assert!(freshness.floor() > live.first_floor, "not all of it was kept, and nothing was dropped");
    assert_eq!(live.says(&question, Consistency::MinimizeLatency).await, NO_GRANT);
    // It goes on.
    let moment = live.update("shares", doc! { "_id": id(50) }, doc! { "$set": { "active": true } }).await;
    is_past(&live, moment).await;
    assert_eq!(live.says(&question, Consistency::MinimizeLatency).await, GUEST);
}

#[tokio::test]
async fn a_transaction_is_got_past_however_long_it_takes_to_show() {
    let (live, question) = guest_among("queue", QUEUE, &doc! { "file_id": id(2) }).await;
    let slow = doc! { "failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": 600 };
    let slow = FailPoint::on(mongo(), "queue", "alwaysOn", slow).await;
    let moment = end_all_at_once(&live).await;
    is_past(&live, moment).await;
    slow.off().await;
    assert_eq!(live.says(&question, Consistency::MinimizeLatency).await, NO_GRANT);
    assert_eq!(live.app.freshness.floor(), live.first_floor, "nothing was dropped");
}
