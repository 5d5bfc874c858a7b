//! L1: facts in this process's memory, within a budget of bytes.
//!
//! Knows nothing of freshness: it hands out what it has, with its stamp.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use dashmap::{DashMap, Entry};

use crate::{
    fact::{Fact, FactKey},
    freshness::Moment,
    question::{Id, LookupId},
};

/// What an entry costs beside its fact and its id: the places in the table and in the queue, and the allocator's share.
const OVERHEAD: usize = 200;

/// Remembered facts.
#[derive(Debug)]
pub struct Memory {
    by_lookup: Box<[DashMap<Id, Remembered, foldhash::fast::RandomState>]>,
    /// Every entry once, in the order in which they are looked at to be evicted.
    queue: Mutex<VecDeque<FactKey>>,
    bytes: AtomicUsize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Remembered {
    fact: Arc<Fact>,
    stamp: Moment,
    /// Whether it was read since it was last looked at to be evicted.
    is_used: AtomicBool,
}

impl Memory {
    /// Remembers facts of so many lookups in at most `bytes_max` bytes.
    #[must_use]
    pub fn new(lookups: usize, bytes_max: usize) -> Self {
        let by_lookup = (0..lookups).map(|_| DashMap::default()).collect();
        Self { by_lookup, queue: Mutex::default(), bytes: AtomicUsize::new(0), bytes_max }
    }

    /// The fact and its stamp. Allocates nothing.
    #[must_use]
    pub fn get(&self, lookup: LookupId, id: &Id) -> Option<(Arc<Fact>, Moment)> {
        self.by_lookup.get(lookup.index())?.get(id).map(|entry| {
            if !entry.is_used.load(Ordering::Relaxed) {
                entry.is_used.store(true, Ordering::Relaxed);
            }
            (Arc::clone(&entry.fact), entry.stamp)
        })
    }

    /// Remembers a fact, unless a newer one is there already, or `is_current`, asked while nobody else can get at the entry,
    /// says that it belongs to a history that is over.
    pub fn insert(&self, key: FactKey, fact: &Arc<Fact>, stamp: Moment, is_current: impl FnOnce() -> bool) {
        let Some(table) = self.by_lookup.get(key.lookup.index()) else { return };
        let size = size_of_entry(&key.id, fact);
        if size > self.bytes_max {
            return;
        }
        let remembered = Remembered { fact: Arc::clone(fact), stamp, is_used: AtomicBool::new(false) };
        match table.entry(key.id.clone()) {
            _ if !is_current() => return,
            Entry::Occupied(mut there) => {
                if there.get().stamp <= stamp {
                    let before = size_of_entry(&key.id, &there.get().fact);
                    self.bytes.fetch_add(size, Ordering::Relaxed);
                    self.bytes.fetch_sub(before, Ordering::Relaxed);
                    there.insert(remembered);
                }
            }
            Entry::Vacant(free) => {
                self.bytes.fetch_add(size, Ordering::Relaxed);
                free.insert(remembered);
                self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(key);
            }
        }
        self.evict();
    }

    /// Makes room: what was read since it was last looked at gets another turn.
    fn evict(&self) {
        while self.bytes() > self.bytes_max {
            let oldest = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(key) = oldest else { return };
            let Some(table) = self.by_lookup.get(key.lookup.index()) else { return };
            match table.entry(key.id.clone()) {
                Entry::Occupied(entry) if !entry.get().is_used.swap(false, Ordering::Relaxed) => {
                    let (id, entry) = entry.remove_entry();
                    self.bytes.fetch_sub(size_of_entry(&id, &entry.fact), Ordering::Relaxed);
                }
                Entry::Occupied(_) => self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(key),
                // It was forgotten together with all others.
                Entry::Vacant(_) => {}
            }
        }
    }

    /// Forgets everything that is remembered when this is called.
    pub fn clear(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for table in &self.by_lookup {
            table.retain(|id, entry| {
                self.bytes.fetch_sub(size_of_entry(id, &entry.fact), Ordering::Relaxed);
                false
            });
        }
    }

    /// How many bytes are in use.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many facts are remembered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_lookup.iter().map(DashMap::len).sum()
    }
}

fn size_of_entry(id: &Id, fact: &Fact) -> usize {
    OVERHEAD + 2 * id.size() + fact.memory()
}
