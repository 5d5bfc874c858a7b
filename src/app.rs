//! The application: what an instance consists of once it is assembled, and the tasks it runs.
//!
//! [`assemble`] is the only function that constructs the parts. Nothing here decides an answer.

mod assemble;
pub mod doctor;
mod health_monitor;
mod open;
mod ports;
mod reports;
mod run;
mod sampled_metrics;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

pub use assemble::{ChangesFrom, Parts, Sharing, assemble};
use health_monitor::HealthMonitor;
pub use open::{open, read_schema};
pub use reports::report_findings;
use reports::report_redis;
pub use run::run;
use tokio::{sync::mpsc::Receiver, task::JoinSet};

use crate::{
    bus::Bus,
    check::Checker,
    diagnosis::error_chain,
    facts::{Facts, Memory, RedisWriter, SharedFacts},
    feed::{Feed, Lease, follow_documents},
    freshness::{ChangeBatch, Freshness, LocalTime},
    invalidate::Invalidator,
    link::Link,
    list::Lister,
    schema::{Schema, SchemaErrors},
    source::{
        Deadline, Prober, SourceError,
        documents::DocumentsError,
        mongodb::{ConnectError, Finding},
    },
    telemetry::Metrics,
    transport::{Apis, ServeError},
};

/// How long the source may take to answer the first probe when the application starts.
const START_TIME: Duration = Duration::from_secs(5);

/// Why the application did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The schema file cannot be read.
    #[error("cannot read the schema `{}`", path.display())]
    ReadSchema {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The schema has errors.
    #[error("{0}")]
    Schema(SchemaErrors),
    /// The directory of documents has errors.
    #[error("{}", .0.iter().map(|error| error_chain(error).to_string()).collect::<Vec<_>>().join("\n"))]
    Documents(Vec<DocumentsError>),
    /// Some collections cannot be followed by a change stream, or have a collation that texts of the schema depend on.
    #[error("{}", .0.iter().map(|finding| format!("{}: {}", finding.message(), finding.remedy())).collect::<Vec<_>>().join("\n"))]
    Unsuitable(Vec<Finding>),
    /// The source did not answer.
    #[error(transparent)]
    Source(SourceError),
    /// MongoDB cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The port cannot be opened.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The port was in use for as long as the start may take.
    #[error(
        "cannot listen on {address}: the port is in use, by a listener or an outgoing connection. `ss -tanp sport = :{}` \
         shows by which: end it, or set {variable} to another port, below the range of `sysctl net.ipv4.ip_local_port_range`, \
         from which outgoing connections take theirs",
        address.port()
    )]
    PortInUse {
        /// The variable that names the port.
        variable: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A background task, which should run for as long as the process does, has ended.
    #[error("a background task has ended: this is a bug, and the log names the place")]
    Task,
    /// The port cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// An assembled instance, without a port. Its parts are public, so that tests can look at each.
pub struct App {
    /// The schema that answers follow.
    pub schema: Arc<Schema>,
    /// Counts and times what the parts do.
    pub metrics: Arc<Metrics>,
    /// Watermark, floor, marks and probes.
    pub freshness: Arc<Freshness>,
    /// L1: facts cached in this process.
    pub memory: Arc<Memory>,
    /// L2: facts in Redis. None without Redis, or where moments mean nothing to other instances.
    pub shared_facts: Option<Arc<SharedFacts>>,
    /// Loads facts through the tiers.
    pub facts: Facts,
    /// Asks the source for its time.
    pub prober: Prober,
    /// Answers questions.
    pub checker: Checker,
    /// Answers lists.
    pub lister: Lister,
    /// Carries change batches and hints.
    pub bus: Arc<Bus>,
    /// Marks what callers report as changed.
    pub invalidator: Invalidator,
    /// The gRPC services.
    pub apis: Apis,
    /// Whether a change stream, its own or another instance's, informs this instance of changes.
    pub follows_changes: bool,
    lease: Option<Arc<Lease>>,
    follower: Follower,
    links: Links,
    writer: Option<RedisWriter>,
    health_monitor: HealthMonitor,
}

/// The part that follows the changes of the source. [`App::start`] takes it, and leaves [`Follower::None`].
enum Follower {
    /// The probes of a directory of documents.
    Documents(Receiver<ChangeBatch>),
    /// A change stream.
    ChangeStream(Box<Feed>),
    /// Nothing: there are no change streams, the files are never read again, or the application has started.
    None,
}

/// The links to Redis that are in use.
#[derive(Default)]
struct Links {
    /// For change batches, hints and the lease.
    changes: Option<Link>,
    /// For facts.
    facts: Option<Link>,
}

impl Links {
    /// Each link, with what it carries.
    fn named(&self) -> impl Iterator<Item = (&'static str, &Link)> {
        [("changes", &self.changes), ("facts", &self.facts)]
            .into_iter()
            .filter_map(|(name, link)| Some((name, link.as_ref()?)))
    }
}

impl App {
    /// Starts the background tasks: probes, the follower of changes, and the connections to Redis. They end when the set is
    /// dropped.
    ///
    /// # Errors
    /// The source did not answer the first probe, or the one at which the bus begins, within 5 s each.
    pub async fn start(&mut self) -> Result<JoinSet<()>, AppError> {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.prober.clone().run());
        if let Some(link) = self.links.changes.clone() {
            tasks.spawn(link.run(report_redis));
        }
        if let Some(link) = self.links.facts.clone() {
            tasks.spawn(link.run(|_| {}));
        }
        if let Some(writer) = self.writer.take() {
            tasks.spawn(writer.run());
        }
        if self.links.changes.is_some() {
            let bus = Arc::clone(&self.bus);
            tasks.spawn(async move { bus.listen().await });
        }
        // No question can be answered before the first probe.
        let first = self.prober.probe_since(LocalTime::now(), Deadline::after(START_TIME));
        first.await.map_err(AppError::Source)?;
        match std::mem::replace(&mut self.follower, Follower::None) {
            Follower::ChangeStream(feed) => {
                feed.begin(Deadline::after(START_TIME)).await.map_err(AppError::Source)?;
                tasks.spawn(feed.run());
                if let Some(lease) = self.lease.clone() {
                    tasks.spawn(async move { lease.run().await });
                }
            }
            Follower::Documents(changes) => {
                tasks.spawn(follow_documents(changes, Arc::clone(&self.freshness), Arc::clone(&self.bus)));
            }
            Follower::None => self.bus.begin_hints_only(),
        }
        Ok(tasks)
    }

    /// The observer, which compares this many cached facts each second with the source, and never ends.
    pub fn observe(&self, per_second: u32) -> impl Future<Output = ()> + Send + use<> {
        let invalidator = self.invalidator.clone();
        let mark = move |key, at, epoch| {
            let invalidator = invalidator.clone();
            async move { invalidator.correct(key, at, epoch).await }
        };
        self.facts.clone().observe_all(Arc::clone(&self.schema), per_second, mark)
    }

    /// Whether this instance is the leader.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.is_leader())
    }

    /// Gives up the lease at once, so that another instance becomes the leader.
    pub async fn retire(&self) {
        if let Some(lease) = &self.lease {
            lease.give_up().await;
        }
    }
}
