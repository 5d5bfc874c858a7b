//! L1 against a plain map: random insertions, hits, changes, and ends of epochs, with and without room for everything.

use std::{collections::BTreeMap, sync::Arc, thread};

use permcached::{
    fact::{Fact, FactKey},
    facts::{Facts, FreshnessRequirement, Memory},
    freshness::{Change, ChangeBatch, Changed, Freshness, Moment},
    source::documents::Documents,
};
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::{BUDGET, Files};

/// The number of keys that are inserted and looked up. Scans insert others.
const KEYS: u32 = 60;

#[derive(Clone, Debug)]
enum Step {
    /// Inserts what the source had `age` changes ago, in `shares` documents.
    Insert { key: u32, shares: u32, age: u64 },
    /// Offers a fact of an epoch that is over.
    InsertOfEndedEpoch { key: u32 },
    /// Looks a key up.
    Get { key: u32 },
    /// Something that belongs to the key changes.
    Change { key: u32 },
    /// Inserts facts that nobody looks up.
    Scan { from: u32, count: u32 },
    /// The epoch ends.
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0..KEYS, 0..12_u32, 0..3_u64).prop_map(|(key, shares, age)| Step::Insert { key, shares, age }),
        1 => (0..KEYS).prop_map(|key| Step::InsertOfEndedEpoch { key }),
        10 => (0..KEYS).prop_map(|key| Step::Get { key }),
        3 => (0..KEYS).prop_map(|key| Step::Change { key }),
        1 => (any::<u32>(), 0..200_u32).prop_map(|(from, count)| Step::Scan { from: from / 2, count }),
        1 => proptest::strategy::Just(Step::Clear),
    ]
}

/// L1, and beside it what it may return.
struct Compared<'a> {
    files: &'a Files,
    memory: Arc<Memory>,
    facts: Facts,
    freshness: Arc<Freshness>,
    /// The only fact that may be found under each key; none if the last look found nothing.
    kept: BTreeMap<FactKey, Fact>,
    /// When each key changed last.
    changed: BTreeMap<FactKey, Moment>,
    now: u64,
}

impl<'a> Compared<'a> {
    fn new(files: &'a Files, budget: usize) -> Self {
        let (memory, freshness) = (Arc::new(Memory::new(budget)), Arc::new(Freshness::new(&files.schema)));
        let now = 10;
        freshness.begin_at(Moment::from_count(1));
        let source = Arc::new(Documents::new(&files.schema, &BTreeMap::new()));
        let facts = Facts::new(source, Arc::clone(&freshness), Arc::clone(&memory), None, Arc::default());
        Self { files, memory, facts, freshness, kept: BTreeMap::new(), changed: BTreeMap::new(), now }
    }

    fn shares_key(&self, key: u32) -> FactKey {
        FactKey::whole(self.files.shares, self.files.key(key).id)
    }

    fn insert(&mut self, fact: Fact, evicts: bool) {
        let key = fact.key();
        let is_newest = !self.compare(&key, evicts) || self.kept[&key].stamp() <= fact.stamp();
        self.memory.insert(&fact, || true);
        if is_newest {
            self.kept.insert(key.clone(), fact);
        }
        self.compare(&key, evicts);
    }

    /// Compares what memory has under a key with what it may have. Returns whether it has something.
    fn compare(&mut self, key: &FactKey, evicts: bool) -> bool {
        let (found, kept) = (self.memory.get(key.lookup, &key.id, None), self.kept.get(key));
        assert!(evicts || found.is_some() == kept.is_some(), "{key:?}");
        if let Some(found) = &found {
            assert_eq!(&found.key(), key);
            let kept = kept.expect("nothing that was dropped comes back");
            assert_eq!(found.stamp(), kept.stamp());
            assert!(found.has_same_content(kept));
        } else {
            self.kept.remove(key);
        }
        if let Some(counts) = self.facts.cached(key.lookup, &key.id, None, FreshnessRequirement::default()) {
            assert!(Some(&counts.fact.stamp()) >= self.changed.get(key), "an outdated fact counts: {key:?}");
        }
        found.is_some()
    }

    fn take(&mut self, step: &Step, evicts: bool) {
        match *step {
            Step::Insert { key, shares, age } => {
                self.insert(self.files.shares(key, shares, self.now - age), evicts);
                self.insert(self.files.file(key, self.now - age), evicts);
            }
            Step::InsertOfEndedEpoch { key } => {
                self.memory.insert(&self.files.shares(key, 1, self.now + 1), || false);
                let key = self.shares_key(key);
                self.compare(&key, evicts);
            }
            Step::Get { key } => {
                for key in [self.shares_key(key), self.files.key(key)] {
                    self.compare(&key, evicts);
                }
            }
            Step::Change { key } => {
                let (from, key) = (Moment::from_count(self.now), self.shares_key(key));
                self.now += 1;
                let at = Moment::from_count(self.now);
                let changes = vec![Change { at, what: Changed::Key(key.clone()) }];
                assert!(self.freshness.apply(&ChangeBatch { from, to: at, changes }, self.freshness.epoch()));
                self.changed.insert(key.clone(), at);
                self.compare(&key, evicts);
            }
            Step::Scan { from, count } => {
                let files = self.files;
                (0..count).for_each(|number| self.insert(files.file(KEYS + from + number, self.now), evicts));
            }
            Step::Clear => {
                self.memory.clear();
                self.kept.clear();
                assert_eq!((self.memory.bytes(), self.memory.count()), (0, 0));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn memory_is_a_map_that_forgets(
        steps in proptest::collection::vec(step(), 1..300),
        shard_bytes in 200..6_000_usize,
        evicts in any::<bool>(),
    ) {
        let files = Files::new();
        let budget = if evicts { 32 * shard_bytes } else { 64 * BUDGET };
        let mut compared = Compared::new(&files, budget);
        for step in &steps {
            compared.take(step, evicts);
            assert!(compared.memory.bytes() <= budget, "{} of {budget}", compared.memory.bytes());
        }
        let keys: Vec<FactKey> = compared.kept.keys().cloned().collect();
        let cached = keys.iter().filter(|key| compared.compare(key, evicts)).count();
        assert_eq!(compared.memory.count(), cached, "each fact that is counted is found");
        assert!(evicts || compared.memory.evictions() == 0);
    }
}

#[test]
fn facts_in_use_survive_any_scan() {
    let files = Files::new();
    let memory = Memory::new(BUDGET);
    let facts_max = u32::try_from(BUDGET / files.file(0, 0).memory()).unwrap();
    let hot = facts_max / 10;
    for number in 0..20 * facts_max {
        memory.insert(&files.file(number, 1), || true);
        // Each is used once while about an eighth of the budget is inserted.
        if number % (facts_max / 8) == 0 {
            for used in 0..hot {
                let is_cached = super::is_cached(&memory, &files.key(used));
                assert!(is_cached || number < hot, "fact {used} was evicted when {number} facts had been inserted");
            }
        }
    }
    assert!(memory.evictions() > usize::try_from(18 * facts_max).unwrap());
}

#[test]
fn one_fact_in_two_caches_is_replaced_and_evicted_in_each() {
    let files = Files::new();
    let memories = [Memory::new(BUDGET / 4), Memory::new(BUDGET / 8)];
    for stamp in [1, 2] {
        let insert = |number| {
            let fact = files.file(number, stamp);
            for memory in &memories {
                memory.insert(&fact, || true);
            }
        };
        // The order differs, so the place of a fact in one cache is not its place in the other.
        (0..2_000).for_each(insert);
        (0..4_000).rev().for_each(insert);
    }
    for memory in memories {
        let cached = (0..4_000).filter(|number| super::is_cached(&memory, &files.key(*number))).count();
        assert_eq!(memory.count(), cached);
        assert!(memory.bytes() <= memory.bytes_max());
        memory.clear();
        assert_eq!((memory.bytes(), memory.count()), (0, 0));
    }
}

#[test]
fn the_map_and_its_rings_agree_after_threads_have_replaced_evicted_and_cleared() {
    const THREADS: u32 = 4;
    const KEYS: u32 = 3_000;
    let files = Files::new();
    let memory = Memory::new(BUDGET / 8);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (files, memory) = (&files, &memory);
            scope.spawn(move || {
                for round in 0..4_000 {
                    let number = (round * (2 * thread + 1) + 37 * thread) % KEYS;
                    memory.insert(&files.shares(number, (round + thread) % 5, u64::from(round / 100)), || true);
                    let found = memory.get(files.shares, &files.key(number / 2).id, None);
                    assert!(found.is_none_or(|found| found.id() == &files.key(number / 2).id));
                    if round % 1_000 == 999 && thread == 0 {
                        memory.clear();
                    }
                    assert!(memory.bytes() <= BUDGET / 8);
                }
            });
        }
    });
    let is_cached = |number: &u32| memory.get(files.shares, &files.key(*number).id, None).is_some();
    assert_eq!(memory.count(), (0..KEYS).filter(is_cached).count());
    assert!(memory.evictions() > 0);
}
