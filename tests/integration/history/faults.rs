//! Faults: what is done to the nodes of a set while its instances are asked, and that they recover by themselves: that they
//! answer, remember and follow again.
//!
//! Whether what they answer meanwhile is right is not judged here.

use std::{fmt, sync::Arc, time::Duration};

use bson::{Bson, Document, Timestamp, doc};
use fastrand::Rng;
use permcached::{
    check::{Checker, Demand},
    freshness::{LocalTime, Moment},
    question::Tier,
    source::Deadline,
};
use tokio::time::{Instant, sleep, timeout};

use super::run::{APP_NAME, REGISTERS_OF_A_KIND, Run};
use crate::support::replica_set::{NODES, ReplicaSet};

/// How long every instance may take, once the set has a primary and nothing is done to it any more, until it answers as it
/// did before, from MongoDB and from memory, and has heard what was written by then.
pub const RECOVERY_MAX: Duration = Duration::from_secs(10);

/// How long a request may take after a fault.
const REQUEST_TIME: Duration = Duration::from_secs(1);

/// How long to wait between two looks.
const POLL: Duration = Duration::from_millis(20);

/// How long the oplog may take to roll over, and the instances to notice that it has.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long streams fail at least before what they have not heard is taken for lost: far longer than a command of theirs that
/// was under way when they began to fail.
const OUTAGE_MIN: Duration = Duration::from_secs(3);

/// What the oplog is filled with at once: a good part of what it holds.
const FILLER_DOCUMENTS: usize = 16;
const FILLER_BYTES: usize = 64 * 1_024;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The primary is killed, and started again once another one is elected.
    Killed,
    /// The primary steps down and does not replicate for a while, so that it lags while it answers.
    SteppedDown,
    /// The primary is frozen until another one is elected and a while longer, and thawed.
    Frozen,
    /// The instances hear nothing until the oplog holds nothing of what they have heard.
    RolledOver,
    /// All nodes are frozen.
    AllFrozen,
    /// All nodes are killed.
    AllKilled,
}

impl Fault {
    const ALL: [Self; 6] =
        [Self::Killed, Self::SteppedDown, Self::Frozen, Self::RolledOver, Self::AllFrozen, Self::AllKilled];

    fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "the primary killed",
            Self::SteppedDown => "the primary stepped down and stalled",
            Self::Frozen => "the primary frozen",
            Self::RolledOver => "the oplog rolled over",
            Self::AllFrozen => "all nodes frozen",
            Self::AllKilled => "all nodes killed",
        }
    }

    /// Does it, for as long as `lasts` where it could be of any length, and undoes it. Says what else there is to know.
    async fn inflict(self, set: &mut ReplicaSet, lasts: Duration, run: &Run) -> String {
        let primary = set.primary().await;
        match self {
            Self::Killed => {
                set.kill(primary);
                let elected = until_another(set, primary).await;
                set.start_again();
                elected
            }
            Self::SteppedDown => stepped_down(set, primary, lasts).await,
            Self::Frozen => {
                set.freeze(primary);
                let elected = until_another(set, primary).await;
                sleep(lasts).await;
                set.thaw(primary);
                format!("{elected}, thawed {lasts:.1?} later")
            }
            Self::RolledOver => loop {
                let primary = set.primary().await;
                if let Some(what) = rolled_over(set, primary, run).await {
                    break what;
                }
            },
            Self::AllFrozen => {
                (0..NODES).for_each(|node| set.freeze(node));
                sleep(lasts).await;
                (0..NODES).for_each(|node| set.thaw(node));
                format!("for {lasts:.1?}")
            }
            Self::AllKilled => {
                (0..NODES).for_each(|node| set.kill(node));
                sleep(lasts).await;
                set.start_again();
                format!("for {lasts:.1?}")
            }
        }
    }
}

/// What a run has come through.
#[derive(Debug)]
pub struct Suffered {
    fault: Fault,
    note: String,
    /// From its beginning until the set was whole again.
    took: Duration,
    /// After which time each instance answered again.
    recovered: Vec<Duration>,
}

impl fmt::Display for Suffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recovered: Vec<String> = self.recovered.iter().map(|time| format!("{time:.1?}")).collect();
        write!(f, "{:>6.1?}  {}, {}; recovered in {}", self.took, self.fault.as_str(), self.note, recovered.join(", "))
    }
}

/// Does something to the set and undoes it; waits until the instances have recovered, and the set.
pub async fn suffer(run: &Arc<Run>, set: &mut ReplicaSet, fault: Fault, lasts: Duration) {
    let started = Instant::now();
    let note = fault.inflict(set, lasts, run).await;
    set.primary().await;
    let recoveries = (0..run.instances.len()).map(|instance| recovered(run, instance));
    let recovered = futures::future::join_all(recoveries).await;
    for (instance, time) in recovered.iter().enumerate() {
        if time.is_none() {
            let what = fault.as_str();
            run.tally()
                .violated(format!("instance {instance} has not recovered after {RECOVERY_MAX:?}: {what}, {note}"));
        }
    }
    set.whole().await;
    let recovered = recovered.into_iter().flatten().collect();
    run.tally().suffered(Suffered { fault, note, took: started.elapsed(), recovered });
}

/// How long it takes until one register of each kind is answered from MongoDB and from memory, and the instance has heard
/// all that was written by then.
async fn recovered(run: &Run, instance: usize) -> Option<Duration> {
    let registers = (0..run.registers.len()).step_by(REGISTERS_OF_A_KIND);
    let questions: Vec<_> = registers.map(|register| run.question(register, 0)).collect();
    let checker = &run.instances[instance].checker;
    let started = Instant::now();
    let recovering = async {
        for demand in [Demand::FullyConsistent, Demand::MinimizeLatency] {
            loop {
                let results = checker.check(&questions, demand, Deadline::after(REQUEST_TIME)).await;
                // Those whose documents change meanwhile are read, and the others show that memory serves.
                let is_remembered = demand == Demand::FullyConsistent
                    || results.iter().flatten().any(|checked| checked.tier == Tier::Memory);
                if is_remembered && results.iter().all(Result::is_ok) {
                    break;
                }
                sleep(POLL).await;
            }
        }
        // What was just read is served from memory for a while though nothing is heard any more: that is looked at by itself.
        hears(checker).await;
    };
    timeout(RECOVERY_MAX, recovering).await.ok().map(|()| started.elapsed())
}

/// Waits until an instance has heard everything up to a moment that MongoDB has only now reached.
async fn hears(checker: &Checker) {
    let began = LocalTime::now();
    let now = loop {
        if let Ok(probe) = checker.prober().sent_since(began, Deadline::after(REQUEST_TIME)).await {
            break probe.moment;
        }
        sleep(POLL).await;
    };
    while checker.freshness().applied() < now {
        sleep(POLL).await;
    }
}

/// Waits for another primary.
async fn until_another(set: &ReplicaSet, primary: usize) -> String {
    let started = Instant::now();
    set.primary_other_than(Some(primary)).await;
    format!("another elected after {:.1?}", started.elapsed())
}

/// The old primary stays behind as a secondary that answers, on which the streams of the instances were.
async fn stepped_down(set: &ReplicaSet, primary: usize, lasts: Duration) -> String {
    const STALLS: [&str; 2] = ["rsSyncApplyStop", "stopReplProducer"];
    for stall in STALLS {
        set.fail(primary, stall, "alwaysOn", doc! {}).await;
    }
    set.step_down(primary).await;
    let elected = until_another(set, primary).await;
    let next = set.primary_other_than(Some(primary)).await;
    sleep(lasts).await;
    let lag = set.lag(primary, next).await;
    for stall in STALLS {
        set.fail(primary, stall, "off", doc! {}).await;
    }
    format!("{elected}, lagged by {lag} s")
}

/// The instances' streams fail on the primary until all that they have not heard is gone from its oplog. That one of them
/// does not notice then is a violation. Nothing comes back where another primary was elected meanwhile: on that one the
/// streams do not fail, and its oplog may reach further back.
async fn rolled_over(set: &ReplicaSet, primary: usize, run: &Run) -> Option<String> {
    let elected = term(set, primary).await;
    let data = doc! { "appName": APP_NAME, "failCommands": ["aggregate", "getMore"], "errorCode": 8 };
    set.fail(primary, "failCommand", "alwaysOn", data).await;
    let instances = || run.instances.iter().map(|instance| instance.checker.freshness());
    let applied = || instances().map(|freshness| freshness.applied()).max().unwrap_or_default();
    let filler = set.database(primary, "filler").collection::<Document>("filler");
    let documents = vec![doc! { "filler": "x".repeat(FILLER_BYTES) }; FILLER_DOCUMENTS];
    let rolling = async {
        let mut filled = Ok(());
        // Of a stream that fails no command has lasted this long: what has been applied now stays as it is.
        let surely = Instant::now() + OUTAGE_MIN;
        while filled.is_ok() && (Instant::now() < surely || oldest(set, primary).await <= applied()) {
            filled = filler.insert_many(&documents).await.map(drop);
        }
        filled.and(filler.drop().await)
    };
    let rolled = timeout(PATIENCE, rolling).await.expect("the oplog rolls over");
    let lost = applied();
    set.fail(primary, "failCommand", "off", doc! {}).await;
    rolled.ok()?;
    let noticing = async {
        while instances().any(|freshness| freshness.floor() <= lost) {
            sleep(POLL).await;
        }
    };
    let has_noticed = timeout(PATIENCE, noticing).await.is_ok();
    // Whoever is elected between may still have what this one has lost.
    let primary = set.primary().await;
    if term(set, primary).await != elected {
        return None;
    }
    if !has_noticed {
        run.tally().violated(format!("the oplog rolled over, and went unnoticed: a floor is not above {lost:?}"));
    }
    Some(if has_noticed { "each instance's floor rose" } else { "and went unnoticed" }.to_owned())
}

/// How often a primary has been elected, as far as a node knows.
async fn term(set: &ReplicaSet, node: usize) -> i64 {
    let status = set.run(node, doc! { "replSetGetStatus": 1 }).await;
    status.get_i64("term").expect("a set has terms")
}

/// The oldest moment of a node's oplog.
async fn oldest(set: &ReplicaSet, node: usize) -> Moment {
    let oplog = set.database(node, "local").collection::<Document>("oplog.rs");
    let first = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).await.expect("it can be read");
    match first.and_then(|entry| entry.get("ts").cloned()) {
        Some(Bson::Timestamp(Timestamp { time, increment })) => Moment::new(time, increment),
        other => panic!("no oplog: {other:?}"),
    }
}

/// A fault, and how long it lasts where it could be of any length. Every other frozen primary is thawed when another is elected.
pub fn at_random(rng: &mut Rng, lasts_max: Duration) -> (Fault, Duration) {
    let fault = Fault::ALL[rng.usize(..Fault::ALL.len())];
    let lasts = lasts_max.mul_f32(rng.f32());
    (fault, if fault == Fault::Frozen && rng.bool() { Duration::ZERO } else { lasts })
}
