//! Reads TOML, and Extended JSON inside a TOML string, into BSON values that know their place in the schema's text.
//!
//! Does not know what a value means: its user does.

mod bare;
mod places;

use bson::Bson;
use places::Places;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
    value::Datetime,
};

use super::error::{SHOWN_MAX, SchemaError, Span};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// The value itself.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Table(Vec<Entry>),
    List(Vec<Node>),
    Scalar(Bson),
}

/// One `name = value`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// The place of the name.
    pub(crate) span: Span,
    pub(crate) node: Node,
}

/// Parses a TOML file. Returns none if it is not TOML. A value that cannot be read is reported and becomes undefined.
pub(crate) fn from_toml(text: &str, errors: &mut Vec<SchemaError>) -> Option<Node> {
    let (table, toml_errors) = DeTable::parse_recoverable(text);
    if toml_errors.is_empty() {
        return Some(Node { span: table.span(), value: Value::Table(entries(table.get_ref(), errors)) });
    }
    for toml_error in toml_errors {
        let message = format!("not TOML: {}", toml_error.message());
        let Some(span) = toml_error.span() else {
            errors.push(SchemaError::without_place(message));
            continue;
        };
        let error = SchemaError::new(&span, message);
        let help = if errors.len() < SHOWN_MAX { bare::help(text, &span) } else { None };
        errors.push(match help {
            Some(help) => error.help(help),
            None => error,
        });
    }
    None
}

/// The position at which the content of a string starts in the schema; none if the string is written with escapes.
pub(crate) fn text_start(source: &str, span: &Span, text: &str) -> Option<usize> {
    const QUOTES: [&str; 8] = ["\"\"\"\r\n", "\"\"\"\n", "\"\"\"", "'''\r\n", "'''\n", "'''", "\"", "'"];
    let written = source.get(span.clone())?;
    let quote = QUOTES.into_iter().find(|quote| written.starts_with(quote))?;
    let is_same = written.get(quote.len()..)?.starts_with(text);
    is_same.then(|| span.start + quote.len())
}

/// Parses a TOML string as Extended JSON, canonical or relaxed. `source` is the schema's text, `span` the place of the
/// string.
pub(crate) fn from_extended_json(source: &str, span: &Span, text: &str) -> Result<Node, SchemaError> {
    let start = text_start(source, span, text);
    let located = |place: Span| start.map_or_else(|| span.clone(), |start| start + place.start..start + place.end);
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| {
        let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
        let at = (lines + error.column().saturating_sub(1)).min(text.trim_end().len());
        let width = text.get(at..).map_or(0, bare::width);
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        let place = if text.is_char_boundary(at) { located(at..at + width) } else { span.clone() };
        SchemaError::new(&place, format!("not Extended JSON: {message}")).help(bare::json_help(text, at))
    })?;
    let places = Places::of(text);
    if let Ok(bson) = Bson::try_from(json.clone()) {
        return from_bson(text, bson, &places, &located);
    }
    let (error, place) = unreadable(&json, &places);
    let error = error.trim_start_matches("BSON error. Kind: ").trim_end_matches('.');
    Err(SchemaError::new(&located(place), format!("not Extended JSON: {error}")))
}

/// The innermost part of a JSON value that is not Extended JSON.
fn unreadable(json: &serde_json::Value, places: &Places) -> (String, Span) {
    let parts: Vec<&serde_json::Value> = match json {
        serde_json::Value::Object(entries) => entries.values().collect(),
        serde_json::Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    let wrong = parts.into_iter().zip(&places.parts).find(|(part, _)| Bson::try_from((*part).clone()).is_err());
    match (wrong, Bson::try_from(json.clone())) {
        (Some((part, places)), _) => unreadable(part, places),
        (None, Err(error)) => (error.to_string(), places.span.clone()),
        (None, Ok(_)) => (String::new(), places.span.clone()),
    }
}

fn from_bson(text: &str, value: Bson, places: &Places, located: &impl Fn(Span) -> Span) -> Result<Node, SchemaError> {
    let span = located(places.span.clone());
    let value = match value {
        Bson::Document(document) => {
            if document.len() < places.keys.len() {
                let place = places.repeated_key(text).map_or(span, located);
                return Err(SchemaError::new(&place, "this key is repeated")
                    .help("to require both tests, list them in `$and`; to accept either, in `$or`"));
            }
            let places = places.keys.iter().zip(&places.parts);
            let entries = document.into_iter().zip(places).map(|((name, value), (key, places))| {
                Ok(Entry { name, span: located(key.clone()), node: from_bson(text, value, places, located)? })
            });
            Value::Table(entries.collect::<Result<_, _>>()?)
        }
        Bson::Array(items) => {
            let items =
                items.into_iter().zip(&places.parts).map(|(item, places)| from_bson(text, item, places, located));
            Value::List(items.collect::<Result<_, _>>()?)
        }
        scalar => Value::Scalar(scalar),
    };
    Ok(Node { span, value })
}

impl Node {
    /// The items of a list; of any other value, the value itself.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            Value::Scalar(_) | Value::Table(_) => std::slice::from_ref(self),
        }
    }

    /// What kind of value it is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            Value::Table(_) => "a table",
            Value::List(_) => "a list",
            Value::Scalar(scalar) => match scalar {
                Bson::String(_) => "a string",
                Bson::Boolean(_) => "a boolean",
                Bson::Double(number) if number.is_nan() => "NaN",
                Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) => "a number",
                Bson::Decimal128(_) => "a decimal number",
                Bson::DateTime(_) => "a date",
                Bson::Null => "null",
                Bson::ObjectId(_) => "an ObjectId",
                Bson::RegularExpression(_) => "a regular expression",
                Bson::Binary(_) => "binary data",
                Bson::Timestamp(_) => "a timestamp",
                _ => "a value of this type",
            },
        }
    }

    /// The text, if the value is a string.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(Bson::String(text)) => Some(text),
            Value::Scalar(_) | Value::List(_) | Value::Table(_) => None,
        }
    }
}

fn entries(table: &DeTable<'_>, errors: &mut Vec<SchemaError>) -> Vec<Entry> {
    let mut all: Vec<Entry> = table
        .iter()
        .map(|(name, value)| Entry {
            name: name.get_ref().to_string(),
            span: name.span(),
            node: Node { span: value.span(), value: read(value, errors) },
        })
        .collect();
    all.sort_by_key(|entry| entry.span.start);
    all
}

fn read(value: &Spanned<DeValue<'_>>, errors: &mut Vec<SchemaError>) -> Value {
    let mut wrong = |message: String, help: Option<String>| {
        errors.push(SchemaError { span: Some(value.span()), message, help });
        Value::Scalar(Bson::Undefined)
    };
    match value.get_ref() {
        DeValue::String(text) => Value::Scalar(Bson::String(text.to_string())),
        DeValue::Boolean(flag) => Value::Scalar(Bson::Boolean(*flag)),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => Value::Scalar(Bson::Int64(number)),
            Err(_) => wrong("this number does not fit in 64 bits".to_owned(), None),
        },
        DeValue::Float(float) => match float.as_str().parse() {
            Ok(number) => Value::Scalar(Bson::Double(number)),
            Err(error) => wrong(format!("not a number: {error}"), None),
        },
        DeValue::Datetime(date) => match bson::DateTime::parse_rfc3339_str(date.to_string()) {
            Ok(date) => Value::Scalar(Bson::DateTime(date)),
            Err(error) => match completed(date) {
                Some((what, help)) => wrong(what.to_owned(), Some(help)),
                None => wrong(format!("not a date: {error}"), None),
            },
        },
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| Node { span: item.span(), value: read(item, errors) }).collect())
        }
        DeValue::Table(table) => Value::Table(entries(table, errors)),
    }
}

/// What an incomplete date lacks, and an example of the complete date.
fn completed(date: &Datetime) -> Option<(&'static str, String)> {
    match (&date.date, &date.time, &date.offset) {
        (Some(day), Some(time), None) => {
            Some(("this date has no time zone", format!("for example in UTC: {day}T{time}Z")))
        }
        (Some(day), None, _) => Some(("this date has no time of day", format!("for example in UTC: {day}T00:00:00Z"))),
        (None, Some(time), _) => Some(("this time has no date", format!("for example: 2026-01-31T{time}Z"))),
        _ => None,
    }
}
