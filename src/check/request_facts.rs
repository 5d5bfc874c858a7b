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
    question::{Id, LookupId, Subject},
};

/// How many facts one request may use.
pub(super) const FACTS_MAX: usize = 100_000;

/// How many bytes of memory the facts of one request may take.
const FACT_BYTES_MAX: usize = 64 * 1_024 * 1_024;

type Map<K, V> = FrozenMap<K, Box<V>, foldhash::fast::RandomState>;

/// The facts of one lookup, by id.
#[derive(Default)]
struct FactsOfLookup {
    whole: Map<Id, CachedFact>,
    /// The facts that are filtered to a subject, by subject. A batch may have several subjects.
    filtered: Map<Id, Map<Subject, CachedFact>>,
}

/// The facts of one request, by lookup and id.
pub struct RequestFacts {
    by_lookup: Box<[FactsOfLookup]>,
    facts: Cell<usize>,
    bytes: Cell<usize>,
    /// How many of the facts came from memory.
    from_memory: Cell<u64>,
}

impl RequestFacts {
    /// No facts yet, for a schema with this many lookups.
    #[must_use]
    pub fn new(lookups: usize) -> Self {
        let by_lookup = (0..lookups).map(|_| FactsOfLookup::default()).collect();
        Self { by_lookup, facts: Cell::new(0), bytes: Cell::new(0), from_memory: Cell::new(0) }
    }

    /// The fact, with its tier and its as-of moment, if the request has it.
    #[must_use]
    pub fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&CachedFact> {
        let facts = self.by_lookup.get(lookup.index())?;
        match subject {
            None => facts.whole.get(id),
            Some(subject) => facts.filtered.get(id)?.get(subject),
        }
    }

    /// Adds a loaded fact. A fact that had to be loaded again replaces the earlier one.
    pub fn insert(&mut self, key: FactKey, fact: CachedFact) {
        if let Some(facts) = self.by_lookup.get_mut(key.lookup.index()) {
            match key.subject() {
                None => drop(facts.whole.as_mut().remove(&key.id)),
                Some(subject) => {
                    let of_id = facts.filtered.as_mut().get_mut(&key.id);
                    drop(of_id.and_then(|of_id| Map::as_mut(of_id).remove(subject)));
                }
            }
        }
        self.add(key, fact);
    }

    /// Adds a fact that was found in memory during an evaluation.
    pub(super) fn add_cached(&self, key: FactKey, fact: CachedFact) -> Option<&CachedFact> {
        self.from_memory.update(|count| count + 1);
        self.add(key, fact)
    }

    fn add(&self, key: FactKey, fact: CachedFact) -> Option<&CachedFact> {
        let facts = self.by_lookup.get(key.lookup.index())?;
        self.facts.update(|count| count + 1);
        let bytes = fact.fact.memory() + size_of::<CachedFact>() + key.id.size() + key.subject().map_or(0, of_subject);
        self.bytes.update(|before| before + bytes);
        let fact = Box::new(fact);
        Some(match key.subject {
            None => facts.whole.insert(key.id, fact),
            Some(subject) => match facts.filtered.get(&key.id) {
                Some(of_id) => of_id.insert(*subject, fact),
                None => facts.filtered.insert(key.id, Box::default()).insert(*subject, fact),
            },
        })
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

/// The memory that the subject of a filtered fact takes as a key, in bytes. The fact has a copy of its own.
fn of_subject(subject: &Subject) -> usize {
    let id = match subject {
        Subject::Known { kind: _, id } => id.size(),
        Subject::Anonymous => 0,
    };
    // Most ids have facts that are filtered to one subject only, in a map of their own.
    size_of::<Map<Subject, CachedFact>>() + size_of::<Subject>() + id
}

impl fmt::Debug for RequestFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFacts").field("facts", &self.facts).field("bytes", &self.bytes).finish_non_exhaustive()
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
        freshness::Moment,
        question::{ID_BYTES_MAX, SubjectTypeId},
    };

    #[test]
    fn the_subjects_of_filtered_facts_count_in_their_facts_and_in_their_keys() {
        let mut facts = RequestFacts::new(1);
        let mut count = 0;
        while !facts.is_full() {
            let text = format!("{count:0>ID_BYTES_MAX$}");
            let subject = Subject::Known { kind: SubjectTypeId(0), id: Id::String(text.into()) };
            let key = FactKey::filtered(LookupId(0), Id::Integer(count), subject);
            facts.insert(key.clone(), Fact::absent(key, Moment::default()).into());
            count += 1;
        }
        let count = usize::try_from(count).unwrap();
        assert!(count < FACT_BYTES_MAX / (2 * ID_BYTES_MAX), "{count} facts of two texts each");
        assert!(count > FACT_BYTES_MAX / (3 * ID_BYTES_MAX), "{count}");
    }
}
