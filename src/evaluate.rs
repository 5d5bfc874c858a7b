//! The evaluator: computes an answer from facts and a question. If the facts do not decide it yet, it reports the keys of
//! the facts that are missing (ARCHITECTURE.md, "A check"). It is pure, synchronous and deterministic.
//!
//! It does no I/O and reads no clock: the caller passes the time. It allocates only for missing keys and large trees, never
//! panics, and its work is bounded.

mod subject;
mod truth;
mod graph;
mod tree;

use std::collections::HashMap;

use graph::{Asked, Graph};
pub use subject::{OfSubject, SubjectValue, evaluate_subject};
pub use tree::{GRANTS_SHOWN, GrantSeen, Outcome, STEPS_MAX, Step, Tree, explain};
use truth::{All, Any, Truth, Value};

use crate::{
    fact::{Certainty, Fact, FactKey, Grant, Grantee},
    question::{Answer, Id, LookupId, Millis, PermissionId, Question, Reason, RelationId, ResourceTypeId, Subject},
    schema::{Expression, Member, Origin, Schema, Target},
};

/// The maximal depth of a check, in edges and sets one behind the other.
pub const DEPTH_MAX: usize = 32;

/// The maximal number of nodes of a check: relations, permissions and resources that it looks at.
pub const NODES_MAX: usize = 10_000;

/// How many grants of one relation count as one more node.
const GRANTS_A_NODE: usize = 64;

/// The number of nodes after which a check memoizes values, so that a resource that is reached twice is computed once. For
/// smaller checks a memo costs more than it saves.
const MEMO_AFTER: usize = 64;

/// The id by which the facts of structures are looked up.
static STRUCTURES: Id = FactKey::id_of_structures();

/// The facts that an evaluation can use.
pub trait AvailableFacts {
    /// The fact, whole or filtered to a subject, if it is available.
    fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&Fact>;
}

/// The result of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The available facts decide the question.
    Decided(Answer),
    /// They do not decide it. The keys of the missing facts were added to `missing`.
    Missing,
}

/// Answers a question from the available facts. If these do not suffice, it adds to `missing` the key of every fact that is
/// reachable now and could still decide the question. A key may be added more than once.
pub fn evaluate(
    schema: &Schema,
    question: &Question,
    facts: &impl AvailableFacts,
    now: Millis,
    missing: &mut Vec<FactKey>,
) -> Verdict {
    evaluate_in_time(schema, question, facts, now, missing).0
}

/// As [`evaluate`], with the time at which the clock alone may change the answer, also that of a denial; none if there is no such time.
pub fn evaluate_in_time(
    schema: &Schema,
    question: &Question,
    facts: &impl AvailableFacts,
    now: Millis,
    missing: &mut Vec<FactKey>,
) -> (Verdict, Option<Millis>) {
    let value = Evaluation::new(schema, &question.subject, facts, now, missing, tree::Untraced).question(question);
    (value.verdict(), value.may_change_at())
}

/// Receives the steps of an evaluation. [`tree::Untraced`] ignores them and costs nothing.
trait Trace {
    /// Whether the evaluation looks at all sides, including those that can no longer change the result.
    const WHOLE: bool;
    fn enter(&mut self, step: impl FnOnce() -> Step);
    fn grant(&mut self, grant: &Grant, fact: &Fact, value: Value);
    fn leave(&mut self, value: Value);
}

/// How an expression is negated.
#[derive(Clone, Copy)]
struct Under {
    /// Whether it stands under a `!`, here or further out. Then malformed documents that do not match count.
    negated: bool,
    /// The number of `!` between the outermost frame and the expression.
    crossings: usize,
}

impl Under {
    fn not(self) -> Self {
        Self { negated: true, crossings: self.crossings + 1 }
    }
}

/// One resource on the path from the question to the resource being evaluated. The frames form a list, innermost first.
struct Frame<'f> {
    outer: Option<&'f Frame<'f>>,
    /// The fact of the resource's own document, from which most of its relations are read.
    own: Option<(LookupId, &'f Fact)>,
    /// The number of frames, including this one.
    depth: usize,
    kind: ResourceTypeId,
    id: &'f Id,
    member: Member,
    under: Under,
}

impl<'f> Frame<'f> {
    /// The outermost frame.
    fn first(
        kind: ResourceTypeId,
        id: &'f Id,
        member: Member,
        own: Option<(LookupId, &'f Fact)>,
        negated: bool,
    ) -> Self {
        Self { outer: None, own, depth: 1, kind, id, member, under: Under { negated, crossings: 0 } }
    }

    /// The frame that is already evaluating the same member of the same resource, under a `!` or not, if there is one.
    fn open(&self, kind: ResourceTypeId, id: &Id, member: Member) -> Option<&Self> {
        let mut frame = Some(self);
        while let Some(at) = frame {
            if at.kind == kind && at.member == member && at.id == id {
                return Some(at);
            }
            frame = at.outer;
        }
        None
    }
}

/// The own document of a resource.
#[derive(Clone, Copy)]
enum Own<'a> {
    /// The resource's type has no collection.
    None,
    /// The fact is not available.
    Missing,
    /// The fact, which may say that there is no document.
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

/// How the existence of a resource is asked for.
#[derive(Clone, Copy)]
struct Existence {
    /// The reason of the denial if it does not exist.
    reason: Reason,
    /// Whether it stands under a `!`.
    negated: bool,
}

type MemoKey = (ResourceTypeId, Id, Member, bool);

/// The evaluation of one question.
struct Evaluation<'a, F, T> {
    schema: &'a Schema,
    facts: &'a F,
    subject: &'a Subject,
    now: Millis,
    missing: &'a mut Vec<FactKey>,
    /// The number of nodes so far.
    nodes: usize,
    /// Whether the depth or the work of a graph is over a limit.
    is_limited: bool,
    /// The values of members of resources, after [`MEMO_AFTER`] nodes. A key includes whether the member is under a `!`.
    memo: Option<HashMap<MemoKey, Value, foldhash::fast::RandomState>>,
    /// Whether recursion has met a cycle or the maximal depth. Then its values are of no use.
    is_abandoned: bool,
    /// The values of questions that depend on each other. If there are none, the evaluation recurses.
    graph: Option<Graph>,
    trace: T,
}

impl<'a, F: AvailableFacts, T: Trace> Evaluation<'a, F, T> {
    fn new(
        schema: &'a Schema,
        subject: &'a Subject,
        facts: &'a F,
        now: Millis,
        missing: &'a mut Vec<FactKey>,
        trace: T,
    ) -> Self {
        Self {
            schema,
            facts,
            subject,
            now,
            missing,
            nodes: 0,
            is_limited: false,
            memo: None,
            is_abandoned: false,
            graph: None,
            trace,
        }
    }

    /// The answer to a question.
    fn question(&mut self, question: &Question) -> Value {
        let before = self.missing.len();
        let value = self.permitted(question);
        // With the missing facts the same check may do less work, or find a shorter way, and so stay within its limits.
        let may_change = (self.is_limited || self.nodes > NODES_MAX) && self.missing.len() > before;
        match value.truth {
            Truth::False(_) | Truth::Unsure(_) if may_change => Value::MISSING,
            Truth::True(_) | Truth::False(_) | Truth::Unsure(_) | Truth::Missing => value,
        }
    }

    /// The conjunction of three values: the subject passes its gate, the resource exists, and the permission holds.
    fn permitted(&mut self, question: &Question) -> Value {
        let resource = &question.resource;
        let mut all = All::default();
        all.add(self.own_gate());
        if all.is_settled() && !T::WHOLE {
            return all.value();
        }
        let own = self.own(resource.kind, &resource.id);
        all.add(self.existence(
            resource.kind,
            &resource.id,
            own,
            Existence { reason: Reason::NotFound, negated: false },
        ));
        if !all.is_settled() || T::WHOLE {
            let member = Member::Permission(question.permission);
            let (kind, id) = (resource.kind, &resource.id);
            let frame = Frame::first(kind, id, member, own.fact(), false);
            let missing = self.missing.len();
            let mut value = self.permission(question.permission, &frame, frame.under);
            if self.is_abandoned && !T::WHOLE {
                self.missing.truncate(missing);
                value = self.solve(Asked { kind, id, member, negated: false });
            }
            all.add(value);
        }
        all.value()
    }

    /// The own document of a resource.
    fn own(&mut self, kind: ResourceTypeId, id: &Id) -> Own<'a> {
        let Some(lookup) = self.schema.resource(kind).document else { return Own::None };
        self.fact(lookup, id).map_or(Own::Missing, |fact| Own::Fact(lookup, fact))
    }

    /// Whether a resource exists: whether it has a document that fulfils the condition of its type.
    fn existence(&mut self, kind: ResourceTypeId, id: &Id, own: Own<'a>, asked: Existence) -> Value {
        let fact = match own {
            Own::Missing => return Value::MISSING,
            Own::None => return Value::TRUE,
            Own::Fact(_, fact) => fact,
        };
        let gate = self.schema.resource(kind).gate;
        if gate.is_none() && !fact.is_absent() {
            return Value::TRUE;
        }
        self.trace.enter(|| Step::Exists { kind, id: id.clone() });
        let value = match gate {
            Some(gate) => self.any_grant(gate, fact, |_, _| Value::FALSE, asked.negated).unnamed(),
            None => Value::FALSE,
        };
        let value = value.because(asked.reason);
        self.trace.leave(value);
        value
    }

    /// The false value of a member at the end of an edge that must lead to something: indeterminate unless the resource surely
    /// exists. Reports no missing fact and records no step: the resource has been asked for before.
    fn unless_absent(&self, kind: ResourceTypeId, id: &Id, value: Value) -> Value {
        let resource = self.schema.resource(kind);
        let Some(lookup) = resource.document else { return value };
        let Ok(fact) = self.available(lookup, id) else { return Value::MISSING };
        let is_sure = |gate| fact.grants(gate).any(|grant| grant.certainty == Certainty::Sure);
        if !fact.is_absent() && resource.gate.is_none_or(is_sure) { value } else { Value::MALFORMED }
    }

    /// The fact from which a relation of the frame's resource is read.
    fn fact_in<'f>(&mut self, lookup: LookupId, frame: &Frame<'f>) -> Option<&'f Fact>
    where
        'a: 'f,
    {
        match frame.own {
            Some((own, fact)) if own == lookup => Some(fact),
            Some(_) | None => self.fact(lookup, frame.id),
        }
    }

    /// The fact, if it is available. Otherwise its key is added to `missing`.
    fn fact(&mut self, lookup: LookupId, id: &Id) -> Option<&'a Fact> {
        let fact = self.available(lookup, id);
        // Both will be needed, and can be loaded at once.
        if fact.is_err()
            && let Some(structures) = self.schema.lookup(lookup).structures
        {
            self.missing.extend(self.available(structures, &STRUCTURES).err());
        }
        fact.map_err(|key| self.missing.push(key)).ok()
    }

    /// The fact, or the key of the missing one. If the whole fact is over its limit, this is the fact that is filtered to the
    /// subject.
    fn available(&self, lookup: LookupId, id: &Id) -> Result<&'a Fact, FactKey> {
        let whole = self.facts.get(lookup, id, None).ok_or_else(|| FactKey::whole(lookup, id.clone()))?;
        if !whole.is_over_limit() {
            return Ok(whole);
        }
        let filtered = self.facts.get(lookup, id, Some(self.subject));
        filtered.ok_or_else(|| FactKey::filtered(lookup, id.clone(), self.subject.clone()))
    }

    /// Counts a node, and returns whether there are more than [`NODES_MAX`]. Then its value is indeterminate.
    fn is_exhausted(&mut self) -> bool {
        self.nodes += 1;
        self.nodes > NODES_MAX
    }

    fn member(&mut self, member: Member, frame: &Frame<'_>, under: Under) -> Value {
        match member {
            Member::Relation(id) => self.relation(id, frame, under),
            Member::Permission(id) => self.permission(id, frame, under),
        }
    }

    fn permission(&mut self, id: PermissionId, frame: &Frame<'_>, under: Under) -> Value {
        if self.is_exhausted() {
            return Value::LIMIT;
        }
        self.trace.enter(|| Step::Permission { permission: id, id: frame.id.clone() });
        let schema = self.schema;
        let value = self.expression(&schema.permission(id).expression, frame, under);
        self.trace.leave(value);
        value
    }

    fn expression(&mut self, expression: &Expression, frame: &Frame<'_>, under: Under) -> Value {
        match expression {
            Expression::Relation(id) => self.relation(*id, frame, under),
            Expression::Permission(id) => self.permission(*id, frame, under),
            Expression::Walk { edge, member } => self.walk(*edge, *member, frame, under),
            Expression::SubjectFlag(flags) => self.subject_flag(flags, under.negated),
            Expression::Not(inner) => {
                self.trace.enter(|| Step::Not);
                let value = self.expression(inner, frame, under.not()).negated();
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
                    all.add(self.expression(side, frame, under));
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
                    any.add(self.expression(side, frame, under));
                }
                self.trace.leave(any.value());
                any.value()
            }
        }
    }

    /// Whether the subject is in the relation or, for a flag, whether it is set.
    fn relation(&mut self, id: RelationId, frame: &Frame<'_>, under: Under) -> Value {
        if self.is_exhausted() {
            return Value::LIMIT;
        }
        self.trace.enter(|| Step::Relation { relation: id, id: frame.id.clone() });
        if !self.schema.can_lead_to(id, self.subject, under.negated) {
            self.trace.leave(Value::FALSE);
            return Value::FALSE;
        }
        let schema = self.schema;
        let ask = |this: &mut Self, grant: &Grant| this.grantee(grant, frame, under);
        let value = match &schema.relation(id).origin {
            Origin::Subject(of) => self.of_subject(id, of, frame, under.negated),
            Origin::Documents(lookup) => match self.fact_in(*lookup, frame) {
                None => Value::MISSING,
                Some(fact) => self.any_grant(id, fact, ask, under.negated),
            },
        };
        self.trace.leave(value);
        value
    }

    /// Whether `member` holds for a resource at the end of the edge.
    fn walk(&mut self, edge: RelationId, member: Member, frame: &Frame<'_>, under: Under) -> Value {
        if self.is_exhausted() {
            return Value::LIMIT;
        }
        self.trace.enter(|| Step::Walk { edge, member, id: frame.id.clone() });
        let relation = self.schema.relation(edge);
        let must_exist = relation.ids.as_ref().is_some_and(|ids| ids.must_exist);
        let follow = |this: &mut Self, grant: &Grant| match (&grant.grantee, this.target(grant)) {
            (Grantee::Id(id), Some(Target::Resource(kind))) => {
                let value = this.elsewhere(kind, id, member, frame, under);
                match value.truth {
                    Truth::False(_) if must_exist => this.unless_absent(kind, id, value),
                    Truth::True(_) | Truth::False(_) | Truth::Unsure(_) | Truth::Missing => value,
                }
            }
            (Grantee::Id(_), Some(Target::Subject(_) | Target::Set(..)) | None)
            | (Grantee::Flag | Grantee::Everyone | Grantee::Unreadable | Grantee::Unknown(_) | Grantee::OverLimit, _) => {
                Value::FALSE
            }
        };
        let value = match relation.lookup().and_then(|lookup| self.fact_in(lookup, frame)) {
            None => Value::MISSING,
            Some(fact) => self.any_grant(edge, fact, follow, under.negated),
        };
        self.trace.leave(value);
        value
    }

    fn target(&self, grant: &Grant) -> Option<Target> {
        self.schema.relation(grant.relation).ids.as_ref()?.targets.get(usize::from(grant.target)).copied()
    }

    /// The disjunction of all grants that a fact has for a relation and, under a `!`, of the grants in documents that may name
    /// the same id inside a document or a nested array. `ask` computes the value of a grant to an id or to everyone.
    fn any_grant<'f>(
        &mut self,
        relation: RelationId,
        fact: &'f Fact,
        ask: impl Fn(&mut Self, &'f Grant) -> Value,
        negated: bool,
    ) -> Value
    where
        'a: 'f,
    {
        let value = self.any_grant_of(relation, fact, &ask, negated);
        let Some(lookup) = self.schema.structures(self.schema.relation(relation)) else { return value };
        let mut any = Any::default();
        any.add(value);
        if !any.is_settled() || T::WHOLE {
            any.add(match self.fact(lookup, &STRUCTURES) {
                None => Value::MISSING,
                Some(fact) => self.any_grant_of(relation, fact, ask, negated),
            });
        }
        any.value()
    }

    /// The disjunction of all grants that one fact has for a relation.
    fn any_grant_of<'f>(
        &mut self,
        relation: RelationId,
        fact: &'f Fact,
        ask: impl Fn(&mut Self, &'f Grant) -> Value,
        negated: bool,
    ) -> Value {
        if fact.is_over_limit() {
            return Value::LIMIT;
        }
        let grants = fact.grants(relation);
        // A long list of grants is work too, so it counts against the bound on nodes.
        if fact.parts().len() >= GRANTS_A_NODE {
            self.nodes += grants.clone().count() / GRANTS_A_NODE;
        }
        let mut any = Any::default();
        for grant in grants {
            if any.is_settled() && !T::WHOLE {
                break;
            }
            if grant.certainty == Certainty::Suspect && !negated {
                continue;
            }
            let granted = match &grant.grantee {
                Grantee::Flag => Value::granted(relation),
                Grantee::Unreadable | Grantee::Unknown(_) => Value::MALFORMED,
                Grantee::OverLimit => Value::LIMIT,
                Grantee::Id(_) | Grantee::Everyone => ask(self, grant),
            };
            let value = granted.during(fact.window(grant), grant.certainty, self.now);
            self.trace.grant(grant, fact, value);
            any.add(value);
        }
        any.value()
    }

    /// Whether a grant's grantee is the subject of the question, or a set that contains it.
    fn grantee(&mut self, grant: &Grant, frame: &Frame<'_>, under: Under) -> Value {
        let granted = Value::granted(grant.relation);
        match (&grant.grantee, self.target(grant)) {
            (Grantee::Everyone, Some(Target::Subject(kind))) => match self.subject {
                Subject::Known { kind: asker, .. } if *asker == kind => granted,
                Subject::Known { .. } | Subject::Anonymous => Value::FALSE,
            },
            (Grantee::Id(id), Some(Target::Subject(kind))) => match self.subject {
                Subject::Known { kind: asker, id: asker_id } if *asker == kind && asker_id == id => granted,
                Subject::Known { .. } | Subject::Anonymous => Value::FALSE,
            },
            (Grantee::Id(id), Some(Target::Set(kind, member))) => {
                self.elsewhere(kind, id, member, frame, under).named(grant.relation)
            }
            (Grantee::Everyone, Some(Target::Set(..) | Target::Resource(_)) | None)
            | (Grantee::Id(_), Some(Target::Resource(_)) | None)
            | (Grantee::Flag | Grantee::Unreadable | Grantee::Unknown(_) | Grantee::OverLimit, _) => Value::FALSE,
        }
    }

    /// The value of a member of another resource. A resource that does not exist grants nothing. If the data is no tree, an
    /// untraced evaluation is abandoned, and starts anew as a graph. A traced one cuts the cycle off: the question that comes
    /// back is false, or indeterminate if a `!` is in between.
    fn elsewhere(&mut self, kind: ResourceTypeId, id: &Id, member: Member, outer: &Frame<'_>, under: Under) -> Value {
        if let Some(graph) = &mut self.graph {
            return graph.value(Asked { kind, id, member, negated: under.negated }, under.crossings > 0);
        }
        if self.is_abandoned && !T::WHOLE {
            return Value::MISSING;
        }
        if self.is_exhausted() {
            return Value::LIMIT;
        }
        let open = outer.open(kind, id, member);
        if open.is_some() || outer.depth > DEPTH_MAX {
            self.is_abandoned = true;
            return match open {
                _ if !T::WHOLE => Value::MISSING,
                None => Value::LIMIT,
                Some(open) if open.under.crossings == under.crossings => Value::FALSE,
                Some(_) => Value::CYCLE,
            };
        }
        let negated = under.negated;
        let is_memoizing = self.nodes > MEMO_AFTER && !T::WHOLE;
        if is_memoizing
            && let Some(memo) = &self.memo
            && let Some(value) = memo.get(&(kind, id.clone(), member, negated))
        {
            return *value;
        }
        let own = self.own(kind, id);
        let frame = Frame { outer: Some(outer), own: own.fact(), depth: outer.depth + 1, kind, id, member, under };
        let mut all = All::default();
        all.add(self.existence(kind, id, own, Existence { reason: Reason::NoGrant, negated }));
        if !all.is_settled() {
            all.add(self.member(member, &frame, under));
        }
        if is_memoizing && !self.is_abandoned {
            self.memo.get_or_insert_default().insert((kind, id.clone(), member, negated), all.value());
        }
        all.value()
    }
}
