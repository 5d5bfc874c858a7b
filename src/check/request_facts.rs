//! The facts of one request. A fact that the request has used stays the same until the request is answered, whatever changes
//! in the meantime.
//!
//! Loads nothing, and does not know whether a fact is fresh.

use std::{cell::Cell, fmt};

use elsa::FrozenMap;

use crate::{
    evaluate::AvailableFacts,
    fact::{Fact, FactKey},
    facts::CachedFact,
    question::{Id, LookupId},
};

/// How many facts one request may use.
pub(super) const FACTS_MAX: usize = 100_000;

/// How many bytes of memory the facts of one request may take.
const FACT_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// The facts of one request, by lookup and id.
pub struct RequestFacts {
    by_lookup: Box<[FrozenMap<Id, Box<CachedFact>, foldhash::fast::RandomState>]>,
    facts: Cell<usize>,
    bytes: Cell<usize>,
    /// How many of the facts came from memory.
    from_memory: Cell<u64>,
}

impl RequestFacts {
    /// No facts yet, for a schema with this many lookups.
    #[must_use]
    pub fn new(lookups: usize) -> Self {
        let by_lookup = (0..lookups).map(|_| FrozenMap::default()).collect();
        Self { by_lookup, facts: Cell::new(0), bytes: Cell::new(0), from_memory: Cell::new(0) }
    }

    /// The fact, with its tier and its as-of moment, if the request has it.
    #[must_use]
    pub fn get(&self, lookup: LookupId, id: &Id) -> Option<&CachedFact> {
        self.by_lookup.get(lookup.index())?.get(id)
    }

    /// Adds a loaded fact. A fact that had to be loaded again replaces the earlier one.
    pub fn insert(&mut self, key: FactKey, fact: CachedFact) {
        if let Some(facts) = self.by_lookup.get_mut(key.lookup.index()) {
            facts.as_mut().remove(&key.id);
        }
        self.add(key.lookup, key.id, fact);
    }

    /// Adds a fact that was found in memory during an evaluation.
    pub(super) fn add_cached(&self, lookup: LookupId, id: Id, fact: CachedFact) -> Option<&CachedFact> {
        self.from_memory.update(|count| count + 1);
        self.add(lookup, id, fact)
    }

    fn add(&self, lookup: LookupId, id: Id, fact: CachedFact) -> Option<&CachedFact> {
        let facts = self.by_lookup.get(lookup.index())?;
        self.facts.update(|count| count + 1);
        self.bytes.update(|bytes| bytes + fact.fact.memory() + size_of::<CachedFact>() + id.size());
        Some(facts.insert(id, Box::new(fact)))
    }

    /// How many of the facts came from memory and did not have to be loaded.
    pub(super) fn found_in_memory(&self) -> u64 {
        self.from_memory.get()
    }

    /// How many more facts the request may use.
    pub(super) fn capacity_left(&self) -> usize {
        FACTS_MAX.saturating_sub(self.facts.get())
    }

    /// Whether the request may use no more facts.
    pub(super) fn is_full(&self) -> bool {
        self.capacity_left() == 0 || self.bytes.get() >= FACT_BYTES_MAX
    }
}

impl fmt::Debug for RequestFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFacts").field("facts", &self.facts).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl AvailableFacts for RequestFacts {
    fn get(&self, lookup: LookupId, id: &Id) -> Option<&Fact> {
        self.get(lookup, id).map(|cached| &cached.fact)
    }
}
