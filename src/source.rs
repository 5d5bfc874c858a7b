//! Sources: where facts come from ([`Source`]), and where changes are reported ([`ChangeSource`]). MongoDB implements both;
//! documents in memory are a [`Source`] only, and report their changes as change batches.
//!
//! A source caches nothing: `facts` does that. It does not judge whether a stream lags behind: `feed` does that.

pub mod documents;
mod listing;
pub mod mongodb;
mod prober;
mod survey;

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
pub use listing::{Listed, Listing};
pub use prober::{PROBE_INTERVAL, Prober};
use sha2::{Digest, Sha256};

use crate::{
    diagnosis::Diagnosis,
    fact::{Fact, FactKey},
    freshness::{Change, Clock, Moment},
    question::{CollectionId, Id, LookupId},
};

/// How much of a request's time is reserved for returning what was loaded.
const RETURN_TIME: Duration = Duration::from_millis(5);

/// A source of facts.
#[async_trait]
pub trait Source: Send + Sync {
    /// The clock of its moments.
    fn clock(&self) -> Clock;

    /// Returns a moment that covers every write acknowledged before the call.
    ///
    /// # Errors
    /// The source failed, or did not answer in time.
    async fn probe(&self, deadline: Deadline) -> Result<Moment, SourceError>;

    /// Reads the facts of these keys as of `at` or later. Returns one result for each key, in any order.
    ///
    /// `if_large` are filtered facts that will be asked for next if the whole facts of the same keys are over their limit. The source may
    /// read them at the same time, and then returns those whose whole facts are. It returns no errors of them.
    async fn load(
        &self,
        keys: Vec<FactKey>,
        if_large: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)>;

    /// Whether a whole fact is likely to be over its limit, and reading the one that is filtered to a subject costs little; `was_large`
    /// says that it was over its limit when it was read last. A guess, which may be wrong either way.
    fn expects_large(&self, _key: &FactKey, _was_large: bool) -> bool {
        false
    }

    /// Whether a fact of the lookup that is filtered to a subject may stand for the whole one: whether it allows nothing that the whole
    /// one does not allow, if it has no document that cannot be relied on.
    fn may_stand_for_whole(&self, _lookup: LookupId) -> bool {
        false
    }

    /// Learns whether a whole fact was over its limit, wherever it came from.
    fn learn_size(&self, _key: &FactKey, _is_large: bool) {}

    /// Looks at some documents, and returns what is wrong with them or with what the schema expects of them: nothing for a
    /// source that does not do that. Takes no longer than a bounded time.
    async fn survey(&self) -> Vec<Diagnosis> {
        Vec::new()
    }

    /// Lists ids that a query finds, as of `at` or later: the least ones after [`Listing::after`], at most [`Listing::limit`].
    ///
    /// # Errors
    /// No index serves the query, or the source failed, or did not answer in time. Never fewer ids than there are.
    async fn list(&self, listing: Listing, at: Moment, deadline: Deadline) -> Result<Listed, SourceError>;

    /// Returns every key of a fact that the documents with these `_id`s are part of, as of `at` or later.
    ///
    /// # Errors
    /// The source failed, or did not answer in time.
    async fn keys_of(
        &self,
        collection: CollectionId,
        ids: Vec<Id>,
        at: Moment,
        deadline: Deadline,
    ) -> Result<Vec<FactKey>, SourceError>;
}

/// A source that reports what changes in it.
#[async_trait]
pub trait ChangeSource: Send + Sync {
    /// Opens a stream that reports every change at `from` or later. `patience` is how long that may take.
    ///
    /// # Errors
    /// [`StreamError`].
    async fn open_stream(&self, from: Moment, patience: Duration) -> Result<Box<dyn ChangeStream>, StreamError>;
}

/// An open stream of changes. Dropping it closes it, without a wait.
#[async_trait]
pub trait ChangeStream: Send {
    /// Returns the next batch. The source answers regularly: without events, it returns an empty batch, whose token
    /// advances. `patience` is how long the answer may take.
    ///
    /// # Errors
    /// [`StreamError`]. The stream is then of no further use.
    async fn next(&mut self, patience: Duration) -> Result<StreamBatch, StreamError>;
}

/// What a change stream returns at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamBatch {
    /// Whether there were any events, including those that change no fact.
    pub has_events: bool,
    /// What changed. Each change is at the batch's token or earlier.
    pub changes: Vec<Change>,
    /// The moment of the batch's token: every change before it has been returned, and more changes may follow at it.
    pub token: Moment,
    /// The moment of the event that ends the stream, if it is in this batch: its database was dropped.
    pub invalidated: Option<Moment>,
}

/// Why a change stream could not be opened or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Changes may be missing: opened again at the same moment, the stream would fail again or skip them.
    #[error("{0}")]
    Lost(String),
    /// The source failed, or did not answer in time. The stream can be opened again at the same moment.
    #[error("{0}")]
    Failed(String),
}

/// What distinguishes a source from others. Two replica sets and their databases may have the same names: then only the UUIDs
/// of the collections differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of the replica set, if it is one.
    pub set: Option<String>,
    /// The name of the database.
    pub database: String,
    /// The schema's collections, each with its UUID if it exists.
    pub collections: Vec<(String, Option<[u8; 16]>)>,
}

impl Identity {
    /// A hash of it.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let Self { set, database, collections } = self;
        Sha256::digest(format!("{:?}", (set, database, collections))).into()
    }
}

/// Why facts could not be read. That a document does not exist is not an error but a fact.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// The deadline is over.
    #[error("the source did not answer in time")]
    TimedOut,
    /// A probe failed.
    #[error("the source could not be asked for its time")]
    Probe(#[source] Arc<dyn Error + Send + Sync>),
    /// Documents could not be read.
    #[error("`{collection}` could not be read")]
    Find {
        /// The collection.
        collection: String,
        /// The error of the driver.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// Every attempt to load a fact broke off, timed out, or brought a fact that was too old for the request.
    #[error("several attempts to load a fact brought none that the request can use")]
    BrokenOff,
    /// A reverse lookup has no index, and its collection is large.
    #[error("`{collection}` has no index for this list: {command}")]
    NoIndex {
        /// The collection.
        collection: String,
        /// The command that creates the index.
        command: String,
    },
    /// The facts of one request are larger than allowed.
    #[error("one request would have to read more than is allowed")]
    TooMuch,
    /// The reply makes no sense.
    #[error("the reply for `{collection}` makes no sense: {what}")]
    Answer {
        /// The collection.
        collection: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The instant at which a request's time ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline this long from now.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self::since(Instant::now(), time)
    }

    /// The deadline this long after an instant.
    #[must_use]
    pub fn since(start: Instant, time: Duration) -> Self {
        Self(start.checked_add(time).unwrap_or(start))
    }

    /// How much time is left.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether no time is left.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }

    /// Whether no time was left at an instant.
    #[must_use]
    pub fn is_over_at(self, now: Instant) -> bool {
        self.0 <= now
    }

    /// The earlier of this deadline and the one this long from now.
    #[must_use]
    pub fn at_most(self, time: Duration) -> Self {
        Self(self.0.min(Self::after(time).0))
    }

    /// The deadline for loading. It is a little earlier, so that what was loaded in time can be returned even if the rest was
    /// not.
    #[must_use]
    pub fn for_loading(self) -> Self {
        Self(self.0.checked_sub(RETURN_TIME).unwrap_or(self.0))
    }

    /// Whether there is no time left to load anything.
    #[must_use]
    pub fn is_all_but_over(self) -> bool {
        self.left() <= RETURN_TIME
    }

    /// The same instant for the timers of `tokio`.
    #[must_use]
    pub fn instant(self) -> tokio::time::Instant {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_the_same_names_differ_by_the_uuids_of_their_collections() {
        let source = |set: &str, database: &str, uuid| {
            let collections = vec![("files".to_owned(), uuid)];
            Identity { set: Some(set.to_owned()), database: database.to_owned(), collections }.fingerprint()
        };
        let own = source("rs0", "app", Some([1; 16]));
        assert_eq!(own, source("rs0", "app", Some([1; 16])));
        for other in [
            source("rs1", "app", Some([1; 16])),
            source("rs0", "other", Some([1; 16])),
            source("rs0", "app", Some([2; 16])),
            source("rs0", "app", None),
        ] {
            assert_ne!(own, other);
        }
    }
}
