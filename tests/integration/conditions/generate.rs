//! Generates random conditions and documents. All of a round use one small stock of values, so that they often match.
//!
//! Compares nothing.

use std::collections::BTreeSet;

use bson::{Bson, Document, spec::ElementType};
use permcached::schema::{BitTest, Comparison, Condition, Element, Mask, Path, Test};
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

pub(crate) const BIT_TESTS: [BitTest; 4] = [BitTest::AllSet, BitTest::AnySet, BitTest::AllClear, BitTest::AnyClear];

/// All types.
const TYPES: [ElementType; 21] = [
    ElementType::Double,
    ElementType::String,
    ElementType::EmbeddedDocument,
    ElementType::Array,
    ElementType::Binary,
    ElementType::ObjectId,
    ElementType::Boolean,
    ElementType::DateTime,
    ElementType::Null,
    ElementType::Int32,
    ElementType::Int64,
    ElementType::Decimal128,
    ElementType::Undefined,
    ElementType::Symbol,
    ElementType::RegularExpression,
    ElementType::Timestamp,
    ElementType::JavaScriptCode,
    ElementType::JavaScriptCodeWithScope,
    ElementType::DbPointer,
    ElementType::MinKey,
    ElementType::MaxKey,
];

/// The largest size of an array that is asked for: one more than any has.
const SIZE_MAX: u32 = 5;

/// The maximal depth of values nested in a field of a document.
const DEPTH_MAX: usize = 3;

/// The maximal number of `$elemMatch` inside each other.
const ELEMENTS_DEPTH_MAX: usize = 2;

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
        // It has values that have bits, too.
        values.extend([Bson::Int64(7), Bson::Int64(-1), Bson::Double(5.0)]);
        let pick = |is_wanted: fn(&Bson) -> bool| values.iter().filter(|value| is_wanted(value)).cloned().collect();
        Stock { operands: pick(is_operand), ordered: pick(is_ordered), values }
    })
}

impl Stock {
    /// Any condition that a schema can contain.
    pub(crate) fn condition(&self) -> impl Strategy<Value = Condition> + use<> {
        self.condition_with(true, ELEMENTS_DEPTH_MAX)
    }

    /// A condition. `$elemMatch` is nested no deeper than `depth`, and contains no `$expr`.
    fn condition_with(&self, has_expr: bool, depth: usize) -> BoxedStrategy<Condition> {
        let field = (path(), self.test(depth)).prop_map(|(path, test)| Condition::Field(path, test));
        let expr = (select(&COMPARISONS), path(), path());
        let expr = expr.prop_map(|(comparison, left, right)| Condition::Expr(comparison, left, right));
        let leaf = if has_expr { prop_oneof![5 => field, 1 => expr].boxed() } else { field.boxed() };
        let least = usize::from(!has_expr);
        let joined = leaf.clone().prop_recursive(2, 8, 3, move |inner| {
            prop_oneof![
                5 => leaf.clone(),
                1 => vec(inner.clone(), least..=3).prop_map(Condition::And),
                2 => vec(inner, 1..=3).prop_map(Condition::Or),
            ]
        });
        joined.boxed()
    }

    fn test(&self, depth: usize) -> BoxedStrategy<Test> {
        let plain = self.plain_test(depth).boxed();
        let joined = plain.clone().prop_recursive(2, 4, 2, move |inner| {
            prop_oneof![
                6 => plain.clone(),
                1 => vec(inner, 1..=2).prop_map(|tests| Test::Not(distinct(tests))),
            ]
        });
        joined.boxed()
    }

    fn plain_test(&self, depth: usize) -> impl Strategy<Value = Test> + use<> {
        let operand = || select(self.operands.clone());
        let operands = || vec(operand(), 0..=4);
        let ordered = (select(&COMPARISONS[2..]), select(self.ordered.clone()));
        let plain = prop_oneof![
            4 => operand().prop_map(Test::Eq),
            4 => operand().prop_map(Test::Ne),
            2 => operands().prop_map(Test::In),
            2 => operands().prop_map(Test::Nin),
            1 => any::<bool>().prop_map(Test::Exists),
            7 => ordered.prop_map(|(comparison, operand)| Test::Compare(comparison, operand)),
            2 => vec(operand(), 0..=2).prop_map(Test::All),
            2 => (0..=SIZE_MAX).prop_map(Test::Size),
            4 => (select(&BIT_TESTS), mask()).prop_map(|(test, mask)| Test::Bits(test, mask)),
            2 => vec(select(&TYPES), 1..=3).prop_map(Test::Type),
        ];
        if depth == 0 {
            return plain.boxed();
        }
        let elements = vec(self.element(depth - 1), 1..=2);
        prop_oneof![
            16 => plain,
            4 => self.element(depth - 1).prop_map(Test::Element),
            2 => elements.prop_map(Test::AllElements),
        ]
        .boxed()
    }

    fn element(&self, depth: usize) -> BoxedStrategy<Element> {
        let values = vec(self.test(depth), 1..=2).prop_map(|tests| Element::Value(distinct(tests)));
        let documents = self.condition_with(false, depth).prop_map(|condition| Element::Document(Box::new(condition)));
        prop_oneof![values, documents].boxed()
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

/// The first test of each operator: a table contains each operator only once.
fn distinct(tests: Vec<Test>) -> Vec<Test> {
    let mut seen = BTreeSet::new();
    tests.into_iter().filter(|test| seen.insert(operator(test))).collect()
}

/// Masks of the lowest bits, of the bits around the sign, and of bits that only binary data has.
fn mask() -> impl Strategy<Value = Mask> {
    let position = prop_oneof![4 => 0..=4_u32, 2 => 30..=33_u32, 3 => 51..=66_u32, 1 => 90..=170_u32, 1 => Just(i32::MAX.unsigned_abs())];
    let number = prop_oneof![4 => 1..=7_u64, 1 => 1..=i64::MAX.unsigned_abs()];
    prop_oneof![
        vec(position, 1..=3).prop_map(Mask::of_positions),
        number.prop_map(Mask::of_number),
        vec(any::<u8>(), 1..=20).prop_filter_map("a bit is tested", |bytes| {
            bytes.iter().any(|byte| *byte != 0).then(|| Mask::of_bytes(&bytes))
        }),
    ]
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
        Test::All(_) | Test::AllElements(_) => "$all",
        Test::Element(_) => "$elemMatch",
        Test::Size(_) => "$size",
        Test::Bits(test, _) => test.as_str(),
        Test::Type(_) => "$type",
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
    tests.extend(TYPES.map(|kind| Test::Type(vec![kind])));
    tests.extend((0..=2).map(Test::Size));
    tests.push(Test::All(vec![]));
    let masks = [
        vec![0],
        vec![1],
        vec![0, 2],
        vec![31],
        vec![32, 33],
        vec![53],
        vec![63],
        vec![64],
        vec![62, 100],
        vec![0, 127],
    ];
    let bits = masks
        .into_iter()
        .flat_map(|positions| BIT_TESTS.map(|test| Test::Bits(test, Mask::of_positions(positions.clone()))));
    tests.extend(bits);
    let path = Path::parse("a").unwrap();
    tests.into_iter().map(|test| Condition::Field(path.clone(), test)).collect()
}
