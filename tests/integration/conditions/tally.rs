//! Counts how often mongod found a document and how often it did not. A comparison in which one of the two hardly occurs
//! shows nothing.
//!
//! Does not compare results.

use std::{collections::BTreeMap, fmt};

use bson::Bson;
use permcached::schema::{Condition, Test};

use super::generate::operator;

/// The bounds on the share of documents found, in percent, for each operator and over all conditions.
const SHARE_MIN: usize = 1;
const SHARE_MAX: usize = 98;

/// The tallies of all conditions, of each operator, and of each operator with each type of operand.
#[derive(Default)]
pub(crate) struct Tallies {
    all: Tally,
    by_operator: BTreeMap<String, Tally>,
    by_operand: BTreeMap<String, Tally>,
}

/// The number of pairs of a document and a condition in which mongod found the document, and in which it did not.
#[derive(Clone, Copy, Default)]
struct Tally {
    found: usize,
    missed: usize,
}

impl Tallies {
    /// Adds the documents that mongod found with a condition.
    pub(crate) fn add(&mut self, condition: &Condition, found: &[bool]) {
        let (name, operand) = match condition {
            Condition::And(_) => ("$and".to_owned(), None),
            Condition::Or(_) => ("$or".to_owned(), None),
            Condition::Field(_, test) => (operator(test).to_owned(), operand(test)),
            Condition::Expr(comparison, _, _) => (format!("$expr {}", comparison.as_str()), None),
        };
        if let Some(operand) = operand {
            let name = format!("{name} {:?}", operand.element_type());
            self.by_operand.entry(name).or_default().add(found);
        }
        self.by_operator.entry(name).or_default().add(found);
        self.all.add(found);
    }

    /// Panics unless every operator occurred, and the share of documents found is within the bounds for each operator and
    /// over all conditions.
    pub(crate) fn check_operators(&self) {
        // Twenty operators of conditions and fields, six of `$expr`.
        assert_eq!(self.by_operator.len(), 26, "an operator is missing:\n{self}");
        for tally in self.by_operator.values().chain([&self.all]) {
            assert!((SHARE_MIN..=SHARE_MAX).contains(&tally.percent()), "too many or too few were found:\n{self}");
        }
    }

    /// Panics unless every operator occurred with every type of operand that it accepts, and each pair found some documents
    /// and missed others.
    pub(crate) fn check_operands(&self) {
        // `$eq` and `$ne` accept nine types; `$gt`, `$gte`, `$lt` and `$lte` accept six.
        assert_eq!(self.by_operand.len(), 2 * 9 + 4 * 6, "an operator is missing with some type:\n{self}");
        for tally in self.by_operand.values() {
            assert!(tally.found > 0 && tally.missed > 0, "all or none were found:\n{self}");
        }
    }
}

impl fmt::Display for Tallies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "found {} of {} pairs ({} %)", self.all.found, self.all.total(), self.all.percent())?;
        for (name, tally) in self.by_operator.iter().chain(&self.by_operand) {
            writeln!(f, "  {name}: {} of {} ({} %)", tally.found, tally.total(), tally.percent())?;
        }
        Ok(())
    }
}

impl Tally {
    fn add(&mut self, found: &[bool]) {
        let count = found.iter().filter(|found| **found).count();
        self.found += count;
        self.missed += found.len() - count;
    }

    fn total(self) -> usize {
        self.found + self.missed
    }

    fn percent(self) -> usize {
        self.found * 100 / self.total()
    }
}

/// The operand of a test that has exactly one.
fn operand(test: &Test) -> Option<&Bson> {
    match test {
        Test::Eq(operand) | Test::Ne(operand) | Test::Compare(_, operand) => Some(operand),
        Test::In(_)
        | Test::Nin(_)
        | Test::Exists(_)
        | Test::Not(_)
        | Test::All(_)
        | Test::AllElements(_)
        | Test::Element(_)
        | Test::Size(_)
        | Test::Bits(..)
        | Test::Type(_) => None,
    }
}
