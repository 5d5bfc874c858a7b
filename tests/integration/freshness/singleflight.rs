//! Loads that are overtaken, joined and broken off: what they bring late is never taken for more than it is, and who waits
//! for them waits for nobody else's sake.

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
    gated::{Closed, Gated},
    live::{Live, at_least, until},
    monitored::{FailPoint, commands},
    servers::mongo,
};

/// A guest's share of a file, of which nothing is remembered but the guest.
struct Guest {
    live: Live,
    gate: std::sync::Arc<Gated>,
    question: Question,
}

impl Guest {
    async fn new() -> Self {
        let all: [(&str, Vec<Document>); 3] =
            [users(), ("files", vec![file(1), file(2)]), ("shares", vec![share(50, 1)])];
        let (live, gate) = Live::gated(SCHEMA, &all).await;
        let question = reads(&live, USER, 1);
        // Another file's question, so that all facts but those of file 1 are there.
        assert_eq!(shown(&live.schema, live.remembers(&reads(&live, USER, 2)).await), NO_GRANT);
        Self { live, gate, question }
    }

    /// Begins to ask with this much time.
    fn asks(&self, consistency: Consistency, time: Duration) -> tokio::task::JoinHandle<String> {
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

    /// Begins to ask, and waits until the load of `shares` and `files` has read and stands at the gate.
    async fn asks_and_is_held(&self) -> tokio::task::JoinHandle<String> {
        self.gate.close(1, Closed::Waits);
        let asking = self.asks(Consistency::MinimizeLatency, TIME_MAX);
        self.gate.wait_for(1).await;
        asking
    }

    /// Waits until flights were joined for so many facts.
    async fn joined(&self, facts: u32) {
        let line = format!("permcached_loads_joined_total {facts}\n");
        until(|| self.live.app.metrics.render().contains(&line)).await;
    }

    async fn revoke(&self) -> permcached::freshness::Moment {
        self.live.delete("shares", doc! { "_id": id(50) }).await
    }
}

#[tokio::test]
async fn a_fill_that_a_change_has_overtaken_is_remembered_for_no_more_than_it_is() {
    let guest = Guest::new().await;
    let asking = guest.asks_and_is_held().await;
    let revoked = guest.revoke().await;
    guest.live.heard(revoked).await;
    guest.gate.open();
    // It was asked before.
    assert_eq!(asking.await.expect("no panic"), GUEST);
    assert_eq!(guest.live.says(&guest.question, Consistency::MinimizeLatency).await, NO_GRANT);
    assert_eq!(guest.live.says(&guest.question, at_least(revoked)).await, NO_GRANT);
}

#[tokio::test]
async fn an_older_fill_does_not_replace_a_newer_one() {
    let guest = Guest::new().await;
    let asking = guest.asks_and_is_held().await;
    let revoked = guest.revoke().await;
    assert_eq!(guest.live.says(&guest.question, at_least(revoked)).await, NO_GRANT);
    guest.live.heard(revoked).await;
    let loads = guest.gate.loads();
    guest.gate.open();
    assert_eq!(asking.await.expect("no panic"), GUEST);
    let checked = guest.live.ask(&guest.question, Consistency::MinimizeLatency).await.expect("an answer");
    assert_eq!((shown(&guest.live.schema, checked.answer).as_str(), checked.tier), (NO_GRANT, Tier::Memory));
    assert_eq!(guest.gate.loads(), loads, "what was read before is still there");
}

#[tokio::test]
async fn a_flight_that_reads_an_earlier_moment_than_the_demand_is_not_joined() {
    let guest = Guest::new().await;
    let asking = guest.asks_and_is_held().await;
    let revoked = guest.revoke().await;
    // Were it joined, it would bring what was before; and this would wait for the gate.
    for consistency in [at_least(revoked), Consistency::FullyConsistent] {
        let says = timeout(TIME_MAX, guest.live.says(&guest.question, consistency)).await.expect("no wait");
        assert_eq!(says, NO_GRANT, "{consistency:?}");
    }
    guest.gate.open();
    assert_eq!(asking.await.expect("no panic"), GUEST);
}

#[tokio::test]
async fn a_flight_that_a_mark_of_the_key_has_overtaken_is_not_joined() {
    let guest = Guest::new().await;
    let asking = guest.asks_and_is_held().await;
    let revoked = guest.live.update("shares", doc! { "_id": id(50) }, doc! { "$set": { "active": false } }).await;
    guest.live.heard(revoked).await;
    let loads = guest.gate.loads();
    let after = guest.asks(Consistency::MinimizeLatency, TIME_MAX);
    // It waits for the file itself, of which nothing has changed; the shares it reads.
    until(|| guest.gate.loads() > loads).await;
    guest.gate.open();
    assert_eq!(asking.await.expect("no panic"), GUEST);
    assert_eq!(after.await.expect("no panic"), NO_GRANT);
}

/// Somebody hears that the share is gone, joins the flight that has read it, and waits while more happens.
async fn hears_better_and_joins(meanwhile: impl AsyncFnOnce(&Guest)) {
    let guest = Guest::new().await;
    let asking = guest.asks_and_is_held().await;
    // That a share is gone does not say of which file.
    let revoked = guest.revoke().await;
    guest.live.heard(revoked).await;
    let after = guest.asks(Consistency::MinimizeLatency, TIME_MAX);
    guest.joined(2).await;
    meanwhile(&guest).await;
    guest.gate.open();
    assert_eq!(asking.await.expect("no panic"), GUEST);
    assert_eq!(after.await.expect("no panic"), NO_GRANT);
}

#[tokio::test]
async fn what_a_flight_brings_is_read_again_where_who_joined_it_had_heard_better() {
    hears_better_and_joins(async |_| {}).await;
}

/// Its document's last change is later than what was known at the joining.
#[tokio::test]
async fn what_a_flight_brings_is_read_again_though_its_document_has_changed_since_too() {
    hears_better_and_joins(async |guest| {
        let elsewhere = guest.live.insert("shares", vec![share(50, 2)]).await;
        guest.live.heard(elsewhere).await;
    })
    .await;
}

#[tokio::test]
async fn a_flight_that_reads_what_is_too_old_by_now_is_not_joined() {
    let guest = Guest::new().await;
    let asking = guest.asks_and_is_held().await;
    let _revoked = guest.revoke().await;
    // The moment that the flight reads as of is older than this by then, whatever was heard meanwhile.
    let age_max = Duration::from_millis(1);
    let says =
        timeout(TIME_MAX, guest.live.says(&guest.question, Consistency::MaxAge(age_max))).await.expect("no wait");
    assert_eq!(says, NO_GRANT);
    guest.gate.open();
    assert_eq!(asking.await.expect("no panic"), GUEST);
}

#[tokio::test]
async fn one_load_serves_all_who_wait() {
    let guest = Guest::new().await;
    let before = guest.gate.loads();
    let asking = guest.asks_and_is_held().await;
    let others: Vec<_> = (0..100).map(|_| guest.asks(Consistency::MinimizeLatency, TIME_MAX)).collect();
    // Each waits for two facts: the file's own document, and its shares.
    guest.joined(200).await;
    guest.gate.open();
    for asking in others.into_iter().chain([asking]) {
        assert_eq!(asking.await.expect("no panic"), GUEST);
    }
    assert_eq!(guest.gate.loads() - before, 1);
}

#[tokio::test]
async fn a_leader_that_gives_up_fails_nobody_else() {
    let guest = Guest::new().await;
    let leader = guest.asks_and_is_held().await;
    let follower = guest.asks(Consistency::MinimizeLatency, TIME_MAX);
    leader.abort();
    assert!(leader.await.is_err_and(|error| error.is_cancelled()));
    guest.gate.open();
    assert_eq!(follower.await.expect("no panic"), GUEST);
}

#[tokio::test]
async fn a_leader_whose_time_is_up_fails_nobody_else() {
    let guest = Guest::new().await;
    guest.gate.close(1, Closed::Waits);
    let leader = guest.asks(Consistency::MinimizeLatency, Duration::from_secs(2));
    guest.gate.wait_for(1).await;
    let follower = guest.asks(Consistency::MinimizeLatency, TIME_MAX);
    assert_eq!(leader.await.expect("no panic"), "deadline_exceeded");
    assert_eq!(follower.await.expect("no panic"), GUEST, "though the gate was never opened");
}

#[tokio::test]
async fn a_load_that_panics_fails_nobody() {
    let guest = Guest::new().await;
    guest.gate.close(1, Closed::Panics);
    let leader = guest.asks(Consistency::MinimizeLatency, TIME_MAX);
    guest.gate.wait_for(1).await;
    let follower = guest.asks(Consistency::MinimizeLatency, TIME_MAX);
    guest.gate.open();
    assert_eq!(leader.await.expect("no panic"), GUEST);
    assert_eq!(follower.await.expect("no panic"), GUEST);
}

#[tokio::test]
async fn a_leader_for_whom_the_source_is_too_slow_fails_nobody_else() {
    let all: [(&str, Vec<Document>); 3] = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let (live, monitor) = Live::named("slow leader", SCHEMA, &all, Settings::default()).await;
    let slow = doc! { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 5_000,
    "namespace": live.full_name("shares") };
    let slow = FailPoint::on(mongo(), "slow leader", "alwaysOn", slow).await;
    let question = reads(&live, USER, 1);
    let ask = |time| {
        let (checker, question) = (live.app.checker.clone(), question.clone());
        tokio::spawn(async move {
            checker.check(&[question], Consistency::MinimizeLatency, Deadline::after(time)).await.remove(0)
        })
    };
    let leader = ask(Duration::from_secs(2));
    until(|| {
        commands(&monitor.take(), "find")
            .iter()
            .any(|find| find.get_str("find").is_ok_and(|collection| collection == "shares"))
    })
    .await;
    let follower = ask(TIME_MAX);
    assert!(matches!(leader.await.expect("no panic"), Err(CheckError::DeadlineExceeded)));
    let checked = follower.await.expect("no panic").expect("it has the time");
    assert_eq!(shown(&live.schema, checked.answer), GUEST);
    slow.off().await;
}

#[tokio::test]
async fn who_was_let_down_by_a_leader_follows_none_with_less_time() {
    let guest = Guest::new().await;
    guest.gate.close(3, Closed::Waits);
    let first = guest.asks(Consistency::MinimizeLatency, Duration::from_secs(3));
    guest.gate.wait_for(1).await;
    let patient = guest.asks(Consistency::MinimizeLatency, TIME_MAX);
    guest.joined(2).await;
    // It reads for itself, and whoever comes now may join it.
    let second = guest.asks(Consistency::FullyConsistent, TIME_MAX / 2);
    guest.gate.wait_for(2).await;
    assert_eq!(first.await.expect("no panic"), "deadline_exceeded");
    guest.gate.wait_for(3).await;
    (0..2).for_each(|_| guest.gate.open());
    assert_eq!(patient.await.expect("no panic"), GUEST);
    assert_eq!(second.await.expect("no panic"), GUEST);
}
