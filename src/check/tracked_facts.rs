//! Tracked facts: what one evaluation can use, with a record of what it did use. The age, the tier and the token of its
//! answer follow from that record.

use std::cell::Cell;

use super::request_facts::RequestFacts;
use crate::{
    evaluate::AvailableFacts,
    fact::Fact,
    facts::{CachedFact, Facts, FreshnessRequirement},
    freshness::Moment,
    question::{Id, LookupId, Subject, Tier},
};

/// What an evaluation has used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The newest as-of moment: a token of it covers every fact used.
    pub(super) newest: Moment,
    /// The oldest as-of moment: every fact used is true as of it or later.
    pub(super) oldest: Moment,
    /// The slowest tier.
    pub(super) tier: Tier,
}

/// The facts of one request and, behind them, the facts in memory that meet its freshness requirement.
pub(super) struct TrackedFacts<'a> {
    request: &'a RequestFacts,
    /// Whole facts that the request lacks, and that the subject of this evaluation has as over their limit.
    presumed: Option<&'a RequestFacts>,
    facts: &'a Facts,
    requirement: FreshnessRequirement,
    seen: Cell<Option<Seen>>,
    /// How many facts the evaluation has asked for.
    asked: Cell<u32>,
}

impl<'a> TrackedFacts<'a> {
    pub(super) fn new(request: &'a RequestFacts, facts: &'a Facts, requirement: FreshnessRequirement) -> Self {
        Self { request, presumed: None, facts, requirement, seen: Cell::new(None), asked: Cell::new(0) }
    }

    /// The same, with these whole facts where the request has none.
    pub(super) fn presuming(self, presumed: Option<&'a RequestFacts>) -> Self {
        Self { presumed, ..self }
    }

    /// What the evaluation has used. One that used no fact is exactly as fresh as the request requires.
    pub(super) fn seen(&self) -> Seen {
        let as_of = self.requirement.as_of;
        self.seen.get().unwrap_or(Seen { newest: as_of, oldest: as_of, tier: Tier::Memory })
    }

    /// What the evaluation has used; none if it used no fact.
    pub(super) fn used(&self) -> Option<Seen> {
        self.seen.get()
    }

    /// How many facts the evaluation has asked for, each time it did: a measure of its work.
    pub(super) fn asked(&self) -> u32 {
        self.asked.get()
    }

    fn find(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&'a CachedFact> {
        if let Some(found) = self.request.get(lookup, id, subject) {
            return Some(found);
        }
        if let Some(found) = self.presumed.and_then(|presumed| presumed.get(lookup, id, subject)) {
            return Some(found);
        }
        if self.request.is_full() {
            return None;
        }
        let cached = self.facts.cached(lookup, id, subject, self.requirement)?;
        self.request.add_cached(cached)
    }
}

impl AvailableFacts for TrackedFacts<'_> {
    fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&Fact> {
        self.asked.update(|asked| asked.saturating_add(1));
        let found = self.find(lookup, id, subject)?;
        let seen = self.seen.get().unwrap_or(Seen { newest: found.as_of, oldest: found.as_of, tier: found.tier });
        self.seen.set(Some(Seen {
            newest: seen.newest.max(found.as_of),
            oldest: seen.oldest.min(found.as_of),
            tier: seen.tier.max(found.tier),
        }));
        Some(&found.fact)
    }
}
