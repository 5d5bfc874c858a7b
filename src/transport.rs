//! gRPC and HTTP on one port: requests into questions, answers and errors into messages. Nothing else knows the wire.
//!
//! Knows no database and decides no permission.

mod callers;
mod connections;
mod convert;
mod deadline;
mod explanation;
mod health;
mod http;
mod invalidation;
mod observed;
mod permission;
mod record;
mod server;
mod status;
mod tls;
mod watch;

pub use callers::{Caller, Callers, Scope};
pub use health::Health;
pub use invalidation::InvalidationApi;
pub use permission::PermissionApi;
pub use server::{Apis, Limits, ServeError, Serving, serve};
pub use tls::{Tls, TlsError, TlsFile, TlsFiles};
pub use watch::WatchApi;

/// The messages and services of `proto/permcached/v1`, as generated.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated code")]
pub mod proto {
    tonic::include_proto!("permcached.v1");

    /// Every message and service, described: for reflection and for JSON.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
