//! A value of the schema's text together with its place: TOML, or Extended JSON inside a TOML string, as BSON.
//!
//! Only reads; what a value means is up to whoever asks for it.

use bson::Bson;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::mistake::{Mistake, Span};

/// A value and where it stands.
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
    /// Where the name stands.
    pub(crate) span: Span,
    pub(crate) node: Node,
}

impl Node {
    /// Reads a whole TOML file. What could not be read is in `mistakes`; the rest is returned nonetheless.
    pub(crate) fn from_toml(text: &str, mistakes: &mut Vec<Mistake>) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            mistakes.push(Mistake::new(&error.span().unwrap_or(0..0), format!("not TOML: {}", error.message())));
        }
        let span = table.span();
        Self { span, value: Value::Table(entries(table.get_ref(), mistakes)) }
    }

    /// Reads a TOML string as Extended JSON, canonical or relaxed. Every part has the place of the string.
    pub(crate) fn from_extended_json(text: &str, span: &Span) -> Result<Self, Mistake> {
        let json: serde_json::Value = serde_json::from_str(text).map_err(|error| {
            Mistake::new(span, format!("not Extended JSON: {error}"))
                .help("write a condition as a TOML table, or as a string such as '{\"password_hash\": null}'")
        })?;
        let bson = Bson::try_from(json).map_err(|error| Mistake::new(span, format!("not Extended JSON: {error}")))?;
        Ok(Self::from_bson(bson, span))
    }

    fn from_bson(value: Bson, span: &Span) -> Self {
        let value = match value {
            Bson::Document(document) => Value::Table(
                document
                    .into_iter()
                    .map(|(name, value)| Entry { name, span: span.clone(), node: Self::from_bson(value, span) })
                    .collect(),
            ),
            Bson::Array(items) => Value::List(items.into_iter().map(|item| Self::from_bson(item, span)).collect()),
            scalar => Value::Scalar(scalar),
        };
        Self { span: span.clone(), value }
    }

    /// What kind of value it is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            Value::Table(_) => "a table",
            Value::List(_) => "a list",
            Value::Scalar(scalar) => match scalar {
                Bson::String(_) => "a string",
                Bson::Boolean(_) => "a boolean",
                Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => "a number",
                Bson::DateTime(_) => "a date",
                Bson::Null => "null",
                Bson::ObjectId(_) => "an ObjectId",
                _ => "a value of another type",
            },
        }
    }
}

fn entries(table: &DeTable<'_>, mistakes: &mut Vec<Mistake>) -> Vec<Entry> {
    let mut all: Vec<Entry> = table
        .iter()
        .map(|(name, value)| Entry {
            name: name.get_ref().to_string(),
            span: name.span(),
            node: Node { span: value.span(), value: read(value, mistakes) },
        })
        .collect();
    all.sort_by_key(|entry| entry.span.start);
    all
}

fn read(value: &Spanned<DeValue<'_>>, mistakes: &mut Vec<Mistake>) -> Value {
    let mut wrong = |message: String| {
        mistakes.push(Mistake::new(&value.span(), message));
        Value::Scalar(Bson::Null)
    };
    match value.get_ref() {
        DeValue::String(text) => Value::Scalar(Bson::String(text.to_string())),
        DeValue::Boolean(flag) => Value::Scalar(Bson::Boolean(*flag)),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => Value::Scalar(Bson::Int64(number)),
            Err(_) => wrong("a number that does not fit in 64 bits".to_owned()),
        },
        DeValue::Float(float) => match float.as_str().parse() {
            Ok(number) => Value::Scalar(Bson::Double(number)),
            Err(error) => wrong(format!("not a number: {error}")),
        },
        DeValue::Datetime(date) => match bson::DateTime::parse_rfc3339_str(date.to_string()) {
            Ok(date) => Value::Scalar(Bson::DateTime(date)),
            Err(_) => wrong(format!("the date {date} has no time zone: write 2026-01-31T12:00:00Z")),
        },
        DeValue::Array(items) => Value::List(
            items.iter().map(|item| Node { span: item.span(), value: read(item, mistakes) }).collect(),
        ),
        DeValue::Table(table) => Value::Table(entries(table, mistakes)),
    }
}
