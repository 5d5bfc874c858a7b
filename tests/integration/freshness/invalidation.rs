//! Invalidation by call: outdated facts are read again, and the returned token covers them.
//!
//! How an invalidation reaches other instances is tested in `fleet`.

use std::time::Duration;

use bson::doc;
use mongodb::event::command::CommandEvent;
use permcached::{
    check::{Consistency, Settings},
    invalidate::{Outdated, OutdatedDocument},
    list::{PlanOptions, ResourcePage},
    question::{Question, Tier},
    source::Deadline,
};

use super::{GUEST, NO_GRANT, OWNER, SCHEMA, USER, file, id, reads, share, users};
use crate::{
    lists::list_question,
    support::{
        both::{TIME_MAX, shown, subject_text},
        live::{Live, at_least, until},
        monitored::FailPoint,
        servers::mongo,
    },
};

async fn shared() -> (Live, Question) {
    let all = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let live = Live::new(SCHEMA, &all).await;
    let question = reads(&live, USER, 1);
    (live, question)
}

/// Asserts that the cached facts of a question are read again after an invalidation, and are then cached again.
async fn assert_read_again(live: &Live, question: &Question, outdated: Outdated) {
    let _cached = live.until_cached(question).await;
    let token =
        live.app.invalidator.invalidate(&outdated, Deadline::after(TIME_MAX)).await.expect("mongod answers").token;
    let checked = live.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
    assert_eq!(checked.tier, Tier::Source, "{outdated:?}");
    assert!(checked.as_of.moment >= token.moment, "{outdated:?}: {checked:?}, {token:?}");
    let checked = live.ask(question, at_least(token.moment)).await.expect("an answer");
    assert!(checked.as_of.moment >= token.moment, "{outdated:?}: {checked:?}, {token:?}");
    assert_eq!(live.answer(question, at_least(token.moment)).await, GUEST);
    let _cached = live.until_cached(question).await;
}

fn nothing() -> Outdated {
    Outdated::These { resources: Vec::new(), documents: Vec::new(), subjects: Vec::new() }
}

#[tokio::test]
async fn an_outdated_resource_is_read_again() {
    let (live, question) = shared().await;
    let mut outdated = nothing();
    if let Outdated::These { resources, .. } = &mut outdated {
        resources.push(question.resource.clone());
    }
    assert_read_again(&live, &question, outdated).await;
}

#[tokio::test]
async fn an_outdated_document_is_read_again() {
    let (live, question) = shared().await;
    for (collection, number) in [("files", 1), ("shares", 50), ("users", USER)] {
        let collection = live.schema.collection_id(collection).expect("the schema names it");
        let mut outdated = nothing();
        if let Outdated::These { documents, .. } = &mut outdated {
            documents.push(OutdatedDocument::new(collection, &id(number).to_hex()));
        }
        assert_read_again(&live, &question, outdated).await;
    }
}

#[tokio::test]
async fn the_facts_of_an_outdated_subject_are_read_again() {
    let (live, question) = shared().await;
    let mut outdated = nothing();
    if let Outdated::These { subjects, .. } = &mut outdated {
        subjects.push(question.subject.clone());
    }
    assert_read_again(&live, &question, outdated).await;
}

#[tokio::test]
async fn everything_is_read_again_after_an_invalidation_of_all() {
    let (live, question) = shared().await;
    assert_read_again(&live, &question, Outdated::All).await;
}

#[tokio::test]
async fn facts_that_are_not_outdated_stay_cached() {
    let (live, question) = shared().await;
    let _cached = live.until_cached(&question).await;
    let other = reads(&live, 102, 2);
    let (resources, subjects) = (vec![other.resource], vec![other.subject]);
    let outdated = Outdated::These { resources, documents: Vec::new(), subjects };
    live.app.invalidator.invalidate(&outdated, Deadline::after(TIME_MAX)).await.expect("mongod answers");
    let checked = live.ask(&question, Consistency::MinimizeLatency).await.expect("an answer");
    assert_eq!(checked.tier, Tier::Memory);
}

/// The document is marked as its own event would mark it, without a stream: by the keys that it has now.
#[tokio::test]
async fn an_outdated_document_that_did_not_exist_before_is_found() {
    let settings = Settings { staleness_max: Duration::from_mins(1), ..Settings::default() };
    let (live, monitor) = Live::named("no change stream", SCHEMA, &[users(), ("files", vec![file(1)])], settings).await;
    let question = reads(&live, USER, 1);
    let no_stream = doc! { "failCommands": ["getMore", "aggregate"], "errorCode": 11_600 };
    let no_stream = FailPoint::on(mongo(), "no change stream", "alwaysOn", no_stream).await;
    assert_eq!(shown(&live.schema, live.until_cached(&question).await), NO_GRANT);
    let failed =
        |event: &CommandEvent| matches!(event, CommandEvent::Failed(failed) if failed.command_name == "getMore");
    until(|| monitor.take().iter().any(failed)).await;
    live.insert("shares", vec![share(50, 1)]).await;
    let collection = live.schema.collection_id("shares").expect("the schema names it");
    let documents = vec![OutdatedDocument::new(collection, &id(50).to_hex())];
    let outdated = Outdated::These { resources: Vec::new(), documents, subjects: Vec::new() };
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT, "no change was applied");
    live.app.invalidator.invalidate(&outdated, Deadline::after(TIME_MAX)).await.expect("mongod answers");
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, GUEST);
    no_stream.off().await;
}

/// The ids of the files that the user may read, as a page and a plan have them.
async fn listed(live: &Live) -> Vec<String> {
    let question = list_question(&live.schema, subject_text(&format!("user:{}", id(USER))), "read", "file");
    let (lister, deadline) = (&live.app.lister, Deadline::after(TIME_MAX));
    let page = ResourcePage { size: 100, after: None, within: None };
    let list = lister.list_resources(&question, Consistency::MinimizeLatency, page, deadline).await.expect("a list");
    let listed: Vec<String> = list.resources.iter().map(|resource| resource.id.to_string()).collect();
    let plan = lister.plan_filter(&question, Consistency::MinimizeLatency, PlanOptions::default(), deadline).await;
    let filter = plan.expect("a plan").filter;
    let found = live.database.collection::<bson::Document>("files").distinct("_id", filter).await.expect("an answer");
    let found: Vec<String> = found.iter().map(|id| id.as_object_id().expect("an id").to_hex()).collect();
    assert_eq!(found, listed);
    listed
}

/// A list looks shares up by the user, or by their own id, and what is named is the file or the user.
#[tokio::test]
async fn what_an_outdated_resource_or_subject_leads_to_is_listed_anew() {
    let schema = SCHEMA
        .replace("guest = {", "holder = { collection = \"shares\", by = \"file_id\", field = \"_id\" }\nguest = {");
    let schema = schema.replace("| guest", "| holder | guest");
    let settings = Settings { staleness_max: Duration::from_mins(1), ..Settings::default() };
    let all = [users(), ("files", (1..=3).map(file).collect())];
    let (live, monitor) = Live::named("no change stream for lists", &schema, &all, settings).await;
    let no_stream = doc! { "failCommands": ["getMore", "aggregate"], "errorCode": 11_600 };
    let no_stream = FailPoint::on(mongo(), "no change stream for lists", "alwaysOn", no_stream).await;
    let failed =
        |event: &CommandEvent| matches!(event, CommandEvent::Failed(failed) if failed.command_name == "getMore");
    until(|| monitor.take().iter().any(failed)).await;
    for _ in 0..2 {
        assert!(listed(&live).await.is_empty());
    }
    let of_file = |number| Outdated::These {
        resources: vec![reads(&live, USER, number).resource],
        documents: vec![],
        subjects: vec![],
    };
    let subjects = vec![reads(&live, USER, 1).subject];
    let of_user = Outdated::These { resources: vec![], documents: vec![], subjects };
    let mut expected = Vec::new();
    let by_id = doc! { "_id": id(USER), "file_id": id(2), "user_id": id(OWNER), "active": true };
    for (number, share, outdated) in [(1, share(50, 1), of_file(1)), (2, by_id, of_file(2)), (3, share(51, 3), of_user)]
    {
        live.insert("shares", vec![share]).await;
        assert_eq!(listed(&live).await, expected, "no change was applied");
        live.app.invalidator.invalidate(&outdated, Deadline::after(TIME_MAX)).await.expect("mongod answers");
        expected.push(id(number).to_hex());
        assert_eq!(listed(&live).await, expected);
    }
    no_stream.off().await;
}
