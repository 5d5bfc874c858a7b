//! Conditions on documents: the useful few of MongoDB's query operators, pushed down into queries and evaluated the same
//! in process.
//!
//! Matching is mongod's. Whether the values that were compared have the right types is a second question ([`Condition::is_typed`]).
//! Operands are plain values; documents and arrays as operands are not supported.

mod parse;

use std::cmp::Ordering;

use bson::{Bson, Document, doc};
pub(crate) use parse::parse;

use super::{
    order::{Class, compare, is_nan},
    path::{End, Path},
};

/// A condition on a document, or on an element of an array of documents.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// All of them hold.
    And(Vec<Condition>),
    /// One of them holds.
    Or(Vec<Condition>),
    /// A test of what stands at a path.
    Field(Path, Test),
    /// A comparison of two fields, as aggregation compares (`$expr`).
    Expr(Comparison, Path, Path),
}

/// A test of what stands at a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Equal to a value; null is equal to missing.
    Eq(Bson),
    /// Not [`Test::Eq`].
    Ne(Bson),
    /// Equal to one of the values.
    In(Vec<Bson>),
    /// Not [`Test::In`].
    Nin(Vec<Bson>),
    /// There or not, null being there.
    Exists(bool),
    /// Less or greater, among values of the operand's type.
    Compare(Comparison, Bson),
    /// None, or not all, of these hold.
    Not(Vec<Test>),
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

    /// The operator as MongoDB writes it.
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
    /// Whether mongod would find the document with this condition.
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

    /// Whether every value that the condition looks at has the type of what it is compared with. Numbers are one type, an
    /// array is judged by its elements, null and missing are never wrong; what stands in the way of a path is.
    #[must_use]
    pub fn is_typed(&self, document: &Document) -> bool {
        match self {
            Self::And(all) | Self::Or(all) => all.iter().all(|condition| condition.is_typed(document)),
            Self::Field(path, test) => {
                let mut classes = Vec::new();
                test.classes(&mut classes);
                let is_right = |value: &Bson| {
                    let class = Class::of(value);
                    class.is_nothing() || classes.is_empty() || classes.contains(&class)
                };
                ends_all(path, document, |value| match value {
                    Bson::Array(items) => items.iter().all(is_right),
                    value => is_right(value),
                })
            }
            Self::Expr(_, left, right) => {
                let class = |path: &Path| path.project(document).map_or(Class::Missing, |value| Class::of(&value));
                let (l, r) = (class(left), class(right));
                let is_one_type = l == r || l.is_nothing() || r.is_nothing();
                is_one_type && [left, right].into_iter().all(|path| ends_all(path, document, |_| true))
            }
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

    /// Every field that the condition looks at.
    pub fn paths(&self, visit: &mut impl FnMut(&Path)) {
        match self {
            Self::And(all) | Self::Or(all) => all.iter().for_each(|condition| condition.paths(visit)),
            Self::Field(path, _) => visit(path),
            Self::Expr(_, left, right) => [left, right].into_iter().for_each(visit),
        }
    }
}

/// Whether the way to every end of a path is clear, and every value there passes.
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

impl Test {
    fn matches(&self, path: &Path, document: &Document) -> bool {
        match self {
            Self::Eq(operand) => path.any(document, |value| is_equal(value, operand)),
            Self::Ne(operand) => !path.any(document, |value| is_equal(value, operand)),
            Self::In(operands) => path.any(document, |value| operands.iter().any(|operand| is_equal(value, operand))),
            Self::Nin(operands) => !path.any(document, |value| operands.iter().any(|operand| is_equal(value, operand))),
            Self::Exists(wanted) => path.any(document, |value| value.is_some()) == *wanted,
            Self::Compare(comparison, operand) => path.any(document, |value| {
                value.is_some_and(|value| {
                    Class::of(value) == Class::of(operand) && !is_nan(value) && comparison.holds(compare(value, operand))
                })
            }),
            Self::Not(all) => !all.iter().all(|test| test.matches(path, document)),
        }
    }

    /// The types that this test compares with. None: any will do.
    fn classes(&self, classes: &mut Vec<Class>) {
        let mut add = |operand: &Bson| {
            let class = Class::of(operand);
            if !class.is_nothing() {
                classes.push(class);
            }
        };
        match self {
            Self::Eq(operand) | Self::Ne(operand) | Self::Compare(_, operand) => add(operand),
            Self::In(operands) | Self::Nin(operands) => operands.iter().for_each(add),
            Self::Exists(_) => {}
            Self::Not(all) => all.iter().for_each(|test| test.classes(classes)),
        }
    }

    fn to_query(&self) -> Document {
        match self {
            Self::Eq(operand) => doc! { "$eq": operand },
            Self::Ne(operand) => doc! { "$ne": operand },
            Self::In(operands) => doc! { "$in": operands },
            Self::Nin(operands) => doc! { "$nin": operands },
            Self::Exists(wanted) => doc! { "$exists": wanted },
            Self::Compare(comparison, operand) => doc! { comparison.as_str(): operand },
            Self::Not(all) => {
                let tests = all.iter().flat_map(Self::to_query).collect::<Document>();
                doc! { "$not": tests }
            }
        }
    }
}

/// Equality as in queries: numbers by value, null with missing.
fn is_equal(value: Option<&Bson>, operand: &Bson) -> bool {
    match value {
        None => *operand == Bson::Null,
        Some(Bson::Undefined) => *operand == Bson::Null,
        Some(value) => compare(value, operand).is_eq(),
    }
}
