//! Messages into questions and demands, answers into messages. Every field is checked, every mistake named.

use std::time::Duration;

use prost_types::Timestamp;

use super::{
    proto::{self, consistency::Requirement, freshness},
    status::Violation,
};
use crate::{
    check::{Checked, Demand},
    freshness::{Clock, Moment, Token},
    question::{Answer, Millis, Question, Reason, Tier},
    schema::{FieldError, Schema, SubjectText},
};

/// A question, from the fields that every request for one has.
pub(super) fn question(
    schema: &Schema,
    subject: Option<&proto::Subject>,
    permission: &str,
    resource: Option<&proto::Resource>,
) -> Result<Question, Vec<Violation>> {
    with_parts(subject, resource, |subject, resource| {
        schema.question(subject, permission, &resource.r#type, &resource.id)
    })
}

/// A question for each permission of the resource.
pub(super) fn questions_for_all(
    schema: &Schema,
    subject: Option<&proto::Subject>,
    resource: Option<&proto::Resource>,
) -> Result<Vec<Question>, Vec<Violation>> {
    with_parts(subject, resource, |subject, resource| {
        schema.questions_for_all(subject, &resource.r#type, &resource.id)
    })
}

/// Reads the subject and the resource as far as they are there, so that all that is wrong is named at once.
fn with_parts<T>(
    subject: Option<&proto::Subject>,
    resource: Option<&proto::Resource>,
    read: impl FnOnce(SubjectText<'_>, &proto::Resource) -> Result<T, Vec<FieldError>>,
) -> Result<T, Vec<Violation>> {
    let mut violations = Vec::new();
    let subject = match subject {
        None => {
            violations.push(Violation::new("subject", "is missing: name a subject, or say that it is anonymous"));
            SubjectText::Anonymous
        }
        Some(subject) if subject.anonymous => {
            if !subject.r#type.is_empty() || !subject.id.is_empty() {
                violations.push(Violation::new("subject.anonymous", "an anonymous subject has no type and no id"));
            }
            SubjectText::Anonymous
        }
        Some(subject) => SubjectText::Known { kind: &subject.r#type, id: &subject.id },
    };
    let Some(resource) = resource else {
        violations.push(Violation::new("resource", "is missing: name the resource that the question is about"));
        return Err(violations);
    };
    let read = read(subject, resource);
    match read {
        Ok(value) if violations.is_empty() => Ok(value),
        Ok(_) => Err(violations),
        Err(errors) => {
            violations.extend(errors.into_iter().map(|error| Violation::new(error.field, error.message)));
            Err(violations)
        }
    }
}

/// What is wrong with a demand that says no.
const FALSE: &str = "is false: set it to true, or leave `consistency` out";

/// What a request demands of the freshness of its answer.
pub(super) fn demand(consistency: Option<&proto::Consistency>) -> Result<Demand, Violation> {
    let wrong = |field: &str, message: &str| Err(Violation::new(format!("consistency.{field}"), message));
    match consistency.and_then(|consistency| consistency.requirement.as_ref()) {
        None | Some(Requirement::MinimizeLatency(true)) => Ok(Demand::MinimizeLatency),
        Some(Requirement::FullyConsistent(true)) => Ok(Demand::FullyConsistent),
        Some(Requirement::MinimizeLatency(false)) => wrong("minimize_latency", FALSE),
        Some(Requirement::FullyConsistent(false)) => wrong("fully_consistent", FALSE),
        Some(Requirement::MaxAge(age)) => match Duration::try_from(*age) {
            Ok(age) if !age.is_zero() => Ok(Demand::MaxAge(age)),
            _ => wrong("max_age", "is not more than zero: to see everything, ask for `fully_consistent`"),
        },
        Some(Requirement::AtLeastAsFresh(freshness)) => match &freshness.moment {
            None => wrong("at_least_as_fresh", "is empty: give a `token` or an `operation_time`"),
            Some(freshness::Moment::OperationTime(time)) => {
                Ok(Demand::AtLeastAsFresh(Token { clock: Clock::Cluster, moment: Moment::new(time.seconds, time.increment) }))
            }
            Some(freshness::Moment::Token(text)) => match text.parse() {
                Ok(token) => Ok(Demand::AtLeastAsFresh(token)),
                Err(error) => wrong("at_least_as_fresh.token", &format!("{error}")),
            },
        },
    }
}

/// An answer as a message.
pub(super) fn answer(schema: &Schema, checked: &Checked) -> proto::Answer {
    let (allowed, why, granted_by, valid_until) = match checked.answer {
        Answer::Allowed { by, valid_until } => {
            let granted_by = by.map(|relation| schema.relation_name(relation)).unwrap_or_default();
            (true, proto::Reason::Unspecified, granted_by, valid_until)
        }
        Answer::Denied(denied) => (false, reason(denied), String::new(), None),
    };
    proto::Answer {
        allowed,
        reason: why.into(),
        granted_by,
        tier: tier(checked.tier).into(),
        as_of: checked.as_of.to_string(),
        age: prost_types::Duration::try_from(checked.age).ok(),
        valid_until: valid_until.map(timestamp),
    }
}

pub(super) fn reason(reason: Reason) -> proto::Reason {
    match reason {
        Reason::SubjectInactive => proto::Reason::SubjectInactive,
        Reason::NotFound => proto::Reason::NotFound,
        Reason::Malformed => proto::Reason::Malformed,
        Reason::Limit => proto::Reason::Limit,
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

/// A date of MongoDB's as the protocol has it; one outside the years 1 to 9999 at that end.
pub(super) fn timestamp(millis: Millis) -> Timestamp {
    const FIRST: Millis = -62_135_596_800_000;
    const LAST: Millis = 253_402_300_799_999;
    let millis = millis.clamp(FIRST, LAST);
    let nanos = i32::try_from(millis.rem_euclid(1_000)).unwrap_or(0) * 1_000_000;
    Timestamp { seconds: millis.div_euclid(1_000), nanos }
}
