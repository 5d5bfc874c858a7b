//! How large the whole facts of each lookup were, what is logged about that, and whether the next one is likely to be over its limit
//! (docs/schema.md, "Large relations").
//!
//! A wrong guess costs time and changes no answer. Reads no document.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bson::Document;

use super::{MongoDb, filtered::is_selective};
use crate::{
    fact::{DOCUMENTS_MAX, Fact, FactKey, document_keys},
    question::{Id, LookupId},
    schema::{Finds, Lookup, Schema},
    telemetry::{FactSize, RateLimitedLog},
};

/// How many whole facts of a lookup are expected to be large at most.
const EXPECTED_MAX: usize = 16;

/// How many whole facts of a lookup are expected to be large before any of them was read. A few small ones show little about the next
/// one, and each of them costs two finds more.
const EXPECTED_FIRST: usize = 4;

/// How many more whole facts are expected to be large after one that was, if the filtered ones cannot stand for them: what is read
/// beside a small one is of no use.
const EXPECTED_BESIDE: usize = 2;

/// How many of the documents of a sample have the same key at least if the key is expected to be large. With fewer, it may be chance.
const SAMPLED_MIN: usize = 3;

/// Limits log lines about facts over their limit, as whoever may write documents can cause them.
static OVER_LIMIT: RateLimitedLog = RateLimitedLog::per_second(1);

/// Which sizes of facts of a lookup have been logged, and which are expected.
#[derive(Debug)]
pub(super) struct KnownSizes {
    logged: [AtomicBool; FactSize::ALL.len()],
    /// Whether a filtered fact can be read at little cost.
    can_expect: bool,
    /// Whether a filtered fact may stand for the whole one.
    may_stand: bool,
    /// Whether the collection is known to have more documents than a whole fact may contain.
    has_many: AtomicBool,
    /// How many more whole facts are expected to be large if the collection has many documents.
    expected: AtomicUsize,
    /// The keys that are expected to be large because many documents of a sample have them.
    frequent: RwLock<HashSet<Id>>,
}

impl KnownSizes {
    /// The expectations of a lookup before any fact was read.
    pub(super) fn new(schema: &Schema, lookup: &Lookup) -> Self {
        // Few documents have arrays so long that one document is too large. Structures are of a wrong type, and rare. A reverse lookup
        // has no filtered facts.
        let can_have_large = !lookup.is_by_id() && !lookup.is_reverse && lookup.finds != Finds::Structures;
        Self {
            logged: Default::default(),
            can_expect: !lookup.is_reverse && is_selective(schema, lookup),
            // Under a `!`, what cannot be read counts for every subject, and a query for one does not find all of it.
            may_stand: lookup.relations.iter().all(|id| !schema.relation(*id).negated),
            has_many: AtomicBool::new(false),
            expected: AtomicUsize::new(if can_have_large { EXPECTED_FIRST } else { 0 }),
            frequent: RwLock::default(),
        }
    }

    fn of(&self, size: FactSize) -> &AtomicBool {
        let [near, large, over] = &self.logged;
        match size {
            FactSize::NearLimit => near,
            FactSize::Large => large,
            FactSize::OverLimit => over,
        }
    }

    /// Whether the lookup has had a key with more documents than a whole fact may contain.
    pub(super) fn had_large(&self) -> bool {
        self.of(FactSize::Large).load(Ordering::Relaxed)
    }

    /// Whether the whole fact of a key is expected to be large, and a filtered one can be read at little cost.
    pub(super) fn expects_large(&self, id: &Id) -> bool {
        let is_frequent = || self.frequent.read().unwrap_or_else(PoisonError::into_inner).contains(id);
        let is_expected = || self.has_many.load(Ordering::Relaxed) && self.expected.load(Ordering::Relaxed) > 0;
        self.can_expect && (is_expected() || is_frequent())
    }

    /// Whether a filtered fact can be read at little cost.
    pub(super) fn can_expect(&self) -> bool {
        self.can_expect
    }

    /// Whether a filtered fact in which everything can be relied on allows nothing that the whole one does not allow.
    pub(super) fn may_stand(&self) -> bool {
        self.can_expect && self.may_stand
    }

    /// Learns from a whole fact.
    pub(super) fn learn(&self, id: &Id, is_large: bool) {
        if is_large {
            self.has_many.store(true, Ordering::Relaxed);
            let more = if self.may_stand { EXPECTED_MAX } else { EXPECTED_BESIDE };
            self.expected.update(Ordering::Relaxed, Ordering::Relaxed, |left| (left + more).min(EXPECTED_MAX));
            return;
        }
        if self.expected.load(Ordering::Relaxed) > 0 {
            self.expected.update(Ordering::Relaxed, Ordering::Relaxed, |left| left.saturating_sub(1));
        }
        let is_frequent = self.frequent.read().unwrap_or_else(PoisonError::into_inner).contains(id);
        if is_frequent {
            self.frequent.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
    }

    /// Learns how many documents the collection has. As long as that is not known, nothing is expected of it.
    fn learn_count(&self, count: u64) {
        if usize::try_from(count).is_ok_and(|count| count > DOCUMENTS_MAX) {
            self.has_many.store(true, Ordering::Relaxed);
        }
    }

    /// Learns from documents that were drawn at random from a collection of `count` documents.
    fn learn_sample(&self, lookup: &Lookup, documents: &[Document], count: u64) {
        let mut counts: HashMap<Id, usize> = HashMap::new();
        for document in documents {
            document_keys(lookup, document, &mut |id| *counts.entry(id).or_default() += 1);
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let is_large = |sampled: usize| sampled.saturating_mul(count) / documents.len().max(1) > DOCUMENTS_MAX;
        let is_frequent = |(id, sampled)| (sampled >= SAMPLED_MIN && is_large(sampled)).then_some(id);
        let frequent = counts.into_iter().filter_map(is_frequent).collect();
        *self.frequent.write().unwrap_or_else(PoisonError::into_inner) = frequent;
    }
}

impl MongoDb {
    /// What is known of the sizes of a lookup's facts.
    pub(super) fn sizes_of(&self, lookup: LookupId) -> Option<&KnownSizes> {
        self.sizes.get(lookup.index())
    }

    /// Learns how many documents a collection has.
    pub(super) fn learn_count(&self, collection: &str, count: u64) {
        for (id, _) in self.schema.lookups().filter(|(_, lookup)| &*lookup.collection == collection) {
            if let Some(sizes) = self.sizes_of(id) {
                sizes.learn_count(count);
            }
        }
    }

    /// Learns which keys are likely large from documents that were drawn at random from a collection of `count` documents.
    pub(super) fn learn_sample(&self, collection: &str, documents: &[Document], count: u64) {
        for (id, lookup) in self.schema.lookups().filter(|(_, lookup)| &*lookup.collection == collection) {
            if let Some(sizes) = self.sizes_of(id).filter(|sizes| sizes.can_expect && !lookup.is_by_id()) {
                sizes.learn_sample(lookup, documents, count);
            }
        }
    }

    /// Counts a large fact. Logs the first one of each size for a lookup, and afterwards some of those for which a relation is
    /// indeterminate.
    pub(super) fn notice_size(&self, key: &FactKey, fact: &Fact) {
        let Some(size) = size_to_notice(fact) else { return };
        let lookup = self.schema.lookup(key.lookup);
        self.commands.found_large(&lookup.collection, size);
        let is_first = |sizes: &KnownSizes| !sizes.of(size).swap(true, Ordering::Relaxed);
        let is_first = self.sizes_of(key.lookup).is_some_and(is_first);
        let suppressed = match size {
            FactSize::NearLimit | FactSize::Large => is_first.then_some(0),
            FactSize::OverLimit => OVER_LIMIT.admit().or(is_first.then_some(0)),
        };
        let Some(suppressed) = suppressed else { return };
        let (collection, field, key) = (&*lookup.collection, lookup.by.as_str(), &key.id);
        match size {
            FactSize::NearLimit if lookup.is_reverse => tracing::warn!(
                collection, field, %key,
                "a fact has three quarters of the documents or bytes that it may contain: beyond that, a list reads them each time"
            ),
            FactSize::NearLimit => tracing::warn!(
                collection, field, %key,
                "a fact has three quarters of the documents or bytes that it may contain: beyond that, it is read for each subject"
            ),
            FactSize::Large if lookup.is_reverse => tracing::warn!(
                collection, field, %key,
                "more documents or ids than a fact may contain: a list of what this id leads to reads them each time"
            ),
            FactSize::Large if lookup.is_by_id() => tracing::warn!(
                collection, field, %key,
                "more ids in one document than a fact may contain: it is read for each subject"
            ),
            FactSize::Large => tracing::warn!(
                collection, field, %key,
                "more documents or ids than a fact may contain: it is read for each subject, which needs an index on this field and the field of the ids"
            ),
            FactSize::OverLimit => tracing::warn!(
                collection, field, %key, suppressed,
                "more documents or ids than a fact may contain, even for one subject: a relation that is read from them is LIMIT"
            ),
        }
    }
}

/// How large a fact is, if that is worth a notice.
fn size_to_notice(fact: &Fact) -> Option<FactSize> {
    if fact.is_partial() {
        Some(FactSize::OverLimit)
    } else if fact.is_over_limit() {
        Some(FactSize::Large)
    } else {
        fact.is_near_limit().then_some(FactSize::NearLimit)
    }
}
