//! What is recorded, and how: metrics, logs and traces. Nothing that is secret is ever handed to this module.
//!
//! Where logs and traces go and who may read metrics is decided by the application and the transport.

mod calls;
mod decisions;
mod logs;
mod metrics;
mod sampled_metric;
mod traces;

pub use calls::{Call, Calls, Method};
pub use decisions::{CALLERS_MAX, Decisions, DecisionsOfCaller};
pub use logs::{RateLimitedLog, Recording, is_filter, start as start_recording};
pub use metrics::{ChangeMetrics, Commands, Metrics, Present, Via, Work};
pub use sampled_metric::{Kind, SampledMetric};
pub use traces::{SPANS, Spans, call_span};
