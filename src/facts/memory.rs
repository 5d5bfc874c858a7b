//! L1: facts in this process's memory, within a budget of bytes that is never exceeded. The budget covers the facts with
//! everything that they own, and the tables that index them.
//!
//! There are 32 shards. Each has a hash table, a lock, a CLOCK hand and an equal share of the budget, so that all bytes
//! are counted under the lock under which they change. A slot of the table is one pointer: the fact itself holds its key,
//! its stamp and a bit that says whether it was used. A hit takes the shard's lock for reading and allocates nothing.
//!
//! CLOCK chooses the facts to evict: the hand goes round the slots of the table and evicts the first fact that was not
//! used since the hand last passed it. That is nearly as good as evicting the least recently used fact, and all that a
//! hit does is to set a bit, which is mostly set already: there is no queue to reorder and no lock to take for writing.
//!
//! It knows nothing of freshness: it returns whatever fact it has.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::{
    fact::Fact,
    question::{Id, LookupId, Subject},
};

/// The number of shards: enough that two threads rarely want the same one.
const SHARDS: usize = 32;

/// The most bytes that the first table of a shard takes. An empty shard has no table.
const FIRST_TABLE_BYTES_MAX: usize = 64;

/// The facts in memory.
#[derive(Debug)]
pub struct Memory {
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
    shard_bytes_max: usize,
}

impl Memory {
    /// An empty cache of at most `bytes_max` bytes. A fact larger than a shard's share of them, a 32nd, is not cached.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, hasher: RandomState::default(), shard_bytes_max: bytes_max / SHARDS }
    }

    /// The fact of a key, whole or filtered to a subject, if it is cached. Allocates nothing.
    #[must_use]
    pub fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<Fact> {
        let hash = hash(&self.hasher, lookup, id, subject);
        let shard = read(self.shard(hash)?);
        let fact = shard.facts.find(hash, |fact| fact.is_of(lookup, id, subject))?;
        fact.set_used();
        Some(fact.clone())
    }

    /// Caches a fact, unless a newer one is cached already or `is_current` returns false, which means that the fact's
    /// epoch is over. `is_current` is called under the shard's lock.
    pub fn insert(&self, fact: &Fact, is_current: impl FnOnce() -> bool) {
        let hash = hash_of(&self.hasher, fact);
        let Some(shard) = self.shard(hash) else { return };
        let mut shard = write(shard);
        if is_current() {
            shard.insert(hash, fact, self.shard_bytes_max, &self.hasher);
        }
    }

    /// A random fact, each about as likely as any other; none if nothing is cached.
    #[must_use]
    pub fn random(&self) -> Option<Fact> {
        let first = fastrand::usize(..SHARDS);
        let shards = self.shards.iter().cycle().skip(first).take(SHARDS);
        shards.map(read).find_map(|shard| {
            let slots = shard.facts.num_buckets();
            let from = fastrand::usize(..slots.max(1));
            (from..slots).chain(0..from).find_map(|slot| shard.facts.get_bucket(slot).cloned())
        })
    }

    /// Drops every fact that is cached when this is called.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = write(shard);
            *shard = Shard { evictions: shard.evictions, ..Shard::default() };
        }
    }

    /// The bytes in use.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).bytes()).sum()
    }

    /// The number of cached facts.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).facts.len()).sum()
    }

    /// The number of facts evicted so far.
    #[must_use]
    pub fn evictions(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).evictions).sum()
    }

    /// The most bytes that may be in use.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.shard_bytes_max * SHARDS
    }

    fn shard(&self, hash: u64) -> Option<&RwLock<Shard>> {
        // The table hardly uses these bits: it takes the lowest for the slot and the highest for a tag.
        let [.., byte, _, _] = hash.to_le_bytes();
        self.shards.get(usize::from(byte) % SHARDS)
    }
}

/// Ignores poisoning: the facts of a shard are intact even after a panic under its lock.
fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

fn hash(hasher: &RandomState, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> u64 {
    let mut state = hasher.build_hasher();
    lookup.hash(&mut state);
    id.hash(&mut state);
    // Most facts are whole: their hash costs no more.
    if let Some(subject) = subject {
        subject.hash(&mut state);
    }
    state.finish()
}

fn hash_of(hasher: &RandomState, fact: &Fact) -> u64 {
    hash(hasher, fact.lookup(), fact.id(), fact.subject())
}

/// A part of the facts. The hash of a key chooses the shard.
#[derive(Debug, Default)]
struct Shard {
    facts: HashTable<Fact>,
    /// The bytes of the facts, without the table.
    facts_bytes: usize,
    /// The slot that the CLOCK hand has reached.
    hand: usize,
    /// The number of facts evicted so far.
    evictions: usize,
}

impl Shard {
    fn bytes(&self) -> usize {
        self.facts_bytes + self.facts.allocation_size()
    }

    fn insert(&mut self, hash: u64, fact: &Fact, bytes_max: usize, hasher: &RandomState) {
        if let Ok(old) = self.facts.find_entry(hash, |old| old.is_of(fact.lookup(), fact.id(), fact.subject())) {
            if old.get().stamp() > fact.stamp() {
                return;
            }
            self.facts_bytes -= old.get().memory();
            old.remove();
        }
        let bytes = fact.memory();
        if self.evict_for(bytes, bytes_max) {
            self.facts_bytes += bytes;
            self.facts.insert_unique(hash, fact.clone(), |fact| hash_of(hasher, fact));
        }
    }

    /// Evicts facts until a fact of this many bytes fits. Returns whether it fits. Evicts nothing if it would not fit even
    /// without any other fact.
    fn evict_for(&mut self, bytes: usize, bytes_max: usize) -> bool {
        if bytes + self.facts.allocation_size() > bytes_max {
            return false;
        }
        while self.bytes() + bytes + self.growth() > bytes_max {
            if !self.evict() {
                return false;
            }
        }
        true
    }

    /// The most bytes that one more fact adds to the table. While a full table is copied to one of twice its size, both
    /// exist. If that exceeds the budget, an eviction frees a slot instead, and the table keeps its size.
    fn growth(&self) -> usize {
        if self.facts.len() < self.facts.capacity() {
            0
        } else {
            2 * self.facts.allocation_size() + FIRST_TABLE_BYTES_MAX
        }
    }

    /// Evicts the first fact from the hand on that was not used since the hand last passed it. Returns whether there was
    /// one.
    fn evict(&mut self) -> bool {
        let slots = self.facts.num_buckets();
        // The first round clears every used bit, and no fact can be used meanwhile: the second round finds one.
        for _ in 0..2 * slots {
            self.hand = (self.hand + 1) % slots;
            if let Ok(fact) = self.facts.get_bucket_entry(self.hand)
                && !fact.get().take_used()
            {
                self.facts_bytes -= fact.get().memory();
                fact.remove();
                self.evictions += 1;
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fact::FactKey, moment::Moment};

    #[test]
    fn the_budget_covers_both_tables_while_one_grows() {
        let hasher = RandomState::default();
        let mut growths = 0;
        for bytes_max in [2_000, 10_000, 33_333, 150_000] {
            let mut shard = Shard::default();
            for number in 0..5_000 {
                let fact = Fact::absent(FactKey::whole(LookupId(0), Id::Integer(number)), Moment::default());
                let before = shard.facts.allocation_size();
                shard.insert(hash_of(&hasher, &fact), &fact, bytes_max, &hasher);
                let after = shard.facts.allocation_size();
                let copied = if after > before { before } else { 0 };
                assert!(shard.facts_bytes + after + copied <= bytes_max, "{bytes_max}: {before}, {after}");
                growths += usize::from(copied > 0);
            }
        }
        assert!(growths > 10, "{growths}");
    }
}
