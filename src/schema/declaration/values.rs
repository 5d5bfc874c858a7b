//! Reads the keys of a relation that say how documents write a value: the format of ids, and the unit of dates.
//!
//! Reads no document.

use bson::Bson;

use super::{
    KeyField,
    reader::{Fields, Reader},
};
use crate::schema::{
    DateField, DateUnit, Format,
    error::SchemaError,
    node::{Entry, Value},
    path::Path,
};

impl Reader<'_> {
    /// Reads `format = "role:{id}"`.
    pub(super) fn format(&mut self, entry: &Entry) -> Option<Format> {
        let text = self.string(entry, "a format")?;
        match Format::parse(text) {
            Ok(format) => Some(format),
            Err(why) => {
                self.wrong(
                    SchemaError::new(&entry.node.span, format!("the format `{text}` {why}"))
                        .help("`{id}` stands once for the id, for example: format = \"role:{id}\""),
                );
                None
            }
        }
    }

    /// Reads `by`: a field, or a table with the format of the ids in it.
    pub(super) fn key_field(&mut self, entry: &Entry) -> Option<KeyField> {
        if !matches!(entry.node.value, Value::Table(_)) {
            return self.path(Some(entry)).map(|path| KeyField { path, format: None });
        }
        let mut format = None;
        let path = self.field_of(entry, "format", "\"role:{id}\"", |reader, entry| {
            format = reader.format(entry);
        });
        Some(KeyField { path: path?, format: Some(format?) })
    }

    /// Reads `since` or `until`: a field, or a table with the unit of the date in it.
    pub(super) fn date_field(&mut self, entry: &Entry) -> Option<DateField> {
        if !matches!(entry.node.value, Value::Table(_)) {
            return self.date_path(entry).map(|path| DateField { path, unit: DateUnit::Date });
        }
        let mut unit = None;
        let path = self.field_of(entry, "unit", "\"seconds\"", |reader, entry| {
            let Some(text) = reader.string(entry, "a unit") else { return };
            unit = DateUnit::NAMED.into_iter().find(|(name, _)| *name == text).map(|(_, unit)| unit);
            if unit.is_none() {
                let error = SchemaError::new(&entry.node.span, format!("unknown unit `{text}`"));
                reader.wrong(error.suggesting(text, DateUnit::NAMED.map(|(name, _)| name)));
            }
        });
        Some(DateField { path: path?, unit: unit? })
    }

    /// Reads the path of a date. A text that means a date, a time span or the clock would be the name of a field that no document has,
    /// and a missing date sets no bound.
    fn date_path(&mut self, entry: &Entry) -> Option<Path> {
        let Value::Scalar(Bson::String(text)) = &entry.node.value else { return self.path(Some(entry)) };
        let meant = if text.starts_with("$$") {
            "a variable"
        } else if is_date(text) {
            "a date"
        } else if is_time_span(text) {
            "a time span"
        } else {
            return self.path(Some(entry));
        };
        let message = format!("`{}` expects the name of a field, not {meant}", entry.name);
        let help = "store the date in the documents and name its field, for example \"expires_at\": each check compares it with the clock";
        self.wrong(SchemaError::new(&entry.node.span, message).help(help));
        None
    }

    /// Reads a table of `field` and one other key, both of which it must have.
    fn field_of(
        &mut self,
        entry: &Entry,
        other: &'static str,
        example: &str,
        read_other: impl FnOnce(&mut Self, &Entry),
    ) -> Option<Path> {
        let mut path = None;
        let what = format!("`{}`", entry.name);
        let read = |reader: &mut Self, fields: &mut Fields<'_>| {
            for (name, is_there) in [("field", fields.take("field").is_some()), (other, fields.take(other).is_some())] {
                if !is_there && !fields.is_misspelt(name) {
                    let help = format!("for example: {} = {{ field = \"name\", {other} = {example} }}", entry.name);
                    reader.wrong(SchemaError::new(&entry.span, format!("{what} has no `{name}`")).help(help));
                }
            }
            let field = fields.get("field");
            path = if other == "unit" { field.and_then(|entry| reader.date_path(entry)) } else { reader.path(field) };
            if let Some(entry) = fields.get(other) {
                read_other(reader, entry);
            }
        };
        self.table(&entry.node, &what, |_| String::new(), read);
        path
    }
}

/// Whether a text begins with a date: `2026-01-31`.
fn is_date(text: &str) -> bool {
    let digits = |from, to| text.get(from..to).is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    digits(0, 4) && digits(5, 7) && digits(8, 10) && [4, 7].map(|at| text.get(at..=at)) == [Some("-"); 2]
}

/// Whether a text is a time span: `7d`, `30 minutes`, `+1h`.
fn is_time_span(text: &str) -> bool {
    let text = text.trim_start_matches(['+', '-']);
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let units = [
        "ms", "s", "sec", "second", "m", "min", "minute", "h", "hr", "hour", "d", "day", "w", "week", "month", "y",
        "year",
    ];
    let is_unit = |unit: &str| units.contains(&unit);
    let name = unit.trim().to_ascii_lowercase();
    unit.len() < text.len() && (is_unit(&name) || name.strip_suffix('s').is_some_and(is_unit))
}
