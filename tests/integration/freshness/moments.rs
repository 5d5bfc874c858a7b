//! Moments of changes that no relation reads, of many changes at once, and in the future.
//!
//! Tokens of other clocks are tested in `single`.

use bson::{Document, doc};
use permcached::{
    check::{CheckError, Consistency},
    freshness::Moment,
    question::{Question, Tier},
};

use super::{GUEST, NO_GRANT, SCHEMA, USER, file, id, reads, share, users};
use crate::support::live::{Live, Two, at_least, operation_time};

#[tokio::test]
async fn a_change_that_no_relation_reads_outdates_no_fact() {
    let all = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let live = Live::new(SCHEMA, &all).await;
    let question = reads(&live, USER, 1);
    for (collection, number) in [("files", 1), ("shares", 50), ("users", USER)] {
        let _cached = live.until_cached(&question).await;
        let change = doc! { "$set": { "name": "another", "tags": ["a"] } };
        let moment = live.update(collection, doc! { "_id": id(number) }, change).await;
        live.until_applied(moment).await;
        let checked = live.ask(&question, Consistency::MinimizeLatency).await.expect("an answer");
        assert_eq!(checked.tier, Tier::Memory, "{collection}");
        // The cached facts are also true as of this moment: they have not changed up to it.
        let checked = live.ask(&question, at_least(moment)).await.expect("an answer");
        assert_eq!(checked.tier, Tier::Memory, "{collection}, by the moment");
        assert!(checked.as_of.moment >= moment, "{collection}");
    }
}

#[tokio::test]
async fn all_changes_of_one_transaction_are_noticed() {
    const COUNT: u8 = 50;
    let files: Vec<Document> = (1..=COUNT).map(file).collect();
    let shares: Vec<Document> = (1..=COUNT).map(|number| share(number, number)).collect();
    let two = Two::new(SCHEMA, &[users(), ("files", files), ("shares", shares)]).await;
    let questions: Vec<Question> = (1..=COUNT).map(|number| reads(&two.first, USER, number)).collect();
    let all = |wanted: &'static str| questions.iter().map(|question| (question, wanted)).collect::<Vec<_>>();
    two.until_cached(&all(GUEST)).await;
    let mut session = two.first.database.client().start_session().await.expect("a session");
    session.start_transaction().await.expect("a replica set has transactions");
    let shares = two.first.database.collection::<Document>("shares");
    let change = doc! { "$set": { "active": false } };
    shares.update_many(doc! {}, change).session(&mut session).await.expect("an update");
    session.commit_transaction().await.expect("a commit");
    // The driver does not return the moment of the commit.
    let reply = two.first.database.run_command(doc! { "ping": 1 }).await.expect("an answer");
    two.notice(operation_time(&reply), &all(NO_GRANT)).await;
}

#[tokio::test]
async fn a_token_in_the_future_is_refused_and_affects_no_other_request() {
    let all = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let live = Live::new(SCHEMA, &all).await;
    let question = reads(&live, USER, 1);
    let _cached = live.until_cached(&question).await;
    let now = live.run(doc! { "ping": 1 }).await;
    let future = Moment::new(now.seconds() + 3_600, 1);
    for _ in 0..3 {
        let refused = live.ask(&question, at_least(future)).await;
        assert!(matches!(refused, Err(CheckError::FutureToken)), "{refused:?}");
        assert!(live.app.freshness.newest_moment() < future, "the newest moment is not raised to it");
        assert_eq!(live.answer(&question, at_least(now)).await, GUEST);
        assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, GUEST);
        assert_eq!(live.answer(&question, Consistency::FullyConsistent).await, GUEST);
    }
    let _cached = live.until_cached(&question).await;
    let moment = live.delete("shares", doc! { "_id": id(50) }).await;
    live.until_applied(moment).await;
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT);
}
