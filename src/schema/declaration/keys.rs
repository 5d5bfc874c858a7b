//! Checks which keys of a relation go together.
//!
//! Does not look at the values of the keys.

use super::{
    Name,
    reader::{Fields, Reader},
};
use crate::schema::error::SchemaError;

/// A key, the keys of which it requires at least one, and the help if all are missing.
const REQUIREMENTS: [(&str, &[&str], &str); 11] = [
    ("collection", &["by"], "name the field that holds this resource's id, for example: by = \"file_id\""),
    ("by", &["collection"], "name the collection that is looked up by it, for example: collection = \"shares\""),
    ("subject", &["field"], "name the field that holds the subject's id, for example: field = \"user_id\""),
    ("resource", &["field"], "name the field that holds the other resource's id, for example: field = \"folder_id\""),
    ("subject_type", &["field"], "name the field that holds the subject's id, for example: field = \"subject_id\""),
    ("subject_type", &["subject"], "list the types that the field may name: subject = [\"user\", \"group.member\"]"),
    (
        "subject_relation",
        &["subject_type"],
        "name the field that holds the subject's type: subject_type = \"subject_type\"",
    ),
    ("wildcard", &["field"], "name the field that may hold `*`, for example: field = \"user_id\""),
    ("must_exist", &["resource"], "name the type that the edge leads to, for example: resource = \"folder\""),
    ("document_where", &["each"], "without `each`, write the condition on the document as `where`"),
    ("required", &["since", "until"], "name the field that must hold a date, for example: until = \"expires_at\""),
];

/// The keys that exclude `resource`.
const OF_SUBJECTS: [&str; 4] = ["subject", "subject_type", "subject_relation", "wildcard"];

/// The keys of which a relation has at least one.
const SELECTS: [&str; 4] = ["field", "where", "each", "collection"];

impl Reader<'_> {
    /// Reports a type that has a condition on its documents, but no collection of them.
    pub(super) fn check_condition(&mut self, what: &str, fields: &Fields<'_>, example: &str) {
        let is_missing = fields.get("collection").is_none() && !fields.is_misspelt("collection");
        if let Some(entry) = fields.get("where").filter(|_| is_missing) {
            let help = format!("name the collection that holds its documents, for example: collection = \"{example}\"");
            self.wrong(SchemaError::new(&entry.span, format!("{what} has `where`, but no `collection`")).help(help));
        }
    }

    /// Reports keys of a relation that lack another key or exclude each other, and a relation that reads nothing.
    pub(super) fn check_keys(&mut self, name: &Name, fields: &Fields<'_>) {
        let what = format!("relation `{}`", name.text);
        let before = self.errors.len();
        for (key, required, help) in REQUIREMENTS {
            let Some(entry) = fields.get(key) else { continue };
            let is_clash = fields.get("resource").is_some() && OF_SUBJECTS.contains(&key);
            if is_clash || required.iter().any(|name| fields.get(name).is_some() || fields.is_misspelt(name)) {
                continue;
            }
            let required = required.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
            self.wrong(SchemaError::new(&entry.span, format!("{what} has `{key}`, but no {required}")).help(help));
        }
        if let Some(key) =
            OF_SUBJECTS.into_iter().find(|key| fields.get("resource").is_some() && fields.get(key).is_some())
            && let Some(entry) = fields.get(key)
        {
            self.wrong(
                SchemaError::new(&entry.span, format!("{what} has both `resource` and `{key}`"))
                    .help("a relation leads to subjects or, with `resource`, to other resources"),
            );
        }
        let is_empty = !SELECTS.iter().any(|key| fields.get(key).is_some() || fields.is_misspelt(key));
        if is_empty && self.errors.len() == before {
            self.wrong(
                SchemaError::new(&name.span, format!("{what} does not define what it reads"))
                    .help("add the `field` that holds an id or, for a flag, the `where` that makes it true"),
            );
        }
    }
}
