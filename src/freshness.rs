//! Freshness: which moment a fact is true as of, and whether that is fresh enough (design section 5, points 2 to 5;
//! `docs/freshness.md` tells the whole protocol).
//!
//! Pure but for its clock: knows no source, no stream and no wire. Everything here is told what others found out.

mod progress;
mod local_time;
mod marks;
mod probes;
mod state;
mod change_batch;

pub use change_batch::{Change, ChangeBatch, Changed};
pub use local_time::LocalTime;
pub use probes::{Probe, Probes};
pub use progress::Progress;
pub use state::{Epoch, Freshness};

pub use crate::moment::{Clock, Moment, Token, TokenError};
