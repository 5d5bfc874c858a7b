//! Tests of the values at a path: what mongod matches, and which types a test expects.
//!
//! Does not know how conditions are joined.

use bson::{
    Bson, Document, doc,
    spec::{BinarySubtype, ElementType},
};

use super::{
    BitTest, Comparison, Condition,
    bits::{Mask, has_bits},
};
use crate::schema::{
    order::{Class, compare, is_nan},
    path::Path,
    types::type_name,
};

/// A test of the values at a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Equal to a value. A missing field is equal to null.
    Eq(Bson),
    /// Not [`Test::Eq`].
    Ne(Bson),
    /// Equal to one of the values.
    In(Vec<Bson>),
    /// Not [`Test::In`].
    Nin(Vec<Bson>),
    /// The field exists, or does not. A field that is null exists.
    Exists(bool),
    /// Less or greater than a value of the same type.
    Compare(Comparison, Bson),
    /// Not all of these tests hold.
    Not(Vec<Test>),
    /// Each of the values is equal to the field, or to an element of its array. No values are never found.
    All(Vec<Bson>),
    /// For each of these, the array has an element that fulfils it.
    AllElements(Vec<Element>),
    /// The array has an element that fulfils this.
    Element(Element),
    /// The array has this number of elements.
    Size(u32),
    /// A test of the bits of a number or of binary data.
    Bits(BitTest, Mask),
    /// The value has one of these types. An array is tested itself, too.
    Type(Vec<ElementType>),
}

/// What an element of an array has to fulfil (`$elemMatch`).
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// All of these tests hold for the element itself, which is not looked into if it is an array.
    Value(Vec<Test>),
    /// The element is a document, or an array, that matches this condition.
    Document(Box<Condition>),
}

/// The type of a value for [`Condition::is_typed`]. A UUID and other binary data are different types.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Kind(Class, Option<BinarySubtype>);

impl Kind {
    pub(super) fn of(value: &Bson) -> Self {
        let subtype = match value {
            Bson::Binary(binary) => Some(binary.subtype),
            _ => None,
        };
        Self(Class::of(value), subtype)
    }

    /// Whether it is the type of null or of a missing value.
    pub(super) fn is_nothing(self) -> bool {
        self.0.is_nothing()
    }
}

impl Element {
    /// Whether an element of an array fulfils this.
    fn holds_for(&self, item: &Bson) -> bool {
        match (self, item) {
            (Self::Value(tests), item) => tests.iter().all(|test| test.holds_for(Some(item))),
            (Self::Document(condition), Bson::Document(inner)) => condition.matches(inner),
            // mongod takes an array for a document whose names are positions, and no path has any.
            (Self::Document(condition), Bson::Array(_)) => condition.matches(&Document::new()),
            (Self::Document(_), _) => false,
        }
    }

    fn is_typed(&self, item: &Bson) -> bool {
        match (self, item) {
            (Self::Value(tests), item) => tests.iter().all(|test| test.admits(item) && test.admits_whole(item)),
            (Self::Document(condition), Bson::Document(inner)) => condition.is_typed(inner),
            (Self::Document(_), item) => Class::of(item).is_nothing(),
        }
    }

    fn paths(&self, path: &Path, visit: &mut dyn FnMut(&Path)) {
        match self {
            Self::Value(_) => visit(path),
            Self::Document(condition) => condition.paths(&mut |inner| visit(&path.join(inner))),
        }
    }

    fn text_paths(&self, path: &Path, visit: &mut dyn FnMut(&Path)) {
        match self {
            Self::Value(tests) => tests.iter().for_each(|test| test.text_paths(path, visit)),
            Self::Document(condition) => condition.text_paths(&mut |inner| visit(&path.join(inner))),
        }
    }

    fn to_query(&self) -> Document {
        match self {
            Self::Value(tests) => tests.iter().flat_map(Test::to_query).collect(),
            Self::Document(condition) => condition.to_query(),
        }
    }
}

impl Test {
    /// Whether the test holds for the values that mongod finds at the path.
    pub(super) fn matches(&self, path: &Path, document: &Document) -> bool {
        match self {
            Self::Eq(_) | Self::In(_) | Self::Exists(true) | Self::Compare(..) | Self::Bits(..) | Self::Type(_) => {
                path.any(document, |value| self.holds_for(value))
            }
            Self::Ne(operand) => !path.any(document, |value| is_equal(value, operand)),
            Self::Nin(operands) => !path.any(document, |value| is_one(value, operands)),
            Self::Exists(false) => !path.any(document, |value| value.is_some()),
            Self::Not(all) => !all.iter().all(|test| test.matches(path, document)),
            Self::All(operands) => {
                let is_there = |operand| path.any(document, |value| is_equal(value, operand));
                !operands.is_empty() && operands.iter().all(is_there)
            }
            Self::AllElements(elements) => {
                let is_there = |element: &Element| path.any_whole(document, |value| has_element(value, element));
                !elements.is_empty() && elements.iter().all(is_there)
            }
            Self::Element(_) | Self::Size(_) => path.any_whole(document, |value| self.holds_for(value)),
        }
    }

    /// Whether the test holds for one value, which is not looked into if it is an array. `None` stands for a missing field.
    fn holds_for(&self, value: Option<&Bson>) -> bool {
        match self {
            Self::Eq(operand) => is_equal(value, operand),
            Self::Ne(operand) => !is_equal(value, operand),
            Self::In(operands) => is_one(value, operands),
            Self::Nin(operands) => !is_one(value, operands),
            Self::Exists(wanted) => value.is_some() == *wanted,
            Self::Compare(comparison, operand) => value.is_some_and(|value| {
                Class::of(value) == Class::of(operand) && !is_nan(value) && comparison.holds(compare(value, operand))
            }),
            Self::Not(all) => !all.iter().all(|test| test.holds_for(value)),
            Self::All(operands) => !operands.is_empty() && operands.iter().all(|operand| is_equal(value, operand)),
            Self::AllElements(elements) => {
                !elements.is_empty() && elements.iter().all(|element| has_element(value, element))
            }
            Self::Element(element) => has_element(value, element),
            Self::Size(size) => matches!(value, Some(Bson::Array(items)) if u32::try_from(items.len()) == Ok(*size)),
            Self::Bits(test, mask) => value.is_some_and(|value| mask.holds(*test, value)),
            Self::Type(types) => value.is_some_and(|value| types.contains(&value.element_type())),
        }
    }

    /// Whether a value at the end of a path has the type that the test expects. Of an array, each element has to have it. Each
    /// test inside `$not` expects its own type.
    pub(super) fn admits_field(&self, value: &Bson) -> bool {
        let is_admitted = match value {
            Bson::Array(items) => items.iter().all(|item| self.admits(item)),
            value => self.admits(value),
        };
        is_admitted && self.admits_whole(value)
    }

    /// Whether a value that is not looked into has the type of the operands. Null has every type.
    fn admits(&self, value: &Bson) -> bool {
        match self {
            Self::Eq(operand) | Self::Ne(operand) | Self::Compare(_, operand) => {
                has_kind_of(value, std::slice::from_ref(operand))
            }
            Self::In(operands) | Self::Nin(operands) | Self::All(operands) => has_kind_of(value, operands),
            Self::Not(all) => all.iter().all(|test| test.admits(value)),
            Self::Bits(..) => Class::of(value).is_nothing() || has_bits(value),
            Self::Exists(_) | Self::Type(_) | Self::Size(_) | Self::Element(_) | Self::AllElements(_) => true,
        }
    }

    /// Whether a value is an array with elements of the right types, if the test expects an array. Null has every type.
    fn admits_whole(&self, value: &Bson) -> bool {
        match self {
            Self::Not(all) => all.iter().all(|test| test.admits_whole(value)),
            Self::Size(_) => is_array_of(value, &[]),
            Self::Element(element) => is_array_of(value, std::slice::from_ref(element)),
            Self::AllElements(elements) => is_array_of(value, elements),
            Self::Eq(_)
            | Self::Ne(_)
            | Self::In(_)
            | Self::Nin(_)
            | Self::Exists(_)
            | Self::Compare(..)
            | Self::All(_)
            | Self::Bits(..)
            | Self::Type(_) => true,
        }
    }

    /// Visits the path, or the paths of the fields that the test looks at in the elements of the array there.
    pub(super) fn paths(&self, path: &Path, visit: &mut dyn FnMut(&Path)) {
        match self {
            Self::Not(all) => all.iter().for_each(|test| test.paths(path, visit)),
            Self::Element(element) => element.paths(path, visit),
            Self::AllElements(elements) => elements.iter().for_each(|element| element.paths(path, visit)),
            Self::Eq(_)
            | Self::Ne(_)
            | Self::In(_)
            | Self::Nin(_)
            | Self::Exists(_)
            | Self::Compare(..)
            | Self::All(_)
            | Self::Size(_)
            | Self::Bits(..)
            | Self::Type(_) => visit(path),
        }
    }

    /// Visits the path if the test compares with a text, and such paths in the elements of the array there.
    pub(super) fn text_paths(&self, path: &Path, visit: &mut dyn FnMut(&Path)) {
        let is_text = |operand: &Bson| Class::of(operand) == Class::String;
        let mut any = |operands: &[Bson]| {
            if operands.iter().any(is_text) {
                visit(path);
            }
        };
        match self {
            Self::Eq(operand) | Self::Ne(operand) | Self::Compare(_, operand) => any(std::slice::from_ref(operand)),
            Self::In(operands) | Self::Nin(operands) | Self::All(operands) => any(operands),
            Self::Not(all) => all.iter().for_each(|test| test.text_paths(path, visit)),
            Self::Element(element) => element.text_paths(path, visit),
            Self::AllElements(elements) => elements.iter().for_each(|element| element.text_paths(path, visit)),
            Self::Exists(_) | Self::Size(_) | Self::Bits(..) | Self::Type(_) => {}
        }
    }

    pub(super) fn to_query(&self) -> Document {
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
            Self::All(operands) => doc! { "$all": operands },
            Self::AllElements(elements) => {
                let all = elements.iter().map(|element| Bson::Document(doc! { "$elemMatch": element.to_query() }));
                doc! { "$all": all.collect::<Vec<_>>() }
            }
            Self::Element(element) => doc! { "$elemMatch": element.to_query() },
            Self::Size(size) => doc! { "$size": i64::from(*size) },
            Self::Bits(test, mask) => doc! { test.as_str(): mask.to_operand() },
            Self::Type(types) => doc! { "$type": types.iter().copied().map(type_name).collect::<Vec<_>>() },
        }
    }
}

/// Equality as in queries: numbers are compared by value, and a missing field is equal to null.
fn is_equal(value: Option<&Bson>, operand: &Bson) -> bool {
    match value {
        None | Some(Bson::Undefined) => *operand == Bson::Null,
        Some(value) => compare(value, operand).is_eq(),
    }
}

fn is_one(value: Option<&Bson>, operands: &[Bson]) -> bool {
    operands.iter().any(|operand| is_equal(value, operand))
}

/// Whether the value is an array with an element that fulfils this.
fn has_element(value: Option<&Bson>, element: &Element) -> bool {
    matches!(value, Some(Bson::Array(items)) if items.iter().any(|item| element.holds_for(item)))
}

/// Whether the value has the type of one of the operands. Null has every type, and if all operands are null, so has any value.
/// Except that `undefined` is not comparable with null: versions of mongod differ in whether the two are equal.
fn has_kind_of(value: &Bson, operands: &[Bson]) -> bool {
    if *value == Bson::Undefined && operands.contains(&Bson::Null) {
        return false;
    }
    let kind = Kind::of(value);
    let mut kinds = operands.iter().map(Kind::of).filter(|kind| !kind.is_nothing()).peekable();
    kind.is_nothing() || kinds.peek().is_none() || kinds.any(|operand| operand == kind)
}

/// Whether the value is null, or an array whose elements have the types that each of these expects.
fn is_array_of(value: &Bson, elements: &[Element]) -> bool {
    match value {
        Bson::Array(items) => elements.iter().all(|element| items.iter().all(|item| element.is_typed(item))),
        value => Class::of(value).is_nothing(),
    }
}
