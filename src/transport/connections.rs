//! Connections of the port: how many, how old they get, with TLS or without, HTTP/2 or HTTP/1.1, and how they end when the
//! service stops.
//!
//! Does not look at the requests on them.

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::io::InspectReader;
use tower_service::Service as _;

use super::{limits::Limits, tls::Tls};
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

/// Limits log lines about failed TLS handshakes: anybody who reaches the port can cause them.
static HANDSHAKES_FAILED: RateLimitedLog = RateLimitedLog::per_second(10);

/// Returns the router that answers the next request. It is called for each request, because the router changes once the
/// application has started.
pub(super) type CurrentRouter = Arc<dyn Fn() -> Router + Send + Sync>;

/// A listening port.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<Tls>,
    pub(super) limits: Limits,
    pub(super) router: CurrentRouter,
    /// Whether the service is draining: then the port accepts no more connections.
    pub(super) is_draining: watch::Receiver<bool>,
}

impl Port {
    /// Accepts and serves connections until the service stops. Then closes the listener, and returns when every open
    /// connection has ended.
    pub(super) async fn serve(mut self) {
        let permits = Arc::new(Semaphore::new(self.limits.connections_max));
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
            // Past the limit, a connection is closed at once.
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                if let Some(suppressed) = REFUSED.admit() {
                    tracing::warn!(suppressed, "a connection was closed: there are MAX_CONNECTIONS already");
                }
                continue;
            };
            let connection =
                Connection { limits: self.limits, router: self.router.clone(), is_draining: self.is_draining.clone() };
            let tls = self.tls.clone();
            connections.spawn(async move {
                connection.accept(stream, tls).await;
                drop(permit);
            });
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

/// What one connection is served with.
struct Connection {
    limits: Limits,
    router: CurrentRouter,
    is_draining: watch::Receiver<bool>,
}

impl Connection {
    /// Completes the TLS handshake where the port has TLS, then serves the connection.
    async fn accept(self, stream: TcpStream, tls: Option<Tls>) {
        let _slower_at_worst = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.serve(stream).await };
        let mut is_draining = self.is_draining.clone();
        let handshake = tokio::select! {
            handshake = timeout(self.limits.handshake_timeout, tls.accept(stream)) => handshake,
            _ = is_draining.wait_for(|is_draining| *is_draining) => return,
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

    /// Serves a connection until it ends, grows too old or the service stops.
    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let bytes_read = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&bytes_read);
        let count = move |bytes: &[u8]| {
            counter.fetch_add(bytes.len(), Ordering::Relaxed);
        };
        let stream = TokioIo::new(InspectReader::new(stream, count));
        let router = self.router.clone();
        let service = service_fn(move |request| router().call(request));
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(stream, service));
        let silent = async {
            sleep(self.limits.handshake_timeout).await;
            if bytes_read.load(Ordering::Relaxed) >= PREFACE_BYTES {
                pending::<()>().await;
            }
        };
        // The age varies by 10 % either way, so that connections opened together do not all close together.
        let old = sleep(self.limits.connection_age_max.mul_f64(0.9 + 0.2 * fastrand::f64()));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = silent => return,
            () = old => None,
            _ = self.is_draining.wait_for(|is_draining| *is_draining) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                // After the grace period the connection is dropped. A Watch client reconnects and receives what it missed, and
                // an idle client misses nothing.
                timeout(self.limits.connection_grace, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection broke");
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            // It also bounds how long an HTTP/1.1 connection may be idle.
            .header_read_timeout(self.limits.handshake_timeout)
            .max_buf_size(usize::try_from(self.limits.header_bytes_max).unwrap_or(usize::MAX).max(8_192));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams_max)
            .max_header_list_size(self.limits.header_bytes_max)
            .keep_alive_interval(PING_INTERVAL);
        builder
    }
}
