//! Connections of the port: how many, how old they get, with TLS or without, HTTP/2 or HTTP/1.1, and how they end when the
//! service stops. Connections, and their requests, of clients that are unknown or busy run on threads of lower priority, so
//! that clients that may not call, and callers with many requests, do not delay the others.
//!
//! Does not look at the requests on them, and chooses neither which connection gives way to a new one (`connection_table`
//! does) nor who is busy (`shares` does).

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::unconstrained,
    time::{Instant, interval_at, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    connection_table::{ConnectionTable, Entry},
    entrance::Entrance,
    following_stream::FollowingStream,
    http::HEADERS_MAX,
    limits::Limits,
    open_connection::{OpenConnection, Standing},
    paced_io::PacedIo,
    requests::{Arrived, WithRequests},
    slow_threads::SlowThreads,
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

/// How many accepted connections may wait to run for the first time. Further ones wait in the system's queue, so that a flood
/// of them cannot displace one that has not had its turn.
const STARTING_MAX: usize = 32;

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
    /// Runs the connections of clients that are unknown or busy; none if the runtime's own threads do.
    pub(super) slower: Option<SlowThreads>,
    /// Whether the service is draining: then the port accepts no more connections.
    pub(super) is_draining: watch::Receiver<bool>,
}

impl Port {
    /// Accepts and serves connections until the service stops. Then closes the listener, and returns when every open
    /// connection has ended.
    ///
    /// # Errors
    /// If the listener cannot be used.
    pub(super) async fn serve(mut self) -> std::io::Result<()> {
        let table = ConnectionTable::new(self.connections_max);
        let mut connections = FuturesUnordered::new();
        let starting = Arc::new(Semaphore::new(STARTING_MAX));
        let acceptor = Acceptor::new(self.listener, self.slower.clone())?;
        loop {
            let accepted = tokio::select! {
                _ = self.is_draining.wait_for(|is_draining| *is_draining) => break,
                Some(_) = connections.next() => continue,
                accepted = acceptor.accept(&starting) => accepted,
            };
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
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
                slower: self.slower.clone(),
                entry,
                is_draining: self.is_draining.clone(),
            };
            let run = connection.run(stream, self.tls.clone(), place);
            let task = match &self.slower {
                Some(slower) => slower.unknown().spawn(run),
                None => Some(tokio::spawn(run)),
            };
            connections.extend(task.map(AbortOnDropHandle::new));
        }
        drop(acceptor);
        while connections.next().await.is_some() {}
        Ok(())
    }
}

/// Accepts connections, by the thread for unknown clients if there is one: a flood of connections delays no calls then.
struct Acceptor {
    listener: TcpListener,
    slower: Option<SlowThreads>,
}

impl Acceptor {
    fn new(listener: TcpListener, slower: Option<SlowThreads>) -> std::io::Result<Self> {
        let Some(threads) = &slower else { return Ok(Self { listener, slower }) };
        let listener = listener.into_std()?;
        let listener = threads.unknown().with_driver(|| TcpListener::from_std(listener));
        Ok(Self { listener: listener.ok_or_else(ended)??, slower })
    }

    /// Accepts a connection when there is a place among the starting ones, which it has from then on.
    async fn accept(&self, starting: &Arc<Semaphore>) -> std::io::Result<(TcpStream, Option<OwnedSemaphorePermit>)> {
        // Nobody closes the semaphore.
        let place = Arc::clone(starting).acquire_owned().await.ok();
        let (stream, _) = poll_fn(|context| match &self.slower {
            Some(slower) => slower
                .unknown()
                .with_driver(|| self.listener.poll_accept(context))
                .unwrap_or_else(|| Poll::Ready(Err(ended()))),
            None => self.listener.poll_accept(context),
        })
        .await?;
        Ok((stream, place))
    }
}

/// The threads for unknown clients have ended.
fn ended() -> std::io::Error {
    std::io::Error::other("the threads for unknown clients have ended")
}

/// What one connection is served with.
struct Connection {
    limits: Limits,
    entrance: Arc<Entrance>,
    slower: Option<SlowThreads>,
    /// Its place on the port.
    entry: Entry,
    is_draining: watch::Receiver<bool>,
}

impl Connection {
    /// Accepts and serves the connection until it ends, on the threads for its client's standing. Gives up its place among the
    /// starting ones when it has run for the first time.
    async fn run(self, stream: TcpStream, tls: Option<Tls>, place: Option<OwnedSemaphorePermit>) {
        let (open, slower) = (Arc::clone(&self.entry.connection), self.slower.clone());
        let connection = started(Box::pin(self.accept(stream, tls)), place);
        let Some(slower) = slower else { return connection.await };
        let unknown = until(moves(Arc::clone(&open), Standing::Unknown), connection);
        if let Some(known) = unknown.await {
            // On the runtime: whatever unknown clients send, it moves a connection without delay.
            let ended = AbortOnDropHandle::new(tokio::spawn(run_known(open, slower, known))).await;
            drop(ended);
        }
    }

    /// Completes the TLS handshake where the port has TLS, then serves the connection.
    async fn accept(self, stream: TcpStream, tls: Option<Tls>) {
        let _slower_at_worst = stream.set_nodelay(true);
        let stream = FollowingStream::new(stream, Arc::clone(&self.entry.connection), self.slower.clone());
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
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let open = Arc::clone(&self.entry.connection);
        let stream = TokioIo::new(PacedIo::new(stream, Arc::clone(&open)));
        let this = Arc::new(self);
        let answering = Arc::clone(&this);
        let service = service_fn(move |request: Request<Incoming>| {
            let this = Arc::clone(&answering);
            let begun = this.entrance.begin(request.uri().path(), &this.entry.connection);
            async move {
                // Boxed while it is worked at. Many requests may wait for their turn, and a client may leave many responses untaken.
                Ok::<_, Infallible>(Box::pin(this.entrance.answer(request, begun, this.entry.table())).await)
            }
        });
        let requests = Arrived::default();
        let builder = this.builder(requests.clone());
        let mut connection = WithRequests::new(builder.serve_connection(stream, service), Arc::clone(&open), requests);
        let mut end = pin!(rarely(this.reason_to_end()));
        let ended = tokio::select! {
            biased;
            ended = in_turns(&this.entrance, &open, &mut connection) => ended,
            end = &mut end => match end {
                End::AtOnce => return,
                End::AfterRequests => {
                    connection.connection().graceful_shutdown();
                    // After the grace period the connection is dropped. A Watch client reconnects and receives what it missed,
                    // and an idle client misses nothing.
                    let over = rarely(timeout(this.limits.connection_grace, this.reason_to_close()));
                    tokio::select! {
                        biased;
                        ended = in_turns(&this.entrance, &open, &mut connection) => ended,
                        _ = over => return,
                    }
                }
            },
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection broke");
        }
    }

    /// Completes when the connection is to end.
    fn reason_to_end(&self) -> impl Future<Output = End> + use<> {
        // The age varies by 10 % either way, so that connections opened together do not all close together.
        let age_max = self.limits.connection_age_max.mul_f64(0.9 + 0.2 * fastrand::f64());
        let (open, close) = (Arc::clone(&self.entry.connection), self.reason_to_close());
        let mut is_draining = self.is_draining.clone();
        async move {
            tokio::select! {
                () = close => End::AtOnce,
                () = sleep(age_max) => End::AfterRequests,
                () = open.retired() => End::AfterRequests,
                _ = is_draining.wait_for(|is_draining| *is_draining) => End::AfterRequests,
            }
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

    fn builder(&self, requests: Arrived) -> Builder<Arrived> {
        let mut builder = Builder::new(requests);
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

/// How a connection is to end.
enum End {
    AtOnce,
    AfterRequests,
}

/// Waits for something that happens rarely. It is looked at when it has been woken, and not whenever the task runs; but then even if
/// requests have used up what tokio lets a task do at once.
async fn rarely<F: Future>(rare: F) -> F::Output {
    match FuturesUnordered::from_iter([unconstrained(rare)]).next().await {
        Some(output) => output,
        None => pending().await,
    }
}

/// Runs the connection of a known client until it ends, on the threads for its client's standing.
async fn run_known<F>(open: Arc<OpenConnection>, slower: SlowThreads, mut connection: Pin<Box<F>>)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let standing = open.standing();
        let part = until(moves(Arc::clone(&open), standing), connection);
        let rest = match slower.threads(standing) {
            Some(threads) => threads.run(part).await.ok().flatten(),
            None => part.await,
        };
        let Some(rest) = rest else { return };
        connection = rest;
    }
}

/// Completes when a connection of this standing has another. A busy one calms down by that.
async fn moves(open: Arc<OpenConnection>, standing: Standing) {
    match standing {
        Standing::Unknown | Standing::Known => open.leaves(standing).await,
        Standing::Busy => open.calm_down().await,
    }
}

/// Runs work until it is to move. Returns it if it has not ended by then.
async fn until<F: Future>(moves: impl Future<Output = ()>, mut work: Pin<Box<F>>) -> Option<Pin<Box<F>>> {
    tokio::select! {
        biased;
        _ = &mut work => None,
        () = rarely(moves) => Some(work),
    }
}

/// Work that gives up its place when it has run for the first time.
fn started<F: Future>(
    mut work: Pin<Box<F>>,
    mut place: Option<OwnedSemaphorePermit>,
) -> Pin<Box<impl Future<Output = F::Output>>> {
    Box::pin(poll_fn(move |context| {
        let polled = work.as_mut().poll(context);
        drop(place.take());
        polled
    }))
}

/// Runs a connection. Each time it is polled, its next turn begins.
async fn in_turns<F: Future + Unpin>(entrance: &Entrance, open: &OpenConnection, mut connection: &mut F) -> F::Output {
    poll_fn(|context| {
        entrance.begin_turn(open);
        Pin::new(&mut connection).poll(context)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, task::Context, thread};

    use futures::FutureExt as _;
    use hyper::rt::Executor as _;
    use tokio::{
        io::ReadBuf,
        sync::mpsc::{UnboundedReceiver, unbounded_channel},
    };

    use super::{super::woken::Woken, *};

    /// How long something may take that has to happen.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Waits until a request runs on a thread with this name; "" means none of lower priority.
    async fn runs_on(names: &mut UnboundedReceiver<String>, wanted: &str) {
        let slower = |name: &str| name.starts_with("permcached-");
        let found = async {
            while let Some(name) = names.recv().await {
                if if wanted.is_empty() { !slower(&name) } else { name == wanted } {
                    return true;
                }
            }
            false
        };
        assert!(timeout(PATIENCE, found).await.expect("it runs"), "{wanted}");
    }

    #[tokio::test]
    async fn a_request_runs_on_the_threads_for_its_client_and_is_moved_with_its_connection_while_it_waits() {
        let open = OpenConnection::new(1);
        let slower = SlowThreads::start().expect("threads");
        let (named, mut names) = unbounded_channel();
        // It tells the name of its thread each time it runs, which it does all the time.
        let request = poll_fn(move |context| {
            let _nobody_asks = named.send(thread::current().name().unwrap_or_default().to_owned());
            context.waker().wake_by_ref();
            Poll::Pending
        });
        let requests = Arrived::default();
        requests.execute(request);
        let connection = Box::pin(WithRequests::new(pending::<()>(), Arc::clone(&open), requests).map(drop));
        open.set_known();
        let run = tokio::spawn(run_known(Arc::clone(&open), slower, connection));
        runs_on(&mut names, "").await;
        open.set_busy();
        runs_on(&mut names, "permcached-busy").await;
        // It calms down by itself.
        runs_on(&mut names, "").await;
        run.abort();
    }

    #[tokio::test]
    async fn a_connection_moves_when_its_client_becomes_known_or_busy_and_when_it_has_calmed_down() {
        let open = OpenConnection::new(1);
        let next = async |standing| {
            timeout(PATIENCE, moves(Arc::clone(&open), standing)).await.expect("it moves");
            open.standing()
        };
        open.set_known();
        assert_eq!(next(Standing::Unknown).await, Standing::Known);
        open.set_busy();
        assert_eq!(next(Standing::Known).await, Standing::Busy);
        assert_eq!(next(Standing::Busy).await, Standing::Known);
    }

    #[tokio::test]
    async fn a_connection_is_accepted_only_while_few_have_not_had_their_first_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let acceptor = Acceptor::new(listener, Some(SlowThreads::start().expect("threads"))).expect("a port");
        let starting = Arc::new(Semaphore::new(2));
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.expect("the system's queue takes it"));
        }
        let mut accepted = Vec::new();
        for _ in 0..2 {
            accepted.push(acceptor.accept(&starting).await.expect("a connection"));
        }
        // Long enough for an accept that does not wait.
        assert!(timeout(Duration::from_millis(50), acceptor.accept(&starting)).await.is_err());
        accepted.pop();
        timeout(PATIENCE, acceptor.accept(&starting)).await.expect("in time").expect("a connection");
    }

    #[tokio::test]
    async fn the_thread_for_unknown_clients_accepts_connections_and_carries_their_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let acceptor = Acceptor::new(listener, Some(SlowThreads::start().expect("threads"))).expect("a port");
        let starting = Arc::new(Semaphore::new(1));
        let (woken, names) = mpsc::channel();
        let waker = Arc::new(Woken(woken)).into();
        let mut context = Context::from_waker(&waker);
        let woken_by = || names.recv_timeout(PATIENCE).expect("it is woken");
        let mut accept = Box::pin(acceptor.accept(&starting));
        assert!(accept.as_mut().poll(&mut context).is_pending());
        let client = TcpStream::connect(address).await.expect("the system's queue takes it");
        assert_eq!(woken_by(), "permcached-unknown");
        let (mut stream, _) = accept.await.expect("a connection");
        let mut byte = [0; 1];
        let mut read = || Pin::new(&mut stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte));
        assert!(read().is_pending());
        client.try_write(b"x").expect("it is open");
        assert_eq!(woken_by(), "permcached-unknown");
    }

    #[tokio::test]
    async fn a_place_among_the_starting_connections_is_given_up_after_the_first_turn() {
        let starting = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&starting).try_acquire_owned().ok();
        let mut connection = started(Box::pin(pending::<()>()), place);
        assert_eq!(starting.available_permits(), 0);
        assert_eq!(poll_fn(|context| Poll::Ready(connection.as_mut().poll(context))).await, Poll::Pending);
        assert_eq!(starting.available_permits(), 1);
    }
}
