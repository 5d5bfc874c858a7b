//! Slices of long work: after each, other tasks of the same thread get their turn.

use std::time::{Duration, Instant};

/// How long a slice takes.
const SLICE_MAX: Duration = Duration::from_micros(200);

/// A slice of work that has begun.
#[derive(Debug)]
pub struct Slice(Instant);

impl Slice {
    /// Begins a slice.
    #[must_use]
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Lets other tasks run if the slice is over, and then begins the next one. To be called after each small piece of work.
    pub async fn pause_if_over(&mut self) {
        if self.0.elapsed() > SLICE_MAX {
            tokio::task::yield_now().await;
            *self = Self::begin();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn work_lets_others_run_after_each_slice_and_not_before() {
        let mut slice = Slice(Instant::now() + Duration::from_mins(1));
        assert!(slice.pause_if_over().now_or_never().is_some(), "it has just begun");
        for _ in 0..3 {
            let Some(earlier) = Instant::now().checked_sub(2 * SLICE_MAX) else { return };
            slice = Slice(earlier);
            let mut pause = Box::pin(slice.pause_if_over());
            assert!(pause.as_mut().now_or_never().is_none(), "others run");
            assert!(pause.now_or_never().is_some(), "and it goes on");
        }
    }
}
