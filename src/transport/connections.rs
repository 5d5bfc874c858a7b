//! Connections: how many, for how long, over TLS or not, HTTP/2 or HTTP/1.1; and how they end when the service stops.
//!
//! Knows nothing of what is asked on them.

use std::{
    future::pending,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_service::Service as _;

use super::{server::Limits, tls::Tls};
use crate::telemetry::RateLimitedLog;

/// How much HTTP/2 begins with. Who has said less by the time to greet is not served.
const GREETING_BYTES: usize = 24;

/// How often it is looked whether the other side of an HTTP/2 connection is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long to wait where no connection can be accepted, as there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections that nobody can be told on that they are too many.
static UNHEARD: RateLimitedLog = RateLimitedLog::per_second(1);

/// Whoever reaches the port can cause these lines.
static UNGREETED: RateLimitedLog = RateLimitedLog::per_second(10);

/// Who answers requests: for each anew, as that may change.
pub(super) type Answering = Arc<dyn Fn() -> Router + Send + Sync>;

/// A port.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<Tls>,
    pub(super) limits: Limits,
    pub(super) answering: Answering,
    /// Whether the service stops.
    pub(super) is_draining: watch::Receiver<bool>,
}

impl Port {
    /// Serves whoever connects until the service stops. Then nobody else, and ends once those who are connected have their
    /// answers.
    pub(super) async fn serve(mut self) {
        let room = Arc::new(Semaphore::new(self.limits.connections_max));
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
                    if let Some(suppressed) = UNHEARD.admit() {
                        tracing::warn!(%error, suppressed, "a connection could not be accepted");
                    }
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // One more than there is room for is closed at once.
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                if let Some(suppressed) = UNHEARD.admit() {
                    tracing::warn!(suppressed, "a connection was closed: there are MAX_CONNECTIONS already");
                }
                continue;
            };
            let connection = Connection {
                limits: self.limits,
                answering: self.answering.clone(),
                is_draining: self.is_draining.clone(),
            };
            let tls = self.tls.clone();
            connections.spawn(async move {
                connection.greet(stream, tls).await;
                drop(permit);
            });
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

/// What one connection needs to know.
struct Connection {
    limits: Limits,
    answering: Answering,
    is_draining: watch::Receiver<bool>,
}

impl Connection {
    async fn greet(self, stream: TcpStream, tls: Option<Tls>) {
        let _slower_at_worst = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.hold(stream).await };
        let mut is_draining = self.is_draining.clone();
        let greeted = tokio::select! {
            greeted = timeout(self.limits.greeting_time, tls.accept(stream)) => greeted,
            _ = is_draining.wait_for(|is_draining| *is_draining) => return,
        };
        match greeted {
            Ok(Ok(stream)) => self.hold(stream).await,
            Ok(Err(error)) => {
                if let Some(suppressed) = UNGREETED.admit() {
                    tracing::warn!(%error, suppressed, "a client could not be greeted over TLS");
                }
            }
            Err(_) => {}
        }
    }

    /// Serves a connection until it ends.
    async fn hold(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let read = Arc::<AtomicUsize>::default();
        let stream = TokioIo::new(Counted { stream, read: Arc::clone(&read) });
        let answering = self.answering.clone();
        let service = service_fn(move |request| answering().call(request));
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(stream, service));
        let silent = async {
            sleep(self.limits.greeting_time).await;
            if read.load(Ordering::Relaxed) >= GREETING_BYTES {
                pending::<()>().await;
            }
        };
        // Not all of those who came at once are to leave at once.
        let old = sleep(self.limits.connection_age.mul_f64(0.9 + 0.2 * fastrand::f64()));
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
                // Who watches comes back; who only keeps it open does not count.
                timeout(self.limits.farewell_time, connection).await.unwrap_or(Ok(()))
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
            // Also how long such a connection may be idle.
            .header_read_timeout(self.limits.greeting_time)
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

/// A stream that counts what was read from it.
struct Counted<S> {
    stream: S,
    read: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read.fetch_add(buffer.filled().len().saturating_sub(before), Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
