//! A source in memory with a clock like a replica set's: a test sets its documents, which advances its time, and controls the
//! change stream.
//!
//! Finds documents only by `_id` or another top-level field that is not an array.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bson::{Bson, Document};
use permcached::{
    fact::{Fact, FactKey},
    freshness::{Change, Changed, Clock, Moment},
    question::{CollectionId, Id},
    schema::Schema,
    source::{ChangeSource, ChangeStream, Deadline, Listed, Listing, Source, SourceError, StreamBatch, StreamError},
};
use tokio::time::sleep;

/// How long a stream waits before it returns a batch.
const AWAIT: Duration = Duration::from_millis(2);

/// A source in memory. Clones share everything.
#[derive(Clone)]
pub struct MemorySource(Arc<Schema>, Arc<Mutex<State>>);

struct State {
    documents: BTreeMap<String, Vec<Document>>,
    now: Moment,
    /// All that ever changed, in order.
    changes: Vec<Change>,
    stream: StreamState,
    /// The moment each stream was opened at.
    opened_at: Vec<Moment>,
}

/// What streams do.
#[derive(Default)]
struct StreamState {
    /// They fail one after the other: each of these ends one stream.
    errors: VecDeque<StreamError>,
    /// The next batch has this event as its last, and no stream can be read past it.
    invalidated: Option<Moment>,
    /// They return empty batches whose token stays at this moment.
    stopped_at: Option<Moment>,
}

impl MemorySource {
    /// A source without documents, whose time is `now`.
    pub fn new(schema: &Arc<Schema>, now: Moment) -> Self {
        let (documents, stream) = (BTreeMap::new(), StreamState::default());
        let state = State { documents, now, changes: Vec::new(), stream, opened_at: Vec::new() };
        Self(Arc::clone(schema), Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.1.lock().expect("no panic before")
    }

    /// Lets the time go on by one moment.
    pub fn advance(&self) -> Moment {
        let mut state = self.state();
        state.now = state.now.next();
        state.now
    }

    /// Replaces a collection's documents at the next moment, which is returned. The change stream reports `changed`.
    pub fn write(&self, collection: &str, documents: Vec<Document>, changed: Vec<Changed>) -> Moment {
        let at = self.advance();
        let mut state = self.state();
        state.documents.insert(collection.to_owned(), documents);
        state.changes.extend(changed.into_iter().map(|what| Change { at, what }));
        at
    }

    /// Ends the current stream, or the next one, with an error.
    pub fn fail_stream(&self, error: StreamError) {
        self.state().stream.errors.push_back(error);
    }

    /// Ends every stream that is opened at the next moment or before, which is returned, as if the database was dropped.
    pub fn invalidate_stream(&self) -> Moment {
        let at = self.advance();
        self.state().stream.invalidated = Some(at);
        at
    }

    /// Lets streams report nothing that is later than now, until [`MemorySource::resume_streams`].
    pub fn stop_streams(&self) {
        let mut state = self.state();
        state.stream.stopped_at = Some(state.now);
    }

    /// Lets streams report everything again.
    pub fn resume_streams(&self) {
        self.state().stream.stopped_at = None;
    }

    /// The moment each stream was opened at, in order.
    pub fn opened_at(&self) -> Vec<Moment> {
        self.state().opened_at.clone()
    }
}

/// The id in a top-level field of a document.
fn id_in(document: &Document, field: &str) -> Option<Id> {
    match document.get(field)? {
        Bson::ObjectId(id) => Some(Id::ObjectId(id.bytes())),
        Bson::Int64(id) => Some(Id::Integer(*id)),
        Bson::Int32(id) => Some(Id::Integer(i64::from(*id))),
        Bson::String(id) => Some(Id::String(id.as_str().into())),
        _ => None,
    }
}

#[async_trait]
impl Source for MemorySource {
    fn clock(&self) -> Clock {
        Clock::Cluster
    }

    async fn probe(&self, _: Deadline) -> Result<Moment, SourceError> {
        Ok(self.state().now)
    }

    /// Reads everything as of now. A moment that has not come is not waited for.
    async fn load(
        &self,
        keys: Vec<FactKey>,
        _: &[FactKey],
        at: Moment,
        _: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let state = self.state();
        let read = |key: FactKey| {
            let lookup = self.0.lookup(key.lookup);
            let documents = state.documents.get(&*lookup.collection).into_iter().flatten();
            let matching = documents.filter(|document| {
                id_in(document, lookup.by.as_str()).as_ref() == Some(&key.id)
                    && lookup.wanted.as_ref().is_none_or(|wanted| wanted.matches(document))
            });
            let fact = Fact::read(&self.0, key.clone(), state.now, &matching.collect::<Vec<_>>());
            (key, if at > state.now { Err(SourceError::TimedOut) } else { Ok(fact) })
        };
        keys.into_iter().map(read).collect()
    }

    async fn list(&self, listing: Listing, _: Moment, _: Deadline) -> Result<Listed, SourceError> {
        let state = self.state();
        let documents = state.documents.get(self.0.collection_name(listing.collection)).into_iter().flatten();
        Ok(listing.of_documents(documents, state.now))
    }

    async fn keys_of(
        &self,
        collection: CollectionId,
        ids: Vec<Id>,
        _: Moment,
        _: Deadline,
    ) -> Result<Vec<FactKey>, SourceError> {
        let state = self.state();
        let documents = state.documents.get(self.0.collection_name(collection)).into_iter().flatten();
        let lookups = || self.0.lookups().filter(|(_, lookup)| lookup.collection_id == collection);
        let is_named = |document: &&Document| id_in(document, "_id").is_some_and(|id| ids.contains(&id));
        let keys = documents.filter(is_named).flat_map(|document| {
            lookups().filter_map(|(lookup, at)| Some(FactKey::whole(lookup, id_in(document, at.by.as_str())?)))
        });
        Ok(keys.collect())
    }
}

#[async_trait]
impl ChangeSource for MemorySource {
    async fn open_stream(&self, from: Moment, _: Duration) -> Result<Box<dyn ChangeStream>, StreamError> {
        self.state().opened_at.push(from);
        Ok(Box::new(MemoryStream { source: self.clone(), next: from }))
    }
}

/// A stream that reports everything from `next` on.
struct MemoryStream {
    source: MemorySource,
    next: Moment,
}

#[async_trait]
impl ChangeStream for MemoryStream {
    async fn next(&mut self, _: Duration) -> Result<StreamBatch, StreamError> {
        sleep(AWAIT).await;
        let mut state = self.source.state();
        if let Some(error) = state.stream.errors.pop_front() {
            return Err(error);
        }
        let invalidated = state.stream.invalidated.filter(|at| *at >= self.next);
        let end = state.stream.stopped_at.into_iter().chain(invalidated).min().unwrap_or(state.now);
        let new = state.changes.iter().filter(|change| change.at >= self.next && change.at <= end);
        let changes: Vec<Change> = new.cloned().collect();
        let token = self.next.max(end.next());
        self.next = token;
        Ok(StreamBatch { has_events: !changes.is_empty() || invalidated.is_some(), changes, token, invalidated })
    }
}
