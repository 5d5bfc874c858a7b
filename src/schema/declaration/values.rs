//! Reads the keys of a relation that say how documents write a value: the format of ids, and the unit of dates.
//!
//! Reads no document.

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
            return self.path(Some(entry)).map(|path| DateField { path, unit: DateUnit::Date });
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
            path = reader.path(fields.get("field"));
            if let Some(entry) = fields.get(other) {
                read_other(reader, entry);
            }
        };
        self.table(&entry.node, &what, |_| String::new(), read);
        path
    }
}
