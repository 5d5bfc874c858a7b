//! The history checker: it tests the contract of docs/freshness.md on a replica set of three nodes and on a Redis that are
//! killed, frozen, cut off and reset. Writers change documents, checkers ask several instances in every consistency mode, and
//! the judge compares each answer with the history of acknowledged writes.
//!
//! Does not control the timing. One seed (`CHAOS_SEED`) determines the writes, the questions and the faults; when they happen
//! depends on the machine. In reading order: `register`, `judge`, `hand_made` (its tests), `kinds`, `instances`,
//! `run`, `writers`, `lists`, `checkers`, `tally`, `faults`.

mod checkers;
mod faults;
mod half_open;
mod hand_made;
mod instances;
mod judge;
mod kinds;
mod lists;
mod register;
mod run;
mod soak;
mod tally;
mod watching;
mod writers;

use std::{env, time::Duration};

use fastrand::Rng;
use faults::{
    Between, Fault, InstanceFault, LinkFault, NodeFault, RedisFault, Servers, go_through, go_through_round, schedule,
    settled,
};
use run::{Plan, Run};
use tally::{Mode, Tally};
use tokio::time::{Instant, sleep};

use crate::support::replica_set::ReplicaSet;

/// How many instances are asked if they do not know of each other.
const INSTANCES_ALONE: usize = 2;

/// How many instances are asked if they share a Redis.
const INSTANCES_SHARED: usize = 3;

/// The seed of the short form, unless the environment sets another.
const SEED: u64 = 1;

/// How long the long form takes, unless the environment sets another length.
const SECONDS: u64 = 600;

/// How long a fault lasts if any length is possible: longer than the bound, and longer than an election.
const LASTS: Duration = Duration::from_secs(4);

/// The faults of the short form without Redis. A primary that is thawed just when another one is elected is the most likely
/// to be taken for the primary still.
const NODE_FAULTS: [(NodeFault, Duration); 7] = [
    (NodeFault::Killed, LASTS),
    (NodeFault::SteppedDown, LASTS),
    (NodeFault::Frozen, Duration::ZERO),
    (NodeFault::RolledOver, LASTS),
    (NodeFault::Frozen, LASTS),
    (NodeFault::AllFrozen, LASTS),
    (NodeFault::AllKilled, LASTS),
];

/// The faults of the short form with Redis and three instances.
const FAULTS: [(Fault, Duration); 13] = [
    (Fault::Redis(RedisFault::Frozen), Duration::from_secs(3)),
    (Fault::Redis(RedisFault::ChangeBatchesLost), Duration::from_millis(400)),
    (Fault::Instance(InstanceFault::OldLogRestored), BRIEFLY),
    (Fault::Redis(RedisFault::Trimmed), Duration::from_millis(1_500)),
    (Fault::Redis(RedisFault::FutureMoments), BRIEFLY),
    (Fault::Redis(RedisFault::Killed), BRIEFLY),
    (Fault::Instance(InstanceFault::LeaderStopped), BRIEFLY),
    (Fault::Link(LinkFault::Lost, Between::InstanceAndAll(0)), Duration::from_secs(3)),
    (Fault::Link(LinkFault::WithheldToServer, Between::AllAndNodes), Duration::from_secs(3)),
    (Fault::RedisSwitched, BRIEFLY),
    (Fault::Instance(InstanceFault::LogExpired), BRIEFLY),
    (Fault::Node(NodeFault::RolledOver), BRIEFLY),
    (Fault::Link(LinkFault::Slow, Between::AllAndRedis), BRIEFLY),
];

/// How long a fault lasts if the instances only have to notice it.
const BRIEFLY: Duration = Duration::from_millis(700);

/// How often each fault happens in ten minutes of the long form.
const TIMES: usize = 10;

/// How long instances may take to recover in the long form, which has the machine to itself.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

/// The same in the short form, which runs beside other tests: only an instance that hangs takes that long.
const HANG: Duration = Duration::from_mins(1);

/// How long nothing is done to the servers before a fault and after the last one, so that cached facts count.
const QUIET: Duration = Duration::from_secs(1);

/// How many answers of each mode, allowed and denied, show that the mode was tested.
const ANSWERS_MIN: u64 = 20;

/// The same for resources of lists: a list is a request of its own, so there are fewer.
const LISTED_MIN: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_wrong_whatever_happens_to_the_nodes() {
    let seed = from_environment("CHAOS_SEED").unwrap_or(SEED);
    let mut servers = Servers::without_redis().await;
    let plan = servers.plan(seed, HANG);
    let tally = Run::during(&plan, uri_of(&servers.set), async |run| {
        for (fault, lasts) in NODE_FAULTS {
            sleep(QUIET).await;
            go_through(&run, &mut servers, Fault::Node(fault), lasts).await;
        }
        sleep(QUIET).await;
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
        settled(&run).await.expect("one of them leads");
        for (fault, lasts) in FAULTS {
            go_through(&run, &mut servers, fault, lasts).await;
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
        settled(&run).await.expect("one of them leads");
        let (started, mut has_repeated) = (Instant::now(), false);
        let mut rounds = schedule(&mut rng, TIMES).into_iter();
        // A run of the usual length ends once each fault has happened often enough.
        while started.elapsed() < lasts || (lasts.as_secs() >= SECONDS && rounds.len() > 0 && !has_repeated) {
            sleep(QUIET).await;
            let round = rounds.next().unwrap_or_else(|| {
                has_repeated = true;
                rounds = schedule(&mut rng, TIMES).into_iter();
                rounds.next().expect("a schedule has rounds")
            });
            go_through_round(&run, &mut servers, round).await;
        }
        sleep(QUIET).await;
    })
    .await;
    judge(&plan, "no_answer_is_wrong_at_length -- --ignored", &tally);
}

/// Prints the tally, and fails if an answer was wrong, or if a mode was tested too little.
fn judge(Plan { seed, links, .. }: &Plan, test: &str, tally: &Tally) {
    println!("seed {seed}, {} instances, {tally}", links.len());
    let again = format!("to repeat it, with other timing: CHAOS_SEED={seed} cargo test --test integration {test}");
    assert_eq!(tally.violations(), 0, "answers were wrong: see above\n{again}");
    for mode in Mode::ALL {
        let judged = tally.of(mode);
        assert!(judged.allowed >= ANSWERS_MIN, "{}: {judged:?}", mode.as_str());
        assert!(judged.answers - judged.allowed >= ANSWERS_MIN, "{}: {judged:?}", mode.as_str());
    }
    for mode in Mode::ALL.into_iter().filter(|_| *checkers::LISTS_PERCENT > 0) {
        let [listed, absent] = tally.lists(mode);
        assert!(listed >= LISTED_MIN && absent >= LISTED_MIN, "lists, {}: {listed} {absent}", mode.as_str());
    }
    assert!(tally.of(Mode::MinimizeLatency).from_memory >= ANSWERS_MIN, "memory serves nothing");
}

/// Makes the set's URI for a client of a given name. The URI stays valid as long as the set's nodes run.
fn uri_of(set: &ReplicaSet) -> impl Fn(&str) -> String + use<> {
    let uri = set.uri("");
    move |app_name| format!("{uri}{app_name}")
}

/// The number in an environment variable, if it is set.
fn from_environment(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`: set it to a number")))
}
