//! Entries of the map: facts that hash and compare as the key that each contains.

use std::hash::{Hash, Hasher};

use crate::{
    fact::Fact,
    question::{Id, LookupId, Subject},
};

/// A fact that hashes and compares as its key.
#[derive(Debug)]
pub(super) struct Entry(pub(super) Fact);

/// The key of a fact. It hashes as the [`Entry`] of the fact does.
pub(super) struct Key<'a> {
    pub(super) lookup: LookupId,
    pub(super) id: &'a Id,
    pub(super) subject: Option<&'a Subject>,
}

impl Key<'_> {
    /// Whether this is the key of an entry.
    pub(super) fn is_of(&self, entry: &Entry) -> bool {
        entry.0.is_of(self.lookup, self.id, self.subject)
    }
}

impl Entry {
    pub(super) fn key(&self) -> Key<'_> {
        Key { lookup: self.0.lookup(), id: self.0.id(), subject: self.0.subject() }
    }
}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.lookup.hash(state);
        self.id.hash(state);
        // Most facts are whole: their hash costs no more.
        if let Some(subject) = self.subject {
            subject.hash(state);
        }
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key().is_of(other)
    }
}

impl Eq for Entry {}
