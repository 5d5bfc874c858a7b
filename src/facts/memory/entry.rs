//! Entries of the map: facts, found by the key that each contains.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
};

use crate::{
    fact::Fact,
    question::{Id, LookupId, Subject},
};

/// A fact that hashes and compares as its key.
#[derive(Debug)]
pub(super) struct Entry(pub(super) Fact);

/// The key of a fact that is looked for.
pub(super) struct Wanted<'a> {
    pub(super) lookup: LookupId,
    pub(super) id: &'a Id,
    pub(super) subject: Option<&'a Subject>,
}

/// Something that has the key of a fact. Both [`Entry`] and [`Wanted`] can be borrowed as this, so a fact is found without making an
/// owned key.
pub(super) trait Key {
    fn lookup(&self) -> LookupId;
    fn id(&self) -> &Id;
    fn subject(&self) -> Option<&Subject>;
}

impl Key for Entry {
    fn lookup(&self) -> LookupId {
        self.0.lookup()
    }

    fn id(&self) -> &Id {
        self.0.id()
    }

    fn subject(&self) -> Option<&Subject> {
        self.0.subject()
    }
}

impl Key for Wanted<'_> {
    fn lookup(&self) -> LookupId {
        self.lookup
    }

    fn id(&self) -> &Id {
        self.id
    }

    fn subject(&self) -> Option<&Subject> {
        self.subject
    }
}

impl Hash for dyn Key + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.lookup().hash(state);
        self.id().hash(state);
        // Most facts are whole: their hash costs no more.
        if let Some(subject) = self.subject() {
            subject.hash(state);
        }
    }
}

impl PartialEq for dyn Key + '_ {
    fn eq(&self, other: &Self) -> bool {
        (self.lookup(), self.id(), self.subject()) == (other.lookup(), other.id(), other.subject())
    }
}

impl Eq for dyn Key + '_ {}

impl<'a> Borrow<dyn Key + 'a> for Entry {
    fn borrow(&self) -> &(dyn Key + 'a) {
        self
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let key: &dyn Key = self;
        key.hash(state);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        let key: &dyn Key = self;
        key == other.borrow()
    }
}

impl Eq for Entry {}
