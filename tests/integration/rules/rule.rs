//! A rule as a table: documents that grant, the question, and for each condition the changes that make it fail.
//!
//! Documents contain names in place of ids: `"@alice"` stands for an ObjectId and `"#token"` for a secret. Each case has its
//! own ids, so that thousands of cases can share one database. This file asks no questions: `rules.rs` does.

use std::{
    collections::BTreeMap,
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
};

use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};

use crate::support::both::Collections;

/// The time of all questions: 2026-11-23 at noon.
pub const NOW: i64 = 1_795_435_200_000;

/// As a value: the field is missing. As the `_id`: the document is missing.
const MISSING: &str = "(missing)";

/// The value of a field that is missing.
pub fn missing() -> Bson {
    MISSING.into()
}

/// A change that removes the document.
pub fn gone() -> Document {
    doc! { "_id": MISSING }
}

/// The date this many milliseconds after [`NOW`].
pub fn from_now(millis: i64) -> Bson {
    Bson::DateTime(DateTime::from_millis(NOW + millis))
}

/// A date in the past.
pub fn past() -> Bson {
    from_now(-86_400_000)
}

/// A date in the future.
pub fn future() -> Bson {
    from_now(86_400_000)
}

/// The schemas that have a rule. A schema without the rule must not grant what the rule grants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Schemas {
    Both,
    Sharing,
}

/// The expected answers for the permissions of one case.
#[derive(Clone, Default)]
pub struct Expected {
    /// Permissions that are allowed, with the relation that grants each.
    pub granted: BTreeMap<String, String>,
    /// Permissions that are denied, with the reason.
    pub denied: BTreeMap<String, String>,
    /// The reason with which all other permissions are denied; none if any reason will do.
    pub otherwise: Option<&'static str>,
}

impl Expected {
    /// The expected answer for a permission; none if any denial will do.
    pub fn of(&self, permission: &str) -> Option<String> {
        let granted = self.granted.get(permission).map(|by| format!("allowed by {by}"));
        let denied = || self.denied.get(permission).map(String::as_str).or(self.otherwise);
        granted.or_else(|| denied().map(|reason| format!("denied {reason}")))
    }
}

/// A change to the documents or the subject, and the answers expected after it.
#[derive(Clone)]
pub struct Variant {
    pub changes: Vec<(String, Document)>,
    pub subject: Option<String>,
    pub expected: Expected,
}

impl Variant {
    /// The name of the change in messages: `shares/1: is_active = false`.
    pub fn name(&self) -> String {
        let mut name = String::new();
        for (at, change) in &self.changes {
            for (field, value) in change {
                let _ = match (field.as_str(), value) {
                    ("_id", _) => write!(name, "{at} is gone; "),
                    (_, Bson::String(text)) if text == MISSING => write!(name, "{at}: {field} is missing; "),
                    _ => write!(name, "{at}: {field} = {value}; "),
                };
            }
        }
        if let Some(subject) = &self.subject {
            let _ = write!(name, "{subject} asks; ");
        }
        name
    }
}

/// One rule.
#[derive(Clone)]
pub struct Rule {
    /// The rule in words.
    pub title: String,
    pub schemas: Schemas,
    documents: Vec<(String, Document)>,
    pub subject: String,
    pub resource: String,
    pub expected: Expected,
    pub variants: Vec<Variant>,
}

impl Rule {
    /// A rule of both schemas.
    pub fn new(title: impl Into<String>) -> Self {
        let expected = Expected { otherwise: Some("NO_GRANT"), ..Expected::default() };
        let (subject, resource) = (String::new(), String::new());
        let schemas = Schemas::Both;
        Self { title: title.into(), schemas, documents: Vec::new(), subject, resource, expected, variants: Vec::new() }
    }

    /// A rule of `fylora-sharing.toml` alone.
    pub fn sharing(title: impl Into<String>) -> Self {
        Self { schemas: Schemas::Sharing, ..Self::new(title) }
    }

    /// Adds a document, or fields to it if it exists: `files/plan` is in the collection `files`, with the `_id` that
    /// `"@plan"` stands for.
    pub fn with(mut self, at: &str, document: Document) -> Self {
        place(&mut self.documents, at).extend(document);
        self
    }

    /// A document of the rule.
    pub fn document(&self, at: &str) -> Document {
        let found = self.documents.iter().find(|(name, _)| name == at);
        found.map(|(_, document)| document.clone()).unwrap_or_default()
    }

    /// Sets the subject and the resource of the question.
    pub fn asks(mut self, subject: impl Into<String>, resource: impl Into<String>) -> Self {
        self.subject = subject.into();
        self.resource = resource.into();
        self
    }

    /// Expects that this relation grants these permissions (separated by blanks): after the last change if there is one,
    /// else in the rule.
    pub fn grants(mut self, permissions: &str, by: &str) -> Self {
        let kind = self.resource.split(':').next().unwrap_or_default();
        let by = if by.contains('#') { by.to_owned() } else { format!("{kind}#{by}") };
        let expected = self.variants.last_mut().map_or(&mut self.expected, |variant| &mut variant.expected);
        for permission in permissions.split_whitespace() {
            expected.denied.remove(permission);
            expected.granted.insert(permission.to_owned(), by.clone());
        }
        self
    }

    /// Expects that these permissions are denied with this reason: after the last change if there is one, else in the rule.
    /// All permissions without an expectation must be denied: in a rule with `NO_GRANT`, after a change with any reason.
    pub fn denies(mut self, permissions: &str, reason: &str) -> Self {
        let expected = self.variants.last_mut().map_or(&mut self.expected, |variant| &mut variant.expected);
        for permission in permissions.split_whitespace() {
            expected.denied.insert(permission.to_owned(), reason.to_owned());
        }
        self
    }

    /// A change after which a condition fails: all that the rule grants is denied with this reason.
    pub fn off(self, at: &str, change: Document, reason: &str) -> Self {
        let denied = self.expected.granted.keys().map(|permission| (permission.clone(), reason.to_owned())).collect();
        self.variant(Some((at, change)), None, Expected { denied, ..Expected::default() })
    }

    /// A change that makes no difference.
    pub fn same(self, at: &str, change: Document) -> Self {
        let expected = self.expected.clone();
        self.variant(Some((at, change)), None, expected)
    }

    /// Another change: the calls after this one set what is expected.
    pub fn but(self, at: &str, change: Document) -> Self {
        self.variant(Some((at, change)), None, Expected::default())
    }

    /// Adds a change of another document to the last change.
    pub fn and(mut self, at: &str, change: Document) -> Self {
        let last = self.variants.last_mut().expect("a change before");
        last.changes.push((at.to_owned(), change));
        self
    }

    /// Another subject asks, and every permission is denied.
    pub fn not_for(self, subject: &str) -> Self {
        self.variant(None, Some(subject.to_owned()), Expected::default())
    }

    fn variant(mut self, change: Option<(&str, Document)>, subject: Option<String>, expected: Expected) -> Self {
        let changes = change.into_iter().map(|(at, change)| (at.to_owned(), change)).collect();
        self.variants.push(Variant { changes, subject, expected });
        self
    }

    /// Adds the changes that are common to all rules: a missing resource, a missing or inactive user, an administrator,
    /// another user or secret, an anonymous subject.
    pub fn complete(mut self) -> Self {
        let all = |reason| Expected { otherwise: Some(reason), ..Expected::default() };
        if let Some(name) = self.subject.strip_prefix("user:@") {
            let at = format!("users/{name}");
            let same = self.expected.clone();
            for (field, value) in
                [("is_admin", Bson::Boolean(true)), ("is_active", Bson::Null), ("is_active", missing())]
            {
                self = self.variant(Some((&at, doc! { field: value })), None, same.clone());
            }
            self = self.variant(Some((&at, doc! { "is_active": false })), None, all("SUBJECT_INACTIVE"));
            self = self.variant(Some((&at, gone())), None, all("SUBJECT_INACTIVE"));
        }
        if !self.expected.granted.is_empty() {
            let (kind, name) = self.resource.split_once(":@").expect("type:@name");
            let at = format!("{kind}s/{name}");
            let kind = self.subject.split(':').next().expect("type:id").to_owned();
            self = self.variant(Some((&at, gone())), None, all("NOT_FOUND"));
            self = self.not_for("anonymous");
            let other = if kind == "user" { "user:@unrelated".to_owned() } else { format!("{kind}:#another") };
            self = self.not_for(&other).and("users/unrelated", doc! { "is_active": true, "is_admin": true });
        }
        self
    }
}

impl Rule {
    /// The rule in a schema that does not have it: the same documents grant nothing.
    pub fn absent(mut self) -> Self {
        self.variants.clear();
        self.expected.granted.clear();
        self.expected.denied.retain(|_, reason| reason == "EXCLUDED");
        self
    }

    /// The cases of the rule: the rule itself and every change. Adds the documents of each case to `collections`.
    pub fn cases(&self, first: u32, collections: &mut Collections) -> Vec<Case> {
        let unchanged = Variant { changes: Vec::new(), subject: None, expected: self.expected.clone() };
        let mut cases = Vec::new();
        for (number, variant) in (first..).zip([&unchanged].into_iter().chain(&self.variants)) {
            for (at, document) in self.changed(&variant.changes) {
                let (collection, name) = at.split_once('/').expect("collection/name");
                let mut found = doc! { "_id": id(number, name) };
                found.extend(document.into_iter().map(|(field, value)| (field, resolved(number, value))));
                collections.entry(collection.to_owned()).or_default().push(found);
            }
            cases.push(Case {
                name: format!("{}; {}", self.title, variant.name()),
                subject: in_case(number, variant.subject.as_ref().unwrap_or(&self.subject)),
                resource: in_case(number, &self.resource),
                expected: variant.expected.clone(),
            });
        }
        cases
    }

    fn changed(&self, changes: &[(String, Document)]) -> Vec<(String, Document)> {
        let mut documents = self.documents.clone();
        for (at, change) in changes {
            place(&mut documents, at).extend(change.clone());
        }
        documents.retain(|(_, document)| !document.contains_key("_id"));
        for (_, document) in &mut documents {
            *document = without_missing(std::mem::take(document));
        }
        documents
    }
}

/// Removes the fields with the value of [`missing`], at any depth.
fn without_missing(document: Document) -> Document {
    let inside = |value| match value {
        Bson::Document(inner) => Bson::Document(without_missing(inner)),
        other => other,
    };
    let fields = document.into_iter().filter(|(_, value)| value.as_str() != Some(MISSING));
    let fields = fields.map(|(field, value)| match value {
        Bson::Array(items) => (field, Bson::Array(items.into_iter().map(inside).collect())),
        value => (field, inside(value)),
    });
    fields.collect()
}

/// The document of that name. It is created if there is none.
fn place<'a>(documents: &'a mut Vec<(String, Document)>, at: &str) -> &'a mut Document {
    let found = documents.iter().position(|(name, _)| name == at).unwrap_or_else(|| {
        documents.push((at.to_owned(), Document::new()));
        documents.len() - 1
    });
    &mut documents[found].1
}

/// One case of a rule: a subject and a resource to ask about, for each permission.
pub struct Case {
    pub name: String,
    pub subject: String,
    pub resource: String,
    pub expected: Expected,
}

/// The id that a name stands for in a case.
fn id(number: u32, name: &str) -> ObjectId {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes[4..].copy_from_slice(&hasher.finish().to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// `user:@alice` with the id that the name stands for in a case.
fn in_case(number: u32, text: &str) -> String {
    let Some((kind, name)) = text.split_once(':') else { return text.to_owned() };
    match resolved(number, name.into()) {
        Bson::ObjectId(id) => format!("{kind}:{id}"),
        Bson::String(secret) => format!("{kind}:{secret}"),
        other => panic!("{text}: {other}"),
    }
}

/// The value with ids in place of names.
fn resolved(number: u32, value: Bson) -> Bson {
    match value {
        Bson::String(text) => match text.split_at_checked(1) {
            Some(("@", name)) => Bson::ObjectId(id(number, name)),
            Some(("#", name)) => Bson::String(format!("{number}-{name}")),
            _ => Bson::String(text),
        },
        Bson::Array(items) => Bson::Array(items.into_iter().map(|item| resolved(number, item)).collect()),
        Bson::Document(fields) => {
            Bson::Document(fields.into_iter().map(|(field, value)| (field, resolved(number, value))).collect())
        }
        other => other,
    }
}
