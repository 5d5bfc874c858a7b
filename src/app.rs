//! The application put together: the one place that names every concrete type and starts every task.
//!
//! Decides nothing itself.

pub mod doctor;
mod sampled_metrics;
mod reports;
mod run;
mod health_monitor;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use reports::{report_database, report_documents, report_redis};
pub use run::run;
use sampled_metrics::{leader, reached, show_state};
use tokio::{
    sync::{Semaphore, mpsc::Receiver, watch},
    task::JoinSet,
};

use crate::{
    bus::{Bus, COMMAND_TIME, RedisChannel},
    check::{Checker, Settings},
    config::SourceConfig,
    diagnosis::error_chain,
    facts::{ANSWER_TIME, RedisWriter, SharedFacts},
    feed::{Feed, Lease, follow_documents},
    freshness::{ChangeBatch, Clock, LocalTime},
    invalidate::Invalidator,
    link::{FORMAT, Link, Names, Server},
    schema::{Schema, SchemaErrors},
    source::{
        ChangeSource, Deadline, Source, SourceError,
        documents::{Documents, DocumentsError},
        mongodb::{ConnectError, Finding, Mode, MongoDb},
    },
    telemetry::Metrics,
    transport::{Apis, InvalidationApi, PermissionApi, ServeError, WatchApi},
};

/// How long the source may take to say what time it is, at the start.
const START_TIME: Duration = Duration::from_secs(5);

/// Why the application did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The schema's file cannot be read.
    #[error("cannot read the schema `{}`", path.display())]
    ReadSchema {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The schema is wrong.
    #[error("{0}")]
    Schema(SchemaErrors),
    /// The documents are wrong.
    #[error("{}", .0.iter().map(|error| error_chain(error).to_string()).collect::<Vec<_>>().join("\n"))]
    Documents(Vec<DocumentsError>),
    /// Collections that cannot be followed.
    #[error("{}", .0.iter().map(|finding| format!("{}: {}", finding.message(), finding.remedy())).collect::<Vec<_>>().join("\n"))]
    Unsuitable(Vec<Finding>),
    /// The source cannot be asked.
    #[error(transparent)]
    Source(SourceError),
    /// MongoDB cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The port cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Something that goes on for ever has ended.
    #[error("a background task has ended: this is a bug, and the log says where")]
    Task,
    /// The port cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Everything that answers, without a port.
pub struct App {
    /// Answers questions.
    pub checker: Checker,
    /// Marks what is said to have changed.
    pub invalidator: Invalidator,
    /// Carries what changes.
    pub bus: Arc<Bus>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Why not all is well with the source, while that is so.
    pub trouble: watch::Receiver<Option<String>>,
    /// Which share of the answers is logged, from 0 to 1.
    pub logged_decisions: f64,
    follower: Follower,
    /// Whether a change stream says what changes, its own or another instance's.
    follows_changes: bool,
    sharing: Option<Sharing>,
    /// The links that are in use, by what they carry.
    links: Vec<(&'static str, Link)>,
    writer: Option<RedisWriter>,
    lease: Option<Arc<Lease>>,
}

/// Who finds out what changes.
enum Follower {
    /// The probes of the files.
    Documents(Receiver<ChangeBatch>),
    /// A change stream.
    ChangeStream(Box<Feed>),
    /// Nobody: facts are believed for a time.
    Nobody,
}

/// Reads and compiles a schema.
///
/// # Errors
/// [`AppError::ReadSchema`] and [`AppError::Schema`].
pub fn read_schema(path: &std::path::Path) -> Result<Schema, AppError> {
    let unreadable = |source| AppError::ReadSchema { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Schema::parse(&path.display().to_string(), &text).map_err(AppError::Schema)
}

/// What the instances over one database share: a Redis, and what things are called there.
pub struct Sharing {
    names: Names,
    /// For statements, hints and the lease, which do not wait behind facts.
    link: Link,
    /// For facts: one that is slow with them is still good for statements.
    facts: Link,
}

impl Sharing {
    /// Over a server or a cluster, by these names.
    #[must_use]
    pub fn new(server: Server, names: Names) -> Self {
        let server = Arc::new(server);
        let link = Link::new(Arc::clone(&server), COMMAND_TIME);
        Self { names, link, facts: Link::new(server, ANSWER_TIME) }
    }

    /// As [`Sharing::new`], by the names for a MongoDB and a schema.
    ///
    /// # Errors
    /// [`ConnectError::Unreachable`].
    pub async fn over(server: Server, schema: &Schema, mongodb: &MongoDb) -> Result<Self, ConnectError> {
        let identity = mongodb.identity().await.map_err(|error| ConnectError::Unreachable(error.kind))?;
        Ok(Self::new(server, Names::new(&identity, schema.fingerprint(), FORMAT)))
    }
}

impl App {
    /// Reads the schema and opens the source, and what is shared with other instances. Says in the log what it finds there.
    ///
    /// # Errors
    /// [`AppError`].
    pub async fn open(
        schema: Schema,
        source: &SourceConfig,
        redis: Option<&Server>,
        settings: Settings,
    ) -> Result<Self, AppError> {
        Self::counting(schema, source, redis, settings, Arc::default()).await
    }

    /// As [`App::open`], with what is counted there already.
    async fn counting(
        schema: Schema,
        source: &SourceConfig,
        redis: Option<&Server>,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AppError> {
        let schema = Arc::new(schema);
        match source {
            SourceConfig::Documents(directory) => {
                let documents = Documents::read(&schema, directory).map_err(AppError::Documents)?;
                report_documents(&documents);
                if redis.is_some() {
                    tracing::warn!("Redis is configured and not used: documents on disk are not shared");
                }
                let trouble = documents.trouble();
                let changes = documents.changes();
                let first = documents.revision();
                let app = Self::assemble(schema, Arc::new(documents), settings, trouble, None, metrics);
                app.bus.begin_at(first);
                Ok(Self { follower: changes.map_or(Follower::Nobody, Follower::Documents), ..app })
            }
            SourceConfig::MongoDb { uri, database } => {
                let mongodb = MongoDb::connect(Arc::clone(&schema), uri.reveal(), database.as_deref()).await?;
                report_database(&schema, &mongodb, settings).await?;
                let sharing = match redis {
                    Some(server) => Some(Sharing::over(server.clone(), &schema, &mongodb).await?),
                    None => {
                        tracing::info!("ℹ️  Redis not configured (REDIS_URL not set), using memory cache");
                        None
                    }
                };
                Ok(Self::reading(schema, mongodb, settings, sharing, metrics))
            }
        }
    }

    /// As [`App::open`], over a MongoDB that is open already.
    #[must_use]
    pub fn over_mongodb(schema: Arc<Schema>, mongodb: MongoDb, settings: Settings, sharing: Option<Sharing>) -> Self {
        Self::reading(schema, mongodb, settings, sharing, Arc::default())
    }

    fn reading(
        schema: Arc<Schema>,
        mongodb: MongoDb,
        settings: Settings,
        sharing: Option<Sharing>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mongodb = Arc::new(mongodb);
        let source = Arc::<MongoDb>::clone(&mongodb);
        metrics.show_commands(mongodb.commands());
        let app = Self::assemble(schema, source, settings, watch::channel(None).1, sharing, metrics);
        if mongodb.mode() == Mode::ReplicaSet { app.following(mongodb) } else { app }
    }

    /// The same application, with a feed that follows these changes of its source.
    #[must_use]
    pub fn following(self, changes: Arc<dyn ChangeSource>) -> Self {
        let freshness = Arc::clone(self.checker.freshness());
        let (prober, bus) = (self.checker.prober().clone(), Arc::clone(&self.bus));
        let lease =
            self.sharing.as_ref().map(|Sharing { names, link, .. }| Lease::new(link.clone(), names.lease.clone()));
        let lease = lease.map(Arc::new);
        if let Some(lease) = &lease {
            self.metrics.show(leader(Arc::clone(lease)));
        }
        let feed = Feed { source: changes, freshness, prober, bus, lease: lease.clone() };
        Self { follower: Follower::ChangeStream(Box::new(feed)), follows_changes: true, lease, ..self }
    }

    /// As [`App::open`], over a source that is open already, and that nobody follows.
    #[must_use]
    pub fn over(
        schema: Arc<Schema>,
        source: Arc<dyn Source>,
        settings: Settings,
        trouble: watch::Receiver<Option<String>>,
    ) -> Self {
        Self::assemble(schema, source, settings, trouble, None, Arc::default())
    }

    fn assemble(
        schema: Arc<Schema>,
        source: Arc<dyn Source>,
        settings: Settings,
        trouble: watch::Receiver<Option<String>>,
        sharing: Option<Sharing>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut checker = Checker::new(Arc::clone(&schema), Arc::clone(&source), Arc::clone(&metrics), settings);
        let mut links: Vec<_> = sharing.iter().map(|Sharing { link, .. }| ("statements", link.clone())).collect();
        let mut writer = None;
        // Where moments are an instance's own, a fact's stamp means nothing to others.
        if let Some(Sharing { names, facts, .. }) = sharing.as_ref().filter(|_| source.clock() == Clock::Cluster) {
            let (names, link) = (names.clone(), facts.clone());
            let (shared, fills) = SharedFacts::new(link, names, Arc::clone(&schema), Arc::clone(&metrics));
            checker = checker.sharing(shared);
            writer = Some(fills);
            links.push(("facts", facts.clone()));
        }
        let mut bus = Bus::new(Arc::clone(checker.freshness()));
        if let Some(Sharing { names, link, .. }) = &sharing {
            let channel = RedisChannel::new(link.clone(), names.clone());
            bus = bus.over(channel, Arc::clone(&schema), checker.prober().clone(), Arc::clone(&metrics));
        }
        let bus = Arc::new(bus);
        metrics.show_change_metrics(bus.change_metrics());
        show_state(&metrics, &checker);
        if !links.is_empty() {
            metrics.show(reached(&links));
        }
        let invalidator = Invalidator::new(schema, source, checker.prober().clone(), Arc::clone(&bus));
        Self {
            checker,
            invalidator,
            bus,
            metrics,
            trouble,
            logged_decisions: 0.0,
            follower: Follower::Nobody,
            follows_changes: false,
            sharing,
            links,
            writer,
            lease: None,
        }
    }

    /// Starts what runs in the background: probes, who finds out what changes, and what keeps in touch with other instances.
    /// They end with the set.
    ///
    /// # Errors
    /// The source could not be asked for its time.
    pub async fn start(&mut self) -> Result<JoinSet<()>, AppError> {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.checker.prober().clone().run());
        if let Some(Sharing { link, facts, .. }) = &self.sharing {
            tasks.spawn(link.clone().run(report_redis));
            if let Some(writer) = self.writer.take() {
                tasks.spawn(facts.clone().run(|_| {}));
                tasks.spawn(writer.run());
            }
            let bus = Arc::clone(&self.bus);
            tasks.spawn(async move { bus.listen().await });
        }
        // Nothing can be answered before that.
        let first = self.checker.prober().probe_since(LocalTime::now(), Deadline::after(START_TIME));
        first.await.map_err(AppError::Source)?;
        match std::mem::replace(&mut self.follower, Follower::Nobody) {
            Follower::ChangeStream(feed) => {
                feed.begin(Deadline::after(START_TIME)).await.map_err(AppError::Source)?;
                tasks.spawn(feed.run());
                if let Some(lease) = self.lease.clone() {
                    tasks.spawn(async move { lease.run().await });
                }
            }
            Follower::Documents(changes) => {
                tasks.spawn(follow_documents(changes, Arc::clone(self.checker.freshness()), Arc::clone(&self.bus)));
            }
            Follower::Nobody => self.bus.begin_hints_only(),
        }
        Ok(tasks)
    }

    /// Whether this instance speaks for all.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.is_held())
    }

    /// Leaves to others at once what this instance does for all.
    pub async fn retire(&self) {
        if let Some(lease) = &self.lease {
            lease.give_up().await;
        }
    }

    /// All its services, for so many requests at once.
    #[must_use]
    pub fn apis(&self, requests_max: usize) -> Apis {
        let permits = Arc::new(Semaphore::new(requests_max));
        Apis {
            permissions: PermissionApi::new(self.checker.clone(), Arc::clone(&permits))
                .logging_decisions(self.logged_decisions),
            invalidation: InvalidationApi::new(self.invalidator.clone(), permits),
            watch: WatchApi::new(self.checker.clone(), Arc::clone(&self.bus)),
        }
    }
}
