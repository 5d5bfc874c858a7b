//! A fact: what a lookup finds for one key at one moment, reduced to what the schema's relations require. permcached caches
//! facts, and computes each decision from them (ARCHITECTURE.md, "The idea").
//!
//! Millions of facts are cached, so a fact is a single allocation that all its users share: its key, its stamp, and then
//! its parts in one array. Rare data, such as times, is a part of its own. Data that the key already contains, such as the
//! `_id` of a document that was looked up by `_id`, is not stored twice.
//!
//! `validate` defines which parts a fact can have. Facts from outside this process are checked against it.
//!
//! This module is pure: it turns documents into facts. It does not know where documents are stored, or what time it is.

mod date;
mod forms;
mod grants;
mod keys;
mod read;
mod validate;
mod value;

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use bson::Document;
pub(crate) use date::RANGE as DATE_RANGE;
pub(crate) use keys::{bound_reverse_keys, changed_keys, document_keys, id_texts, id_values, key_values, text_value};
use triomphe::ThinArc;
pub(crate) use value::{id_of_text, id_to_bson, listed_id};

use crate::{
    moment::Moment,
    question::{Id, LookupId, Millis, RelationId, Resource, Subject},
    schema::{Finds, Schema},
};

/// The maximal number of documents of a fact.
pub const DOCUMENTS_MAX: usize = 1_000;

/// The maximal size of a fact in bytes: the ids that it contains, and four bytes for each document and each grant.
pub const FACT_BYTES_MAX: usize = 256 * 1_024;

/// How many bytes a fact keeps of a text that has no meaning.
pub(crate) const SHOWN_BYTES_MAX: usize = 64;

/// The key of a fact: a lookup, the id to look up, and the subject that the fact is filtered to, if it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactKey {
    /// The lookup.
    pub lookup: LookupId,
    /// The id that is looked up.
    pub id: Id,
    /// The subject that the fact is filtered to; none for a whole fact.
    pub subject: Option<Box<Subject>>,
}

impl FactKey {
    /// The key of the whole fact: of all that the lookup finds for the id.
    #[must_use]
    pub fn whole(lookup: LookupId, id: Id) -> Self {
        Self { lookup, id, subject: None }
    }

    /// The key of the fact that is filtered to a subject.
    #[must_use]
    pub fn filtered(lookup: LookupId, id: Id, subject: Subject) -> Self {
        Self { lookup, id, subject: Some(Box::new(subject)) }
    }

    /// The subject that the fact is filtered to; none for a whole fact.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        self.subject.as_deref()
    }

    /// The only key of a lookup that finds [`Finds::Structures`].
    #[must_use]
    pub fn structures(lookup: LookupId) -> Self {
        Self::whole(lookup, Self::id_of_structures())
    }

    /// The key by which a reverse lookup finds the documents that lead to everybody (`*`).
    #[must_use]
    pub fn everybody(lookup: LookupId) -> Self {
        Self::whole(lookup, Self::id_of_everybody())
    }

    /// The key that stands for all keys of a reverse lookup, where too many changed at once to name each. It finds nothing.
    pub(crate) fn all_reverse(lookup: LookupId) -> Self {
        Self::whole(lookup, Self::id_of_all_reverse())
    }

    /// The keys of every fact from which a resource or one of its relations is read. A key may occur more than once.
    pub fn of_resource(schema: &Schema, resource: &Resource) -> impl Iterator<Item = Self> {
        schema.lookups_of(resource.kind).map(|lookup| match schema.lookup(lookup).finds {
            Finds::Structures => Self::structures(lookup),
            Finds::DeclaredForm | Finds::EveryForm => Self::whole(lookup, resource.id.clone()),
        })
    }

    /// The keys that an invalidation of a resource outdates: those of its facts, and all keys of the reverse lookups that may lead to it, as
    /// it is not known whom its documents name. A key may occur more than once.
    pub(crate) fn outdated_with(schema: &Schema, resource: &Resource) -> impl Iterator<Item = Self> {
        let reverse = schema.reverse_lookups_of(resource.kind).map(Self::all_reverse);
        Self::of_resource(schema, resource).chain(reverse)
    }

    /// The id in that key. It is not the id of anybody.
    pub(crate) fn id_of_everybody() -> Id {
        Id::String("*".into())
    }

    /// The id in the key that stands for all keys. An empty text is no id.
    pub(crate) fn id_of_all_reverse() -> Id {
        Id::String(Box::default())
    }

    /// The id in the key of structures. It is not the id of anything.
    pub(crate) const fn id_of_structures() -> Id {
        Id::Integer(0)
    }
}

/// What a lookup found for one key at one moment. That there is no document is a fact too. Clones share one allocation.
#[derive(Clone, Debug)]
pub struct Fact(ThinArc<Head, Part>);

#[derive(Debug)]
struct Head {
    id: Id,
    stamp: Moment,
    /// Its place in the ring of L1, if it is there.
    place: AtomicU32,
    lookup: LookupId,
    extent: Extent,
    is_used: AtomicBool,
}

/// How much of what the lookup finds for its key a fact shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// All of it.
    Whole,
    /// All of what concerns one subject.
    Filtered,
    /// As [`Extent::Filtered`], without the grants of some relation, because there are too many.
    Partial,
}

/// A part of a fact. Parts come in the order of the variants. Documents and grants are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// There was more than a fact may contain. This is then the only part.
    OverLimit,
    /// The document whose `_id` is the key exists, but has no grants. This is then the only part.
    Silent,
    /// The `_id` of a document. It is left out if the key is the `_id`.
    Document(DocumentId),
    /// The time in which some of the grants hold.
    Window(Window),
    /// A grant that a document contains.
    Grant(Grant),
    /// The subject that the fact is filtered to. It comes last, and is not part of the content.
    FilteredTo(Box<Subject>),
}

/// The `_id` of a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentId {
    /// A value that has one of the forms of ids.
    Id(Id),
    /// Any other value, as canonical Extended JSON.
    Other(Box<str>),
}

/// One entry of a document for one relation: an id, a wildcard, a flag, or a value that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The relation.
    pub relation: RelationId,
    /// The index of the document among the fact's documents.
    pub(crate) document: u16,
    /// Whether the document can be relied on.
    pub certainty: Certainty,
    /// The subject, set or resource that the relation leads to.
    pub grantee: Grantee,
    /// The index of the grantee's type among the relation's targets.
    pub target: u8,
    /// The index of the grant's [`Window`] among the fact's parts, or [`UNBOUNDED`].
    pub(crate) window: u16,
}

/// The `window` of a grant that has no window.
pub(crate) const UNBOUNDED: u16 = u16::MAX;

/// What a grant leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grantee {
    /// A flag: it holds for the resource, for every subject.
    Flag,
    /// The id of a subject, a set or a resource.
    Id(Id),
    /// Every subject of a type (`*`).
    Everyone,
    /// A value that is not an id of the right form. It could mean any subject.
    Unreadable,
    /// A text that is not an id in the relation's format, or a type that the relation does not list. It could mean any
    /// subject. The text is kept to be shown, a bounded part of it, and never that of a secret.
    Unknown(Box<str>),
    /// More than the fact keeps. The relation is indeterminate unless one of its other grants decides. Only filtered facts have
    /// such grants, one for a relation.
    OverLimit,
}

/// The time in which a grant holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// The first moment at which it holds; [`Millis::MIN`] if there is no bound.
    pub since: Millis,
    /// The first moment at which it no longer holds; [`Millis::MAX`] if there is no bound.
    pub until: Millis,
}

impl Default for Window {
    fn default() -> Self {
        Self { since: Millis::MIN, until: Millis::MAX }
    }
}

/// Whether the conditions and dates of a document can be relied on (docs/schema.md, "Indeterminate values").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// The document matches, and all values have the right types.
    Sure,
    /// The document matches, but a value has a wrong type.
    Doubtful,
    /// The document does not match, but a value has a wrong type. Such a grant counts only under a `!`.
    Suspect,
}

impl Fact {
    /// Creates the fact of a key from the documents that the lookup found for it at `stamp`. The order of the documents does
    /// not matter.
    #[must_use]
    pub fn read(schema: &Schema, key: FactKey, stamp: Moment, documents: &[&Document]) -> Self {
        Self::read_partly(schema, key, stamp, documents, &[])
    }

    /// As [`Fact::read`], for a filtered fact, without some relations that have too many documents. Each comes with one of them.
    #[must_use]
    pub fn read_partly(
        schema: &Schema,
        key: FactKey,
        stamp: Moment,
        documents: &[&Document],
        beyond: &[(RelationId, DocumentId)],
    ) -> Self {
        let parts = read::parts(schema, &key, documents, beyond);
        Self::new(key, stamp, parts.as_deref().unwrap_or(&[Part::OverLimit]))
    }

    /// The same fact, filtered to a subject: what [`Fact::read`] creates from the same documents. This fact must be whole and
    /// not over its limit.
    #[must_use]
    pub fn filtered_to(&self, schema: &Schema, subject: &Subject) -> Self {
        let parts = grants::filtered(schema, self, subject);
        let key = FactKey::filtered(self.lookup(), self.id().clone(), subject.clone());
        Self::new(key, self.stamp(), parts.as_deref().unwrap_or(&[Part::OverLimit]))
    }

    /// Creates the fact of a key for which there is no document.
    #[must_use]
    pub fn absent(key: FactKey, stamp: Moment) -> Self {
        Self::new(key, stamp, &[])
    }

    /// Creates the fact of a key that has more documents, or more in them, than a fact may contain.
    #[must_use]
    pub fn over_limit(key: FactKey, stamp: Moment) -> Self {
        Self::new(key, stamp, &[Part::OverLimit])
    }

    /// Creates a fact from parts of unknown origin. Returns none if [`Fact::read`] could not have created it from any
    /// documents.
    pub(crate) fn checked(schema: &Schema, key: FactKey, stamp: Moment, parts: &[Part]) -> Option<Self> {
        validate::are_valid(schema, &key, parts).then(|| Self::new(key, stamp, parts))
    }

    fn new(key: FactKey, stamp: Moment, parts: &[Part]) -> Self {
        let extent = match key.subject {
            None => Extent::Whole,
            Some(_) if parts.iter().any(Part::is_over_limit) => Extent::Partial,
            Some(_) => Extent::Filtered,
        };
        let (place, is_used) = (AtomicU32::new(u32::MAX), AtomicBool::new(false));
        let head = Head { id: key.id, stamp, place, lookup: key.lookup, extent, is_used };
        match key.subject {
            None => Self(ThinArc::from_header_and_iter(head, parts.iter().cloned())),
            Some(subject) => {
                let parts = [parts, &[Part::FilteredTo(subject)]].concat();
                Self(ThinArc::from_header_and_iter(head, parts.into_iter()))
            }
        }
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    /// The content of the fact.
    pub(crate) fn parts(&self) -> &[Part] {
        match (self.head().extent, &self.0.slice) {
            (Extent::Whole, content) => content,
            (Extent::Filtered | Extent::Partial, [content @ .., Part::FilteredTo(_)] | content) => content,
        }
    }

    /// The lookup of the fact's key.
    #[must_use]
    pub fn lookup(&self) -> LookupId {
        self.head().lookup
    }

    /// The id of the fact's key.
    #[must_use]
    pub fn id(&self) -> &Id {
        &self.head().id
    }

    /// The subject that the fact is filtered to; none for a whole fact.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        match (self.head().extent, &self.0.slice) {
            (Extent::Filtered | Extent::Partial, [.., Part::FilteredTo(subject)]) => Some(subject),
            (_, _) => None,
        }
    }

    /// The key of the fact.
    #[must_use]
    pub fn key(&self) -> FactKey {
        let subject = self.subject().cloned().map(Box::new);
        FactKey { lookup: self.lookup(), id: self.id().clone(), subject }
    }

    /// Whether this is the key of the fact.
    #[must_use]
    pub fn is_of(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> bool {
        self.lookup() == lookup && self.id() == id && self.subject() == subject
    }

    /// The moment at which the source was read. The fact is exactly the state at that moment.
    #[must_use]
    pub fn stamp(&self) -> Moment {
        self.head().stamp
    }

    /// Whether both facts have the same key and the same content. Their stamps may differ.
    #[must_use]
    pub fn has_same_content(&self, other: &Self) -> bool {
        (self.lookup(), self.id(), &self.0.slice) == (other.lookup(), other.id(), &other.0.slice)
    }

    /// The grants of one relation.
    pub fn grants(&self, relation: RelationId) -> impl Iterator<Item = &Grant> + Clone {
        let parts = &self.0.slice;
        let from = parts.partition_point(|part| match part {
            Part::Grant(grant) => grant.relation < relation,
            Part::OverLimit | Part::Silent | Part::Document(_) | Part::Window(_) => true,
            Part::FilteredTo(_) => false,
        });
        parts.get(from..).unwrap_or_default().iter().map_while(move |part| match part {
            Part::Grant(grant) if grant.relation == relation => Some(grant),
            Part::Grant(_)
            | Part::OverLimit
            | Part::Silent
            | Part::Document(_)
            | Part::Window(_)
            | Part::FilteredTo(_) => None,
        })
    }

    /// The time in which a grant of this fact holds.
    #[must_use]
    pub fn window(&self, grant: &Grant) -> Window {
        if grant.window == UNBOUNDED {
            return Window::default();
        }
        match self.parts().get(usize::from(grant.window)) {
            Some(Part::Window(window)) => *window,
            Some(Part::OverLimit | Part::Silent | Part::Document(_) | Part::Grant(_) | Part::FilteredTo(_)) | None => {
                Window::default()
            }
        }
    }

    /// Whether the lookup found no document.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.parts().is_empty()
    }

    /// Whether there was more than a fact may contain. Then the fact keeps nothing of it. If it is whole, the fact that is
    /// filtered to the subject is read in its place; if it is filtered, every relation that is read from it is
    /// indeterminate.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        matches!(self.parts(), [Part::OverLimit])
    }

    /// Whether there was more than a fact may contain, for all relations or for some. What it lacks may be in any document.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.head().extent == Extent::Partial
    }

    /// Whether there was more than a fact may contain for a relation.
    #[must_use]
    pub fn is_over_limit_for(&self, relation: RelationId) -> bool {
        self.is_over_limit()
            || self.is_partial() && self.grants(relation).any(|grant| grant.grantee == Grantee::OverLimit)
    }

    /// Whether a document could not be relied on, or may mean any subject.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        let is_readable = |grantee: &Grantee| match grantee {
            Grantee::Flag | Grantee::Id(_) | Grantee::Everyone => true,
            Grantee::Unreadable | Grantee::Unknown(_) | Grantee::OverLimit => false,
        };
        let mut grants = self.parts().iter().filter_map(Part::grant);
        grants.any(|grant| grant.certainty != Certainty::Sure || !is_readable(&grant.grantee))
    }

    /// Whether the fact has at least three quarters of what it may contain.
    #[must_use]
    pub fn is_near_limit(&self) -> bool {
        let documents = self.documents_beside_key();
        let bytes = documents.clone().map(DocumentId::size).sum::<usize>()
            + self.parts().iter().filter_map(Part::grant).map(Grant::size).sum::<usize>();
        4 * documents.count() >= 3 * DOCUMENTS_MAX || 4 * bytes >= 3 * FACT_BYTES_MAX
    }

    /// The documents that were found, sorted, except a document whose `_id` is the key.
    pub fn documents_beside_key(&self) -> impl Iterator<Item = &DocumentId> + Clone {
        self.parts().iter().map_while(|part| if let Part::Document(id) = part { Some(id) } else { None })
    }

    /// All documents that were found, sorted.
    #[must_use]
    pub fn documents(&self) -> Vec<DocumentId> {
        match self.parts() {
            [] | [Part::OverLimit] => Vec::new(),
            [Part::Document(_), ..] => self.documents_beside_key().cloned().collect(),
            [Part::OverLimit | Part::Silent | Part::Window(_) | Part::Grant(_) | Part::FilteredTo(_), ..] => {
                vec![DocumentId::Id(self.id().clone())]
            }
        }
    }

    /// The document that a grant of this fact comes from.
    #[must_use]
    pub fn document_of(&self, grant: &Grant) -> DocumentId {
        match self.parts().get(usize::from(grant.document)) {
            Some(Part::Document(id)) => id.clone(),
            Some(Part::OverLimit | Part::Silent | Part::Window(_) | Part::Grant(_) | Part::FilteredTo(_)) | None => {
                DocumentId::Id(self.id().clone())
            }
        }
    }

    /// The memory that the fact takes, in bytes, including all its allocations and their overhead.
    #[must_use]
    pub fn memory(&self) -> usize {
        // Besides the head and the parts, the allocation contains a reference count and the number of parts.
        let own = 2 * size_of::<usize>() + size_of::<Head>() + size_of_val(&self.0.slice);
        let texts = self.0.slice.iter().filter_map(Part::text).chain(self.id().text());
        let subject = self.subject().map_or(0, |subject| allocated(size_of_val(subject)));
        allocated(own) + subject + texts.map(|text| allocated(text.len())).sum::<usize>()
    }

    /// Sets the flag that the fact was used.
    pub(crate) fn set_used(&self) {
        // The flag of most used facts is already set. Only a write takes the cache line away from other cores.
        if !self.head().is_used.load(Ordering::Relaxed) {
            self.head().is_used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the fact was used since the last call. Clears the flag.
    pub(crate) fn take_used(&self) -> bool {
        let is_used = self.head().is_used.load(Ordering::Relaxed);
        self.head().is_used.store(false, Ordering::Relaxed);
        is_used
    }

    /// Whether both are the same allocation.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.head(), other.head())
    }

    /// The place that was set last, if one was.
    pub(crate) fn place(&self) -> Option<usize> {
        usize::try_from(self.head().place.load(Ordering::Relaxed)).ok()
    }

    /// Keeps the fact's place in a ring.
    pub(crate) fn set_place(&self, place: usize) {
        self.head().place.store(u32::try_from(place).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// The memory that the allocator uses for an allocation of this many bytes: one word more, rounded up to a multiple of two
/// words, and at least four words.
fn allocated(bytes: usize) -> usize {
    const WORD: usize = size_of::<usize>();
    (bytes + WORD).next_multiple_of(2 * WORD).max(4 * WORD)
}

impl Part {
    /// Whether it says that there was more, for all relations or for one.
    fn is_over_limit(&self) -> bool {
        matches!(self, Self::OverLimit | Self::Grant(Grant { grantee: Grantee::OverLimit, .. }))
    }

    fn grant(&self) -> Option<&Grant> {
        match self {
            Self::Grant(grant) => Some(grant),
            Self::OverLimit | Self::Silent | Self::Document(_) | Self::Window(_) | Self::FilteredTo(_) => None,
        }
    }

    /// The text that the part keeps in a separate allocation, if it has one.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Document(DocumentId::Id(id)) => id.text(),
            Self::Document(DocumentId::Other(text)) => Some(text),
            Self::Grant(Grant { grantee: Grantee::Id(id), .. }) => id.text(),
            Self::Grant(Grant { grantee: Grantee::Unknown(text), .. }) => Some(text),
            Self::FilteredTo(subject) => match &**subject {
                Subject::Known { kind: _, id } => id.text(),
                Subject::Anonymous => None,
            },
            Self::Grant(_) | Self::OverLimit | Self::Silent | Self::Window(_) => None,
        }
    }
}

impl Grant {
    /// The grant in place of those that a fact does not keep.
    fn over_limit(relation: RelationId) -> Self {
        let (certainty, grantee) = (Certainty::Sure, Grantee::OverLimit);
        Self { relation, document: 0, certainty, grantee, target: 0, window: UNBOUNDED }
    }

    /// The size of the grant in bytes, as it counts towards [`FACT_BYTES_MAX`].
    fn size(&self) -> usize {
        match &self.grantee {
            Grantee::Id(id) => id.size() + 4,
            Grantee::Unknown(text) => text.len() + 4,
            Grantee::Flag | Grantee::Everyone | Grantee::Unreadable | Grantee::OverLimit => 4,
        }
    }
}

impl DocumentId {
    /// The size of the id in bytes, as it counts towards [`FACT_BYTES_MAX`].
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
