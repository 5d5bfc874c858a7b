//! Evaluates what the documents of the asking subject say: the gate of its type, its flags, and the relations through which
//! `of` makes it a member of a resource.
//!
//! Reads facts by the id of the subject only. Relations that are read by the id of a resource are in the parent module.

use super::{
    AvailableFacts, Evaluation, Frame, Step, Trace, tree,
    truth::{Any, Truth, Value},
};
use crate::{
    fact::{FactKey, Grant, Grantee},
    question::{Id, Millis, Reason, RelationId, Subject},
    schema::Schema,
};

/// What is asked about the subject alone, whatever the resource is.
#[derive(Clone, Copy, Debug)]
pub enum OfSubject<'q> {
    /// Whether it passes the gate of its type. A type without a gate lets every subject pass.
    Gate,
    /// Whether it has a flag, as `subject.NAME` in a permission.
    Flag {
        /// The relations of that name, one for each subject type that has it.
        flags: &'q [RelationId],
        /// Whether the flag stands under a `!`, where malformed documents count.
        is_negated: bool,
    },
}

/// A truth value about the subject alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectValue {
    /// Whether it holds; none if it is indeterminate.
    pub holds: Option<bool>,
    /// The time at which the clock alone may change it; none if there is no such time.
    pub valid_until: Option<Millis>,
}

/// Answers what is asked about the subject alone. Returns none if facts are missing, whose keys it adds to `missing`.
pub fn evaluate_subject(
    schema: &Schema,
    subject: &Subject,
    asked: OfSubject<'_>,
    facts: &impl AvailableFacts,
    now: Millis,
    missing: &mut Vec<FactKey>,
) -> Option<SubjectValue> {
    let mut evaluation = Evaluation::new(schema, subject, facts, now, missing, tree::Untraced);
    let value = match asked {
        OfSubject::Gate => evaluation.own_gate(),
        OfSubject::Flag { flags, is_negated } => evaluation.subject_flag(flags, is_negated),
    };
    let holds = match value.truth {
        Truth::True(_) => Some(true),
        Truth::False(_) => Some(false),
        Truth::Unsure(_) => None,
        Truth::Missing => return None,
    };
    Some(SubjectValue { holds, valid_until: value.may_change_at() })
}

impl<F: AvailableFacts, T: Trace> Evaluation<'_, F, T> {
    /// Whether the asking subject passes the gate of its type, if there is one.
    pub(super) fn own_gate(&mut self) -> Value {
        match self.subject {
            Subject::Known { kind, id } => match self.schema.subject(*kind).gate {
                Some(gate) => self.gate(gate, id),
                None => Value::TRUE,
            },
            Subject::Anonymous => Value::TRUE,
        }
    }

    /// Whether the subject's own document exists, and fulfils the condition and the times of its type.
    fn gate(&mut self, gate: RelationId, id: &Id) -> Value {
        self.trace.enter(|| Step::Gate { relation: gate, id: id.clone() });
        let value = self.read_by_subject(gate, id, |_, _| Value::FALSE, false);
        let value = value.unnamed().because(Reason::SubjectInactive);
        self.trace.leave(value);
        value
    }

    /// Whether the subject has a flag. `flags` are the relations of that name, one for each subject type that has it.
    pub(super) fn subject_flag(&mut self, flags: &[RelationId], negated: bool) -> Value {
        let (schema, subject) = (self.schema, self.subject);
        if self.is_exhausted() {
            return Value::LIMIT;
        }
        match (flags.iter().find(|flag| schema.is_of_subject(**flag, subject)), subject) {
            (Some(flag), Subject::Known { id, .. }) => {
                self.relation_of_subject(*flag, id, |_, _| Value::FALSE, negated)
            }
            (Some(_), Subject::Anonymous) | (None, _) => {
                self.trace.enter(|| Step::SubjectFlag { flags: flags.into() });
                self.trace.leave(Value::FALSE);
                Value::FALSE
            }
        }
    }

    /// Whether one of these relations of the subject leads to the frame's resource. `relation` is the one that names them.
    pub(super) fn of_subject(
        &mut self,
        relation: RelationId,
        of: &[RelationId],
        frame: &Frame<'_>,
        negated: bool,
    ) -> Value {
        let (schema, subject) = (self.schema, self.subject);
        let Subject::Known { id, .. } = subject else { return Value::FALSE };
        let leads_here = |_: &mut Self, grant: &Grant| match &grant.grantee {
            Grantee::Id(id) if id == frame.id => Value::granted(relation),
            Grantee::Id(_)
            | Grantee::Flag
            | Grantee::Everyone
            | Grantee::Unreadable
            | Grantee::Unknown(_)
            | Grantee::OverLimit => Value::FALSE,
        };
        let mut any = Any::default();
        for of in of.iter().filter(|of| schema.is_of_subject(**of, subject)) {
            if any.is_settled() && !T::WHOLE {
                break;
            }
            any.add(if self.is_exhausted() {
                Value::LIMIT
            } else {
                self.relation_of_subject(*of, id, leads_here, negated)
            });
        }
        any.value()
    }

    /// The value of a relation of the subject, as a step of its own.
    fn relation_of_subject(
        &mut self,
        relation: RelationId,
        id: &Id,
        ask: impl Fn(&mut Self, &Grant) -> Value,
        negated: bool,
    ) -> Value {
        self.trace.enter(|| Step::Relation { relation, id: id.clone() });
        let value = self.read_by_subject(relation, id, ask, negated);
        self.trace.leave(value);
        value
    }

    /// The disjunction of all grants that the documents of the subject contain for a relation of its type.
    fn read_by_subject(
        &mut self,
        relation: RelationId,
        id: &Id,
        ask: impl Fn(&mut Self, &Grant) -> Value,
        negated: bool,
    ) -> Value {
        let fact = self.schema.relation(relation).lookup().and_then(|lookup| self.fact(lookup, id));
        fact.map_or(Value::MISSING, |fact| self.any_grant(relation, fact, ask, negated))
    }
}
