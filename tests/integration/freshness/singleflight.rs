//! Shared loads: a fact that a load brings late never counts as newer than it is, and a request that waits for a load of
//! another is not harmed by the other's deadline, cancellation or panic.
//!
//! Loads that find facts in Redis are tested in `shared_facts::requirements`.

use std::time::Duration;

use bson::{Document, doc};
use permcached::{
    check::{CheckError, Checked, Consistency, Settings},
    question::{Question, Tier},
    source::Deadline,
};
use tokio::time::timeout;

use super::{GUEST, NO_GRANT, SCHEMA, USER, file, id, reads, share, users};
use crate::support::{
    both::{TIME_MAX, shown},
    controlled::{Closed, ControlledSource},
    live::{Live, at_least, until},
    monitored::{FailPoint, commands},
    servers::mongo,
};

/// A file that is shared with the guest. Of the facts about it only that of the guest is cached.
struct Guest {
    live: Live,
    gate: std::sync::Arc<ControlledSource>,
    question: Question,
}

impl Guest {
    async fn new() -> Self {
        let all: [(&str, Vec<Document>); 3] =
            [users(), ("files", vec![file(1), file(2)]), ("shares", vec![share(50, 1)])];
        let (live, gate) = Live::gated(SCHEMA, &all).await;
        let question = reads(&live, USER, 1);
        // A question about another file, which caches all facts but those of file 1.
        assert_eq!(shown(&live.schema, live.until_cached(&reads(&live, USER, 2)).await), NO_GRANT);
        Self { live, gate, question }
    }

    /// Starts a check with this much time.
    fn start_check(&self, consistency: Consistency, time: Duration) -> tokio::task::JoinHandle<String> {
        let (checker, schema) = (self.live.app.checker.clone(), self.live.schema.clone());
        let question = self.question.clone();
        tokio::spawn(async move {
            let asked = checker.check(&[question], consistency, Deadline::after(time)).await;
            match asked.into_iter().next().expect("one answer for one question") {
                Ok(Checked { answer, .. }) => shown(&schema, answer),
                Err(error) => error.as_str().to_owned(),
            }
        })
    }

    /// Starts a check, and waits until its load has read `shares` and `files` and waits at the gate.
    async fn start_gated_check(&self) -> tokio::task::JoinHandle<String> {
        self.gate.close(1, Closed::Waits);
        let first = self.start_check(Consistency::MinimizeLatency, TIME_MAX);
        self.gate.wait_for(1).await;
        first
    }

    /// Waits until loads have been joined for this many facts.
    async fn joined(&self, facts: u32) {
        let sample = format!("permcached_loads_joined_total {facts}\n");
        until(|| self.live.app.metrics.render().contains(&sample)).await;
    }

    async fn revoke(&self) -> permcached::freshness::Moment {
        self.live.delete("shares", doc! { "_id": id(50) }).await
    }
}

#[tokio::test]
async fn a_fact_that_changes_during_its_load_does_not_count_afterwards() {
    let guest = Guest::new().await;
    let first = guest.start_gated_check().await;
    let revoked = guest.revoke().await;
    guest.live.until_applied(revoked).await;
    guest.gate.open();
    // This check began before the change.
    assert_eq!(first.await.expect("no panic"), GUEST);
    assert_eq!(guest.live.answer(&guest.question, Consistency::MinimizeLatency).await, NO_GRANT);
    assert_eq!(guest.live.answer(&guest.question, at_least(revoked)).await, NO_GRANT);
}

#[tokio::test]
async fn a_late_fill_does_not_replace_a_newer_fact() {
    let guest = Guest::new().await;
    let first = guest.start_gated_check().await;
    let revoked = guest.revoke().await;
    assert_eq!(guest.live.answer(&guest.question, at_least(revoked)).await, NO_GRANT);
    guest.live.until_applied(revoked).await;
    let loads = guest.gate.loads();
    guest.gate.open();
    assert_eq!(first.await.expect("no panic"), GUEST);
    let checked = guest.live.ask(&guest.question, Consistency::MinimizeLatency).await.expect("an answer");
    assert_eq!((shown(&guest.live.schema, checked.answer).as_str(), checked.tier), (NO_GRANT, Tier::Memory));
    assert_eq!(guest.gate.loads(), loads, "the newer fact is still cached");
}

#[tokio::test]
async fn a_load_that_reads_an_earlier_moment_than_required_is_not_joined() {
    let guest = Guest::new().await;
    let first = guest.start_gated_check().await;
    let revoked = guest.revoke().await;
    // If this check joined the load, it would wait for the gate and get the old fact.
    for consistency in [at_least(revoked), Consistency::FullyConsistent] {
        let answer = timeout(TIME_MAX, guest.live.answer(&guest.question, consistency)).await.expect("no wait");
        assert_eq!(answer, NO_GRANT, "{consistency:?}");
    }
    guest.gate.open();
    assert_eq!(first.await.expect("no panic"), GUEST);
}

#[tokio::test]
async fn a_load_that_reads_an_earlier_moment_than_the_mark_of_the_key_is_not_joined() {
    let guest = Guest::new().await;
    let first = guest.start_gated_check().await;
    let revoked = guest.live.update("shares", doc! { "_id": id(50) }, doc! { "$set": { "active": false } }).await;
    guest.live.until_applied(revoked).await;
    let loads = guest.gate.loads();
    let after = guest.start_check(Consistency::MinimizeLatency, TIME_MAX);
    // It joins the load for the file, which has not changed, and loads the shares itself.
    until(|| guest.gate.loads() > loads).await;
    guest.gate.open();
    assert_eq!(first.await.expect("no panic"), GUEST);
    assert_eq!(after.await.expect("no panic"), NO_GRANT);
}

/// A check joins a load that has read a share, after the share was deleted and that was applied. More happens while it
/// waits.
async fn join_after_deletion(meanwhile: impl AsyncFnOnce(&Guest)) {
    let guest = Guest::new().await;
    let first = guest.start_gated_check().await;
    // The event of a deletion has only the `_id`, so the key of the file is not marked.
    let revoked = guest.revoke().await;
    guest.live.until_applied(revoked).await;
    let after = guest.start_check(Consistency::MinimizeLatency, TIME_MAX);
    guest.joined(2).await;
    meanwhile(&guest).await;
    guest.gate.open();
    assert_eq!(first.await.expect("no panic"), GUEST);
    assert_eq!(after.await.expect("no panic"), NO_GRANT);
}

#[tokio::test]
async fn a_waiter_loads_again_if_it_knew_of_a_later_change_when_it_joined() {
    join_after_deletion(async |_| {}).await;
}

/// The last change of the document is then later than the newest moment that was known when the check joined.
#[tokio::test]
async fn a_waiter_loads_again_even_if_the_document_changed_once_more_since() {
    join_after_deletion(async |guest| {
        let elsewhere = guest.live.insert("shares", vec![share(50, 2)]).await;
        guest.live.until_applied(elsewhere).await;
    })
    .await;
}

#[tokio::test]
async fn a_load_that_reads_a_moment_too_old_for_max_age_is_not_joined() {
    let guest = Guest::new().await;
    let first = guest.start_gated_check().await;
    let _revoked = guest.revoke().await;
    // By now the moment that the load reads as of is older than this, whatever has been applied since.
    let age_max = Duration::from_millis(1);
    let answer =
        timeout(TIME_MAX, guest.live.answer(&guest.question, Consistency::MaxAge(age_max))).await.expect("no wait");
    assert_eq!(answer, NO_GRANT);
    guest.gate.open();
    assert_eq!(first.await.expect("no panic"), GUEST);
}

#[tokio::test]
async fn one_load_serves_all_waiters() {
    let guest = Guest::new().await;
    let before = guest.gate.loads();
    let first = guest.start_gated_check().await;
    let others: Vec<_> = (0..100).map(|_| guest.start_check(Consistency::MinimizeLatency, TIME_MAX)).collect();
    // Each check waits for two facts: the file and its shares.
    guest.joined(200).await;
    guest.gate.open();
    for check in others.into_iter().chain([first]) {
        assert_eq!(check.await.expect("no panic"), GUEST);
    }
    assert_eq!(guest.gate.loads() - before, 1);
}

#[tokio::test]
async fn a_cancelled_loader_fails_no_waiter() {
    let guest = Guest::new().await;
    let loader = guest.start_gated_check().await;
    let waiter = guest.start_check(Consistency::MinimizeLatency, TIME_MAX);
    loader.abort();
    assert!(loader.await.is_err_and(|error| error.is_cancelled()));
    guest.gate.open();
    assert_eq!(waiter.await.expect("no panic"), GUEST);
}

#[tokio::test]
async fn a_loader_past_its_deadline_fails_no_waiter() {
    let guest = Guest::new().await;
    guest.gate.close(1, Closed::Waits);
    let loader = guest.start_check(Consistency::MinimizeLatency, Duration::from_secs(2));
    guest.gate.wait_for(1).await;
    let waiter = guest.start_check(Consistency::MinimizeLatency, TIME_MAX);
    assert_eq!(loader.await.expect("no panic"), "deadline_exceeded");
    assert_eq!(waiter.await.expect("no panic"), GUEST, "though the gate was never opened");
}

#[tokio::test]
async fn a_load_that_panics_fails_no_check() {
    let guest = Guest::new().await;
    guest.gate.close(1, Closed::Panics);
    let loader = guest.start_check(Consistency::MinimizeLatency, TIME_MAX);
    guest.gate.wait_for(1).await;
    let waiter = guest.start_check(Consistency::MinimizeLatency, TIME_MAX);
    guest.gate.open();
    assert_eq!(loader.await.expect("no panic"), GUEST);
    assert_eq!(waiter.await.expect("no panic"), GUEST);
}

#[tokio::test]
async fn a_loader_whose_source_is_too_slow_fails_no_waiter() {
    let all: [(&str, Vec<Document>); 3] = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let (live, monitor) = Live::named("slow loader", SCHEMA, &all, Settings::default()).await;
    let slow = doc! { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 5_000,
    "namespace": live.full_name("shares") };
    let slow = FailPoint::on(mongo(), "slow loader", "alwaysOn", slow).await;
    let question = reads(&live, USER, 1);
    let ask = |time| {
        let (checker, question) = (live.app.checker.clone(), question.clone());
        tokio::spawn(async move {
            checker.check(&[question], Consistency::MinimizeLatency, Deadline::after(time)).await.remove(0)
        })
    };
    let loader = ask(Duration::from_secs(2));
    until(|| {
        commands(&monitor.take(), "find")
            .iter()
            .any(|find| find.get_str("find").is_ok_and(|collection| collection == "shares"))
    })
    .await;
    let waiter = ask(TIME_MAX);
    assert!(matches!(loader.await.expect("no panic"), Err(CheckError::DeadlineExceeded)));
    let checked = waiter.await.expect("no panic").expect("it has the time");
    assert_eq!(shown(&live.schema, checked.answer), GUEST);
    slow.off().await;
}

#[tokio::test]
async fn a_waiter_whose_load_timed_out_joins_no_load_with_an_earlier_deadline() {
    let guest = Guest::new().await;
    guest.gate.close(3, Closed::Waits);
    let first = guest.start_check(Consistency::MinimizeLatency, Duration::from_secs(3));
    guest.gate.wait_for(1).await;
    let patient = guest.start_check(Consistency::MinimizeLatency, TIME_MAX);
    guest.joined(2).await;
    // It loads for itself, and later checks may join its load.
    let second = guest.start_check(Consistency::FullyConsistent, TIME_MAX / 2);
    guest.gate.wait_for(2).await;
    assert_eq!(first.await.expect("no panic"), "deadline_exceeded");
    guest.gate.wait_for(3).await;
    (0..2).for_each(|_| guest.gate.open());
    assert_eq!(patient.await.expect("no panic"), GUEST);
    assert_eq!(second.await.expect("no panic"), GUEST);
}
