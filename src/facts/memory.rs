//! L1: facts in this process's memory, within a budget of bytes that is never passed: facts with all that they hold, and
//! the tables that they are found by.
//!
//! The table is cut into shards, each with a lock, a hand and an even share of the budget of its own, so that all of it is
//! counted where it is changed. A slot is one pointer: the fact itself holds its key, its stamp, and whether it was used. A
//! hit takes the shard's lock for reading, and allocates nothing.
//!
//! What has to go is chosen by CLOCK: the hand goes round the table's slots, and takes the first fact that nobody has used
//! since it came by last. That is nearly as good as the least recently used, and asks nothing of a hit but a bit that is
//! mostly set already: no queue to reorder, no lock to write under.
//!
//! Knows nothing of freshness: it hands out what it has.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::{
    fact::Fact,
    question::{Id, LookupId},
};

/// How many shards there are: enough that threads seldom meet in one.
const SHARDS: usize = 32;

/// What the first table of a shard takes at most.
const TABLE_BYTES_MIN: usize = 64;

/// Remembered facts.
#[derive(Debug)]
pub struct Memory {
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
    shard_bytes_max: usize,
}

impl Memory {
    /// Remembers facts in at most `bytes_max` bytes. A fact that takes more than a shard's part of that, a 32nd, is not
    /// remembered.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, hasher: RandomState::default(), shard_bytes_max: bytes_max / SHARDS }
    }

    /// The fact. Allocates nothing.
    #[must_use]
    pub fn get(&self, lookup: LookupId, id: &Id) -> Option<Fact> {
        let hash = hash(&self.hasher, lookup, id);
        let shard = read(self.shard(hash)?);
        let fact = shard.facts.find(hash, |fact| is_of(fact, lookup, id))?;
        fact.set_used();
        Some(fact.clone())
    }

    /// Remembers a fact, unless a newer one is there already, or `is_current`, asked while nobody else can get at the entry,
    /// says that it belongs to a history that is over.
    pub fn insert(&self, fact: &Fact, is_current: impl FnOnce() -> bool) {
        let hash = hash(&self.hasher, fact.lookup(), fact.id());
        let Some(shard) = self.shard(hash) else { return };
        let mut shard = write(shard);
        if is_current() {
            shard.insert(hash, fact, self.shard_bytes_max, &self.hasher);
        }
    }

    /// Any fact, each about as likely as any other; none where nothing is remembered.
    #[must_use]
    pub fn any(&self) -> Option<Fact> {
        let first = fastrand::usize(..SHARDS);
        let shards = self.shards.iter().cycle().skip(first).take(SHARDS);
        shards.map(read).find_map(|shard| {
            let slots = shard.facts.num_buckets();
            let from = fastrand::usize(..slots.max(1));
            (from..slots).chain(0..from).find_map(|slot| shard.facts.get_bucket(slot).cloned())
        })
    }

    /// Forgets everything that is remembered when this is called.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = write(shard);
            *shard = Shard { evictions: shard.evictions, ..Shard::default() };
        }
    }

    /// How many bytes are in use.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).bytes()).sum()
    }

    /// How many facts are remembered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).facts.len()).sum()
    }

    /// How many facts had to go for others since the beginning.
    #[must_use]
    pub fn evictions(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).evictions).sum()
    }

    /// How many bytes may be in use.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.shard_bytes_max * SHARDS
    }

    fn shard(&self, hash: u64) -> Option<&RwLock<Shard>> {
        // Bits that the table itself makes little of: it takes the lowest for the slot and the highest for a tag.
        let [.., byte, _, _] = hash.to_le_bytes();
        self.shards.get(usize::from(byte) % SHARDS)
    }
}

/// What has been read from a shard or put in it is whole, also after a panic.
fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

fn hash(hasher: &RandomState, lookup: LookupId, id: &Id) -> u64 {
    let mut state = hasher.build_hasher();
    lookup.hash(&mut state);
    id.hash(&mut state);
    state.finish()
}

fn is_of(fact: &Fact, lookup: LookupId, id: &Id) -> bool {
    fact.lookup() == lookup && fact.id() == id
}

/// A part of the facts, chosen by their keys' hashes.
#[derive(Debug, Default)]
struct Shard {
    facts: HashTable<Fact>,
    /// What the facts take, without the table.
    facts_bytes: usize,
    /// The slot that is looked at next when something has to go.
    hand: usize,
    /// How many facts had to go.
    evictions: usize,
}

impl Shard {
    fn bytes(&self) -> usize {
        self.facts_bytes + self.facts.allocation_size()
    }

    fn insert(&mut self, hash: u64, fact: &Fact, bytes_max: usize, hasher: &RandomState) {
        if let Ok(there) = self.facts.find_entry(hash, |there| is_of(there, fact.lookup(), fact.id())) {
            if there.get().stamp() > fact.stamp() {
                return;
            }
            self.facts_bytes -= there.get().memory();
            there.remove();
        }
        let bytes = fact.memory();
        if self.make_room(bytes, bytes_max) {
            self.facts_bytes += bytes;
            self.facts.insert_unique(hash, fact.clone(), |fact| self::hash(hasher, fact.lookup(), fact.id()));
        }
    }

    /// Lets facts go until one of so many bytes can be put in. Says whether it can; where it never could, all stay.
    fn make_room(&mut self, bytes: usize, bytes_max: usize) -> bool {
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

    /// What putting one more fact in adds to the table at most: while a full one is copied to one twice its size, there are
    /// both. If that is too much, an eviction frees a slot instead, and the table stays as large as it is.
    fn growth(&self) -> usize {
        if self.facts.len() < self.facts.capacity() { 0 } else { 2 * self.facts.allocation_size() + TABLE_BYTES_MIN }
    }

    /// Lets go of the first fact from the hand on that was not used since the hand came by. Says whether there was any.
    fn evict(&mut self) -> bool {
        let slots = self.facts.num_buckets();
        // Nobody can use a fact meanwhile: in the second round there is none that was.
        for _ in 0..2 * slots {
            self.hand = (self.hand + 1) % slots;
            if let Ok(there) = self.facts.get_bucket_entry(self.hand)
                && !there.get().take_used()
            {
                self.facts_bytes -= there.get().memory();
                there.remove();
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
    fn while_a_table_grows_there_is_room_for_both() {
        let hasher = RandomState::default();
        let mut growths = 0;
        for bytes_max in [2_000, 10_000, 33_333, 150_000] {
            let mut shard = Shard::default();
            for number in 0..5_000 {
                let fact = Fact::absent(FactKey { lookup: LookupId(0), id: Id::Integer(number) }, Moment::default());
                let before = shard.facts.allocation_size();
                shard.insert(hash(&hasher, fact.lookup(), fact.id()), &fact, bytes_max, &hasher);
                let after = shard.facts.allocation_size();
                let copied = if after > before { before } else { 0 };
                assert!(shard.facts_bytes + after + copied <= bytes_max, "{bytes_max}: {before}, {after}");
                growths += usize::from(copied > 0);
            }
        }
        assert!(growths > 10, "{growths}");
    }
}
