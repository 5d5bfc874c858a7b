//! Bounds for the times of a relation, compared with one moment, and for other fields that must have a single value.
//!
//! Such a field is malformed if it is an array, or if its path leads to several values.

use bson::{Bson, DateTime, spec::ElementType};

use super::{
    condition::Found,
    simplify::{NOTHING, all, any, not},
    types::{blocked, of_types, other_types},
};
use crate::{
    fact::DATE_RANGE,
    question::Millis,
    schema::{Comparison, Condition, DateField, DateUnit, NUMBERS, Path, Relation, Test},
};

/// The documents in which a relation grants at the moment, as far as its dates are concerned.
pub(super) fn in_time(relation: &Relation, now: Millis) -> Found {
    let dates = bounds(relation).map(|(field, is_out)| {
        let (wrong, is_exact) = wrong_date(field);
        let out = compared(field, is_out, now).unwrap_or(NOTHING);
        let is_there = relation.required.then(|| of_types(&field.path, types(field.unit).to_vec()));
        (all([not(wrong), not(out)].into_iter().chain(is_there)), is_exact && is_comparable(field))
    });
    join(dates, all)
}

/// The documents in which a relation surely does not grant at the moment, because of its dates.
pub(super) fn out_of_time(relation: &Relation, now: Millis) -> Found {
    let dates = bounds(relation).map(|(field, is_out)| {
        let (wrong, is_exact) = wrong_date(field);
        let is_there = of_types(&field.path, types(field.unit).to_vec());
        let out = compared(field, is_out, now).unwrap_or(is_there);
        (all([not(wrong), out]), is_exact && is_comparable(field))
    });
    join(dates, any)
}

fn join(dates: impl Iterator<Item = Found>, join: impl FnOnce(Vec<Condition>) -> Condition) -> Found {
    let (conditions, are_exact): (Vec<Condition>, Vec<bool>) = dates.unzip();
    (join(conditions), are_exact.into_iter().all(|is_exact| is_exact))
}

/// The dates of a relation, each with the comparison that shows that it does not grant: the date compared with the moment.
fn bounds(relation: &Relation) -> impl Iterator<Item = (&DateField, Comparison)> {
    let since = relation.since.iter().map(|field| (field, Comparison::Gt));
    since.chain(relation.until.iter().map(|field| (field, Comparison::Lte)))
}

/// Documents in which the date is malformed, and whether these are all.
fn wrong_date(field: &DateField) -> Found {
    let (wrong, is_exact) = no_single_value(&field.path, types(field.unit));
    let (first, last) = match field.unit {
        DateUnit::Date | DateUnit::Iso8601 => return (wrong, is_exact),
        DateUnit::Seconds => (in_seconds(DATE_RANGE.0), in_seconds(DATE_RANGE.1)),
        DateUnit::Milliseconds => (Bson::Int64(DATE_RANGE.0), Bson::Int64(DATE_RANGE.1)),
    };
    let test = |test: Test| Condition::Field(field.path.clone(), test);
    let no_number = test(Test::Eq(Bson::Double(f64::NAN)));
    let (early, late) = (Test::Compare(Comparison::Lt, first), Test::Compare(Comparison::Gt, last));
    (any([wrong, no_number, test(early), test(late)]), is_exact)
}

/// The date compared with a moment; none if no query compares such a date.
fn compared(field: &DateField, comparison: Comparison, now: Millis) -> Option<Condition> {
    let moment = match field.unit {
        DateUnit::Date => Bson::DateTime(DateTime::from_millis(now)),
        DateUnit::Seconds => in_seconds(now),
        DateUnit::Milliseconds => Bson::Int64(now),
        DateUnit::Iso8601 => return None,
    };
    Some(Condition::Field(field.path.clone(), Test::Compare(comparison, moment)))
}

fn is_comparable(field: &DateField) -> bool {
    match field.unit {
        DateUnit::Date | DateUnit::Seconds | DateUnit::Milliseconds => true,
        DateUnit::Iso8601 => false,
    }
}

fn types(unit: DateUnit) -> &'static [ElementType] {
    match unit {
        DateUnit::Date => &[ElementType::DateTime],
        DateUnit::Seconds | DateUnit::Milliseconds => &NUMBERS,
        DateUnit::Iso8601 => &[ElementType::String],
    }
}

/// The exact number of seconds.
fn in_seconds(millis: Millis) -> Bson {
    let (whole, rest) = (millis.abs() / 1_000, millis.abs() % 1_000);
    let sign = if millis < 0 { "-" } else { "" };
    let text = format!("{sign}{whole}.{rest:03}");
    text.parse().map_or(Bson::Int64(millis / 1_000), Bson::Decimal128)
}

/// Documents in which a field has a value of another type than these, an array, or several values; and whether these are all.
pub(super) fn no_single_value(path: &Path, types: &[ElementType]) -> Found {
    let outer: Vec<Path> = path.outer().filter_map(|outer| Path::parse(&outer).ok()).collect();
    let wrong = [blocked(path), other_types(path, types)];
    match outer.as_slice() {
        [] => (any(wrong), true),
        [array] => {
            let size = |size: u32| not(Condition::Field(array.clone(), Test::Size(size)));
            let several = all([of_types(array, vec![ElementType::Array]), size(0), size(1)]);
            (any(wrong.into_iter().chain([several])), true)
        }
        // An array may have more elements than there are values at the path.
        _ => (any(wrong), false),
    }
}
