//! Conditions on documents: a useful subset of MongoDB's query operators. They are pushed down into queries and evaluated in
//! process, with the same result.
//!
//! A condition matches exactly the documents that mongod would find. Whether the compared values have the right types is a
//! separate test ([`Condition::is_typed`]). Operands are plain values: documents and arrays as operands are not supported.

mod bits;
mod parse;
mod test;

use std::cmp::Ordering;

pub use bits::{BitTest, Mask};
use bson::{Bson, Document, doc};
pub(crate) use parse::parse;
use parse::parse_json;
use test::Kind;
pub use test::{Element, Test};

use super::{
    error::SchemaError,
    order::compare,
    path::{End, Path},
};

/// A condition on a document, or on an element of an array of documents.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// All conditions hold.
    And(Vec<Condition>),
    /// At least one condition holds.
    Or(Vec<Condition>),
    /// A test of the values at a path.
    Field(Path, Test),
    /// A comparison of two fields, with the rules of aggregation (`$expr`).
    Expr(Comparison, Path, Path),
}

/// A comparison of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `$eq`
    Eq,
    /// `$ne`
    Ne,
    /// `$gt`
    Gt,
    /// `$gte`
    Gte,
    /// `$lt`
    Lt,
    /// `$lte`
    Lte,
}

impl Comparison {
    const ALL: [Self; 6] = [Self::Eq, Self::Ne, Self::Gt, Self::Gte, Self::Lt, Self::Lte];

    /// The name of the operator in MongoDB.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "$eq",
            Self::Ne => "$ne",
            Self::Gt => "$gt",
            Self::Gte => "$gte",
            Self::Lt => "$lt",
            Self::Lte => "$lte",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|comparison| comparison.as_str() == name)
    }

    /// The comparison that holds for `b` and `a` if this one holds for `a` and `b`.
    fn flipped(self) -> Self {
        match self {
            Self::Eq | Self::Ne => self,
            Self::Gt => Self::Lt,
            Self::Gte => Self::Lte,
            Self::Lt => Self::Gt,
            Self::Lte => Self::Gte,
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Eq => order.is_eq(),
            Self::Ne => order.is_ne(),
            Self::Gt => order.is_gt(),
            Self::Gte => order.is_ge(),
            Self::Lt => order.is_lt(),
            Self::Lte => order.is_le(),
        }
    }
}

impl Condition {
    /// All of the conditions, without a list around a single one.
    pub(crate) fn all(mut conditions: Vec<Self>) -> Self {
        if conditions.len() == 1 { conditions.remove(0) } else { Self::And(conditions) }
    }

    /// Reads a condition from a text of Extended JSON that is no part of a schema.
    ///
    /// # Errors
    /// What is wrong with the text, each with a remedy if there is one.
    pub fn from_extended_json(text: &str) -> Result<Self, Vec<SchemaError>> {
        let mut errors = Vec::new();
        parse_json(text, &mut errors).ok_or(errors)
    }

    /// Whether mongod would find the document with this condition as the query.
    #[must_use]
    pub fn matches(&self, document: &Document) -> bool {
        match self {
            Self::And(all) => all.iter().all(|condition| condition.matches(document)),
            Self::Or(any) => any.iter().any(|condition| condition.matches(document)),
            Self::Field(path, test) => test.matches(path, document),
            Self::Expr(comparison, left, right) => {
                let value = |path: &Path| path.project(document).unwrap_or(Bson::Undefined);
                comparison.holds(compare(&value(left), &value(right)))
            }
        }
    }

    /// Whether every value that the condition looks at has the type of its operand. All numbers are one type. An array has
    /// the right type if its elements have it; for `$size` and `$elemMatch` the value itself must be an array. Null and
    /// missing fields always have the right type. A value that blocks a path never has it.
    #[must_use]
    pub fn is_typed(&self, document: &Document) -> bool {
        match self {
            Self::And(all) | Self::Or(all) => all.iter().all(|condition| condition.is_typed(document)),
            Self::Field(path, test) => {
                // The ends of a path do not tell `undefined` from a missing value.
                let is_undefined = |value: Option<&Bson>| value == Some(&Bson::Undefined);
                ends_all(path, document, |value| test.admits_field(value))
                    && (test.admits_field(&Bson::Undefined) || !path.any(document, is_undefined))
            }
            Self::Expr(_, left, right) => {
                let kind = |path: &Path| Kind::of(&path.project(document).unwrap_or(Bson::Null));
                let (l, r) = (kind(left), kind(right));
                let is_one_type = l == r || l.is_nothing() || r.is_nothing();
                is_one_type && [left, right].into_iter().all(|path| ends_all(path, document, |_| true))
            }
        }
    }

    /// Whether a value that the condition looks at cannot be read. Then nobody knows whether the document matches.
    pub(crate) fn meets_unreadable(&self, document: &Document) -> bool {
        match self {
            Self::And(all) | Self::Or(all) => all.iter().any(|condition| condition.meets_unreadable(document)),
            Self::Field(path, _) => path.meets_unreadable(document),
            Self::Expr(_, left, right) => [left, right].into_iter().any(|path| path.meets_unreadable(document)),
        }
    }

    /// The condition as a query.
    #[must_use]
    pub fn to_query(&self) -> Document {
        let list = |all: &[Self]| all.iter().map(|condition| Bson::Document(condition.to_query())).collect::<Vec<_>>();
        match self {
            Self::And(all) if all.is_empty() => Document::new(),
            Self::And(all) => doc! { "$and": list(all) },
            Self::Or(any) => doc! { "$or": list(any) },
            Self::Field(path, test) => doc! { path.as_str(): test.to_query() },
            Self::Expr(comparison, left, right) => {
                doc! { "$expr": { comparison.as_str(): [format!("${left}"), format!("${right}")] } }
            }
        }
    }

    /// Visits every field that the condition looks at, those in the elements of arrays included.
    pub fn paths(&self, visit: &mut dyn FnMut(&Path)) {
        match self {
            Self::And(all) | Self::Or(all) => all.iter().for_each(|condition| condition.paths(visit)),
            Self::Field(path, test) => test.paths(path, visit),
            Self::Expr(_, left, right) => [left, right].into_iter().for_each(visit),
        }
    }

    /// Visits every field that the condition compares with a text, those in the elements of arrays included. Two fields that
    /// are compared with each other are not visited, because their type is not known.
    pub(crate) fn text_paths(&self, visit: &mut dyn FnMut(&Path)) {
        match self {
            Self::And(all) | Self::Or(all) => all.iter().for_each(|condition| condition.text_paths(visit)),
            Self::Field(path, test) => test.text_paths(path, visit),
            Self::Expr(..) => {}
        }
    }
}

/// Whether nothing blocks the path, and every value at its ends passes the test.
fn ends_all(path: &Path, document: &Document, test: impl Fn(&Bson) -> bool) -> bool {
    let mut all = true;
    path.ends(document, &mut |end| {
        all &= match end {
            End::Value(value) => test(value),
            End::Missing => true,
            End::Blocked => false,
        };
    });
    all
}

#[cfg(test)]
mod tests {
    use bson::spec::BinarySubtype;

    use super::*;
    use crate::schema::node::{Value, from_toml};

    /// The parser's maximal depth of nested conditions.
    const DEPTH_MAX: usize = 16;

    /// Parses a condition in the form in which it follows `where =`.
    fn read(text: &str) -> Result<Condition, Vec<SchemaError>> {
        let mut errors = Vec::new();
        let source = format!("where = {text}");
        let root = from_toml(&source, &mut errors).ok_or_else(|| errors.clone())?;
        let Value::Table(entries) = &root.value else { panic!("{root:?}") };
        parse(&source, &entries[0].node, &mut errors).ok_or(errors)
    }

    fn assert_typed(expected: bool, cases: &[(&str, Document)]) {
        for (text, document) in cases {
            assert_eq!(read(text).unwrap().is_typed(document), expected, "{text} on {document}");
        }
    }

    #[test]
    fn the_nesting_of_conditions_is_bounded() {
        let and = |depth| format!("{}{{ a = 1 }}{}", "{ '$and' = [".repeat(depth), "] }".repeat(depth));
        let not = |depth| format!("{{ a = {}{{ '$gt' = 1 }}{} }}", "{ '$not' = ".repeat(depth), " }".repeat(depth));
        for (shallow, deep) in [(and(DEPTH_MAX), and(DEPTH_MAX + 1)), (not(DEPTH_MAX), not(DEPTH_MAX + 1))] {
            assert!(read(&shallow).is_ok());
            assert!(read(&deep).unwrap_err()[0].message.contains("nest deeper"));
        }
    }

    #[test]
    fn a_field_must_have_the_type_of_its_operand() {
        assert_typed(
            true,
            &[
                ("{ a = 1 }", doc! { "a": 2.5 }),
                ("{ a = 1 }", doc! { "a": Bson::Decimal128("2".parse().unwrap()) }),
                ("{ a = 1.5 }", doc! { "a": f64::NAN }),
                ("{ a = { '$ne' = true } }", doc! { "a": false }),
                ("{ a = { '$in' = [1, 'x'] } }", doc! { "a": "y" }),
                ("{ a = { '$not' = { '$gt' = 1, '$ne' = 5 } } }", doc! { "a": 2.5 }),
                ("{ '$or' = [{ a = 1 }, { b = 'x' }] }", doc! { "a": 2, "b": "y" }),
                (r#"'{"a": {"$oid": "65f000000000000000000001"}}'"#, doc! { "a": bson::oid::ObjectId::new() }),
            ],
        );
        assert_typed(
            false,
            &[
                ("{ a = 1 }", doc! { "a": "1" }),
                ("{ a = true }", doc! { "a": 1 }),
                ("{ a = 'x' }", doc! { "a": { "b": "x" } }),
                ("{ a = { '$ne' = true } }", doc! { "a": "false" }),
                ("{ a = { '$nin' = [1, 'x'] } }", doc! { "a": true }),
                ("{ a = { '$not' = { '$gt' = 1 } } }", doc! { "a": "x" }),
                ("{ a = 2026-01-31T12:00:00Z }", doc! { "a": 1 }),
                // Each test has its own operand, also inside `$not`.
                ("{ a = { '$not' = { '$gt' = 1, '$ne' = 'x' } } }", doc! { "a": "y" }),
                ("{ a = { '$not' = { '$in' = [1], '$nin' = ['x'] } } }", doc! { "a": [1, "x"] }),
                ("{ a = { '$not' = { '$not' = { '$bitsAllSet' = 4, '$lt' = 100 } } } }", doc! { "a": 4.5 }),
                ("{ a = { '$elemMatch' = { '$not' = { '$eq' = 1, '$ne' = 'x' } } } }", doc! { "a": ["y"] }),
                (
                    "{ a = { '$all' = [{ '$elemMatch' = { '$not' = { '$gt' = 1, '$ne' = 'x' } } }] } }",
                    doc! { "a": [3] },
                ),
                // The condition matches, but one of the compared values has a wrong type.
                ("{ '$or' = [{ a = 1 }, { b = 'x' }] }", doc! { "a": 1, "b": 2 }),
                (r#"'{"a": {"$oid": "65f000000000000000000001"}}'"#, doc! { "a": "65f000000000000000000001" }),
                (
                    r#"'{"a": {"$uuid": "00000000-0000-4000-8000-000000000001"}}'"#,
                    doc! { "a": bson::Binary { subtype: BinarySubtype::Generic, bytes: vec![0; 16] } },
                ),
            ],
        );
    }

    #[test]
    fn null_and_missing_fields_have_every_type_and_null_operands_require_none() {
        assert_typed(
            true,
            &[
                ("{ a = 1 }", doc! {}),
                ("{ a = 1 }", doc! { "a": null }),
                ("{ 'a.b' = 1 }", doc! { "a": null }),
                ("{ 'a.b' = 1 }", doc! { "a": {} }),
                ("{ a = { '$exists' = true } }", doc! { "a": "x" }),
                (r#"'{"a": null}'"#, doc! { "a": "x" }),
                (r#"'{"a": {"$in": [null, 1]}}'"#, doc! { "a": 2 }),
                ("{ a = 1 }", doc! { "a": Bson::Undefined }),
                ("{ a = { '$exists' = true } }", doc! { "a": Bson::Undefined }),
            ],
        );
        assert_typed(
            false,
            &[
                (r#"'{"a": {"$in": [null, 1]}}'"#, doc! { "a": "x" }),
                // Versions of mongod differ in whether it is equal to null.
                (r#"'{"a": null}'"#, doc! { "a": Bson::Undefined }),
                (r#"'{"a": {"$ne": null}}'"#, doc! { "a": [Bson::Undefined] }),
                (r#"'{"a.b": {"$nin": [null]}}'"#, doc! { "a": [{ "b": Bson::Undefined }] }),
                (r#"'{"a": {"$not": {"$in": [null, 1]}}}'"#, doc! { "a": Bson::Undefined }),
                (r#"'{"a": {"$elemMatch": {"b": null}}}'"#, doc! { "a": [{ "b": Bson::Undefined }] }),
                (r#"'{"a": {"$elemMatch": {"$eq": null}}}'"#, doc! { "a": [Bson::Undefined] }),
            ],
        );
    }

    #[test]
    fn an_array_has_the_type_of_its_elements() {
        assert_typed(
            true,
            &[
                ("{ a = 1 }", doc! { "a": [] }),
                ("{ a = 1 }", doc! { "a": [2, null, 1.5] }),
                ("{ 'a.b' = 1 }", doc! { "a": [] }),
                ("{ 'a.b' = 1 }", doc! { "a": [{ "b": 2 }, { "b": [3] }, {}, null] }),
            ],
        );
        assert_typed(
            false,
            &[
                ("{ a = 1 }", doc! { "a": [1, "x"] }),
                ("{ a = 1 }", doc! { "a": [[1]] }),
                ("{ 'a.b' = 1 }", doc! { "a": [{ "b": 1 }, { "b": "x" }] }),
            ],
        );
    }

    #[test]
    fn a_value_that_blocks_the_path_has_the_wrong_type() {
        assert_typed(
            false,
            &[
                ("{ 'a.b' = 1 }", doc! { "a": 1 }),
                ("{ 'a.b' = { '$exists' = false } }", doc! { "a": "x" }),
                ("{ 'a.b' = 1 }", doc! { "a": [{ "b": 1 }, 2] }),
                ("{ 'a.b' = 1 }", doc! { "a": [[{ "b": 1 }]] }),
                ("{ 'a.b.c' = 1 }", doc! { "a": { "b": true } }),
            ],
        );
    }

    #[test]
    fn two_compared_fields_must_have_one_type() {
        let less = "{ '$expr' = { '$lt' = ['$a', '$b.c'] } }";
        assert_typed(
            true,
            &[
                (less, doc! { "a": 1, "b": { "c": 2.5 } }),
                (less, doc! { "a": 1 }),
                (less, doc! { "a": null, "b": { "c": "x" } }),
                (less, doc! { "a": [1], "b": [{ "c": 1 }] }),
            ],
        );
        assert_typed(
            false,
            &[
                (less, doc! { "a": 1, "b": { "c": "x" } }),
                (less, doc! { "a": 1, "b": [{ "c": 1 }] }),
                (less, doc! { "a": 1, "b": 2 }),
            ],
        );
    }
}
