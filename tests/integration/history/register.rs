//! Registers: what one document grants, write by write, and when each write may have taken effect.
//!
//! Knows neither MongoDB nor permcached, and judges no answers; `judge` does.

use std::{fmt, time::Duration};

use permcached::{freshness::Moment, question::Millis};

/// What an answer shows of the state that it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Allowed, until this time.
    Allowed(Option<Millis>),
    /// Allowed, and not until when.
    Included,
    /// Denied, whatever the reason.
    Denied,
}

/// The content of a register's document. Each write of a register has a different `until`, so that an answer that allows
/// shows which state it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The place at which it grants. None if there is no document.
    pub place: Option<u8>,
    pub is_active: bool,
    pub until: Millis,
}

impl State {
    /// No document.
    pub const ABSENT: Self = Self { place: None, is_active: false, until: 0 };

    /// Whether an answer to "does it grant at this place?", evaluated between two times of the wall clock, may have been
    /// made from this state.
    pub fn explains(self, place: u8, shown: Shown, [first, last]: [Millis; 2]) -> bool {
        let is_granted = self.is_active && self.place == Some(place);
        match shown {
            Shown::Allowed(until) => is_granted && until == Some(self.until) && first < self.until,
            Shown::Included => is_granted && first < self.until,
            Shown::Denied => !is_granted || last >= self.until,
        }
    }
}

/// One write. It took effect at some time between its beginning and its acknowledgement.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub state: State,
    /// Since the run began.
    pub begun: Duration,
    /// When its writer learned that a majority has it, and the moment that covers it. None until then.
    pub acknowledged: Option<(Duration, Moment)>,
}

/// The writes of one register, which has one writer: each begins after the one before was acknowledged.
#[derive(Debug)]
pub struct History(Vec<Write>);

impl Default for History {
    /// There is no document yet.
    fn default() -> Self {
        let acknowledged = Some((Duration::ZERO, Moment::default()));
        Self(vec![Write { state: State::ABSENT, begun: Duration::ZERO, acknowledged }])
    }
}

impl History {
    /// Records that a write is about to be sent for the first time.
    pub fn begin(&mut self, state: State, now: Duration) {
        assert!(self.last().acknowledged.is_some(), "one write at a time");
        self.0.push(Write { state, begun: now, acknowledged: None });
    }

    /// Records that the last write was acknowledged.
    pub fn acknowledge(&mut self, now: Duration, moment: Moment) {
        let last = self.0.last_mut().expect("it begins with one");
        last.acknowledged = Some((now, moment));
    }

    /// The write that began last.
    pub fn last(&self) -> &Write {
        self.0.last().expect("it begins with one")
    }

    /// The last write that is known to be acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.0.iter().rposition(|write| write.acknowledged.is_some()).expect("the first one is")
    }

    /// All writes, the oldest first.
    pub fn writes(&self) -> &[Write] {
        &self.0
    }

    /// When the next write was acknowledged, if it was.
    pub fn replaced(&self, index: usize) -> Option<Duration> {
        self.0.get(index + 1)?.acknowledged.map(|(at, _)| at)
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { place, is_active, until } = self.state;
        match place {
            Some(place) => write!(f, "place {place}, {}, until {until}", if is_active { "active" } else { "revoked" })?,
            None => f.write_str("no document")?,
        }
        match self.acknowledged {
            Some((at, moment)) => write!(f, "; {:.1?} to {at:.1?}, {:#x}", self.begun, moment.as_u64()),
            None => write!(f, "; begun {:.1?}, not acknowledged", self.begun),
        }
    }
}
