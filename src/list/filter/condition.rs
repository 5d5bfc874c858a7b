//! The bounds of a `where`: the documents that surely match it, and those that surely do not.
//!
//! A document whose values have wrong types does neither (docs/schema.md, "Matched as mongod does, then types are checked").

use bson::{Bson, spec::ElementType};

use super::{
    simplify::{EVERYTHING, NOTHING, all, any, not},
    types::{blocked, element, element_document, of_types, single_value, wrong_values},
};
use crate::schema::{Condition, Element, Path, Test, comparable_types, value_types_except};

/// The types of values that may have bits.
const WITH_BITS: [ElementType; 5] =
    [ElementType::Double, ElementType::Int32, ElementType::Int64, ElementType::Decimal128, ElementType::Binary];

/// Where a condition is tested.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On a document.
    Document,
    /// On an element of an array, where a query cannot compare two fields.
    Element,
}

/// A condition that finds at least the documents that are meant, and whether it finds no others.
pub(super) type Found = (Condition, bool);

/// The documents that surely match a condition.
pub(super) fn matching(condition: &Condition, place: Place) -> Found {
    typed(condition, condition.clone(), place)
}

/// The documents that surely do not match a condition.
pub(super) fn failing(condition: &Condition, place: Place) -> Found {
    typed(condition, not(condition.clone()), place)
}

/// The documents that match `wanted` and in which the values that the condition looks at have the right types.
fn typed(condition: &Condition, wanted: Condition, place: Place) -> Found {
    let wrong = Wrong::types(condition);
    let (wanted, is_kept) = match place {
        Place::Document => (wanted, true),
        Place::Element => without_expressions(wanted),
    };
    (all([wanted, not(any(wrong.any))]), wrong.are_all && is_kept)
}

/// The condition, without the comparisons of two fields. It may then find more.
fn without_expressions(condition: Condition) -> Found {
    let each =
        |sides: Vec<Condition>| -> (Vec<Condition>, Vec<bool>) { sides.into_iter().map(without_expressions).unzip() };
    match condition {
        Condition::And(sides) => {
            let (sides, are_kept) = each(sides);
            (all(sides), !are_kept.contains(&false))
        }
        Condition::Or(sides) => {
            let (sides, are_kept) = each(sides);
            (any(sides), !are_kept.contains(&false))
        }
        field @ Condition::Field(..) => (field, true),
        Condition::Expr(..) => (EVERYTHING, false),
    }
}

/// What finds the values of wrong types: conditions on documents, or tests of whole elements.
struct Wrong<T> {
    /// One of these holds if there surely is a value of a wrong type.
    any: Vec<T>,
    /// Whether one of them holds for every value of a wrong type.
    are_all: bool,
}

impl<T> Wrong<T> {
    fn none() -> Self {
        Self { any: Vec::new(), are_all: true }
    }

    fn add(&mut self, other: impl IntoIterator<Item = T>) {
        self.any.extend(other);
    }

    /// Some values of wrong types are not found.
    fn lack(&mut self) {
        self.are_all = false;
    }
}

impl Wrong<Condition> {
    /// The values that a condition looks at.
    fn types(condition: &Condition) -> Self {
        let mut wrong = Self::none();
        wrong.in_condition(condition);
        wrong
    }

    fn in_condition(&mut self, condition: &Condition) {
        match condition {
            Condition::And(sides) | Condition::Or(sides) => sides.iter().for_each(|side| self.in_condition(side)),
            Condition::Field(path, test) => {
                self.add([blocked(path)]);
                self.at(path, test);
            }
            Condition::Expr(_, left, right) => {
                self.add([blocked(left), blocked(right)]);
                // The types of the two fields are not compared.
                self.lack();
            }
        }
    }

    /// The values at a path, for which a test may expect other types.
    fn at(&mut self, path: &Path, test: &Test) {
        match test {
            Test::Eq(operand) | Test::Ne(operand) | Test::Compare(_, operand) => {
                self.other_types(path, std::slice::from_ref(operand));
            }
            Test::In(operands) | Test::Nin(operands) | Test::All(operands) => self.other_types(path, operands),
            Test::Not(tests) => tests.iter().for_each(|test| self.at(path, test)),
            Test::Exists(_) | Test::Type(_) => {}
            Test::Bits(..) => {
                self.add(wrong_values(path, &WITH_BITS));
                // No query finds the fractions among decimals, nor the subtype of binary data.
                self.lack();
            }
            Test::Size(_) => self.single_value(path),
            Test::Element(inner) => {
                self.single_value(path);
                self.elements(path, inner);
            }
            Test::AllElements(inner) => {
                self.single_value(path);
                for inner in inner {
                    self.elements(path, inner);
                }
            }
        }
    }

    /// The values of other types than the operands.
    fn other_types(&mut self, path: &Path, operands: &[Bson]) {
        if operands.contains(&Bson::Null) {
            // Versions of MongoDB differ in whether it is equal to null.
            self.add([of_types(path, vec![ElementType::Undefined])]);
        }
        let types = types_of(operands);
        if types.is_empty() {
            return;
        }
        self.add(wrong_values(path, &types));
        if types.contains(&ElementType::Binary) {
            // Subtypes are types of their own, and no query distinguishes them.
            self.lack();
        }
    }

    /// The single values in place of arrays.
    fn single_value(&mut self, path: &Path) {
        match single_value(path) {
            Some(condition) => self.add([condition]),
            None => self.lack(),
        }
    }

    /// The elements of arrays that have other types than a test of elements expects.
    fn elements(&mut self, path: &Path, inner: &Element) {
        match inner {
            Element::Value(tests) => {
                let wrong = Wrong::of_element(tests);
                self.add(wrong.any.into_iter().map(|test| element(path, test)));
                self.are_all &= wrong.are_all;
            }
            Element::Document(condition) => {
                let wrong = Self::types(condition);
                self.add([element(path, other_than(&[ElementType::EmbeddedDocument]))]);
                self.add([element_document(path, any(wrong.any))]);
                self.are_all &= wrong.are_all;
            }
        }
    }
}

impl Wrong<Test> {
    /// The elements for which one of the tests expects other types.
    fn of_element(tests: &[Test]) -> Self {
        let mut wrong = Self::none();
        for test in tests {
            wrong.whole(test);
        }
        wrong
    }

    fn whole(&mut self, test: &Test) {
        match test {
            Test::Eq(operand) | Test::Ne(operand) | Test::Compare(_, operand) => {
                self.other_types(std::slice::from_ref(operand));
            }
            Test::In(operands) | Test::Nin(operands) | Test::All(operands) => self.other_types(operands),
            Test::Not(tests) => tests.iter().for_each(|test| self.whole(test)),
            Test::Exists(_) | Test::Type(_) => {}
            Test::Bits(..) => {
                self.add([other_than(&WITH_BITS)]);
                self.lack();
            }
            Test::Size(_) => self.add([other_than(&[ElementType::Array])]),
            Test::Element(inner) => {
                self.add([other_than(&[ElementType::Array])]);
                self.inner(inner);
            }
            Test::AllElements(inner) => {
                self.add([other_than(&[ElementType::Array])]);
                for inner in inner {
                    self.inner(inner);
                }
            }
        }
    }

    /// The elements of other types than the operands.
    fn other_types(&mut self, operands: &[Bson]) {
        if operands.contains(&Bson::Null) {
            self.add([Test::Type(vec![ElementType::Undefined])]);
        }
        let types = types_of(operands);
        if types.is_empty() {
            return;
        }
        self.add([other_than(&types)]);
        if types.contains(&ElementType::Binary) {
            self.lack();
        }
    }

    /// The arrays whose elements have other types than a test of these expects.
    fn inner(&mut self, inner: &Element) {
        match inner {
            Element::Value(tests) => {
                let wrong = Self::of_element(tests);
                self.add(wrong.any.into_iter().map(|test| Test::Element(Element::Value(vec![test]))));
                self.are_all &= wrong.are_all;
            }
            Element::Document(condition) => {
                let wrong = Wrong::types(condition);
                let others = other_than(&[ElementType::EmbeddedDocument]);
                self.add([Test::Element(Element::Value(vec![others]))]);
                let in_document = Some(any(wrong.any)).filter(|condition| *condition != NOTHING);
                self.add(in_document.map(|condition| Test::Element(Element::Document(Box::new(condition)))));
                self.are_all &= wrong.are_all;
            }
        }
    }
}

/// The types of the values that the operands are compared with; none if all operands are null.
fn types_of(operands: &[Bson]) -> Vec<ElementType> {
    operands.iter().flat_map(comparable_types).copied().collect()
}

/// Another type than these. An element is not looked into.
fn other_than(types: &[ElementType]) -> Test {
    Test::Type(value_types_except(types).collect())
}
