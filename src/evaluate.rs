//! Facts and a question into an answer: pure, synchronous, deterministic. What cannot be decided yet is answered with the
//! facts that are missing (design section 4).
//!
//! No I/O, no clock but the one handed in, no allocation unless a tree is large. It never panics and its work is bounded.

mod truth;
mod tree;

use std::collections::HashMap;

pub use tree::{GRANTS_SHOWN, GrantSeen, Outcome, STEPS_MAX, Step, Tree, explain};
use truth::{All, Any, NEVER_CUT, Truth, Value};

use crate::{
    fact::{Certainty, Fact, FactKey, Grant, Grantee},
    question::{Answer, Id, LookupId, Millis, PermissionId, Question, Reason, RelationId, ResourceTypeId, Subject},
    schema::{Expression, Member, Schema, Target},
};

/// How many edges and sets deep a check looks at most.
pub const DEPTH_MAX: usize = 32;

/// How many relations, permissions and resources a check looks at, at most.
pub const NODES_MAX: usize = 10_000;

/// How many grants of one relation count as a node.
const GRANTS_A_NODE: usize = 64;

/// From how many nodes on values are remembered within a check, so that what is reached twice is computed once. Below
/// that, remembering costs more than it saves.
const MEMO_AFTER: usize = 64;

/// Where the evaluator finds facts.
pub trait AvailableFacts {
    /// The fact, if it is at hand.
    fn get(&self, lookup: LookupId, id: &Id) -> Option<&Fact>;
}

/// What evaluation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The facts at hand decide it.
    Decided(Answer),
    /// They do not: those that are missing were named.
    Missing,
}

/// Answers a question from the facts at hand. Where these do not suffice, every fact that is reachable now and could still
/// decide is added to `missing`, perhaps more than once.
pub fn evaluate(
    schema: &Schema,
    question: &Question,
    facts: &impl AvailableFacts,
    now: Millis,
    missing: &mut Vec<FactKey>,
) -> Verdict {
    Evaluation::new(schema, question, facts, now, missing, tree::Untraced).question(question).verdict()
}

/// Watches an evaluation. The plain one watches nothing and costs nothing.
trait Trace {
    /// Whether to look at all sides, those that can no longer decide too.
    const WHOLE: bool;
    fn enter(&mut self, step: impl FnOnce() -> Step);
    fn grant(&mut self, grant: &Grant, fact: &Fact, value: Value);
    fn leave(&mut self, value: Value);
}

/// One resource on the way from the question to where the evaluator is, innermost first.
struct Frame<'f> {
    outer: Option<&'f Frame<'f>>,
    /// The resource's own document, which most of its relations are read from.
    own: Option<(LookupId, &'f Fact)>,
    /// How many frames there are, this one included.
    depth: usize,
    kind: ResourceTypeId,
    id: &'f Id,
    member: Member,
    negated: bool,
}

impl Frame<'_> {
    /// The depth of the frame where the same is already being asked.
    fn find(&self, kind: ResourceTypeId, id: &Id, member: Member, negated: bool) -> Option<usize> {
        let mut frame = Some(self);
        while let Some(at) = frame {
            if at.kind == kind && at.member == member && at.negated == negated && at.id == id {
                return Some(at.depth);
            }
            frame = at.outer;
        }
        None
    }
}

/// The document of a resource.
#[derive(Clone, Copy)]
enum Own<'a> {
    /// Its type has none.
    None,
    /// The fact is not at hand.
    Missing,
    /// What the lookup found.
    Fact(LookupId, &'a Fact),
}

impl<'a> Own<'a> {
    fn fact(self) -> Option<(LookupId, &'a Fact)> {
        match self {
            Self::Fact(lookup, fact) => Some((lookup, fact)),
            Self::None | Self::Missing => None,
        }
    }
}

type MemoKey = (ResourceTypeId, Id, Member, bool);

struct Evaluation<'a, F, T> {
    schema: &'a Schema,
    facts: &'a F,
    subject: &'a Subject,
    now: Millis,
    missing: &'a mut Vec<FactKey>,
    nodes: usize,
    memo: HashMap<MemoKey, Value, foldhash::fast::RandomState>,
    trace: T,
}

impl<'a, F: AvailableFacts, T: Trace> Evaluation<'a, F, T> {
    fn new(
        schema: &'a Schema,
        question: &'a Question,
        facts: &'a F,
        now: Millis,
        missing: &'a mut Vec<FactKey>,
        trace: T,
    ) -> Self {
        let memo = HashMap::default();
        Self { schema, facts, subject: &question.subject, now, missing, nodes: 0, memo, trace }
    }

    /// The subject may ask, the resource is there, and the permission holds.
    fn question(&mut self, question: &Question) -> Value {
        let resource = &question.resource;
        let mut all = All::default();
        if let Subject::Known { kind, id } = &question.subject
            && let Some(gate) = self.schema.subject(*kind).gate
        {
            all.add(self.gate(gate, id));
        }
        if all.is_settled() && !T::WHOLE {
            return all.value();
        }
        let own = self.own(resource.kind, &resource.id);
        all.add(self.existence(resource.kind, &resource.id, own, Reason::NotFound));
        if !all.is_settled() || T::WHOLE {
            let member = Member::Permission(question.permission);
            let (kind, id) = (resource.kind, &resource.id);
            let frame = Frame { outer: None, own: own.fact(), depth: 1, kind, id, member, negated: false };
            all.add(self.permission(question.permission, &frame, false));
        }
        all.value()
    }

    fn gate(&mut self, gate: RelationId, id: &Id) -> Value {
        self.trace.enter(|| Step::Gate { relation: gate, id: id.clone() });
        let value = match self.fact(self.schema.relation(gate).lookup, id) {
            None => Value::MISSING,
            Some(fact) => {
                let value = self.any_grant(gate, fact, |_, _| Value::FALSE, false);
                if let Truth::False(_) = value.truth { Value::denied(Reason::SubjectInactive) } else { value.unnamed() }
            }
        };
        self.trace.leave(value);
        value
    }

    /// The document of a resource.
    fn own(&mut self, kind: ResourceTypeId, id: &Id) -> Own<'a> {
        let Some(lookup) = self.schema.resource(kind).document else { return Own::None };
        self.fact(lookup, id).map_or(Own::Missing, |fact| Own::Fact(lookup, fact))
    }

    /// Whether a resource is there.
    fn existence(&mut self, kind: ResourceTypeId, id: &Id, own: Own<'a>, reason: Reason) -> Value {
        match own {
            Own::Missing => Value::MISSING,
            Own::Fact(_, fact) if fact.is_absent() => {
                self.trace.enter(|| Step::Absent { kind, id: id.clone() });
                self.trace.leave(Value::denied(reason));
                Value::denied(reason)
            }
            Own::Fact(..) | Own::None => Value::TRUE,
        }
    }

    /// The fact that a relation of the frame's resource is read from.
    fn fact_in<'f>(&mut self, lookup: LookupId, frame: &Frame<'f>) -> Option<&'f Fact>
    where
        'a: 'f,
    {
        match frame.own {
            Some((own, fact)) if own == lookup => Some(fact),
            _ => self.fact(lookup, frame.id),
        }
    }

    fn fact(&mut self, lookup: LookupId, id: &Id) -> Option<&'a Fact> {
        let fact = self.facts.get(lookup, id);
        if fact.is_none() {
            self.missing.push(FactKey { lookup, id: id.clone() });
        }
        fact
    }

    /// Counts a node; the bound makes all further ones indeterminate.
    fn is_exhausted(&mut self) -> bool {
        self.nodes += 1;
        self.nodes > NODES_MAX
    }

    fn member(&mut self, member: Member, frame: &Frame<'_>, negated: bool) -> Value {
        match member {
            Member::Relation(id) => self.relation(id, frame, negated),
            Member::Permission(id) => self.permission(id, frame, negated),
        }
    }

    fn permission(&mut self, id: PermissionId, frame: &Frame<'_>, negated: bool) -> Value {
        if self.is_exhausted() {
            return Value::LIMIT;
        }
        self.trace.enter(|| Step::Permission { permission: id, id: frame.id.clone() });
        let schema = self.schema;
        let value = self.expression(&schema.permission(id).expression, frame, negated);
        self.trace.leave(value);
        value
    }

    fn expression(&mut self, expression: &Expression, frame: &Frame<'_>, negated: bool) -> Value {
        match expression {
            Expression::Relation(id) => self.relation(*id, frame, negated),
            Expression::Permission(id) => self.permission(*id, frame, negated),
            Expression::Walk { edge, member } => self.walk(*edge, *member, frame, negated),
            Expression::Not(inner) => {
                self.trace.enter(|| Step::Not);
                let value = self.expression(inner, frame, true).negated();
                self.trace.leave(value);
                value
            }
            Expression::And(sides) => {
                self.trace.enter(|| Step::All);
                let mut all = All::default();
                for side in sides {
                    if all.is_settled() && !T::WHOLE {
                        break;
                    }
                    all.add(self.expression(side, frame, negated));
                }
                self.trace.leave(all.value());
                all.value()
            }
            Expression::Or(sides) => {
                self.trace.enter(|| Step::Any);
                let mut any = Any::default();
                for side in sides {
                    if any.is_settled() && !T::WHOLE {
                        break;
                    }
                    any.add(self.expression(side, frame, negated));
                }
                self.trace.leave(any.value());
                any.value()
            }
        }
    }

    /// Whether the subject is in the relation, or the flag is set.
    fn relation(&mut self, id: RelationId, frame: &Frame<'_>, negated: bool) -> Value {
        if self.is_exhausted() {
            return Value::LIMIT;
        }
        self.trace.enter(|| Step::Relation { relation: id, id: frame.id.clone() });
        if !self.schema.can_lead_to(id, self.subject) {
            self.trace.leave(Value::FALSE);
            return Value::FALSE;
        }
        let lookup = self.schema.relation(id).lookup;
        let value = match self.fact_in(lookup, frame) {
            None => Value::MISSING,
            Some(fact) => self.any_grant(id, fact, |this, grant| this.grantee(grant, frame, negated), negated),
        };
        self.trace.leave(value);
        value
    }

    /// Whether what is asked holds of a resource at the end of the edge.
    fn walk(&mut self, edge: RelationId, member: Member, frame: &Frame<'_>, negated: bool) -> Value {
        if self.is_exhausted() {
            return Value::LIMIT;
        }
        self.trace.enter(|| Step::Walk { edge, member, id: frame.id.clone() });
        let lookup = self.schema.relation(edge).lookup;
        let value = match self.fact_in(lookup, frame) {
            None => Value::MISSING,
            Some(fact) => {
                let there = |this: &mut Self, grant: &Grant| match &grant.grantee {
                    Grantee::Id(id) => match this.target(grant) {
                        Some(Target::Resource(kind)) => this.elsewhere(kind, id, member, frame, negated),
                        _ => Value::FALSE,
                    },
                    _ => Value::FALSE,
                };
                self.any_grant(edge, fact, there, negated)
            }
        };
        self.trace.leave(value);
        value
    }

    fn target(&self, grant: &Grant) -> Option<Target> {
        self.schema.relation(grant.relation).ids.as_ref()?.targets.get(usize::from(grant.target)).copied()
    }

    /// Unites what the documents of a fact say for a relation. `ask` finds out whether a grant leads to what is wanted.
    fn any_grant<'f>(
        &mut self,
        relation: RelationId,
        fact: &'f Fact,
        ask: impl Fn(&mut Self, &'f Grant) -> Value,
        negated: bool,
    ) -> Value {
        if fact.is_over_limit() {
            return Value::LIMIT_OF_FACT;
        }
        let grants = fact.grants(relation);
        // Looking through a long list is work too.
        self.nodes += grants.clone().count() / GRANTS_A_NODE;
        let mut any = Any::default();
        for grant in grants {
            if any.is_settled() && !T::WHOLE {
                break;
            }
            if grant.certainty == Certainty::Suspect && !negated {
                continue;
            }
            let asked = match &grant.grantee {
                Grantee::Flag => Value::granted(relation),
                Grantee::Unreadable => Value::MALFORMED,
                Grantee::Id(_) | Grantee::Everyone => ask(self, grant),
            };
            let value = asked.during(fact.window(grant), grant.certainty, self.now);
            self.trace.grant(grant, fact, value);
            any.add(value);
        }
        any.value()
    }

    /// Whether a grant's subject is the one who asks, or a set that it is in.
    fn grantee(&mut self, grant: &Grant, frame: &Frame<'_>, negated: bool) -> Value {
        let granted = Value::granted(grant.relation);
        let is_asker = |kind| matches!(self.subject, Subject::Known { kind: asker, .. } if *asker == kind);
        match (&grant.grantee, self.target(grant)) {
            (Grantee::Everyone, Some(Target::Subject(kind))) if is_asker(kind) => granted,
            (Grantee::Id(id), Some(Target::Subject(kind))) => match self.subject {
                Subject::Known { kind: asker, id: asker_id } if *asker == kind && asker_id == id => granted,
                _ => Value::FALSE,
            },
            (Grantee::Id(id), Some(Target::Set(kind, member))) => {
                self.elsewhere(kind, id, member, frame, negated).named(grant.relation)
            }
            _ => Value::FALSE,
        }
    }

    /// What is asked of another resource. An absent one grants nothing, a circle cuts itself off.
    fn elsewhere(&mut self, kind: ResourceTypeId, id: &Id, member: Member, outer: &Frame<'_>, negated: bool) -> Value {
        if self.is_exhausted() || outer.depth > DEPTH_MAX {
            return Value::LIMIT;
        }
        if let Some(depth) = outer.find(kind, id, member, negated) {
            return Value::cut(depth);
        }
        let remembers = self.nodes > MEMO_AFTER && !T::WHOLE;
        if remembers && let Some(value) = self.memo.get(&(kind, id.clone(), member, negated)) {
            return *value;
        }
        let own = self.own(kind, id);
        let frame = Frame { outer: Some(outer), own: own.fact(), depth: outer.depth + 1, kind, id, member, negated };
        let mut all = All::default();
        all.add(self.existence(kind, id, own, Reason::NoGrant));
        if !all.is_settled() {
            all.add(self.member(member, &frame, negated));
        }
        let value = all.value().left(frame.depth);
        if remembers && value.cut == NEVER_CUT {
            self.memo.insert((kind, id.clone(), member, negated), value);
        }
        value
    }
}
