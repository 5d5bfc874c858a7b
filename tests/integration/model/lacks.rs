//! No safeguard is idle: if one is taken out, a promise is broken within a few steps.
//!
//! Does not take out two at once.

use super::{
    check::breaks,
    histories::EXCHANGE,
    promises::{ANSWERED, BOUND_HOLDS, HEALS, TOKEN_HOLDS},
    run::{Bus, L2, L2_IN_LOADS, May, PLAIN, Run},
    safeguards::Safeguard,
};

/// The run that shows that a safeguard is missing, the promise that is broken in it, and the number of steps.
fn lack(safeguard: Safeguard) -> (Run, &'static str, usize) {
    let plain = Run { history: EXCHANGE, ..PLAIN };
    let tokens = Run { may: &[May::PassTokens], ..PLAIN };
    let joins = Run { may: &[May::Join], ..plain };
    let joins_l2 = Run { tier: L2_IN_LOADS, ..joins };
    let future_moments = Run { may: &[May::MeetFutureMoments], tier: L2, ..PLAIN };
    let late = Run { may: &[May::StartLate], tier: L2, ..PLAIN };
    let restored = Run { may: &[May::BeRestored], ..plain };
    let steps = Run { may: &[May::ReadInSteps], tier: L2, ..PLAIN };
    let streams = Run { ticks: 0, instances: 2, bus: Bus::Streams { batches_max: 2 }, ..PLAIN };
    match safeguard {
        Safeguard::SnapshotStamp => (plain, TOKEN_HOLDS, 5),
        Safeguard::AfterClusterTime => (plain, BOUND_HOLDS, 7),
        Safeguard::NewestCoversMarks => (plain, ANSWERED, 5),
        Safeguard::NewestCoversDocumentMarks => (plain, ANSWERED, 5),
        Safeguard::NewestCoversToken => (tokens, TOKEN_HOLDS, 4),
        Safeguard::LoaderUsesOwnRead => (plain, ANSWERED, 5),
        Safeguard::StrictTo => (plain, TOKEN_HOLDS, 5),
        Safeguard::EarlyChangesAgain => (streams, TOKEN_HOLDS, 9),
        Safeguard::SamePipeline => (plain, TOKEN_HOLDS, 6),
        Safeguard::SameCluster => (plain, TOKEN_HOLDS, 5),
        Safeguard::FloorAtGap => (plain, TOKEN_HOLDS, 6),
        Safeguard::FloorNotJustEmptyL1 => (plain, TOKEN_HOLDS, 6),
        Safeguard::MarksBeforeWatermark => (steps, TOKEN_HOLDS, 5),
        Safeguard::FloorBeforeWatermark => (steps, TOKEN_HOLDS, 5),
        Safeguard::NewEpoch => (restored, HEALS, 0),
        Safeguard::OldReadsDropped => (restored, TOKEN_HOLDS, 2),
        Safeguard::WatermarkBeforeTest => (steps, TOKEN_HOLDS, 8),
        Safeguard::FloorTested => (plain, TOKEN_HOLDS, 6),
        Safeguard::KeyTested => (plain, TOKEN_HOLDS, 7),
        Safeguard::DocumentsTested => (plain, TOKEN_HOLDS, 6),
        Safeguard::LinearizableProbe => (plain, BOUND_HOLDS, 7),
        Safeguard::BoundTested => (plain, BOUND_HOLDS, 6),
        Safeguard::ProbeFirst => (plain, BOUND_HOLDS, 6),
        Safeguard::FloorAtStart => (late, TOKEN_HOLDS, 3),
        Safeguard::FloorFromLog => (late, TOKEN_HOLDS, 5),
        Safeguard::WatermarkFromLog => (late, TOKEN_HOLDS, 5),
        Safeguard::WaiterTests => (joins_l2, BOUND_HOLDS, 8),
        Safeguard::FutureFactIsMiss => (future_moments, TOKEN_HOLDS, 2),
        Safeguard::FutureHintDropped => (future_moments, HEALS, 1),
        Safeguard::TokenTested => (tokens, TOKEN_HOLDS, 4),
        Safeguard::JoinIfSatisfied => (joins, BOUND_HOLDS, 7),
        Safeguard::FutureTokenRefused => (future_moments, HEALS, 1),
    }
}

#[test]
fn no_safeguard_is_idle() {
    for safeguard in Safeguard::ALL {
        let (run, promise, steps) = lack(*safeguard);
        let found = breaks(run, *safeguard, promise);
        println!("{safeguard:?}: {promise} is broken in {} steps: {found:?}", found.len());
        assert_eq!(found.len(), steps, "{safeguard:?}: docs/proof.md has another number of steps");
    }
}
