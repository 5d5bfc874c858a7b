//! The threads of lower priority on which connections run, by what their clients are to the others: unknown clients, and callers
//! with more than their share, must not delay those who have few requests.
//!
//! Moves nothing (`connections` does), and chooses nobody (`shares` does).

use std::{num::NonZero, sync::Arc, thread::available_parallelism};

use super::{low_priority::LowPriority, open_connection::Standing};

/// The threads of lower priority.
#[derive(Clone)]
pub(super) struct SlowThreads {
    unknown: Arc<LowPriority>,
    busy: Arc<LowPriority>,
}

impl SlowThreads {
    /// Starts one thread for unknown clients, and one for each processor for busy ones.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub(super) fn start() -> std::io::Result<Self> {
        let processors = available_parallelism().map_or(1, NonZero::get);
        let unknown = Arc::new(LowPriority::start("permcached-unknown", 1)?);
        Ok(Self { unknown, busy: Arc::new(LowPriority::start("permcached-busy", processors)?) })
    }

    /// The threads for unknown clients.
    pub(super) fn unknown(&self) -> &Arc<LowPriority> {
        &self.unknown
    }

    /// The threads for a client; none for the runtime's own.
    pub(super) fn threads(&self, standing: Standing) -> Option<&LowPriority> {
        match standing {
            Standing::Unknown => Some(&self.unknown),
            Standing::Known => None,
            Standing::Busy => Some(&self.busy),
        }
    }
}
