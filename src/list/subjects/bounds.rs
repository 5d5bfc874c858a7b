//! What is known of a permission for all subjects of a type at once: whether it holds for every one of them, and whether it may hold
//! for one that no fact names.
//!
//! Bounds of the values that the evaluator computes for single subjects. They err to the safe side: what is known is true, and
//! not everything that is true is known. Members that depend on each other are computed together, by iteration (as the
//! evaluator's `graph` does, after Przymusinski's three-valued iteration).

use super::{
    grants::{End, EndCertainty, Granted},
    graph::{Existence, Graph, Node},
};
use crate::{
    check::Slice,
    evaluate::NODES_MAX,
    question::RelationId,
    schema::{Expression, Member, Origin, Schema},
};

/// How many parts of expressions and ends one computation looks at.
const WORK_MAX: usize = 5_000_000;

/// How many times both sides are computed at most, each from what the other side has become.
const ROUNDS_MAX: usize = 8;

/// How many grants of one relation are as much work for the evaluator as one more node.
const GRANTS_A_NODE: usize = 64;

/// What is known of an expression on one resource, for the subjects of one type. Each is false if it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub(super) struct Bounds {
    /// Whether it surely holds for every subject.
    pub(super) holds_for_all: bool,
    /// Whether it surely fails for no subject: for each it holds or is indeterminate.
    fails_for_none: bool,
    /// Whether it may hold for a subject that is neither named nor led here by its own documents.
    pub(super) may_hold_for_unnamed: bool,
    /// Whether it may hold or be indeterminate for some subject.
    pub(super) may_not_fail: bool,
}

impl Bounds {
    /// It fails for every subject.
    const FAILS: Self =
        Self { holds_for_all: false, fails_for_none: false, may_hold_for_unnamed: false, may_not_fail: false };
    /// It holds for every subject.
    const HOLDS: Self =
        Self { holds_for_all: true, fails_for_none: true, may_hold_for_unnamed: true, may_not_fail: true };
    /// It is indeterminate for every subject.
    const INDETERMINATE: Self = Self { fails_for_none: true, may_not_fail: true, ..Self::FAILS };
    /// Nobody knows.
    const UNKNOWN: Self = Self { may_hold_for_unnamed: true, may_not_fail: true, ..Self::FAILS };
    /// It holds only for subjects that are named or led here by their own documents, or that belong to a set which is not expanded.
    const FOR_NAMED: Self = Self { may_not_fail: true, ..Self::FAILS };

    fn or(self, other: Self) -> Self {
        Self {
            holds_for_all: self.holds_for_all || other.holds_for_all,
            fails_for_none: self.fails_for_none || other.fails_for_none,
            may_hold_for_unnamed: self.may_hold_for_unnamed || other.may_hold_for_unnamed,
            may_not_fail: self.may_not_fail || other.may_not_fail,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            holds_for_all: self.holds_for_all && other.holds_for_all,
            fails_for_none: self.fails_for_none && other.fails_for_none,
            may_hold_for_unnamed: self.may_hold_for_unnamed && other.may_hold_for_unnamed,
            may_not_fail: self.may_not_fail && other.may_not_fail,
        }
    }

    fn not(self) -> Self {
        Self {
            holds_for_all: !self.may_not_fail,
            fails_for_none: !self.may_not_fail,
            may_hold_for_unnamed: !self.fails_for_none,
            may_not_fail: !self.holds_for_all,
        }
    }

    /// The same of a grant whose document cannot be relied on: what holds is indeterminate.
    fn doubtful(self) -> Self {
        Self { holds_for_all: false, may_hold_for_unnamed: false, ..self }
    }

    /// The same of a grant of which nobody knows whether it counts.
    fn possible(self) -> Self {
        Self { holds_for_all: false, fails_for_none: false, ..self }
    }
}

/// The bounds of each node of a graph.
pub(super) struct AllBounds<'g, 's> {
    graph: &'g Graph<'s>,
    values: Vec<Bounds>,
    /// How many parts of expressions and how many ends were looked at in the last round.
    work: usize,
    /// How many grants the evaluator looks at in such a round, each as often as it comes to its relation.
    grants: usize,
}

/// Which of the bounds are computed. The others stay the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// What may be: from what is surely so under a `!`.
    Upper,
    /// What is surely so: from what may be under a `!`.
    Lower,
}

impl<'g, 's> AllBounds<'g, 's> {
    /// Computes the bounds of each node.
    pub(super) async fn of(graph: &'g Graph<'s>) -> Self {
        let mut all = Self { graph, values: vec![Bounds::FAILS; graph.nodes.len()], work: 0, grants: 0 };
        for _ in 0..ROUNDS_MAX {
            let before = all.values.clone();
            all.compute(Side::Upper).await;
            all.compute(Side::Lower).await;
            if all.values == before {
                break;
            }
        }
        all
    }

    /// The bounds of the first node.
    pub(super) fn first(&self) -> Bounds {
        self.values.first().copied().unwrap_or_default()
    }

    /// Whether the evaluator surely comes to a value for the first node without exceeding its limits, whoever the subject is.
    pub(super) fn is_within_limits(&self) -> bool {
        self.work + self.grants / GRANTS_A_NODE <= NODES_MAX / 4
    }

    /// Computes one side of all bounds, from none.
    async fn compute(&mut self, side: Side) {
        for value in &mut self.values {
            *value = match side {
                Side::Upper => Bounds { may_hold_for_unnamed: false, may_not_fail: false, ..*value },
                Side::Lower => Bounds { holds_for_all: false, fails_for_none: false, ..*value },
            };
        }
        let (mut total, mut slice, mut is_changed) = (0_usize, Slice::begin(), true);
        while is_changed {
            (is_changed, self.work, self.grants) = (false, 0, 0);
            // The farthest come first, because values flow towards the first one.
            for place in (0..self.values.len()).rev() {
                let new = self.node(place);
                if let Some(value) = self.values.get_mut(place) {
                    let before = *value;
                    *value = match side {
                        Side::Upper => {
                            Bounds { holds_for_all: before.holds_for_all, fails_for_none: before.fails_for_none, ..new }
                        }
                        Side::Lower => Bounds {
                            may_hold_for_unnamed: before.may_hold_for_unnamed,
                            may_not_fail: before.may_not_fail,
                            ..new
                        },
                    };
                    is_changed |= *value != before;
                }
                slice.pause_if_over().await;
            }
            total = total.saturating_add(self.work);
            if is_changed && total > WORK_MAX {
                self.give_up(side);
                return;
            }
        }
    }

    /// Keeps what is safe although not everything was computed.
    fn give_up(&mut self, side: Side) {
        match side {
            Side::Upper => {
                for value in &mut self.values {
                    *value = value.or(Bounds::UNKNOWN);
                }
            }
            // What is surely so from some of the values is surely so.
            Side::Lower => {}
        }
    }

    fn node(&mut self, place: usize) -> Bounds {
        let Some(Node { resource, member }) = self.graph.nodes.get(place).copied() else { return Bounds::FOR_NAMED };
        let existence = match self.graph.existence(resource) {
            Some(Existence::Exists) => Bounds::HOLDS,
            Some(Existence::Absent) => return Bounds::FAILS,
            Some(Existence::Indeterminate) => Bounds::INDETERMINATE,
            Some(Existence::Unknown) | None => Bounds::UNKNOWN,
        };
        let value = match member {
            Member::Relation(id) => self.relation(resource, id),
            Member::Permission(id) => self.expression(resource, &self.graph.schema.permission(id).expression),
        };
        existence.and(value)
    }

    /// What is known of an expression on the resource at a place.
    pub(super) fn expression(&mut self, resource: usize, expression: &Expression) -> Bounds {
        self.work += 1;
        let schema: &'s Schema = self.graph.schema;
        match expression {
            Expression::Relation(id) => self.relation(resource, *id),
            Expression::Permission(id) => self.expression(resource, &schema.permission(*id).expression),
            Expression::Walk { edge, member } => self.walk(resource, *edge, *member),
            Expression::SubjectFlag(flags) => match self.graph.own_flag(flags) {
                Some(_) => Bounds::FOR_NAMED,
                None => Bounds::FAILS,
            },
            Expression::Not(inner) => self.expression(resource, inner).not(),
            Expression::And(sides) => {
                sides.iter().fold(Bounds::HOLDS, |all, side| all.and(self.expression(resource, side)))
            }
            Expression::Or(sides) => {
                sides.iter().fold(Bounds::FAILS, |any, side| any.or(self.expression(resource, side)))
            }
        }
    }

    fn relation(&mut self, resource: usize, id: RelationId) -> Bounds {
        self.work += 1;
        let graph = self.graph;
        match &graph.schema.relation(id).origin {
            Origin::Subject(of) => match graph.own_relations(of).next() {
                Some(_) => Bounds::FOR_NAMED,
                None => Bounds::FAILS,
            },
            Origin::Documents(_) => {
                let Some(granted) = graph.granted(resource, id) else { return Bounds::FAILS };
                self.grants += granted.grants;
                let own = of_granted(graph.schema, id, granted);
                granted.ends.iter().fold(own, |any, end| any.or(self.end(*end, None)))
            }
        }
    }

    fn walk(&mut self, resource: usize, edge: RelationId, member: Member) -> Bounds {
        self.work += 1;
        let graph = self.graph;
        let Some(granted) = graph.granted(resource, edge) else { return Bounds::FAILS };
        self.grants += granted.grants;
        let must_exist = graph.schema.relation(edge).ids.as_ref().is_some_and(|ids| ids.must_exist);
        let own = of_granted(graph.schema, edge, granted);
        granted.ends.iter().fold(own, |any, end| {
            let value = self.end(*end, Some(member));
            // That it fails is indeterminate unless the resource surely exists.
            let is_doubtful = must_exist && graph.existence(end.resource) != Some(Existence::Exists);
            any.or(value).or(if is_doubtful { Bounds::FOR_NAMED } else { Bounds::FAILS })
        })
    }

    fn end(&mut self, end: End, member: Option<Member>) -> Bounds {
        self.work += 1;
        let node = Graph::end(end, member).and_then(|node| self.graph.node(node));
        // One that was not discovered is returned as a set.
        let value = node.and_then(|place| self.values.get(place)).copied().unwrap_or(Bounds::FOR_NAMED);
        match end.certainty {
            EndCertainty::Sure => value,
            EndCertainty::Doubtful => value.doubtful(),
            EndCertainty::Unknown => value.possible(),
        }
    }
}

/// What a relation grants without the sets and resources that it leads to.
fn of_granted(schema: &Schema, relation: RelationId, granted: &Granted) -> Bounds {
    // Those who belong to a large relation are returned as a set, except if the relation is a flag.
    let is_flag = schema.relation(relation).ids.is_none();
    Bounds {
        holds_for_all: granted.is_for_all,
        fails_for_none: granted.fails_for_none,
        may_hold_for_unnamed: granted.is_for_all || granted.may_be_for_all || granted.is_large && is_flag,
        may_not_fail: granted.may_not_fail,
    }
}
