//! The keys by which a lookup finds a document.
//!
//! Does not know what a document grants.

use std::collections::BTreeSet;

use bson::{Bson, Document};

use super::{
    FactKey,
    forms::{ids_of_other_forms, other_forms},
    value::{id_of_any_form, id_of_text, id_to_bson},
};
use crate::{
    question::{ID_BYTES_MAX, Id, LookupId},
    schema::{End, Finds, Format, Lookup, Schema, TextKeys},
};

/// The value that means a text in a field, such as a secret or the `*` for everybody.
pub(crate) fn text_value(format: Option<&Format>, text: &str) -> Bson {
    Bson::String(format.map_or_else(|| text.to_owned(), |format| format.text(text)))
}

/// The values by which a lookup finds a key. The key of structures has none.
pub(crate) fn key_values(lookup: &Lookup, key: &Id) -> Vec<Bson> {
    let mut values = id_values(lookup.text_keys.as_ref().map(|keys| &keys.format), key);
    match (lookup.finds, &lookup.text_keys) {
        (Finds::DeclaredForm | Finds::Structures, _) => {}
        (Finds::EveryForm, None) => values.extend(other_forms(key)),
        // A text that lacks the parts around the id leads to nobody.
        (Finds::EveryForm, Some(keys)) => {
            let others = [id_to_bson(key)].into_iter().chain(other_forms(key));
            let others = others.filter_map(|value| match value {
                Bson::String(text) | Bson::Symbol(text) => other_text(keys, &text, key),
                value => Some(value),
            });
            values.extend(others);
            values.dedup();
        }
    }
    values
}

/// The texts that mean an id: hex digits may be written in lower case or in upper case, but not in both.
pub(crate) fn id_texts(format: &Format, id: &Id) -> Vec<String> {
    let plain = id.to_string();
    let upper = matches!(id, Id::ObjectId(_) | Id::Uuid(_)).then(|| format.text(&plain.to_ascii_uppercase()));
    let mut texts = vec![format.text(&plain)];
    texts.extend(upper);
    texts.dedup();
    texts
}

/// The values that mean an id in a field: texts, if the field writes ids as text.
pub(crate) fn id_values(format: Option<&Format>, id: &Id) -> Vec<Bson> {
    match format {
        Some(format) => id_texts(format, id).into_iter().map(Bson::String).collect(),
        None => vec![id_to_bson(id)],
    }
}

/// The text of an id in another form, with the parts around it; none if it is a text in the declared form.
fn other_text(keys: &TextKeys, text: &str, id: &Id) -> Option<Bson> {
    let text = keys.format.text(text);
    (!id_texts(&keys.format, id).contains(&text)).then_some(Bson::String(text))
}

/// The id that a value means in the form that the schema declares. In MongoDB a symbol equals a string.
fn declared_id(lookup: &Lookup, value: &Bson) -> Option<Id> {
    let Some(keys) = &lookup.text_keys else { return id_of_any_form(value) };
    let (Bson::String(text) | Bson::Symbol(text)) = value else { return None };
    let text_of_id = keys.format.id_in(text)?;
    if lookup.is_reverse && text_of_id == "*" {
        return Some(FactKey::id_of_everybody());
    }
    id_of_text(text_of_id, keys.id, false)
}

/// Visits every key by which a lookup finds a document. An array is found by each of its elements. A key may be visited more
/// than once.
pub(crate) fn document_keys(lookup: &Lookup, document: &Document, visit: &mut impl FnMut(Id)) {
    lookup.by.ends(document, &mut |end| match end {
        End::Value(Bson::Array(items)) => items.iter().for_each(|item| {
            value_keys(lookup, item, &mut *visit);
            if lookup.finds == Finds::Structures && item.as_array().is_some() {
                visit(FactKey::id_of_structures());
            }
        }),
        End::Value(value) => value_keys(lookup, value, &mut *visit),
        End::Missing | End::Blocked => {}
    });
}

/// How many keys of one reverse lookup are named one by one, where a document changes.
const REVERSE_KEYS_MAX: usize = 64;

/// How many bytes the keys of reverse lookups that changed at one moment may take of a change batch, and how many each takes besides
/// its id.
const REVERSE_BYTES_MAX: usize = 1_024;
const KEY_BYTES: usize = 8;

/// Lets one key of each reverse lookup stand for all of its keys if the keys of reverse lookups take too much. Otherwise what changed at
/// one moment might not fit into a message between instances, and would outdate every fact.
pub(crate) fn bound_reverse_keys(schema: &Schema, keys: &mut Vec<FactKey>) {
    let is_reverse = |key: &FactKey| schema.lookup(key.lookup).is_reverse;
    let bytes = keys.iter().filter(|key| is_reverse(key)).map(|key| key.id.size() + KEY_BYTES).sum::<usize>();
    if bytes <= REVERSE_BYTES_MAX {
        return;
    }
    let lookups: BTreeSet<LookupId> = keys.iter().filter(|key| is_reverse(key)).map(|key| key.lookup).collect();
    keys.retain(|key| !is_reverse(key));
    keys.extend(lookups.into_iter().map(FactKey::all_reverse));
}

/// The keys of a lookup under which a document is found. If a reverse lookup finds it under too many, one that stands for all of them.
pub(crate) fn changed_keys(id: LookupId, lookup: &Lookup, document: &Document) -> Vec<FactKey> {
    let mut keys = Vec::new();
    if !lookup.is_reverse {
        document_keys(lookup, document, &mut |key| keys.push(FactKey::whole(id, key)));
        return keys;
    }
    let mut distinct = BTreeSet::new();
    document_keys(lookup, document, &mut |key| {
        if distinct.len() <= REVERSE_KEYS_MAX {
            distinct.insert(key);
        }
    });
    if distinct.len() > REVERSE_KEYS_MAX {
        return vec![FactKey::all_reverse(id)];
    }
    distinct.into_iter().map(|key| FactKey::whole(id, key)).collect()
}

/// Visits every key by which a lookup finds a value or an element of an array.
fn value_keys(lookup: &Lookup, value: &Bson, visit: &mut impl FnMut(Id)) {
    match lookup.finds {
        Finds::Structures => match value {
            Bson::Document(_) | Bson::DbPointer(_) => visit(FactKey::id_of_structures()),
            _ => {}
        },
        Finds::EveryForm => {
            declared_id(lookup, value).into_iter().for_each(&mut *visit);
            match (&lookup.text_keys, value) {
                (None, value) => ids_of_other_forms(value, &lookup.forms, visit),
                (Some(keys), Bson::String(text) | Bson::Symbol(text)) => {
                    if let Some(id) = keys.format.id_in(text) {
                        ids_of_other_forms(&Bson::String(id.to_owned()), &lookup.forms, visit);
                    }
                }
                (Some(_), value) => {
                    id_of_any_form(value).into_iter().for_each(&mut *visit);
                    ids_of_other_forms(value, &lookup.forms, visit);
                }
            }
        }
        // Nobody asks for an id that is too long for one.
        Finds::DeclaredForm if lookup.is_reverse => {
            declared_id(lookup, value).filter(|id| id.size() <= ID_BYTES_MAX).into_iter().for_each(visit);
        }
        Finds::DeclaredForm => declared_id(lookup, value).into_iter().for_each(visit),
    }
}

/// Whether a document has the key in the form in which the schema declares it.
pub(super) fn has_declared_key(lookup: &Lookup, document: &Document, key: &Id) -> bool {
    let is_key = |value: &Bson| declared_id(lookup, value).as_ref() == Some(key);
    let mut found = false;
    lookup.by.ends(document, &mut |end| {
        found |= match end {
            End::Value(Bson::Array(items)) => items.iter().any(is_key),
            End::Value(value) => is_key(value),
            End::Missing | End::Blocked => false,
        };
    });
    found
}

#[cfg(test)]
mod tests;
