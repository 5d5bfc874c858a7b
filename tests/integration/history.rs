//! The contract of `docs/freshness.md`, tried on a replica set of three nodes and on a Redis that are killed, frozen, cut off
//! and set back: writers change documents, checkers ask several instances in every consistency mode, and each answer is judged
//! by the history of acknowledged writes.
//!
//! What writers write, checkers ask and happens to the servers follows from one seed; when it happens, from the machine. In
//! reading order: `register`, `judge`, `hand_made` (its tests), `kinds`, `instances`, `run`, `writers`, `checkers`, `tally`,
//! `faults`.

mod checkers;
mod faults;
mod hand_made;
mod instances;
mod judge;
mod kinds;
mod register;
mod run;
mod tally;
mod writers;

use std::{env, time::Duration};

use fastrand::Rng;
use faults::{Fault, InstanceFault, NodeFault, RedisFault, Servers, at_random, settled, suffer};
use run::{Plan, Run};
use tally::{Mode, Tally};
use tokio::time::{Instant, sleep};

use crate::support::replica_set::ReplicaSet;

/// How many instances are asked that know nothing of each other.
const STRANGERS: usize = 2;

/// How many instances are asked that share a Redis.
const INSTANCES: usize = 3;

/// The seed of the short form, unless the environment names another.
const SEED: u64 = 1;

/// How long the long form takes, unless the environment says otherwise.
const SECONDS: u64 = 600;

/// How long a fault lasts that could be of any length: longer than the bound, and than an election.
const LASTS: Duration = Duration::from_secs(4);

/// What the short form goes through where there is no Redis. A primary that is thawed right when another one is elected has
/// the best chance to pass for the primary still.
const NODE_FAULTS: [(NodeFault, Duration); 7] = [
    (NodeFault::Killed, LASTS),
    (NodeFault::SteppedDown, LASTS),
    (NodeFault::Frozen, Duration::ZERO),
    (NodeFault::RolledOver, LASTS),
    (NodeFault::Frozen, LASTS),
    (NodeFault::AllFrozen, LASTS),
    (NodeFault::AllKilled, LASTS),
];

/// What the short form goes through where there is one.
const FAULTS: [(Fault, Duration); 7] = [
    (Fault::Redis(RedisFault::Frozen), Duration::from_secs(3)),
    (Fault::Redis(RedisFault::Unheard), Duration::from_millis(400)),
    (Fault::Instance(InstanceFault::BornLate), BRIEFLY),
    (Fault::Redis(RedisFault::Trimmed), Duration::from_millis(1_500)),
    (Fault::Redis(RedisFault::Strange), BRIEFLY),
    (Fault::Redis(RedisFault::Killed), BRIEFLY),
    (Fault::Instance(InstanceFault::LeaderEnded), BRIEFLY),
];

/// How long a fault lasts that only has to be noticed.
const BRIEFLY: Duration = Duration::from_millis(700);

/// As [`LASTS`], at most, in the long form.
const LASTS_MAX: Duration = Duration::from_secs(30);

/// How long instances may take to recover in the long form, which has the machine to itself.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

/// As [`RECOVERY_MAX`], in the short form, which runs beside other tests: there only what hangs takes as long.
const HANG: Duration = Duration::from_mins(1);

/// How long there is peace before a fault and after the last, so that what is remembered counts.
const PEACE: Duration = Duration::from_secs(1);

/// As many answers of each mode as show that it was tried.
const ANSWERS_MIN: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_wrong_whatever_happens_to_the_nodes() {
    let seed = from_environment("CHAOS_SEED").unwrap_or(SEED);
    let mut servers = Servers { set: ReplicaSet::start().await, redis: None };
    let plan = Plan { seed, instances: STRANGERS, redis: None, recovery_max: HANG };
    let tally = Run::during(&plan, uri_of(&servers.set), async |run| {
        for (fault, lasts) in NODE_FAULTS {
            sleep(PEACE).await;
            suffer(&run, &mut servers, Fault::Node(fault), lasts).await;
        }
        sleep(PEACE).await;
    })
    .await;
    judge(&plan, "no_answer_is_wrong_whatever_happens_to_the_nodes", &tally);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_wrong_whatever_happens_to_redis() {
    let seed = from_environment("CHAOS_SEED").unwrap_or(SEED);
    let mut servers = Servers::start().await;
    let plan = servers.plan(seed, HANG);
    let tally = Run::during(&plan, uri_of(&servers.set), async |run| {
        settled(&run).await.expect("one of them speaks for all");
        for (fault, lasts) in FAULTS {
            suffer(&run, &mut servers, fault, lasts).await;
        }
    })
    .await;
    judge(&plan, "no_answer_is_wrong_whatever_happens_to_redis", &tally);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes ten minutes: `make chaos`"]
async fn no_answer_is_wrong_at_length() {
    let seed = from_environment("CHAOS_SEED").unwrap_or_else(|| Rng::new().u64(..1_000_000));
    let lasts = Duration::from_secs(from_environment("CHAOS_SECONDS").unwrap_or(SECONDS));
    println!("seed {seed}, for {lasts:?}");
    let mut servers = Servers::start().await;
    let plan = servers.plan(seed, RECOVERY_MAX);
    let tally = Run::during(&plan, uri_of(&servers.set), async |run| {
        let mut rng = Rng::with_seed(seed);
        let started = Instant::now();
        while started.elapsed() < lasts {
            sleep(PEACE * rng.u32(1..10)).await;
            let (fault, lasts) = at_random(&mut rng, LASTS_MAX);
            suffer(&run, &mut servers, fault, lasts).await;
        }
        sleep(PEACE).await;
    })
    .await;
    judge(&plan, "no_answer_is_wrong_at_length -- --ignored", &tally);
}

/// Prints what was seen, and fails if an answer was wrong, or if too little was seen to tell.
fn judge(Plan { seed, instances, .. }: &Plan, test: &str, tally: &Tally) {
    println!("seed {seed}, {instances} instances, {tally}");
    let again = format!("again, though never quite the same: CHAOS_SEED={seed} cargo test --test integration {test}");
    assert_eq!(tally.violations(), 0, "answers were wrong: see above\n{again}");
    for mode in Mode::ALL {
        let judged = tally.of(mode);
        assert!(judged.allowed >= ANSWERS_MIN, "{}: {judged:?}", mode.as_str());
        assert!(judged.answers - judged.allowed >= ANSWERS_MIN, "{}: {judged:?}", mode.as_str());
    }
    assert!(tally.of(Mode::MinimizeLatency).from_memory >= ANSWERS_MIN, "memory serves nothing");
}

/// Where the set is found, as long as its nodes live.
fn uri_of(set: &ReplicaSet) -> impl Fn(&str) -> String + use<> {
    let uri = set.uri("");
    move |app_name| format!("{uri}{app_name}")
}

/// A number that the environment may set.
fn from_environment(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`: set it to a number")))
}
