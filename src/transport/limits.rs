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
    /// The same on the port for probes.
    pub probe_connections_max: usize,
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
    /// A client that leaves something untaken for this long is disconnected, after twice this time at most. What is written to
    /// the connection counts, and each piece of a response; the streams of `WatchService` may wait for their windows.
    pub untaken_time_max: Duration,
    /// How long open requests may take to end once the service stops.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 4 * 1_024 * 1_024,
            requests_max: 1_024,
            caller_requests_max: 768,
            connections_max: 1_024,
            probe_connections_max: 64,
            streams_max: 256,
            header_bytes_max: 8 * 1_024,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            connection_age_max: Duration::from_mins(10),
            connection_grace: Duration::from_secs(30),
            untaken_time_max: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(3),
        }
    }
}

/// How many file descriptors are kept for everything but the ports' connections: MongoDB, Redis and files. It is five eighths
/// of all where there are few.
const DESCRIPTORS_RESERVED: u64 = 160;

impl Limits {
    /// The same limits, with no more connections than this process may have file descriptors for.
    #[must_use]
    pub fn within_descriptors(self, descriptors: u64) -> Self {
        let left = descriptors - DESCRIPTORS_RESERVED.min(descriptors / 8 * 5);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let probe_connections_max = self.probe_connections_max.min(left / 3).max(1);
        let connections_max = self.connections_max.min(left.saturating_sub(probe_connections_max)).max(1);
        Self { connections_max, probe_connections_max, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        for (descriptors, connections, probes) in
            [(64, 16, 8), (256, 64, 32), (1_024, 800, 64), (1_048_576, 1_024, 64), (u64::MAX, 1_024, 64), (0, 1, 1)]
        {
            let limits = Limits::default().within_descriptors(descriptors);
            assert_eq!((limits.connections_max, limits.probe_connections_max), (connections, probes), "{descriptors}");
        }
    }
}
