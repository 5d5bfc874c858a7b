//! Plans the evaluation of a compiled schema: finds the relations under a `!`, orders the sides of each `|`, and chooses the
//! conditions that are pushed down into queries. Adds what lists require: reverse lookups and hidden permissions.
//!
//! Finds no errors. Neither the order that it chooses nor what it adds changes an answer.

mod hidden;
mod reverse;
mod search;
mod split;
mod wanted;

use std::collections::HashSet;

pub use wanted::Wanted;
pub(crate) use wanted::repeats;

use super::{Condition, Expression, Ids, Lookup, Member, Origin, Owner, Path, Relation, Schema, Target};
use crate::question::{CollectionId, LookupId, RelationId};

/// Plans the whole schema. Each step uses the results of the previous ones.
pub(crate) fn plan(schema: &mut Schema) {
    mark_negated(schema);
    find_shared(schema);
    split::split_lookups(schema);
    search::search_every_form(schema);
    order_sides(schema);
    reverse::add_reverse_lookups(schema);
    hidden::add_hidden_permissions(schema);
    fill_lookups(schema);
    number_collections(schema);
}

/// Marks the relations that some permission uses under a `!`, directly or through a permission or a set. For these, documents
/// that do not match are read too.
fn mark_negated(schema: &mut Schema) {
    let mut todo = Vec::new();
    for permission in &schema.permissions {
        members(&permission.expression, false, &mut |member, is_excluded| {
            todo.extend(is_excluded.then_some(member));
        });
    }
    let mut seen = HashSet::new();
    while let Some(member) = todo.pop() {
        if !seen.insert(member) {
            continue;
        }
        match member {
            Member::Permission(id) => {
                members(&schema.permission(id).expression, true, &mut |member, _| {
                    todo.push(member);
                });
            }
            Member::Relation(id) => {
                if let Origin::Subject(of) = &schema.relation(id).origin {
                    todo.extend(of.iter().copied().map(Member::Relation));
                }
                let targets = schema.relation(id).ids.iter().flat_map(|ids| &ids.targets);
                todo.extend(targets.filter_map(|target| match target {
                    Target::Set(_, member) => Some(*member),
                    Target::Subject(_) | Target::Resource(_) => None,
                }));
            }
        }
    }
    // An edge or a set under a `!` may lead to any type, and a document that may fail the type's condition counts there.
    let gates: HashSet<RelationId> = schema.resources.iter().filter_map(|kind| kind.gate).collect();
    for (id, relation) in (0..).map(RelationId).zip(&mut schema.relations) {
        relation.negated = seen.contains(&Member::Relation(id)) || gates.contains(&id);
    }
}

/// Visits every member that an expression names, including edges, with whether it stands under a `!`.
fn members(expression: &Expression, is_excluded: bool, visit: &mut impl FnMut(Member, bool)) {
    match expression {
        Expression::Relation(id) => visit(Member::Relation(*id), is_excluded),
        Expression::Permission(id) => visit(Member::Permission(*id), is_excluded),
        Expression::Walk { edge, member } => {
            visit(Member::Relation(*edge), is_excluded);
            visit(*member, is_excluded);
        }
        Expression::SubjectFlag(flags) => flags.iter().for_each(|id| visit(Member::Relation(*id), is_excluded)),
        Expression::Not(inner) => members(inner, true, visit),
        Expression::And(sides) | Expression::Or(sides) => {
            sides.iter().for_each(|side| members(side, is_excluded, visit));
        }
    }
}

/// Finds the relations of which another path leads through the same document or array as the field of the lookup.
fn find_shared(schema: &mut Schema) {
    let (lookups, relations) = (&schema.lookups, &mut schema.relations);
    for relation in relations {
        let lookup = relation.lookup().and_then(|lookup| lookups.get(lookup.index()));
        let Some(Lookup { by, .. }) = lookup else { continue };
        // If the ids are in the very field of the lookup, all elements are meant.
        let is_field = |path: &Path| relation.ids.as_ref().is_some_and(|ids| ids.field == *path) && path == by;
        let mut longest: Option<Path> = None;
        relation.fields(&mut |path| {
            let length = |shared: &Path| shared.as_str().len();
            if let Some(shared) = by.shared(path).filter(|_| !is_field(path))
                && longest.as_ref().is_none_or(|longest| length(longest) < length(&shared))
            {
                longest = Some(shared);
            }
        });
        relation.shared = longest;
    }
}

/// How far an expression reaches, cheapest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    OwnDocument,
    OtherCollection,
    OtherResources,
}

/// Computes how far expressions reach. It memoizes the result of each permission, because permissions may name each other
/// many times.
struct Reaches<'a> {
    schema: &'a Schema,
    known: Vec<Option<Reach>>,
}

impl Reaches<'_> {
    fn of(&mut self, expression: &Expression) -> Reach {
        match expression {
            Expression::Relation(id) => {
                let relation = self.schema.relation(*id);
                let mut targets = relation.ids.iter().flat_map(|ids| &ids.targets);
                if targets.any(|target| matches!(target, Target::Set(..))) {
                    return Reach::OtherResources;
                }
                match &relation.origin {
                    Origin::Documents(lookup) => self.of_lookup(*lookup),
                    Origin::Subject(of) => self.of_subject(of),
                }
            }
            Expression::SubjectFlag(flags) => self.of_subject(flags),
            Expression::Permission(id) => {
                if let Some(known) = self.known.get(id.index()).copied().flatten() {
                    return known;
                }
                let reach = self.of(&self.schema.permission(*id).expression);
                if let Some(place) = self.known.get_mut(id.index()) {
                    *place = Some(reach);
                }
                reach
            }
            Expression::Walk { .. } => Reach::OtherResources,
            Expression::Not(inner) => self.of(inner),
            Expression::And(sides) | Expression::Or(sides) => {
                sides.iter().map(|side| self.of(side)).max().unwrap_or(Reach::OwnDocument)
            }
        }
    }

    /// The reach of relations of the subject. The subject's own document is read for every question, like the resource's.
    fn of_subject(&self, relations: &[RelationId]) -> Reach {
        let lookups = relations.iter().filter_map(|id| self.schema.relation(*id).lookup());
        lookups.map(|lookup| self.of_lookup(lookup)).max().unwrap_or(Reach::OwnDocument)
    }

    fn of_lookup(&self, lookup: LookupId) -> Reach {
        if self.schema.lookup(lookup).is_by_id() { Reach::OwnDocument } else { Reach::OtherCollection }
    }

    /// The expression with the cheapest side of every `|` first.
    fn ordered(&mut self, expression: &Expression) -> Expression {
        match expression {
            Expression::Relation(id) => Expression::Relation(*id),
            Expression::Permission(id) => Expression::Permission(*id),
            Expression::Walk { edge, member } => Expression::Walk { edge: *edge, member: *member },
            Expression::SubjectFlag(flags) => Expression::SubjectFlag(flags.clone()),
            Expression::Not(inner) => Expression::Not(Box::new(self.ordered(inner))),
            Expression::And(sides) => Expression::And(sides.iter().map(|side| self.ordered(side)).collect()),
            Expression::Or(sides) => {
                let mut sides: Vec<_> = sides.iter().map(|side| (self.of(side), self.ordered(side))).collect();
                sides.sort_by_key(|(reach, _)| *reach);
                Expression::Or(sides.into_iter().map(|(_, side)| side).collect())
            }
        }
    }
}

/// Puts the cheapest side of every `|` first. Neither an answer nor the reason of a denial depends on that order.
fn order_sides(schema: &mut Schema) {
    let mut reaches = Reaches { schema, known: vec![None; schema.permissions.len()] };
    let ordered: Vec<_> =
        reaches.schema.permissions.iter().map(|permission| reaches.ordered(&permission.expression)).collect();
    for (permission, expression) in schema.permissions.iter_mut().zip(ordered) {
        permission.expression = expression;
    }
}

/// Gives each lookup its relations, the fields that they read, and the condition that is pushed down.
fn fill_lookups(schema: &mut Schema) {
    let mut of_lookups: Vec<Vec<(RelationId, &Relation)>> = vec![Vec::new(); schema.lookups.len()];
    for (id, relation) in (0..).map(RelationId).zip(&schema.relations) {
        for lookup in [relation.lookup(), schema.structures(relation)].into_iter().flatten() {
            if let Some(relations) = of_lookups.get_mut(lookup.index()) {
                relations.push((id, relation));
            }
        }
    }
    let forms = search::forms(schema);
    for ((lookup, relations), forms) in schema.lookups.iter_mut().zip(of_lookups).zip(forms) {
        if !lookup.is_reverse {
            lookup.forms = forms.into();
        }
        let mut fields = vec![lookup.by.clone()];
        for (_, relation) in &relations {
            relation.fields(&mut |path| fields.push(path.clone()));
        }
        fields.sort_unstable();
        fields.dedup();
        let mut projection = vec!["_id".into()];
        projection.extend(fields.iter().map(|path| path.top().into()));
        projection.sort_unstable();
        projection.dedup();
        lookup.projection = projection.into();
        lookup.fields = fields.into();
        if !lookup.is_by_id() {
            lookup.wanted = wanted::wanted(relations.iter().map(|(_, relation)| *relation));
        }
        lookup.relations = relations.into_iter().map(|(id, _)| id).collect();
    }
}

/// Gives each collection its number.
fn number_collections(schema: &mut Schema) {
    let mut names: Vec<Box<str>> = schema.lookups.iter().map(|lookup| lookup.collection.clone()).collect();
    names.sort_unstable();
    names.dedup();
    for lookup in &mut schema.lookups {
        let place = names.partition_point(|name| *name < lookup.collection);
        lookup.collection_id = CollectionId(u16::try_from(place).unwrap_or(u16::MAX));
    }
    schema.collections = names.into();
}

impl Relation {
    /// Visits every field of the document that the relation reads.
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
        let dates = self.since.iter().chain(&self.until).map(|date| &date.path);
        ids.chain(dates).for_each(visit);
    }
}
