//! A real change stream that is late, fails or loses changes, and many changes at one moment.
//!
//! `streams` tests the same feed over a stream that the test controls, and `floods` very many changes.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use bson::{Bson, Document, doc, oid::ObjectId};
use mongodb::Database;
use permcached::{
    check::{Consistency, Settings},
    fact::FactKey,
    facts::FreshnessRequirement,
    freshness::{LocalTime, Moment},
    question::{Id, Question, Tier},
    source::Deadline,
};
use tokio::time::{sleep, timeout};

use super::{GUEST, NO_GRANT, SCHEMA, USER, file, id, reads, share, users};
use crate::support::{
    both::{TIME_MAX, shown},
    live::{Live, at_least, until},
    monitored::{FailPoint, Monitor, commands},
    servers::mongo,
};

/// How long a blocked command takes: longer than the feed's longest patience.
const BLOCKED: Duration = Duration::from_secs(15);

/// How long a server may take to close cursors.
const PATIENCE: Duration = Duration::from_secs(45);

/// An application with a guest's share of file 1. Its commands can be made to fail without others.
async fn guest(app_name: &str) -> (Live, Question) {
    let all = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let (live, _) = Live::named(app_name, SCHEMA, &all, Settings::default()).await;
    let question = reads(&live, USER, 1);
    (live, question)
}

/// Makes the command that reads the change stream fail or block.
async fn stream_fails(app_name: &str, mode: impl Into<Bson>, mut data: Document) -> FailPoint {
    data.insert("failCommands", ["getMore"].as_slice());
    FailPoint::on(mongo(), app_name, mode, data).await
}

/// The data of a fail point that blocks a command.
fn blocked() -> Document {
    let time = i64::try_from(BLOCKED.as_millis()).expect("it is small");
    doc! { "blockConnection": true, "blockTimeMS": time }
}

/// Ends the blocked commands of a database. Otherwise, the next fail point would wait for them.
pub(super) async fn end_blocked_commands(database: &Database) {
    let admin = database.client().database("admin");
    // A blocked command has not begun, so the server does not report how long it has been running.
    let command = doc! {
        "currentOp": 1,
        "command.$db": database.name(),
        "microsecs_running": { "$exists": false },
    };
    let operations = admin.run_command(command).await.expect("the command is right");
    for operation in operations.get_array("inprog").expect("a list") {
        let number = operation.as_document().and_then(|operation| operation.get("opid")).expect("a number");
        admin.run_command(doc! { "killOp": 1, "op": number.clone() }).await.expect("the command is right");
    }
}

async fn set_active(live: &Live, active: bool) -> Moment {
    live.update("shares", doc! { "_id": id(50) }, doc! { "$set": { "active": active } }).await
}

#[tokio::test]
async fn a_check_with_the_token_of_a_write_sees_it_while_the_feed_is_late() {
    let (live, question) = guest("late feed").await;
    let _cached = live.until_cached(&question).await;
    let late = stream_fails("late feed", "alwaysOn", doc! { "blockConnection": true, "blockTimeMS": 700 }).await;
    let mut was_late = false;
    for (active, wanted) in [(false, NO_GRANT), (true, GUEST), (false, NO_GRANT), (true, GUEST)] {
        let moment = set_active(&live, active).await;
        was_late |= live.app.freshness.watermark() < moment;
        assert_eq!(live.answer(&question, at_least(moment)).await, wanted);
    }
    assert!(was_late, "the feed is late");
    late.off().await;
}

#[tokio::test]
async fn the_watermark_does_not_pass_the_newest_probe_but_later_changes_are_marked() {
    let (live, question) = guest("unconfirmed feed").await;
    let _cached = live.until_cached(&question).await;
    let failing = doc! { "failCommands": ["find"], "errorCode": 11_600 };
    let failing = FailPoint::on(mongo(), "unconfirmed feed", "alwaysOn", failing).await;
    let freshness = &live.app.freshness;
    let (shares, _) = live.schema.lookups().find(|(_, lookup)| &*lookup.collection == "shares").expect("a lookup");
    let (mut first, mut last) = (None, Moment::default());
    for active in [false, true, false] {
        last = set_active(&live, active).await;
        first.get_or_insert(last);
        // The mark shows that the stream returned this change early, so all earlier change batches have been applied.
        until(|| freshness.key_mark(shares, &Id::ObjectId(id(1).bytes())) >= last).await;
    }
    let confirmed = freshness.newest_probe().expect("there was one").moment;
    assert!(freshness.watermark() <= confirmed && first > Some(confirmed));
    failing.off().await;
    live.until_applied(last).await;
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT);
}

#[tokio::test]
async fn a_stream_that_fails_is_opened_again_without_a_gap() {
    let (live, question) = guest("failing feed").await;
    let _cached = live.until_cached(&question).await;
    // 43: the cursor is gone. The others: the node is not the primary, is shutting down, or was interrupted.
    for code in [43, 10_107, 11_600, 11_601] {
        let data = doc! { "errorCode": code };
        let failing = stream_fails("failing feed", "alwaysOn", data).await;
        let moment = set_active(&live, false).await;
        failing.off().await;
        live.until_applied(moment).await;
        assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT, "{code}");
        let moment = set_active(&live, true).await;
        live.until_applied(moment).await;
        let _cached = live.until_cached(&question).await;
        assert_eq!(live.app.freshness.floor(), live.first_floor, "the floor stays: {code}");
    }
}

#[tokio::test]
async fn a_stream_that_does_not_answer_is_opened_again() {
    let (live, question) = guest("frozen feed").await;
    let _cached = live.until_cached(&question).await;
    let frozen = stream_fails("frozen feed", doc! { "times": 1 }, blocked()).await;
    let began = Instant::now();
    let moment = set_active(&live, false).await;
    live.until_applied(moment).await;
    assert!(began.elapsed() < BLOCKED, "the blocked stream did not report it");
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT);
    end_blocked_commands(&live.database).await;
    frozen.off().await;
}

#[tokio::test]
async fn streams_that_are_opened_again_leave_no_cursor_behind() {
    let streams = Streams::of("reopened feed").await;
    // Five streams fail, and one does not answer.
    for (times, data) in [(5_u8, doc! { "errorCode": 11_600 }), (1, blocked())] {
        let failing = stream_fails("reopened feed", doc! { "times": i32::from(times) }, data).await;
        streams.opened_again(times.into()).await;
        end_blocked_commands(&streams.live.database).await;
        failing.off().await;
        streams.assert_one().await;
    }
}

#[tokio::test]
async fn an_opening_that_takes_too_long_leaves_no_cursor_behind() {
    let streams = Streams::of("slow feed").await;
    // Longer than the patience after a stream that got on.
    let slow = doc! { "failCommands": ["aggregate"], "blockConnection": true, "blockTimeMS": 2_500 };
    let slow = FailPoint::on(mongo(), "slow feed", doc! { "times": 1 }, slow).await;
    // The stream may have been opened again while other tests had the fail point.
    streams.update();
    let database = &streams.live.database;
    let end = doc! { "killCursors": "$cmd.aggregate", "cursors": [streams.current.get()] };
    database.run_command(end).await.expect("the command is right");
    streams.opened_again(2).await;
    // This waits for the blocked command. Then the server opens a stream that is no longer waited for.
    slow.off().await;
    streams.assert_one().await;
}

/// The streams of an application. One is open at a time.
struct Streams {
    live: Live,
    monitor: Monitor,
    /// How many were opened since the last [`Streams::assert_one`].
    opened: Cell<usize>,
    /// The cursor of the last `getMore`.
    current: Cell<i64>,
}

impl Streams {
    /// The streams of a new application, once the first one is open.
    async fn of(app_name: &str) -> Self {
        let all = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
        let (live, monitor) = Live::named(app_name, SCHEMA, &all, Settings::default()).await;
        let streams = Self { live, monitor, opened: Cell::default(), current: Cell::default() };
        streams.assert_one().await;
        streams
    }

    /// Evaluates the commands that were sent since the last call.
    fn update(&self) {
        let events = self.monitor.take();
        let opened = commands(&events, "aggregate").into_iter().filter(opens_a_stream).count();
        self.opened.set(self.opened.get() + opened);
        if let Some(last) = commands(&events, "getMore").last() {
            self.current.set(last.get_i64("getMore").expect("an id"));
        }
    }

    /// Waits until this many more were opened.
    async fn opened_again(&self, times: usize) {
        until(|| {
            self.update();
            self.opened.get() >= times
        })
        .await;
    }

    /// Waits until a stream reports changes again, and the server has closed all others.
    async fn assert_one(&self) {
        let moment = set_active(&self.live, true).await;
        self.live.until_applied(moment).await;
        let alone = async {
            self.update();
            while open_streams(&self.live.database).await != [self.current.get()] {
                sleep(Duration::from_millis(20)).await;
                self.update();
            }
        };
        let is_alone = timeout(PATIENCE, alone).await.is_ok();
        assert!(is_alone, "not {} alone: {:?}", self.current.get(), open_streams(&self.live.database).await);
        self.opened.set(0);
    }
}

fn opens_a_stream(aggregate: &Document) -> bool {
    let stages = aggregate.get_array("pipeline").expect("it has one");
    stages.iter().filter_map(Bson::as_document).any(|stage| stage.contains_key("$changeStream"))
}

/// The cursors that the server has open for the streams of a database.
async fn open_streams(database: &Database) -> Vec<i64> {
    let operations = vec![
        doc! { "$currentOp": { "allUsers": true, "idleCursors": true } },
        doc! { "$match": { "ns": format!("{}.$cmd.aggregate", database.name()), "cursor.cursorId": { "$exists": true } } },
        // A cursor may be listed twice, as idle and as active.
        doc! { "$group": { "_id": "$cursor.cursorId" } },
    ];
    let mut found = database.client().database("admin").aggregate(operations).await.expect("the command is right");
    let mut cursors = Vec::new();
    while found.advance().await.expect("an answer") {
        cursors.push(found.deserialize_current().expect("a document").get_i64("_id").expect("an id"));
    }
    cursors
}

#[tokio::test]
async fn after_lost_changes_every_fact_is_read_again() {
    let (live, question) = guest("lost feed").await;
    for code in [286, 280, 10_334] {
        let _cached = live.until_cached(&question).await;
        let freshness = &live.app.freshness;
        let floor = freshness.floor();
        let lost = stream_fails("lost feed", doc! { "times": 1 }, doc! { "errorCode": code }).await;
        until(|| freshness.floor() > floor).await;
        lost.off().await;
        let checked = live.ask(&question, Consistency::MinimizeLatency).await.expect("an answer");
        assert_eq!(checked.tier, Tier::Source, "{code}");
    }
}

#[tokio::test]
async fn the_stamp_of_a_fact_is_the_moment_of_its_snapshot_and_not_of_the_reply() {
    let all = [users(), ("files", vec![file(1), file(2)]), ("shares", vec![share(50, 1)])];
    let live = Live::new(SCHEMA, &all).await;
    let question = reads(&live, USER, 1);
    let _all_else = live.until_cached(&reads(&live, USER, 2)).await;
    let stopped = FailPoint::finds_stop(mongo(), &live.full_name("shares")).await;
    let (checker, asked) = (live.app.checker.clone(), question.clone());
    let asking = tokio::spawn(async move {
        checker.check(&[asked], Consistency::MinimizeLatency, Deadline::after(TIME_MAX)).await.remove(0)
    });
    live.find_stopped("shares").await;
    let revoked = live.delete("shares", doc! { "_id": id(50) }).await;
    live.until_applied(revoked).await;
    stopped.off().await;
    let checked = asking.await.expect("no panic").expect("an answer");
    assert_eq!(shown(&live.schema, checked.answer), GUEST);
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT);
}

/// The events of a large transaction have one moment and come in several batches, here because each event is long. The
/// watermark reaches that moment only after the last batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_token_between_events_of_one_moment_does_not_cover_that_moment() {
    const COUNT: u32 = 2_000;
    let numbered = |number: u32| {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        ObjectId::from_bytes(bytes)
    };
    // An event and its token both contain the `_id`, so that a batch of 16 MiB has some hundred events.
    let shares = (0..COUNT).map(|number| {
        doc! { "_id": format!("{number}{}", "-".repeat(8_000)), "file_id": numbered(number), "active": true }
    });
    let live = Live::new(SCHEMA, &[users(), ("shares", shares.collect())]).await;
    let (lookup, _) = live.schema.lookups().find(|(_, lookup)| &*lookup.collection == "shares").expect("a lookup");
    let facts = live.app.facts.clone();
    let key = |number| FactKey::whole(lookup, Id::ObjectId(numbered(number).bytes()));
    let loaded = facts
        .load((0..COUNT).map(key).collect(), Vec::new(), FreshnessRequirement::default(), Deadline::after(TIME_MAX))
        .await;
    assert!(loaded.iter().all(|(_, cached)| cached.is_ok()));

    // Checks some of the facts until none of them counts.
    let (some, stop_after) = ((0..COUNT).step_by(20).map(key).collect::<Vec<_>>(), TIME_MAX);
    let checking = tokio::task::spawn_blocking(move || {
        let (started, mut as_of) = (Instant::now(), Moment::default());
        loop {
            let count = |key: &FactKey| facts.cached(key.lookup, &key.id, None, FreshnessRequirement::default());
            match some.iter().filter_map(count).map(|cached| cached.as_of).max() {
                Some(newest) => as_of = as_of.max(newest),
                None => return as_of,
            }
            assert!(started.elapsed() < stop_after, "the change takes effect");
        }
    });
    // With constant probes, only the stream itself limits the watermark.
    let prober = live.app.prober.clone();
    let probing = tokio::spawn(async move {
        loop {
            let record_probe = prober.probe_since(LocalTime::now(), Deadline::after(TIME_MAX)).await;
            assert!(record_probe.is_ok());
        }
    });
    let mut session = live.database.client().start_session().await.expect("a session");
    session.start_transaction().await.expect("a replica set has transactions");
    let shares = live.database.collection::<Document>("shares");
    shares.update_many(doc! {}, doc! { "$set": { "active": false } }).session(&mut session).await.expect("an update");
    session.commit_transaction().await.expect("a commit");
    let last_as_of = checking.await.expect("no panic");
    probing.abort();
    let committed = live.transaction_time("shares").await;
    assert!(last_as_of < committed, "a fact of before {committed:?} counted as of {last_as_of:?}");
}
