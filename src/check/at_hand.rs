//! The facts of one request: what it has looked at stays the same until it is answered, whatever changes meanwhile.

use std::{cell::Cell, fmt};

use elsa::FrozenMap;

use super::{FACT_BYTES_MAX, FACTS_MAX};
use crate::{
    evaluate::FactsAtHand,
    fact::{Fact, FactKey},
    facts::{Facts, Held, Need},
    freshness::Moment,
    question::{Id, LookupId, Tier},
};

/// The facts of one request.
pub struct AtHand {
    by_lookup: Box<[FrozenMap<Id, Box<Held>, foldhash::fast::RandomState>]>,
    facts: Cell<usize>,
    bytes: Cell<usize>,
    /// How many of the facts were remembered.
    remembered: Cell<u64>,
}

impl AtHand {
    /// No facts yet, of a schema with so many lookups.
    #[must_use]
    pub fn new(lookups: usize) -> Self {
        let by_lookup = (0..lookups).map(|_| FrozenMap::default()).collect();
        Self { by_lookup, facts: Cell::new(0), bytes: Cell::new(0), remembered: Cell::new(0) }
    }

    /// A fact, and where it came from.
    #[must_use]
    pub fn held(&self, lookup: LookupId, id: &Id) -> Option<&Held> {
        self.by_lookup.get(lookup.index())?.get(id)
    }

    /// Keeps a fact.
    pub fn insert(&mut self, key: FactKey, held: Held) {
        if let Some(facts) = self.by_lookup.get_mut(key.lookup.index()) {
            // One that had to be read again takes the other's place.
            facts.as_mut().remove(&key.id);
        }
        self.keep(key.lookup, key.id, held);
    }

    fn keep(&self, lookup: LookupId, id: Id, held: Held) -> Option<&Held> {
        let facts = self.by_lookup.get(lookup.index())?;
        self.facts.update(|count| count + 1);
        self.bytes.update(|bytes| bytes + held.fact.memory() + size_of::<Held>() + id.size());
        Some(facts.insert(id, Box::new(held)))
    }

    /// How many of the facts were remembered, and had not to be fetched.
    pub(super) fn remembered(&self) -> u64 {
        self.remembered.get()
    }

    /// How many more facts it may hold.
    pub(super) fn room(&self) -> usize {
        FACTS_MAX.saturating_sub(self.facts.get())
    }

    /// Whether it may hold no more.
    pub(super) fn is_full(&self) -> bool {
        self.room() == 0 || self.bytes.get() >= FACT_BYTES_MAX
    }
}

impl fmt::Debug for AtHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtHand").field("facts", &self.facts).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl FactsAtHand for AtHand {
    fn get(&self, lookup: LookupId, id: &Id) -> Option<&Fact> {
        self.held(lookup, id).map(|held| &held.fact)
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
pub(super) struct Watched<'a> {
    at_hand: &'a AtHand,
    remembered: &'a Facts,
    need: Need,
    seen: Cell<Option<Seen>>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(at_hand: &'a AtHand, remembered: &'a Facts, need: Need) -> Self {
        Self { at_hand, remembered, need, seen: Cell::new(None) }
    }

    /// What was seen. An evaluation that needed no fact is as fresh as was demanded.
    pub(super) fn seen(&self) -> Seen {
        let as_of = self.need.as_of;
        self.seen.get().unwrap_or(Seen { newest: as_of, oldest: as_of, tier: Tier::Memory })
    }

    fn held(&self, lookup: LookupId, id: &Id) -> Option<&'a Held> {
        if let Some(held) = self.at_hand.held(lookup, id) {
            return Some(held);
        }
        if self.at_hand.is_full() {
            return None;
        }
        let held = self.remembered.remembered(lookup, id, self.need)?;
        self.at_hand.remembered.update(|count| count + 1);
        self.at_hand.keep(lookup, id.clone(), held)
    }
}

impl FactsAtHand for Watched<'_> {
    fn get(&self, lookup: LookupId, id: &Id) -> Option<&Fact> {
        let held = self.held(lookup, id)?;
        let seen = self.seen.get().unwrap_or(Seen { newest: held.as_of, oldest: held.as_of, tier: held.tier });
        self.seen.set(Some(Seen {
            newest: seen.newest.max(held.as_of),
            oldest: seen.oldest.min(held.as_of),
            tier: seen.tier.max(held.tier),
        }));
        Some(&held.fact)
    }
}
