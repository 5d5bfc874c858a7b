//! The bounds of a permission: joins those of its relations as the evaluator joins their values.
//!
//! Does not know what a relation's document contains.

use bson::{Bson, Document};

use super::{
    FILTER_BYTES_MAX, FILTER_DEPTH_MAX, Filter, FlagValue, IdSet, MANY_VALUES, TESTS_MAX,
    bound::{Bound, Cause},
    compiler::{Compiler, Side},
    relation::OwnRelation,
    simplify::{EVERYTHING, not, one_of},
};
use crate::{
    fact::id_to_bson,
    list::{ListError, Note, PlanKind},
    question::{PermissionId, RelationId},
    schema::{Condition, Expression, Member, Path, Relation},
};

impl Compiler<'_> {
    /// The documents on which a permission surely holds.
    pub(super) fn permission(&self, permission: PermissionId) -> Bound {
        self.named(permission, Side::Holds)
    }

    /// The documents that surely fulfil the condition of the type.
    pub(super) fn gate(&self, gate: RelationId) -> Bound {
        self.own(OwnRelation { id: gate, relation: self.schema.relation(gate), member: None }, Side::Holds)
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
            let (relation, count) = largest.map_or((String::new(), 0), |(set, count)| (set.name(self.schema), *count));
            return Err(ListError::TooManyIds { relation, count, max: count.saturating_sub(1) });
        }
        let many = used.iter().filter(|(_, count)| *count > MANY_VALUES);
        let notes =
            many.map(|(set, count)| Note::ManyValues { branch: set.name(self.schema), count: *count }).collect();
        let ids = used.iter().map(|(_, count)| count).sum();
        Ok(Filter { kind, condition, compares_times: self.compares_times.get(), ids, notes })
    }

    fn expression(&self, expression: &Expression, side: Side) -> Bound {
        match (expression, side) {
            (Expression::Relation(id), side) => self.relation(*id, side),
            (Expression::Permission(id), side) => self.named(*id, side),
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

    /// A permission of the same resource. It is compiled once, however often it is named.
    fn named(&self, permission: PermissionId, side: Side) -> Bound {
        if let Some(bound) = self.kept(permission, side) {
            return bound;
        }
        let mark = self.mark();
        let named = self.schema.permission(permission);
        let mut bound = self.expression(&named.expression, side);
        if tests(&bound.condition) > TESTS_MAX {
            bound = Bound::at_least(EVERYTHING, Cause { part: named.name.to_string(), remedy: Cause::TOO_LONG });
        }
        self.keep(permission, side, &bound, &mark);
        bound
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
        let part = || IdSet { kind, edge, member }.name(self.schema);
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
}

/// How many tests a condition has.
fn tests(condition: &Condition) -> usize {
    match condition {
        Condition::And(sides) | Condition::Or(sides) => sides.iter().map(tests).sum(),
        Condition::Field(..) | Condition::Expr(..) => 1,
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
