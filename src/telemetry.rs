//! Metrics, logs and traces. No caller passes secrets to this module.
//!
//! Does not decide where logs and traces go (the application does), or who may read metrics (the transport does).

mod calls;
mod decisions;
mod histogram;
mod lists;
mod log_queue;
mod logs;
mod metrics;
mod sampled_metric;
mod traces;

pub use calls::{Call, Calls, Method};
pub use decisions::{CALLERS_MAX, DecisionTally, Decisions, DecisionsOfCaller};
pub use lists::Lists;
pub use logs::{RateLimitedLog, Recording, is_filter, start as start_recording, start_warnings};
pub use metrics::{ChangeMetrics, Commands, FactSize, Metrics, Present, Via, Work};
pub use sampled_metric::{Kind, SampledMetric};
pub use traces::{SPANS, Spans, call_span};
