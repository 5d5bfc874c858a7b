//! Freshness: which moment a cached fact is known to be true as of, and whether that is fresh enough for a request
//! (docs/freshness.md, points 2 to 5).
//!
//! Does no I/O: it reads this machine's clock, and its callers report every change, probe and invalidation. It knows no
//! source, no change stream and no Redis.

mod change_batch;
mod dependencies;
mod local_time;
mod marks;
mod probes;
mod progress;
mod state;

pub use change_batch::{Change, ChangeBatch, Changed};
pub use dependencies::{DEPENDENCIES_MAX, add_names_of_fact, domain, name_of_change, name_of_subject};
pub use local_time::LocalTime;
pub use probes::{Probe, Probes};
pub use progress::Progress;
pub use state::{Epoch, Freshness};

pub use crate::moment::{Clock, Moment, Token, TokenError};
