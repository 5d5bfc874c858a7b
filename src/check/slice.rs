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
