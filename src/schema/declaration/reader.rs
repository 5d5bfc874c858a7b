//! Reads tables and the values of their keys, for all declarations.
//!
//! Does not know which sections and keys a schema has.

use std::time::Duration;

use bson::Bson;

use crate::{
    question::IdForm,
    schema::{
        condition::{self, Condition},
        error::{SchemaError, Span, nearest},
        expression::{self, Name, Named, Syntax, corrected_name, is_name, name_help},
        node::{Entry, Node, Value, text_start},
        path::Path,
    },
};

/// The maximal `stale_if_error`.
const STALE_TIME_MAX: Duration = Duration::from_hours(24);

/// The entries of one table. Its reader takes the keys that it knows; the remaining keys are unknown.
pub(super) struct Fields<'a> {
    what: &'a str,
    entries: &'a [Entry],
    taken: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, name: &'static str) -> Option<&'a Entry> {
        self.taken.push(name);
        self.get(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Whether an unknown key is probably a misspelling of this missing key. The unknown key is already reported as an
    /// error.
    pub(super) fn is_misspelt(&self, name: &str) -> bool {
        let meant = |entry: &&Entry| nearest(&entry.name, self.taken.iter().copied()) == Some(name);
        self.unknown().any(|entry| meant(&entry))
    }

    /// The entries that the reader took.
    pub(super) fn known(&self) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(|entry| self.taken.contains(&entry.name.as_str()))
    }

    /// The entries that the reader did not take.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(|entry| !self.taken.contains(&entry.name.as_str()))
    }
}

pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) errors: &'a mut Vec<SchemaError>,
}

impl Reader<'_> {
    pub(super) fn wrong(&mut self, error: SchemaError) {
        self.errors.push(error);
    }

    pub(super) fn wrong_type(&mut self, entry: &Entry, expected: &str) {
        let message = format!("`{}` expects {expected}, not {}", entry.name, entry.node.describe());
        self.wrong(SchemaError::new(&entry.node.span, message));
    }

    /// Reads the table in `node`, and reports the keys that `read` did not take. If `node` is not a table, it reports that,
    /// with `instead` as the example.
    pub(super) fn table(
        &mut self,
        node: &Node,
        what: &str,
        instead: impl FnOnce(&Node) -> String,
        read: impl FnOnce(&mut Self, &mut Fields<'_>),
    ) {
        let Value::Table(entries) = &node.value else {
            let message = format!("{what} expects a table, not {}", node.describe());
            self.wrong(SchemaError::new(&node.span, message).help(format!("for example: {}", instead(node))));
            return;
        };
        let mut fields = Fields { what, entries, taken: Vec::new() };
        read(self, &mut fields);
        for entry in fields.unknown() {
            let message = format!("unknown key `{}` in {}", entry.name, fields.what);
            self.wrong(SchemaError::new(&entry.span, message).suggesting(&entry.name, fields.taken.iter().copied()));
        }
    }

    /// Reads every `name = …` of a table.
    pub(super) fn named<T>(
        &mut self,
        entry: Option<&Entry>,
        named: Named,
        example: &str,
        mut read: impl FnMut(&mut Self, Name, &Node) -> T,
    ) -> Vec<T> {
        let Some(entry) = entry else { return Vec::new() };
        let Value::Table(entries) = &entry.node.value else {
            let message = format!("`{}` expects a table, not {}", entry.name, entry.node.describe());
            self.wrong(SchemaError::new(&entry.node.span, message).help(format!("for example: {example}")));
            return Vec::new();
        };
        let mut all = Vec::new();
        for entry in entries {
            let is_valid = is_name(&entry.name, named);
            if !is_valid {
                let message = format!("`{}` cannot name {}", entry.name, named.as_str());
                self.wrong(SchemaError::new(&entry.span, message).help(name_help(&entry.name, named)));
            }
            // A corrected name can still be found where the schema refers to it.
            let corrected = if is_valid { None } else { corrected_name(&entry.name) };
            let text = corrected.unwrap_or_else(|| entry.name.clone());
            let name = Name { text, span: entry.span.clone() };
            all.push(read(self, name, &entry.node));
        }
        all
    }

    pub(super) fn expression(&mut self, text: &str, span: &Span) -> Option<Syntax> {
        match expression::parse(text, text_start(self.text, span, text), span) {
            Ok(syntax) => Some(syntax),
            Err(error) => {
                self.wrong(error);
                None
            }
        }
    }

    pub(super) fn condition(&mut self, entry: Option<&Entry>) -> Option<Condition> {
        condition::parse(self.text, &entry?.node, self.errors)
    }

    pub(super) fn id_form(&mut self, fields: &mut Fields<'_>) -> IdForm {
        let Some(entry) = fields.take("id") else {
            return IdForm::ObjectId;
        };
        let Some(text) = self.string(entry, "an id form") else {
            return IdForm::ObjectId;
        };
        IdForm::ALL.into_iter().find(|form| form.as_str() == text).unwrap_or_else(|| {
            let error = SchemaError::new(&entry.node.span, format!("unknown id form `{text}`"));
            self.wrong(error.suggesting(text, IdForm::ALL.map(IdForm::as_str)));
            IdForm::ObjectId
        })
    }

    /// Reads `stale_if_error`: the maximal age of facts that may answer while the source is unavailable.
    pub(super) fn stale_time(&mut self, entry: &Entry) -> Option<Duration> {
        let text = self.string(entry, "a duration in quotes")?;
        let time = humantime::parse_duration(text).ok().filter(|time| *time <= STALE_TIME_MAX && !time.is_zero());
        if time.is_none() {
            let message = format!("`{text}` is not a duration from 1ms to 24h");
            self.wrong(SchemaError::new(&entry.node.span, message).help("for example: stale_if_error = \"10m\""));
        }
        time
    }

    pub(super) fn flag(&mut self, entry: Option<&Entry>) -> bool {
        let Some(entry) = entry else { return false };
        let Value::Scalar(Bson::Boolean(flag)) = entry.node.value else {
            self.wrong_type(entry, "true or false");
            return false;
        };
        flag
    }

    pub(super) fn string<'b>(&mut self, entry: &'b Entry, what: &str) -> Option<&'b str> {
        let text = entry.node.as_text();
        if text.is_none() {
            self.wrong_type(entry, &format!("{what} in quotes"));
        }
        text
    }

    /// Reads the name of a type.
    pub(super) fn type_name(&mut self, entry: Option<&Entry>) -> Option<Name> {
        let entry = entry?;
        let text = self.string(entry, "the name of a type")?.to_owned();
        Some(Name { text, span: entry.node.span.clone() })
    }

    pub(super) fn collection(&mut self, entry: Option<&Entry>) -> Option<Name> {
        let entry = entry?;
        let text = self.string(entry, "the name of a collection")?;
        let span = entry.node.span.clone();
        let error = match text {
            "" => SchemaError::new(&span, "the name of a collection is empty"),
            _ if text.starts_with("system.") || text.contains(['$', '\0']) => {
                SchemaError::new(&span, format!("`{text}` cannot be the name of a collection"))
                    .help("`system.`, `$` and NUL are reserved by MongoDB")
            }
            _ => {
                return Some(Name { text: text.to_owned(), span });
            }
        };
        self.wrong(error);
        None
    }

    pub(super) fn path(&mut self, entry: Option<&Entry>) -> Option<Path> {
        let entry = entry?;
        let text = self.string(entry, "the name of a field")?;
        match Path::read(text, &entry.node.span) {
            Ok(path) => Some(path),
            Err(error) => {
                self.wrong(error);
                None
            }
        }
    }
}
