//! Converts BSON values to ids and back.
//!
//! It does not convert between types: a string of 24 hex digits is not an `ObjectId`. Only the numeric types are alike, as
//! in MongoDB's equality.

use bson::{Binary, Bson, Document, oid::ObjectId, spec::BinarySubtype};

use super::DocumentId;
use crate::{
    question::{ID_BYTES_MAX, Id, IdForm},
    schema::{Format, whole_number},
};

/// The value as an id of the given form; none if the value has another type.
pub(super) fn id_from_bson(value: &Bson, form: IdForm, is_secret: bool) -> Option<Id> {
    match form {
        IdForm::ObjectId => value.as_object_id().map(|id| Id::ObjectId(id.bytes())),
        IdForm::String if is_secret => value.as_str().map(Id::digest),
        IdForm::String => value.as_str().map(|text| Id::String(text.into())),
        IdForm::Integer => whole_number(value).map(Id::Integer),
        IdForm::Uuid => uuid(value).map(Id::Uuid),
    }
}

/// The id that a text means in place of `{id}` in a format. Its hex digits may be in lower case or in upper case, but not in both: a query for
/// an id names both spellings, and could not name all others.
pub(crate) fn id_of_text(text: &str, form: IdForm, is_secret: bool) -> Option<Id> {
    let id = Id::parse(text, form, is_secret).ok()?;
    let is_spelled = match id {
        Id::ObjectId(_) | Id::Uuid(_) => {
            !(text.contains(|c: char| c.is_ascii_lowercase()) && text.contains(|c: char| c.is_ascii_uppercase()))
        }
        Id::Integer(_) | Id::String(_) | Id::Digest(_) => true,
    };
    is_spelled.then_some(id)
}

/// The id that a value in a listing means; none if it has another type or is no id. `format` is set if ids are written as text.
pub(crate) fn listed_id(value: &Bson, form: IdForm, format: Option<&Format>) -> Option<Id> {
    let id = match (value, format) {
        (Bson::String(text) | Bson::Symbol(text), Some(format)) => id_of_text(format.id_in(text)?, form, false),
        (_, Some(_)) => None,
        (Bson::Symbol(text), None) if form == IdForm::String => Some(Id::String(text.as_str().into())),
        (value, None) => id_from_bson(value, form, false),
    };
    let is_id = |id: &Id| match id {
        Id::String(text) => (1..=ID_BYTES_MAX).contains(&text.len()) && **text != *"*",
        Id::ObjectId(_) | Id::Integer(_) | Id::Uuid(_) | Id::Digest(_) => true,
    };
    id.filter(is_id)
}

/// The value as an id of any form. In MongoDB a symbol equals a string, so a lookup by that string finds it.
pub(super) fn id_of_any_form(value: &Bson) -> Option<Id> {
    match value {
        Bson::Symbol(text) => Some(Id::String(text.as_str().into())),
        value => IdForm::ALL.into_iter().find_map(|form| id_from_bson(value, form, false)),
    }
}

/// The value to look up in MongoDB. A digest cannot be looked up, and the schema compiler makes sure that none is.
pub(crate) fn id_to_bson(id: &Id) -> Bson {
    match id {
        Id::ObjectId(bytes) => Bson::ObjectId(ObjectId::from_bytes(*bytes)),
        Id::Integer(number) => Bson::Int64(*number),
        Id::Uuid(bytes) => Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: bytes.to_vec() }),
        Id::String(text) => Bson::String(text.to_string()),
        Id::Digest(_) => Bson::Undefined,
    }
}

impl DocumentId {
    /// The `_id` of a document.
    pub(crate) fn of(document: &Document) -> Self {
        match document.get("_id") {
            Some(value) => match id_of_any_form(value).filter(|id| id.size() <= ID_BYTES_MAX) {
                Some(id) => Self::Id(id),
                None => Self::Other(value.clone().into_canonical_extjson().to_string().into()),
            },
            None => Self::Other("null".into()),
        }
    }
}

fn uuid(value: &Bson) -> Option<[u8; 16]> {
    match value {
        Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes }) => bytes.as_slice().try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_different_types_differ_except_numbers() {
        assert_eq!(id_from_bson(&"65f000000000000000000001".into(), IdForm::ObjectId, false), None);
        assert_eq!(id_from_bson(&Bson::Double(5.0), IdForm::Integer, false), Some(Id::Integer(5)));
        assert_eq!(id_from_bson(&Bson::Double(5.5), IdForm::Integer, false), None);
        assert_eq!(id_from_bson(&Bson::Double(-0.0), IdForm::Integer, false), Some(Id::Integer(0)));
        assert_eq!(id_from_bson(&Bson::Double(1e300), IdForm::Integer, false), None);
        assert_eq!(id_from_bson(&Bson::Double(9_223_372_036_854_775_808.0), IdForm::Integer, false), None);
        assert_eq!(id_from_bson(&"5".into(), IdForm::Integer, false), None);
    }

    #[test]
    fn hex_digits_in_a_text_are_in_one_case() {
        let uuid = "123e4567-e89b-12d3-a456-42661417400f";
        let upper = uuid.to_uppercase();
        for (text, form, is_id) in [
            ("65f00000000000000000000a", IdForm::ObjectId, true),
            ("65F00000000000000000000A", IdForm::ObjectId, true),
            ("650000000000000000000001", IdForm::ObjectId, true),
            ("65F00000000000000000000a", IdForm::ObjectId, false),
            (uuid, IdForm::Uuid, true),
            (&upper, IdForm::Uuid, true),
            (&upper.replace('F', "f"), IdForm::Uuid, false),
            ("Ann", IdForm::String, true),
        ] {
            assert_eq!(id_of_text(text, form, false).is_some(), is_id, "{text}");
        }
    }
}
