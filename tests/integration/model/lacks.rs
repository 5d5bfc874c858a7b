//! No safeguard is idle: if one is taken out, a promise is broken within a few steps.
//!
//! Does not take out two at once.

use super::{
    check::breaks,
    histories::EXCHANGE,
    promises::{ANSWERED, BOUND_HOLDS, HEALS, KEPT, TOKEN_HOLDS},
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
    let neighbour = Run { may: &[May::MeetNeighbour], tier: L2, ..plain };
    let neighbour_and_late = Run { may: &[May::MeetNeighbour, May::StartLate], ..neighbour };
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
        Safeguard::BatchesAuthenticated => (neighbour, TOKEN_HOLDS, 3),
        Safeguard::CodeCoversPurpose => (neighbour, TOKEN_HOLDS, 3),
        Safeguard::CodeCoversNamespace => (neighbour, TOKEN_HOLDS, 2),
        Safeguard::FollowsByItself => (neighbour, HEALS, 2),
        Safeguard::SilenceOfAuthenticMessages => (neighbour, HEALS, 3),
        Safeguard::HoleInLogIsGap => (neighbour_and_late, TOKEN_HOLDS, 4),
        Safeguard::FloorAtStart => (late, TOKEN_HOLDS, 3),
        Safeguard::FloorFromLog => (late, TOKEN_HOLDS, 5),
        Safeguard::WatermarkFromLog => (late, TOKEN_HOLDS, 5),
        Safeguard::WaiterTests => (joins_l2, BOUND_HOLDS, 8),
        Safeguard::FutureFactIsMiss => (future_moments, TOKEN_HOLDS, 2),
        Safeguard::FactsAuthenticated => (neighbour, TOKEN_HOLDS, 1),
        Safeguard::FactCodeCoversKey => (neighbour, TOKEN_HOLDS, 1),
        Safeguard::HintsAuthenticated => (neighbour, KEPT, 2),
        Safeguard::FutureHintDropped => (future_moments, HEALS, 1),
        Safeguard::TokenTested => (tokens, TOKEN_HOLDS, 4),
        Safeguard::JoinIfSatisfied => (joins, BOUND_HOLDS, 7),
        Safeguard::FutureTokenRefused => (future_moments, HEALS, 1),
    }
}

#[test]
fn no_safeguard_is_idle() {
    let mut wrong = Vec::new();
    for safeguard in Safeguard::ALL {
        let (run, promise, steps) = lack(*safeguard);
        let found = breaks(run, *safeguard, promise);
        println!("{safeguard:?}: {promise} is broken in {} steps: {found:?}", found.len());
        if found.len() != steps {
            wrong.push(format!("{safeguard:?}: {} steps", found.len()));
        }
    }
    assert!(wrong.is_empty(), "docs/proof.md has other numbers of steps: {wrong:#?}");
}
