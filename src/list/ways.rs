//! The ways that lead from a subject to the resources on which a permission may hold: from what names the subject, through sets and
//! edges.
//!
//! Reads no fact. The ways lead to more resources than the permission holds on, never to fewer: of an `&`, the side that is
//! cheapest to follow; of a `!`, none, unless it is known what it says of the subject.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::filter::{FlagValue, IdSet};
use crate::{
    question::{PermissionId, RelationId, ResourceTypeId, Subject},
    schema::{Expression, Member, Origin, Schema, Target},
};

/// What is known about the flags of the subject.
pub(super) type Flags = HashMap<RelationId, FlagValue>;

/// One way to resources of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// To those that the relation leads to the subject from.
    Subject(RelationId),
    /// To those that the relation or edge leads from, to a resource of another set.
    Through(RelationId, usize),
    /// To those that a relation of the subject leads to.
    OfSubject(RelationId),
    /// To those that have a flag.
    Flag(RelationId),
    /// To the same resources as another set of their type.
    Same(usize),
}

/// How much it costs to find the resources of a set, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    /// There are none.
    Nothing,
    /// They are in a fact of the subject.
    OfSubject,
    /// They are in reverse lookups of the subject's id.
    Subject,
    /// They are found through other resources.
    Through,
    /// They are listed each time.
    Listed,
    /// Nothing narrows them down.
    Everything,
}

/// A set of resources, and how its candidates are found.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) set: IdSet,
    pub(super) ways: Vec<Way>,
    /// Whether the ways of another set that is used, or the caller, ask for this set.
    pub(super) is_used: bool,
    cost: Cost,
}

/// The sets that a list asks for, and those that lead to them.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) nodes: Vec<Node>,
    /// The places of the sets that were asked for, in their order.
    pub(super) roots: Vec<usize>,
}

impl Ways {
    /// Finds the ways to these sets for a subject whose flags are known.
    pub(super) fn new(schema: &Schema, subject: &Subject, flags: &Flags, sets: &[IdSet]) -> Self {
        let (sets, roots) = discover(schema, sets);
        let places = (0..).zip(&sets).map(|(place, set)| (*set, place)).collect();
        let constants = HashMap::new();
        let mut finder = Finder { schema, subject, flags, places, costs: vec![Cost::Nothing; sets.len()], constants };
        loop {
            let costs: Vec<Cost> = sets.iter().map(|set| finder.reach_set(*set).cost).collect();
            if costs == finder.costs {
                break;
            }
            finder.costs = costs;
        }
        let nodes = sets.iter().map(|set| {
            let Reach { cost, ways } = finder.reach_set(*set);
            Node { set: *set, ways, is_used: false, cost }
        });
        let mut ways = Self { nodes: nodes.collect(), roots };
        ways.mark_used();
        ways
    }

    /// Whether nothing narrows down the resources of a set.
    pub(super) fn is_everything(&self, place: usize) -> bool {
        self.nodes.get(place).is_none_or(|node| node.cost == Cost::Everything)
    }

    /// The places of the sets to which others lead that are the same resources.
    pub(super) fn users_of(&self, place: usize) -> impl Iterator<Item = usize> {
        let is_user = move |node: &Node| node.is_used && node.ways.contains(&Way::Same(place));
        (0..).zip(&self.nodes).filter(move |(_, node)| is_user(node)).map(|(user, _)| user)
    }

    /// For each set, whether no other resources are found through it, so that only whoever asks for the sets uses its candidates.
    pub(super) fn dead_ends(&self) -> Vec<bool> {
        let used = || self.nodes.iter().filter(|node| node.is_used).flat_map(|node| &node.ways);
        let mut are_passed = vec![false; self.nodes.len()];
        let mut todo: Vec<usize> = used()
            .filter_map(|way| match way {
                Way::Through(_, place) => Some(*place),
                Way::Subject(_) | Way::OfSubject(_) | Way::Flag(_) | Way::Same(_) => None,
            })
            .collect();
        while let Some(place) = todo.pop() {
            if let Some(is_passed) = are_passed.get_mut(place).filter(|is_passed| !**is_passed) {
                *is_passed = true;
                todo.extend(self.sames_in(place));
            }
        }
        are_passed.into_iter().map(|is_passed| !is_passed).collect()
    }

    /// The set, and all whose resources are some of its resources.
    pub(super) fn same_as(&self, place: usize) -> BTreeSet<usize> {
        let (mut all, mut todo) = (BTreeSet::new(), vec![place]);
        while let Some(place) = todo.pop() {
            if all.insert(place) {
                todo.extend(self.sames_in(place));
            }
        }
        all
    }

    /// The sets to which the ways of one lead on the same resources.
    fn sames_in(&self, place: usize) -> impl Iterator<Item = usize> {
        let ways = self.nodes.get(place).into_iter().flat_map(|node| &node.ways);
        ways.filter_map(|way| match way {
            Way::Same(place) => Some(*place),
            Way::Subject(_) | Way::OfSubject(_) | Way::Flag(_) | Way::Through(..) => None,
        })
    }

    fn mark_used(&mut self) {
        let mut todo: Vec<usize> = self.roots.iter().copied().filter(|root| !self.is_everything(*root)).collect();
        while let Some(place) = todo.pop() {
            let Some(node) = self.nodes.get_mut(place).filter(|node| !node.is_used) else { continue };
            node.is_used = true;
            todo.extend(node.ways.iter().filter_map(|way| match way {
                Way::Through(_, place) | Way::Same(place) => Some(*place),
                Way::Subject(_) | Way::OfSubject(_) | Way::Flag(_) => None,
            }));
        }
    }
}

/// The flags of the subject that the ways to these sets depend on.
pub(super) fn flags(schema: &Schema, subject: &Subject, sets: &[IdSet]) -> Vec<RelationId> {
    let mut found = Vec::new();
    for set in discover(schema, sets).0 {
        visit_set(schema, set, &mut |expression| {
            if let Expression::SubjectFlag(flags) = expression {
                found.extend(flags.iter().copied().filter(|flag| schema.is_of_subject(*flag, subject)));
            }
        });
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The sets to which relations and edges of the resource's own document lead: a query finds resources by a field that contains their ids.
pub(super) fn sets_in_fields(schema: &Schema, kind: ResourceTypeId, permission: PermissionId) -> HashSet<IdSet> {
    let own = schema.resource(kind).document;
    let is_own = |relation: RelationId| schema.relation(relation).lookup() == own;
    let (mut seen, mut found) = (HashSet::new(), HashSet::new());
    let mut todo = vec![permission];
    while let Some(permission) = todo.pop() {
        if !seen.insert(permission) {
            continue;
        }
        visit_parts(&schema.permission(permission).expression, &mut |expression| match expression {
            Expression::Permission(id) => todo.push(*id),
            Expression::Walk { edge, member } if is_own(*edge) => {
                found.extend(ends(schema, *edge).into_iter().map(|end| IdSet::of(end, *member)));
            }
            Expression::Relation(id) if is_own(*id) => found.extend(sets_of(schema, *id)),
            Expression::Walk { .. }
            | Expression::Relation(_)
            | Expression::SubjectFlag(_)
            | Expression::Not(_)
            | Expression::And(_)
            | Expression::Or(_) => {}
        });
    }
    found
}

/// All sets that these may lead to, and the places of these among them.
fn discover(schema: &Schema, sets: &[IdSet]) -> (Vec<IdSet>, Vec<usize>) {
    let (mut all, mut places): (Vec<IdSet>, HashMap<IdSet, usize>) = (Vec::new(), HashMap::new());
    let mut add = |all: &mut Vec<IdSet>, set: IdSet| {
        *places.entry(set).or_insert_with(|| {
            all.push(set);
            all.len() - 1
        })
    };
    let roots = sets.iter().map(|set| add(&mut all, *set)).collect();
    let mut next = 0;
    while let Some(set) = all.get(next).copied() {
        next += 1;
        let mut more = Vec::new();
        visit_set(schema, set, &mut |expression| match expression {
            Expression::Permission(id) => more.push(IdSet::of(set.kind, Member::Permission(*id))),
            Expression::Walk { edge, member } => {
                more.extend(ends(schema, *edge).into_iter().map(|kind| IdSet::of(kind, *member)));
            }
            Expression::Relation(id) => more.extend(sets_of(schema, *id)),
            Expression::SubjectFlag(_) | Expression::Not(_) | Expression::And(_) | Expression::Or(_) => {}
        });
        for set in more {
            add(&mut all, set);
        }
    }
    (all, roots)
}

/// The types at the end of an edge.
fn ends(schema: &Schema, edge: RelationId) -> Vec<ResourceTypeId> {
    let targets = schema.relation(edge).ids.iter().flat_map(|ids| &ids.targets);
    let ends = targets.filter_map(|target| match target {
        Target::Resource(kind) => Some(*kind),
        Target::Subject(_) | Target::Set(..) => None,
    });
    ends.collect()
}

/// The sets of subjects that a relation leads to.
fn sets_of(schema: &Schema, relation: RelationId) -> Vec<IdSet> {
    let targets = schema.relation(relation).ids.iter().flat_map(|ids| &ids.targets);
    let sets = targets.filter_map(|target| match target {
        Target::Set(kind, member) => Some(IdSet::of(*kind, *member)),
        Target::Subject(_) | Target::Resource(_) => None,
    });
    sets.collect()
}

/// Visits each part of what a set means.
fn visit_set(schema: &Schema, set: IdSet, visit: &mut impl FnMut(&Expression)) {
    with_meaning(schema, set, |meaning| visit_parts(meaning, visit));
}

fn visit_parts(expression: &Expression, visit: &mut impl FnMut(&Expression)) {
    visit(expression);
    match expression {
        Expression::Not(inner) => visit_parts(inner, visit),
        Expression::And(sides) | Expression::Or(sides) => sides.iter().for_each(|side| visit_parts(side, visit)),
        Expression::Relation(_) | Expression::Permission(_) | Expression::Walk { .. } | Expression::SubjectFlag(_) => {}
    }
}

/// What a set means, as an expression on its type.
fn with_meaning<T>(schema: &Schema, set: IdSet, with: impl FnOnce(&Expression) -> T) -> T {
    match (set.edge, set.member) {
        (Some(edge), member) => with(&Expression::Walk { edge, member }),
        (None, Member::Relation(id)) => with(&Expression::Relation(id)),
        (None, Member::Permission(id)) => with(&schema.permission(id).expression),
    }
}

/// The ways to the resources of an expression.
struct Reach {
    cost: Cost,
    ways: Vec<Way>,
}

impl Reach {
    const NOTHING: Self = Self { cost: Cost::Nothing, ways: Vec::new() };
    const EVERYTHING: Self = Self { cost: Cost::Everything, ways: Vec::new() };

    fn one(cost: Cost, way: Way) -> Self {
        Self { cost, ways: vec![way] }
    }

    /// All of these ways.
    fn any(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::NOTHING, |mut all, one| {
            all.cost = all.cost.max(one.cost);
            all.ways.extend(one.ways);
            all
        })
    }
}

/// Finds ways, given the costs of sets so far.
struct Finder<'a> {
    schema: &'a Schema,
    subject: &'a Subject,
    flags: &'a Flags,
    places: HashMap<IdSet, usize>,
    costs: Vec<Cost>,
    /// The permissions whose values are known for the subject, under a `!` or not.
    constants: HashMap<(PermissionId, bool), Option<FlagValue>>,
}

impl Finder<'_> {
    fn reach_set(&mut self, set: IdSet) -> Reach {
        let schema = self.schema;
        let mut reach = with_meaning(schema, set, |meaning| self.reach(set.kind, meaning));
        reach.ways.sort_unstable();
        reach.ways.dedup();
        reach
    }

    fn reach(&mut self, kind: ResourceTypeId, expression: &Expression) -> Reach {
        match self.constant(expression, false) {
            Some(FlagValue::Holds) => return Reach::EVERYTHING,
            Some(FlagValue::Fails | FlagValue::Indeterminate) => return Reach::NOTHING,
            None => {}
        }
        match expression {
            Expression::Relation(id) => self.reach_relation(*id),
            Expression::Permission(id) => self.reach_same(IdSet::of(kind, Member::Permission(*id))),
            Expression::Walk { edge, member } => {
                let ends = ends(self.schema, *edge);
                Reach::any(ends.into_iter().map(|end| self.reach_through(*edge, IdSet::of(end, *member))))
            }
            // A flag that is not known may hold for the subject, and then for every resource.
            Expression::SubjectFlag(_) | Expression::Not(_) => Reach::EVERYTHING,
            Expression::And(sides) => {
                let sides = sides.iter().map(|side| self.reach(kind, side));
                sides.min_by_key(|side| side.cost).unwrap_or(Reach::EVERYTHING)
            }
            Expression::Or(sides) => Reach::any(sides.iter().map(|side| self.reach(kind, side)).collect::<Vec<_>>()),
        }
    }

    fn reach_same(&self, set: IdSet) -> Reach {
        match self.places.get(&set) {
            Some(place) => Reach::one(self.cost_of(*place), Way::Same(*place)),
            None => Reach::EVERYTHING,
        }
    }

    fn reach_through(&self, relation: RelationId, set: IdSet) -> Reach {
        let Some(place) = self.places.get(&set) else { return Reach::EVERYTHING };
        match self.cost_of(*place) {
            Cost::Nothing => Reach::NOTHING,
            cost => Reach::one(cost.max(self.cost_by(relation, Cost::Through)), Way::Through(relation, *place)),
        }
    }

    fn reach_relation(&self, id: RelationId) -> Reach {
        let relation = self.schema.relation(id);
        if let Origin::Subject(of) = &relation.origin {
            let of = of.iter().filter(|of| self.schema.is_of_subject(**of, self.subject));
            return Reach::any(of.map(|of| Reach::one(Cost::OfSubject, Way::OfSubject(*of))));
        }
        let Some(ids) = &relation.ids else { return Reach::one(Cost::Listed, Way::Flag(id)) };
        let of_targets = ids.targets.iter().map(|target| match target {
            Target::Subject(kind) => match self.subject {
                Subject::Known { kind: asker, .. } if asker == kind => {
                    Reach::one(self.cost_by(id, Cost::Subject), Way::Subject(id))
                }
                Subject::Known { .. } | Subject::Anonymous => Reach::NOTHING,
            },
            Target::Set(kind, member) => self.reach_through(id, IdSet::of(*kind, *member)),
            Target::Resource(_) => Reach::NOTHING,
        });
        Reach::any(of_targets)
    }

    /// The cost of following a relation backwards.
    fn cost_by(&self, relation: RelationId, cost: Cost) -> Cost {
        if self.schema.relation(relation).reverse.is_empty() { Cost::Listed } else { cost }
    }

    fn cost_of(&self, place: usize) -> Cost {
        self.costs.get(place).copied().unwrap_or(Cost::Everything)
    }

    /// The value that an expression has on every resource, if it is known.
    fn constant(&mut self, expression: &Expression, negated: bool) -> Option<FlagValue> {
        match expression {
            Expression::Relation(id) => {
                (!self.schema.can_lead_to(*id, self.subject, negated)).then_some(FlagValue::Fails)
            }
            Expression::Permission(id) => {
                if let Some(known) = self.constants.get(&(*id, negated)) {
                    return *known;
                }
                let schema = self.schema;
                let value = self.constant(&schema.permission(*id).expression, negated);
                self.constants.insert((*id, negated), value);
                value
            }
            Expression::Walk { .. } => None,
            Expression::SubjectFlag(flags) => {
                match flags.iter().find(|flag| self.schema.is_of_subject(**flag, self.subject)) {
                    Some(flag) => self.flags.get(flag).copied(),
                    None => Some(FlagValue::Fails),
                }
            }
            Expression::Not(inner) => Some(match self.constant(inner, true)? {
                FlagValue::Holds => FlagValue::Fails,
                FlagValue::Fails => FlagValue::Holds,
                FlagValue::Indeterminate => FlagValue::Indeterminate,
            }),
            Expression::And(sides) => self.joined(sides, negated, FlagValue::Fails, FlagValue::Holds),
            Expression::Or(sides) => self.joined(sides, negated, FlagValue::Holds, FlagValue::Fails),
        }
    }

    /// The value of an `&` or an `|`: `deciding` if one side has it, `neutral` if all sides have that.
    fn joined(
        &mut self,
        sides: &[Expression],
        negated: bool,
        deciding: FlagValue,
        neutral: FlagValue,
    ) -> Option<FlagValue> {
        let sides: Vec<_> = sides.iter().map(|side| self.constant(side, negated)).collect();
        if sides.contains(&Some(deciding)) {
            return Some(deciding);
        }
        let all_are = |value: FlagValue| sides.iter().all(|side| *side == Some(value));
        if all_are(neutral) {
            return Some(neutral);
        }
        sides.iter().all(Option::is_some).then_some(FlagValue::Indeterminate)
    }
}
