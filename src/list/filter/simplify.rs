//! Joins and negates conditions, and keeps them short: constants disappear, nested lists become one, and lists of values of one field
//! are merged. What a condition finds never changes.
//!
//! The empty `And` finds everything, the empty `Or` nothing. Neither is left inside another condition.

use bson::Bson;

use crate::schema::{Comparison, Condition, Path, Test, compare};

/// Finds everything.
pub(super) const EVERYTHING: Condition = Condition::And(Vec::new());

/// Finds nothing.
pub(super) const NOTHING: Condition = Condition::Or(Vec::new());

/// All of the conditions hold.
pub(super) fn all(conditions: impl IntoIterator<Item = Condition>) -> Condition {
    let mut joined: Vec<Condition> = Vec::new();
    let mut rest: Vec<Condition> = conditions.into_iter().collect();
    rest.reverse();
    while let Some(condition) = rest.pop() {
        match condition {
            Condition::And(sides) => rest.extend(sides.into_iter().rev()),
            condition if finds_nothing(&condition) => return NOTHING,
            condition => add(&mut joined, condition, both),
        }
    }
    if joined.iter().any(finds_nothing) {
        return NOTHING;
    }
    only(joined, Condition::And)
}

/// At least one of the conditions holds.
pub(super) fn any(conditions: impl IntoIterator<Item = Condition>) -> Condition {
    let mut joined: Vec<Condition> = Vec::new();
    let mut rest: Vec<Condition> = conditions.into_iter().collect();
    rest.reverse();
    while let Some(condition) = rest.pop() {
        match condition {
            Condition::Or(sides) => rest.extend(sides.into_iter().rev()),
            condition if condition == EVERYTHING => return EVERYTHING,
            condition if finds_nothing(&condition) => {}
            condition => add(&mut joined, condition, either),
        }
    }
    only(joined, Condition::Or)
}

/// The condition does not hold.
pub(super) fn not(condition: Condition) -> Condition {
    match condition {
        Condition::And(sides) => any(sides.into_iter().map(not)),
        Condition::Or(sides) => all(sides.into_iter().map(not)),
        Condition::Field(path, test) => not_test(path, test),
        Condition::Expr(comparison, left, right) => Condition::Expr(opposite(comparison), left, right),
    }
}

fn not_test(path: Path, test: Test) -> Condition {
    let test = match test {
        Test::Eq(value) => Test::Ne(value),
        Test::Ne(value) => Test::Eq(value),
        Test::In(values) => Test::Nin(values),
        Test::Nin(values) => Test::In(values),
        Test::Exists(wanted) => Test::Exists(!wanted),
        Test::Not(tests) => return all(tests.into_iter().map(|test| Condition::Field(path.clone(), test))),
        test @ (Test::Compare(..)
        | Test::All(_)
        | Test::AllElements(_)
        | Test::Element(_)
        | Test::Size(_)
        | Test::Bits(..)
        | Test::Type(_)) => Test::Not(vec![test]),
    };
    Condition::Field(path, test)
}

/// Values of all types have one order in `$expr`, so a comparison that fails is another one that holds.
fn opposite(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Eq => Comparison::Ne,
        Comparison::Ne => Comparison::Eq,
        Comparison::Gt => Comparison::Lte,
        Comparison::Gte => Comparison::Lt,
        Comparison::Lt => Comparison::Gte,
        Comparison::Lte => Comparison::Gt,
    }
}

/// Adds a condition to a list, unless it is there already or one of the list can be merged with it.
fn add(list: &mut Vec<Condition>, condition: Condition, merge: fn(&Condition, &Condition) -> Option<Condition>) {
    if list.contains(&condition) {
        return;
    }
    match list.iter_mut().find_map(|other| merge(other, &condition).map(|merged| (other, merged))) {
        Some((other, merged)) => *other = merged,
        None => list.push(condition),
    }
}

/// One condition in place of two that both have to hold. An array may have one value of each list, so only lists of excluded values can
/// be merged, and those of `_id`, which is never an array.
fn both(one: &Condition, other: &Condition) -> Option<Condition> {
    let (Condition::Field(path, one), Condition::Field(other_path, other)) = (one, other) else { return None };
    if path != other_path {
        return None;
    }
    if let (Some(one), Some(other)) = (excluded(one), excluded(other)) {
        return Some(Condition::Field(path.clone(), Test::Nin(union(one, other))));
    }
    let (one, other) = (accepted(one)?, accepted(other)?);
    (*path == Path::id()).then(|| one_of(path.clone(), intersection(one, other)))
}

/// One condition in place of two of which one has to hold.
fn either(one: &Condition, other: &Condition) -> Option<Condition> {
    let (Condition::Field(path, one), Condition::Field(other_path, other)) = (one, other) else { return None };
    let (one, other) = (accepted(one)?, accepted(other)?);
    (path == other_path).then(|| Condition::Field(path.clone(), Test::In(union(one, other))))
}

/// A field has one of these values, or an array with one of them.
pub(super) fn one_of(path: Path, mut values: Vec<Bson>) -> Condition {
    match (values.pop(), values.is_empty()) {
        (None, _) => NOTHING,
        (Some(only), true) => Condition::Field(path, Test::Eq(only)),
        (Some(last), false) => {
            values.push(last);
            Condition::Field(path, Test::In(values))
        }
    }
}

fn finds_nothing(condition: &Condition) -> bool {
    match condition {
        Condition::Or(sides) => sides.is_empty(),
        Condition::Field(_, Test::In(values)) => values.is_empty(),
        Condition::Field(..) | Condition::And(_) | Condition::Expr(..) => false,
    }
}

/// The values of which a test accepts one.
fn accepted(test: &Test) -> Option<&[Bson]> {
    match test {
        Test::Eq(value) => Some(std::slice::from_ref(value)),
        Test::In(values) => Some(values),
        Test::Ne(_)
        | Test::Nin(_)
        | Test::Exists(_)
        | Test::Compare(..)
        | Test::Not(_)
        | Test::All(_)
        | Test::AllElements(_)
        | Test::Element(_)
        | Test::Size(_)
        | Test::Bits(..)
        | Test::Type(_) => None,
    }
}

/// The values of which a test accepts none.
fn excluded(test: &Test) -> Option<&[Bson]> {
    match test {
        Test::Ne(value) => Some(std::slice::from_ref(value)),
        Test::Nin(values) => Some(values),
        Test::Eq(_)
        | Test::In(_)
        | Test::Exists(_)
        | Test::Compare(..)
        | Test::Not(_)
        | Test::All(_)
        | Test::AllElements(_)
        | Test::Element(_)
        | Test::Size(_)
        | Test::Bits(..)
        | Test::Type(_) => None,
    }
}

/// The values of both lists, sorted. Values that MongoDB takes for equal occur once.
fn union(one: &[Bson], other: &[Bson]) -> Vec<Bson> {
    let mut values: Vec<Bson> = one.iter().chain(other).cloned().collect();
    values.sort_by(compare);
    values.dedup_by(|one, other| compare(one, other).is_eq());
    values
}

/// The values of the first list that MongoDB takes for equal to one of the other.
fn intersection(one: &[Bson], other: &[Bson]) -> Vec<Bson> {
    let mut sorted: Vec<&Bson> = other.iter().collect();
    sorted.sort_by(|one, other| compare(one, other));
    let is_there = |value: &&Bson| sorted.binary_search_by(|other| compare(other, value)).is_ok();
    one.iter().filter(is_there).cloned().collect()
}

fn only(mut list: Vec<Condition>, join: fn(Vec<Condition>) -> Condition) -> Condition {
    match (list.pop(), list.is_empty()) {
        (Some(only), true) => only,
        (Some(last), false) => {
            list.push(last);
            join(list)
        }
        (None, _) => join(list),
    }
}
