//! Evaluates what the documents of the asking subject say: the gate of its type, its flags, and the relations through which
//! `of` makes it a member of a resource.
//!
//! Reads facts by the id of the subject only. Relations that are read by the id of a resource are in the parent module.

use super::{
    AvailableFacts, Evaluation, Frame, Step, Trace,
    truth::{Any, Truth, Value},
};
use crate::{
    fact::{Grant, Grantee},
    question::{Id, Reason, RelationId, Subject},
};

impl<F: AvailableFacts, T: Trace> Evaluation<'_, F, T> {
    /// Whether the subject's own document exists, and fulfils the condition and the times of its type.
    pub(super) fn gate(&mut self, gate: RelationId, id: &Id) -> Value {
        self.trace.enter(|| Step::Gate { relation: gate, id: id.clone() });
        let value = self.read_by_subject(gate, id, |_, _| Value::FALSE, false);
        let value = match value.truth {
            Truth::False(_) => Value::denied(Reason::SubjectInactive),
            Truth::True(_) | Truth::Unsure(_) | Truth::Missing => value.unnamed(),
        };
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
