//! Faults: what is done to the servers and the instances while these are asked, and that they recover by themselves: that
//! they answer, remember and follow again, and that one change stream is open for all who share a Redis.
//!
//! Whether what they answer meanwhile is right is not judged here.

mod instances;
mod nodes;
mod redis;

use std::{fmt, sync::Arc, time::Duration};

use fastrand::Rng;
use permcached::{app::App, check::Consistency, freshness::LocalTime, question::Tier, source::Deadline};
use tokio::time::{Instant, sleep, timeout};

pub use self::{instances::InstanceFault, nodes::NodeFault, redis::RedisFault};
use super::{
    INSTANCES,
    run::{Plan, REGISTERS_OF_A_KIND, Run},
};
use crate::support::{redis::Redis, replica_set::ReplicaSet};

/// How much longer than the recovery it may take until one instance speaks for all again. Who could not speak leaves it to
/// others for five seconds.
const PAUSE: Duration = Duration::from_secs(5);

/// How long it is looked who follows: a stream is asked ten times a second.
const LOOK: Duration = Duration::from_millis(500);

/// How long a request may take after a fault.
const REQUEST_TIME: Duration = Duration::from_secs(1);

/// How long to wait between two looks.
const POLL: Duration = Duration::from_millis(20);

/// The servers that are harmed.
pub struct Servers {
    pub set: ReplicaSet,
    /// What the instances share, if they do.
    pub redis: Option<Redis>,
}

impl Servers {
    /// A replica set and a Redis.
    pub async fn start() -> Self {
        Self { set: ReplicaSet::start().await, redis: Some(Redis::start(&[])) }
    }

    /// Three instances that share the Redis.
    pub fn plan(&self, seed: u64, recovery_max: Duration) -> Plan {
        Plan { seed, instances: INSTANCES, redis: self.redis.as_ref().map(Redis::url), recovery_max }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Node(NodeFault),
    Redis(RedisFault),
    Instance(InstanceFault),
    /// To the nodes and to Redis at once.
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

    /// Does it, for as long as `lasts` where it could be of any length, and undoes it. Says what else there is to know.
    async fn inflict(self, Servers { set, redis }: &mut Servers, lasts: Duration, run: &Run) -> String {
        const SHARED: &str = "there is a Redis where it is to be harmed";
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

/// What a run has come through.
#[derive(Debug)]
pub struct Suffered {
    pub kind: &'static str,
    note: String,
    /// From its beginning until the set was whole again.
    took: Duration,
    /// After which time each instance answered again.
    pub recovered: Vec<Duration>,
    /// After which time one of them spoke for all again.
    pub settled: Option<Duration>,
}

impl fmt::Display for Suffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recovered: Vec<String> = self.recovered.iter().map(|time| format!("{time:.1?}")).collect();
        write!(f, "{:>6.1?}  {}, {}; recovered in {}", self.took, self.kind, self.note, recovered.join(", "))?;
        self.settled.map_or(Ok(()), |settled| write!(f, "; one stream after {settled:.1?}"))
    }
}

/// Does something and undoes it; waits until the instances have recovered, and the set.
pub async fn suffer(run: &Arc<Run>, servers: &mut Servers, fault: Fault, lasts: Duration) {
    let (kind, started) = (fault.as_str(), Instant::now());
    run.tally().suffers(Some(kind));
    let note = fault.inflict(servers, lasts, run).await;
    servers.set.primary().await;
    let recoveries = futures::future::join_all((0..run.count()).map(|instance| recovered(run, instance)));
    let (recovered, settled) = tokio::join!(recoveries, settled(run));
    for (instance, _) in recovered.iter().enumerate().filter(|(_, time)| time.is_none()) {
        let time = run.recovery_max;
        run.tally().violated(format!("instance {instance} has not recovered after {time:?}: {kind}, {note}"));
    }
    if let Err(streams) = &settled {
        run.tally().violated(format!("{streams:?} follow MongoDB still, and not one for all: {kind}, {note}"));
    }
    run.tally().suffers(None);
    servers.set.whole().await;
    let (recovered, settled) = (recovered.into_iter().flatten().collect(), settled.ok().flatten());
    run.tally().suffered(Suffered { kind, note, took: started.elapsed(), recovered, settled });
}

/// How long it takes until one register of each kind is answered from MongoDB and from memory, and the instance has heard
/// all that was written by then.
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
                // Those whose documents change meanwhile are read, and the others show that memory serves.
                let is_remembered = consistency == Consistency::FullyConsistent
                    || results.iter().flatten().any(|checked| checked.tier == Tier::Memory);
                if is_remembered && results.iter().all(Result::is_ok) {
                    break;
                }
                sleep(POLL).await;
            }
        }
        // What was just read is served from memory for a while though nothing is heard any more: that is looked at by itself.
        hears(&instance.app).await;
    };
    timeout(run.recovery_max, recovering).await.ok().map(|()| started.elapsed())
}

/// Waits until an instance has heard everything up to a moment that MongoDB has only now reached.
async fn hears(app: &App) {
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

/// How long it takes until one instance follows MongoDB for all; which do, if that does not come about. Where they share no
/// Redis each follows by itself.
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

/// The instances that follow MongoDB by themselves.
async fn followers(run: &Run) -> Vec<usize> {
    let asked = || (0..run.count()).map(|instance| run.instance(instance).asked()).collect::<Vec<_>>();
    let before = asked();
    sleep(LOOK).await;
    let follows = |(instance, (before, after)): (usize, (u64, u64))| (before < after).then_some(instance);
    before.into_iter().zip(asked()).enumerate().filter_map(follows).collect()
}

/// A fault, and how long it lasts where it could be of any length.
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
