//! Bounds of the port: sizes, numbers and times. Three of them can be configured (docs/configuration.md, "Limits").
//!
//! Enforces none of them: `connections`, `callers` and `server` do.

use std::time::Duration;

/// Bounds of the port. The defaults are those of docs/operations.md.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest request, in bytes.
    pub message_bytes_max: usize,
    /// How many requests the port handles at once.
    pub requests_max: usize,
    /// How many of them may be one caller's.
    pub caller_requests_max: usize,
    /// How many connections are open at once.
    pub connections_max: usize,
    /// How many requests are open on one connection at once.
    pub streams_max: u32,
    /// The largest headers of a request, in bytes.
    pub header_bytes_max: u32,
    /// How long a client may take for the TLS handshake, then to send the protocol preface, and for the head of each
    /// HTTP/1.1 request.
    pub handshake_timeout: Duration,
    /// How long a request may take to arrive and be answered, or its stream to begin.
    pub request_timeout: Duration,
    /// The age at which the port closes a connection, so that clients find new instances.
    pub connection_age_max: Duration,
    /// How long requests and streams of such a connection may go on after that.
    pub connection_grace: Duration,
    /// How long open requests may take to end once the service stops.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 4 * 1_024 * 1_024,
            requests_max: 1_024,
            caller_requests_max: 768,
            connections_max: 10_000,
            streams_max: 1_024,
            header_bytes_max: 16 * 1_024,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            connection_age_max: Duration::from_mins(10),
            connection_grace: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(3),
        }
    }
}
