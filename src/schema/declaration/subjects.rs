//! Reads `subject = …` of a relation: a type, a set, a list of these, or a table of the values that mean them.
//!
//! Does not resolve names.

use super::{ListedSubject, SubjectName, reader::Reader};
use crate::schema::{
    error::SchemaError,
    expression::Name,
    node::{Entry, Node, Value, text_start},
};

impl Reader<'_> {
    pub(super) fn subjects(&mut self, entry: &Entry) -> Vec<ListedSubject> {
        let mut subjects = Vec::new();
        match &entry.node.value {
            Value::Table(values) => {
                if values.is_empty() {
                    self.wrong(
                        SchemaError::new(&entry.node.span, "`subject` lists nothing")
                            .help("for example: { User = \"user\", Team = \"team.member\" }"),
                    );
                }
                for value in values {
                    if value.name.is_empty() {
                        self.wrong(SchemaError::new(&value.span, "a value of `subject_type` cannot be empty").help(
                            "a document without a type leads to nobody: write another relation for such documents",
                        ));
                    }
                    self.listed(&value.node, Some(value), &mut subjects);
                }
            }
            Value::List(_) | Value::Scalar(_) => self.listed(&entry.node, None, &mut subjects),
        }
        subjects
    }

    /// Reads a type, a set or a list of these. `value` is the entry of the table that lists them.
    fn listed(&mut self, node: &Node, value: Option<&Entry>, subjects: &mut Vec<ListedSubject>) {
        let items = node.items();
        if items.is_empty() {
            let (what, help) = match value {
                None => ("subject", "list the types of the ids in the field, for example: [\"user\", \"team.member\"]"),
                Some(value) => (value.name.as_str(), "name the type or set that this value means"),
            };
            self.wrong(SchemaError::new(&node.span, format!("`{what}` lists nothing")).help(help));
        }
        for item in items {
            if let Some(text) = item.as_text() {
                let value = value.map(|entry| Name { text: entry.name.clone(), span: entry.span.clone() });
                subjects.push(ListedSubject { name: self.subject_name(text, item), value });
            } else {
                let message = format!("`subject` expects types in quotes, not {}", item.describe());
                self.wrong(SchemaError::new(&item.span, message).help("for example: [\"user\", \"team.member\"]"));
            }
        }
    }

    /// Reads a type such as `user`, or a set such as `team.member`.
    fn subject_name(&self, text: &str, node: &Node) -> SubjectName {
        match self.pair(text, node) {
            Some((set, member)) => SubjectName::Set(set, member),
            None => SubjectName::Type(Name { text: text.to_owned(), span: node.span.clone() }),
        }
    }

    /// The names before and after the dot, each with its place. None if there is no dot.
    pub(super) fn pair(&self, text: &str, node: &Node) -> Option<(Name, Name)> {
        let (first, second) = text.split_once('.')?;
        let whole = |text: &str| Name { text: text.to_owned(), span: node.span.clone() };
        let (mut first, mut second) = (whole(first), whole(second));
        if let Some(start) = text_start(self.text, &node.span, text) {
            let dot = start + first.text.len();
            first.span = start..dot;
            second.span = dot + 1..start + text.len();
        }
        Some((first, second))
    }
}
