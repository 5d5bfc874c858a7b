//! MongoDB's order of values across all BSON types: the meaning of `$lt` and the other comparisons.
//!
//! Strings are compared byte by byte, as with the default collation. Other collations are not supported.

use std::{cmp::Ordering, str::FromStr};

use bigdecimal::BigDecimal;
use bson::{Binary, Bson, Document, spec::BinarySubtype};

/// MongoDB's classes of types whose values compare with each other ("canonical types"), in MongoDB's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    MinKey,
    Missing,
    Null,
    Number,
    String,
    Document,
    Array,
    Binary,
    ObjectId,
    Bool,
    Date,
    Timestamp,
    Regex,
    DbPointer,
    Code,
    CodeWithScope,
    MaxKey,
}

impl Class {
    pub(crate) fn of(value: &Bson) -> Self {
        match value {
            Bson::MinKey => Self::MinKey,
            Bson::Undefined => Self::Missing,
            Bson::Null => Self::Null,
            Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => Self::Number,
            Bson::String(_) | Bson::Symbol(_) => Self::String,
            Bson::Document(_) => Self::Document,
            Bson::Array(_) => Self::Array,
            Bson::Binary(_) => Self::Binary,
            Bson::ObjectId(_) => Self::ObjectId,
            Bson::Boolean(_) => Self::Bool,
            Bson::DateTime(_) => Self::Date,
            Bson::Timestamp(_) => Self::Timestamp,
            Bson::RegularExpression(_) => Self::Regex,
            Bson::DbPointer(_) => Self::DbPointer,
            Bson::JavaScriptCode(_) => Self::Code,
            Bson::JavaScriptCodeWithScope(_) => Self::CodeWithScope,
            Bson::MaxKey => Self::MaxKey,
        }
    }

    /// Whether the value is null or missing.
    pub(crate) fn is_nothing(self) -> bool {
        matches!(self, Self::Missing | Self::Null)
    }
}

/// Whether the value is NaN. For query operators NaN is equal to itself and comparable to nothing else.
pub(crate) fn is_nan(value: &Bson) -> bool {
    match value {
        Bson::Double(double) => double.is_nan(),
        Bson::Decimal128(decimal) => decimal.to_string() == "NaN",
        _ => false,
    }
}

/// Compares two values in MongoDB's total order. NaN is the least number.
pub(crate) fn compare(left: &Bson, right: &Bson) -> Ordering {
    let by_class = Class::of(left).cmp(&Class::of(right));
    if by_class.is_ne() {
        return by_class;
    }
    match (left, right) {
        (Bson::Boolean(l), Bson::Boolean(r)) => l.cmp(r),
        (Bson::DateTime(l), Bson::DateTime(r)) => l.cmp(r),
        (Bson::Timestamp(l), Bson::Timestamp(r)) => (l.time, l.increment).cmp(&(r.time, r.increment)),
        (Bson::ObjectId(l), Bson::ObjectId(r)) => l.bytes().cmp(&r.bytes()),
        (Bson::Document(l), Bson::Document(r)) => compare_documents(l, r),
        (Bson::Array(l), Bson::Array(r)) => {
            let first_difference = l.iter().zip(r).map(|(l, r)| compare(l, r)).find(|order| order.is_ne());
            first_difference.unwrap_or_else(|| l.len().cmp(&r.len()))
        }
        (Bson::Binary(l), Bson::Binary(r)) => {
            (stored_len(l), u8::from(l.subtype), &l.bytes).cmp(&(stored_len(r), u8::from(r.subtype), &r.bytes))
        }
        (Bson::String(l) | Bson::Symbol(l), Bson::String(r) | Bson::Symbol(r))
        | (Bson::JavaScriptCode(l), Bson::JavaScriptCode(r)) => l.as_bytes().cmp(r.as_bytes()),
        (Bson::RegularExpression(l), Bson::RegularExpression(r)) => {
            (l.pattern.as_str(), l.options.as_str()).cmp(&(r.pattern.as_str(), r.options.as_str()))
        }
        (Bson::JavaScriptCodeWithScope(l), Bson::JavaScriptCodeWithScope(r)) => {
            l.code.cmp(&r.code).then_with(|| compare_documents(&l.scope, &r.scope))
        }
        (Bson::DbPointer(l), Bson::DbPointer(r)) => format!("{l:?}").cmp(&format!("{r:?}")),
        _ if Class::of(left) == Class::Number => compare_numbers(left, right),
        _ => Ordering::Equal,
    }
}

/// The length that MongoDB compares: it stores the length of an old-style binary before its bytes.
fn stored_len(binary: &Binary) -> usize {
    let before = if binary.subtype == BinarySubtype::BinaryOld { size_of::<i32>() } else { 0 };
    binary.bytes.len() + before
}

fn compare_documents(left: &Document, right: &Document) -> Ordering {
    let first_difference = left.iter().zip(right).map(|((l_name, l), (r_name, r))| {
        let by_class = Class::of(l).cmp(&Class::of(r));
        by_class.then_with(|| l_name.as_bytes().cmp(r_name.as_bytes())).then_with(|| compare(l, r))
    });
    first_difference.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| left.len().cmp(&right.len()))
}

fn compare_numbers(left: &Bson, right: &Bson) -> Ordering {
    if let (Some(left), Some(right)) = (whole(left), whole(right)) {
        return left.cmp(&right);
    }
    let order = double(left).zip(double(right)).and_then(|(left, right)| left.partial_cmp(&right));
    order.unwrap_or_else(|| Exact::of(left).cmp(&Exact::of(right)))
}

fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(int) => Some(i64::from(*int)),
        Bson::Int64(long) => Some(*long),
        _ => None,
    }
}

/// The number as a double, if it is one or fits in 32 bits, so that the conversion loses nothing.
fn double(value: &Bson) -> Option<f64> {
    match value {
        Bson::Double(double) => Some(*double),
        value => whole(value).and_then(|whole| i32::try_from(whole).ok()).map(f64::from),
    }
}

/// The exact value of an int, a long, a double or a decimal, in MongoDB's order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Exact {
    NaN,
    Least,
    Finite(BigDecimal),
    Greatest,
}

impl Exact {
    fn of(value: &Bson) -> Self {
        let text = match value {
            Bson::Int32(int) => return Self::Finite(BigDecimal::from(*int)),
            Bson::Int64(long) => return Self::Finite(BigDecimal::from(*long)),
            Bson::Double(double) if double.is_nan() => return Self::NaN,
            Bson::Double(double) if double.is_infinite() => {
                return if *double > 0.0 { Self::Greatest } else { Self::Least };
            }
            Bson::Double(double) => return BigDecimal::try_from(*double).map_or(Self::NaN, Self::Finite),
            Bson::Decimal128(decimal) => decimal.to_string(),
            _ => return Self::NaN,
        };
        match text.as_str() {
            "Infinity" => Self::Greatest,
            "-Infinity" => Self::Least,
            digits => BigDecimal::from_str(digits).map_or(Self::NaN, Self::Finite),
        }
    }
}
