//! Slices of long work: after each, other tasks of the same thread get their turn.

use std::time::{Duration, Instant};

/// How long a slice takes.
const SLICE_MAX: Duration = Duration::from_micros(200);

/// After how many small pieces of work the clock is read. They take a few microseconds together, and reading the clock
/// after each would take as long as many of them.
const PIECES: u32 = 16;

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
}
