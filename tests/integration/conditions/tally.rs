//! How often mongod found a document and how often it did not: a comparison in which one of the two hardly happens says
//! nothing.

use std::{collections::BTreeMap, fmt};

use bson::Bson;
use permcached::schema::{Condition, Test};

use super::generate::operator;

/// The share of documents found, in percent: for each operator, and over all conditions.
const SHARE_MIN: usize = 1;
const SHARE_MAX: usize = 98;

/// Of all conditions; of those that are one comparison by its operator; and by the type of the operand besides.
#[derive(Default)]
pub(crate) struct Tallies {
    all: Tally,
    by_operator: BTreeMap<String, Tally>,
    by_operand: BTreeMap<String, Tally>,
}

/// Found or not, in documents times conditions.
#[derive(Clone, Copy, Default)]
struct Tally {
    found: usize,
    missed: usize,
}

impl Tallies {
    /// Counts which documents mongod found with a condition.
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

    /// Panics unless every operator was there, and found some documents and did not find others, on the whole too.
    pub(crate) fn check_operators(&self) {
        // Twelve of conditions and fields, six of `$expr`.
        assert_eq!(self.by_operator.len(), 18, "an operator is missing:\n{self}");
        for tally in self.by_operator.values().chain([&self.all]) {
            assert!((SHARE_MIN..=SHARE_MAX).contains(&tally.percent()), "too many or too few were found:\n{self}");
        }
    }

    /// Panics unless every operator was there with every type that it takes, and with each found some and missed some.
    pub(crate) fn check_operands(&self) {
        // `$eq` and `$ne` take nine types, `$gt` and its three like take six.
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

/// The operand, where there is one.
fn operand(test: &Test) -> Option<&Bson> {
    match test {
        Test::Eq(operand) | Test::Ne(operand) | Test::Compare(_, operand) => Some(operand),
        Test::In(_) | Test::Nin(_) | Test::Exists(_) | Test::Not(_) => None,
    }
}
