//! A world, which is one state of the model: MongoDB's history so far, the instances, and what they have published.
//!
//! Only data; `steps` changes it.

use std::collections::BTreeSet;

use permcached::freshness::{Moment, Probes, Progress};

/// Time by the instances' own clocks, in ticks of the bound's length.
pub type Tick = u8;

/// `MAX_STALENESS`, in ticks.
pub const BOUND: Tick = 1;

/// The most moments that a history has, including the first one.
pub const MOMENTS_MAX: usize = 6;

/// The only two documents.
pub const DOCUMENTS: usize = 2;

/// What key A finds: the version of each document, or 0 if A does not find it.
pub type Found = [u8; DOCUMENTS];

/// A moment of MongoDB's time. The first one is 0, and each write makes the next.
pub fn moment(count: usize) -> Moment {
    Moment::from_count(count as u64)
}

/// How many writes there were up to a moment.
pub fn count(moment: Moment) -> usize {
    moment.as_u64() as usize
}

/// What key A found at a moment. There are no facts of key B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    pub stamp: Moment,
    pub found: Found,
}

/// An item that has a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    KeyA,
    KeyB,
    Document(usize),
}

/// A moment for each stripe.
pub type Marks = [Moment; 4];

/// "In (from, to] exactly this changed", and changes after `to` that are published early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChangeBatch {
    pub from: Moment,
    pub to: Moment,
    pub marks: Marks,
}

/// A request for what key A finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    pub arrived: Tick,
    /// The answer must show everything up to this moment.
    pub token: Moment,
    /// It must also show everything acknowledged longer than this before the request: `MAX_STALENESS`, or its `max_age`.
    pub bound: Tick,
}

impl Request {
    /// Without a token, and with the usual bound.
    pub fn plain(arrived: Tick) -> Self {
        Self { arrived, token: moment(0), bound: BOUND }
    }
}

/// An in-flight load, and the requests that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Load {
    /// The moment that the source must have reached.
    pub after: Moment,
    /// The request that started it.
    pub loader: Request,
    /// A request that joined it.
    pub waiter: Option<Request>,
    pub result: Option<LoadResult>,
    /// Whether a mark or the floor has risen since it began.
    pub changed_since: bool,
}

/// What a load has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadResult {
    /// From the source.
    Read(Fact),
    /// From L2, where another instance stored it.
    Cached(Fact),
}

/// A change batch that is being applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Applying {
    pub marks: Marks,
    pub progress: Progress,
    /// How many of its parts are done.
    pub done: usize,
}

/// A request that tests a cached fact: it has loaded the watermark, and not looked at the marks yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reader {
    pub request: Request,
    pub fact: Fact,
    /// The watermark, as loaded.
    pub watermark: Moment,
    /// What the test would have returned then.
    pub counted: bool,
}

/// A change stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// How many events of the history it has shown.
    pub shown: usize,
    /// The moment of its last `postBatchResumeToken`.
    pub resume: Moment,
    /// The `to` of the last change batch that was made from it.
    pub last_to: Moment,
}

/// A probe that has not returned yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probing {
    pub sent: Tick,
    /// The instance's watermark when it was sent.
    pub watermark: Moment,
    /// The newest moment when it was sent.
    pub database: Moment,
}

/// An instance of permcached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Instance {
    pub runs: bool,
    /// The watermark and the floor.
    pub progress: Progress,
    pub marks: Marks,
    /// The newest moment known.
    pub newest: Moment,
    /// The moment up to which every change was received over the bus, in runs with `May::MeetNeighbour`.
    pub received: Moment,
    pub probes: Probes,
    /// L1's fact of key A.
    pub cached: Option<Fact>,
    pub load: Option<Load>,
    pub applying: Option<Applying>,
    pub reader: Option<Reader>,
    pub stream: Option<Stream>,
    pub probing: Option<Probing>,
}

/// The promises that have been broken on the way to this world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broken {
    pub bound: bool,
    pub token: bool,
    pub answered: bool,
}

impl Broken {
    pub fn any(self) -> bool {
        self.bound || self.token || self.answered
    }
}

/// One state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The newest moment of the database.
    pub database: Moment,
    pub now: Tick,
    /// For each moment, the tick at which its write was acknowledged.
    pub acknowledged: [Tick; MOMENTS_MAX],
    pub instances: Vec<Instance>,
    /// The change batches that instances have made from their streams. Each can be received at any time, in any order and
    /// any number of times.
    pub published: BTreeSet<ChangeBatch>,
    /// L2's fact of key A.
    pub tier: Option<Fact>,
    pub reads: u8,
    pub hints: u8,
    pub broken: Broken,
}
