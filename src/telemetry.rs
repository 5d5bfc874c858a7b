//! What is recorded, and how: metrics, logs and traces. Nothing that is secret is ever handed to this module.
//!
//! Where logs and traces go and who may read metrics is decided by the application and the transport.

mod calls;
mod decisions;
mod logs;
mod metrics;
mod reading;
mod traces;

pub use calls::{Call, Calls, Method};
pub use decisions::{CALLERS_MAX, Decisions, DecisionsOfCaller};
pub use logs::{Recording, Seldom, is_filter, start as start_recording};
pub use metrics::{Commands, Hearing, Metrics, Present, Via, Work};
pub use reading::{Kind, Reading};
pub use traces::{SPANS, Spans, call_span};
