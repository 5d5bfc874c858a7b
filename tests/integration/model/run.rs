//! A run: which part of reality the model goes through.

use super::{
    histories::{History, TRANSACTION},
    promises::{GAP, REVOKED, W_VOUCHES},
    world::Tick,
};

/// What may happen in a run, beside writes, probes, reads, statements and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Requests wait for the reads of others.
    Join,
    /// Requests carry tokens: any moment that has come.
    PassTokens,
    /// Requests ask for a smaller bound than the usual one.
    LimitAge,
    /// Hints of honest moments arrive: for the key, for a document, for all.
    Hint,
    /// Hints, tokens and facts of a moment that has not come arrive.
    MeetStrangers,
    /// The last instance starts in the middle, from a probe or from the log.
    StartLate,
    /// The first instance begins with what it knew of a history that was undone: a backup was restored.
    BeRestored,
    /// Statements are applied part by part, and readers load W and test in between.
    ReadInSteps,
    /// Probes take their time.
    ProbeSlowly,
    /// The key of a change is looked up later, and may be that of a later change.
    LookUpLate,
}

/// Who says what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// Whatever any number of correct speakers could say.
    AnythingTrue,
    /// What the instances themselves learn from change streams, which may cut transactions in two.
    Streams { batches_max: usize },
}

/// What L2 holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    None,
    /// Whatever any instance could have stored there at any time.
    AnythingTrue {
        /// Whether reads look there too, and not just the fills of L1.
        in_flights: bool,
    },
    /// What was written last, however late.
    LastWritten,
}

/// What is gone through. All that can happen within it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub name: &'static str,
    pub history: History,
    pub ticks: Tick,
    /// How many reads are begun.
    pub reads_max: u8,
    pub instances: usize,
    pub may: &'static [May],
    pub bus: Bus,
    pub tier: Tier,
    /// The stripes of the marks of key A, key B, d1 and d2.
    pub stripes: [usize; 4],
    /// What must come about somewhere in it.
    pub reaches: &'static [&'static str],
}

/// An L2 that may hold anything.
pub const L2: Tier = Tier::AnythingTrue { in_flights: false };
/// The same, and reads look there first.
pub const L2_IN_FLIGHTS: Tier = Tier::AnythingTrue { in_flights: true };

/// The least there is: one instance, one read, no L2.
pub const PLAIN: Run = Run {
    name: "plain",
    history: TRANSACTION,
    ticks: 2,
    reads_max: 1,
    instances: 1,
    may: &[],
    bus: Bus::AnythingTrue,
    tier: Tier::None,
    stripes: [0, 1, 2, 3],
    reaches: &[W_VOUCHES, REVOKED, GAP],
};
