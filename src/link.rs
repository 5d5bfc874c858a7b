//! The link to Redis: a connection to a server or a cluster, with a circuit breaker and endless reconnection; and the names of
//! permcached's keys and channels there (`names`), with the codes that show who wrote to them (`codes`).
//!
//! Knows nothing of what the keys and messages hold.

mod codes;
mod error;
mod examine;
mod names;
mod namespace;
mod secrets;
mod server;
mod subscription;
mod encoded_id;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use codes::{Authenticator, CODE_BYTES, Codes, Unauthentic};
pub(crate) use encoded_id::EncodedId;
pub use error::ClientError;
pub use examine::examine;
pub use names::{FORMAT, Names};
pub use namespace::Namespace;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind};
pub use secrets::{Secrets, SecretsError};
use server::Connection;
pub use server::{Server, ServerError};
pub use subscription::Subscription;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::diagnosis::error_chain;

/// How long it may take to connect, the handshake included.
const CONNECT_TIME: Duration = Duration::from_secs(1);

/// How long to wait before the next attempt to connect: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// How long a connection must have lasted for the next pause to be the shortest.
const STABLE: Duration = Duration::from_secs(10);

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The link is down, and is being reconnected. Nothing was sent.
    #[error("Redis is unreachable")]
    Down,
    /// Redis did not answer in time.
    #[error("Redis does not answer in time")]
    TimedOut,
    /// Redis answered with a refusal: it is full, it is a replica, or the user lacks a right.
    #[error("Redis refused the command")]
    Refused(#[source] ClientError),
    /// The connection broke, or Redis cannot do anything at present.
    #[error("Redis cannot be used")]
    Failed(#[source] ClientError),
}

impl LinkError {
    /// Whether Redis refused a write for lack of memory.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code() == Some("OOM"))
    }

    /// Whether Redis refused a write because it is a replica.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code() == Some("READONLY"))
    }

    /// Why there is no connection.
    fn failed(error: RedisError) -> Self {
        Self::Failed(error.into())
    }

    fn of(error: &RedisError) -> Self {
        let is_unusable = match error.kind() {
            // It is loading its data, has lost its master, or is a cluster that lacks some slots.
            ErrorKind::Server(
                ServerErrorKind::BusyLoading | ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown,
            ) => true,
            // The connection is not authenticated.
            ErrorKind::Extension => error.code() == Some("NOAUTH"),
            ErrorKind::Server(_) => false,
            _ => true,
        };
        let error = ClientError::of(error);
        if is_unusable { Self::Failed(error) } else { Self::Refused(error) }
    }
}

/// A link to Redis with a circuit breaker: after a command is not answered in time, every other fails at once until Redis
/// answers again. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Link {
    server: Arc<Server>,
    /// How long Redis may take to answer a `PING` for the link to be up.
    ping_time: Duration,
    /// The connection, while it works.
    connection: Arc<Mutex<Option<Numbered>>>,
    up: watch::Sender<bool>,
}

/// A connection and its number, by which a failed command finds out whether it was replaced meanwhile.
#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    connection: Connection,
}

impl Link {
    /// A link that is down. [`Link::run`] brings it up once Redis answers a `PING` within `ping_time`, which is at most the time
    /// limit of the commands that will use the link.
    #[must_use]
    pub fn new(server: Arc<Server>, ping_time: Duration) -> Self {
        Self { server, ping_time, connection: Arc::default(), up: watch::Sender::new(false) }
    }

    /// Watches whether the link is up.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Whether the link is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Whether it leads to a cluster, in which a script or a pipeline sees only one node's keys.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.server.is_cluster()
    }

    /// Runs a command, for at most `time`.
    ///
    /// # Errors
    /// [`LinkError`]. After all but a refusal the link is down, until Redis answers again.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd, time: Duration) -> Result<T, LinkError> {
        let Numbered { number, mut connection } = self.connection().clone().ok_or(LinkError::Down)?;
        let error = match timeout(time, connection.query(command)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => LinkError::of(&error),
            Err(_) => LinkError::TimedOut,
        };
        if !matches!(error, LinkError::Refused(_)) {
            tracing::debug!(error = %error_chain(&error), "the link to Redis is lost");
            self.lose(number);
        }
        Err(error)
    }

    /// Replaces the connection, which leads to the wrong server.
    pub fn renew(&self) {
        let number = self.connection().as_ref().map(|connection| connection.number);
        if let Some(number) = number {
            self.lose(number);
        }
    }

    /// Subscribes to channels, on a connection of its own. Of a longer message only `message_bytes_max` and one byte are kept.
    ///
    /// # Errors
    /// Redis cannot be reached, or the user may not subscribe.
    pub async fn subscribe(&self, channels: &[&str], message_bytes_max: usize) -> Result<Subscription, LinkError> {
        let subscribing = self.server.subscribe(channels);
        let subscribed = timeout(CONNECT_TIME, subscribing).await.map_err(|_| LinkError::TimedOut)?;
        let stream = subscribed.map_err(|error| LinkError::of(&error))?;
        Ok(Subscription::new(stream, message_bytes_max))
    }

    /// Keeps the link up, for ever. Calls `report` after an attempt to connect whose result, success or failure, differs from the
    /// one before, and after the first. So a link that is lost and reconnected at once is not reported.
    pub async fn run(self, report: impl Fn(Result<(), &LinkError>) + Send) {
        let [shortest, longest] = PAUSES;
        let mut pause = shortest;
        let mut reported = None;
        for number in 0.. {
            match self.connect().await {
                Ok(connection) => {
                    let since = Instant::now();
                    if reported.replace(true) != Some(true) {
                        report(Ok(()));
                    }
                    self.use_until_lost(Numbered { number, connection }).await;
                    if since.elapsed() > STABLE {
                        pause = shortest;
                    }
                }
                Err(error) => {
                    if reported.replace(false) != Some(false) {
                        report(Err(&error));
                    }
                }
            }
            sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    /// Connects, and waits for the answer to a `PING`.
    async fn connect(&self) -> Result<Connection, LinkError> {
        let connecting = timeout(CONNECT_TIME, self.server.connect());
        let mut connection = connecting.await.map_err(|_| LinkError::TimedOut)?.map_err(LinkError::failed)?;
        let pinging = timeout(self.ping_time, connection.ping());
        pinging.await.map_err(|_| LinkError::TimedOut)?.map_err(LinkError::failed)?;
        Ok(connection)
    }

    /// Lets commands use a connection until it is lost.
    async fn use_until_lost(&self, connection: Numbered) {
        let mut up = self.up.subscribe();
        *self.connection() = Some(connection);
        self.up.send_replace(true);
        drop(up.wait_for(|up| !up).await);
    }

    /// Takes the link down, if it still uses the connection of this number.
    fn lose(&self, number: u64) {
        let mut connection = self.connection();
        if connection.as_ref().is_some_and(|current| current.number == number) {
            *connection = None;
            self.up.send_replace(false);
        }
    }

    fn connection(&self) -> MutexGuard<'_, Option<Numbered>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
