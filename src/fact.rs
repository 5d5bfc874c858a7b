//! A fact: what a lookup finds for one key at one moment, reduced to what the schema's relations need. Facts are what is
//! cached; decisions are computed from them each time (design section 2).
//!
//! A fact is one allocation, shared by all who hold it, as millions of them are remembered: what it is the fact of, its
//! stamp, and then its parts in one row. What is rare, such as times, is a part of its own; what the key says already, such
//! as the `_id` of a document found by it, is not kept twice.
//!
//! What holds of the parts of every fact is stated once, in `validate`: what comes from elsewhere is held to it.
//!
//! Pure: documents come in, facts come out. Nothing here knows where documents are kept, or the time.

mod read;
mod validate;
mod value;

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use bson::Document;
use triomphe::ThinArc;
pub(crate) use value::{document_keys, id_to_bson};

use crate::{
    moment::Moment,
    question::{Id, LookupId, Millis, RelationId},
    schema::Schema,
};

/// How many documents a fact holds at most.
pub const DOCUMENTS_MAX: usize = 1_000;

/// How large a fact is at most, in bytes of the ids that it holds and four for each.
pub const FACT_BYTES_MAX: usize = 256 * 1_024;

/// The name of a fact: what is looked up, and by which id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactKey {
    /// What is looked up.
    pub lookup: LookupId,
    /// By which id.
    pub id: Id,
}

/// What a lookup found for one key at one moment. A fact without documents is a fact too. Clones share it.
#[derive(Clone, Debug)]
pub struct Fact(ThinArc<Head, Part>);

#[derive(Debug)]
struct Head {
    id: Id,
    stamp: Moment,
    lookup: LookupId,
    is_used: AtomicBool,
}

/// A fact's parts, in this order; the documents and the grants are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// There was more than a fact may hold: the only part there is.
    OverLimit,
    /// The document that the key names is there, and says nothing: the only part there is.
    Silent,
    /// The `_id` of a document. Left out where the key is the `_id`.
    Document(DocumentId),
    /// When some of the grants hold.
    Window(Window),
    /// What a document says.
    Grant(Grant),
}

/// The `_id` of a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentId {
    /// One of the forms that ids have.
    Id(Id),
    /// Any other value, as canonical Extended JSON.
    Other(Box<str>),
}

/// One thing that a document says for one relation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The relation.
    pub relation: RelationId,
    /// The document's place among the fact's.
    pub(crate) document: u16,
    /// Whether the document can be relied on.
    pub certainty: Certainty,
    /// Whom or what it leads to.
    pub grantee: Grantee,
    /// Which of the relation's targets the grantee is of.
    pub target: u8,
    /// The place of its [`Window`] among the fact's parts, or [`UNBOUNDED`].
    pub(crate) window: u16,
}

/// The place of no window.
pub(crate) const UNBOUNDED: u16 = u16::MAX;

/// Whom or what a grant leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grantee {
    /// A flag: true of the resource, whoever asks.
    Flag,
    /// The id of a subject, a set or a resource.
    Id(Id),
    /// Every subject of a type (`*`).
    Everyone,
    /// A value that is no id of the right form: it could be anybody.
    Unreadable,
}

/// When a grant holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// From when on; [`Millis::MIN`] if that is not bounded.
    pub since: Millis,
    /// Until when: at that moment it is over; [`Millis::MAX`] if that is not bounded.
    pub until: Millis,
}

impl Default for Window {
    fn default() -> Self {
        Self { since: Millis::MIN, until: Millis::MAX }
    }
}

/// Whether a document's conditions and dates can be relied on (design section 3, "Indeterminate").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// It matches, and all values have the right types.
    Sure,
    /// It matches, but a value has a wrong type.
    Doubtful,
    /// It does not match, but a value has a wrong type: that counts only under a `!`.
    Suspect,
}

impl Fact {
    /// Reads what the relations of the key's lookup need from the documents found for it at `stamp`. Their order does not
    /// matter.
    #[must_use]
    pub fn read(schema: &Schema, key: FactKey, stamp: Moment, documents: &[&Document]) -> Self {
        let parts = read::parts(schema, key.lookup, documents);
        Self::new(key, stamp, parts.as_deref().unwrap_or(&[Part::OverLimit]))
    }

    /// The fact of a key that no document has.
    #[must_use]
    pub fn absent(key: FactKey, stamp: Moment) -> Self {
        Self::new(key, stamp, &[])
    }

    /// The fact of a key with more documents, or more in them, than a fact may hold.
    #[must_use]
    pub fn over_limit(key: FactKey, stamp: Moment) -> Self {
        Self::new(key, stamp, &[Part::OverLimit])
    }

    /// The fact of these parts, if [`Fact::read`] could have made it of some documents: nothing else is known of where they
    /// come from.
    pub(crate) fn checked(schema: &Schema, key: FactKey, stamp: Moment, parts: &[Part]) -> Option<Self> {
        validate::are_valid(schema, &key, parts).then(|| Self::new(key, stamp, parts))
    }

    fn new(key: FactKey, stamp: Moment, parts: &[Part]) -> Self {
        let head = Head { id: key.id, stamp, lookup: key.lookup, is_used: AtomicBool::new(true) };
        Self(ThinArc::from_header_and_iter(head, parts.iter().cloned()))
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    /// All that it says.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.0.slice
    }

    /// What was looked up.
    #[must_use]
    pub fn lookup(&self) -> LookupId {
        self.head().lookup
    }

    /// By which id.
    #[must_use]
    pub fn id(&self) -> &Id {
        &self.head().id
    }

    /// The moment of which it is the truth.
    #[must_use]
    pub fn stamp(&self) -> Moment {
        self.head().stamp
    }

    /// Whether another fact says the same of the same, whenever each was read.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        (self.lookup(), self.id(), self.parts()) == (other.lookup(), other.id(), other.parts())
    }

    /// What the documents say for one relation.
    pub fn grants(&self, relation: RelationId) -> impl Iterator<Item = &Grant> + Clone {
        let parts = self.parts();
        let from = parts.partition_point(|part| match part {
            Part::Grant(grant) => grant.relation < relation,
            _ => true,
        });
        parts.get(from..).unwrap_or_default().iter().map_while(move |part| match part {
            Part::Grant(grant) if grant.relation == relation => Some(grant),
            _ => None,
        })
    }

    /// When a grant of this fact holds.
    #[must_use]
    pub fn window(&self, grant: &Grant) -> Window {
        if grant.window == UNBOUNDED {
            return Window::default();
        }
        match self.parts().get(usize::from(grant.window)) {
            Some(Part::Window(window)) => *window,
            _ => Window::default(),
        }
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.parts().is_empty()
    }

    /// Whether there was more than a fact may hold. Then nothing of it is kept, and all that depends on it is indeterminate.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        matches!(self.parts(), [Part::OverLimit])
    }

    /// The documents that were found, in order, but for one whose `_id` is the key.
    pub fn documents_beside_key(&self) -> impl Iterator<Item = &DocumentId> + Clone {
        self.parts().iter().map_while(|part| if let Part::Document(id) = part { Some(id) } else { None })
    }

    /// All documents that were found, in order.
    #[must_use]
    pub fn documents(&self) -> Vec<DocumentId> {
        match self.parts() {
            [] | [Part::OverLimit] => Vec::new(),
            [Part::Document(_), ..] => self.documents_beside_key().cloned().collect(),
            _ => vec![DocumentId::Id(self.id().clone())],
        }
    }

    /// The document that a grant of this fact comes from.
    #[must_use]
    pub fn document_of(&self, grant: &Grant) -> DocumentId {
        match self.parts().get(usize::from(grant.document)) {
            Some(Part::Document(id)) => id.clone(),
            _ => DocumentId::Id(self.id().clone()),
        }
    }

    /// How many bytes it takes in memory, all its allocations and their overhead included.
    #[must_use]
    pub fn memory(&self) -> usize {
        // Beside the head, the allocation has the counts of who holds it and of its parts.
        let own = 2 * size_of::<usize>() + size_of::<Head>() + size_of_val(self.parts());
        let texts = self.parts().iter().filter_map(Part::text).chain(self.id().text());
        allocated(own) + texts.map(|text| allocated(text.len())).sum::<usize>()
    }

    /// Says that it was of use to somebody.
    pub(crate) fn set_used(&self) {
        // Most facts that are of use were so before; only a write takes the cache line from other cores.
        if !self.head().is_used.load(Ordering::Relaxed) {
            self.head().is_used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it is new or was of use since this was last asked.
    pub(crate) fn take_used(&self) -> bool {
        self.head().is_used.swap(false, Ordering::Relaxed)
    }
}

/// What an allocation of so many bytes takes from the allocator: a word for itself, and all in steps of two words.
fn allocated(bytes: usize) -> usize {
    const WORD: usize = size_of::<usize>();
    (bytes + WORD).next_multiple_of(2 * WORD).max(4 * WORD)
}

impl Part {
    /// The text that it keeps in an allocation of its own.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Document(DocumentId::Id(id)) => id.text(),
            Self::Document(DocumentId::Other(text)) => Some(text),
            Self::Grant(Grant { grantee: Grantee::Id(id), .. }) => id.text(),
            Self::Grant(_) | Self::OverLimit | Self::Silent | Self::Window(_) => None,
        }
    }
}

impl Grant {
    fn size(&self) -> usize {
        match &self.grantee {
            Grantee::Id(id) => id.size() + 4,
            Grantee::Flag | Grantee::Everyone | Grantee::Unreadable => 4,
        }
    }
}

impl DocumentId {
    fn size(&self) -> usize {
        match self {
            Self::Id(id) => id.size() + 4,
            Self::Other(text) => text.len() + 4,
        }
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => fmt::Display::fmt(id, f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_no_larger_than_a_grant() {
        assert_eq!((size_of::<Part>(), size_of::<Grant>()), (32, 32));
        assert_eq!(size_of::<Head>(), 40);
    }
}
