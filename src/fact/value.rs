//! Converts BSON values to ids and back.
//!
//! It does not convert between types: a string of 24 hex digits is not an `ObjectId`. Only the numeric types are alike, as
//! in MongoDB's equality.

use std::str::FromStr;

use bigdecimal::BigDecimal;
use bson::{Binary, Bson, Document, oid::ObjectId, spec::BinarySubtype};

use super::DocumentId;
use crate::question::{ID_BYTES_MAX, Id, IdForm};

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

fn whole_number(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(double) => whole_double(*double),
        Bson::Decimal128(decimal) => whole_decimal(&decimal.to_string()),
        _ => None,
    }
}

/// The whole number that a decimal is, if it fits in 64 bits. It may be written in any way: `5`, `5.00`, `0.5E1`.
fn whole_decimal(text: &str) -> Option<i64> {
    let (digits, scale) = BigDecimal::from_str(text).ok()?.normalized().into_bigint_and_exponent();
    let zeros = u32::try_from(scale.checked_neg()?).ok()?;
    i64::try_from(digits).ok()?.checked_mul(10_i64.checked_pow(zeros)?)
}

/// The whole number that a double is, if it fits in 64 bits.
fn whole_double(double: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if double.fract() != 0.0 || !(-LIMIT..LIMIT).contains(&double) {
        return None;
    }
    format!("{double:.0}").parse().ok()
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
    fn a_decimal_has_the_same_value_in_every_notation() {
        for (text, number) in [
            ("5", Some(5)),
            ("5.00", Some(5)),
            ("0.5E1", Some(5)),
            ("5E+18", Some(5_000_000_000_000_000_000)),
            ("-0", Some(0)),
            ("0E+6000", Some(0)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808.0", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1E+19", None),
            ("1E+6000", None),
            ("5.5", None),
            ("NaN", None),
            ("Infinity", None),
        ] {
            let decimal = Bson::Decimal128(text.parse().unwrap());
            assert_eq!(id_from_bson(&decimal, IdForm::Integer, false), number.map(Id::Integer), "{text}");
        }
    }
}
