//! Slices of long work: after each, other tasks of the same thread get their turn.

use std::time::{Duration, Instant};

use crate::source::Deadline;

/// How long a slice takes.
const SLICE_MAX: Duration = Duration::from_micros(200);

/// After how many small pieces of work the clock is read. They take a few microseconds together, and reading the clock
/// after each would take as long as many of them.
const PIECES: u32 = 16;

/// How long a turn that begins after the deadline may still evaluate questions.
const LAST_TURN: Duration = Duration::from_millis(5);

/// A slice of work that has begun.
#[derive(Debug)]
pub struct Slice {
    begun: Instant,
    /// How many pieces of work were done since the clock was read.
    pieces: u32,
}

impl Slice {
    /// Begins a slice.
    #[must_use]
    pub fn begin() -> Self {
        Self { begun: Instant::now(), pieces: 0 }
    }

    /// When the slice began.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Lets other tasks run if the slice is over, and then begins the next one. To be called after each small piece of work,
    /// which takes about as long as one fact is looked at.
    pub async fn pause_if_over(&mut self) {
        self.pause_if_over_after(1).await;
    }

    /// The same after a number of small pieces of work. Returns the time if the clock was read.
    pub(super) async fn pause_if_over_after(&mut self, pieces: u32) -> Option<Instant> {
        self.pieces = self.pieces.saturating_add(pieces);
        if self.pieces < PIECES {
            return None;
        }
        self.pieces = 0;
        let now = Instant::now();
        if now.saturating_duration_since(self.begun) <= SLICE_MAX {
            return Some(now);
        }
        tokio::task::yield_now().await;
        *self = Self::begin();
        Some(self.begun)
    }
}

/// One pass over the questions of a request. It pauses after each slice, and notices that the deadline is over.
pub(super) struct Turn {
    slice: Slice,
    begun: Instant,
    deadline: Deadline,
    is_late: bool,
}

impl Turn {
    /// Begins a turn.
    pub(super) fn begin(deadline: Deadline) -> Self {
        let slice = Slice::begin();
        Self { begun: slice.begun(), slice, deadline, is_late: false }
    }

    /// Lets other tasks run if a slice is over. To be called after each evaluation, with the number of facts that it has looked at. One
    /// that has looked at no fact is a piece of work too.
    pub(super) async fn pause_if_over_after(&mut self, looked_at: u32) {
        if let Some(now) = self.slice.pause_if_over_after(looked_at.max(1)).await {
            // The facts that the request has got may still decide, so a short time is left for that.
            self.is_late = self.deadline.is_over_at(now) && now.saturating_duration_since(self.begun) > LAST_TURN;
        }
    }

    /// Whether the turn must end: the deadline is over, and so is the short time after it.
    pub(super) fn is_late(&self) -> bool {
        self.is_late
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn work_lets_others_run_after_each_slice_and_not_before() {
        let mut slice = Slice { begun: Instant::now() + Duration::from_mins(1), pieces: 0 };
        for _ in 0..10 * PIECES {
            assert!(slice.pause_if_over().now_or_never().is_some(), "it has just begun");
        }
        for done in [1, 7, PIECES] {
            let Some(begun) = Instant::now().checked_sub(2 * SLICE_MAX) else { return };
            slice = Slice { begun, pieces: 0 };
            while slice.pieces + done < PIECES {
                assert_eq!(slice.pause_if_over_after(done).now_or_never(), Some(None), "too little work to ask");
            }
            let mut pause = Box::pin(slice.pause_if_over_after(done));
            assert!(pause.as_mut().now_or_never().is_none(), "others run");
            let resumed = pause.now_or_never().flatten().expect("and it goes on");
            assert_eq!(resumed, slice.begun());
        }
    }

    #[tokio::test]
    async fn a_turn_notices_the_deadline_although_no_evaluation_looks_at_a_fact() {
        let Some(begun) = Instant::now().checked_sub(2 * LAST_TURN) else { return };
        let over = Deadline::since(begun, LAST_TURN);
        for (begun, deadline, expected) in [
            (begun, over, true),
            (begun, Deadline::after(Duration::from_mins(1)), false),
            (Instant::now() + Duration::from_mins(1), over, false),
        ] {
            let mut turn = Turn { begun, ..Turn::begin(deadline) };
            for _ in 0..PIECES {
                turn.pause_if_over_after(0).await;
            }
            assert_eq!(turn.is_late(), expected, "{deadline:?}");
        }
    }
}
