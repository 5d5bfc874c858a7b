//! The facts of one request: what it has looked at stays the same until it is answered, whatever changes meanwhile.

use std::{cell::Cell, fmt};

use elsa::FrozenMap;

use super::{FACT_BYTES_MAX, FACTS_MAX};
use crate::{
    evaluate::AvailableFacts,
    fact::{Fact, FactKey},
    facts::{CachedFact, Facts, FreshnessRequirement},
    freshness::Moment,
    question::{Id, LookupId, Tier},
};

/// The facts of one request.
pub struct RequestFacts {
    by_lookup: Box<[FrozenMap<Id, Box<CachedFact>, foldhash::fast::RandomState>]>,
    facts: Cell<usize>,
    bytes: Cell<usize>,
    /// How many of the facts were remembered.
    remembered: Cell<u64>,
}

impl RequestFacts {
    /// No facts yet, of a schema with so many lookups.
    #[must_use]
    pub fn new(lookups: usize) -> Self {
        let by_lookup = (0..lookups).map(|_| FrozenMap::default()).collect();
        Self { by_lookup, facts: Cell::new(0), bytes: Cell::new(0), remembered: Cell::new(0) }
    }

    /// A fact, and where it came from.
    #[must_use]
    pub fn cached(&self, lookup: LookupId, id: &Id) -> Option<&CachedFact> {
        self.by_lookup.get(lookup.index())?.get(id)
    }

    /// Keeps a fact.
    pub fn insert(&mut self, key: FactKey, cached: CachedFact) {
        if let Some(facts) = self.by_lookup.get_mut(key.lookup.index()) {
            // One that had to be read again takes the other's place.
            facts.as_mut().remove(&key.id);
        }
        self.keep(key.lookup, key.id, cached);
    }

    fn keep(&self, lookup: LookupId, id: Id, cached: CachedFact) -> Option<&CachedFact> {
        let facts = self.by_lookup.get(lookup.index())?;
        self.facts.update(|count| count + 1);
        self.bytes.update(|bytes| bytes + cached.fact.memory() + size_of::<CachedFact>() + id.size());
        Some(facts.insert(id, Box::new(cached)))
    }

    /// How many of the facts were remembered, and had not to be fetched.
    pub(super) fn remembered(&self) -> u64 {
        self.remembered.get()
    }

    /// How many more facts it may hold.
    pub(super) fn capacity_left(&self) -> usize {
        FACTS_MAX.saturating_sub(self.facts.get())
    }

    /// Whether it may hold no more.
    pub(super) fn is_full(&self) -> bool {
        self.capacity_left() == 0 || self.bytes.get() >= FACT_BYTES_MAX
    }
}

impl fmt::Debug for RequestFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtHand").field("facts", &self.facts).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl AvailableFacts for RequestFacts {
    fn get(&self, lookup: LookupId, id: &Id) -> Option<&Fact> {
        self.cached(lookup, id).map(|cached| &cached.fact)
    }
}

/// What an evaluation has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The moment that covers all of it.
    pub(super) newest: Moment,
    /// The moment as of which all of it is true at least.
    pub(super) oldest: Moment,
    /// The slowest tier.
    pub(super) tier: Tier,
}

/// The facts of one request and, behind them, those that are remembered, under the eyes of one evaluation.
pub(super) struct TrackedFacts<'a> {
    request_facts: &'a RequestFacts,
    remembered: &'a Facts,
    requirement: FreshnessRequirement,
    seen: Cell<Option<Seen>>,
}

impl<'a> TrackedFacts<'a> {
    pub(super) fn new(
        request_facts: &'a RequestFacts,
        remembered: &'a Facts,
        requirement: FreshnessRequirement,
    ) -> Self {
        Self { request_facts, remembered, requirement, seen: Cell::new(None) }
    }

    /// What was seen. An evaluation that needed no fact is as fresh as was demanded.
    pub(super) fn seen(&self) -> Seen {
        let as_of = self.requirement.as_of;
        self.seen.get().unwrap_or(Seen { newest: as_of, oldest: as_of, tier: Tier::Memory })
    }

    fn cached(&self, lookup: LookupId, id: &Id) -> Option<&'a CachedFact> {
        if let Some(cached) = self.request_facts.cached(lookup, id) {
            return Some(cached);
        }
        if self.request_facts.is_full() {
            return None;
        }
        let cached = self.remembered.cached(lookup, id, self.requirement)?;
        self.request_facts.remembered.update(|count| count + 1);
        self.request_facts.keep(lookup, id.clone(), cached)
    }
}

impl AvailableFacts for TrackedFacts<'_> {
    fn get(&self, lookup: LookupId, id: &Id) -> Option<&Fact> {
        let cached = self.cached(lookup, id)?;
        let seen = self.seen.get().unwrap_or(Seen { newest: cached.as_of, oldest: cached.as_of, tier: cached.tier });
        self.seen.set(Some(Seen {
            newest: seen.newest.max(cached.as_of),
            oldest: seen.oldest.min(cached.as_of),
            tier: seen.tier.max(cached.tier),
        }));
        Some(&cached.fact)
    }
}
