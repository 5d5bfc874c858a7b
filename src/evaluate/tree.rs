//! Explains an answer: the same evaluation, recorded as a tree of steps. It looks at every side, and records every grant
//! with its outcome.
//!
//! The tree is data. The transport and the command line decide how to show it.

use super::{
    AvailableFacts, Evaluation, NODES_MAX, Trace,
    truth::{Truth, Value},
};
use crate::{
    fact::{DocumentId, Fact, FactKey, Grant, Window},
    question::{Id, Millis, PermissionId, Question, Reason, RelationId, ResourceTypeId},
    schema::{Member, Schema},
};

/// One step of an evaluation, with the steps inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// What the evaluator looked at.
    pub step: Step,
    /// The result of the step.
    pub outcome: Outcome,
    /// The grants that a relation, an edge or a gate found in documents. The grants that matter come first: at most
    /// [`GRANTS_SHOWN`] of them, and as many others.
    pub grants: Vec<GrantSeen>,
    /// The number of all grants, including those that are not in `grants`.
    pub grants_total: usize,
    /// The steps inside.
    pub children: Vec<Tree>,
}

impl Tree {
    fn new(step: Step) -> Self {
        Self { step, outcome: Outcome::Missing, grants: Vec::new(), grants_total: 0, children: Vec::new() }
    }
}

/// The maximal number of steps of a tree. It is one more than anything shows, so that a reader can see that there are more.
pub const STEPS_MAX: usize = 2_001;

/// The maximal number of grants of one step that matter, and likewise of the others. A grant matters unless its outcome is
/// `NO_GRANT`.
pub const GRANTS_SHOWN: usize = 20;

/// What the evaluator looks at in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The whole question.
    Question,
    /// The own document of the subject.
    Gate {
        /// The gate of the subject's type.
        relation: RelationId,
        /// The subject.
        id: Id,
    },
    /// The own document of a resource. The step is recorded only if the resource does not exist, or if its type has a
    /// condition.
    Exists {
        /// Its type.
        kind: ResourceTypeId,
        /// Its id.
        id: Id,
    },
    /// A permission of a resource.
    Permission {
        /// The permission.
        permission: PermissionId,
        /// The resource.
        id: Id,
    },
    /// A relation of a resource or of the subject.
    Relation {
        /// The relation.
        relation: RelationId,
        /// The resource or the subject.
        id: Id,
    },
    /// A flag that subjects of other types have, but the asking subject's type has not.
    SubjectFlag {
        /// The relations of that name, one for each type that has it.
        flags: Box<[RelationId]>,
    },
    /// A member of the resources at the end of an edge.
    Walk {
        /// The edge.
        edge: RelationId,
        /// The member.
        member: Member,
        /// The resource at which the edge starts.
        id: Id,
    },
    /// A `!`.
    Not,
    /// An `&`.
    All,
    /// An `|`.
    Any,
}

/// The result of a step or a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Holds {
        /// The time at which the clock alone will end it.
        until: Option<Millis>,
    },
    /// It does not hold.
    Fails(Reason),
    /// It is indeterminate.
    Indeterminate(Reason),
    /// A fact is missing, for the result or for its reason.
    Missing,
}

impl From<Value> for Outcome {
    fn from(value: Value) -> Self {
        match value.truth {
            Truth::True(_) => Self::Holds { until: Some(value.until).filter(|until| *until != Millis::MAX) },
            Truth::False(Some(reason)) => Self::Fails(reason),
            Truth::Unsure(reason) => Self::Indeterminate(reason),
            Truth::False(None) | Truth::Missing => Self::Missing,
        }
    }
}

/// One grant that the evaluator looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantSeen {
    /// The grant.
    pub grant: Grant,
    /// The document that contains it.
    pub document: DocumentId,
    /// The time in which it holds.
    pub window: Window,
    /// The result for this question.
    pub outcome: Outcome,
}

/// Evaluates a question completely: it skips no side because another one has decided. It adds the keys of missing facts to
/// `missing`. The tree is complete if it added none.
pub fn explain(
    schema: &Schema,
    question: &Question,
    facts: &impl AvailableFacts,
    now: Millis,
    missing: &mut Vec<FactKey>,
) -> Tree {
    let trace = Traced { open: vec![Tree::new(Step::Question)], steps: 1, hidden: 0 };
    let mut evaluation = Evaluation::new(schema, &question.subject, facts, now, missing, trace);
    let mut value = evaluation.question(question);
    let trace = evaluation.trace;
    // The tree of a large graph is incomplete, but its result is the answer's.
    if evaluation.is_abandoned || evaluation.nodes > NODES_MAX {
        value = Evaluation::new(schema, &question.subject, facts, now, missing, Untraced).question(question);
    }
    trace.close(value)
}

/// Records nothing.
pub(super) struct Untraced;

impl Trace for Untraced {
    const WHOLE: bool = false;
    fn enter(&mut self, _: impl FnOnce() -> Step) {}
    fn grant(&mut self, _: &Grant, _: &Fact, _: Value) {}
    fn leave(&mut self, _: Value) {}
}

/// Builds the tree.
struct Traced {
    /// The steps that are open, outermost first.
    open: Vec<Tree>,
    /// The number of all steps so far.
    steps: usize,
    /// The number of open steps that are beyond [`STEPS_MAX`] and so not in the tree.
    hidden: usize,
}

impl Traced {
    fn close(mut self, value: Value) -> Tree {
        while self.open.len() > 1 {
            self.leave(value);
        }
        let root = self.open.pop();
        let outcome = Outcome::from(value);
        root.map_or_else(|| Tree { outcome, ..Tree::new(Step::Question) }, |root| Tree { outcome, ..root })
    }
}

impl Trace for Traced {
    const WHOLE: bool = true;

    fn enter(&mut self, step: impl FnOnce() -> Step) {
        self.steps += 1;
        if self.hidden > 0 || self.steps > STEPS_MAX {
            self.hidden += 1;
            return;
        }
        self.open.push(Tree::new(step()));
    }

    fn grant(&mut self, grant: &Grant, fact: &Fact, value: Value) {
        let Some(tree) = self.open.last_mut().filter(|_| self.hidden == 0) else { return };
        tree.grants_total += 1;
        let is_without_effect = |outcome: Outcome| outcome == Outcome::Fails(Reason::NoGrant);
        let outcome = Outcome::from(value);
        let is_other = is_without_effect(outcome);
        let others = tree.grants.iter().rev().take_while(|seen| is_without_effect(seen.outcome)).count();
        let first = tree.grants.len() - others;
        if (if is_other { others } else { first }) < GRANTS_SHOWN {
            let place = if is_other { tree.grants.len() } else { first };
            let (document, window) = (fact.document_of(grant), fact.window(grant));
            tree.grants.insert(place, GrantSeen { grant: grant.clone(), document, window, outcome });
        }
    }

    fn leave(&mut self, value: Value) {
        if self.hidden > 0 {
            self.hidden -= 1;
            return;
        }
        let Some(mut tree) = self.open.pop() else { return };
        tree.outcome = value.into();
        match self.open.last_mut() {
            Some(parent) => parent.children.push(tree),
            None => self.open.push(tree),
        }
    }
}
