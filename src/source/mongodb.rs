//! MongoDB as the source. Facts come from one `find` per lookup, on the primary, with read concern *snapshot* after a known
//! moment, so that a fact is exactly the state at its stamp (docs/freshness.md, point 1). Changes come from a change stream.
//!
//! Only reads: the `read` role on the database is enough. `journal` commits transactions that read nothing. Caches nothing.

mod alone;
mod by_relation;
mod change_stream;
mod client;
mod command;
mod connect;
mod decode;
mod error;
mod event;
mod examine;
mod filtered;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod find;
mod finding;
mod indexes;
mod inspect;
mod journal;
mod keys;
mod list;
mod sample;
mod sizes;
mod survey;
mod uri;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bson::{Bson, Timestamp, doc};
use client::ReplacedClient;
use command::primary;
pub use connect::ConnectError;
use connect::Hello;
pub use error::{CodeName, DriverError, Unusable};
pub use examine::examine;
use find::{BATCH_DOCUMENTS_MAX, Load};
pub use finding::Finding;
use indexes::KnownIndexes;
use journal::Journal;
use mongodb::{Database, options::ClientOptions};
use sizes::KnownSizes;
use tokio::sync::Semaphore;
use tracing::{Instrument as _, trace_span};
pub use uri::{AssumedSource, ConnectionString, UriErrors};

use super::{Deadline, Identity, Listed, Listing, Source, SourceError};
use crate::{
    diagnosis::Diagnosis,
    fact::{Fact, FactKey, changed_keys},
    moment::{Clock, Moment},
    question::{CollectionId, Id, LookupId},
    schema::{Lookup, Schema},
    telemetry::{Commands, SPANS},
};

/// How many finds run at once. Probes and the change stream do not count, and wait for none of them.
const COMMANDS_MAX: u32 = 64;

/// How many finds for filtered facts run at once that may return many documents of other subjects: 40,000 each.
const TURNS: usize = 4;

/// How many listings are read at once. They count among the finds, too, and leave most of these to facts.
const LISTINGS: usize = 16;

/// How many keys one `find` asks for.
const KEYS_MAX: usize = 20_000;

/// How many filtered facts one `find` reads. Each of its documents is looked at once for each of them.
const FILTERED_KEYS_MAX: usize = 100;

/// How many bytes of keys one `find` asks for: well below the 48 MB that a message may have.
const KEY_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// How many bytes of facts one load returns at most. Finds that run when it is reached are still completed.
const LOAD_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// How long a probe may take, even if the request has more time.
const PROBE_TIME: Duration = Duration::from_secs(5);

/// A database, read by the lookups of a schema.
#[derive(Debug)]
pub struct MongoDb {
    schema: Arc<Schema>,
    client: ReplacedClient,
    /// The name of the database.
    name: String,
    /// The name of the replica set.
    set: Option<String>,
    mode: Mode,
    journal: Journal,
    /// Bounds the finds that run at once.
    permits: Semaphore,
    /// For each lookup, what is known of the sizes of its facts.
    sizes: Box<[KnownSizes]>,
    /// Bounds the finds for filtered facts that run at once and may return many documents of other subjects.
    turns: Semaphore,
    /// Bounds the listings that are read at once.
    listings: Semaphore,
    /// Which indexes the collections have, for lists.
    indexes: KnownIndexes,
    /// The last tick that was used as a moment, in the modes without cluster time.
    ticks: AtomicU64,
    commands: Commands,
}

/// What the server can promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A replica set. Moments are its cluster time.
    ReplicaSet,
    /// A single server. Moments are this instance's own, and no change is reported.
    Standalone,
    /// A sharded cluster behind mongos. Like a single server, but the bound is not promised, as one shard's time does not
    /// cover another's.
    Sharded,
}

impl MongoDb {
    /// Connects. The database is the one named, else the one in the connection string.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(schema: Arc<Schema>, uri: &str, database: Option<&str>) -> Result<Self, ConnectError> {
        let uri = ConnectionString::parse(uri).map_err(ConnectError::Uri)?;
        let (options, name) = connect::options(&uri, database).await?;
        let assumed = uri.assumed_source(&options);
        Self::connect_with(schema, options, &name).await.map_err(|error| error.with_source(assumed))
    }

    /// The driver's options for a connection string, with the defaults of [`MongoDb::connect`], and the name of the database.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn client_options(uri: &str, database: Option<&str>) -> Result<(ClientOptions, String), ConnectError> {
        connect::options(&ConnectionString::parse(uri).map_err(ConnectError::Uri)?, database).await
    }

    /// Connects with these options of the driver to the database of this name.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect_with(schema: Arc<Schema>, options: ClientOptions, name: &str) -> Result<Self, ConnectError> {
        let database = connect::database(options.clone(), name)?;
        let hello = connect::reach(&database).await?;
        Ok(Self::with_hello(schema, ReplacedClient::new(database, Some(options)), hello))
    }

    /// Uses a database of an existing client.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn open(schema: Arc<Schema>, database: Database) -> Result<Self, ConnectError> {
        let hello = connect::hello(&database).await?;
        Ok(Self::with_hello(schema, ReplacedClient::new(database, None), hello))
    }

    fn with_hello(schema: Arc<Schema>, client: ReplacedClient, hello: Hello) -> Self {
        let Hello { mode, set, waits_for_journal, .. } = hello;
        let permits = Semaphore::new(usize::try_from(COMMANDS_MAX).unwrap_or(1));
        let name = client.database().name().to_owned();
        let commands = Commands::default();
        schema.collections().for_each(|collection| commands.show_collection(collection));
        let (turns, ticks, journal) = (Semaphore::new(TURNS), AtomicU64::new(0), Journal::new(waits_for_journal));
        let sizes = schema.lookups().map(|(_, lookup)| KnownSizes::new(&schema, lookup)).collect();
        let (listings, indexes) = (Semaphore::new(LISTINGS), KnownIndexes::default());
        Self { schema, client, name, set, mode, journal, permits, sizes, turns, listings, indexes, ticks, commands }
    }

    /// What distinguishes this database from others.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn identity(&self) -> Result<Identity, DriverError> {
        let uuids = inspect::uuids(&self.schema, &self.client.database()).await?;
        let collections = self.schema.collections().map(|name| (name.to_owned(), uuids.get(name).copied())).collect();
        Ok(Identity { set: self.set.clone(), database: self.name.clone(), collections })
    }

    /// What the server can promise.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The name of the database that is read.
    #[must_use]
    pub fn database_name(&self) -> &str {
        &self.name
    }

    /// The counts and times of its commands.
    #[must_use]
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// A moment of this instance's own, later than all before it.
    fn tick(&self) -> Moment {
        Moment::from_count(self.ticks.fetch_add(1, Ordering::SeqCst).saturating_add(1))
    }

    /// A probe: a linearizable read (docs/freshness.md, point 5). A node that only believes itself primary cannot answer it.
    /// The reply's `operationTime` covers every write that was acknowledged before the probe was sent.
    async fn probe_in(&self, collection: &str, deadline: Deadline) -> Result<Moment, SourceError> {
        if self.mode != Mode::ReplicaSet {
            return Ok(self.tick());
        }
        let command = doc! {
            "find": collection,
            "filter": { "_id": Bson::Null },
            // There may be such a document, of any size and with anything in it.
            "projection": { "_id": 1 },
            "limit": 1,
            "singleBatch": true,
            "readConcern": { "level": "linearizable" },
        };
        let span = trace_span!(target: SPANS, "mongodb probe", otel.kind = "client", db.system = "mongodb");
        let began = Instant::now();
        let read = self.read(command, deadline.at_most(PROBE_TIME));
        let reply = self.with_journal(read).instrument(span).await;
        self.commands.took("probe", began.elapsed());
        let reply = reply.map_err(|error| error.into_source_error(SourceError::Probe))?;
        let time = reply.as_raw_document().get_timestamp("operationTime");
        time.map(moment_of)
            .map_err(|_| SourceError::Answer { collection: collection.to_owned(), what: "no operationTime" })
    }
}

/// A timestamp of MongoDB as a moment.
fn moment_of(time: Timestamp) -> Moment {
    Moment::new(time.time, time.increment)
}

/// A moment as a timestamp of MongoDB.
fn timestamp_of(moment: Moment) -> Timestamp {
    Timestamp { time: moment.seconds(), increment: moment.increment() }
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
        if_large: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        // Whole facts and filtered ones are read by different queries.
        let mut by_query: HashMap<(LookupId, bool), Vec<Vec<FactKey>>> = HashMap::new();
        let mut sizes: HashMap<(LookupId, bool), usize> = HashMap::new();
        for key in keys {
            let query = (key.lookup, key.subject.is_some());
            let keys_max = if key.subject.is_some() { FILTERED_KEYS_MAX } else { KEYS_MAX };
            let size = sizes.entry(query).or_default();
            *size += key.id.size() + 16;
            let chunks = by_query.entry(query).or_default();
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < keys_max && *size <= KEY_BYTES_MAX => chunk.push(key),
                _ => {
                    *size = key.id.size();
                    chunks.push(vec![key]);
                }
            }
        }
        let load = Load { if_large, at, deadline, byte_budget: &AtomicUsize::new(LOAD_BYTES_MAX) };
        let finds = by_query
            .into_iter()
            .flat_map(|((lookup, _), chunks)| chunks.into_iter().map(move |chunk| self.find(lookup, chunk, load)));
        futures::future::join_all(finds).await.into_iter().flatten().collect()
    }

    fn expects_large(&self, key: &FactKey, was_large: bool) -> bool {
        let expects = |sizes: &KnownSizes| sizes.expects_large(&key.id) || was_large && sizes.can_expect();
        self.sizes_of(key.lookup).is_some_and(expects)
    }

    fn may_stand_for_whole(&self, lookup: LookupId) -> bool {
        self.sizes_of(lookup).is_some_and(KnownSizes::may_stand)
    }

    fn learn_size(&self, key: &FactKey, is_large: bool) {
        if let Some(sizes) = self.sizes_of(key.lookup) {
            sizes.learn(&key.id, is_large);
        }
    }

    async fn survey(&self) -> Vec<Diagnosis> {
        self.survey_documents().await
    }

    async fn list(&self, listing: Listing, at: Moment, deadline: Deadline) -> Result<Listed, SourceError> {
        self.list_ids(&listing, at, deadline).await
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
            let found = self.find_once(&lookup, chunk, at, deadline).await?;
            if !found.is_complete {
                return Err(SourceError::TooMuch);
            }
            for decoded in &found.documents {
                for (lookup, found) in lookups() {
                    keys.extend(changed_keys(lookup, found, decoded.as_matched()));
                }
            }
        }
        keys.extend(
            by_id.into_iter().flat_map(|(lookup, _)| ids.iter().map(move |id| FactKey::whole(lookup, id.clone()))),
        );
        Ok(keys)
    }
}
