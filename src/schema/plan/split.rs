//! Gives types whose documents in one collection exclude each other by a constant lookups of their own, so that the documents of
//! one type do not count towards the limits of the other's facts (docs/schema.md, "Large relations").
//!
//! No answer depends on that: each lookup reads what its relations would read from a common one.

use std::collections::{BTreeMap, btree_map::Entry};

use bson::Bson;

use crate::{
    question::LookupId,
    schema::{Condition, Foreign, Lookup, Origin, Owner, Path, Relation, Schema, Test, order::compare},
};

/// How many values of other types a relation keeps at most. Documents with others are read, and then grant nothing.
const FOREIGN_MAX: usize = 100;

/// The constants that a condition requires, by path.
type Constants = BTreeMap<Path, Bson>;

/// What a type reads from one lookup.
#[derive(Default)]
struct Served {
    /// The constants that all of it requires.
    constants: Constants,
    /// The indices of the relations.
    relations: Vec<usize>,
}

/// Splits every lookup that serves types which exclude each other.
pub(super) fn split_lookups(schema: &mut Schema) {
    let served = served(schema);
    let mut lookups = std::mem::take(&mut schema.lookups).into_vec();
    for (number, owners) in (0..).zip(served) {
        let paths = common_paths(&owners);
        let mut groups: BTreeMap<Vec<String>, Vec<(Owner, Served)>> = BTreeMap::new();
        for (owner, served) in owners {
            let key = paths.iter().map(|path| format!("{:?}", served.constants.get(path))).collect();
            groups.entry(key).or_default().push((owner, served));
        }
        let values: Vec<Constants> =
            groups.values().filter_map(|owners| Some(owners.first()?.1.constants.clone())).collect();
        for (place, owners) in groups.into_values().enumerate() {
            let before = LookupId(number);
            let after = if place == 0 { before } else { copy(&mut lookups, before) };
            for (owner, served) in owners {
                let foreign = foreign(&paths, &served.constants, &values);
                move_owner(schema, owner, &served, [before, after], &foreign);
            }
        }
    }
    schema.lookups = lookups.into();
}

/// For each lookup, the types that it serves.
fn served(schema: &Schema) -> Vec<BTreeMap<Owner, Served>> {
    let mut served: Vec<BTreeMap<Owner, Served>> = schema.lookups.iter().map(|_| BTreeMap::new()).collect();
    let mut add = |lookup: LookupId, owner, relation: Option<usize>, constants: Constants| {
        let Some(owners) = served.get_mut(lookup.index()) else { return };
        match owners.entry(owner) {
            Entry::Vacant(entry) => {
                entry.insert(Served { constants, relations: relation.into_iter().collect() });
            }
            Entry::Occupied(mut entry) => {
                let served = entry.get_mut();
                served.constants.retain(|path, value| constants.get(path) == Some(&*value));
                served.relations.extend(relation);
            }
        }
    };
    // A document of a type without a condition may have any values.
    for (kind, resource) in schema.resources().filter(|(_, resource)| resource.gate.is_none()) {
        resource.document.iter().for_each(|lookup| add(*lookup, Owner::Resource(kind), None, Constants::new()));
    }
    for (place, relation) in schema.relations.iter().enumerate() {
        let Some(lookup) = relation.lookup() else { continue };
        let mut constants = constants(relation);
        let gate = match relation.owner {
            Owner::Resource(kind) => schema.resource(kind).gate,
            Owner::Subject(kind) => schema.subject(kind).gate,
        };
        // The relations of a document that fails the condition of its type do not matter.
        if let Some(gate) = gate.filter(|_| schema.own_lookup(relation.owner) == Some(lookup)) {
            constants.extend(self::constants(schema.relation(gate)));
        }
        add(lookup, relation.owner, Some(place), constants);
    }
    served
}

/// The constants that a document, or an element of one, must have for a relation to read it.
fn constants(relation: &Relation) -> Constants {
    let mut constants = Constants::new();
    let mut open: Vec<&Condition> = relation.condition_of_document().into_iter().collect();
    while let Some(condition) = open.pop() {
        match condition {
            Condition::And(all) => open.extend(all),
            Condition::Field(path, Test::Eq(value)) => {
                constants.insert(path.clone(), value.clone());
            }
            Condition::Or(_) | Condition::Field(..) | Condition::Expr(..) => {}
        }
    }
    constants
}

/// The paths at which all types require a constant.
fn common_paths(owners: &BTreeMap<Owner, Served>) -> Vec<Path> {
    let first = owners.values().next().map(|served| served.constants.keys()).into_iter().flatten();
    first.filter(|path| owners.values().all(|served| served.constants.contains_key(path))).cloned().collect()
}

/// Adds a lookup of the same collection and field. The compiler has made sure that it fits.
fn copy(lookups: &mut Vec<Lookup>, of: LookupId) -> LookupId {
    let Some(Lookup { collection, by, text_keys, .. }) = lookups.get(of.index()) else { return of };
    let copy = Lookup { text_keys: text_keys.clone(), is_split_off: true, ..Lookup::new(collection, by.clone()) };
    lookups.push(copy);
    LookupId(u16::try_from(lookups.len().saturating_sub(1)).unwrap_or(u16::MAX))
}

/// The values of other types at the paths that tell types apart.
fn foreign(paths: &[Path], own: &Constants, all: &[Constants]) -> Box<[Foreign]> {
    let of_path = |path: &Path| {
        let own = own.get(path)?;
        let others = all.iter().filter_map(|other| other.get(path)).filter(|other| compare(other, own).is_ne());
        let values: Box<[Bson]> = others.take(FOREIGN_MAX).cloned().collect();
        (!values.is_empty()).then(|| Foreign { path: path.clone(), values })
    };
    paths.iter().filter_map(of_path).collect()
}

/// Lets what a type reads from one lookup be read from another one.
fn move_owner(schema: &mut Schema, owner: Owner, served: &Served, [before, after]: [LookupId; 2], foreign: &[Foreign]) {
    for place in &served.relations {
        if let Some(relation) = schema.relations.get_mut(*place) {
            relation.origin = Origin::Documents(after);
            relation.foreign = foreign.into();
        }
    }
    if let Owner::Resource(kind) = owner
        && let Some(resource) = schema.resources.get_mut(kind.index())
        && resource.document == Some(before)
    {
        resource.document = Some(after);
    }
}
