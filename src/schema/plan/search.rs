//! Chooses the lookups that search for an id in every form: those that serve a relation under a `!`. Otherwise a document
//! that names the resource in another form would not be found, and the `!` would hold (docs/schema.md, "Ids in another
//! form").
//!
//! Does not know the forms: `fact` does.

use std::collections::BTreeMap;

use crate::{
    question::{IdForm, LookupId},
    schema::{Finds, Lookup, Origin, Owner, Schema},
};

/// Makes every lookup of another collection that serves a relation under a `!` search for every form of an id, and adds a
/// lookup of structures to each.
pub(super) fn search_every_form(schema: &mut Schema) {
    let own: Vec<LookupId> = owners(schema).filter_map(|owner| schema.own_lookup(owner)).collect();
    // The lookup that takes the place of each.
    let mut searching: BTreeMap<LookupId, LookupId> = BTreeMap::new();
    let mut lookups = std::mem::take(&mut schema.lookups).into_vec();
    for place in 0..schema.relations.len() {
        let Some(relation) = schema.relations.get(place).filter(|relation| relation.negated) else { continue };
        let own_of_type = schema.own_lookup(relation.owner);
        let Some(before) = relation.lookup().filter(|lookup| own_of_type != Some(*lookup)) else { continue };
        let after = *searching.entry(before).or_insert_with(|| add_search(&mut lookups, before, own.contains(&before)));
        if let Some(relation) = schema.relations.get_mut(place) {
            relation.origin = Origin::Documents(after);
        }
    }
    schema.lookups = lookups.into();
}

/// Makes a lookup search for every form, or adds one that does if it has to stay as it is: the own documents of a type are
/// those with the declared `_id`.
fn add_search(lookups: &mut Vec<Lookup>, before: LookupId, is_own: bool) -> LookupId {
    let Some(Lookup { collection, by, text_keys, is_split_off, .. }) = lookups.get(before.index()) else {
        return before;
    };
    let copy = |finds| Lookup {
        finds,
        text_keys: text_keys.clone(),
        is_split_off: *is_split_off,
        ..Lookup::new(collection, by.clone())
    };
    let (search, structures) = (copy(Finds::EveryForm), copy(Finds::Structures));
    let structures = push(lookups, structures);
    let search = Lookup { structures: Some(structures), ..search };
    match lookups.get_mut(before.index()).filter(|_| !is_own) {
        Some(lookup) => {
            *lookup = search;
            before
        }
        None => push(lookups, search),
    }
}

/// Adds a lookup, and returns its number. The compiler has made sure that it fits.
fn push(lookups: &mut Vec<Lookup>, lookup: Lookup) -> LookupId {
    lookups.push(lookup);
    LookupId(u16::try_from(lookups.len().saturating_sub(1)).unwrap_or(u16::MAX))
}

/// Every type.
fn owners(schema: &Schema) -> impl Iterator<Item = Owner> {
    schema
        .resources()
        .map(|(kind, _)| Owner::Resource(kind))
        .chain(schema.subjects().map(|(kind, _)| Owner::Subject(kind)))
}

/// The forms of the ids that each lookup looks up.
pub(super) fn forms(schema: &Schema) -> Vec<Vec<IdForm>> {
    let mut forms = vec![Vec::new(); schema.lookups.len()];
    let own = owners(schema).filter_map(|owner| Some((schema.own_lookup(owner)?, owner)));
    let related = schema.relations.iter().flat_map(|relation| {
        let lookups = [relation.lookup(), schema.structures(relation)].into_iter().flatten();
        lookups.map(|lookup| (lookup, relation.owner))
    });
    for (lookup, owner) in own.chain(related) {
        let form = schema.form(owner);
        if let Some(forms) = forms.get_mut(lookup.index()).filter(|forms| !forms.contains(&form)) {
            forms.push(form);
        }
    }
    forms
}
