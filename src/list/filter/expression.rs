//! The bounds of a permission: joins those of its relations as the evaluator joins their values.
//!
//! Does not know what a relation's document contains.

use std::cell::{Cell, RefCell};

use bson::{Bson, Document};

use super::{
    FILTER_BYTES_MAX, FILTER_DEPTH_MAX, Filter, FlagValue, IdSet, Known, MANY_VALUES, Required,
    bound::{Bound, Cause},
    relation::OwnRelation,
    simplify::{EVERYTHING, not, one_of},
};
use crate::{
    fact::id_to_bson,
    list::{ListError, ListQuestion, Note, PlanKind},
    question::{Id, Millis, PermissionId, RelationId, ResourceTypeId},
    schema::{Condition, Expression, Member, Path, Relation, Schema},
};

/// Which documents a bound means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Those on which the expression surely holds.
    Holds,
    /// Those on which it surely does not, where malformed documents count, as under a `!`.
    Fails,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Holds => Self::Fails,
            Self::Fails => Self::Holds,
        }
    }
}

impl Cause {
    pub(super) const VALUES: &'static str =
        "No query recognizes all values that are no ids: use ids of another form, or check each result.";
    pub(super) const CONDITION: &'static str = "No query recognizes all values of a wrong type in its condition: use a simpler condition, or check each result.";
    pub(super) const DATES: &'static str = "No query compares such dates: store them as dates, or check each result.";
    pub(super) const TYPES: &'static str =
        "No query reads names in nested arrays: store them in the document, or check each result.";
    pub(super) const NEGATED: &'static str =
        "No query finds the resources on which it does not hold: add a part that grants by the resource's own fields.";
    pub(super) const SECRET: &'static str = "A query needs the secret itself.";
    pub(super) const UNKNOWN: &'static str = "Its resources were not listed.";
}

/// Compiles one question.
pub(super) struct Compiler<'a> {
    pub(super) schema: &'a Schema,
    pub(super) question: &'a ListQuestion,
    pub(super) known: &'a Known,
    pub(super) now: Millis,
    /// Whether a date was compared with the time.
    pub(super) compares_times: Cell<bool>,
    /// What was asked for and is not known.
    asked: RefCell<Required>,
    /// The id sets that were used, with the number of their ids.
    used: RefCell<Vec<(IdSet, usize)>>,
}

/// How much was asked for at some point of a compilation.
struct Mark {
    id_sets: usize,
    flags: usize,
    used: usize,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(schema: &'a Schema, question: &'a ListQuestion, known: &'a Known, now: Millis) -> Self {
        let (compares_times, asked, used) = (Cell::new(false), RefCell::default(), RefCell::default());
        Self { schema, question, known, now, compares_times, asked, used }
    }

    /// The documents on which a permission surely holds.
    pub(super) fn permission(&self, permission: PermissionId) -> Bound {
        self.expression(&self.schema.permission(permission).expression, Side::Holds)
    }

    /// The documents that surely fulfil the condition of the type.
    pub(super) fn gate(&self, gate: RelationId) -> Bound {
        self.own(OwnRelation { id: gate, relation: self.schema.relation(gate), member: None }, Side::Holds)
    }

    /// What was asked for and is not known.
    pub(super) fn into_required(self) -> Required {
        let mut required = self.asked.into_inner();
        required.id_sets.sort_unstable();
        required.id_sets.dedup();
        required.flags.sort_unstable();
        required.flags.dedup();
        required
    }

    /// The filter of a condition, unless MongoDB could refuse it.
    pub(super) fn filter(self, kind: PlanKind, condition: Condition) -> Result<Filter, ListError> {
        let mut used = self.used.take();
        used.sort_unstable();
        used.dedup();
        let query = condition.to_query();
        if depth(&query) > FILTER_DEPTH_MAX {
            let part = self.schema.permission(self.question.permission).name.to_string();
            let remedy =
                "Its query would be nested too deeply for MongoDB: use fewer permissions inside each other.".to_owned();
            return Err(ListError::NotNarrowable { part, remedy });
        }
        if query.to_vec().map_or(true, |bytes| bytes.len() > FILTER_BYTES_MAX) {
            let largest = used.iter().max_by_key(|(_, count)| *count);
            let (relation, count) = largest.map_or((String::new(), 0), |(set, count)| (self.set_name(*set), *count));
            return Err(ListError::TooManyIds { relation, count, max: count.saturating_sub(1) });
        }
        let many = used.iter().filter(|(_, count)| *count > MANY_VALUES);
        let notes = many.map(|(set, count)| Note::ManyValues { branch: self.set_name(*set), count: *count }).collect();
        let ids = used.iter().map(|(_, count)| count).sum();
        Ok(Filter { kind, condition, compares_times: self.compares_times.get(), ids, notes })
    }

    fn expression(&self, expression: &Expression, side: Side) -> Bound {
        match (expression, side) {
            (Expression::Relation(id), side) => self.relation(*id, side),
            (Expression::Permission(id), side) => self.expression(&self.schema.permission(*id).expression, side),
            (Expression::Walk { edge, member }, side) => self.walk(*edge, *member, side),
            (Expression::SubjectFlag(flags), side) => self.flag(flags, side),
            (Expression::Not(inner), side) => self.expression(inner, side.other()),
            (Expression::And(sides), Side::Holds) | (Expression::Or(sides), Side::Fails) => {
                self.join(sides, side, Bound::all)
            }
            (Expression::Or(sides), Side::Holds) | (Expression::And(sides), Side::Fails) => {
                self.join(sides, side, Bound::any)
            }
        }
    }

    /// Joins the bounds of some expressions. If they decide without the ids that they asked for, these are not required.
    fn join(&self, sides: &[Expression], side: Side, join: fn(Vec<Bound>) -> Bound) -> Bound {
        let mark = self.mark();
        let bound = join(sides.iter().map(|expression| self.expression(expression, side)).collect());
        if bound.is_nothing() || bound == Bound::everything() {
            self.forget(&mark);
        }
        bound
    }

    fn relation(&self, id: RelationId, side: Side) -> Bound {
        let relation = self.schema.relation(id);
        if !self.schema.can_lead_to(id, &self.question.asker.subject, side == Side::Fails) {
            return Bound::constant(side == Side::Fails);
        }
        if self.is_own(relation) {
            self.own(OwnRelation { id, relation, member: None }, side)
        } else {
            self.elsewhere(None, Member::Relation(id), side)
        }
    }

    fn walk(&self, edge: RelationId, member: Member, side: Side) -> Bound {
        let relation = self.schema.relation(edge);
        if self.is_own(relation) {
            self.own(OwnRelation { id: edge, relation, member: Some(member) }, side)
        } else {
            self.elsewhere(Some(edge), member, side)
        }
    }

    /// Whether a relation is read from the resource's own document.
    fn is_own(&self, relation: &Relation) -> bool {
        let own = self.schema.resource(self.question.kind).document;
        own.is_some() && relation.lookup() == own
    }

    /// A relation, or a member at the end of an edge, that is not read from the own document.
    fn elsewhere(&self, edge: Option<RelationId>, member: Member, side: Side) -> Bound {
        let kind = self.question.kind;
        let part = || self.set_name(IdSet { kind, edge, member });
        match side {
            Side::Holds => match self.id_set(kind, edge, member) {
                Some(ids) => Bound::exactly(one_of(Path::id(), ids.iter().map(id_to_bson).collect())),
                None => Bound::at_least(EVERYTHING, Cause { part: part(), remedy: Cause::UNKNOWN }),
            },
            Side::Fails => {
                let granting = self.known_set(kind, edge, member).iter().map(id_to_bson).collect();
                let cause = Cause { part: part(), remedy: Cause::NEGATED };
                Bound::at_least(not(one_of(Path::id(), granting)), cause)
            }
        }
    }

    /// A flag of the asking subject.
    fn flag(&self, flags: &[RelationId], side: Side) -> Bound {
        let subject = &self.question.asker.subject;
        let Some(flag) = flags.iter().find(|flag| self.schema.is_of_subject(**flag, subject)) else {
            return Bound::constant(side == Side::Fails);
        };
        match (self.known.flags.get(flag), side) {
            (Some(FlagValue::Holds), side) => Bound::constant(side == Side::Holds),
            (Some(FlagValue::Fails), side) => Bound::constant(side == Side::Fails),
            (Some(FlagValue::Indeterminate), _) => Bound::nothing(),
            (None, _) => {
                self.asked.borrow_mut().flags.push(*flag);
                let part = self.schema.relation_name(*flag);
                Bound::at_least(EVERYTHING, Cause { part, remedy: Cause::UNKNOWN })
            }
        }
    }

    /// The ids of an id set that has to be known.
    pub(super) fn id_set(&self, kind: ResourceTypeId, edge: Option<RelationId>, member: Member) -> Option<&'a [Id]> {
        let set = IdSet { kind, edge, member };
        match self.known.id_sets.get(&set) {
            Some(ids) => {
                self.used.borrow_mut().push((set, ids.len()));
                Some(ids)
            }
            None => {
                self.asked.borrow_mut().id_sets.push(set);
                None
            }
        }
    }

    /// The ids of an id set, as far as they are known.
    pub(super) fn known_set(&self, kind: ResourceTypeId, edge: Option<RelationId>, member: Member) -> &'a [Id] {
        let set = IdSet { kind, edge, member };
        let ids = self.known.id_sets.get(&set).map_or(&[][..], Vec::as_slice);
        self.used.borrow_mut().push((set, ids.len()));
        ids
    }

    /// The name of a part of the permission, for messages.
    pub(super) fn part_name(&self, relation: RelationId, member: Option<Member>) -> String {
        let name = self.schema.relation_name(relation);
        member.map_or_else(|| name.clone(), |member| format!("{name}.{}", self.schema.member_name(member)))
    }

    fn set_name(&self, set: IdSet) -> String {
        match (set.edge, set.member) {
            (Some(edge), member) => self.part_name(edge, Some(member)),
            (None, member) => format!("{}#{}", self.schema.resource(set.kind).name, self.schema.member_name(member)),
        }
    }

    fn mark(&self) -> Mark {
        let asked = self.asked.borrow();
        Mark { id_sets: asked.id_sets.len(), flags: asked.flags.len(), used: self.used.borrow().len() }
    }

    fn forget(&self, mark: &Mark) {
        let mut asked = self.asked.borrow_mut();
        asked.id_sets.truncate(mark.id_sets);
        asked.flags.truncate(mark.flags);
        self.used.borrow_mut().truncate(mark.used);
    }
}

/// How deeply documents and arrays are nested.
fn depth(document: &Document) -> usize {
    fn of_value(value: &Bson) -> usize {
        match value {
            Bson::Document(inner) => depth(inner),
            Bson::Array(items) => 1 + items.iter().map(of_value).max().unwrap_or_default(),
            _ => 0,
        }
    }
    1 + document.values().map(of_value).max().unwrap_or_default()
}
