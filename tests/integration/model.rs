//! The freshness protocol (`docs/freshness.md`), gone through step by step: every order of events, in small worlds.
//!
//! `docs/proof.md` says what that shows, and what not.

mod check;
mod choices;
mod histories;
mod promises;
mod protocol;
mod run;
mod safeguards;
mod statements;
mod steps;
mod world;

use self::{
    check::check,
    histories::{AWAY_AND_BACK, EXCHANGE, EXCHANGE_AND_CHANGE, TRANSACTION, VISIT},
    promises::{FROM_TIER, GAP, JOINED, REVOKED, W_VOUCHES},
    run::{Bus, May, Run, Tier},
};

const PLAIN: Run = Run {
    name: "plain",
    history: &EXCHANGE,
    ticks: 2,
    reads_max: 1,
    instances: 1,
    may: &[],
    bus: Bus::AnythingTrue,
    tier: Tier::None,
    stripes: [0, 1, 2, 3],
    reaches: &[W_VOUCHES, REVOKED, GAP],
};

const RUNS: &[Run] = &[
    PLAIN,
    Run { name: "joins and tokens", may: &[May::Join, May::PassTokens], reads_max: 2, reaches: &[W_VOUCHES, REVOKED, GAP, JOINED], ..PLAIN },
    Run { name: "longer", history: &EXCHANGE_AND_CHANGE, ..PLAIN },
    Run { name: "longer, away and back", history: &AWAY_AND_BACK, ..PLAIN },
    Run { name: "colliding", history: &EXCHANGE_AND_CHANGE, stripes: [0, 1, 2, 1], ..PLAIN },
    Run { name: "colliding 2", history: &AWAY_AND_BACK, stripes: [0, 1, 0, 3], ..PLAIN },
    Run { name: "L2", history: &AWAY_AND_BACK, tier: Tier::AnythingTrue { in_flights: false }, ..PLAIN },
    Run { name: "L2 in flights", may: &[May::Join], tier: Tier::AnythingTrue { in_flights: true }, reaches: &[W_VOUCHES, REVOKED, GAP, JOINED, FROM_TIER], ..PLAIN },
    Run { name: "hints", history: &AWAY_AND_BACK, may: &[May::Hint], ..PLAIN },
    Run { name: "strangers", may: &[May::MeetStrangers, May::PassTokens], tier: Tier::AnythingTrue { in_flights: false }, ..PLAIN },
    Run { name: "late", may: &[May::StartLate], tier: Tier::AnythingTrue { in_flights: false }, ..PLAIN },
    Run { name: "in steps", history: &AWAY_AND_BACK, may: &[May::ReadInSteps], ..PLAIN },
    Run { name: "slow probes", may: &[May::ProbeSlowly], ..PLAIN },
    Run { name: "look up late", history: &VISIT, may: &[May::LookUpLate], ..PLAIN },
    Run { name: "look up late 2", history: &AWAY_AND_BACK, may: &[May::LookUpLate], ..PLAIN },
    Run { name: "streams, late", history: &TRANSACTION, instances: 2, may: &[May::StartLate], bus: Bus::Streams { statements_max: 1 }, tier: Tier::LastWritten, ..PLAIN },
    Run { name: "streams", history: &TRANSACTION, instances: 2, ticks: 1, bus: Bus::Streams { statements_max: 2 }, reaches: &[REVOKED], ..PLAIN },
];

#[test]
fn the_protocol_holds() {
    let only = std::env::var("RUN").unwrap_or_default();
    for run in RUNS.iter().filter(|run| run.name.starts_with(&only)) {
        assert!(check(*run, &[]).is_none());
    }
}
