//! What there is: MongoDB's history so far, the instances, what they have said to each other. Only data.

use std::collections::BTreeSet;

use permcached::freshness::{Moment, Probes, Progress};

/// Time by the instances' own clocks, in steps as long as a request's bound.
pub type Tick = u8;

/// `MAX_STALENESS`, in ticks.
pub const BOUND: Tick = 1;

/// The most moments that a history has, and the first one included.
pub const MOMENTS_MAX: usize = 6;

/// The only two documents.
pub const DOCUMENTS: usize = 2;

/// What key A finds: of each document its version, or 0 where A does not find it.
pub type Found = [u8; DOCUMENTS];

/// A moment of MongoDB's time. The first one is 0, each change makes the next.
pub fn moment(count: usize) -> Moment {
    Moment::from_count(count as u64)
}

/// How many changes there were up to a moment.
pub fn count(moment: Moment) -> usize {
    moment.as_u64() as usize
}

/// What was found at a moment. All facts are those of key A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    pub stamp: Moment,
    pub found: Found,
}

/// What has a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    KeyA,
    KeyB,
    Document(usize),
}

/// A moment for each stripe.
pub type Marks = [Moment; 4];

/// "In (from, to] this changed", with what is said early of later changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChangeBatch {
    pub from: Moment,
    pub to: Moment,
    pub marks: Marks,
}

/// Who asks for what key A finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    pub arrived: Tick,
    /// It must see everything up to this moment.
    pub token: Moment,
    /// And everything acknowledged longer than this before it: `MAX_STALENESS`, or its `max_age`.
    pub bound: Tick,
}

impl Request {
    /// Asks for no more than all do.
    pub fn plain(arrived: Tick) -> Self {
        Self { arrived, token: moment(0), bound: BOUND }
    }
}

/// A read on its way, and who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Loader {
    /// X: what the source must have seen.
    pub after: Moment,
    pub leader: Request,
    pub joiner: Option<Request>,
    pub result: Option<Answer>,
    /// Whether a mark or the floor has moved since it began.
    pub heard_since: bool,
}

/// What a flight has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// From the source.
    Read(Fact),
    /// From L2, where somebody else left it.
    Remembered(Fact),
}

/// A statement that is being applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChangeMetrics {
    pub marks: Marks,
    pub progress: Progress,
    /// How many of its parts are done.
    pub done: usize,
}

/// A request that tests a remembered fact: it has loaded W, and not looked at the marks yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reader {
    pub request: Request,
    pub fact: Fact,
    /// W, as loaded.
    pub watermark: Moment,
    /// What the test would have said then.
    pub counted: bool,
}

/// A change stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// How many events of the history it has shown.
    pub shown: usize,
    /// The moment of its last `postBatchResumeToken`.
    pub resume: Moment,
    /// The last `to`.
    pub said: Moment,
}

/// A probe that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probing {
    pub sent: Tick,
    /// W when it was sent.
    pub watermark: Moment,
    /// The newest moment when it was sent.
    pub database: Moment,
}

/// A permcached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Instance {
    pub runs: bool,
    /// W and the floor.
    pub progress: Progress,
    pub marks: Marks,
    /// X: the newest moment known.
    pub newest: Moment,
    pub probes: Probes,
    /// L1, as far as key A goes.
    pub remembered: Option<Fact>,
    pub flight: Option<Loader>,
    pub hearing: Option<ChangeMetrics>,
    pub reader: Option<Reader>,
    pub stream: Option<Stream>,
    pub probing: Option<Probing>,
}

/// Promises that have been broken on the way here.
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

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The newest moment of the database.
    pub database: Moment,
    pub now: Tick,
    /// For each moment, when its write was acknowledged.
    pub acknowledged: [Tick; MOMENTS_MAX],
    pub instances: Vec<Instance>,
    /// What streams have made the instances say. Nothing on the bus is ever lost for good, or in order, or said only once.
    pub said: BTreeSet<ChangeBatch>,
    /// What the shared tier holds for key A.
    pub tier: Option<Fact>,
    pub reads: u8,
    pub hints: u8,
    pub broken: Broken,
}
