//! Faults: what is done to the servers and the instances while these are asked. After each fault the instances must recover
//! by themselves: they answer again, memory serves again, every change is applied, and instances that share a Redis have
//! one change stream.
//!
//! Does not judge the answers that they give meanwhile.

mod instances;
mod nodes;
mod redis;

use std::{fmt, sync::Arc, time::Duration};

use fastrand::Rng;
use permcached::{app::App, check::Consistency, freshness::LocalTime, question::Tier, source::Deadline};
use tokio::time::{Instant, sleep, timeout};

pub use self::{instances::InstanceFault, nodes::NodeFault, redis::RedisFault};
use super::{
    INSTANCES_SHARED,
    run::{Plan, REGISTERS_OF_A_KIND, Run},
};
use crate::support::{redis::Redis, replica_set::ReplicaSet};

/// How much longer than the recovery it may take until there is one leader again. A leader that could not publish leaves
/// the lease to others for five seconds.
const PAUSE: Duration = Duration::from_secs(5);

/// How long the requests of change streams are counted to see which instances run one. A stream sends ten a second.
const LOOK: Duration = Duration::from_millis(500);

/// How long a request may take after a fault.
const REQUEST_TIME: Duration = Duration::from_secs(1);

/// How long to wait between two attempts.
const POLL: Duration = Duration::from_millis(20);

/// The servers that faults happen to.
pub struct Servers {
    pub set: ReplicaSet,
    /// The Redis that the instances share, if they do.
    pub redis: Option<Redis>,
}

impl Servers {
    /// A replica set and a Redis.
    pub async fn start() -> Self {
        Self { set: ReplicaSet::start().await, redis: Some(Redis::start(&[])) }
    }

    /// Three instances that share the Redis.
    pub fn plan(&self, seed: u64, recovery_max: Duration) -> Plan {
        Plan { seed, instances: INSTANCES_SHARED, redis: self.redis.as_ref().map(Redis::url), recovery_max }
    }
}

/// What a fault happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Node(NodeFault),
    Redis(RedisFault),
    Instance(InstanceFault),
    /// A node and Redis at once.
    Both(NodeFault, RedisFault),
}

impl Fault {
    /// Its kind, for the report.
    fn as_str(self) -> &'static str {
        match self {
            Self::Node(fault) => fault.as_str(),
            Self::Redis(fault) => fault.as_str(),
            Self::Instance(fault) => fault.as_str(),
            Self::Both(..) => "a node and Redis at once",
        }
    }

    /// Causes the fault, for as long as `lasts` if any length is possible, and undoes it. Returns a note for the report.
    async fn inflict(self, Servers { set, redis }: &mut Servers, lasts: Duration, run: &Run) -> String {
        const SHARED: &str = "a plan with faults of Redis has a Redis";
        match self {
            Self::Node(fault) => fault.inflict(set, lasts, run).await,
            Self::Redis(fault) => fault.inflict(redis.as_mut().expect(SHARED), lasts).await,
            Self::Instance(fault) => fault.inflict(redis.as_mut(), lasts, run).await,
            Self::Both(node, other) => {
                let redis = redis.as_mut().expect(SHARED);
                let (first, second) = tokio::join!(node.inflict(set, lasts, run), other.inflict(redis, lasts));
                format!("{}: {first}; {}: {second}", node.as_str(), other.as_str())
            }
        }
    }
}

/// One fault that the instances went through.
#[derive(Debug)]
pub struct FaultReport {
    pub kind: &'static str,
    note: String,
    /// The time from its beginning until all nodes of the set ran again.
    took: Duration,
    /// How long each instance took to recover.
    pub recovered: Vec<Duration>,
    /// How long it took until there was one leader again.
    pub settled: Option<Duration>,
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recovered: Vec<String> = self.recovered.iter().map(|time| format!("{time:.1?}")).collect();
        write!(f, "{:>6.1?}  {}, {}; recovered in {}", self.took, self.kind, self.note, recovered.join(", "))?;
        self.settled.map_or(Ok(()), |settled| write!(f, "; one stream after {settled:.1?}"))
    }
}

/// Causes a fault and undoes it. Waits until the instances have recovered, and the set.
pub async fn go_through(run: &Arc<Run>, servers: &mut Servers, fault: Fault, lasts: Duration) {
    let (kind, started) = (fault.as_str(), Instant::now());
    run.tally().begin_fault(kind);
    let note = fault.inflict(servers, lasts, run).await;
    servers.set.primary().await;
    let recoveries = futures::future::join_all((0..run.count()).map(|instance| recovered(run, instance)));
    let (recovered, settled) = tokio::join!(recoveries, settled(run));
    for (instance, _) in recovered.iter().enumerate().filter(|(_, time)| time.is_none()) {
        let time = run.recovery_max;
        run.tally().violated(format!("instance {instance} has not recovered after {time:?}: {kind}, {note}"));
    }
    if let Err(streams) = &settled {
        run.tally().violated(format!("{streams:?} run a change stream, and not one of them for all: {kind}, {note}"));
    }
    run.tally().end_fault();
    servers.set.whole().await;
    let (recovered, settled) = (recovered.into_iter().flatten().collect(), settled.ok().flatten());
    run.tally().report(FaultReport { kind, note, took: started.elapsed(), recovered, settled });
}

/// How long it takes until an instance answers about one register of each kind from MongoDB and from memory, and has
/// applied everything that was written by then.
async fn recovered(run: &Run, instance: usize) -> Option<Duration> {
    let registers = (0..run.registers.len()).step_by(REGISTERS_OF_A_KIND);
    let questions: Vec<_> = registers.map(|register| run.question(register, 0)).collect();
    let instance = run.instance(instance);
    let checker = &instance.app.checker;
    let started = Instant::now();
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
        }
        // Memory serves facts that were just read even if the instance applies no changes any more, so that is tested by
        // itself.
        caught_up(&instance.app).await;
    };
    timeout(run.recovery_max, recovering).await.ok().map(|()| started.elapsed())
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

/// A random fault, and how long it lasts if any length is possible.
pub fn at_random(rng: &mut Rng, lasts_max: Duration) -> (Fault, Duration) {
    let (node, lasts) = nodes::at_random(rng, lasts_max);
    let redis = RedisFault::ALL[rng.usize(..RedisFault::ALL.len())];
    let instance = InstanceFault::ALL[rng.usize(..InstanceFault::ALL.len())];
    match rng.u8(..10) {
        0..5 => (Fault::Redis(redis), redis.lasts(rng)),
        5 => (Fault::Both(node, redis), redis.lasts(rng)),
        6..8 => (Fault::Instance(instance), redis.lasts(rng)),
        _ => (Fault::Node(node), lasts),
    }
}
