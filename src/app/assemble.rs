//! Assembly: the one function that constructs every part of an instance and connects them.
//!
//! [`assemble`] does no I/O and starts no task: `open` has opened what the parts are made of, and `App::start` runs them.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc::Receiver, watch};

use super::{App, Follower, Links, health_monitor::HealthMonitor, sampled_metrics::show_state};
use crate::{
    bus::{Bus, COMMAND_TIME, Peers, RedisChannel},
    check::{Checker, Settings},
    facts::{ANSWER_TIME, Facts, Memory, RedisWriter, SharedFacts},
    feed::{Feed, Lease},
    freshness::{ChangeBatch, Clock, Freshness, Moment, domain},
    invalidate::Invalidator,
    link::{FORMAT, Link, Namespace, Secrets, Server},
    list::Lister,
    schema::Schema,
    source::{
        ChangeSource, Identity, Prober, Source,
        mongodb::{Mode, MongoDb},
    },
    telemetry::{ChangeMetrics, Commands, Metrics},
    transport::{Apis, InvalidationApi, Limits, PermissionApi, WatchApi},
};

/// What an instance is assembled from.
pub struct Parts {
    /// The schema that answers follow.
    pub schema: Arc<Schema>,
    /// Where facts come from.
    pub source: Arc<dyn Source>,
    /// How the instance learns of changes in the source.
    pub changes: ChangesFrom,
    /// A hash of what distinguishes the source from others. If that is not known, callers keep no answers.
    pub identity: Option<[u8; 32]>,
    /// What is wrong with the source; none while nothing is.
    pub trouble: watch::Receiver<Option<String>>,
    /// What the instance shares with others; none if it is alone.
    pub sharing: Option<Sharing>,
    /// The bounds on age and memory.
    pub settings: Settings,
    /// How many checks and invalidations are handled at once.
    pub requests_max: usize,
    /// The share of answers that is logged, from 0 to 1.
    pub logged_decisions: f64,
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

impl ChangesFrom {
    fn is_stream(&self) -> bool {
        match self {
            Self::ChangeStream(_) => true,
            Self::Files { .. } | Self::Nothing => false,
        }
    }
}

/// The Redis that instances over one database share, and their namespace there.
pub struct Sharing {
    /// The names of keys and Redis channels, and the codes of what is written there.
    pub namespace: Namespace,
    /// The link for change batches, hints and the lease; none if this instance shares no changes.
    pub changes: Option<Link>,
    /// The link for facts; none if this instance shares no facts. It is a link of its own, so that slow reads of facts do
    /// not delay change batches.
    pub facts: Option<Link>,
}

impl Sharing {
    /// Shares changes and facts through a server or a cluster, in this namespace.
    #[must_use]
    pub fn new(server: Server, namespace: Namespace) -> Self {
        let server = Arc::new(server);
        let changes = Link::new(Arc::clone(&server), COMMAND_TIME);
        Self { namespace, changes: Some(changes), facts: Some(Link::new(server, ANSWER_TIME)) }
    }

    /// As [`Sharing::new`], in the namespace of a MongoDB database and a schema, with the instances that have one of these
    /// secrets.
    #[must_use]
    pub fn over(server: Server, secrets: &Secrets, schema: &Schema, source: &Identity) -> Self {
        Self::new(server, Namespace::new(source, schema.fingerprint(), FORMAT, secrets))
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
            identity: None,
            trouble: watch::channel(None).1,
            sharing: None,
            settings: Settings::default(),
            requests_max: Limits::default().requests_max,
            logged_decisions: 0.0,
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
    let Parts { schema, source, changes, trouble, sharing, settings, metrics, commands, .. } = &parts;
    let clock = source.clock();

    let freshness = Arc::new(Freshness::new(schema));
    let memory = Arc::new(Memory::new(settings.memory_bytes_max));
    let prober = {
        let memory = Arc::clone(&memory);
        Prober::new(Arc::clone(source), Arc::clone(&freshness), move || memory.clear())
    };
    let (links, shared_facts, writer) = share_facts(&parts, clock);
    let facts = Facts::new(
        Arc::clone(source),
        Arc::clone(&freshness),
        Arc::clone(&memory),
        shared_facts.clone(),
        Arc::clone(metrics),
    );
    let checker = Checker {
        schema: Arc::clone(schema),
        clock,
        facts: facts.clone(),
        freshness: Arc::clone(&freshness),
        prober: prober.clone(),
        metrics: Arc::clone(metrics),
        staleness_max: settings.staleness_max,
    };
    let lister = Lister { checker: checker.clone(), source: Arc::clone(source), fixed_now: None };

    let change_metrics = ChangeMetrics::default();
    let shared_changes = sharing.as_ref().map(|sharing| &sharing.namespace).zip(links.changes.as_ref());
    let peers = shared_changes.map(|(namespace, link)| {
        let channel = RedisChannel::new(link.clone(), namespace.clone(), Arc::clone(metrics));
        Peers::new(channel, Arc::clone(schema), clock, prober.clone(), Arc::clone(metrics))
    });
    let bus = Arc::new(Bus::new(Arc::clone(&freshness), peers, change_metrics.clone()));
    let invalidator = Invalidator {
        schema: Arc::clone(schema),
        source: Arc::clone(source),
        freshness: Arc::clone(&freshness),
        prober: prober.clone(),
        bus: Arc::clone(&bus),
        change_metrics: change_metrics.clone(),
    };
    let lease = shared_changes
        .filter(|_| changes.is_stream())
        .map(|(namespace, link)| Arc::new(Lease::new(link.clone(), namespace.names.lease.clone())));

    let apis = apis(&parts, &lister, invalidator.clone(), &bus);
    let health_monitor = HealthMonitor {
        freshness: Arc::clone(&freshness),
        cached_facts_serve_for: longest_service(schema, settings.staleness_max),
        trouble: trouble.clone(),
        follows_changes: changes.is_stream(),
        links: links.named().map(|(_, link)| link.clone()).collect(),
        reached: None,
    };
    if let Some(commands) = commands {
        metrics.show_commands(commands);
    }
    metrics.show_change_metrics(&change_metrics);

    let Parts { schema, changes, metrics, .. } = parts;
    let follows_changes = changes.is_stream();
    let follower = match changes {
        ChangesFrom::ChangeStream(source) => Follower::ChangeStream(Box::new(Feed {
            source,
            freshness: Arc::clone(&freshness),
            prober: prober.clone(),
            bus: Arc::clone(&bus),
            lease: lease.clone(),
            change_metrics,
        })),
        ChangesFrom::Files { first, batches } => {
            bus.begin_at(first);
            batches.map_or(Follower::None, Follower::Documents)
        }
        ChangesFrom::Nothing => Follower::None,
    };
    let app = App {
        schema,
        metrics,
        freshness,
        memory,
        shared_facts,
        facts,
        prober,
        checker,
        lister,
        bus,
        invalidator,
        apis,
        follows_changes,
        lease,
        follower,
        links,
        writer,
        health_monitor,
    };
    show_state(&app);
    app
}

/// The links that the instance uses, its facts in Redis, and the task that writes them.
fn share_facts(parts: &Parts, clock: Clock) -> (Links, Option<Arc<SharedFacts>>, Option<RedisWriter>) {
    let Some(Sharing { namespace, changes, facts }) = &parts.sharing else { return (Links::default(), None, None) };
    // Other instances cannot interpret the stamp of a fact unless all share one clock.
    let facts = facts.clone().filter(|_| clock == Clock::Cluster);
    let shared = facts
        .clone()
        .map(|link| SharedFacts::new(link, namespace.clone(), Arc::clone(&parts.schema), Arc::clone(&parts.metrics)));
    let (shared, writer) = shared.unzip();
    (Links { changes: changes.clone(), facts }, shared, writer)
}

/// The gRPC services. Checks, lists and invalidations together are limited to `requests_max` at once; `Watch` has its own limit.
fn apis(parts: &Parts, lister: &Lister, invalidator: Invalidator, bus: &Arc<Bus>) -> Apis {
    let Parts { schema, metrics, .. } = parts;
    let Lister { checker, .. } = lister;
    let permits = Arc::new(Semaphore::new(parts.requests_max));
    let domain = parts.identity.map_or(0, |source| domain(schema, source));
    let schema = || Arc::clone(schema);
    let permissions = PermissionApi::new(schema(), checker.clone(), metrics, Arc::clone(&permits))
        .logging_decisions(parts.logged_decisions)
        .in_domain(domain);
    Apis {
        lists: permissions.lists(lister.clone()),
        permissions,
        invalidation: InvalidationApi::new(schema(), invalidator, permits),
        watch: WatchApi::new(schema(), checker.clone(), checker.clock, Arc::clone(metrics), Arc::clone(bus))
            .in_domain(domain),
    }
}

/// How long cached facts can serve some permission while the source does not answer: the staleness bound, or the longest
/// `stale_if_error`.
fn longest_service(schema: &Schema, staleness_max: Duration) -> Duration {
    schema.permissions().filter_map(|permission| permission.stale_if_error).fold(staleness_max, Duration::max)
}
