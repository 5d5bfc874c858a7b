//! The facts of one request. A fact that the request has used stays the same until the request is answered, whatever changes
//! in the meantime.
//!
//! Most requests are one question that few facts decide, so the first facts have their places here and are found by a look
//! at each of them: such a request allocates nothing. A request with more facts allocates places and an index.
//!
//! Loads nothing, and does not know whether a fact is fresh.

use std::{
    cell::{Cell, OnceCell, RefCell},
    fmt,
    hash::BuildHasher,
};

use elsa::FrozenVec;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::{
    evaluate::AvailableFacts,
    fact::Fact,
    facts::CachedFact,
    question::{Id, LookupId, Subject},
};

/// How many facts one request may use.
pub(super) const FACTS_MAX: usize = 100_000;

/// How many bytes of memory the facts of one request may take.
const FACT_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// The number of facts that have places without an allocation.
const FIRST: usize = 8;

/// A place of a fact.
type Place = OnceCell<CachedFact>;

/// The facts of one request, in the order in which they were added.
#[derive(Default)]
pub struct RequestFacts {
    first: [Place; FIRST],
    /// The places of further facts. Each block has twice as many as the one before it, and the first has twice [`FIRST`].
    more: FrozenVec<Box<[Place]>>,
    /// How many places are taken.
    count: Cell<usize>,
    /// The place that was found last. Each evaluation of a question asks for the facts in the same order, so the next one is likely to
    /// come after it.
    last_found: Cell<usize>,
    /// The place of each fact by its key. Empty as long as the first places suffice.
    index: RefCell<HashTable<usize>>,
    hasher: OnceCell<RandomState>,
    bytes: Cell<usize>,
    /// How many of the facts came from memory.
    from_memory: Cell<u64>,
}

impl RequestFacts {
    /// The fact, with its tier and its as-of moment, if the request has it.
    #[must_use]
    pub fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&CachedFact> {
        self.find(lookup, id, subject).map(|(_, cached)| cached)
    }

    /// The place of a fact, and the fact.
    fn find(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<(usize, &CachedFact)> {
        let is_it = |cached: &&CachedFact| cached.fact.is_of(lookup, id, subject);
        if self.count.get() <= FIRST {
            return self.first.iter().map_while(Place::get).enumerate().find(|(_, cached)| is_it(cached));
        }
        let next = self.last_found.get() + 1;
        let found = match self.at(next).filter(is_it) {
            Some(cached) => (next, cached),
            None => {
                let is_there = |place: &usize| self.at(*place).is_some_and(|cached| is_it(&cached));
                let place = *self.index.borrow().find(self.hash(lookup, id, subject), is_there)?;
                (place, self.at(place)?)
            }
        };
        self.last_found.set(found.0);
        Some(found)
    }

    /// Adds a loaded fact. A fact that had to be loaded again replaces the earlier one.
    pub fn insert(&mut self, fact: CachedFact) {
        let found = self.find(fact.fact.lookup(), fact.fact.id(), fact.fact.subject());
        let Some(place) = found.map(|(place, _)| place) else {
            self.add(fact);
            return;
        };
        let (block, offset) = block_of(place);
        let block = match block.checked_sub(1) {
            None => Some(&mut self.first[..]),
            Some(further) => self.more.as_mut().get_mut(further).map(|block| &mut **block),
        };
        if let Some(place) = block.and_then(|block| block.get_mut(offset)) {
            let old = place.take().map_or(0, |old| old.fact.memory());
            self.bytes.set(self.bytes.get() - old + fact.fact.memory());
            *place = fact.into();
        }
    }

    /// Adds a fact that was found in memory during an evaluation, and that the request does not have.
    pub(super) fn add_cached(&self, fact: CachedFact) -> Option<&CachedFact> {
        self.from_memory.update(|count| count + 1);
        self.add(fact)
    }

    fn add(&self, fact: CachedFact) -> Option<&CachedFact> {
        let place = self.count.get();
        self.count.set(place + 1);
        let index_bytes = if place < FIRST { 0 } else { 2 * size_of::<usize>() };
        self.bytes.update(|before| before + fact.fact.memory() + size_of::<Place>() + index_bytes);
        let added = self.place(place)?.get_or_init(|| fact);
        match place {
            ..FIRST => {}
            FIRST => (0..=FIRST).for_each(|place| self.enter(place)),
            _ => self.enter(place),
        }
        Some(added)
    }

    /// Enters a fact into the index.
    fn enter(&self, place: usize) {
        let hash_of = |place: &usize| {
            let fact = self.at(*place).map(|cached| &cached.fact);
            fact.map_or(0, |fact| self.hash(fact.lookup(), fact.id(), fact.subject()))
        };
        self.index.borrow_mut().insert_unique(hash_of(&place), place, hash_of);
    }

    fn hash(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> u64 {
        self.hasher.get_or_init(RandomState::default).hash_one((lookup, id, subject))
    }

    /// The fact in a place.
    fn at(&self, place: usize) -> Option<&CachedFact> {
        let (block, offset) = block_of(place);
        let block = if block == 0 { Some(&self.first[..]) } else { self.more.get(block - 1) };
        block?.get(offset)?.get()
    }

    /// A place, which may be the first of a new block.
    fn place(&self, place: usize) -> Option<&Place> {
        let (block, offset) = block_of(place);
        let block = match block.checked_sub(1) {
            None => &self.first[..],
            Some(further) if further < self.more.len() => self.more.get(further)?,
            Some(_) => self.more.push_get((0..FIRST << block).map(|_| Place::new()).collect()),
        };
        block.get(offset)
    }

    /// How many of the facts came from memory and did not have to be loaded.
    pub(super) fn found_in_memory(&self) -> u64 {
        self.from_memory.get()
    }

    /// How many more facts the request may use.
    pub(super) fn capacity_left(&self) -> usize {
        FACTS_MAX.saturating_sub(self.count.get())
    }

    /// Whether the request may use no more facts.
    pub(super) fn is_full(&self) -> bool {
        self.capacity_left() == 0 || self.bytes.get() >= FACT_BYTES_MAX
    }
}

/// The block that a place is in, and its place there.
fn block_of(place: usize) -> (usize, usize) {
    let block = (place / FIRST + 1).ilog2();
    let before = FIRST * ((1 << block) - 1);
    (usize::try_from(block).unwrap_or(usize::MAX), place - before)
}

impl fmt::Debug for RequestFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFacts").field("count", &self.count).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl AvailableFacts for RequestFacts {
    fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&Fact> {
        self.get(lookup, id, subject).map(|cached| &cached.fact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fact::FactKey,
        freshness::Moment,
        question::{ID_BYTES_MAX, SubjectTypeId},
    };

    fn key(number: i64, is_filtered: bool) -> FactKey {
        let (lookup, id) = (LookupId(u16::try_from(number % 3).unwrap()), Id::Integer(number));
        if is_filtered { FactKey::filtered(lookup, id, Subject::Anonymous) } else { FactKey::whole(lookup, id) }
    }

    fn stamp(facts: &RequestFacts, key: &FactKey) -> Option<u64> {
        facts.get(key.lookup, &key.id, key.subject()).map(|cached| cached.fact.stamp().as_u64())
    }

    #[test]
    fn each_fact_is_found_and_the_last_of_a_key_counts_however_many_there_are() {
        let mut facts = RequestFacts::default();
        let all: Vec<FactKey> =
            (0..100).flat_map(|number| [false, true].map(|is_filtered| key(number, is_filtered))).collect();
        let mut latest = std::collections::HashMap::new();
        for (stamp_of, place) in (1..).zip([0, 1, 0, 2, 3, 0, 4].into_iter().chain(5..200).chain([0, 7, 150, 199, 7])) {
            let added = &all[place];
            facts.insert(Fact::absent(added.clone(), Moment::from_count(stamp_of)).into());
            latest.insert(added.clone(), stamp_of);
            for key in &all {
                assert_eq!(stamp(&facts, key), latest.get(key).copied(), "{key:?} after {stamp_of}");
            }
        }
    }

    #[test]
    fn each_place_is_in_one_block() {
        let mut expected = (0..10).flat_map(|block| (0..FIRST << block).map(move |offset| (block, offset)));
        for place in 0..1_000 {
            assert_eq!(Some(block_of(place)), expected.next());
        }
    }

    #[test]
    fn the_subjects_of_filtered_facts_count() {
        let mut facts = RequestFacts::default();
        let mut count = 0;
        while !facts.is_full() {
            let text = format!("{count:0>ID_BYTES_MAX$}");
            let subject = Subject::Known { kind: SubjectTypeId(0), id: Id::String(text.into()) };
            facts.insert(
                Fact::absent(FactKey::filtered(LookupId(0), Id::Integer(count), subject), Moment::default()).into(),
            );
            count += 1;
        }
        let count = usize::try_from(count).unwrap();
        assert!(count < FACT_BYTES_MAX / ID_BYTES_MAX, "{count} facts of one text each");
        assert!(count > FACT_BYTES_MAX / (2 * ID_BYTES_MAX), "{count}");
    }
}
