//! Connections of the port: how many, how old they get, with TLS or without, HTTP/2 or HTTP/1.1, and how they end when the
//! service stops. Until the client of a connection is known, the connection and its requests run on a thread of lower priority,
//! so that clients that may not call do not delay those that may.
//!
//! Does not look at the requests on them, and does not choose which connection gives way to a new one (`connection_table`
//! does).

use std::{
    future::{pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use hyper::{rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, interval_at, sleep, timeout},
};

use super::{
    connection_table::{ConnectionTable, Entry},
    entrance::Entrance,
    http::HEADERS_MAX,
    limits::Limits,
    low_priority::LowPriority,
    open_connection::OpenConnection,
    paced_io::PacedIo,
    tls::Tls,
};
use crate::telemetry::RateLimitedLog;

/// The length of HTTP/2's connection preface. A client that has sent less when the handshake timeout is over is
/// disconnected.
const PREFACE_BYTES: usize = 24;

/// How often the server pings the other side of an HTTP/2 connection.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long to wait after a connection could not be accepted, as when no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits log lines about connections that were refused before any protocol was spoken.
static REFUSED: RateLimitedLog = RateLimitedLog::per_second(1);

/// Limits log lines about clients that do not read.
static UNTAKEN: RateLimitedLog = RateLimitedLog::per_second(1);

/// Limits log lines about failed TLS handshakes: anybody who reaches the port can cause them.
static HANDSHAKES_FAILED: RateLimitedLog = RateLimitedLog::per_second(10);

/// How much of a request's body the server takes before it is read: of one request, and of all on a connection.
const WINDOW_BYTES: (u32, u32) = (256 * 1_024, 512 * 1_024);

/// How much of a response waits in the connection for the client's window.
const SEND_BYTES: usize = 32 * 1_024;

/// A listening port.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<Tls>,
    pub(super) limits: Limits,
    /// How many connections are open at once.
    pub(super) connections_max: usize,
    pub(super) entrance: Arc<Entrance>,
    /// Runs the connections whose client is unknown; none if the runtime's own threads do.
    pub(super) unknown: Option<Arc<LowPriority>>,
    /// Whether the service is draining: then the port accepts no more connections.
    pub(super) is_draining: watch::Receiver<bool>,
}

impl Port {
    /// Accepts and serves connections until the service stops. Then closes the listener, and returns when every open
    /// connection has ended.
    pub(super) async fn serve(mut self) {
        let table = ConnectionTable::new(self.connections_max);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = self.is_draining.wait_for(|is_draining| *is_draining) => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if let Some(suppressed) = REFUSED.admit() {
                        tracing::warn!(%error, suppressed, "a connection could not be accepted");
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Another connection gives way to it. If none may, this one is closed at once.
            let Some(entry) = table.add() else {
                if let Some(suppressed) = REFUSED.admit() {
                    tracing::warn!(
                        suppressed,
                        "a connection was closed: MAX_CONNECTIONS is reached, and all are in use"
                    );
                }
                continue;
            };
            let connection = Connection {
                limits: self.limits,
                entrance: Arc::clone(&self.entrance),
                unknown: self.unknown.clone(),
                entry,
                is_draining: self.is_draining.clone(),
            };
            let tls = self.tls.clone();
            connections.spawn(connection.run(stream, tls));
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

/// What one connection is served with.
struct Connection {
    limits: Limits,
    entrance: Arc<Entrance>,
    /// Runs it until its client is known.
    unknown: Option<Arc<LowPriority>>,
    /// Its place on the port.
    entry: Entry,
    is_draining: watch::Receiver<bool>,
}

impl Connection {
    /// Accepts and serves the connection until it ends.
    async fn run(self, stream: TcpStream, tls: Option<Tls>) {
        let Some(unknown) = self.unknown.clone() else { return self.accept(stream, tls).await };
        let open = Arc::clone(&self.entry.connection);
        let connection = Box::pin(self.accept(stream, tls));
        if let Ok(Some(connection)) = unknown.run(until_known(open, connection)).await {
            connection.await;
        }
    }

    /// Completes the TLS handshake where the port has TLS, then serves the connection.
    async fn accept(self, stream: TcpStream, tls: Option<Tls>) {
        let _slower_at_worst = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.serve(stream).await };
        let mut is_draining = self.is_draining.clone();
        let handshake = tokio::select! {
            handshake = timeout(self.limits.handshake_timeout, tls.accept(stream)) => handshake,
            _ = is_draining.wait_for(|is_draining| *is_draining) => return,
            () = self.entry.connection.closed() => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => {
                if let Some(suppressed) = HANDSHAKES_FAILED.admit() {
                    tracing::warn!(%error, suppressed, "a TLS handshake failed");
                }
            }
            Err(_) => {}
        }
    }

    /// Serves a connection until it ends, grows too old, has to give way, or the service stops; or until its client leaves
    /// untaken what is sent to it.
    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let open = Arc::clone(&self.entry.connection);
        let stream = TokioIo::new(PacedIo::new(stream, Arc::clone(&open)));
        let (entrance, table) = (Arc::clone(&self.entrance), self.entry.table().clone());
        let service = service_fn({
            let open = Arc::clone(&open);
            move |request| Arc::clone(&entrance).answer(request, Arc::clone(&open), table.clone())
        });
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(stream, service));
        let mut close = pin!(self.reason_to_close());
        // The age varies by 10 % either way, so that connections opened together do not all close together.
        let age_max = self.limits.connection_age_max.mul_f64(0.9 + 0.2 * fastrand::f64());
        let ended = tokio::select! {
            ended = in_turns(&open, connection.as_mut()) => Some(ended),
            () = &mut close => return,
            () = sleep(age_max) => None,
            () = open.retired() => None,
            _ = self.is_draining.wait_for(|is_draining| *is_draining) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                // After the grace period the connection is dropped. A Watch client reconnects and receives what it missed, and
                // an idle client misses nothing.
                tokio::select! {
                    ended = in_turns(&open, connection.as_mut()) => ended,
                    () = &mut close => return,
                    () = sleep(self.limits.connection_grace) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection broke");
        }
    }

    /// Completes when the connection is to be closed at once.
    fn reason_to_close(&self) -> impl Future<Output = ()> + use<> {
        let Limits { handshake_timeout, untaken_time_max, .. } = self.limits;
        let open = Arc::clone(&self.entry.connection);
        async move {
            let silent = async {
                sleep(handshake_timeout).await;
                if open.bytes_read() >= PREFACE_BYTES {
                    pending::<()>().await;
                }
            };
            let untaken = async {
                let mut periods = interval_at(Instant::now() + untaken_time_max, untaken_time_max);
                loop {
                    periods.tick().await;
                    if open.end_period() {
                        if let Some(suppressed) = UNTAKEN.admit() {
                            tracing::warn!(
                                suppressed,
                                "a connection was closed: its client does not take what is sent to it"
                            );
                        }
                        return;
                    }
                }
            };
            tokio::select! {
                () = silent => {}
                () = untaken => {}
                () = open.closed() => {}
            }
        }
    }

    fn builder(&self) -> Builder<RequestExecutor> {
        let open = Arc::clone(&self.entry.connection);
        let mut builder = Builder::new(RequestExecutor { open, unknown: self.unknown.clone() });
        builder
            .http1()
            .timer(TokioTimer::new())
            // It also bounds how long an HTTP/1.1 connection may be idle.
            .header_read_timeout(self.limits.handshake_timeout)
            .max_headers(HEADERS_MAX)
            .max_buf_size(usize::try_from(self.limits.header_bytes_max).unwrap_or(usize::MAX).max(8_192));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams_max)
            .max_header_list_size(self.limits.header_bytes_max)
            .initial_stream_window_size(WINDOW_BYTES.0)
            .initial_connection_window_size(WINDOW_BYTES.1)
            .max_send_buf_size(SEND_BYTES)
            .keep_alive_interval(PING_INTERVAL);
        builder
    }
}

/// Runs the requests of a connection.
#[derive(Clone)]
struct RequestExecutor {
    open: Arc<OpenConnection>,
    /// Runs them until the client is known.
    unknown: Option<Arc<LowPriority>>,
}

impl<F: Future<Output: Send + 'static> + Send + 'static> Executor<F> for RequestExecutor {
    fn execute(&self, request: F) {
        match &self.unknown {
            Some(unknown) if !self.open.is_known() => {
                let until_known = until_known(Arc::clone(&self.open), Box::pin(request));
                drop(unknown.spawn(async move {
                    // A stream may last for as long as its connection.
                    if let Some(request) = until_known.await {
                        drop(tokio::spawn(request));
                    }
                }));
            }
            _ => drop(tokio::spawn(request)),
        }
    }
}

/// Runs work of a connection until its client is known. Returns the work if it has not ended by then.
async fn until_known<F: Future>(open: Arc<OpenConnection>, mut work: Pin<Box<F>>) -> Option<Pin<Box<F>>> {
    tokio::select! {
        _ = &mut work => None,
        () = open.known() => Some(work),
    }
}

/// Runs a connection. Each time it is polled, its next turn begins.
async fn in_turns<F: Future>(open: &OpenConnection, mut connection: Pin<&mut F>) -> F::Output {
    poll_fn(|context| {
        open.begin_turn();
        connection.as_mut().poll(context)
    })
    .await
}
