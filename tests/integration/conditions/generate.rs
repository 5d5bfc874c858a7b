//! Generates random conditions and documents. All of a round use one small stock of values, so that they often match.
//!
//! Compares nothing.

use std::collections::BTreeSet;

use bson::{Bson, Document};
use permcached::schema::{Comparison, Condition, Path, Test};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{select, subsequence},
    strategy::Union,
};

use super::values::{families, is_operand, is_ordered};

/// The fields of generated documents, inner ones included.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// The paths of generated conditions, and how often each is used. No document has a value at the last one.
const PATHS: [(u32, &str); 9] =
    [(2, "a"), (2, "b"), (1, "c"), (2, "a.b"), (1, "a.c"), (1, "b.a"), (1, "a.b.c"), (1, "b.b.a"), (1, "missing.a")];

/// First `$eq` and `$ne`, for which a field has separate tests, then the comparisons that require an order.
pub(crate) const COMPARISONS: [Comparison; 6] =
    [Comparison::Eq, Comparison::Ne, Comparison::Gt, Comparison::Gte, Comparison::Lt, Comparison::Lte];

/// The maximal depth of values nested in a field of a document.
const DEPTH_MAX: usize = 3;

/// The number of families of values in a stock, and the number of values from them.
const FAMILIES: usize = 3;
const VALUES: usize = 12;

/// The values that the conditions and documents of a round contain.
#[derive(Clone, Debug)]
pub(crate) struct Stock {
    /// The values in documents.
    values: Vec<Bson>,
    /// The values that conditions compare with: those that a schema accepts.
    operands: Vec<Bson>,
    /// The values that `$gt`, `$gte`, `$lt` and `$lte` accept.
    ordered: Vec<Bson>,
}

/// Generates a stock: a few values of a few families.
pub(crate) fn stock() -> impl Strategy<Value = Stock> {
    let values = subsequence(families(), FAMILIES)
        .prop_map(|families| families.into_iter().flatten().collect::<Vec<_>>())
        .prop_flat_map(|values| subsequence(values, VALUES));
    values.prop_map(|mut values| {
        // A stock always has values that have an order.
        values.extend([Bson::Null, Bson::Boolean(true), Bson::Boolean(false), Bson::Int32(1)]);
        let pick = |is_wanted: fn(&Bson) -> bool| values.iter().filter(|value| is_wanted(value)).cloned().collect();
        Stock { operands: pick(is_operand), ordered: pick(is_ordered), values }
    })
}

impl Stock {
    /// Any condition that a schema can contain.
    pub(crate) fn condition(&self) -> impl Strategy<Value = Condition> + use<> {
        let leaf = self.leaf().boxed();
        leaf.clone().prop_recursive(2, 8, 3, move |inner| {
            prop_oneof![
                5 => leaf.clone(),
                1 => vec(inner.clone(), 0..=3).prop_map(Condition::And),
                2 => vec(inner, 1..=3).prop_map(Condition::Or),
            ]
        })
    }

    fn leaf(&self) -> impl Strategy<Value = Condition> + use<> {
        let expr = (select(&COMPARISONS), path(), path());
        prop_oneof![
            5 => (path(), self.test()).prop_map(|(path, test)| Condition::Field(path, test)),
            1 => expr.prop_map(|(comparison, left, right)| Condition::Expr(comparison, left, right)),
        ]
    }

    fn test(&self) -> impl Strategy<Value = Test> + use<> {
        let plain = self.plain_test().boxed();
        plain.clone().prop_recursive(2, 4, 2, move |inner| {
            prop_oneof![
                6 => plain.clone(),
                1 => vec(inner, 1..=2).prop_map(|tests| {
                    // `$not` has a table, and a table contains each operator only once.
                    let mut seen = BTreeSet::new();
                    Test::Not(tests.into_iter().filter(|test| seen.insert(operator(test))).collect())
                }),
            ]
        })
    }

    fn plain_test(&self) -> impl Strategy<Value = Test> + use<> {
        let operand = || select(self.operands.clone());
        let operands = || vec(operand(), 0..=4);
        let ordered = (select(&COMPARISONS[2..]), select(self.ordered.clone()));
        prop_oneof![
            4 => operand().prop_map(Test::Eq),
            4 => operand().prop_map(Test::Ne),
            2 => operands().prop_map(Test::In),
            2 => operands().prop_map(Test::Nin),
            1 => any::<bool>().prop_map(Test::Exists),
            7 => ordered.prop_map(|(comparison, operand)| Test::Compare(comparison, operand)),
        ]
    }

    /// Any document, without an `_id`.
    pub(crate) fn document(&self) -> impl Strategy<Value = Document> + use<> {
        let value = self.value(DEPTH_MAX);
        let field = |name| prop::option::weighted(0.85, value.clone()).prop_map(move |value| (name, value));
        Vec::from(NAMES.map(field)).prop_shuffle().prop_map(|fields| {
            let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            there.collect()
        })
    }

    fn value(&self, depth: usize) -> BoxedStrategy<Bson> {
        let scalar = select(self.values.clone());
        if depth == 0 {
            return scalar.boxed();
        }
        let inner = self.value(depth - 1);
        // A field whose name contains a dot is not found by a path.
        let names = prop_oneof![30 => select(&NAMES), 1 => Just("b.c")].prop_map(str::to_owned);
        prop_oneof![
            5 => scalar.clone(),
            2 => vec(scalar, 0..=4).prop_map(Bson::Array),
            6 => vec((names, inner.clone()), 0..=3).prop_map(|fields| Bson::Document(fields.into_iter().collect())),
            4 => vec(inner, 0..=3).prop_map(Bson::Array),
        ]
        .boxed()
    }
}

fn path() -> impl Strategy<Value = Path> {
    let paths = PATHS.map(|(weight, text)| (weight, Just(Path::parse(text).unwrap())));
    Union::new_weighted(Vec::from(paths))
}

/// The name of the operator in MongoDB.
pub(crate) fn operator(test: &Test) -> &'static str {
    match test {
        Test::Eq(_) => "$eq",
        Test::Ne(_) => "$ne",
        Test::In(_) => "$in",
        Test::Nin(_) => "$nin",
        Test::Exists(_) => "$exists",
        Test::Compare(comparison, _) => comparison.as_str(),
        Test::Not(_) => "$not",
    }
}

/// Conditions on the field `a`: every operator with every value that it accepts as its operand.
pub(crate) fn tests(values: &[Bson]) -> Vec<Condition> {
    let mut tests = Vec::new();
    for value in values.iter().filter(|value| is_operand(value)) {
        tests.extend([Test::Eq(value.clone()), Test::Ne(value.clone())]);
        tests.extend([Test::In(vec![value.clone()]), Test::Nin(vec![value.clone()])]);
        if is_ordered(value) {
            tests.extend(COMPARISONS[2..].iter().map(|comparison| Test::Compare(*comparison, value.clone())));
        }
    }
    let path = Path::parse("a").unwrap();
    tests.into_iter().map(|test| Condition::Field(path.clone(), test)).collect()
}
