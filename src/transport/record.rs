//! What is recorded of each answer: a count by who asked for what, its age, and of some a line in the log.
//!
//! The lines name whom they are about, unless that is a secret.

use std::{fmt, sync::Arc};

use tonic::Extensions;

use super::callers::{ANONYMOUS, Caller};
use crate::{
    check::{CheckError, Checked},
    question::{Answer, Id, Question, Subject},
    schema::Schema,
    telemetry::{Decisions, DecisionsOfCaller, Metrics},
};

/// Records answers.
#[derive(Clone)]
pub(super) struct Record {
    schema: Arc<Schema>,
    decisions: Decisions,
    /// How many of all answers are logged, from 0 to 1.
    logged: f64,
}

impl Record {
    /// Of answers by this schema.
    pub(super) fn new(schema: Arc<Schema>, metrics: &Metrics) -> Self {
        let permissions = schema.permissions().map(|permission| {
            let resource = schema.resource(permission.resource);
            (Arc::from(&*resource.name), Arc::from(&*permission.name))
        });
        let decisions = metrics.decisions(permissions.collect::<Vec<_>>());
        Self { schema, decisions, logged: 0.0 }
    }

    /// With so many of all answers in the log: none of them at 0, each at 1.
    pub(super) fn logging(self, part: f64) -> Self {
        Self { logged: part, ..self }
    }

    /// For the answers to one request.
    pub(super) fn of<'a>(&'a self, extensions: &'a Extensions) -> RecordOfRequest<'a> {
        let caller = extensions.get::<Caller>().map_or(ANONYMOUS, |caller| &*caller.name);
        RecordOfRequest { record: self, caller, decisions: self.decisions.to(caller) }
    }
}

/// Records the answers to one request.
pub(super) struct RecordOfRequest<'a> {
    record: &'a Record,
    caller: &'a str,
    decisions: &'a DecisionsOfCaller,
}

impl RecordOfRequest<'_> {
    /// Records what was answered to a question.
    pub(super) fn answered(&self, question: &Question, checked: &Checked) {
        let Record { decisions, logged, .. } = self.record;
        decisions.count(self.decisions, question.permission, checked.answer);
        if *logged > 0.0 && fastrand::f64() < *logged {
            self.log(question, checked);
        }
    }

    /// As [`RecordOfRequest::answered`], for each question that has an answer.
    pub(super) fn answered_all(&self, questions: &[Question], checked: &[Result<Checked, CheckError>]) {
        for (question, checked) in questions.iter().zip(checked) {
            if let Ok(checked) = checked {
                self.answered(question, checked);
            }
        }
    }

    fn log(&self, question: &Question, checked: &Checked) {
        let schema = &*self.record.schema;
        let (decision, reason) = match checked.answer {
            Answer::Allowed { .. } => ("allowed", ""),
            Answer::Denied(reason) => ("denied", reason.as_str()),
        };
        let resource = schema.resource(question.resource.kind);
        tracing::info!(
            target: "permcached::decision",
            caller = self.caller,
            subject = %ShownSubject(schema, &question.subject),
            permission = &*schema.permission(question.permission).name,
            resource = %Shown(&resource.name, &question.resource.id),
            decision,
            reason,
            age_ms = u64::try_from(checked.age.as_millis()).unwrap_or(u64::MAX),
            tier = checked.tier.as_str(),
            "decided"
        );
    }
}

/// A subject as the log shows it.
struct ShownSubject<'a>(&'a Schema, &'a Subject);

impl fmt::Display for ShownSubject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Subject::Anonymous => f.write_str("anonymous"),
            Subject::Known { kind, id } => Shown(&self.0.subject(*kind).name, id).fmt(f),
        }
    }
}

/// Something of a type. Of what is secret not even the hash is shown: who knows the secret could find it again.
struct Shown<'a>(&'a str, &'a Id);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Id::Digest(_) => write!(f, "{}:(secret)", self.0),
            id => write!(f, "{}:{id}", self.0),
        }
    }
}
