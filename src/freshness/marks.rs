//! Marks: when each key, document, collection and subject last changed, in a fixed amount of memory (design section 5,
//! point 4).

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering},
};

use super::Moment;
use crate::{
    fact::DocumentId,
    question::{CollectionId, Id, LookupId, Subject},
};

/// What is marked. Two that share a mark cost each other a read now and then, never an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// A document by its `_id`, and so what is found by that.
    Document(CollectionId, &'a DocumentId),
    /// The same, where the `_id` is an id.
    DocumentById(CollectionId, &'a Id),
    /// What is found by another field.
    Key(LookupId, &'a Id),
    /// Any document of a collection.
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

/// A moment for each of a fixed number of stripes. What is marked has two of them, and the older one counts: so both must be
/// shared with something newer before a mark is taken for later than it is.
#[derive(Debug)]
pub(super) struct Marks {
    stripes: Box<[AtomicU64]>,
    hasher: foldhash::fast::RandomState,
}

impl Marks {
    /// 2 to the power of `bits` stripes of 8 bytes, which take memory when they are first marked.
    pub(super) fn new(bits: u32) -> Self {
        let stripes = bytemuck::allocation::zeroed_slice_box(1 << bits);
        Self { stripes, hasher: foldhash::fast::RandomState::default() }
    }

    /// Marks it as changed at a moment. No mark moves back.
    pub(super) fn mark(&self, target: Target<'_>, at: Moment) {
        for stripe in self.stripes(target) {
            stripe.fetch_max(at.as_u64(), Ordering::AcqRel);
        }
    }

    /// When it last changed, or later.
    pub(super) fn get(&self, target: Target<'_>) -> Moment {
        let moments = self.stripes(target).map(|stripe| stripe.load(Ordering::Acquire));
        Moment::from_count(moments.min().unwrap_or(u64::MAX))
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.stripes.iter().for_each(|stripe| stripe.store(0, Ordering::Release));
    }

    fn stripes(&self, target: Target<'_>) -> impl Iterator<Item = &AtomicU64> {
        let hash = self.hasher.hash_one(target);
        // The number of stripes is a power of two, so the mask keeps both in bounds.
        let mask = u64::try_from(self.stripes.len().saturating_sub(1)).unwrap_or(0);
        [hash & mask, (hash >> 32) & mask]
            .into_iter()
            .filter_map(|place| self.stripes.get(usize::try_from(place).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_never_taken_for_earlier_than_it_is() {
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
    fn a_document_is_what_is_found_by_its_id() {
        let marks = Marks::new(20);
        let id = Id::Integer(7);
        marks.mark(Target::Document(CollectionId(1), &DocumentId::Id(id.clone())), Moment::from_count(3));
        assert_eq!(marks.get(Target::DocumentById(CollectionId(1), &id)), Moment::from_count(3));
        assert_eq!(marks.get(Target::DocumentById(CollectionId(2), &id)), Moment::default());
        assert_eq!(marks.get(Target::Key(LookupId(1), &id)), Moment::default());
    }
}
