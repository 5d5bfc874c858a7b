//! The protocol keeps its promises: each of these runs is tried to its end. docs/proof.md lists them with their sizes.
//!
//! Takes out no safeguard; that is in `lacks`.

use super::{
    check::holds,
    histories::{AWAY_AND_BACK, EXCHANGE, EXCHANGE_AND_CHANGE, NAMES, TRANSACTION, VISIT},
    promises::{FROM_TIER, GAP, JOINED, REVOKED, WATERMARK_SERVES},
    run::{Bus, L2, L2_IN_LOADS, May, PLAIN, Run, Tier},
};

/// One read, nothing else.
#[test]
fn plain() {
    holds(PLAIN);
}

/// Two loads, and requests that join them.
#[test]
fn joins() {
    holds(Run {
        name: "joins",
        history: EXCHANGE.first(2),
        reads_max: 2,
        may: &[May::Join],
        reaches: &[REVOKED, GAP, JOINED],
        ..PLAIN
    });
}

/// Requests with tokens, both those that load and those that join.
#[test]
fn tokens() {
    holds(Run {
        name: "tokens",
        history: TRANSACTION.first(2),
        may: &[May::Join, May::PassTokens],
        reaches: &[REVOKED, GAP, JOINED],
        ..PLAIN
    });
}

/// Requests with smaller bounds, both those that load and those that join.
#[test]
fn ages() {
    holds(Run {
        name: "ages",
        history: TRANSACTION.first(2),
        may: &[May::Join, May::LimitAge],
        reaches: &[REVOKED, GAP, JOINED],
        ..PLAIN
    });
}

/// A document that moves away, comes back and is deleted.
#[test]
fn moves() {
    holds(Run { name: "moves", history: AWAY_AND_BACK.first(3), reaches: &[REVOKED, GAP], ..PLAIN });
}

/// Facts that are filtered to a subject: documents begin and cease to name it, and keep their key.
#[test]
fn filtered() {
    holds(Run { name: "filtered", history: NAMES.first(3), reaches: &[REVOKED, GAP], ..PLAIN });
}

/// A document that arrives.
#[test]
fn arrivals() {
    holds(Run { name: "arrivals", history: EXCHANGE, reaches: &[REVOKED, GAP], ..PLAIN });
}

/// Key B and d2 share a mark.
#[test]
fn shared_marks() {
    holds(Run { name: "shared_marks", history: EXCHANGE, stripes: [0, 1, 2, 1], reaches: &[REVOKED, GAP], ..PLAIN });
}

/// Key A and d1 share a mark.
#[test]
fn shared_marks_of_the_key() {
    holds(Run {
        name: "shared_marks_of_the_key",
        history: AWAY_AND_BACK.first(3),
        stripes: [0, 1, 0, 3],
        reaches: &[REVOKED, GAP],
        ..PLAIN
    });
}

/// L2 fills L1 at any time.
#[test]
fn tier() {
    holds(Run { name: "tier", history: TRANSACTION.first(2), tier: L2, reaches: &[REVOKED, GAP], ..PLAIN });
}

/// L2 answers loads that other requests have joined.
#[test]
fn tier_and_joins() {
    holds(Run {
        name: "tier_and_joins",
        history: TRANSACTION.first(2),
        may: &[May::Join],
        tier: L2_IN_LOADS,
        reaches: &[REVOKED, GAP, JOINED, FROM_TIER],
        ..PLAIN
    });
}

/// Invalidations by callers.
#[test]
fn hints() {
    holds(Run { name: "hints", history: EXCHANGE.first(2), may: &[May::Hint], reaches: &[REVOKED, GAP], ..PLAIN });
}

/// Hints, tokens and facts of moments that never come.
#[test]
fn future_moments() {
    holds(Run {
        name: "future_moments",
        history: EXCHANGE.first(2),
        may: &[May::MeetFutureMoments, May::PassTokens],
        tier: L2,
        reaches: &[REVOKED, GAP],
        ..PLAIN
    });
}

/// An instance that starts in the middle.
#[test]
fn late() {
    holds(Run {
        name: "late",
        history: TRANSACTION.first(2),
        may: &[May::StartLate],
        tier: L2,
        reaches: &[REVOKED],
        ..PLAIN
    });
}

/// A backup was restored, and L2 contains facts of the undone history.
#[test]
fn restored() {
    holds(Run {
        name: "restored",
        history: TRANSACTION.first(2),
        may: &[May::BeRestored, May::MeetFutureMoments],
        tier: L2,
        reaches: &[REVOKED, GAP],
        ..PLAIN
    });
}

/// Change batches applied, and facts tested, part by part.
#[test]
fn in_steps() {
    holds(Run {
        name: "in_steps",
        history: TRANSACTION.first(2),
        may: &[May::ReadInSteps],
        reaches: &[REVOKED, GAP],
        ..PLAIN
    });
}

/// Probes that return late.
#[test]
fn slow_probes() {
    holds(Run {
        name: "slow_probes",
        history: TRANSACTION.first(2),
        may: &[May::ProbeSlowly],
        reaches: &[REVOKED, GAP],
        ..PLAIN
    });
}

/// Keys of a change that are looked up after the next one.
#[test]
fn late_lookups() {
    holds(Run {
        name: "late_lookups",
        history: VISIT.first(3),
        may: &[May::LookUpLate],
        reaches: &[WATERMARK_SERVES, REVOKED, GAP],
        ..PLAIN
    });
}

/// A neighbour in Redis, and an instance that starts in the middle.
#[test]
fn neighbour() {
    holds(Run {
        name: "neighbour",
        history: TRANSACTION.first(2),
        may: &[May::MeetNeighbour, May::StartLate],
        tier: L2_IN_LOADS,
        reaches: &[REVOKED, FROM_TIER],
        ..PLAIN
    });
}

/// Two instances, each with its change stream.
#[test]
fn streams() {
    holds(Run {
        name: "streams",
        history: TRANSACTION.first(2),
        ticks: 0,
        instances: 2,
        bus: Bus::Streams { batches_max: 2 },
        reaches: &[REVOKED],
        ..PLAIN
    });
}

/// The same with an L2, and one instance starts in the middle.
#[test]
fn streams_and_late() {
    holds(Run {
        name: "streams_and_late",
        history: TRANSACTION.first(2),
        ticks: 1,
        instances: 2,
        may: &[May::StartLate],
        bus: Bus::Streams { batches_max: 1 },
        tier: Tier::LastWritten,
        reaches: &[REVOKED],
        ..PLAIN
    });
}

/// The same with longer histories.
mod at_length {
    use super::*;

    #[test]
    #[ignore = "minutes: make model"]
    fn joins() {
        holds(Run {
            name: "joins at length",
            history: TRANSACTION,
            reads_max: 2,
            may: &[May::Join],
            reaches: &[WATERMARK_SERVES, REVOKED, GAP, JOINED],
            ..PLAIN
        });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn tokens() {
        holds(Run {
            name: "tokens at length",
            may: &[May::Join, May::PassTokens],
            reaches: &[WATERMARK_SERVES, REVOKED, GAP, JOINED],
            ..PLAIN
        });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn ages() {
        holds(Run {
            name: "ages at length",
            may: &[May::Join, May::LimitAge],
            reaches: &[WATERMARK_SERVES, REVOKED, GAP, JOINED],
            ..PLAIN
        });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn moves() {
        holds(Run { name: "moves at length", history: AWAY_AND_BACK, reaches: &[REVOKED, GAP], ..PLAIN });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn arrivals() {
        holds(Run { name: "arrivals at length", history: EXCHANGE_AND_CHANGE, reaches: &[REVOKED, GAP], ..PLAIN });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn shared_marks() {
        holds(Run {
            name: "shared_marks at length",
            history: EXCHANGE_AND_CHANGE,
            stripes: [0, 1, 2, 1],
            reaches: &[REVOKED, GAP],
            ..PLAIN
        });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn tier() {
        holds(Run { name: "tier at length", tier: L2, ..PLAIN });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn tier_and_joins() {
        holds(Run {
            name: "tier_and_joins at length",
            may: &[May::Join],
            tier: L2_IN_LOADS,
            reaches: &[WATERMARK_SERVES, REVOKED, GAP, JOINED, FROM_TIER],
            ..PLAIN
        });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn hints() {
        holds(Run { name: "hints at length", may: &[May::Hint], ..PLAIN });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn future_moments() {
        holds(Run {
            name: "future_moments at length",
            may: &[May::MeetFutureMoments, May::PassTokens],
            tier: L2,
            ..PLAIN
        });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn late() {
        holds(Run { name: "late at length", may: &[May::StartLate], tier: L2, ..PLAIN });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn restored() {
        holds(Run { name: "restored at length", may: &[May::BeRestored, May::MeetFutureMoments], tier: L2, ..PLAIN });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn in_steps() {
        holds(Run { name: "in_steps at length", may: &[May::ReadInSteps], ..PLAIN });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn slow_probes() {
        holds(Run { name: "slow_probes at length", may: &[May::ProbeSlowly], ..PLAIN });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn late_lookups() {
        holds(Run { name: "late_lookups at length", history: VISIT, may: &[May::LookUpLate], ..PLAIN });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn neighbour() {
        holds(Run {
            name: "neighbour at length",
            may: &[May::MeetNeighbour, May::StartLate, May::PassTokens],
            tier: L2_IN_LOADS,
            reaches: &[REVOKED, FROM_TIER],
            ..PLAIN
        });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn streams() {
        holds(Run {
            name: "streams at length",
            history: TRANSACTION.first(2),
            ticks: 1,
            instances: 2,
            bus: Bus::Streams { batches_max: 2 },
            reaches: &[REVOKED],
            ..PLAIN
        });
    }

    #[test]
    #[ignore = "minutes: make model"]
    fn streams_and_late() {
        holds(Run {
            name: "streams_and_late at length",
            history: TRANSACTION.first(2),
            instances: 2,
            may: &[May::StartLate],
            bus: Bus::Streams { batches_max: 1 },
            tier: Tier::LastWritten,
            reaches: &[REVOKED],
            ..PLAIN
        });
    }
}
