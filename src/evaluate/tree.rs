//! The same evaluation, watched: every side looked at, every grant with what came of it.
//!
//! The tree is data; how it is shown is up to the transport and the command line.

use super::{AvailableFacts, Evaluation, Trace, Truth, Value};
use crate::{
    fact::{DocumentId, Fact, FactKey, Grant, Window},
    question::{Id, Millis, PermissionId, Question, Reason, RelationId, ResourceTypeId},
    schema::{Member, Schema},
};

/// One step of an evaluation, with all that it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// What was looked at.
    pub step: Step,
    /// What came of it.
    pub outcome: Outcome,
    /// For a relation, an edge or a gate: what the documents say. Those that come to something first, at most
    /// [`GRANTS_SHOWN`] of them and as many others.
    pub grants: Vec<GrantSeen>,
    /// How many grants there were.
    pub grants_total: usize,
    /// The steps inside.
    pub children: Vec<Tree>,
}

impl Tree {
    fn new(step: Step) -> Self {
        Self { step, outcome: Outcome::Missing, grants: Vec::new(), grants_total: 0, children: Vec::new() }
    }
}

/// How many steps a tree has at most: one more than is shown anywhere, to tell that there are more.
pub const STEPS_MAX: usize = 2_001;

/// How many grants of one step that come to something are shown at most, and how many of the others.
pub const GRANTS_SHOWN: usize = 20;

/// What an evaluation looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The whole question.
    Question,
    /// The subject's own document.
    Gate {
        /// The gate of the subject's type.
        relation: RelationId,
        /// The subject.
        id: Id,
    },
    /// A resource that has no document.
    Absent {
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
    /// A relation of a resource.
    Relation {
        /// The relation.
        relation: RelationId,
        /// The resource.
        id: Id,
    },
    /// What is asked at the end of an edge.
    Walk {
        /// The edge.
        edge: RelationId,
        /// What is asked there.
        member: Member,
        /// The resource that it starts from.
        id: Id,
    },
    /// A `!`.
    Not,
    /// An `&`.
    All,
    /// An `|`.
    Any,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Holds {
        /// When the clock alone will end it.
        until: Option<Millis>,
    },
    /// It does not.
    Fails(Reason),
    /// It is indeterminate.
    Indeterminate(Reason),
    /// A fact is missing.
    Missing,
}

impl From<Value> for Outcome {
    fn from(value: Value) -> Self {
        match value.truth {
            Truth::True(_) => Self::Holds { until: Some(value.until).filter(|until| *until != Millis::MAX) },
            Truth::False(reason) => Self::Fails(reason),
            Truth::Unsure(reason) => Self::Indeterminate(reason),
            Truth::Missing => Self::Missing,
        }
    }
}

/// One grant that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantSeen {
    /// What the document says.
    pub grant: Grant,
    /// The document that says so.
    pub document: DocumentId,
    /// When it holds.
    pub window: Window,
    /// What came of it.
    pub outcome: Outcome,
}

/// Evaluates a question whole: no side is left out because another has decided. Facts that are missing for that are added
/// to `missing`; the tree is complete when there are none.
pub fn explain(
    schema: &Schema,
    question: &Question,
    facts: &impl AvailableFacts,
    now: Millis,
    missing: &mut Vec<FactKey>,
) -> Tree {
    let traced = Traced { open: vec![Tree::new(Step::Question)], steps: 1, hidden: 0 };
    let mut evaluation = Evaluation::new(schema, question, facts, now, missing, traced);
    let value = evaluation.question(question);
    evaluation.trace.close(value)
}

/// Watches nothing.
pub(super) struct Untraced;

impl Trace for Untraced {
    const WHOLE: bool = false;
    fn enter(&mut self, _: impl FnOnce() -> Step) {}
    fn grant(&mut self, _: &Grant, _: &Fact, _: Value) {}
    fn leave(&mut self, _: Value) {}
}

/// Builds the tree: the steps that are open, outermost first.
struct Traced {
    open: Vec<Tree>,
    /// How many steps there are.
    steps: usize,
    /// How many steps are open that are not shown.
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
        let comes_to_nothing = |outcome: Outcome| outcome == Outcome::Fails(Reason::NoGrant);
        let outcome = Outcome::from(value);
        let is_other = comes_to_nothing(outcome);
        let others = tree.grants.iter().rev().take_while(|seen| comes_to_nothing(seen.outcome)).count();
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
