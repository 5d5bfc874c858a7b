//! Assembly: the one function that constructs every part of an instance and connects them.
//!
//! [`assemble`] does no I/O and starts no task: `open` has opened what the parts are made of, and `App::start` runs them.
//! [`Sharing::over`] asks MongoDB for its identity.

use std::sync::Arc;

use tokio::sync::{mpsc::Receiver, watch};

use super::{App, Follower, Links, sampled_metrics::show_state};
use crate::{
    bus::{Bus, COMMAND_TIME, Peers, RedisChannel},
    check::{Checker, Settings},
    facts::{ANSWER_TIME, Facts, Memory, SharedFacts},
    feed::{Feed, Lease},
    freshness::{ChangeBatch, Clock, Freshness, Moment},
    invalidate::Invalidator,
    link::{FORMAT, Link, Names, Server},
    schema::Schema,
    source::{
        ChangeSource, Prober, Source,
        mongodb::{ConnectError, Mode, MongoDb},
    },
    telemetry::{ChangeMetrics, Commands, Metrics},
};

/// What an instance is assembled from.
pub struct Parts {
    /// The schema that answers follow.
    pub schema: Arc<Schema>,
    /// Where facts come from.
    pub source: Arc<dyn Source>,
    /// How the instance learns of changes in the source.
    pub changes: ChangesFrom,
    /// What is wrong with the source; none while nothing is.
    pub trouble: watch::Receiver<Option<String>>,
    /// What the instance shares with others; none if it is alone.
    pub sharing: Option<Sharing>,
    /// The bounds on age and memory.
    pub settings: Settings,
    /// Counts and times what the parts do.
    pub metrics: Arc<Metrics>,
    /// The timings of commands to MongoDB, to be shown among the metrics; none over documents.
    pub commands: Option<Commands>,
}

/// How an instance learns of changes in its source.
pub enum ChangesFrom {
    /// By a change stream of the source.
    ChangeStream(Arc<dyn ChangeSource>),
    /// By comparing files at each probe.
    Files {
        /// The revision that the source starts with.
        first: Moment,
        /// The changes that each probe has found; none where the files are never read again.
        batches: Option<Receiver<ChangeBatch>>,
    },
    /// Not at all: a cached fact serves until it is as old as the bound.
    Nothing,
}

/// The Redis that instances over one database share, and the names of what they keep there.
pub struct Sharing {
    /// The names of keys and Redis channels.
    pub names: Names,
    /// The link for change batches, hints and the lease; none if this instance shares no changes.
    pub changes: Option<Link>,
    /// The link for facts; none if this instance shares no facts. It is a link of its own, so that slow reads of facts do
    /// not delay change batches.
    pub facts: Option<Link>,
}

impl Sharing {
    /// Shares changes and facts through a server or a cluster, under these names.
    #[must_use]
    pub fn new(server: Server, names: Names) -> Self {
        let server = Arc::new(server);
        let changes = Link::new(Arc::clone(&server), COMMAND_TIME);
        Self { names, changes: Some(changes), facts: Some(Link::new(server, ANSWER_TIME)) }
    }

    /// As [`Sharing::new`], under the names for a MongoDB database and a schema.
    ///
    /// # Errors
    /// [`ConnectError::Unreachable`].
    pub async fn over(server: Server, schema: &Schema, mongodb: &MongoDb) -> Result<Self, ConnectError> {
        let identity = mongodb.identity().await.map_err(|error| ConnectError::Unreachable(error.kind))?;
        Ok(Self::new(server, Names::new(&identity, schema.fingerprint(), FORMAT)))
    }
}

impl Parts {
    /// A lone instance over a source, with the default bounds. The instance does not learn of changes in the source.
    #[must_use]
    pub fn new(schema: Arc<Schema>, source: Arc<dyn Source>) -> Self {
        Self {
            schema,
            source,
            changes: ChangesFrom::Nothing,
            trouble: watch::channel(None).1,
            sharing: None,
            settings: Settings::default(),
            metrics: Arc::default(),
            commands: None,
        }
    }

    /// A lone instance over MongoDB, with the default bounds. If MongoDB is a replica set, the instance follows a
    /// change stream.
    #[must_use]
    pub fn over_mongodb(schema: Arc<Schema>, mongodb: MongoDb) -> Self {
        let mongodb = Arc::new(mongodb);
        let changes = match mongodb.mode() {
            Mode::ReplicaSet => ChangesFrom::ChangeStream(Arc::<MongoDb>::clone(&mongodb)),
            Mode::Standalone | Mode::Sharded => ChangesFrom::Nothing,
        };
        let commands = Some(mongodb.commands().clone());
        Self { changes, commands, ..Self::new(schema, mongodb) }
    }
}

/// Constructs every part of an instance, each from parts that are constructed before it.
#[must_use]
pub fn assemble(parts: Parts) -> App {
    let Parts { schema, source, changes, trouble, sharing, settings, metrics, commands } = parts;
    let clock = source.clock();
    let (names, change_link, fact_link) = match sharing {
        Some(Sharing { names, changes, facts }) => (Some(names), changes, facts),
        None => (None, None, None),
    };

    let freshness = Arc::new(Freshness::new(&schema));
    let memory = Arc::new(Memory::new(settings.memory_bytes_max));
    let prober = {
        let memory = Arc::clone(&memory);
        Prober::new(Arc::clone(&source), Arc::clone(&freshness), move || memory.clear())
    };

    // Other instances cannot interpret the stamp of a fact unless all share one clock.
    let fact_link = fact_link.filter(|_| clock == Clock::Cluster);
    let (shared_facts, writer) = match (&names, &fact_link) {
        (Some(names), Some(link)) => {
            let (shared, writer) =
                SharedFacts::new(link.clone(), names.clone(), Arc::clone(&schema), Arc::clone(&metrics));
            (Some(shared), Some(writer))
        }
        _ => (None, None),
    };
    let facts = Facts::new(
        Arc::clone(&source),
        Arc::clone(&freshness),
        Arc::clone(&memory),
        shared_facts.clone(),
        Arc::clone(&metrics),
    );
    let checker = Checker {
        schema: Arc::clone(&schema),
        clock,
        facts: facts.clone(),
        freshness: Arc::clone(&freshness),
        prober: prober.clone(),
        metrics: Arc::clone(&metrics),
        staleness_max: settings.staleness_max,
    };

    let change_metrics = ChangeMetrics::default();
    let peers = names.as_ref().zip(change_link.as_ref()).map(|(names, link)| {
        let channel = RedisChannel::new(link.clone(), names.clone());
        Peers::new(channel, Arc::clone(&schema), clock, prober.clone(), Arc::clone(&metrics))
    });
    let bus = Arc::new(Bus::new(Arc::clone(&freshness), peers, change_metrics.clone()));
    let invalidator = Invalidator {
        schema: Arc::clone(&schema),
        source,
        freshness: Arc::clone(&freshness),
        prober: prober.clone(),
        bus: Arc::clone(&bus),
        change_metrics: change_metrics.clone(),
    };

    let follows_changes = matches!(changes, ChangesFrom::ChangeStream(_));
    let mut lease = None;
    let follower = match changes {
        ChangesFrom::ChangeStream(source) => {
            let shared = names.as_ref().zip(change_link.as_ref());
            lease = shared.map(|(names, link)| Arc::new(Lease::new(link.clone(), names.lease.clone())));
            Follower::ChangeStream(Box::new(Feed {
                source,
                freshness: Arc::clone(&freshness),
                prober: prober.clone(),
                bus: Arc::clone(&bus),
                lease: lease.clone(),
                change_metrics: change_metrics.clone(),
            }))
        }
        ChangesFrom::Files { first, batches } => {
            bus.begin_at(first);
            batches.map_or(Follower::None, Follower::Documents)
        }
        ChangesFrom::Nothing => Follower::None,
    };

    if let Some(commands) = &commands {
        metrics.show_commands(commands);
    }
    metrics.show_change_metrics(&change_metrics);
    let app = App {
        schema,
        clock,
        metrics,
        freshness,
        memory,
        shared_facts,
        facts,
        prober,
        checker,
        bus,
        invalidator,
        staleness_max: settings.staleness_max,
        trouble,
        logged_decisions: 0.0,
        follows_changes,
        lease,
        follower,
        links: Links { changes: change_link, facts: fact_link },
        writer,
    };
    show_state(&app);
    app
}
