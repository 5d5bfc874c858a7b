//! What happens to the two documents: a few short histories, each made to expose a missing safeguard.
//!
//! Contains no protocol and no time.

use super::world::{DOCUMENTS, Found, Target};

/// The key by which a document is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    A,
    B,
    Deleted,
}

/// One change of one document: where it is found afterwards, and its version. A document of version 0 does not name the subject
/// that the facts are filtered to: it has the key, and no fact contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub document: usize,
    pub place: Place,
    pub version: u8,
}

/// The events of each moment: those of one write or one transaction. A moment without events is a write elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct History {
    pub before: [(Place, u8); DOCUMENTS],
    pub moments: &'static [&'static [Event]],
}

const fn event(document: usize, place: Place, version: u8) -> Event {
    Event { document, place, version }
}

const D1: usize = 0;
const D2: usize = 1;

/// A transaction changes d2 and moves d1 away; then d2 arrives.
pub const EXCHANGE: History = History {
    before: [(Place::A, 1), (Place::B, 1)],
    moments: &[&[event(D2, Place::B, 2), event(D1, Place::B, 1)], &[event(D2, Place::A, 2)], &[]],
};

/// The same, and d2 changes once more.
pub const EXCHANGE_AND_CHANGE: History = History {
    before: [(Place::A, 1), (Place::B, 1)],
    moments: &[
        &[event(D2, Place::B, 2), event(D1, Place::B, 1)],
        &[event(D2, Place::A, 2)],
        &[event(D2, Place::A, 3)],
        &[],
    ],
};

/// d1 moves away, comes back, and is deleted.
pub const AWAY_AND_BACK: History = History {
    before: [(Place::A, 1), (Place::B, 1)],
    moments: &[&[event(D1, Place::B, 1)], &[event(D1, Place::A, 2)], &[event(D1, Place::Deleted, 0)], &[]],
};

/// d1 arrives, d2 changes, d1 leaves.
pub const VISIT: History = History {
    before: [(Place::B, 1), (Place::A, 1)],
    moments: &[&[event(D1, Place::A, 1)], &[event(D2, Place::A, 2)], &[event(D1, Place::B, 1)], &[]],
};

/// Facts that are filtered to a subject: d1 ceases to name it, d2 begins to, and leaves.
pub const NAMES: History = History {
    before: [(Place::A, 1), (Place::A, 0)],
    moments: &[&[event(D1, Place::A, 0)], &[event(D2, Place::A, 1)], &[event(D2, Place::B, 1)], &[]],
};

/// The same transaction, a write elsewhere, then d2's change: for streams, whose batches may end within the transaction.
pub const TRANSACTION: History = History {
    before: [(Place::A, 1), (Place::B, 1)],
    moments: &[&[event(D2, Place::B, 2), event(D1, Place::B, 1)], &[], &[event(D2, Place::A, 2)]],
};

impl History {
    /// The history's first moments.
    pub const fn first(self, moments: usize) -> Self {
        Self { moments: self.moments.split_at(moments).0, ..self }
    }

    /// How many moments there are after the first.
    pub fn len(&self) -> usize {
        self.moments.len()
    }

    /// The events of (after, to], each with its moment's count.
    pub fn events(&self, after: usize, to: usize) -> impl Iterator<Item = (usize, Event)> {
        let moments = self.moments.iter().enumerate().take(to).skip(after);
        moments.flat_map(|(index, events)| events.iter().map(move |event| (index + 1, *event)))
    }

    /// Where a document is at a moment, and in which version.
    pub fn state(&self, document: usize, at: usize) -> (Place, u8) {
        let mut state = self.before[document];
        for (_, event) in self.events(0, at).filter(|(_, event)| event.document == document) {
            state = (event.place, event.version);
        }
        state
    }

    /// What key A finds at a moment.
    pub fn found(&self, at: usize) -> Found {
        self.found_in(Place::A, at)
    }

    /// What key B finds at a moment.
    pub fn found_by_key_b(&self, at: usize) -> Found {
        self.found_in(Place::B, at)
    }

    fn found_in(&self, key: Place, at: usize) -> Found {
        std::array::from_fn(|document| match self.state(document, at) {
            (place, version) if place == key => version,
            _ => 0,
        })
    }
}

impl Place {
    /// The key that an event with this image marks.
    pub fn target(self) -> Option<Target> {
        match self {
            Self::A => Some(Target::KeyA),
            Self::B => Some(Target::KeyB),
            Self::Deleted => None,
        }
    }
}
