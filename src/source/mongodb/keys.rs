//! Queries for the documents in which a lookup finds some keys.
//!
//! Runs no command.

use std::iter;

use bson::{Binary, Bson, Document, doc, oid::ObjectId, spec::BinarySubtype};

use crate::{
    fact::{id_to_bson, other_forms},
    question::{Id, IdForm},
    schema::{Finds, Lookup},
};

/// The documents that have one of the keys. An index on the field of the lookup serves it.
pub(super) fn has_key(lookup: &Lookup, keys: &[Id]) -> Document {
    let by = lookup.by.as_str();
    let values: Vec<Bson> = match lookup.finds {
        Finds::DeclaredForm => keys.iter().map(id_to_bson).collect(),
        Finds::EveryForm => keys.iter().flat_map(|key| iter::once(id_to_bson(key)).chain(other_forms(key))).collect(),
        Finds::Structures => {
            // No operator reads only the arrays of an index. So this one reads all but null and the values of a declared form.
            let declared = lookup.forms.first().copied().map_or(Bson::MaxKey, least);
            let array = doc! { "$gte": [], "$nin": [Bson::Null], "$not": { "$gte": declared } };
            return doc! { "$or": [{ by: { "$type": ["object", "dbPointer"] } }, { by: { "$elemMatch": array } }] };
        }
    };
    doc! { by: { "$in": values } }
}

/// The least value of the type that ids of a form have.
fn least(form: IdForm) -> Bson {
    match form {
        IdForm::ObjectId => ObjectId::from_bytes([0; 12]).into(),
        IdForm::String => "".into(),
        IdForm::Integer => f64::NEG_INFINITY.into(),
        IdForm::Uuid => Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: Vec::new() }),
    }
}
