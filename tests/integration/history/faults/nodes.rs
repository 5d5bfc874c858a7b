//! Faults of the nodes of a replica set.
//!
//! Does not wait for the instances' recovery; `faults` does.

use std::time::Duration;

use bson::{Bson, Document, Timestamp, doc};
use permcached::freshness::Moment;
use tokio::time::{Instant, sleep, timeout};

use super::POLL;
use crate::{
    history::{instances::APP_NAME, run::Run},
    support::replica_set::{NODES, ReplicaSet},
};

/// How long the oplog may take to roll over, and the instances to notice that it has.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long streams fail, at least, before the events that they have not shown count as lost: far longer than any of their
/// commands that was in progress when they began to fail.
const OUTAGE_MIN: Duration = Duration::from_secs(3);

/// How much is written to the oplog at once: a large part of its size.
const FILLER_DOCUMENTS: usize = 16;
const FILLER_BYTES: usize = 64 * 1_024;

/// What happens to the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeFault {
    /// The primary is killed, and started again once another one is elected.
    Killed,
    /// The primary steps down and does not replicate for a while, so that it lags while it answers.
    SteppedDown,
    /// The primary is frozen until another one is elected and a while longer, and thawed.
    Frozen,
    /// The instances' streams fail until the oplog contains nothing that the instances have applied.
    RolledOver,
    /// All nodes are frozen.
    AllFrozen,
    /// All nodes are killed.
    AllKilled,
}

impl NodeFault {
    pub(super) const ALL: [Self; 6] =
        [Self::Killed, Self::SteppedDown, Self::Frozen, Self::RolledOver, Self::AllFrozen, Self::AllKilled];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "the primary killed",
            Self::SteppedDown => "the primary stepped down and stalled",
            Self::Frozen => "the primary frozen",
            Self::RolledOver => "the oplog rolled over",
            Self::AllFrozen => "all nodes frozen",
            Self::AllKilled => "all nodes killed",
        }
    }

    /// Causes the fault, for as long as `lasts` if any length is possible, and undoes it. Returns a note for the report.
    pub(super) async fn inflict(self, set: &mut ReplicaSet, lasts: Duration, run: &Run) -> String {
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

/// Waits for another primary.
async fn until_another(set: &ReplicaSet, primary: usize) -> String {
    let started = Instant::now();
    set.primary_other_than(Some(primary)).await;
    format!("another elected after {:.1?}", started.elapsed())
}

/// The old primary, which the instances' streams use, becomes a secondary that answers and stays behind.
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

/// The instances' streams fail on the primary until its oplog no longer has the events that they have not shown. It is a
/// violation if an instance does not notice this. Returns none if another primary was elected meanwhile: on that one the
/// streams do not fail, and its oplog may reach further back.
async fn rolled_over(set: &ReplicaSet, primary: usize, run: &Run) -> Option<String> {
    let elected = term(set, primary).await;
    let data = doc! { "appName": APP_NAME, "failCommands": ["aggregate", "getMore"], "errorCode": 8 };
    set.fail(primary, "failCommand", "alwaysOn", data).await;
    let instances = run.all();
    let freshness = || instances.iter().map(|instance| &instance.app.freshness);
    let applied = || freshness().map(|freshness| freshness.watermark()).max().unwrap_or_default();
    let filler = set.database(primary, "filler").collection::<Document>("filler");
    let documents = vec![doc! { "filler": "x".repeat(FILLER_BYTES) }; FILLER_DOCUMENTS];
    let rolling = async {
        let mut filled = Ok(());
        // By then no command that was sent before the failures can still return, so the watermarks stand still.
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
        while freshness().any(|freshness| freshness.floor() <= lost) {
            sleep(POLL).await;
        }
    };
    let has_noticed = timeout(PATIENCE, noticing).await.is_ok();
    // A primary that was elected meanwhile may still have the events that this one has lost.
    let primary = set.primary().await;
    if term(set, primary).await != elected {
        return None;
    }
    if !has_noticed {
        run.tally().violated(format!("the oplog rolled over unnoticed: a floor is not above {lost:?}"));
    }
    Some(if has_noticed { "each instance's floor rose" } else { "unnoticed" }.to_owned())
}

/// The term of the replica set, according to a node: each election increments it.
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
