//! A run: which events the model includes, and how many.
//!
//! Only data; the runs themselves are in `runs` and `lacks`.

use super::{
    histories::{History, TRANSACTION},
    promises::{GAP, REVOKED, WATERMARK_SERVES},
    world::Tick,
};

/// What may happen in a run, in addition to writes, probes, reads, change batches and ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Requests join the loads of other requests.
    Join,
    /// Requests carry tokens: any moment that has come.
    PassTokens,
    /// Requests ask for a smaller bound than the usual one.
    LimitAge,
    /// Hints of moments that have come arrive: for the key, for a document, for everything.
    Hint,
    /// Hints, tokens and facts of a moment that has not come arrive.
    MeetFutureMoments,
    /// The last instance starts in the middle, from a probe or from the log.
    StartLate,
    /// The first instance begins with knowledge of a history that was undone when a backup was restored.
    BeRestored,
    /// Change batches are applied part by part. In between, readers load the watermark and test facts.
    ReadInSteps,
    /// Another client of Redis writes anything there but a valid code, has the lease, and keeps away every message.
    MeetNeighbour,
    /// Probes return later than they are sent.
    ProbeSlowly,
    /// The key of a change is looked up later, and may then be the key after a later change.
    LookUpLate,
}

/// Which change batches instances may receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// Any change batch that any number of correct leaders could publish.
    AnythingTrue,
    /// The change batches that the instances make from their own change streams, which may split transactions in two.
    Streams { batches_max: usize },
}

/// What L2 contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    None,
    /// Any fact that some instance could have stored there at any time.
    AnythingTrue {
        /// Whether loads read from it too. If not, it only fills L1.
        in_loads: bool,
    },
    /// What was written last, however late.
    LastWritten,
}

/// What the model checker goes through. It tries everything that can happen within these limits.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub name: &'static str,
    pub history: History,
    pub ticks: Tick,
    /// How many reads may begin.
    pub reads_max: u8,
    pub instances: usize,
    pub may: &'static [May],
    pub bus: Bus,
    pub tier: Tier,
    /// The stripes of the marks of key A, key B, d1 and d2.
    pub stripes: [usize; 4],
    /// The situations that must occur somewhere in it.
    pub reaches: &'static [&'static str],
}

/// An L2 that may contain any fact.
pub const L2: Tier = Tier::AnythingTrue { in_loads: false };
/// The same, and loads read from it too.
pub const L2_IN_LOADS: Tier = Tier::AnythingTrue { in_loads: true };

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
    reaches: &[WATERMARK_SERVES, REVOKED, GAP],
};
