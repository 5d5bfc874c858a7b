//! What a list of subjects reads from the source each time: what a relation leads to whose fact is over its limit, and the subjects
//! whose own documents lead to a resource or set a flag.
//!
//! What is listed may be more than the relation grants, never less: times and conditions on elements are not tested.

use bson::Bson;

use crate::{
    fact::{key_values, text_value},
    list::listings::{Search, values_of},
    question::{Id, RelationId, Resource},
    schema::{Condition, Ids, Lookup, Owner, Path, Relation, Schema, Target, Test},
};

/// How many listings one list reads at most, of either kind: of sets and edges, and of subjects.
pub(super) const LISTINGS_MAX: usize = 100;

/// How many listings are read at once. What they bring is kept until it is taken.
pub(super) const LISTINGS_AT_ONCE: usize = 16;

/// The ids of one target that a relation leads to from a resource. Documents may have several names for it.
pub(super) fn of_target(schema: &Schema, relation: RelationId, resource: &Resource, target: Target) -> Option<Search> {
    let declared = schema.relation(relation);
    let (ids, lookup) = (declared.ids.as_ref()?, schema.lookup(declared.lookup()?));
    let (form, name) = match target {
        Target::Subject(kind) => (schema.subject(kind).id, &schema.subject(kind).name),
        Target::Set(kind, _) | Target::Resource(kind) => (schema.resource(kind).id, &schema.resource(kind).name),
    };
    let is_it = |place: &usize| ids.targets.get(*place) == Some(&target);
    let names: Vec<Bson> = match &ids.type_values {
        Some(values) => {
            values.iter().enumerate().filter(|(place, _)| is_it(place)).map(|(_, name)| Bson::from(&**name)).collect()
        }
        None => vec![Bson::from(&**name)],
    };
    let of_type = ids.subject_type.as_ref().map(|path| equals(declared.path_in_document(path), names));
    let conditions = of_resource(declared, lookup, resource).into_iter().chain(of_type).collect();
    Some(Search::new(lookup, conditions, declared.path_in_document(&ids.field), (form, ids.format.clone())))
}

/// Finds something if a relation may lead to everybody from a resource.
pub(super) fn of_everybody(schema: &Schema, relation: RelationId, resource: &Resource) -> Option<Search> {
    let declared = schema.relation(relation);
    let lookup = schema.lookup(declared.lookup()?);
    let ids = declared.ids.as_ref().filter(|ids| ids.wildcard)?;
    let everybody = equals(declared.path_in_document(&ids.field), vec![text_value(ids.format.as_ref(), "*")]);
    let conditions = of_resource(declared, lookup, resource).into_iter().chain([everybody]).collect();
    Some(Search::of_keys(lookup, conditions, schema.resource(resource.kind).id))
}

/// The subjects whose documents lead to one of these resources by a relation of theirs, or set that flag.
pub(super) fn of_subjects(schema: &Schema, relation: RelationId, resources: &[Id]) -> Option<Search> {
    let declared = schema.relation(relation);
    let lookup = schema.lookup(declared.lookup()?);
    let Owner::Subject(kind) = declared.owner else { return None };
    let leads_here =
        |ids: &Ids| equals(declared.path_in_document(&ids.field), values_of(ids.format.as_ref(), resources));
    let leads_here = declared.ids.as_ref().map(leads_here);
    let conditions = leads_here.into_iter().chain(declared.condition_of_document().cloned()).collect();
    Some(Search::of_keys(lookup, conditions, schema.subject(kind).id))
}

/// What the documents of a resource fulfil from which a relation is read.
fn of_resource(relation: &Relation, lookup: &Lookup, resource: &Resource) -> Vec<Condition> {
    let by = equals(lookup.by.clone(), key_values(lookup, &resource.id));
    [by].into_iter().chain(relation.condition_of_document().cloned()).collect()
}

fn equals(path: Path, values: Vec<Bson>) -> Condition {
    Condition::Field(path, Test::In(values))
}
