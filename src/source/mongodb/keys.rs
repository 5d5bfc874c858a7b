//! Queries for the documents in which a lookup finds some keys.
//!
//! Runs no command.

use bson::{Binary, Bson, Document, doc, oid::ObjectId, spec::BinarySubtype};

use crate::{
    fact::key_values,
    question::{Id, IdForm},
    schema::{Finds, Lookup},
};

/// The documents that have one of the keys. An index on the field of the lookup serves it.
pub(super) fn has_key(lookup: &Lookup, keys: &[Id]) -> Document {
    let by = lookup.by.as_str();
    let values: Vec<Bson> = match lookup.finds {
        Finds::DeclaredForm | Finds::EveryForm => keys.iter().flat_map(|key| key_values(lookup, key)).collect(),
        Finds::Structures => {
            // No operator reads only the arrays of an index. So this one reads all but null and the values of a declared form.
            let form = lookup.text_keys.as_ref().map(|_| IdForm::String).or(lookup.forms.first().copied());
            let declared = form.map_or(Bson::MaxKey, least);
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
