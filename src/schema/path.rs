//! The dotted path of a field in a document. It is followed as mongod follows it: through the elements of arrays.
//!
//! Positions in arrays (`members.0`) are not supported.

use std::fmt;

use bson::{Bson, Document};

use super::{
    error::{SchemaError, Span},
    unreadable::has_unreadable,
};

/// The help where somebody means the current time. In a condition, a missing date is neither before nor after it.
pub(crate) const CLOCK_HELP: &str = "for the clock, name the date's field as `since` or `until`; a missing date sets no bound, except with `required = true`";

/// The help where somebody writes another variable of MongoDB.
pub(crate) const VARIABLES_HELP: &str = "there are no variables: for two fields, use `$expr`; for the clock, `since` or `until`, with \
                                         `required = true` unless a missing date sets no bound";

/// The fields of a `DBRef`, the only names that may start with `$`. None of them can be the first part of a path.
const DBREF: [&str; 3] = ["$id", "$ref", "$db"];

/// A validated dotted path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Box<str>);

/// What is at the end of a path. A path through an array of documents has several ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    /// A value. An array is one value.
    Value(&'a Bson),
    /// No value or null, at the end or on the way to it.
    Missing,
    /// A value on the way is neither a document nor an array of documents.
    Blocked,
}

impl Path {
    /// Parses a path.
    ///
    /// # Errors
    /// What is wrong with it, as the predicate of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("is empty");
        }
        for (place, part) in text.split('.').enumerate() {
            if part.is_empty() {
                return Err("has an empty part");
            }
            if part.starts_with('$') && (place == 0 || !is_dbref(part)) {
                return Err("has a part that starts with `$`");
            }
            if is_position(part) {
                return Err("has a number in it: positions in arrays are not supported");
            }
            if part.contains('\0') {
                return Err("has a NUL in it");
            }
            if part.contains(['[', ']']) {
                return Err("has a bracket in it: a path has only names, with dots between them");
            }
        }
        Ok(Self(text.into()))
    }

    /// The path of a document's `_id`.
    pub(crate) fn id() -> Self {
        Self("_id".into())
    }

    /// Parses the path at `span` of a schema. The help never names another path that could mean more: nobody but the author
    /// knows which field is meant.
    pub(crate) fn read(text: &str, span: &Span) -> Result<Self, SchemaError> {
        Self::parse(text).map_err(|why| {
            if text.is_empty() {
                return SchemaError::new(span, "the name of a field is empty").help("for example: \"owner_id\"");
            }
            let error = SchemaError::new(span, format!("the field `{text}` {why}"));
            let plain = text.strip_prefix('$').filter(|rest| Self::parse(rest).is_ok());
            match plain {
                Some(plain) => error.help(format!("a path is written without `$` in front: `{plain}`")),
                None if text.split(['.', '[', ']']).any(is_position) => {
                    error.help("a path looks at every element: use `each`, and select one in `where` by another field")
                }
                None if text.starts_with("$$") => error.help(VARIABLES_HELP),
                None if text.contains('$') => {
                    error.help("the paths of updates and of variables mean nothing here: a path names fields only")
                }
                None if text.contains(['[', ']']) => error.help(match of_every_element(text) {
                    Some(plain) => format!("a path looks at every element of an array by itself: `{plain}`"),
                    None => "write one dot between two names, and none at the ends".to_owned(),
                }),
                None => error.help("write one dot between two names, and none at the ends"),
            }
        })
    }

    /// Whether one path is equal to, contains or is inside the other. Positions in arrays are ignored.
    pub(crate) fn overlaps(&self, other: &str) -> bool {
        let others = other.split('.').filter(|part| !is_position(part));
        self.0.split('.').zip(others).all(|(one, other)| one == other)
    }

    /// The longest path to a document or an array that both paths lead through. `self` ends inside it, `other` may be it.
    pub(crate) fn shared(&self, other: &Self) -> Option<Self> {
        let parts: Vec<&str> = self.0.split('.').collect();
        let same = parts.iter().zip(other.0.split('.')).take_while(|(one, other)| **one == *other).count();
        let shared = parts.get(..same.min(parts.len().saturating_sub(1)))?;
        (!shared.is_empty()).then(|| Self(shared.join(".").into()))
    }

    /// The path relative to `outer`; none if it does not lead into `outer`.
    pub(crate) fn inside(&self, outer: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(&*outer.0)?.strip_prefix('.')?;
        Some(Self(rest.into()))
    }

    /// Whether there is an array at the path or on the way to it.
    pub(crate) fn meets_array(&self, document: &Document) -> bool {
        let mut document = document;
        for part in self.0.split('.') {
            match document.get(part) {
                Some(Bson::Array(_)) => return true,
                Some(Bson::Document(inner)) => document = inner,
                Some(_) | None => return false,
            }
        }
        false
    }

    /// The path in MongoDB's notation.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The top-level field of the path. Queries fetch it whole, because a projection of the path would hide a value that
    /// blocks it.
    #[must_use]
    pub fn top(&self) -> &str {
        split(&self.0).0
    }

    /// The paths of the documents that the path leads through.
    pub(crate) fn outer(&self) -> impl Iterator<Item = String> {
        self.0.match_indices('.').filter_map(|(end, _)| self.0.get(..end)).map(str::to_owned)
    }

    /// Whether any of the values that mongod would test at this path passes. `None` stands for a missing field.
    pub(crate) fn any<'a>(&self, document: &'a Document, mut test: impl FnMut(Option<&'a Bson>) -> bool) -> bool {
        any(document, &self.0, &mut test)
    }

    /// Whether any of the values at the ends of this path passes, an array being one value. `None` stands for a missing
    /// field. So mongod tests `$size` and `$elemMatch`.
    pub(crate) fn any_whole<'a>(&self, document: &'a Document, mut test: impl FnMut(Option<&'a Bson>) -> bool) -> bool {
        any_whole(document, &self.0, &mut test)
    }

    /// The path of a field at `inner` in the documents at this path.
    pub(crate) fn join(&self, inner: &Self) -> Self {
        Self(format!("{self}.{inner}").into())
    }

    /// Visits every end of the path.
    pub(crate) fn ends<'a>(&self, document: &'a Document, visit: &mut impl FnMut(End<'a>)) {
        ends(document, &self.0, visit);
    }

    /// Whether a value at the path, or on the way to it, cannot be read or contains one that cannot be read.
    pub(crate) fn meets_unreadable(&self, document: &Document) -> bool {
        meets_unreadable(document, &self.0)
    }

    /// The value of the path as an aggregation expression (`"$path"`): an array on the way yields an array of the values
    /// found in its elements.
    pub(crate) fn project(&self, document: &Document) -> Option<Bson> {
        project(document, &self.0)
    }
}

/// Whether the text is the name of a field that stands for nothing else: no path, no expression.
pub(crate) fn is_field(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether it is the name of a field of a `DBRef`, which looks like an operator.
pub(crate) fn is_dbref(name: &str) -> bool {
    DBREF.contains(&name)
}

/// The path without the brackets that mean every element of an array in other languages: `members[].id`, `members[*].id`.
fn of_every_element(text: &str) -> Option<String> {
    Some(text.replace("[]", "").replace("[*]", "")).filter(|plain| Path::parse(plain).is_ok())
}

fn is_position(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())
}

fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)))
}

/// Tests values as mongod's `BSONElementIterator` does: of an array at the end, each element and then the array; of an array
/// on the way, only its documents.
fn any<'a>(document: &'a Document, path: &str, test: &mut impl FnMut(Option<&'a Bson>) -> bool) -> bool {
    let (first, rest) = split(path);
    match (document.get(first), rest) {
        (Some(Bson::Array(items)), None) => items.iter().any(|item| test(Some(item))) || test(document.get(first)),
        (Some(Bson::Array(items)), Some(rest)) => {
            items.iter().any(|item| item.as_document().is_some_and(|inner| any(inner, rest, test)))
        }
        (Some(Bson::Document(inner)), Some(rest)) => any(inner, rest, test),
        (Some(value), None) => test(Some(value)),
        (None, _) | (Some(_), Some(_)) => test(None),
    }
}

/// Like [`any`], but an array at the end is one value.
fn any_whole<'a>(document: &'a Document, path: &str, test: &mut impl FnMut(Option<&'a Bson>) -> bool) -> bool {
    let (first, rest) = split(path);
    match (document.get(first), rest) {
        (Some(Bson::Array(items)), Some(rest)) => {
            items.iter().any(|item| item.as_document().is_some_and(|inner| any_whole(inner, rest, test)))
        }
        (Some(Bson::Document(inner)), Some(rest)) => any_whole(inner, rest, test),
        (Some(value), None) => test(Some(value)),
        (None, _) | (Some(_), Some(_)) => test(None),
    }
}

fn ends<'a>(document: &'a Document, path: &str, visit: &mut impl FnMut(End<'a>)) {
    let (first, rest) = split(path);
    match (document.get(first), rest) {
        (None | Some(Bson::Null | Bson::Undefined), _) => visit(End::Missing),
        (Some(value), None) => visit(End::Value(value)),
        (Some(Bson::Document(inner)), Some(rest)) => ends(inner, rest, visit),
        (Some(Bson::Array(items)), Some(rest)) => {
            for item in items {
                match item {
                    Bson::Document(inner) => ends(inner, rest, visit),
                    Bson::Null | Bson::Undefined => visit(End::Missing),
                    _ => visit(End::Blocked),
                }
            }
        }
        (Some(_), Some(_)) => visit(End::Blocked),
    }
}

fn meets_unreadable(document: &Document, path: &str) -> bool {
    let (first, rest) = split(path);
    match (document.get(first), rest) {
        (None, _) => false,
        (Some(value), None) => has_unreadable(value),
        (Some(Bson::Document(inner)), Some(rest)) => meets_unreadable(inner, rest),
        (Some(Bson::Array(items)), Some(rest)) => items.iter().any(|item| match item {
            Bson::Document(inner) => meets_unreadable(inner, rest),
            item => has_unreadable(item),
        }),
        (Some(value), Some(_)) => has_unreadable(value),
    }
}

fn project(document: &Document, path: &str) -> Option<Bson> {
    let (first, rest) = split(path);
    let value = document.get(first)?;
    let Some(rest) = rest else { return Some(value.clone()) };
    match value {
        Bson::Document(inner) => project(inner, rest),
        Bson::Array(items) => {
            let found = items.iter().filter_map(|item| project(item.as_document()?, rest));
            Some(Bson::Array(found.collect()))
        }
        _ => None,
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
