//! Invalid input: every violation is reported with its field, in a form that programs can read.
//!
//! Does not test overload or failing sources.

use permcached::transport::proto::{
    BatchCheckRequest, CheckRequest, Consistency, ExplainRequest, Freshness, ListPermissionsRequest, Moment, Question,
    Resource, Subject, batch_check_response::result::Outcome, consistency::Requirement, freshness::Moment as At,
};
use prost::Message as _;
use prost_types::Duration;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{ALICE, BOB, CONTRACT, ROADMAP, ZOE, ask, assert_names, check, check_with, question, violations};
use crate::support::service::{Service, subject};

const OBJECT_ID: &str = "is not an ObjectId: 24 hex digits";

/// A name, a request and its violations.
type Case = (&'static str, CheckRequest, &'static [(&'static str, &'static str)]);

fn with_subject(kind: &str, id: &str) -> CheckRequest {
    let subject = Some(Subject { r#type: kind.to_owned(), id: id.to_owned(), anonymous: false });
    CheckRequest { subject, ..check(ALICE, "read", ROADMAP) }
}

fn with_resource(kind: &str, id: &str) -> CheckRequest {
    let resource = Some(Resource { r#type: kind.to_owned(), id: id.to_owned() });
    CheckRequest { resource, ..check(ALICE, "read", ROADMAP) }
}

fn anonymous_with(kind: &str, id: &str) -> CheckRequest {
    let subject = Some(Subject { r#type: kind.to_owned(), id: id.to_owned(), anonymous: true });
    CheckRequest { subject, ..check(ALICE, "read", ROADMAP) }
}

fn fresh_as(moment: Option<At>) -> CheckRequest {
    check_with(Requirement::AtLeastAsFresh(Freshness { moment }))
}

fn token(text: &str) -> CheckRequest {
    fresh_as(Some(At::Token(text.to_owned())))
}

fn aged(seconds: i64, nanos: i32) -> CheckRequest {
    check_with(Requirement::MaxAge(Duration { seconds, nanos }))
}

fn malformed_ids() -> Vec<Case> {
    vec![
        ("no id", with_resource("file", ""), &[("resource.id", "is empty")]),
        ("no subject's id", with_subject("user", ""), &[("subject.id", "is empty")]),
        ("a wildcard", with_subject("user", "*"), &[("subject.id", "`*` is not an id")]),
        ("a wildcard for a string id", with_subject("link", "*"), &[("subject.id", "`*` is not an id")]),
        ("a wildcard resource", with_resource("file", "*"), &[("resource.id", "`*` is not an id")]),
        ("a string where an ObjectId belongs", with_resource("file", "roadmap.md"), &[("resource.id", OBJECT_ID)]),
        ("a string for a subject", with_subject("user", "alice@example.com"), &[("subject.id", OBJECT_ID)]),
        ("a letter that is no digit", with_resource("file", "F11G00000000000000000001"), &[("resource.id", OBJECT_ID)]),
        ("a digit short", with_resource("file", "f11e0000000000000000001"), &[("resource.id", OBJECT_ID)]),
        ("a digit long", with_resource("file", "f11e000000000000000000001"), &[("resource.id", OBJECT_ID)]),
        ("a space", with_resource("file", " f11e0000000000000000001"), &[("resource.id", OBJECT_ID)]),
        ("the default type's id", with_subject("", "alice"), &[("subject.id", OBJECT_ID)]),
        (
            "an id of 1,025 bytes",
            with_subject("link", &"x".repeat(1_025)),
            &[("subject.id", "is longer than 1,024 bytes")],
        ),
        ("anonymous with an id", anonymous_with("", "x"), &[("subject.anonymous", "has no type and no id")]),
        ("anonymous with a type", anonymous_with("user", ""), &[("subject.anonymous", "has no type and no id")]),
    ]
}

fn unknown_names() -> Vec<Case> {
    vec![
        ("a subject type nearly right", with_subject("usr", "x"), &[("subject.type", "`usr`: did you mean `user`?")]),
        (
            "a subject type that is a resource's",
            with_subject("folder", "x"),
            &[("subject.type", "the choices are `code`, `link`, `user` and `verified_link`")],
        ),
        (
            "a resource type nearly right",
            with_resource("flie", "x"),
            &[("resource.type", "`flie`: did you mean `file`?")],
        ),
        (
            "a resource type from elsewhere",
            with_resource("invoice", "x"),
            &[("resource.type", "the choices are `file`, `folder`, `note` and `team`")],
        ),
        (
            "a permission nearly right",
            check(ALICE, "raed", ROADMAP),
            &[("permission", "unknown permission of `file` `raed`: did you mean `read`?")],
        ),
        ("a permission of another type", check(ALICE, "publish", ROADMAP), &[("permission", "unknown permission")]),
        ("a private permission", check(ALICE, "owned", ROADMAP), &[("permission", "`owned` is private")]),
        ("a relation", check(ALICE, "owner", ROADMAP), &[("permission", "`owner` is a relation of `file`")]),
        ("no permission", check(ALICE, "", ROADMAP), &[("permission", "")]),
        ("no resource type", with_resource("", "f11e00000000000000000001"), &[("resource.type", "")]),
    ]
}

fn missing_parts() -> Vec<Case> {
    let good = check(ALICE, "read", ROADMAP);
    vec![
        ("no subject", CheckRequest { subject: None, ..good.clone() }, &[("subject", "is missing")]),
        ("no resource", CheckRequest { resource: None, ..good }, &[("resource", "is missing")]),
        ("nothing", CheckRequest::default(), &[("subject", "is missing"), ("resource", "is missing")]),
    ]
}

fn invalid_consistencies() -> Vec<Case> {
    const MAX_AGE: &str = "consistency.max_age";
    const TOKEN: &str = "consistency.at_least_as_fresh.token";
    vec![
        (
            "minimize_latency = false",
            check_with(Requirement::MinimizeLatency(false)),
            &[("consistency.minimize_latency", "is false")],
        ),
        (
            "fully_consistent = false",
            check_with(Requirement::FullyConsistent(false)),
            &[("consistency.fully_consistent", "is false")],
        ),
        ("no age", aged(0, 0), &[(MAX_AGE, "is not a duration of more than zero")]),
        ("an age below zero", aged(-1, 0), &[(MAX_AGE, "is not a duration of more than zero")]),
        ("an age just below zero", aged(0, -1), &[(MAX_AGE, "is not a duration of more than zero")]),
        ("an age that is none", aged(i64::MIN, i32::MIN), &[(MAX_AGE, "is not a duration of more than zero")]),
        ("no moment", fresh_as(None), &[("consistency.at_least_as_fresh", "is empty")]),
        ("no token", token(""), &[(TOKEN, "is not a token")]),
        ("a token cut short", token("r000000000000001"), &[(TOKEN, "is not a token")]),
        ("a token of no clock", token("x0000000000000001"), &[(TOKEN, "is not a token")]),
        ("a token in upper case", token("r000000000000000A"), &[(TOKEN, "is not a token")]),
        ("a token of another clock", token("c6b0000000000001f"), &[(TOKEN, "cluster time")]),
        ("a token of an instance's own", token("l0000000000000001"), &[(TOKEN, "an instance's own")]),
        ("a token of the future", token("r0000000000000002"), &[(TOKEN, "has not come yet")]),
        (
            "MongoDB's time for documents",
            fresh_as(Some(At::OperationTime(Moment { seconds: 1_795_000_000, increment: 1 }))),
            &[("consistency.at_least_as_fresh.operation_time", "cluster time")],
        ),
    ]
}

fn several_at_once() -> Vec<Case> {
    let consistency = Some(Consistency { requirement: Some(Requirement::FullyConsistent(false)) });
    vec![
        (
            "every field",
            CheckRequest {
                subject: subject("user:*"),
                permission: "wirte".to_owned(),
                resource: Some(Resource { r#type: "file".to_owned(), id: String::new() }),
                consistency,
                dependencies: false,
            },
            &[
                ("subject.id", "`*`"),
                ("resource.id", "is empty"),
                ("permission", "did you mean `write`?"),
                ("consistency.fully_consistent", "is false"),
            ],
        ),
        (
            "no subject, and a permission",
            CheckRequest { subject: None, ..check(ALICE, "fly", ROADMAP) },
            &[("subject", "is missing"), ("permission", "unknown permission")],
        ),
        (
            "no resource, and a subject",
            CheckRequest { resource: None, ..with_subject("usr", "x") },
            &[("subject.type", "did you mean `user`?"), ("resource", "is missing")],
        ),
        (
            "a resource, and a token of another clock",
            CheckRequest { consistency: token("c6b0000000000001f").consistency, ..with_resource("file", "x") },
            &[("resource.id", OBJECT_ID), ("consistency.at_least_as_fresh.token", "cluster time")],
        ),
    ]
}

#[tokio::test]
async fn every_violation_is_reported_with_its_field() {
    let service = Service::start().await;
    let client = service.client();
    let tables = [malformed_ids(), unknown_names(), missing_parts(), invalid_consistencies(), several_at_once()];
    for (name, request, expected) in tables.into_iter().flatten() {
        let status = match ask(&client, request.clone()).await {
            Err(status) => status,
            Ok(answer) => panic!("{name}: {answer:?}"),
        };
        assert_names(&status, expected);
        assert!(status.get_error_details().retry_info().is_none(), "{name}: trying again is no help");

        // The calls that share these fields report the same violations with the same messages.
        let CheckRequest { subject, permission, resource, consistency, .. } = request;
        let explain = ExplainRequest {
            subject: subject.clone(),
            permission,
            resource: resource.clone(),
            consistency: consistency.clone(),
        };
        let explained = client.clone().explain(explain).await.unwrap_err();
        assert_eq!((explained.code(), explained.message()), (status.code(), status.message()), "{name}");
        let list = ListPermissionsRequest { subject, resource, consistency };
        let listed = client.clone().list_permissions(list).await.err();
        let others: Vec<_> = violations(&status).into_iter().filter(|(field, _)| field != "permission").collect();
        assert_eq!(listed.map(|status| violations(&status)).unwrap_or_default(), others, "{name}");
    }
    let answer = ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap();
    assert!(answer.allowed);
}

#[tokio::test]
async fn unusual_but_valid_input_is_answered() {
    let service = Service::start().await;
    let client = service.client();
    let as_of = ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap().as_of;
    let cases = [
        ("the default type", with_subject("", "a11ce0000000000000000001"), true),
        ("a string id of 1,024 bytes", with_subject("link", &"x".repeat(1_024)), false),
        ("anonymous", check("anonymous", "read", ROADMAP), false),
        (
            "an empty consistency",
            CheckRequest { consistency: Some(Consistency::default()), ..check(ALICE, "read", ROADMAP) },
            true,
        ),
        ("no hurry", check_with(Requirement::MinimizeLatency(true)), true),
        ("everything", check_with(Requirement::FullyConsistent(true)), true),
        ("an age", aged(0, 1), true),
        ("a long age", aged(i64::MAX, 0), true),
        ("the token of an answer", token(&as_of), true),
    ];
    for (name, request, allowed) in cases {
        let answer = ask(&client, request).await.unwrap_or_else(|status| panic!("{name}: {status:?}"));
        assert_eq!(answer.allowed, allowed, "{name}");
    }
}

#[tokio::test]
async fn a_batch_keeps_its_order_and_names_the_fields_of_each_question() {
    let service = Service::start().await;
    let questions = vec![
        question(ALICE, "read", ROADMAP),
        question(ALICE, "raed", ROADMAP),
        question(ZOE, "read", ROADMAP),
        Question::default(),
        question("user:*", "read", "file:plan"),
        question(BOB, "read", CONTRACT),
    ];
    let request = BatchCheckRequest { questions, consistency: None, dependencies: false };
    let results = service.client().batch_check(request).await.unwrap().into_inner().results;
    let outcomes: Vec<Outcome> = results.into_iter().map(|result| result.outcome.unwrap()).collect();
    assert_eq!(outcomes.len(), 6);

    for (place, allowed) in [(0, true), (2, false), (5, true)] {
        let Outcome::Answer(answer) = &outcomes[place] else { panic!("{place}: {outcomes:?}") };
        assert_eq!(answer.allowed, allowed, "{place}");
    }
    let wrong: [(usize, &[(&str, &str)]); 3] = [
        (1, &[("questions[1].permission", "did you mean `read`?")]),
        (3, &[("questions[3].subject", "is missing"), ("questions[3].resource", "is missing")]),
        (4, &[("questions[4].subject.id", "`*`"), ("questions[4].resource.id", OBJECT_ID)]),
    ];
    for (place, expected) in wrong {
        let Outcome::Error(error) = &outcomes[place] else { panic!("{place}: {outcomes:?}") };
        assert_eq!(error.code, i32::from(Code::InvalidArgument));
        let status =
            tonic::Status::with_details(Code::InvalidArgument, error.message.clone(), error.encode_to_vec().into());
        assert_names(&status, expected);
    }
}

#[tokio::test]
async fn a_batch_has_1_to_10_000_questions() {
    let service = Service::start().await;
    let mut client = service.client();
    let batch = |count| {
        // The cheapest question: even on a slow machine, 10,000 of them fit in the request's 2 s.
        let questions = vec![question(ALICE, "write", ROADMAP); count];
        let mut client = client.clone();
        async move { client.batch_check(BatchCheckRequest { questions, consistency: None, dependencies: false }).await }
    };
    let status = batch(0).await.unwrap_err();
    assert_names(&status, &[("questions", "has 0 questions: a batch has 1 to 10,000")]);
    let status = batch(10_001).await.unwrap_err();
    assert_names(&status, &[("questions", "has too many items: a request has 10,000 at most")]);

    let results = batch(10_000).await.unwrap().into_inner().results;
    assert_eq!(results.len(), 10_000);
    let is_allowed = |outcome: Option<Outcome>| matches!(outcome, Some(Outcome::Answer(answer)) if answer.allowed);
    assert!(results.into_iter().all(|result| is_allowed(result.outcome)));

    // Violations of the whole batch are reported once, all together.
    let consistency = Some(Consistency { requirement: Some(Requirement::MaxAge(Duration::default())) });
    let status = client
        .batch_check(BatchCheckRequest { questions: Vec::new(), consistency, dependencies: false })
        .await
        .unwrap_err();
    assert_names(&status, &[("consistency.max_age", "zero"), ("questions", "has 0 questions")]);
    let questions = vec![question(BOB, "read", CONTRACT); 3];
    let consistency = token("r0000000000000002").consistency;
    let status =
        client.batch_check(BatchCheckRequest { questions, consistency, dependencies: false }).await.unwrap_err();
    assert_names(&status, &[("consistency.at_least_as_fresh.token", "has not come yet")]);
}

/// A client with the default limit of 4 MiB must accept the response, however many errors it has.
#[tokio::test]
async fn ten_thousand_wrong_questions_get_ten_thousand_errors() {
    let service = Service::start().await;
    let mut client = service.client();
    let wrong = Question { subject: subject("x:"), ..Question::default() };
    let request = BatchCheckRequest { questions: vec![wrong; 10_000], consistency: None, dependencies: false };
    let results = client.batch_check(request).await.unwrap().into_inner().results;
    assert_eq!(results.len(), 10_000);
    for result in results {
        let Some(Outcome::Error(error)) = result.outcome else { panic!("an answer to a wrong question") };
        assert_eq!(error.code, i32::from(Code::InvalidArgument));
        assert!(!error.message.is_empty());
    }
}

#[tokio::test]
async fn a_message_over_4_mib_is_refused() {
    let service = Service::start().await;
    let client = service.client();
    for (bytes, expected) in [(4 * 1_024 * 1_024 - 200, Code::InvalidArgument), (4 * 1_024 * 1_024, Code::OutOfRange)] {
        let status = ask(&client, with_subject("link", &"x".repeat(bytes))).await.unwrap_err();
        assert_eq!(status.code(), expected, "{bytes}: {status:?}");
        assert!(status.message().len() < 1_000, "the request is not sent back");
    }
    assert!(ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap().allowed);
}
