//! What follows from a schema as a whole: which relations stand under a `!`, which side of an `|` is tried first, and what of
//! the conditions is pushed down into queries.
//!
//! Changes nothing that an answer depends on but that: it finds no mistakes.

use super::{Condition, Expression, Member, Path, Relation, Schema, Target};
use crate::question::{LookupId, RelationId};

/// Settles all of it, in the order in which one needs the other.
pub(crate) fn arrange(schema: &mut Schema) {
    mark_negated(schema);
    order_sides(schema);
    fill_lookups(schema);
}

/// Finds the relations that stand under a `!` in some permission: of these, documents that do not match count too.
fn mark_negated(schema: &mut Schema) {
    let mut seen = vec![false; schema.permissions.len()];
    let mut negated = vec![false; schema.relations.len()];
    for permission in &schema.permissions {
        mark_expression(schema, &permission.expression, false, &mut seen, &mut negated);
    }
    for (relation, negated) in schema.relations.iter_mut().zip(negated) {
        relation.negated = negated;
    }
}

fn mark_expression(schema: &Schema, expression: &Expression, under: bool, seen: &mut [bool], negated: &mut [bool]) {
    match expression {
        Expression::Not(inner) => mark_expression(schema, inner, true, seen, negated),
        Expression::And(sides) | Expression::Or(sides) => {
            sides.iter().for_each(|side| mark_expression(schema, side, under, seen, negated));
        }
        Expression::Relation(_) | Expression::Permission(_) | Expression::Walk { .. } if !under => {}
        Expression::Relation(id) => mark_member(schema, Member::Relation(*id), seen, negated),
        Expression::Permission(id) => mark_member(schema, Member::Permission(*id), seen, negated),
        Expression::Walk { edge, member } => {
            mark_member(schema, Member::Relation(*edge), seen, negated);
            mark_member(schema, *member, seen, negated);
        }
    }
}

/// Marks all that `member` is made of.
fn mark_member(schema: &Schema, member: Member, seen: &mut [bool], negated: &mut [bool]) {
    match member {
        Member::Relation(id) => {
            let Some(mark) = negated.get_mut(id.index()).filter(|mark| !**mark) else { return };
            *mark = true;
            let targets = schema.relation(id).ids.iter().flat_map(|ids| &ids.targets);
            for target in targets {
                if let Target::Set(_, member) = target {
                    mark_member(schema, *member, seen, negated);
                }
            }
        }
        Member::Permission(id) => {
            let Some(mark) = seen.get_mut(id.index()).filter(|mark| !**mark) else { return };
            *mark = true;
            mark_expression(schema, &schema.permission(id).expression, true, seen, negated);
        }
    }
}

/// How far an expression reaches: what is cheap to find out is tried first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    OwnDocument,
    OtherCollection,
    OtherResources,
}

fn reach(schema: &Schema, expression: &Expression) -> Reach {
    match expression {
        Expression::Relation(id) => {
            let relation = schema.relation(*id);
            let is_set = relation.ids.iter().flat_map(|ids| &ids.targets).any(|target| matches!(target, Target::Set(..)));
            match (is_set, schema.lookup(relation.lookup).is_by_id()) {
                (true, _) => Reach::OtherResources,
                (false, true) => Reach::OwnDocument,
                (false, false) => Reach::OtherCollection,
            }
        }
        Expression::Permission(id) => reach(schema, &schema.permission(*id).expression),
        Expression::Walk { .. } => Reach::OtherResources,
        Expression::Not(inner) => reach(schema, inner),
        Expression::And(sides) | Expression::Or(sides) => {
            sides.iter().map(|side| reach(schema, side)).max().unwrap_or(Reach::OwnDocument)
        }
    }
}

/// Puts the cheapest side of every `|` first. A denial's reason does not depend on that order, nor does an answer.
fn order_sides(schema: &mut Schema) {
    let ordered: Vec<_> = schema.permissions.iter().map(|permission| ordered(schema, &permission.expression)).collect();
    for (permission, expression) in schema.permissions.iter_mut().zip(ordered) {
        permission.expression = expression;
    }
}

fn ordered(schema: &Schema, expression: &Expression) -> Expression {
    let each = |sides: &[Expression]| sides.iter().map(|side| ordered(schema, side)).collect::<Vec<_>>();
    match expression {
        Expression::Relation(id) => Expression::Relation(*id),
        Expression::Permission(id) => Expression::Permission(*id),
        Expression::Walk { edge, member } => Expression::Walk { edge: *edge, member: *member },
        Expression::Not(inner) => Expression::Not(Box::new(ordered(schema, inner))),
        Expression::And(sides) => Expression::And(each(sides).into()),
        Expression::Or(sides) => {
            let mut sides = each(sides);
            sides.sort_by_key(|side| reach(schema, side));
            Expression::Or(sides.into())
        }
    }
}

/// Tells each lookup its relations, the fields they need, and what can be pushed down.
fn fill_lookups(schema: &mut Schema) {
    for (id, lookup) in (0..).map(LookupId).zip(&mut schema.lookups) {
        let relations = (0..).map(RelationId).zip(&schema.relations).filter(|(_, relation)| relation.lookup == id);
        let relations: Vec<(RelationId, &Relation)> = relations.collect();
        let mut fields = vec!["_id".into(), lookup.by.top().into()];
        for (_, relation) in &relations {
            relation.fields(&mut |path| fields.push(path.top().into()));
        }
        fields.sort_unstable();
        fields.dedup();
        lookup.projection = fields.into();
        lookup.pushed = if lookup.is_by_id() { None } else { pushed(relations.iter().map(|(_, relation)| *relation)) };
        lookup.relations = relations.into_iter().map(|(id, _)| id).collect();
    }
}

/// What one of the relations at least wants of a document; nothing where one of them wants all documents. Never a date,
/// which the clock would make wrong, and nothing of a relation under a `!`, where documents that do not match count.
fn pushed<'a>(relations: impl Iterator<Item = &'a Relation>) -> Option<Condition> {
    let mut any = Vec::new();
    for relation in relations {
        let condition = if relation.each.is_some() { &relation.document_condition } else { &relation.condition };
        let condition = condition.as_ref().filter(|_| !relation.negated)?;
        if !any.contains(condition) {
            any.push(condition.clone());
        }
    }
    Some(Condition::Or(any))
}

impl Relation {
    /// Every field of the document that the relation reads.
    fn fields(&self, visit: &mut impl FnMut(&Path)) {
        if let Some(each) = &self.each {
            visit(each);
            if let Some(condition) = &self.document_condition {
                condition.paths(visit);
            }
            return;
        }
        if let Some(condition) = &self.condition {
            condition.paths(visit);
        }
        let ids = self.ids.iter().flat_map(|ids| {
            [Some(&ids.field), ids.subject_type.as_ref(), ids.subject_relation.as_ref()].into_iter().flatten()
        });
        ids.chain(&self.since).chain(&self.until).for_each(visit);
    }
}
