//! The values in generated conditions and documents: families of values that are easily confused or close to each other.
//!
//! `DbPointer`, which no current driver writes, is left out.

use bson::{
    Binary, Bson, DateTime, Document, JavaScriptCodeWithScope, Regex, Timestamp, bson, doc,
    oid::ObjectId,
    spec::BinarySubtype::{self, BinaryOld, Generic, Uuid, UuidOld},
};

/// Above this number, a double cannot represent every whole number.
const TWO_TO_THE_53: i64 = 1 << 53;

/// Whether a schema accepts the value as an operand.
pub(crate) fn is_operand(value: &Bson) -> bool {
    let is_uuid = matches!(value, Bson::Binary(binary) if binary.subtype == Uuid);
    is_uuid || is_ordered(value) || matches!(value, Bson::Null | Bson::Boolean(_))
}

/// Whether `$gt`, `$gte`, `$lt` and `$lte` accept the value in a schema.
pub(crate) fn is_ordered(value: &Bson) -> bool {
    match value {
        Bson::Double(double) => !double.is_nan(),
        Bson::Int32(_) | Bson::Int64(_) | Bson::String(_) | Bson::ObjectId(_) | Bson::DateTime(_) => true,
        _ => false,
    }
}

/// Every value of every family, and some values that contain others.
pub(crate) fn all() -> Vec<Bson> {
    let mut all = families().concat();
    all.extend([Bson::Null, true.into(), false.into(), bson!({}), bson!([])]);
    all.extend([Bson::Array(vec![Bson::Undefined]), bson!([[3]]), bson!([[[3]], 0])]);
    all.extend([bson!([1]), bson!([1.5, 0]), bson!([1, null]), bson!([[1]])]);
    all.extend([bson!({ "a": 1 }), bson!({ "a": 2 }), bson!({ "a": "b" }), bson!({ "a": null })]);
    all.extend([bson!({ "b": 1 }), bson!({ "a": 1, "b": 0 }), bson!({ "b": 0, "a": 1 }), bson!({ "a": [1] })]);
    all
}

/// The families.
pub(crate) fn families() -> Vec<Vec<Bson>> {
    let above = TWO_TO_THE_53 + 1;
    vec![
        [
            ints(&[0, 1, 2]),
            longs(&[0, 1]),
            doubles(&[-0.0, 1.0, 1.5]),
            decimals(&["0", "-0E+3", "1", "1.00", "1.5", "2E+0"]),
            strings(&["1"]),
        ]
        .concat(),
        [
            longs(&[TWO_TO_THE_53 - 1, TWO_TO_THE_53, above, -above]),
            doubles(&[9_007_199_254_740_992.0, 9_007_199_254_740_994.0, -9_007_199_254_740_992.0]),
            decimals(&["9007199254740992", "9007199254740992.5", "9007199254740993", "-9007199254740993"]),
        ]
        .concat(),
        // The bounds of int and long.
        [
            ints(&[i32::MIN, i32::MAX]),
            longs(&[i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX]),
            doubles(&[-2_147_483_648.0, 2_147_483_647.5, 9_223_372_036_854_775_808.0, -9_223_372_036_854_775_808.0]),
            decimals(&["9223372036854775807", "9223372036854775808", "-9223372036854775808"]),
        ]
        .concat(),
        // The double 0.1 is slightly more than 0.1. The decimals are its first 34 digits, and one less in the last digit.
        [
            doubles(&[0.1, -0.1, 0.5]),
            decimals(&["0.1", "0.1000000000000000055511151231257827", "0.1000000000000000055511151231257826"]),
            decimals(&["-0.1000000000000000055511151231257827", "0.50"]),
        ]
        .concat(),
        // Very small numbers.
        [
            doubles(&[0.0, f64::from_bits(1), -f64::from_bits(1), f64::MIN_POSITIVE]),
            decimals(&["4.940656458412465441765687928682214E-324", "1E-6176", "-1E-6176", "0E-6176"]),
        ]
        .concat(),
        // Very large numbers.
        [
            doubles(&[f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN, f64::MAX, 1e300]),
            decimals(&["Infinity", "-Infinity", "NaN", "-NaN", "sNaN"]),
            decimals(&["1E+300", "9.999999999999999999999999999999999E+6144"]),
        ]
        .concat(),
        // The last two have the opposite order in UTF-16.
        strings(&["", "A", "a", "a\0", "a\0b", "ab", "b", "true", "\u{fffd}", "\u{1f600}"]),
        // Neither the digits nor the bytes of an ObjectId are an ObjectId.
        [
            object_ids(&[[0; 12], [b'e'; 12], *b"eeeeeeeeeeef", [0xff; 12]]),
            strings(&["656565656565656565656565", "eeeeeeeeeeee"]),
            binaries(Generic, &[&[b'e'; 12]]),
        ]
        .concat(),
        // The timestamp (0, 0) is left out, because mongod replaces it with the current time.
        [
            dates(&[i64::MIN, -1, 0, 1, 1_700_000_000_000, i64::MAX]),
            timestamps(&[(0, 1), (1, 0), (1, 1), (u32::MAX, 0)]),
            longs(&[1_700_000_000_000]),
            strings(&["1970-01-01T00:00:00Z"]),
        ]
        .concat(),
        // mongod includes the inner length of an old-style binary: 12 bytes count as 16, and 16 as 20.
        [
            binaries(Uuid, &[&[0; 16], &[0xf0; 16]]),
            binaries(UuidOld, &[&[0; 16], &[0xf0; 16]]),
            binaries(Generic, &[&[], &[0; 16], &[0xf0; 16], &[0xf0; 20]]),
            binaries(BinaryOld, &[&[], &[0xf0; 12], &[0; 16], &[0xf0; 16]]),
        ]
        .concat(),
        // Values of all other types.
        [
            vec![Bson::MinKey, Bson::MaxKey, Bson::Undefined, Bson::Symbol("a".into())],
            regexes(&[("a", ""), ("a", "i"), ("b", "")]),
            codes(&["a", "b"]),
            scopes(&[doc! {}, doc! { "a": 1 }, doc! { "a": 1.0 }, doc! { "b": 0 }]),
            strings(&["a"]),
        ]
        .concat(),
    ]
}

fn ints(values: &[i32]) -> Vec<Bson> {
    values.iter().copied().map(Bson::Int32).collect()
}

fn longs(values: &[i64]) -> Vec<Bson> {
    values.iter().copied().map(Bson::Int64).collect()
}

fn doubles(values: &[f64]) -> Vec<Bson> {
    values.iter().copied().map(Bson::Double).collect()
}

fn decimals(texts: &[&str]) -> Vec<Bson> {
    let decimals = texts.iter().map(|text| text.parse().unwrap());
    decimals.map(Bson::Decimal128).collect()
}

fn strings(texts: &[&str]) -> Vec<Bson> {
    texts.iter().copied().map(Bson::from).collect()
}

fn object_ids(ids: &[[u8; 12]]) -> Vec<Bson> {
    let ids = ids.iter().map(|bytes| ObjectId::from_bytes(*bytes));
    ids.map(Bson::ObjectId).collect()
}

fn dates(millis: &[i64]) -> Vec<Bson> {
    let dates = millis.iter().map(|millis| DateTime::from_millis(*millis));
    dates.map(Bson::DateTime).collect()
}

fn timestamps(moments: &[(u32, u32)]) -> Vec<Bson> {
    let timestamps = moments.iter().map(|&(time, increment)| Timestamp { time, increment });
    timestamps.map(Bson::Timestamp).collect()
}

fn binaries(subtype: BinarySubtype, contents: &[&[u8]]) -> Vec<Bson> {
    let binaries = contents.iter().map(|bytes| Binary { subtype, bytes: bytes.to_vec() });
    binaries.map(Bson::Binary).collect()
}

fn regexes(parts: &[(&str, &str)]) -> Vec<Bson> {
    let text = |part: &str| part.to_owned().try_into().unwrap();
    let regexes = parts.iter().map(|(pattern, options)| Regex { pattern: text(pattern), options: text(options) });
    regexes.map(Bson::RegularExpression).collect()
}

fn codes(texts: &[&str]) -> Vec<Bson> {
    texts.iter().map(|code| Bson::JavaScriptCode((*code).to_owned())).collect()
}

fn scopes(scopes: &[Document]) -> Vec<Bson> {
    let code = || "a".to_owned();
    let codes = scopes.iter().map(|scope| JavaScriptCodeWithScope { code: code(), scope: scope.clone() });
    codes.map(Bson::JavaScriptCodeWithScope).collect()
}
