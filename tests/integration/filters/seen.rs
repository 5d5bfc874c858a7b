//! Counts what occurred in all cases. A comparison in which something hardly occurred has shown nothing about it.
//!
//! Compares nothing.

use std::collections::BTreeMap;

use permcached::list::{PlanKind, filter::Filter};

#[derive(Debug, Default)]
pub struct Seen {
    /// How many schemas were refused.
    pub refused: usize,
    /// How many times a subject, a permission and a resource were compared.
    pub triples: usize,
    /// In how many of them the subject is allowed.
    pub allowed: usize,
    /// How many filters mongod was asked.
    pub finds: usize,
    /// How many permissions no query narrows down.
    pub not_narrowable: usize,
    /// How many filters there were of each kind.
    pub kinds: BTreeMap<&'static str, usize>,
    /// How many of these find some documents, and not all.
    pub some: BTreeMap<&'static str, usize>,
    /// How many documents the supersets find, and how many of these are allowed.
    pub superset_found: usize,
    pub superset_allowed: usize,
}

impl Seen {
    /// Adds a filter that finds `found` of `count` documents, of which `allowed` are allowed.
    pub fn filter(&mut self, filter: &Filter, count: usize, found: usize, allowed: usize) {
        let name = filter.kind.as_str();
        *self.kinds.entry(name).or_default() += 1;
        if (1..count).contains(&found) {
            *self.some.entry(name).or_default() += 1;
        }
        if filter.kind == PlanKind::Superset {
            self.superset_found += found;
            self.superset_allowed += allowed;
        }
    }

    /// Panics if something hardly occurred.
    pub fn check(&self) {
        let some = |kind: PlanKind| self.some.get(kind.as_str()).copied().unwrap_or_default();
        let all = |kind: PlanKind| self.kinds.get(kind.as_str()).copied().unwrap_or_default();
        let [none, exact, superset, everything] =
            [PlanKind::None, PlanKind::Exact, PlanKind::Superset, PlanKind::All].map(all);
        let queries = exact + superset;
        assert!(self.refused == 0 && self.triples > 50_000 && self.allowed * 10 > self.triples, "{self:#?}");
        assert!(exact * 4 > queries && some(PlanKind::Exact) * 3 > exact, "{self:#?}");
        assert!(superset * 4 > queries && some(PlanKind::Superset) * 2 > superset, "{self:#?}");
        assert!(none * 10 > queries && everything * 20 > queries, "{self:#?}");
        assert!(self.not_narrowable < queries && self.finds * 5 > queries, "{self:#?}");
        assert!(self.superset_found < 2 * self.superset_allowed, "{self:#?}");
    }
}
