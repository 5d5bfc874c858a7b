//! Marks: the moment at which each key, document, collection and subject last changed, in a fixed amount of memory
//! (docs/freshness.md, point 4).
//!
//! A mark may be later than the last change, never earlier.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering},
};

use super::Moment;
use crate::{
    fact::DocumentId,
    question::{CollectionId, Id, LookupId, Subject},
};

/// What a mark belongs to. Two targets may share the memory of their marks (see [`Marks`]). A change of one may then cause a
/// read of the other, never a wrong answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// A document, and so what a lookup by its `_id` finds.
    Document(CollectionId, &'a DocumentId),
    /// The same target, for an `_id` that is an [`Id`].
    DocumentById(CollectionId, &'a Id),
    /// What a lookup by another field finds for one key.
    Key(LookupId, &'a Id),
    /// All documents of a collection.
    Collection(CollectionId),
    /// A subject.
    Subject(&'a Subject),
}

impl Hash for Target<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Document(collection, DocumentId::Id(id)) => Self::DocumentById(*collection, id).hash(state),
            Self::DocumentById(collection, id) => {
                state.write_u32(u32::from(collection.0));
                id.hash(state);
            }
            Self::Document(collection, DocumentId::Other(text)) => {
                state.write_u32(1 << 16 | u32::from(collection.0));
                text.hash(state);
            }
            Self::Key(lookup, id) => {
                state.write_u32(2 << 16 | u32::from(lookup.0));
                id.hash(state);
            }
            Self::Collection(collection) => state.write_u32(3 << 16 | u32::from(collection.0)),
            Self::Subject(subject) => {
                state.write_u32(4 << 16);
                subject.hash(state);
            }
        }
    }
}

/// A fixed number of stripes, each of which holds one moment. A target has two stripes, and its mark is the older moment. So
/// a mark reads as too late only if the target shares both stripes with targets that changed later.
#[derive(Debug)]
pub(super) struct Marks {
    stripes: Box<[AtomicU64]>,
    hasher: foldhash::fast::RandomState,
}

impl Marks {
    /// 2 to the power of `bits` stripes, 8 bytes each. The memory is zeroed and takes up physical pages only once marks
    /// are written.
    pub(super) fn new(bits: u32) -> Self {
        let stripes = bytemuck::allocation::zeroed_slice_box(1 << bits);
        Self { stripes, hasher: foldhash::fast::RandomState::default() }
    }

    /// Marks a target as changed at a moment. No mark moves back.
    pub(super) fn mark(&self, target: Target<'_>, at: Moment) {
        for stripe in self.stripes(target) {
            stripe.fetch_max(at.as_u64(), Ordering::AcqRel);
        }
    }

    /// The moment at which a target last changed, or a later one.
    pub(super) fn get(&self, target: Target<'_>) -> Moment {
        let moments = self.stripes(target).map(|stripe| stripe.load(Ordering::Acquire));
        Moment::from_count(moments.min().unwrap_or(u64::MAX))
    }

    /// Resets all marks.
    pub(super) fn clear(&self) {
        self.stripes.iter().for_each(|stripe| stripe.store(0, Ordering::Release));
    }

    /// The two stripes of a target.
    fn stripes(&self, target: Target<'_>) -> impl Iterator<Item = &AtomicU64> {
        let hash = self.hasher.hash_one(target);
        // The number of stripes is a power of two, so the mask keeps both in bounds.
        let mask = u64::try_from(self.stripes.len().saturating_sub(1)).unwrap_or(0);
        [hash & mask, (hash >> 32) & mask]
            .into_iter()
            .filter_map(|index| self.stripes.get(usize::try_from(index).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_never_reads_earlier_than_it_was_set() {
        let marks = Marks::new(4);
        let ids: Vec<Id> = (0..100).map(Id::Integer).collect();
        for (id, at) in ids.iter().zip(1..) {
            marks.mark(Target::Key(LookupId(0), id), Moment::from_count(at));
        }
        for (id, at) in ids.iter().zip(1..) {
            assert!(marks.get(Target::Key(LookupId(0), id)) >= Moment::from_count(at));
        }
        marks.clear();
        assert_eq!(marks.get(Target::Collection(CollectionId(0))), Moment::default());
    }

    #[test]
    fn a_document_shares_its_mark_with_the_lookup_by_its_id() {
        let marks = Marks::new(20);
        let id = Id::Integer(7);
        marks.mark(Target::Document(CollectionId(1), &DocumentId::Id(id.clone())), Moment::from_count(3));
        assert_eq!(marks.get(Target::DocumentById(CollectionId(1), &id)), Moment::from_count(3));
        assert_eq!(marks.get(Target::DocumentById(CollectionId(2), &id)), Moment::default());
        assert_eq!(marks.get(Target::Key(LookupId(1), &id)), Moment::default());
    }
}
