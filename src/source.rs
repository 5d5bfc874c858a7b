//! Sources: where facts come from ([`Source`]), and where changes are reported ([`ChangeSource`]). MongoDB implements both;
//! documents in memory are a [`Source`] only, and report their changes as change batches.
//!
//! A source caches nothing: `facts` does that. It does not judge whether a stream lags behind: `feed` does that.

pub mod documents;
pub mod mongodb;
mod prober;

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
pub use prober::{PROBE_INTERVAL, Prober};

use crate::{
    fact::{Fact, FactKey},
    freshness::{Change, Clock, Moment},
    question::{CollectionId, Id},
};

/// How much of a request's time is kept for handing over what was loaded.
const HANDOVER: Duration = Duration::from_millis(5);

/// Where facts come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// Whose time its moments are.
    fn clock(&self) -> Clock;

    /// A moment that covers every write acknowledged before the call.
    ///
    /// # Errors
    /// The source could not be asked, or not in time.
    async fn probe(&self, deadline: Deadline) -> Result<Moment, SourceError>;

    /// Reads the facts of these keys as of `at` or later, all at once. One result for each key, in any order.
    async fn load(
        &self,
        keys: Vec<FactKey>,
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)>;

    /// The keys, other than by `_id`, under which documents are found that have one of these `_id`s, as of `at` or later.
    ///
    /// # Errors
    /// The source could not be asked, or not in time.
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

/// An open stream of changes.
#[async_trait]
pub trait ChangeStream: Send {
    /// Returns the next batch. The source answers regularly: without events, it returns an empty batch, whose token
    /// advances. `patience` is how long the answer may take.
    ///
    /// # Errors
    /// [`StreamError`]. The stream is then of no further use.
    async fn next(&mut self, patience: Duration) -> Result<StreamBatch, StreamError>;

    /// Closes the stream at the source. If that fails, the source closes the stream by itself later.
    async fn close(self: Box<Self>);
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
    /// The moment of the event that ends the stream, if it is in this batch: its database was dropped or renamed.
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

/// What tells a source from others, as far as can be told: sets of one name look alike but for their collections' UUIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of the replica set, if it is one.
    pub set: Option<String>,
    /// The name of the database.
    pub database: String,
    /// The schema's collections, each with its UUID where it is there.
    pub collections: Vec<(String, Option<[u8; 16]>)>,
}

/// Why facts could not be read. Never the absence of a document, which is a fact.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// The time for the request was up.
    #[error("the source did not answer in time")]
    TimedOut,
    /// The newest moment could not be found out.
    #[error("the source could not be asked for its time")]
    Probe(#[source] Arc<dyn Error + Send + Sync>),
    /// Documents could not be read.
    #[error("`{collection}` could not be read")]
    Find {
        /// The collection.
        collection: String,
        /// What the driver says.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The load broke off several times.
    #[error("the load of a fact broke off, several times over")]
    BrokenOff,
    /// There is more than one request may hold.
    #[error("there is more to read than one request may hold")]
    TooMuch,
    /// What came back is not what was asked for.
    #[error("`{collection}` gave an answer that makes no sense: {what}")]
    Answer {
        /// The collection.
        collection: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// When a request's time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// So much from now.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(time).unwrap_or(now))
    }

    /// How much time is left.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it is up.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }

    /// The earlier of this and so much from now.
    #[must_use]
    pub fn at_most(self, time: Duration) -> Self {
        Self(self.0.min(Self::after(time).0))
    }

    /// When loading ends: a little sooner, so that what was loaded in time can be handed over where some of it was not.
    #[must_use]
    pub fn for_loading(self) -> Self {
        Self(self.0.checked_sub(HANDOVER).unwrap_or(self.0))
    }

    /// Whether there is no time left to load anything.
    #[must_use]
    pub fn is_all_but_over(self) -> bool {
        self.left() <= HANDOVER
    }

    /// As the runtime's timers want it.
    #[must_use]
    pub fn instant(self) -> tokio::time::Instant {
        self.0.into()
    }
}
