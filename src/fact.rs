//! A fact: what a lookup finds for one key, reduced to what the schema's relations need. Facts are what is cached; decisions
//! are computed from them each time (design section 2).
//!
//! Pure: documents come in, facts come out. Nothing here knows where documents are kept, or the time.

mod read;
mod value;

use std::fmt;

use bson::Document;
pub(crate) use value::{document_keys, id_to_bson};

use crate::{
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

/// What a lookup found for one key. A fact without documents is a fact too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    documents: Box<[DocumentId]>,
    grants: Box<[Grant]>,
    is_over_limit: bool,
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
    /// The document, by its place in [`Fact::documents`].
    pub document: u16,
    /// Whether the document can be relied on.
    pub certainty: Certainty,
    /// Whom or what it leads to.
    pub grantee: Grantee,
    /// From when on, if that is bounded.
    pub since: Option<Millis>,
    /// Until when, if that is bounded: at that moment it is over.
    pub until: Option<Millis>,
}

/// Whom or what a grant leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grantee {
    /// A flag: true of the resource, whoever asks.
    Flag,
    /// The id of a subject, a set or a resource: `target` is its place among the relation's targets.
    Id {
        /// Which of the relation's targets.
        target: u8,
        /// The id.
        id: Id,
    },
    /// Every subject of a type (`*`).
    Everyone {
        /// Which of the relation's targets.
        target: u8,
    },
    /// A value that is no id of the right form: it could be anybody.
    Unreadable,
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
    /// Reads what the relations of `lookup` need from the documents found for one key. Their order does not matter.
    #[must_use]
    pub fn read(schema: &Schema, lookup: LookupId, documents: &[&Document]) -> Self {
        read::read(schema, lookup, documents)
    }

    /// The fact of a key that no document has.
    #[must_use]
    pub fn absent() -> Self {
        Self { documents: Box::default(), grants: Box::default(), is_over_limit: false }
    }

    /// The fact of a key with more documents, or more in them, than a fact may hold.
    #[must_use]
    pub fn over_limit() -> Self {
        Self { documents: Box::default(), grants: Box::default(), is_over_limit: true }
    }

    /// What the documents say for one relation.
    #[must_use]
    pub fn grants(&self, relation: RelationId) -> &[Grant] {
        let from = self.grants.partition_point(|grant| grant.relation < relation);
        let rest = self.grants.get(from..).unwrap_or_default();
        let count = rest.iter().take_while(|grant| grant.relation == relation).count();
        rest.get(..count).unwrap_or_default()
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.documents.is_empty() && !self.is_over_limit
    }

    /// Whether there was more than a fact may hold. Then nothing of it is kept, and all that depends on it is indeterminate.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.is_over_limit
    }

    /// The documents that were found, by their `_id`s, in order.
    #[must_use]
    pub fn documents(&self) -> &[DocumentId] {
        &self.documents
    }

    /// The document that a grant comes from.
    #[must_use]
    pub fn document_of(&self, grant: &Grant) -> Option<&DocumentId> {
        self.documents.get(usize::from(grant.document))
    }

    /// How many bytes the fact takes in memory, allocations included, but for their overhead.
    #[must_use]
    pub fn memory(&self) -> usize {
        let tables = size_of_val(&*self.documents) + size_of_val(&*self.grants);
        size_of::<Self>() + tables + self.size()
    }

    /// How large the fact is, in bytes of the ids that it holds and four for each: the measure of [`FACT_BYTES_MAX`].
    #[must_use]
    pub fn size(&self) -> usize {
        let documents = self.documents.iter().map(DocumentId::size).sum::<usize>();
        documents + self.grants.iter().map(Grant::size).sum::<usize>()
    }
}

impl Grant {
    fn size(&self) -> usize {
        match &self.grantee {
            Grantee::Id { id, .. } => id.size() + 4,
            Grantee::Flag | Grantee::Everyone { .. } | Grantee::Unreadable => 4,
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
