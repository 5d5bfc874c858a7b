//! Change batches: what has changed in a range of moments (docs/freshness.md, point 2).
//!
//! Only the data. `feed` makes change batches, `bus` carries them, and [`Freshness::apply`](super::Freshness::apply)
//! applies them.

use super::Moment;
use crate::{
    fact::{DocumentId, FactKey},
    question::{CollectionId, Subject},
};

/// "In (from, to] exactly this has changed." A change batch is true whichever instance publishes it, and however late it
/// arrives, so repeated and overlapping batches are harmless.
///
/// Changes later than `to` may be included, early. They are included once more, in the batch whose `to` covers them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangeBatch {
    /// The start of the range, exclusive.
    pub from: Moment,
    /// The end of the range, inclusive.
    pub to: Moment,
    /// What has changed.
    pub changes: Vec<Change>,
}

/// One thing that changed, and when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// When it changed.
    pub at: Moment,
    /// What changed.
    pub what: Changed,
}

/// What can change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Changed {
    /// Possibly anything: a collection was dropped or renamed, or it is not known what changed.
    Everything,
    /// Possibly any document of a collection: an event of the collection could not be understood.
    Collection(CollectionId),
    /// A document: every fact made from it is outdated.
    Document {
        /// Its collection.
        collection: CollectionId,
        /// Its `_id`.
        id: DocumentId,
    },
    /// What a lookup by another field than `_id` finds for one key.
    Key(FactKey),
    /// A subject: every fact is read again for it.
    Subject(Subject),
}
