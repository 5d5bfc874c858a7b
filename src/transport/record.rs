//! Records answers: counts each by caller, permission and outcome, and logs a sample of them. Lists are counted by what was found.
//!
//! Log lines name the subject and the resource, except where an id is secret. Records nothing about questions that failed.

use std::{fmt, sync::Arc};

use super::{call_context::CallContext, callers::ANONYMOUS, low_priority::give_way};
use crate::{
    check::{CheckError, Checked},
    list::{ListError, ListQuestion, Plan, ResourceList, SubjectList},
    question::{Answer, Id, PermissionId, Question, Resource, Subject, SubjectTypeId},
    schema::Schema,
    telemetry::{Decisions, DecisionsOfCaller, Lists, Metrics},
};

/// How many answers are recorded until other threads may run: some 10 microseconds.
const ANSWERS_AT_ONCE: usize = 128;

/// Records answers.
#[derive(Clone)]
pub(super) struct Record {
    schema: Arc<Schema>,
    decisions: Decisions,
    lists: Lists,
    /// The resource type and the name of each permission, by its number.
    names: Arc<[(Arc<str>, Arc<str>)]>,
    /// The share of answers that are logged, from 0 to 1.
    logged_share: f64,
}

impl Record {
    /// A recorder of answers under this schema, which logs none.
    pub(super) fn new(schema: Arc<Schema>, metrics: &Metrics) -> Self {
        let permissions = schema.permissions().map(|permission| {
            let resource = schema.resource(permission.resource);
            (Arc::from(&*resource.name), Arc::from(&*permission.name))
        });
        let names: Arc<[_]> = permissions.collect();
        let decisions = metrics.decisions(names.iter().cloned());
        Self { schema, decisions, lists: metrics.lists(), names, logged_share: 0.0 }
    }

    /// The same recorder, logging this share of answers: none at 0, all at 1.
    pub(super) fn logging(self, logged_share: f64) -> Self {
        Self { logged_share, ..self }
    }

    /// A recorder for the answers to one call.
    pub(super) fn of<'a>(&'a self, context: &'a CallContext) -> RecordOfRequest<'a> {
        let caller = context.caller.as_deref().unwrap_or(ANONYMOUS);
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
    /// Records the answer to a question.
    pub(super) fn answered(&self, question: &Question, checked: &Checked) {
        self.record.decisions.count(self.decisions, question.permission, checked.answer);
        self.log_some(question, checked);
    }

    /// Records the answer to each question that has one.
    pub(super) fn answered_all(&self, questions: &[Question], checked: &[Result<Checked, CheckError>]) {
        let mut tally = self.record.decisions.tally(self.decisions);
        for (place, (question, checked)) in questions.iter().zip(checked).enumerate() {
            if place % ANSWERS_AT_ONCE == 0 {
                give_way();
            }
            if let Ok(checked) = checked {
                tally.count(question.permission, checked.answer);
                self.log_some(question, checked);
            }
        }
    }

    /// Records a filter.
    pub(super) fn planned(&self, question: &ListQuestion, plan: &Plan) {
        let Some((resource_type, permission)) = self.record.names.get(question.permission.index()) else { return };
        self.record.lists.planned((resource_type, permission), plan.kind.as_str(), plan.ids);
        if self.is_logged() {
            tracing::info!(
                target: "permcached::decision",
                caller = self.caller,
                subject = %ShownSubject(&self.record.schema, &question.asker.subject),
                permission = &**permission,
                resource_type = &**resource_type,
                kind = plan.kind.as_str(),
                ids = plan.ids,
                age_ms = u64::try_from(plan.age.as_millis()).unwrap_or(u64::MAX),
                "planned a filter"
            );
        }
    }

    /// Records a page of resources.
    pub(super) fn listed_resources(&self, question: &ListQuestion, list: &ResourceList) {
        self.record.lists.listed(list.resources.len(), list.examined);
        let Some((resource_type, permission)) = self.record.names.get(question.permission.index()) else { return };
        if self.is_logged() {
            tracing::info!(
                target: "permcached::decision",
                caller = self.caller,
                subject = %ShownSubject(&self.record.schema, &question.asker.subject),
                permission = &**permission,
                resource_type = &**resource_type,
                listed = list.resources.len(),
                examined = list.examined,
                age_ms = u64::try_from(list.age.as_millis()).unwrap_or(u64::MAX),
                "listed resources"
            );
        }
    }

    /// Records a page of subjects.
    pub(super) fn listed_subjects(
        &self,
        (permission, resource, subject_type): (PermissionId, &Resource, SubjectTypeId),
        list: &SubjectList,
    ) {
        self.record.lists.listed_subjects(list.subjects.len(), list.examined);
        if self.is_logged() {
            let schema = &*self.record.schema;
            tracing::info!(
                target: "permcached::decision",
                caller = self.caller,
                subject_type = &*schema.subject(subject_type).name,
                permission = &*schema.permission(permission).name,
                resource = %Shown(&schema.resource(resource.kind).name, &resource.id),
                listed = list.subjects.len(),
                examined = list.examined,
                "listed subjects"
            );
        }
    }

    /// Counts a list that could not be made.
    pub(super) fn list_failed(&self, error: &ListError) {
        self.record.lists.failed(error.as_str());
    }

    /// Counts a filter that was too large to be sent.
    pub(super) fn filter_too_large(&self) {
        self.record.lists.failed("filter_too_large");
    }

    /// Logs a share of the answers.
    fn log_some(&self, question: &Question, checked: &Checked) {
        if self.is_logged() {
            self.log(question, checked);
        }
    }

    /// Whether the present answer is among those that are logged.
    fn is_logged(&self) -> bool {
        let logged_share = self.record.logged_share;
        logged_share > 0.0 && fastrand::f64() < logged_share
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

/// An object as the log shows it. For a secret id not even the hash is shown, as somebody who knows the secret could
/// search for its hash.
struct Shown<'a>(&'a str, &'a Id);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Id::Digest(_) => write!(f, "{}:(secret)", self.0),
            id => write!(f, "{}:{id}", self.0),
        }
    }
}
