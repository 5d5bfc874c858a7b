//! MongoDB as the source: one `find` per lookup, from the primary, with read concern *snapshot* after a known moment, so that
//! a fact is exactly the truth of its stamp (design section 5, point 1).
//!
//! Reads only: the `read` role on the database is enough. Remembers no document.

mod change_stream;
mod connect;
mod event;
mod examine;
mod inspect;
mod sample;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bson::{Bson, Document, Timestamp, doc};
pub use connect::ConnectError;
use connect::Greeting;
pub use examine::examine;
pub use inspect::{Finding, inspect};
use mongodb::{
    Database,
    error::ErrorKind,
    options::{ReadPreference, SelectionCriteria},
};
use tokio::{sync::Semaphore, time::timeout_at};
use tracing::{Instrument as _, Span, trace_span};

use super::{Deadline, Identity, Source, SourceError};
use crate::{
    fact::{DOCUMENTS_MAX, Fact, FactKey, document_keys, id_to_bson},
    freshness::{Clock, Moment},
    question::{CollectionId, Id, LookupId},
    schema::{Lookup, Schema},
    telemetry::{Commands, SPANS},
};

/// How many commands run at once, probes and the change stream apart, which wait for none of them.
const COMMANDS_MAX: u32 = 64;

/// How many keys one `find` asks for.
const KEYS_MAX: usize = 20_000;

/// How many bytes of keys one `find` asks for: well below the 48 MB of a message.
const KEY_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// How many documents one `find` returns for several keys; where there are more, the keys are asked for in halves.
const BATCH_DOCUMENTS_MAX: usize = 40_000;

/// How many bytes of facts one load brings at most, apart from what is on its way when they are reached.
const LOAD_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// How long a probe may take, whatever the request's deadline.
const PROBE_TIME: Duration = Duration::from_secs(5);

/// The error that a node gives which has not heard of the moment it is asked for.
const UNKNOWN_MOMENT: i32 = 72;

/// MongoDB, and what is read from it.
#[derive(Debug)]
pub struct MongoDb {
    schema: Arc<Schema>,
    database: Database,
    set: Option<String>,
    mode: Mode,
    permits: Semaphore,
    ticks: AtomicU64,
    commands: Commands,
}

/// What the server can promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A replica set: moments are its cluster time.
    ReplicaSet,
    /// A single server: moments are this instance's own, and nothing tells what changes.
    Standalone,
    /// A sharded cluster behind mongos: as a single server, and without the promise of a bound, as one shard's time says
    /// nothing of another's.
    Sharded,
}

impl MongoDb {
    /// Connects. The database is the one named, else the one in the connection string.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(schema: Arc<Schema>, uri: &str, database: Option<&str>) -> Result<Self, ConnectError> {
        let (options, name) = connect::options(uri, database).await?;
        let database = connect::database(uri, options, &name)?;
        let greeting = connect::reach(&database).await?;
        Ok(Self::greeted(schema, database, greeting))
    }

    /// Uses a database of a client that is there already.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn open(schema: Arc<Schema>, database: Database) -> Result<Self, ConnectError> {
        let greeting = connect::greet(&database).await?;
        Ok(Self::greeted(schema, database, greeting))
    }

    fn greeted(schema: Arc<Schema>, database: Database, Greeting { mode, set, .. }: Greeting) -> Self {
        let permits = Semaphore::new(usize::try_from(COMMANDS_MAX).unwrap_or(1));
        Self { schema, database, set, mode, permits, ticks: AtomicU64::new(0), commands: Commands::default() }
    }

    /// What tells it from others.
    ///
    /// # Errors
    /// The driver's, where the database cannot be asked.
    pub async fn identity(&self) -> Result<Identity, mongodb::error::Error> {
        let uuids = inspect::uuids(&self.schema, &self.database).await?;
        let collections = self.schema.collections().map(|name| (name.to_owned(), uuids.get(name).copied())).collect();
        Ok(Identity { set: self.set.clone(), database: self.database.name().to_owned(), collections })
    }

    /// What the server can promise.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The database that is read.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// What is counted of its commands.
    #[must_use]
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    fn tick(&self) -> Moment {
        Moment::from_count(self.ticks.fetch_add(1, Ordering::SeqCst).saturating_add(1))
    }

    /// Runs a command on the primary, within the deadline.
    async fn command(&self, mut command: Document, deadline: Deadline) -> Result<Document, CommandError> {
        let run = async {
            let left = deadline.left().as_millis();
            if left == 0 {
                return Err(CommandError::TimedOut);
            }
            command.insert("maxTimeMS", i64::try_from(left).unwrap_or(i64::MAX).min(i64::from(i32::MAX)));
            self.database.run_command(command).selection_criteria(primary()).await.map_err(CommandError::of)
        };
        timeout_at(deadline.instant(), run).await.unwrap_or(Err(CommandError::TimedOut))
    }

    /// As [`MongoDb::command`], once more where the primary has changed or a connection broke.
    async fn read(&self, command: Document, deadline: Deadline) -> Result<Document, CommandError> {
        match self.command(command.clone(), deadline).await {
            Err(CommandError::Passing(_)) => self.command(command, deadline).await,
            result => result,
        }
    }

    /// As [`MongoDb::read`], with a bounded number of others.
    async fn read_in_turn(&self, command: Document, deadline: Deadline) -> Result<Document, CommandError> {
        let permit = timeout_at(deadline.instant(), self.permits.acquire()).await;
        let _permit = permit.map_err(|_| CommandError::TimedOut)?;
        let (_present, began) = (self.commands.begin(), Instant::now());
        let reply = self.read(command, deadline).await;
        self.commands.took("find", began.elapsed());
        reply
    }

    /// Reads the documents of these keys, in as few commands as they fit in.
    async fn find(
        &self,
        lookup: LookupId,
        keys: Vec<Id>,
        at: Moment,
        deadline: Deadline,
        room: &AtomicUsize,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let mut results = Vec::with_capacity(keys.len());
        let mut todo = vec![keys];
        while let Some(mut keys) = todo.pop() {
            let found = match room.load(Ordering::Relaxed) {
                0 => Err(SourceError::TooMuch),
                _ => {
                    let found = self.schema.lookup(lookup);
                    let span = find_span(found, keys.len());
                    self.find_once(found, &keys, at, deadline).instrument(span).await
                }
            };
            match found {
                Ok(Some(found)) => {
                    let facts = self.facts(lookup, keys, &found);
                    let bytes = facts.iter().filter_map(|(_, result)| result.as_ref().ok()).map(Fact::memory).sum();
                    room.update(Ordering::Relaxed, Ordering::Relaxed, |room| room.saturating_sub(bytes));
                    results.extend(facts);
                }
                Ok(None) if keys.len() > 1 => {
                    todo.push(keys.split_off(keys.len() / 2));
                    todo.push(keys);
                }
                Ok(None) => {
                    let keys = keys.into_iter().map(|id| FactKey { lookup, id });
                    results.extend(keys.map(|key| (key.clone(), Ok(Fact::over_limit(key, at)))));
                }
                Err(error) => {
                    results.extend(keys.into_iter().map(|id| (FactKey { lookup, id }, Err(error.clone()))));
                }
            }
        }
        results
    }

    /// One `find`. Nothing comes back where there were more documents than one reply holds.
    async fn find_once(
        &self,
        lookup: &Lookup,
        keys: &[Id],
        at: Moment,
        deadline: Deadline,
    ) -> Result<Option<Found>, SourceError> {
        let documents_max = if keys.len() == 1 { DOCUMENTS_MAX } else { BATCH_DOCUMENTS_MAX };
        let mut command = find_command(lookup, keys, documents_max);
        if self.mode == Mode::ReplicaSet {
            command.insert("readConcern", doc! { "level": "snapshot", "afterClusterTime": timestamp_of(at) });
        } else {
            command.insert("readConcern", doc! { "level": "local" });
        }
        let tick = self.tick();
        let mut reply = self.read_in_turn(command.clone(), deadline).await;
        if matches!(reply, Err(CommandError::UnknownMoment(_))) {
            // The node has not heard of the moment yet: a probe tells it.
            self.probe(deadline).await?;
            reply = self.read_in_turn(command, deadline).await;
        }
        let collection = || lookup.collection.to_string();
        let failed = |source| SourceError::Find { collection: collection(), source };
        let mut reply = reply.map_err(|error| error.during(failed))?;
        let nonsense = |what| SourceError::Answer { collection: collection(), what };
        let Some(Bson::Document(mut cursor)) = reply.remove("cursor") else { return Err(nonsense("no cursor")) };
        let stamp = match (self.mode, cursor.get("atClusterTime")) {
            (Mode::Standalone | Mode::Sharded, _) => tick,
            (Mode::ReplicaSet, Some(Bson::Timestamp(stamp))) => moment_of(*stamp),
            // A collection that does not exist has no snapshot; it was empty at the moment asked for.
            (Mode::ReplicaSet, _) => at,
        };
        if self.mode == Mode::ReplicaSet && stamp < at {
            return Err(nonsense("a snapshot of an earlier moment than the one asked for"));
        }
        let Some(Bson::Array(batch)) = cursor.remove("firstBatch") else { return Err(nonsense("no batch")) };
        if let Some(open) = cursor.get_i64("id").ok().filter(|id| *id != 0) {
            self.close(lookup, open, deadline).await;
            return Ok(None);
        }
        let documents: Vec<Document> = batch
            .into_iter()
            .filter_map(|item| if let Bson::Document(found) = item { Some(found) } else { None })
            .collect();
        Ok((documents.len() <= documents_max).then_some(Found { documents, stamp }))
    }

    /// Gives up a cursor. If that fails, the server forgets it by itself after some minutes.
    async fn close(&self, lookup: &Lookup, cursor: i64, deadline: Deadline) {
        let command = doc! { "killCursors": &*lookup.collection, "cursors": [cursor] };
        if let Err(error) = self.command(command, deadline).await {
            tracing::debug!(%error, "a cursor could not be closed");
        }
    }

    /// A linearizable read: a node that only believes itself primary cannot answer it, and the answer's `operationTime`
    /// covers every write acknowledged before it was sent.
    async fn probe_in(&self, collection: &str, deadline: Deadline) -> Result<Moment, SourceError> {
        if self.mode != Mode::ReplicaSet {
            return Ok(self.tick());
        }
        let command = doc! {
            "find": collection,
            "filter": { "_id": Bson::Null },
            "limit": 1,
            "singleBatch": true,
            "readConcern": { "level": "linearizable" },
        };
        let span = trace_span!(target: SPANS, "mongodb probe", otel.kind = "client", db.system = "mongodb");
        let began = Instant::now();
        let reply = self.read(command, deadline.at_most(PROBE_TIME)).instrument(span).await;
        self.commands.took("probe", began.elapsed());
        match reply.map_err(|error| error.during(SourceError::Probe))?.get("operationTime") {
            Some(Bson::Timestamp(time)) => Ok(moment_of(*time)),
            _ => Err(SourceError::Answer { collection: collection.to_owned(), what: "no operationTime" }),
        }
    }

    /// Sorts documents by key. A key that no document has is a fact too.
    fn facts(&self, lookup: LookupId, keys: Vec<Id>, found: &Found) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let mut by_key: HashMap<Id, Vec<&Document>> = keys.into_iter().map(|key| (key, Vec::new())).collect();
        for document in &found.documents {
            document_keys(&self.schema.lookup(lookup).by, document, &mut |key| {
                if let Some(documents) = by_key.get_mut(&key)
                    && documents.last().is_none_or(|last| !std::ptr::eq(*last, document))
                {
                    documents.push(document);
                }
            });
        }
        let fact = |(id, documents): (Id, Vec<&Document>)| {
            let key = FactKey { lookup, id };
            (key.clone(), Ok(Fact::read(&self.schema, key, found.stamp, &documents)))
        };
        by_key.into_iter().map(fact).collect()
    }
}

/// What one `find` returned.
struct Found {
    documents: Vec<Document>,
    stamp: Moment,
}

/// The moment that MongoDB writes so.
fn moment_of(time: Timestamp) -> Moment {
    Moment::new(time.time, time.increment)
}

/// A moment as MongoDB writes it.
fn timestamp_of(moment: Moment) -> Timestamp {
    Timestamp { time: moment.seconds(), increment: moment.increment() }
}

/// Who is asked.
fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}

/// The span of a find, without the keys.
fn find_span(lookup: &Lookup, keys: usize) -> Span {
    trace_span!(
        target: SPANS,
        "mongodb find",
        otel.kind = "client",
        db.system = "mongodb",
        db.operation.name = "find",
        db.collection.name = &*lookup.collection,
        keys,
    )
}

fn find_command(lookup: &Lookup, keys: &[Id], documents_max: usize) -> Document {
    let keys: Vec<Bson> = keys.iter().map(id_to_bson).collect();
    let mut filter = doc! { lookup.by.as_str(): { "$in": keys } };
    if let Some(pushed) = &lookup.pushed {
        filter = doc! { "$and": [filter, pushed.to_query()] };
    }
    let projection: Document = lookup.projection.iter().map(|field| (field.to_string(), Bson::Int32(1))).collect();
    // One more than is wanted, to know that there are more; all in one batch, if they fit in one reply.
    let limit = i64::try_from(documents_max.saturating_add(1)).unwrap_or(i64::MAX);
    doc! {
        "find": &*lookup.collection,
        "filter": filter,
        "projection": projection,
        "limit": limit,
        "batchSize": limit,
        // As in process, whatever the collection's own is.
        "collation": { "locale": "simple" },
    }
}

/// What the driver says.
type DriverError = Arc<dyn std::error::Error + Send + Sync>;

/// What became of a command that did not succeed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("not in time")]
    TimedOut,
    /// Another node may answer, or the same one on another connection.
    #[error("{0}")]
    Passing(DriverError),
    /// The node has not heard of the moment.
    #[error("{0}")]
    UnknownMoment(DriverError),
    #[error("{0}")]
    Lasting(DriverError),
}

impl CommandError {
    /// As an error of the source; `failed` says in what.
    fn during(self, failed: impl FnOnce(DriverError) -> SourceError) -> SourceError {
        match self {
            Self::TimedOut => SourceError::TimedOut,
            Self::Passing(error) | Self::UnknownMoment(error) | Self::Lasting(error) => failed(error),
        }
    }

    fn of(error: mongodb::error::Error) -> Self {
        /// Not the primary, not any more, or going down; interrupted; no snapshot just then.
        const PASSING: [i32; 10] = [91, 189, 246, 10_107, 11_600, 11_601, 11_602, 13_435, 13_436, 10_058];
        const TIMED_OUT: [i32; 2] = [50, 262];
        let code = match &*error.kind {
            ErrorKind::Command(command) => Some(command.code),
            _ => None,
        };
        let is_network = matches!(*error.kind, ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. });
        let error: DriverError = Arc::new(error);
        match code {
            Some(UNKNOWN_MOMENT) => Self::UnknownMoment(error),
            Some(code) if TIMED_OUT.contains(&code) => Self::TimedOut,
            Some(code) if PASSING.contains(&code) => Self::Passing(error),
            None if is_network => Self::Passing(error),
            _ => Self::Lasting(error),
        }
    }
}

#[async_trait]
impl Source for MongoDb {
    fn clock(&self) -> Clock {
        match self.mode {
            Mode::ReplicaSet => Clock::Cluster,
            Mode::Standalone | Mode::Sharded => Clock::Local,
        }
    }

    async fn probe(&self, deadline: Deadline) -> Result<Moment, SourceError> {
        self.probe_in(self.schema.collections().next().unwrap_or("permcached"), deadline).await
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let mut by_lookup: HashMap<LookupId, Vec<Vec<Id>>> = HashMap::new();
        let mut sizes: HashMap<LookupId, usize> = HashMap::new();
        for FactKey { lookup, id } in keys {
            let size = sizes.entry(lookup).or_default();
            *size += id.size() + 16;
            let chunks = by_lookup.entry(lookup).or_default();
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < KEYS_MAX && *size <= KEY_BYTES_MAX => chunk.push(id),
                _ => {
                    *size = id.size();
                    chunks.push(vec![id]);
                }
            }
        }
        let room = &AtomicUsize::new(LOAD_BYTES_MAX);
        let finds = by_lookup.into_iter().flat_map(|(lookup, chunks)| {
            chunks.into_iter().map(move |chunk| self.find(lookup, chunk, at, deadline, room))
        });
        futures::future::join_all(finds).await.into_iter().flatten().collect()
    }

    async fn keys_of(
        &self,
        collection: CollectionId,
        ids: Vec<Id>,
        at: Moment,
        deadline: Deadline,
    ) -> Result<Vec<FactKey>, SourceError> {
        let lookups = || self.schema.lookups().filter(|(_, lookup)| lookup.collection_id == collection);
        let by_id = lookups().find(|(_, lookup)| lookup.is_by_id());
        let projection = lookups().map(|(_, lookup)| lookup.by.top().into()).collect();
        let name = self.schema.collection_name(collection);
        let lookup = Lookup { projection, ..Lookup::by_id(name, collection) };
        let mut keys = Vec::new();
        for chunk in ids.chunks(BATCH_DOCUMENTS_MAX) {
            let found = self.find_once(&lookup, chunk, at, deadline).await?.ok_or(SourceError::TooMuch)?;
            for document in &found.documents {
                for (lookup, by) in lookups().map(|(id, lookup)| (id, &lookup.by)) {
                    document_keys(by, document, &mut |id| keys.push(FactKey { lookup, id }));
                }
            }
        }
        keys.extend(
            by_id.into_iter().flat_map(|(lookup, _)| ids.iter().map(move |id| FactKey { lookup, id: id.clone() })),
        );
        Ok(keys)
    }
}
