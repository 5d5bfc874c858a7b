//! The service as its callers see it: over a real socket, with the generated clients.
//!
//! Does not test who is allowed what, but everything around the answer.

mod answers;
mod bad_input;
mod callers;
mod explain;
mod faults;
mod health;
mod hostile;
mod invalidation;
mod large;
mod limits;
mod lists;
mod probes;
mod process;
mod random;
mod reflection;
mod tls;
mod watch;

use permcached::transport::proto::{Answer, CheckRequest, Consistency, Question, consistency::Requirement};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::service::{Client, resource, subject};

/// Subjects and resources of examples/fylora.
const ALICE: &str = "user:a11ce0000000000000000001";
const BOB: &str = "user:b0b000000000000000000002";
const ZOE: &str = "user:20e000000000000000000006";
const ROADMAP: &str = "file:f11e00000000000000000001";
const CONTRACT: &str = "file:f11e00000000000000000002";

fn question(who: &str, permission: &str, what: &str) -> Question {
    Question { subject: subject(who), permission: permission.to_owned(), resource: resource(what) }
}

fn check(who: &str, permission: &str, what: &str) -> CheckRequest {
    let Question { subject, permission, resource } = question(who, permission, what);
    CheckRequest { subject, permission, resource, consistency: None, dependencies: false }
}

/// A valid question with this consistency.
fn check_with(requirement: Requirement) -> CheckRequest {
    let consistency = Some(Consistency { requirement: Some(requirement) });
    CheckRequest { consistency, ..check(ALICE, "read", ROADMAP) }
}

async fn ask(client: &Client, request: CheckRequest) -> Result<Answer, Status> {
    let response = client.clone().check(request).await?;
    Ok(response.into_inner().answer.expect("a response has an answer"))
}

/// The fields that a status names, with the message about each.
fn violations(status: &Status) -> Vec<(String, String)> {
    let details = status.get_error_details();
    let all = details.bad_request().map(|request| request.field_violations.clone()).unwrap_or_default();
    all.into_iter().map(|violation| (violation.field, violation.description)).collect()
}

/// Asserts that the status is `INVALID_ARGUMENT` and names exactly these fields, in order, each with a message that has
/// these words.
#[track_caller]
fn assert_names(status: &Status, expected: &[(&str, &str)]) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let found = violations(status);
    let fields = |all: &[(String, String)]| all.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>();
    assert_eq!(fields(&found), expected.iter().map(|(field, _)| *field).collect::<Vec<_>>(), "{found:?}");
    for ((field, description), (_, words)) in found.iter().zip(expected) {
        assert!(description.contains(words), "{field}: {description}\nlacks: {words}");
        assert!(status.message().contains(&format!("{field}: {description}")), "{}", status.message());
    }
}
