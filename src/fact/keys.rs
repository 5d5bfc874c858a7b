//! The keys by which a lookup finds a document.
//!
//! Does not know what a document grants.

use bson::{Bson, Document};

use super::{FactKey, forms::ids_of_other_forms, value::id_of_any_form};
use crate::{
    question::Id,
    schema::{End, Finds, Lookup},
};

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

/// Visits every key by which a lookup finds a value or an element of an array.
fn value_keys(lookup: &Lookup, value: &Bson, visit: &mut impl FnMut(Id)) {
    match lookup.finds {
        Finds::Structures => match value {
            Bson::Document(_) | Bson::DbPointer(_) => visit(FactKey::id_of_structures()),
            _ => {}
        },
        Finds::EveryForm => {
            id_of_any_form(value).into_iter().for_each(&mut *visit);
            ids_of_other_forms(value, &lookup.forms, visit);
        }
        Finds::DeclaredForm => id_of_any_form(value).into_iter().for_each(visit),
    }
}

/// Whether a document has the key in the form in which the schema declares it.
pub(super) fn has_declared_key(lookup: &Lookup, document: &Document, key: &Id) -> bool {
    let is_key = |value: &Bson| id_of_any_form(value).as_ref() == Some(key);
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
mod tests {
    use bson::doc;

    use super::*;
    use crate::schema::Path;

    #[test]
    fn a_document_is_found_by_each_element_of_an_array() {
        let mut keys = Vec::new();
        let document = doc! { "owners": [{ "id": 1 }, { "id": [2, "x"] }, 3] };
        let lookup = Lookup::by("files", Path::parse("owners.id").unwrap());
        document_keys(&lookup, &document, &mut |id| keys.push(id.to_string()));
        assert_eq!(keys, ["1", "2", "x"]);
    }
}
