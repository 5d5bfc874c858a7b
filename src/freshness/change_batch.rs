//! Statements: what has changed, and up to which moment nothing else has (design section 5, point 2).

use super::Moment;
use crate::{
    fact::{DocumentId, FactKey},
    question::{CollectionId, Subject},
};

/// "In (from, to] exactly this has changed." True whoever says it, and however late: repeats and overlaps are harmless.
/// Changes later than `to` may be said early; they are said again until a `to` covers them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangeBatch {
    /// From which moment on, itself not included.
    pub from: Moment,
    /// Up to which moment.
    pub to: Moment,
    /// What has changed.
    pub changes: Vec<Change>,
}

/// One thing that changed, and when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// When.
    pub at: Moment,
    /// What.
    pub what: Changed,
}

/// What can change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Changed {
    /// Anything: a collection was dropped or renamed, or nobody knows.
    Everything,
    /// A document, and so each fact that was made of it.
    Document {
        /// Its collection.
        collection: CollectionId,
        /// Its `_id`.
        id: DocumentId,
    },
    /// What is found by a key, by another field than `_id`.
    Key(FactKey),
    /// A subject: every fact is read again for it.
    Subject(Subject),
}
