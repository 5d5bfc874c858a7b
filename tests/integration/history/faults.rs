//! Faults: what is done to the servers and the instances while these are asked. After each fault the instances must recover
//! by themselves: they answer again, memory serves again, every change is applied, and instances that share a Redis have
//! one change stream.
//!
//! Does not judge the answers that they give meanwhile.

mod instances;
mod links;
mod nodes;
mod redis;

use std::{fmt, sync::Arc, time::Duration};

use fastrand::Rng;
use permcached::{app::App, check::Consistency, freshness::LocalTime, question::Tier, source::Deadline};
use tokio::time::{Instant, sleep, timeout};

pub use self::{
    instances::InstanceFault,
    links::{Between, LinkFault},
    nodes::NodeFault,
    redis::RedisFault,
};
use super::{
    INSTANCES_ALONE, INSTANCES_SHARED,
    run::{Plan, REGISTERS_OF_A_KIND, Run},
};
use crate::support::{
    links::Links,
    redis::Redis,
    replica_set::{NODES, ReplicaSet},
};

/// How much longer than the recovery it may take until there is one leader again. A leader that could not publish leaves
/// the lease to others for five seconds.
const PAUSE: Duration = Duration::from_secs(5);

/// How long the requests of change streams are counted to see which instances run one. A stream sends ten a second.
const LOOK: Duration = Duration::from_millis(500);

/// How long a request may take after a fault.
const REQUEST_TIME: Duration = Duration::from_secs(1);

/// How long a fault of the long form lasts if any length is possible, in milliseconds: for many of them, longer than the bound.
const SHORT_MS: std::ops::Range<u64> = 300..3_000;

/// How long to wait between two attempts.
const POLL: Duration = Duration::from_millis(20);

/// The servers that faults happen to.
pub struct Servers {
    pub set: ReplicaSet,
    /// The Redis that the instances share, if they do.
    pub redis: Option<Redis>,
    /// The links of each instance.
    pub links: Arc<Vec<Links>>,
}

impl Servers {
    /// A replica set and a Redis, which three instances reach over links.
    pub async fn start() -> Self {
        let (set, redis) = (ReplicaSet::start().await, Redis::start(&[]));
        let mut links = Vec::new();
        for instance in 0..INSTANCES_SHARED {
            links.push(Links::start(instance, &set, Some(&redis)).await);
        }
        Self { set, redis: Some(redis), links: Arc::new(links) }
    }

    /// A replica set, which two instances reach over links.
    pub async fn without_redis() -> Self {
        let set = ReplicaSet::start().await;
        let mut links = Vec::new();
        for instance in 0..INSTANCES_ALONE {
            links.push(Links::start(instance, &set, None).await);
        }
        Self { set, redis: None, links: Arc::new(links) }
    }

    /// One instance for the links of each.
    pub fn plan(&self, seed: u64, recovery_max: Duration) -> Plan {
        Plan { seed, links: Arc::clone(&self.links), recovery_max }
    }
}

/// What a fault happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Node(NodeFault),
    Redis(RedisFault),
    Instance(InstanceFault),
    Link(LinkFault, Between),
    /// A replica of Redis takes its place.
    RedisSwitched,
}

impl Fault {
    /// Its kind, for the report.
    fn as_str(self) -> &'static str {
        match self {
            Self::Node(fault) => fault.as_str(),
            Self::Redis(fault) => fault.as_str(),
            Self::Instance(fault) => fault.as_str(),
            Self::Link(fault, _) => fault.as_str(),
            Self::RedisSwitched => "Redis switched to a replica",
        }
    }

    /// Causes the fault, for as long as `lasts` if any length is possible, and undoes it. Returns a note for the report.
    async fn inflict(self, Servers { set, redis, links }: &mut Servers, lasts: Duration, run: &Run) -> String {
        const SHARED: &str = "a plan with faults of Redis has a Redis";
        match self {
            Self::Node(fault) => fault.inflict(set, lasts, run).await,
            Self::Redis(fault) => fault.inflict(redis.as_mut().expect(SHARED), lasts).await,
            Self::Instance(fault) => fault.inflict(redis.as_mut(), lasts, run).await,
            Self::Link(fault, between) => fault.inflict(between, links, lasts).await,
            Self::RedisSwitched => links::switch_redis(redis.as_mut().expect(SHARED), links, lasts).await,
        }
    }
}

/// A fault of what the instances share, or of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedFault {
    Redis(RedisFault),
    Instance(InstanceFault),
    /// A replica of Redis takes its place.
    Switched,
}

impl SharedFault {
    fn as_str(self) -> &'static str {
        match self {
            Self::Redis(fault) => fault.as_str(),
            Self::Instance(fault) => fault.as_str(),
            Self::Switched => Fault::RedisSwitched.as_str(),
        }
    }
}

/// Faults that happen at the same time: at most one of a node, and some of everything else, one after the other.
#[derive(Debug, Default)]
pub struct Round {
    node: Option<(NodeFault, Duration)>,
    shared: Vec<(SharedFault, Duration)>,
    links: Vec<(LinkFault, Between, Duration)>,
}

/// The rounds in which each fault happens `times` times, in an order that follows from `rng`.
pub fn schedule(rng: &mut Rng, times: usize) -> Vec<Round> {
    fn repeated<T: Copy>(rng: &mut Rng, all: &[T], times: usize) -> Vec<T> {
        let mut list: Vec<T> = (0..times).flat_map(|_| all.iter().copied()).collect();
        rng.shuffle(&mut list);
        list
    }
    let shared: Vec<SharedFault> = RedisFault::ALL
        .map(SharedFault::Redis)
        .into_iter()
        .chain(InstanceFault::ALL.map(SharedFault::Instance))
        .chain([SharedFault::Switched])
        .collect();
    let nodes = repeated(rng, &NodeFault::ALL, times);
    let mut shared = repeated(rng, &shared, times);
    let mut of_links = repeated(rng, &LinkFault::ALL, times);
    // The check that an oplog that has rolled over was noticed is about these instances and what they can hear.
    let together = nodes.iter().filter(|fault| **fault != NodeFault::RolledOver).count();
    let (shared_max, links_max) = (shared.len().div_ceil(together), of_links.len().div_ceil(together));
    let short = |rng: &mut Rng| Duration::from_millis(rng.u64(SHORT_MS));
    let rounds = nodes.into_iter().map(|node| {
        let lasts = short(rng);
        if node == NodeFault::RolledOver {
            return Round { node: Some((node, lasts)), ..Round::default() };
        }
        let shared = shared.drain(..shared_max.min(shared.len())).map(|fault| (fault, short(rng))).collect();
        let mut between = || Between::at_random(rng, INSTANCES_SHARED, NODES);
        let of_links: Vec<_> =
            of_links.drain(..links_max.min(of_links.len())).map(|fault| (fault, between())).collect();
        let links = of_links.into_iter().map(|(fault, between)| (fault, between, short(rng))).collect();
        Round { node: Some((node, lasts)), shared, links }
    });
    rounds.collect()
}

/// How long an instance took until it answered from MongoDB, and until it had recovered.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    pub answered: Duration,
    pub in_all: Duration,
}

/// One fault that the instances went through.
#[derive(Debug)]
pub struct FaultReport {
    pub kind: &'static str,
    note: String,
    /// The time from its beginning until all nodes of the set ran again.
    took: Duration,
    /// How long each instance took to recover.
    pub recovered: Vec<Recovery>,
    /// How long it took until there was one leader again.
    pub settled: Option<Duration>,
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recovered: Vec<String> = self
            .recovered
            .iter()
            .map(|Recovery { answered, in_all }| format!("{in_all:.1?} (answers after {answered:.1?})"))
            .collect();
        write!(f, "{:>6.1?}  {}, {}; recovered in {}", self.took, self.kind, self.note, recovered.join(", "))?;
        self.settled.map_or(Ok(()), |settled| write!(f, "; one stream after {settled:.1?}"))
    }
}

/// Causes a fault and undoes it. Waits until the instances have recovered, and the set.
pub async fn go_through(run: &Arc<Run>, servers: &mut Servers, fault: Fault, lasts: Duration) {
    let (kind, started) = (fault.as_str(), Instant::now());
    run.tally().begin_fault(kind);
    let note = fault.inflict(servers, lasts, run).await;
    recover(run, servers, started, vec![(kind, note)]).await;
}

/// Causes the faults of a round at once, each list one after the other, and undoes them. Waits as [`go_through`].
pub async fn go_through_round(run: &Arc<Run>, servers: &mut Servers, round: Round) {
    let started = Instant::now();
    let Servers { set, redis, links } = servers;
    let kind = round.node.map(|(fault, _)| fault.as_str()).or(round.shared.first().map(|(fault, _)| fault.as_str()));
    run.tally().begin_fault(kind.or(round.links.first().map(|(fault, ..)| fault.as_str())).unwrap_or("nothing"));
    let node = async {
        match round.node {
            Some((fault, lasts)) => Some((fault.as_str(), fault.inflict(set, lasts, run).await)),
            None => None,
        }
    };
    let shared = async {
        let mut notes = Vec::new();
        let redis = redis.as_mut().expect("rounds are for instances that share a Redis");
        for (fault, lasts) in &round.shared {
            let note = match fault {
                SharedFault::Redis(fault) => fault.inflict(redis, *lasts).await,
                SharedFault::Instance(fault) => fault.inflict(Some(&mut *redis), *lasts, run).await,
                SharedFault::Switched => links::switch_redis(redis, links, *lasts).await,
            };
            notes.push((fault.as_str(), note));
        }
        notes
    };
    let of_links = async {
        let mut notes = Vec::new();
        for (fault, between, lasts) in &round.links {
            notes.push((fault.as_str(), fault.inflict(*between, links, *lasts).await));
        }
        notes
    };
    let (node, shared, of_links) = tokio::join!(node, shared, of_links);
    let notes = node.into_iter().chain(shared).chain(of_links).collect();
    recover(run, servers, started, notes).await;
}

/// Waits until the instances have recovered from faults of these kinds, with notes, and the set.
async fn recover(run: &Arc<Run>, servers: &mut Servers, started: Instant, faults: Vec<(&'static str, String)>) {
    servers.set.primary().await;
    let recoveries = futures::future::join_all((0..run.count()).map(|instance| recovered(run, instance)));
    let (recovered, settled) = tokio::join!(recoveries, settled(run));
    for (instance, recovered) in recovered.iter().enumerate() {
        if let Err(stages) = recovered {
            let time = run.recovery_max;
            let stages = format!("it has got through these stages: {stages:.1?}");
            run.tally().violated(format!("instance {instance} has not recovered after {time:?}, {stages}: {faults:?}"));
        }
    }
    if let Err(streams) = &settled {
        run.tally().violated(format!("{streams:?} run a change stream, and not one of them for all: {faults:?}"));
    }
    run.tally().end_fault();
    servers.set.whole().await;
    let recovered: Vec<_> = recovered.into_iter().flatten().collect();
    let (settled, took) = (settled.ok().flatten(), started.elapsed());
    for (kind, note) in faults {
        run.tally().report(FaultReport { kind, note, took, recovered: recovered.clone(), settled });
    }
}

/// How long it takes until an instance answers about one register of each kind from MongoDB, then from memory, and has
/// applied everything that was written by then. If that does not happen in time, the stages that it has got through.
async fn recovered(run: &Run, instance: usize) -> Result<Recovery, Vec<Duration>> {
    let registers = (0..run.registers.len()).step_by(REGISTERS_OF_A_KIND);
    let questions: Vec<_> = registers.map(|register| run.question(register, 0)).collect();
    let instance = run.instance(instance);
    let checker = &instance.app.checker;
    let started = Instant::now();
    let mut stages = Vec::new();
    let recovering = async {
        for consistency in [Consistency::FullyConsistent, Consistency::MinimizeLatency] {
            loop {
                let results = checker.check(&questions, consistency, Deadline::after(REQUEST_TIME)).await;
                // Facts whose documents change meanwhile are read, and the others show that memory serves.
                let is_served = consistency == Consistency::FullyConsistent
                    || results.iter().flatten().any(|checked| checked.tier == Tier::Memory);
                if is_served && results.iter().all(Result::is_ok) {
                    break;
                }
                sleep(POLL).await;
            }
            stages.push(started.elapsed());
        }
        // Memory serves facts that were just read even if the instance applies no changes any more, so that is tested by
        // itself.
        caught_up(&instance.app).await;
    };
    let is_in_time = timeout(run.recovery_max, recovering).await.is_ok();
    match stages.first() {
        Some(answered) if is_in_time => Ok(Recovery { in_all: started.elapsed(), answered: *answered }),
        _ => Err(stages),
    }
}

/// Waits until an instance has applied everything up to a moment that MongoDB reached after the call.
async fn caught_up(app: &App) {
    let began = LocalTime::now();
    let now = loop {
        if let Ok(probe) = app.prober.probe_since(began, Deadline::after(REQUEST_TIME)).await {
            break probe.moment;
        }
        sleep(POLL).await;
    };
    while app.freshness.watermark() < now {
        sleep(POLL).await;
    }
}

/// How long it takes until only one instance runs a change stream. If that does not happen in time, the instances that run
/// one. Instances that share no Redis each run their own; then this is none.
pub async fn settled(run: &Run) -> Result<Option<Duration>, Vec<usize>> {
    if !run.is_shared() {
        return Ok(None);
    }
    let started = Instant::now();
    loop {
        let followers = followers(run).await;
        let took = started.elapsed();
        match followers.len() {
            1 => return Ok(Some(took.saturating_sub(LOOK))),
            _ if took > run.recovery_max + PAUSE => return Err(followers),
            _ => {}
        }
    }
}

/// The instances that run a change stream of their own.
async fn followers(run: &Run) -> Vec<usize> {
    let asked = || (0..run.count()).map(|instance| run.instance(instance).asked()).collect::<Vec<_>>();
    let before = asked();
    sleep(LOOK).await;
    let follows = |(instance, (before, after)): (usize, (u64, u64))| (before < after).then_some(instance);
    before.into_iter().zip(asked()).enumerate().filter_map(follows).collect()
}
