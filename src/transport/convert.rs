//! Converts messages to questions and consistencies, and answers to messages. Every field is validated, and every
//! violation is reported with its field.
//!
//! Knows the names of the schema only through `schema`, and checks no permission.

use std::time::Duration;

use prost_types::Timestamp;

use super::{
    proto::{self, Freshness, consistency::Requirement, freshness},
    question_fields::{QuestionFields, ResourceFields, SubjectFields},
    status::Violation,
};
use crate::{
    check::{Checked, Consistency, Dependencies},
    freshness::{Clock, Moment, Token, TokenError},
    question::{Answer, Millis, Question, Reason, Tier},
    schema::{FieldError, Schema, SubjectText},
};

/// Reads one question.
pub(super) fn question(schema: &Schema, fields: QuestionFields<'_>) -> Result<Question, Vec<Violation>> {
    let QuestionFields { subject, permission, resource } = fields;
    with_parts(subject, resource, |subject, resource| schema.question(subject, permission, resource.kind, resource.id))
}

/// Reads one question for each permission of the resource's type.
pub(super) fn questions_for_all(
    schema: &Schema,
    subject: Option<SubjectFields<'_>>,
    resource: Option<ResourceFields<'_>>,
) -> Result<Vec<Question>, Vec<Violation>> {
    with_parts(subject, resource, |subject, resource| schema.questions_for_all(subject, resource.kind, resource.id))
}

/// Reads the subject and the resource. A missing one does not stop the validation of the other, so that one response
/// names all violations.
fn with_parts<T>(
    subject: Option<SubjectFields<'_>>,
    resource: Option<ResourceFields<'_>>,
    read: impl FnOnce(SubjectText<'_>, ResourceFields<'_>) -> Result<T, Vec<FieldError>>,
) -> Result<T, Vec<Violation>> {
    let mut violations = Vec::new();
    let subject = subject_text(subject, &mut violations);
    let read = read(subject, resource.unwrap_or_default());
    add_errors(read.as_ref().err(), &mut violations, resource.is_some());
    if resource.is_none() {
        violations.push(Violation::new("resource", "is missing: name the resource that the question is about"));
    }
    read.ok().filter(|_| violations.is_empty()).ok_or(violations)
}

/// Adds errors of fields. If there is no resource, those of its fields say nothing more.
pub(super) fn add_errors(errors: Option<&Vec<FieldError>>, violations: &mut Vec<Violation>, has_resource: bool) {
    let errors = errors.into_iter().flatten();
    let relevant = errors.filter(|error| has_resource || !error.field.starts_with("resource."));
    violations.extend(relevant.map(violation));
}

/// Reads whether a subject is anonymous or named. A missing one is a violation.
pub(super) fn subject_text<'a>(subject: Option<SubjectFields<'a>>, violations: &mut Vec<Violation>) -> SubjectText<'a> {
    match subject {
        None => {
            violations.push(Violation::new("subject", "is missing: name a subject, or set `anonymous`"));
            SubjectText::Anonymous
        }
        Some(subject) if subject.anonymous => {
            if !subject.kind.is_empty() || !subject.id.is_empty() {
                violations.push(Violation::new("subject.anonymous", "an anonymous subject has no type and no id"));
            }
            SubjectText::Anonymous
        }
        Some(SubjectFields { kind, id, .. }) => SubjectText::Known { kind, id },
    }
}

pub(super) fn violation(error: &FieldError) -> Violation {
    Violation::new(error.field, &error.message)
}

/// The violations of one list entry: replaces `part` in each field by `place`, such as `resource` by `resources[3]`.
pub(super) fn at_place(errors: &[FieldError], part: &str, place: &str) -> Vec<Violation> {
    let moved = |error: &FieldError| Violation::new(error.field.replacen(part, place, 1), &error.message);
    errors.iter().map(moved).collect()
}

/// Why a flag of `Consistency` must not be false.
const FLAG_IS_FALSE: &str = "is false: set it to true, or leave `consistency` out";

/// Reads a request's consistency. A moment in it must belong to this clock.
pub(super) fn consistency(consistency: Option<&proto::Consistency>, clock: Clock) -> Result<Consistency, Violation> {
    let wrong = |field: &str, message: &str| Err(Violation::new(format!("consistency.{field}"), message));
    match consistency.and_then(|consistency| consistency.requirement.as_ref()) {
        None | Some(Requirement::MinimizeLatency(true)) => Ok(Consistency::MinimizeLatency),
        Some(Requirement::FullyConsistent(true)) => Ok(Consistency::FullyConsistent),
        Some(Requirement::MinimizeLatency(false)) => wrong("minimize_latency", FLAG_IS_FALSE),
        Some(Requirement::FullyConsistent(false)) => wrong("fully_consistent", FLAG_IS_FALSE),
        Some(Requirement::MaxAge(age)) => match duration(age) {
            Some(age) if !age.is_zero() => Ok(Consistency::MaxAge(age)),
            _ => wrong("max_age", "is not a duration of more than zero: to see every change, use `fully_consistent`"),
        },
        Some(Requirement::AtLeastAsFresh(freshness)) => {
            token(freshness, "consistency.at_least_as_fresh", clock).map(Consistency::AtLeastAsFresh)
        }
    }
}

/// Reads the moment that a request names in a field. It must belong to this clock.
pub(super) fn token(freshness: &Freshness, field: &str, clock: Clock) -> Result<Token, Violation> {
    let (inner, token) = match &freshness.moment {
        None => ("", Err("is empty: give a `token` or an `operation_time`".to_owned())),
        Some(freshness::Moment::Token(text)) => (".token", text.parse().map_err(|error: TokenError| error.to_string())),
        Some(freshness::Moment::OperationTime(time)) => {
            let moment = Moment::new(time.seconds, time.increment);
            (".operation_time", Ok(Token { clock: Clock::Cluster, moment }))
        }
    };
    let own = token.and_then(|token| if token.clock == clock { Ok(token) } else { Err(foreign(token.clock, clock)) });
    own.map_err(|message| Violation::new(format!("{field}{inner}"), message))
}

/// The field in which a request names the moment that its answer must cover.
pub(super) fn moment_field(consistency: Option<&proto::Consistency>) -> &'static str {
    let moment = match consistency.and_then(|consistency| consistency.requirement.as_ref()) {
        Some(Requirement::AtLeastAsFresh(freshness)) => freshness.moment.as_ref(),
        _ => None,
    };
    match moment {
        Some(freshness::Moment::Token(_)) => "consistency.at_least_as_fresh.token",
        Some(freshness::Moment::OperationTime(_)) => "consistency.at_least_as_fresh.operation_time",
        None => "consistency.at_least_as_fresh",
    }
}

/// The message for a moment of another clock than the service's source has.
fn foreign(of: Clock, source: Clock) -> String {
    let time = |clock| match clock {
        Clock::Cluster => "MongoDB's cluster time",
        Clock::Revision => "revisions of documents",
        Clock::Local => "an instance's own ticks",
    };
    format!("is of {}, but this service uses {}: pass the `as_of` of one of its answers", time(of), time(source))
}

/// Reads a duration that is not negative. Prost's own conversion panics at the extremes in builds with overflow checks.
fn duration(duration: &prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(duration.seconds).ok()?, nanos))
}

/// Converts an answer to its message.
pub(super) fn answer(schema: &Schema, checked: &Checked) -> proto::Answer {
    let (allowed, reason, granted_by, valid_until) = match checked.answer {
        Answer::Allowed { by, valid_until } => {
            let granted_by = by.map(|relation| schema.relation_name(relation)).unwrap_or_default();
            (true, proto::Reason::Unspecified, granted_by, valid_until)
        }
        Answer::Denied(denied) => (false, self::reason(denied), String::new(), None),
    };
    proto::Answer {
        allowed,
        reason: reason.into(),
        granted_by,
        tier: tier(checked.tier).into(),
        as_of: checked.as_of.to_string(),
        age: prost_types::Duration::try_from(checked.age).ok(),
        valid_until: valid_until.map(timestamp),
        stale: checked.is_stale,
        // Only the answers of `Check` and `BatchCheck` have them.
        depends_on: None,
    }
}

/// Converts what an answer depends on to its message.
pub(super) fn dependencies(dependencies: &Dependencies, domain: u64) -> proto::Dependencies {
    let Dependencies { names, oldest, valid_for } = dependencies;
    proto::Dependencies {
        hashes: names.to_vec(),
        moment: oldest.as_u64(),
        domain,
        valid_for: valid_for.and_then(|time| prost_types::Duration::try_from(time).ok()),
    }
}

pub(super) fn reason(reason: Reason) -> proto::Reason {
    match reason {
        Reason::SubjectInactive => proto::Reason::SubjectInactive,
        Reason::NotFound => proto::Reason::NotFound,
        Reason::Malformed => proto::Reason::Malformed,
        Reason::Limit => proto::Reason::Limit,
        Reason::Cycle => proto::Reason::Cycle,
        Reason::Excluded => proto::Reason::Excluded,
        Reason::Expired => proto::Reason::Expired,
        Reason::NoGrant => proto::Reason::NoGrant,
    }
}

pub(super) fn tier(tier: Tier) -> proto::Tier {
    match tier {
        Tier::Memory => proto::Tier::Memory,
        Tier::Redis => proto::Tier::Redis,
        Tier::Source => proto::Tier::Source,
    }
}

/// Converts a date of MongoDB's. A date outside the years 1 to 9999, which protobuf cannot express, becomes the nearest
/// that it can.
pub(super) fn timestamp(millis: Millis) -> Timestamp {
    const FIRST: Millis = -62_135_596_800_000;
    const LAST: Millis = 253_402_300_799_999;
    let millis = millis.clamp(FIRST, LAST);
    let nanos = i32::try_from(millis.rem_euclid(1_000)).unwrap_or(0) * 1_000_000;
    Timestamp { seconds: millis.div_euclid(1_000), nanos }
}
