//! Shows a query of canonical Extended JSON in the syntax of mongosh, ready to be pasted.
//!
//! Knows no operator, and asks no database.

use serde_json::{Map, Value};

use super::text::visible_json;

/// The latest date of JavaScript, in milliseconds since the Unix epoch. The earliest is as far before it.
const DATE_MAX: u64 = 8_640_000_000_000_000;

/// The query in mongosh's syntax. `text` is its canonical Extended JSON. None if it is not, or has a date that JavaScript cannot express.
pub(super) fn literal(text: &str) -> Option<String> {
    let query: Value = serde_json::from_str(text).ok()?;
    let mut literal = String::new();
    write(&query, &mut literal)?;
    Some(visible_json(&literal))
}

fn write(value: &Value, literal: &mut String) -> Option<()> {
    match value {
        Value::Object(fields) => match single(fields) {
            Some((name, value)) => *literal += &scalar(name, value)?,
            None => write_fields(fields, literal)?,
        },
        Value::Array(items) => {
            literal.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    *literal += ", ";
                }
                write(item, literal)?;
            }
            literal.push(']');
        }
        // What JSON writes is valid JavaScript.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => *literal += &value.to_string(),
    }
    Some(())
}

fn write_fields(fields: &Map<String, Value>, literal: &mut String) -> Option<()> {
    if fields.is_empty() {
        *literal += "{}";
        return Some(());
    }
    *literal += "{ ";
    for (place, (name, value)) in fields.iter().enumerate() {
        if place > 0 {
            *literal += ", ";
        }
        *literal += &key(name);
        *literal += ": ";
        write(value, literal)?;
    }
    *literal += " }";
    Some(())
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

/// The type and the value of an object of canonical Extended JSON that stands for one; none if it is a document.
fn single(fields: &Map<String, Value>) -> Option<(&str, &Value)> {
    const TYPES: [&str; 12] = [
        "$oid",
        "$uuid",
        "$numberInt",
        "$numberDouble",
        "$numberLong",
        "$numberDecimal",
        "$date",
        "$binary",
        "$timestamp",
        "$minKey",
        "$maxKey",
        "$undefined",
    ];
    let mut all = fields.iter();
    let (name, value) = all.next()?;
    (all.next().is_none() && TYPES.contains(&name.as_str())).then_some((name, value))
}

/// A value in mongosh's syntax; none if it is not as canonical Extended JSON writes it. Nothing is passed on that could be code.
fn scalar(name: &str, value: &Value) -> Option<String> {
    let text = || value.as_str();
    Some(match name {
        "$oid" => format!("ObjectId({})", quoted(text()?)),
        "$uuid" => format!("UUID({})", quoted(text()?)),
        // As numbers, all are equal that have the same value.
        "$numberInt" => text()?.parse::<i32>().ok()?.to_string(),
        "$numberDouble" => number(text()?)?,
        "$numberLong" => format!("NumberLong({})", quoted(text()?)),
        "$numberDecimal" => format!("NumberDecimal({})", quoted(text()?)),
        "$date" => date(value)?,
        "$binary" => binary(value)?,
        "$timestamp" => {
            let part = |name| value.get(name).and_then(Value::as_u64);
            format!("Timestamp({{ t: {}, i: {} }})", part("t")?, part("i")?)
        }
        "$minKey" => "MinKey()".to_owned(),
        "$maxKey" => "MaxKey()".to_owned(),
        "$undefined" => "undefined".to_owned(),
        _ => return None,
    })
}

fn number(text: &str) -> Option<String> {
    let number: f64 = text.parse().ok()?;
    Some(match number {
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => format!("{number:?}"),
    })
}

fn date(value: &Value) -> Option<String> {
    let millis: i64 = value.get("$numberLong")?.as_str()?.parse().ok()?;
    if millis.unsigned_abs() > DATE_MAX {
        return None;
    }
    let time = Some(millis).filter(|millis| (0..253_402_300_800_000).contains(millis)).map(|millis| {
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
            (r#"{"d":{"$date":{"$numberLong":"8640000000000000"}}}"#, "{ d: new Date(8640000000000000) }"),
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

    #[test]
    fn nothing_is_shown_as_code_or_as_another_value() {
        for value in [
            r#"{"$numberInt":"1); db.dropDatabase("}"#,
            r#"{"$numberDouble":"1); db.dropDatabase("}"#,
            r#"{"$numberDouble":"0x10"}"#,
            r#"{"$date":{"$numberLong":"0); db.dropDatabase("}}"#,
            r#"{"$timestamp":{"t":{"x":1},"i":1}}"#,
            // JavaScript has no such dates.
            r#"{"$date":{"$numberLong":"8640000000000001"}}"#,
            r#"{"$date":{"$numberLong":"-9223372036854775808"}}"#,
        ] {
            assert_eq!(literal(&format!(r#"{{"x":[{value}]}}"#)), None, "{value}");
        }
        let quotes = r#"{"x":{"$numberLong":"1\"); db.dropDatabase(\""},"y":{"$numberDouble":"010"}}"#;
        let shown = r#"{ x: NumberLong("1\"); db.dropDatabase(\""), y: 10.0 }"#;
        assert_eq!(literal(quotes).as_deref(), Some(shown));
        let invisible = "{\"a\u{9b}\":\"\u{202e}\u{e0041}\"}";
        assert_eq!(literal(invisible).as_deref(), Some(r#"{ "a\u009b": "\u202e\udb40\udc41" }"#));
    }
}
