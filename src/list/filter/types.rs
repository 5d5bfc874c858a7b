//! Queries for values of a wrong type at a path, as the evaluator looks at values: an array is judged by its elements, and a value on
//! the way that is neither a document nor an array of documents blocks the path.
//!
//! Null and missing values are never of a wrong type. Each query finds documents in which there surely is such a value.

use bson::spec::ElementType;

use super::simplify::{EVERYTHING, NOTHING, all, any};
use crate::schema::{Condition, Element, Path, Test, value_types_except};

/// How many arrays a path may lead through before queries would become too long that tell them apart.
const PARTS_MAX: usize = 3;

/// The field has a value of one of these types, or an array with one.
pub(super) fn of_types(path: &Path, types: Vec<ElementType>) -> Condition {
    Condition::Field(path.clone(), Test::Type(types))
}

/// The field has a value of another type than these, or an array with one.
pub(super) fn other_types(path: &Path, types: &[ElementType]) -> Condition {
    of_types(path, value_types_except(types).collect())
}

/// The field has an array with an element that passes this test, which looks at the element as a whole.
pub(super) fn element(path: &Path, test: Test) -> Condition {
    Condition::Field(path.clone(), Test::Element(Element::Value(vec![test])))
}

/// The field has an array in an array.
pub(super) fn nested_array(path: &Path) -> Condition {
    element(path, Test::Type(vec![ElementType::Array]))
}

/// A value of another type than these, or an array in an array: neither the value nor an element of its array has one of the types.
pub(super) fn wrong_values(path: &Path, types: &[ElementType]) -> [Condition; 2] {
    [other_types(path, &[types, &[ElementType::Array]].concat()), nested_array(path)]
}

/// A value blocks the path: it is on the way, and is neither a document nor an array of documents.
pub(super) fn blocked(path: &Path) -> Condition {
    let outer = path.outer().filter_map(|outer| Path::parse(&outer).ok());
    any(outer.flat_map(|outer| wrong_values(&outer, &[ElementType::EmbeddedDocument])))
}

/// The field is no array.
pub(super) fn no_array(path: &Path) -> Condition {
    Condition::Field(path.clone(), Test::Not(vec![Test::Type(vec![ElementType::Array])]))
}

/// A condition that holds if it does for one of the ends of a path, each of which is a single value or a single array. `test` makes the
/// condition for a field on the way to which there is no array. It must hold for no missing field. None if the path leads through too
/// much.
pub(super) fn any_end(path: &Path, test: &dyn Fn(&Path) -> Condition) -> Option<Condition> {
    let parts: Vec<&str> = path.as_str().split('.').collect();
    // `$elemMatch` takes the fields of a DBRef for operators.
    if parts.len() > PARTS_MAX || parts.iter().any(|part| part.starts_with('$')) {
        return None;
    }
    ends_after(&[], &parts, test)
}

/// As [`any_end`], where `before` was passed without an array.
fn ends_after(before: &[&str], rest: &[&str], test: &dyn Fn(&Path) -> Condition) -> Option<Condition> {
    let (first, inner) = rest.split_first()?;
    let here = [before, &[first]].concat();
    let path = Path::parse(&here.join(".")).ok()?;
    if inner.is_empty() {
        return Some(test(&path));
    }
    let in_document = ends_after(&here, inner, test)?;
    let in_element = ends_after(&[], inner, test)?;
    let elements = Condition::Field(path.clone(), Test::Element(Element::Document(Box::new(in_element))));
    Some(any([all([no_array(&path), in_document]), elements]))
}

/// One of the ends is a single value, of no array; none if no query says so.
pub(super) fn single_value(path: &Path) -> Option<Condition> {
    any_end(path, &|path| all([no_array(path), other_types(path, &[ElementType::Array])]))
}

/// There is an array with a document that matches the condition. An array in an array counts as a document without fields.
pub(super) fn element_document(path: &Path, condition: Condition) -> Condition {
    if condition == NOTHING {
        return NOTHING;
    }
    if condition == EVERYTHING {
        return element(path, Test::Type(vec![ElementType::EmbeddedDocument, ElementType::Array]));
    }
    Condition::Field(path.clone(), Test::Element(Element::Document(Box::new(condition))))
}
