//! Shows a query of canonical Extended JSON in the syntax of mongosh, ready to be pasted.
//!
//! Knows no operator, and asks no database.

use serde_json::{Map, Value};

/// The query in mongosh's syntax. `text` is its canonical Extended JSON. None if it is no JSON.
pub(super) fn literal(text: &str) -> Option<String> {
    let query: Value = serde_json::from_str(text).ok()?;
    let mut literal = String::new();
    write(&query, &mut literal);
    Some(literal)
}

fn write(value: &Value, literal: &mut String) {
    match value {
        Value::Object(fields) => match scalar(fields) {
            Some(scalar) => *literal += &scalar,
            None => write_fields(fields, literal),
        },
        Value::Array(items) => {
            literal.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    *literal += ", ";
                }
                write(item, literal);
            }
            literal.push(']');
        }
        // What JSON writes is valid JavaScript.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => *literal += &value.to_string(),
    }
}

fn write_fields(fields: &Map<String, Value>, literal: &mut String) {
    if fields.is_empty() {
        *literal += "{}";
        return;
    }
    *literal += "{ ";
    for (place, (name, value)) in fields.iter().enumerate() {
        if place > 0 {
            *literal += ", ";
        }
        *literal += &key(name);
        *literal += ": ";
        write(value, literal);
    }
    *literal += " }";
}

/// A key of an object. `__proto__` would set the object's prototype, even in quotes.
fn key(name: &str) -> String {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '$';
    let is_name =
        !name.is_empty() && name.chars().all(is_word) && !name.starts_with(|first: char| first.is_ascii_digit());
    match name {
        "__proto__" => "[\"__proto__\"]".to_owned(),
        name if is_name => name.to_owned(),
        name => quoted(name),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The value that an object of canonical Extended JSON stands for; none if it is a document.
fn scalar(fields: &Map<String, Value>) -> Option<String> {
    let mut all = fields.iter();
    let (name, value) = all.next()?;
    if all.next().is_some() {
        return None;
    }
    let text = || value.as_str();
    Some(match name.as_str() {
        "$oid" => format!("ObjectId({})", quoted(text()?)),
        "$uuid" => format!("UUID({})", quoted(text()?)),
        // As numbers, all are equal that have the same value.
        "$numberInt" | "$numberDouble" => text()?.to_owned(),
        "$numberLong" => format!("NumberLong({})", quoted(text()?)),
        "$numberDecimal" => format!("NumberDecimal({})", quoted(text()?)),
        "$date" => date(value)?,
        "$binary" => binary(value)?,
        "$timestamp" => format!("Timestamp({{ t: {}, i: {} }})", value.get("t")?, value.get("i")?),
        "$minKey" => "MinKey()".to_owned(),
        "$maxKey" => "MaxKey()".to_owned(),
        "$undefined" => "undefined".to_owned(),
        _ => return None,
    })
}

fn date(value: &Value) -> Option<String> {
    let millis = value.get("$numberLong")?.as_str()?;
    let time = millis.parse::<i64>().ok().filter(|millis| (0..253_402_300_800_000).contains(millis)).map(|millis| {
        let nanos = i32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000;
        prost_types::Timestamp { seconds: millis / 1_000, nanos }
    });
    Some(match time {
        Some(time) => format!("ISODate({})", quoted(&time.to_string())),
        None => format!("new Date({millis})"),
    })
}

fn binary(value: &Value) -> Option<String> {
    let (bytes, subtype) = (value.get("base64")?.as_str()?, value.get("subType")?.as_str()?);
    let subtype = u8::from_str_radix(subtype, 16).ok()?;
    Some(format!("BinData({subtype}, {})", quoted(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_shown_in_the_syntax_of_mongosh() {
        for (json, expected) in [
            ("{}", "{}"),
            (r#"{"_id":{"$in":[]}}"#, "{ _id: { $in: [] } }"),
            (r#"{"a.b":{"$oid":"65f000000000000000000001"}}"#, r#"{ "a.b": ObjectId("65f000000000000000000001") }"#),
            (
                r#"{"$and":[{"until":{"$gt":{"$date":{"$numberLong":"1763900000123"}}}},{"x":null,"y":true}]}"#,
                r#"{ $and: [{ until: { $gt: ISODate("2025-11-23T12:13:20.123Z") } }, { x: null, y: true }] }"#,
            ),
            (r#"{"d":{"$date":{"$numberLong":"-1"}}}"#, "{ d: new Date(-1) }"),
            (r#"{"d":{"$date":{"$numberLong":"9223372036854775807"}}}"#, "{ d: new Date(9223372036854775807) }"),
            (
                r#"{"n":[{"$numberInt":"-5"},{"$numberLong":"9223372036854775807"},{"$numberDouble":"0.5"},{"$numberDouble":"NaN"},{"$numberDecimal":"1.50"}]}"#,
                r#"{ n: [-5, NumberLong("9223372036854775807"), 0.5, NaN, NumberDecimal("1.50")] }"#,
            ),
            (
                r#"{"b":{"$binary":{"base64":"AQEBAQEBAQEBAQEBAQEBAQ==","subType":"04"}},"c":{"$binary":{"base64":"AP8=","subType":"80"}}}"#,
                r#"{ b: BinData(4, "AQEBAQEBAQEBAQEBAQEBAQ=="), c: BinData(128, "AP8=") }"#,
            ),
            (
                r#"{"__proto__":{"$numberInt":"1"},"":1,"1a":2,"é":3}"#,
                r#"{ ["__proto__"]: 1, "": 1, "1a": 2, "é": 3 }"#,
            ),
            (r#"{"s":"say \"no\" \\ \n"}"#, r#"{ s: "say \"no\" \\ \n" }"#),
            (
                r#"{"t":{"$timestamp":{"t":7,"i":8}},"m":[{"$minKey":1},{"$maxKey":1}]}"#,
                "{ t: Timestamp({ t: 7, i: 8 }), m: [MinKey(), MaxKey()] }",
            ),
        ] {
            assert_eq!(literal(json).as_deref(), Some(expected), "{json}");
        }
        assert_eq!(literal("no json"), None);
    }
}
