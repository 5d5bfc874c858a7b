//! BSON's types: their names and numbers in MongoDB's `$type`, and which of them are types of values.

use bson::{Bson, spec::ElementType};

use super::order::Class;
use crate::question::IdForm;

/// The types that `$type` distinguishes, with their numbers and names in MongoDB.
const TYPES: [(i64, &str, ElementType); 21] = [
    (1, "double", ElementType::Double),
    (2, "string", ElementType::String),
    (3, "object", ElementType::EmbeddedDocument),
    (4, "array", ElementType::Array),
    (5, "binData", ElementType::Binary),
    (6, "undefined", ElementType::Undefined),
    (7, "objectId", ElementType::ObjectId),
    (8, "bool", ElementType::Boolean),
    (9, "date", ElementType::DateTime),
    (10, "null", ElementType::Null),
    (11, "regex", ElementType::RegularExpression),
    (12, "dbPointer", ElementType::DbPointer),
    (13, "javascript", ElementType::JavaScriptCode),
    (14, "symbol", ElementType::Symbol),
    (15, "javascriptWithScope", ElementType::JavaScriptCodeWithScope),
    (16, "int", ElementType::Int32),
    (17, "timestamp", ElementType::Timestamp),
    (18, "long", ElementType::Int64),
    (19, "decimal", ElementType::Decimal128),
    (-1, "minKey", ElementType::MinKey),
    (127, "maxKey", ElementType::MaxKey),
];

/// The name of all types of numbers together.
pub(crate) const NUMBER: &str = "number";

/// The types that [`NUMBER`] stands for.
pub(crate) const NUMBERS: [ElementType; 4] =
    [ElementType::Double, ElementType::Int32, ElementType::Int64, ElementType::Decimal128];

/// The names of all types.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|(_, name, _)| *name)
}

/// The type of this name.
pub(super) fn named(wanted: &str) -> Option<ElementType> {
    TYPES.iter().find(|(_, name, _)| *name == wanted).map(|(_, _, kind)| *kind)
}

/// The type of this number.
pub(super) fn numbered(wanted: i64) -> Option<ElementType> {
    TYPES.iter().find(|(number, _, _)| *number == wanted).map(|(_, _, kind)| *kind)
}

/// The name of a type in MongoDB.
pub(crate) fn type_name(wanted: ElementType) -> &'static str {
    TYPES.iter().find(|(_, _, kind)| *kind == wanted).map_or("missing", |(_, name, _)| *name)
}

/// The types of values, except these. Null and `undefined` are no values.
pub(crate) fn value_types_except(types: &[ElementType]) -> impl Iterator<Item = ElementType> {
    let is_value = |kind: &ElementType| !matches!(kind, ElementType::Null | ElementType::Undefined);
    TYPES.iter().map(|(_, _, kind)| *kind).filter(move |kind| is_value(kind) && !types.contains(kind))
}

/// The types of the values that are ids of a form.
pub(crate) fn id_types(form: IdForm) -> &'static [ElementType] {
    match form {
        IdForm::ObjectId => &[ElementType::ObjectId],
        IdForm::String => &[ElementType::String],
        IdForm::Integer => &NUMBERS,
        IdForm::Uuid => &[ElementType::Binary],
    }
}

/// The types of the values that MongoDB compares with this one, by [`Class`]. None for null.
pub(crate) fn comparable_types(operand: &Bson) -> &'static [ElementType] {
    match Class::of(operand) {
        Class::Missing | Class::Null => &[],
        Class::Number => &NUMBERS,
        Class::String => &[ElementType::String, ElementType::Symbol],
        Class::MinKey => &[ElementType::MinKey],
        Class::Document => &[ElementType::EmbeddedDocument],
        Class::Array => &[ElementType::Array],
        Class::Binary => &[ElementType::Binary],
        Class::ObjectId => &[ElementType::ObjectId],
        Class::Bool => &[ElementType::Boolean],
        Class::Date => &[ElementType::DateTime],
        Class::Timestamp => &[ElementType::Timestamp],
        Class::Regex => &[ElementType::RegularExpression],
        Class::DbPointer => &[ElementType::DbPointer],
        Class::Code => &[ElementType::JavaScriptCode],
        Class::CodeWithScope => &[ElementType::JavaScriptCodeWithScope],
        Class::MaxKey => &[ElementType::MaxKey],
    }
}
