//! Checks which keys of a relation go together.
//!
//! Does not look at the values of the keys.

use super::{
    Name,
    reader::{Fields, Reader},
};
use crate::schema::{error::SchemaError, node::Value};

/// A key, the keys of which it requires at least one, and the help if all are missing.
type Requirement = (&'static str, &'static [&'static str], &'static str);

/// The requirements that the relations of resources and of subjects have in common.
const REQUIREMENTS: [Requirement; 11] = [
    ("by", &["collection"], "name the collection that is looked up by it, for example: collection = \"shares\""),
    (
        "format",
        &["field"],
        "name the field that holds the ids; for `by`, write by = { field = \"file\", format = \"file:{id}\" }",
    ),
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
    ("document_where", &["each"], "without `each`, `where` is the condition on the document: write all of it there"),
    ("required", &["since", "until"], "name the field that must hold a date, for example: until = \"expires_at\""),
];

/// What `collection` requires in a relation of a resource.
const BY_OF_RESOURCE: Requirement =
    ("collection", &["by"], "name the field that holds this resource's id, for example: by = \"file_id\"");

/// What `collection` requires in a relation of a subject.
const BY_OF_SUBJECT: Requirement =
    ("collection", &["by"], "name the field that holds the subject's id, for example: by = \"user_id\"");

/// The keys that exclude `resource`.
const OF_SUBJECTS: [&str; 4] = ["subject", "subject_type", "subject_relation", "wildcard"];

/// The keys of which a relation has at least one.
const SELECTS: [&str; 5] = ["field", "where", "each", "collection", "of"];

impl Reader<'_> {
    /// Reports a type that has conditions on its documents, or times in them, but no collection of them.
    pub(super) fn check_conditions(&mut self, what: &str, fields: &Fields<'_>, keys: &[&str], example: &str) {
        if fields.get("collection").is_some() || fields.is_misspelt("collection") {
            return;
        }
        for entry in keys.iter().filter_map(|key| fields.get(key)) {
            let help = format!("name the collection that holds its documents, for example: collection = \"{example}\"");
            let message = format!("{what} has `{}`, but no `collection`", entry.name);
            self.wrong(SchemaError::new(&entry.span, message).help(help));
        }
    }

    /// Reports keys of a relation of a subject that only relations of resources have, ids without `resource`, and whatever
    /// [`Reader::check_keys`] reports.
    pub(super) fn check_subject_keys(&mut self, name: &Name, fields: &Fields<'_>) {
        let what = format!("relation `{}` of a subject", name.text);
        let of_resources = OF_SUBJECTS.into_iter().chain(["must_exist", "of"]).filter_map(|key| fields.get(key));
        let mut is_known = false;
        for entry in of_resources {
            is_known = true;
            let error = SchemaError::new(&entry.span, format!("{what} has `{}`", entry.name));
            self.wrong(error.help("it is a flag or, with `field` and `resource`, leads to resources"));
        }
        if let Some(entry) = fields.get("field").filter(|_| !is_known)
            && fields.get("resource").is_none()
            && !fields.is_misspelt("resource")
        {
            let error = SchemaError::new(&entry.span, format!("{what} has `field`, but no `resource`"));
            self.wrong(error.help("name the type of the resources that it leads to, for example: resource = \"team\""));
        }
        if !is_known {
            self.check_keys_of(name, fields, BY_OF_SUBJECT);
        }
    }

    /// Reports keys of a relation that lack another key or exclude each other, and a relation that reads nothing.
    pub(super) fn check_keys(&mut self, name: &Name, fields: &Fields<'_>) {
        if let Some(of) = fields.get("of") {
            for entry in fields.known().filter(|entry| entry.name != of.name) {
                let message = format!("relation `{}` has both `of` and `{}`", name.text, entry.name);
                let help = "`of` takes no other key: the relation of the subject says what is read";
                self.wrong(SchemaError::new(&entry.span, message).help(help));
            }
            return;
        }
        self.check_keys_of(name, fields, BY_OF_RESOURCE);
    }

    /// Checks the keys that relations of resources and of subjects have in common. `by` is the requirement of `collection`,
    /// whose help depends on whose relation it is.
    fn check_keys_of(&mut self, name: &Name, fields: &Fields<'_>, by: Requirement) {
        let what = format!("relation `{}`", name.text);
        let before = self.errors.len();
        for (key, required, help) in [by].into_iter().chain(REQUIREMENTS) {
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
        let is_table = fields.get("subject").filter(|entry| matches!(entry.node.value, Value::Table(_)));
        let is_missing = fields.get("subject_type").is_none() && !fields.is_misspelt("subject_type");
        if let Some(entry) = is_table.filter(|_| is_missing) {
            let message = format!("{what} has a table of types as `subject`, but no `subject_type`");
            let help = "name the field that holds these values, for example: subject_type = \"principal_type\"";
            self.wrong(SchemaError::new(&entry.span, message).help(help));
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
