//! L1: facts in this process's memory, within a budget of bytes that is never exceeded. The budget covers the facts with
//! everything that they own, the tables that find them, and the rings that choose which to evict.
//!
//! A `DashMap` finds the facts. Its key is the fact itself, which contains its lookup and its id ([`entry`]), so that an
//! entry is one pointer. Beside each of the map's shards, a [`Ring`] has the same facts for CLOCK, and each fact knows its
//! place there. A hit reads the map, sets a bit in the fact, and allocates nothing.
//!
//! Every change of a shard is made under the lock of its ring, which also guards the count of bytes. Under that lock the
//! shard's own lock is taken for one operation on the table at a time, so a hit never waits while facts to evict are
//! chosen or freed. No deadlock is possible: no reference into the map outlives the expression that creates it, and
//! whoever holds a shard's lock takes no other lock.
//!
//! It knows nothing of freshness: it returns whatever fact it has.

mod entry;
mod ring;

use std::{
    hash::BuildHasher,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dashmap::{DashMap, SharedValue};
use entry::{Entry, Key};
use foldhash::fast::RandomState;
use ring::Ring;

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
    facts: DashMap<Entry, (), RandomState>,
    /// For each shard of the map, a ring of the same facts. Either changes only under its lock.
    rings: Box<[Mutex<Ring>]>,
    shard_bytes_max: usize,
}

impl Memory {
    /// An empty cache of at most `bytes_max` bytes. A fact larger than a shard's share of them, a 32nd, is not cached.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let facts = DashMap::with_hasher_and_shard_amount(RandomState::default(), SHARDS);
        let rings = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { facts, rings, shard_bytes_max: bytes_max / SHARDS }
    }

    /// The fact of a key, whole or filtered to a subject, if it is cached. Allocates nothing.
    #[must_use]
    pub fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<Fact> {
        let key = Key { lookup, id, subject };
        let hash = self.facts.hasher().hash_one(&key);
        let table = self.facts.shards().get(self.shard_of(hash))?.read();
        let (Entry(fact), _) = table.get(hash, |(entry, _)| key.is_of(entry))?;
        fact.set_used();
        Some(fact.clone())
    }

    /// Caches a fact, unless a newer one is cached already or `is_current` returns false, which means that the fact's
    /// epoch is over. `is_current` is called under the lock under which [`Memory::clear`] drops the facts.
    pub fn insert(&self, fact: &Fact, is_current: impl FnOnce() -> bool) {
        let entry = Entry(fact.clone());
        let hash = self.hash(&entry);
        let shard = self.shard_of(hash);
        let (Some(table), Some(ring)) = (self.facts.shards().get(shard), self.rings.get(shard)) else { return };
        let mut ring = lock(ring);
        if !is_current() {
            return;
        }
        let (old, table_bytes) = {
            let table = table.read();
            let old = table.get(hash, |(old, _)| *old == entry).map(|(old, _)| old.0.clone());
            (old, table.allocation_info().1.size())
        };
        if let Some(old) = old {
            if old.stamp() > fact.stamp() {
                return;
            }
            if table_bytes + ring.bytes() - old.memory() + fact.memory() <= self.shard_bytes_max {
                ring.replace(&old, fact.clone());
                if let Some((slot, _)) = table.write().get_mut(hash, |(old, _)| *old == entry) {
                    *slot = entry;
                }
                return;
            }
            ring.remove(&old);
            drop(table.write().remove_entry(hash, |(old, _)| *old == entry));
        }
        self.insert_new(shard, &mut ring, hash, entry);
    }

    /// Caches a fact of a new key. Evicts facts until it fits, but none if it would not fit even without any other.
    fn insert_new(&self, shard: usize, ring: &mut Ring, hash: u64, mut entry: Entry) {
        let Some(table) = self.facts.shards().get(shard) else { return };
        let (fact, table_bytes) = (entry.0.clone(), table.read().allocation_info().1.size());
        let (bytes, bytes_max) = (fact.memory(), self.shard_bytes_max);
        if table_bytes + ring.slots_bytes() + bytes > bytes_max {
            return;
        }
        loop {
            let required = table_bytes + ring.bytes() + ring.growth() + bytes;
            if required <= bytes_max {
                match table.write().try_insert_no_grow(hash, (entry, SharedValue::new(()))) {
                    Ok(_) => break,
                    Err((returned, _)) => entry = returned,
                }
                // While a full table is copied to one of twice its size, both exist. If that exceeds the budget, an
                // eviction frees a slot instead, and the table keeps its size.
                if required + 2 * table_bytes + FIRST_TABLE_BYTES_MAX <= bytes_max {
                    table.write().insert(hash, (entry, SharedValue::new(())), |(entry, _)| self.hash(entry));
                    break;
                }
            }
            let Some(evicted) = ring.evict().map(Entry) else { return };
            drop(table.write().remove_entry(self.hash(&evicted), |(fact, _)| *fact == evicted));
        }
        ring.push(fact);
    }

    /// A random fact, each about as likely as any other; none if nothing is cached.
    #[must_use]
    pub fn random(&self) -> Option<Fact> {
        let first = fastrand::usize(..SHARDS);
        let rings = self.rings.iter().cycle().skip(first).take(SHARDS);
        rings.map(lock).find_map(|ring| ring.random().cloned())
    }

    /// Drops every fact that is cached when this is called.
    pub fn clear(&self) {
        for (table, ring) in self.facts.shards().iter().zip(&self.rings) {
            let mut ring = lock(ring);
            let table = std::mem::take(&mut *table.write());
            let facts = ring.clear();
            drop(ring);
            // The facts are freed here, where nobody waits for a lock.
            drop((table, facts));
        }
    }

    /// The bytes in use.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let shard_bytes = |(shard, ring)| {
            let ring = lock(ring);
            self.table_bytes(shard) + ring.bytes()
        };
        self.rings.iter().enumerate().map(shard_bytes).sum()
    }

    /// The number of cached facts.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rings.iter().map(|ring| lock(ring).count()).sum()
    }

    /// The number of facts evicted so far.
    #[must_use]
    pub fn evictions(&self) -> usize {
        self.rings.iter().map(|ring| lock(ring).evictions()).sum()
    }

    /// The most bytes that may be in use.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.shard_bytes_max * SHARDS
    }

    fn hash(&self, entry: &Entry) -> u64 {
        self.facts.hasher().hash_one(entry)
    }

    /// The shard of a hash. The map looks at as much of it as fits into a word.
    fn shard_of(&self, hash: u64) -> usize {
        let word = hash & u64::try_from(usize::MAX).unwrap_or(u64::MAX);
        self.facts.determine_shard(usize::try_from(word).unwrap_or(usize::MAX))
    }

    fn table_bytes(&self, shard: usize) -> usize {
        self.facts.shards().get(shard).map_or(0, |table| table.read().allocation_info().1.size())
    }
}

/// Ignores poisoning: nothing panics under these locks, and a fact that were in the map or in the ring alone would still be
/// replaced or evicted.
fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fact::FactKey, moment::Moment};

    #[test]
    fn the_budget_covers_both_copies_while_a_table_or_a_ring_grows() {
        let mut growths = 0;
        for bytes_max in [2_000, 10_000, 33_333, 150_000] {
            let memory = Memory::new(SHARDS * bytes_max);
            let shard_bytes = |shard| (memory.table_bytes(shard), lock(&memory.rings[shard]).slots_bytes());
            for number in 0..SHARDS * 5_000 {
                let key = FactKey::whole(LookupId(0), Id::Integer(i64::try_from(number).unwrap()));
                let fact = Fact::absent(key, Moment::default());
                let shard = memory.facts.determine_map(&Entry(fact.clone()));
                let (table, slots) = shard_bytes(shard);
                memory.insert(&fact, || true);
                let (new_table, new_slots) = shard_bytes(shard);
                let copied = if new_table > table { table } else { 0 } + if new_slots > slots { slots } else { 0 };
                let bytes = new_table + lock(&memory.rings[shard]).bytes() + copied;
                assert!(bytes <= bytes_max, "{bytes_max}: {table}, {new_table}, {slots}, {new_slots}");
                growths += usize::from(copied > 0);
            }
        }
        assert!(growths > 10 * SHARDS, "{growths}");
    }
}
