//! Values of every BSON type, and the outcome expected of each: a few simple rules that share no code with the crate.
//!
//! Asks no questions.

use mongodb::bson::{
    Binary, Bson, DateTime, DbPointer, Decimal128, JavaScriptCodeWithScope, Regex, Timestamp, doc, oid::ObjectId,
    spec::BinarySubtype,
};

use super::fields::{Field, FieldUse};
use crate::rules::rule::{NOW, future, missing, past};

/// Values of every type, including the right value.
pub fn values(right: &Bson) -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().unwrap());
    let oid = ObjectId::from_bytes([9; 12]);
    let binary = |subtype| Bson::Binary(Binary { subtype, bytes: vec![7; 16] });
    let pointer: DbPointer = serde_pointer(oid);
    let plain = vec![
        missing(),
        Bson::Null,
        "text".into(),
        "".into(),
        "65f000000000000000000001".into(),
        "true".into(),
        "false".into(),
        "*".into(),
        1.into(),
        0.into(),
        2_i64.into(),
        (-1).into(),
        2.5.into(),
        f64::NAN.into(),
        f64::INFINITY.into(),
        decimal("5"),
        decimal("NaN"),
        true.into(),
        false.into(),
        past(),
        future(),
        Bson::DateTime(DateTime::MAX),
        oid.into(),
        doc! {}.into(),
        doc! { "user_id": "@alice" }.into(),
        doc! { "_id": right.clone() }.into(),
        binary(BinarySubtype::Generic),
        binary(BinarySubtype::Uuid),
        Bson::RegularExpression(Regex { pattern: ".*".try_into().unwrap(), options: "i".try_into().unwrap() }),
        Bson::Timestamp(Timestamp { time: 4_000_000_000, increment: 1 }),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::JavaScriptCode("true".into()),
        Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: "true".into(), scope: doc! {} }),
        Bson::Symbol("text".into()),
        Bson::DbPointer(pointer),
    ];
    let right = right.clone();
    let lists = [
        vec![],
        vec![right.clone()],
        vec![right.clone(), right.clone()],
        vec![Bson::Null],
        vec![right.clone(), Bson::Null],
        vec![1.into(), right.clone()],
        vec![right.clone(), "text".into()],
        vec!["text".into()],
        vec![oid.into()],
        vec![Bson::Array(vec![])],
        vec![Bson::Array(vec![right])],
        vec![true.into(), false.into()],
        vec![f64::NAN.into()],
    ];
    plain.into_iter().chain(lists.into_iter().map(Bson::Array)).collect()
}

/// A `DbPointer`, which the driver can only create from Extended JSON.
fn serde_pointer(id: ObjectId) -> DbPointer {
    let json = serde_json::json!({ "$dbPointer": { "$ref": "users", "$id": { "$oid": id.to_hex() } } });
    match Bson::try_from(json) {
        Ok(Bson::DbPointer(pointer)) => pointer,
        other => panic!("{other:?}"),
    }
}

/// The type of a value. The right value may be a name that stands for an id.
fn kind(value: &Bson) -> &'static str {
    match value {
        Bson::Null => "null",
        Bson::String(text) if text.starts_with('@') => "objectid",
        Bson::String(text) if text == "(missing)" => "null",
        Bson::String(_) | Bson::Symbol(_) => "string",
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => "number",
        Bson::Boolean(_) => "bool",
        Bson::DateTime(_) => "date",
        Bson::ObjectId(_) => "objectid",
        Bson::Array(_) => "array",
        Bson::Document(_) => "document",
        _ => "other",
    }
}

/// Whether one of the values that MongoDB tests passes: the value itself, or an element of an array.
fn any(value: &Bson, test: impl Fn(&Bson) -> bool) -> bool {
    test(value) || value.as_array().is_some_and(|items| items.iter().any(test))
}

/// Whether a value is null, missing or of a type. An array is of the type of its elements.
fn is_typed(value: &Bson, wanted: &str) -> bool {
    let is_right = |value: &Bson| [wanted, "null"].contains(&kind(value));
    value.as_array().map_or_else(|| is_right(value), |items| items.iter().all(is_right))
}

/// The expected outcome: `allowed` or a reason.
pub fn expected(field: &Field, value: &Bson) -> &'static str {
    let right = &field.right;
    let of_condition = |matches: bool, wanted: &str| match (matches, is_typed(value, wanted)) {
        (true, true) => "allowed",
        (true, false) => "MALFORMED",
        (false, _) => field.denial,
    };
    match field.usage {
        FieldUse::Id | FieldUse::Secret => {
            let wanted = if field.usage == FieldUse::Id { "objectid" } else { "string" };
            let one = |value: &Bson| match value {
                value if value == right => "allowed",
                Bson::Symbol(_) => "MALFORMED",
                Bson::String(text) if text == "*" => "MALFORMED",
                Bson::String(text) if text.is_empty() => "NO_GRANT",
                value if [wanted, "null"].contains(&kind(value)) => "NO_GRANT",
                _ => "MALFORMED",
            };
            let all: Vec<&str> =
                value.as_array().map_or_else(|| vec![one(value)], |items| items.iter().map(one).collect());
            ["allowed", "MALFORMED"].into_iter().find(|outcome| all.contains(outcome)).unwrap_or("NO_GRANT")
        }
        FieldUse::Key => {
            if any(value, |value| value == right) {
                "allowed"
            } else {
                "NO_GRANT"
            }
        }
        FieldUse::Equal => of_condition(any(value, |value| value == right), kind(right)),
        FieldUse::NotEqual(not) => of_condition(!any(value, |value| *value == Bson::Boolean(not)), "bool"),
        FieldUse::Null => {
            if any(value, |value| kind(value) == "null") {
                "allowed"
            } else {
                "NO_GRANT"
            }
        }
        FieldUse::Date => match value {
            Bson::DateTime(date) if date.timestamp_millis() > NOW => "allowed",
            Bson::DateTime(_) => "EXPIRED",
            value if kind(value) == "null" => "allowed",
            _ => "MALFORMED",
        },
        FieldUse::Excludes(excluding) => {
            let is_excluded = any(value, |value| *value == Bson::Boolean(excluding));
            match (is_excluded, is_typed(value, "bool")) {
                (true, true) => "EXCLUDED",
                (false, true) => "allowed",
                (_, false) => "MALFORMED",
            }
        }
        FieldUse::List => match value {
            value if value == right => "allowed",
            value if kind(value) == "null" => "NO_GRANT",
            Bson::Array(items) if items.iter().any(|item| right.as_array().unwrap().contains(item)) => "allowed",
            Bson::Array(items) if items.iter().all(|item| ["document", "null"].contains(&kind(item))) => "NO_GRANT",
            _ => "MALFORMED",
        },
        FieldUse::Limit => match value {
            value if kind(value) == "null" => "allowed",
            value if kind(value) == "number" && as_f64(value) > 2.0 => "allowed",
            value if kind(value) == "number" => "NO_GRANT",
            // It is below all numbers, so no number is below it.
            Bson::MinKey => "NO_GRANT",
            _ => "MALFORMED",
        },
        FieldUse::Uses => match value {
            value if kind(value) == "null" => "allowed",
            value if kind(value) == "number" && (0.0..3.0).contains(&as_f64(value)) => "allowed",
            // It would count as missing if it were not an array.
            Bson::Array(items) if items.contains(&Bson::Null) => "MALFORMED",
            _ => "NO_GRANT",
        },
    }
}

fn as_f64(value: &Bson) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| match value {
        Bson::Decimal128(decimal) => decimal.to_string().parse().unwrap(),
        other => panic!("{other}"),
    })
}
