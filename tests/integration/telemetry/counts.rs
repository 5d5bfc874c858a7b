//! The metrics of answers by caller and outcome, and of facts by tier.
//!
//! Does not test the metrics of calls (`calls` does).

use std::sync::Arc;

use bson::doc;
use permcached::{
    check::Consistency,
    transport::{
        Caller, Callers, Scope,
        proto::{BatchCheckRequest, CheckRequest, ListPermissionsRequest, Question},
    },
};
use tonic::Request;

use crate::{
    fleet::{FILE, GUEST, SCHEMA, SHARE, id, reads, shared_file},
    support::{
        both::{asked_of, counted, found_in},
        fleet::Fleet,
        live::{Live, in_one_attempt, until},
        redis::redis,
        service::{Service, resource, subject},
    },
};

const ALICE: &str = "user:a11ce0000000000000000001";
const ZOE: &str = "user:20e000000000000000000006";
const ROADMAP: &str = "file:f11e00000000000000000001";

fn question(who: &str) -> Question {
    Question { subject: subject(who), permission: "read".to_owned(), resource: resource(ROADMAP) }
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn answers_count_for_their_caller() {
    let known = [Caller::new("web", "w3b", Scope::Check), Caller::new("jobs", "j0bs", Scope::Check)];
    let service = Service::guarded(Callers::Known(known.into())).await;
    let mut client = service.client();
    let Question { subject: who, permission, resource } = question(ALICE);
    let check = CheckRequest {
        subject: who.clone(),
        permission,
        resource: resource.clone(),
        consistency: None,
        dependencies: false,
    };
    client.check(with_token(check.clone(), "w3b")).await.unwrap();
    client.check(with_token(check.clone(), "w3b")).await.unwrap();
    client.check(with_token(check.clone(), "j0bs")).await.unwrap();
    client.check(check).await.unwrap_err();
    // One of these questions is invalid.
    let questions = vec![question(ALICE), question(ZOE), Question::default()];
    client
        .batch_check(with_token(BatchCheckRequest { questions, consistency: None, dependencies: false }, "j0bs"))
        .await
        .unwrap();
    let read = "resource_type=\"file\",permission=\"read\"";
    let count = |labels: &str| counted(&service.metrics, &format!("permcached_decisions_total{{{read},{labels}}}"));
    assert_eq!(count("decision=\"allowed\",reason=\"\",caller=\"web\""), 2);
    assert_eq!(count("decision=\"allowed\",reason=\"\",caller=\"jobs\""), 2);
    assert_eq!(count("decision=\"denied\",reason=\"NO_GRANT\",caller=\"jobs\""), 1);
    let sum = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("permcached_decisions_total{"));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum::<u64>()
    };
    assert_eq!(sum(&service.metrics.render()), 5);
    let list = ListPermissionsRequest { subject: who, resource, consistency: None };
    let listed = client.list_permissions(with_token(list, "web3")).await;
    assert!(listed.is_err());
    let list = ListPermissionsRequest {
        subject: subject(ALICE),
        resource: crate::support::service::resource(ROADMAP),
        consistency: None,
    };
    let listed = client.list_permissions(with_token(list, "w3b")).await.unwrap().into_inner().permissions.len() as u64;
    assert!(listed > 2);
    assert_eq!(sum(&service.metrics.render()), 5 + listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fact_of_a_request_is_found_in_one_tier() {
    in_one_attempt(is_found_in_each_tier).await;
}

/// Counts the facts of the file and of its shares in each of two instances. Returns false if the machine was so busy
/// that Redis did not have them in time.
async fn is_found_in_each_tier() -> bool {
    let fleet = Fleet::new(2, &redis().url(), SCHEMA, &shared_file()).await;
    fleet.until_bus_covers_all().await;
    let [first, second] = [&fleet.instances[0].live, &fleet.instances[1].live];
    let tiers = |live: &Live| {
        let metrics = &live.app.metrics;
        ["memory", "redis", "source"].map(|tier| (asked_of(metrics, tier), found_in(metrics, tier)))
    };
    let question = reads(first, FILE);
    let loaded = first.ask(&question, Consistency::MinimizeLatency).await.unwrap();
    assert_eq!(tiers(first), [(2, 0), (2, 0), (2, 2)], "with cold caches, facts come from the source");
    until(|| first.handled() == 2).await;
    second.until_applied(loaded.as_of.moment).await;
    assert_eq!(second.answer(&question, Consistency::MinimizeLatency).await, GUEST);
    if tiers(second)[2] != (0, 0) {
        return false;
    }
    assert_eq!(tiers(second), [(2, 0), (2, 2), (0, 0)], "facts that another instance has read come from Redis");
    let batch = vec![question.clone(); 5];
    let deadline = permcached::source::Deadline::after(crate::support::both::TIME_MAX);
    let answers = second.app.checker.check(&batch, Consistency::MinimizeLatency, deadline).await;
    assert!(answers.iter().all(Result::is_ok));
    // A request keeps the facts that it has found: five questions share two facts.
    assert_eq!(tiers(second), [(4, 2), (2, 2), (0, 0)], "afterwards they are in memory");
    let gone = first.delete("shares", doc! { "_id": id(SHARE) }).await;
    second.until_applied(gone).await;
    second.answer(&question, Consistency::MinimizeLatency).await;
    assert_eq!(tiers(second)[0], (6, 3), "the changed fact is missed, the other one is found");
    let metrics = Arc::clone(&second.app.metrics);
    assert_eq!(counted(&metrics, "permcached_memory_facts"), 2);
    assert!(counted(&metrics, "permcached_memory_bytes") > 0);
    assert_eq!(counted(&metrics, "permcached_memory_bytes_max"), 64 * 1_024 * 1_024);
    true
}
