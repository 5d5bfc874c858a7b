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
/// be merged.
fn both(one: &Condition, other: &Condition) -> Option<Condition> {
    let (path, values) = merged(one, other, false)?;
    Some(Condition::Field(path.clone(), Test::Nin(values)))
}

/// One condition in place of two of which one has to hold.
fn either(one: &Condition, other: &Condition) -> Option<Condition> {
    let (path, values) = merged(one, other, true)?;
    Some(Condition::Field(path.clone(), Test::In(values)))
}

/// The field and the values of two conditions if both accept one of their values, or if both accept none.
fn merged<'c>(one: &'c Condition, other: &Condition, accepts_one: bool) -> Option<(&'c Path, Vec<Bson>)> {
    let (Condition::Field(path, one), Condition::Field(other_path, other)) = (one, other) else { return None };
    if path != other_path {
        return None;
    }
    let values = |test| listed(test).filter(|(accepts, _)| *accepts == accepts_one).map(|(_, values)| values);
    Some((path, union(values(one)?, values(other)?)))
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

/// The values that a test compares with, where it accepts one of them (`true`) or none of them.
fn listed(test: &Test) -> Option<(bool, &[Bson])> {
    match test {
        Test::Eq(value) => Some((true, std::slice::from_ref(value))),
        Test::In(values) => Some((true, values)),
        Test::Ne(value) => Some((false, std::slice::from_ref(value))),
        Test::Nin(values) => Some((false, values)),
        Test::Exists(_)
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

#[cfg(test)]
mod tests {
    use bson::{Document, doc, spec::ElementType};
    use proptest::{bool, collection::vec, prelude::*, sample::select};

    use super::{any, *};
    use crate::schema::Element;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn value() -> impl Strategy<Value = Bson> {
        let all = [Bson::Null, 1.into(), Bson::Int64(1), Bson::Double(2.0), 3.into(), "x".into(), true.into()];
        select(all.to_vec())
    }

    fn condition() -> impl Strategy<Value = Condition> {
        let values = || vec(value(), 0..3);
        let ordered = (select(vec![Comparison::Gt, Comparison::Lte]), 1..4_i32);
        let test = prop_oneof![
            value().prop_map(Test::Eq),
            value().prop_map(Test::Ne),
            values().prop_map(Test::In),
            values().prop_map(Test::Nin),
            bool::ANY.prop_map(Test::Exists),
            ordered.prop_map(|(comparison, number)| Test::Compare(comparison, number.into())),
            Just(Test::Type(vec![ElementType::Int32])),
            (0..3_u32).prop_map(Test::Size),
            values().prop_map(|values| Test::Element(Element::Value(vec![Test::In(values)]))),
            value().prop_map(|value| Test::Not(vec![Test::Eq(value), Test::Exists(true)])),
        ];
        let comparisons = vec![Comparison::Eq, Comparison::Ne, Comparison::Lt, Comparison::Gte];
        let leaf = prop_oneof![
            8 => (select(vec!["a", "b", "_id", "a.b"]), test).prop_map(|(name, test)| Condition::Field(path(name), test)),
            1 => select(comparisons).prop_map(|comparison| Condition::Expr(comparison, path("a"), path("b"))),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![vec(inner.clone(), 0..4).prop_map(Condition::And), vec(inner, 0..4).prop_map(Condition::Or)]
        })
    }

    fn document() -> impl Strategy<Value = Document> {
        let item = prop_oneof![4 => value(), 1 => value().prop_map(|value| doc! { "b": value }.into())];
        let field = prop_oneof![
            3 => item.clone().prop_map(Some),
            2 => vec(item, 0..3).prop_map(|items| Some(Bson::Array(items))),
            1 => Just(None),
        ];
        // In an element of an array, `_id` may be an array.
        let id = field.clone();
        (id, field.clone(), field).prop_map(|(id, a, b)| {
            let mut document = Document::new();
            document.extend(id.map(|id| ("_id".to_owned(), id)));
            document.extend(a.map(|a| ("a".to_owned(), a)));
            document.extend(b.map(|b| ("b".to_owned(), b)));
            document
        })
    }

    /// No constant is inside a condition, and no list inside a list of its kind.
    fn is_plain(condition: &Condition) -> bool {
        match condition {
            Condition::And(sides) => sides.iter().all(|side| !matches!(side, Condition::And(_)) && is_inner(side)),
            Condition::Or(sides) => sides.iter().all(|side| !matches!(side, Condition::Or(_)) && is_inner(side)),
            Condition::Field(..) | Condition::Expr(..) => true,
        }
    }

    fn is_inner(condition: &Condition) -> bool {
        *condition != EVERYTHING && !finds_nothing(condition) && is_plain(condition)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_simplified_finds_the_same(sides in vec(condition(), 0..5), documents in vec(document(), 8)) {
            // A joined list does not look into the conditions that it joins, so these are simplified, too.
            let twice = || sides.iter().cloned().map(|side| not(not(side)));
            let (both, one) = (all(twice()), any(twice()));
            prop_assert!(is_plain(&both) && is_plain(&one), "{both:?} {one:?}");
            for document in &documents {
                for (side, again) in sides.iter().zip(twice()) {
                    prop_assert_eq!(side.matches(document), again.matches(document), "{:?} {:?}", side, again);
                    prop_assert_ne!(side.matches(document), not(side.clone()).matches(document), "{:?}", side);
                }
                let matches: Vec<bool> = sides.iter().map(|side| side.matches(document)).collect();
                prop_assert_eq!(all(sides.clone()).matches(document), !matches.contains(&false), "{}", document);
                prop_assert_eq!(any(sides.clone()).matches(document), matches.contains(&true), "{}", document);
                prop_assert_eq!(both.matches(document), !matches.contains(&false), "{}", document);
                prop_assert_eq!(one.matches(document), matches.contains(&true), "{}", document);
            }
        }
    }
}
