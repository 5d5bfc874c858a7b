//! The link to Redis: how a server or a cluster is named and reached, how soon it is given up, and that it is tried again
//! for ever.
//!
//! Knows what things are called there (`names`), and nothing of what they say.

mod examine;
mod names;
mod server;
mod encoded_id;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub(crate) use encoded_id::EncodedId;
pub use examine::examine;
pub use names::{FORMAT, Names};
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind};
use server::Connection;
pub use server::{Server, ServerError, Subscription};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::diagnosis::error_chain;

/// How long it may take to connect and be greeted.
const CONNECT_TIME: Duration = Duration::from_secs(1);

/// How long to wait after a link was lost before it is tried again: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// How long a link must have held for the next pause to be a short one.
const STABLE: Duration = Duration::from_secs(10);

/// Why Redis did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It was lost before, and is being tried again: nothing was asked.
    #[error("Redis is out of reach")]
    Down,
    /// It did not answer in time.
    #[error("Redis does not answer in time")]
    TimedOut,
    /// It is there, and refuses: it is full, a replica, or the user lacks a right.
    #[error("Redis refuses")]
    Refused(#[source] RedisError),
    /// The link broke, or it cannot serve at all for now.
    #[error("Redis fails")]
    Failed(#[source] RedisError),
}

impl LinkError {
    /// Whether there is no memory left for what was to be written.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code() == Some("OOM"))
    }

    /// Whether it follows another one, and takes no writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Refused(error) if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly))
    }

    fn of(error: RedisError) -> Self {
        let is_useless = match error.kind() {
            // It is loading, or a cluster without one of its parts.
            ErrorKind::Server(
                ServerErrorKind::BusyLoading | ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown,
            ) => true,
            // It wants to know who asks.
            ErrorKind::Extension => error.code() == Some("NOAUTH"),
            ErrorKind::Server(_) => false,
            _ => true,
        };
        if is_useless { Self::Failed(error) } else { Self::Refused(error) }
    }
}

/// A link to Redis with a circuit breaker: once a command is not answered in time, no other waits until Redis answers again.
/// Clones share it.
#[derive(Clone, Debug)]
pub struct Link {
    server: Arc<Server>,
    /// How long Redis may take to answer before it is taken to be up: no longer than who asks it waits.
    greeting_time: Duration,
    /// The connection, while there is one that works.
    connection: Arc<Mutex<Option<Numbered>>>,
    up: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    connection: Connection,
}

impl Link {
    /// A link that is not up yet: [`Link::run`] brings it up, once Redis has answered within `greeting_time`, which is no
    /// longer than those who will ask it wait.
    #[must_use]
    pub fn new(server: Arc<Server>, greeting_time: Duration) -> Self {
        Self { server, greeting_time, connection: Arc::default(), up: watch::Sender::new(false) }
    }

    /// Whether it is up, now and from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Whether it is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Runs a command, within so much time.
    ///
    /// # Errors
    /// [`LinkError`]. After all but a refusal the link is down, until Redis answers again.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd, time: Duration) -> Result<T, LinkError> {
        let Numbered { number, mut connection } = self.connection().clone().ok_or(LinkError::Down)?;
        let error = match timeout(time, connection.query(command)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => LinkError::of(error),
            Err(_) => LinkError::TimedOut,
        };
        if !matches!(error, LinkError::Refused(_)) {
            tracing::debug!(error = %error_chain(&error), "the link to Redis is lost");
            self.lose(number);
        }
        Err(error)
    }

    /// Gives the connection up for another one, as it leads to the wrong server.
    pub fn renew(&self) {
        let number = self.connection().as_ref().map(|connection| connection.number);
        if let Some(number) = number {
            self.lose(number);
        }
    }

    /// Listens to channels, on a connection of its own.
    ///
    /// # Errors
    /// Redis is out of reach, or the user may not listen.
    pub async fn subscribe(&self, channels: &[&str]) -> Result<Subscription, LinkError> {
        let subscribing = self.server.subscribe(channels);
        timeout(CONNECT_TIME, subscribing).await.map_err(|_| LinkError::TimedOut)?.map_err(LinkError::of)
    }

    /// Keeps the link up for ever. `tell` hears when Redis has been reached, and why it has not been: each once, until it is
    /// the other. That it was lost and is back at once is told nobody.
    pub async fn run(self, tell: impl Fn(Result<(), &LinkError>) + Send) {
        let [shortest, longest] = PAUSES;
        let mut pause = shortest;
        let mut told = None;
        for number in 0.. {
            match self.reach().await {
                Ok(connection) => {
                    let since = Instant::now();
                    if told.replace(true) != Some(true) {
                        tell(Ok(()));
                    }
                    self.hold(Numbered { number, connection }).await;
                    if since.elapsed() > STABLE {
                        pause = shortest;
                    }
                }
                Err(error) => {
                    if told.replace(false) != Some(false) {
                        tell(Err(&error));
                    }
                }
            }
            sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    /// A connection that answers in time.
    async fn reach(&self) -> Result<Connection, LinkError> {
        let connecting = timeout(CONNECT_TIME, self.server.connect());
        let mut connection = connecting.await.map_err(|_| LinkError::TimedOut)?.map_err(LinkError::Failed)?;
        let greeting = timeout(self.greeting_time, connection.greet());
        greeting.await.map_err(|_| LinkError::TimedOut)?.map_err(LinkError::Failed)?;
        Ok(connection)
    }

    /// Lets a connection be used until it is lost.
    async fn hold(&self, connection: Numbered) {
        let mut up = self.up.subscribe();
        *self.connection() = Some(connection);
        self.up.send_replace(true);
        drop(up.wait_for(|up| !up).await);
    }

    /// Has a connection be used no more.
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
