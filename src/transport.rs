//! gRPC and HTTP on one port: turns requests into questions, and answers and errors into messages. Apart from the command
//! line's clients, no other module knows gRPC or protobuf.
//!
//! Knows no database and decides no permission.

mod admitted;
mod answers;
mod byte_budget;
mod call_context;
mod callers;
mod calls;
mod capacity;
mod codec;
mod compression;
mod connection_table;
mod connections;
mod convert;
mod deadline;
mod entrance;
mod explanation;
mod fields;
mod following_stream;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod giving_way;
mod health;
mod http;
mod intake;
mod invalidation;
mod limits;
mod lists;
mod low_priority;
mod message;
mod method;
mod observed;
mod open_calls;
mod open_connection;
mod paced_io;
mod permission;
mod protobuf;
mod question_fields;
mod record;
mod request_body;
mod requests;
mod response_body;
mod secret;
mod server;
mod services;
mod shares;
mod slow_threads;
mod status;
mod tls;
mod watch;
#[cfg(test)]
mod woken;
mod workers;

pub use call_context::CallContext;
pub use callers::{Caller, Callers};
pub use health::Health;
pub use http::MetricsTokens;
pub use invalidation::InvalidationApi;
pub use limits::Limits;
pub use lists::ListApi;
pub use method::Scope;
pub use permission::PermissionApi;
pub use server::{ServeError, Serving, serve};
pub use services::Apis;
pub use tls::{ClientCertificates, Tls, TlsError, TlsFile, TlsFiles};
pub use watch::WatchApi;

/// The generated messages and services of `proto/permcached/v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated code")]
pub mod proto {
    tonic::include_proto!("permcached.v1");

    /// The descriptors of every message and service, for reflection and for JSON.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
