//! How MongoDB is reached, and what it reports about itself in reply to `hello`.
//!
//! Reads no document.

use std::{iter, time::Duration};

use bson::{DateTime, doc};
use mongodb::{Client, Database, error::ErrorKind, options::ClientOptions};

use super::{
    COMMANDS_MAX, Mode, PROBE_TIME,
    error::{DriverError, Unusable},
    journal, primary,
    uri::{AssumedSource, ConnectionString, UriErrors},
};
use crate::source::Deadline;

/// How many connections there may be: one for each of these finds, one for each probe, two for the
/// journal, and some for the change stream.
const CONNECTIONS_MAX: u32 = COMMANDS_MAX + 24;

/// How long a command waits for a server that can be reached, unless the connection string sets another time. It is less than
/// a request may take, so that a request can report that there is no server.
const SELECTION_TIME: Duration = Duration::from_secs(1);

/// The first version of MongoDB's wire protocol with snapshot reads outside of transactions: MongoDB 5.0.
const SNAPSHOT_VERSION: i32 = 13;

/// Why MongoDB cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection string is wrong. The driver's own messages may quote a password, and are not shown.
    #[error("the connection string is wrong: {0}")]
    Uri(UriErrors),
    /// Neither the connection string nor the configuration names a database.
    #[error("no database is named: add it to the connection string (…:27017/NAME), or set MONGODB_DATABASE")]
    NoDatabase,
    /// It is a member of a replica set that was not initiated yet.
    #[error("this MongoDB waits to become a replica set: run rs.initiate() on it")]
    NotInitiated,
    /// It cannot read at a snapshot.
    #[error("this MongoDB is older than 5.0, which is the first to read at a snapshot")]
    TooOld,
    /// It refuses the login, and looks the user up in a database only because the connection string names that database.
    #[error(
        "MongoDB refuses the login: the connection string names the database `{}` and has no authSource, so the user is looked \
         up there; if the user was created in `{}`, add authSource={} to it",
        .0.source, .0.usual, .0.usual
    )]
    AssumedSource(AssumedSource),
    /// It does not answer, or refuses the login.
    #[error("MongoDB does not answer, or refuses the login")]
    Unreachable(#[source] DriverError),
}

impl ConnectError {
    /// Adds what the connection string shows about why a login is refused.
    pub(super) fn with_source(self, assumed: Option<AssumedSource>) -> Self {
        match (self, assumed) {
            (Self::Unreachable(DriverError::Login | DriverError::NoServer(Unusable::Login)), Some(source)) => {
                Self::AssumedSource(source)
            }
            (error, _) => error,
        }
    }

    /// Why `hello` failed. A server that waits to be initiated is not a primary, so the driver does not send it any command.
    fn of_hello(error: &mongodb::error::Error) -> Self {
        match DriverError::of(error) {
            DriverError::NoServer(Unusable::NotInitiated) => Self::NotInitiated,
            error => Self::Unreachable(error),
        }
    }
}

/// What a server reports about itself.
#[derive(Debug)]
pub(super) struct Hello {
    /// What it can promise.
    pub(super) mode: Mode,
    /// The name of its replica set, if it is in one.
    pub(super) set: Option<String>,
    /// Whether a probe may have to wait for its journal.
    pub(super) waits_for_journal: bool,
    /// Its clock, if it reports it.
    pub(super) time: Option<DateTime>,
}

/// A database by its connection's options. Sends nothing yet.
pub(super) fn database(options: ClientOptions, name: &str) -> Result<Database, ConnectError> {
    let client = Client::with_options(options).map_err(|error| {
        ConnectError::Uri(match &*error.kind {
            ErrorKind::InvalidTlsConfig { .. } => UriErrors::of_key(),
            _ => UriErrors::of_driver(iter::empty()),
        })
    })?;
    Ok(client.database(name))
}

/// Sends `hello` to a server. While none can be reached, tries again for some time.
pub(super) async fn reach(database: &Database) -> Result<Hello, ConnectError> {
    // A start may take longer than a request.
    let deadline = Deadline::after(PROBE_TIME);
    loop {
        match hello(database).await {
            Err(ConnectError::Unreachable(DriverError::NoServer(_))) if !deadline.is_over() => {}
            result => return result,
        }
    }
}

/// Sends `hello` to a server, and checks that the server can be used.
pub(super) async fn hello(database: &Database) -> Result<Hello, ConnectError> {
    let hello = database.run_command(doc! { "hello": 1 }).selection_criteria(primary()).await;
    let hello = hello.map_err(|error| ConnectError::of_hello(&error))?;
    if hello.get_bool("isreplicaset").unwrap_or(false) {
        return Err(ConnectError::NotInitiated);
    }
    if hello.get_i32("maxWireVersion").unwrap_or(0) < SNAPSHOT_VERSION {
        return Err(ConnectError::TooOld);
    }
    let set = hello.get_str("setName").ok().map(str::to_owned);
    let mode = match hello.get_str("msg") {
        Ok("isdbgrid") => Mode::Sharded,
        _ if set.is_some() => Mode::ReplicaSet,
        _ => Mode::Standalone,
    };
    let waits_for_journal = journal::is_waited_for(&hello);
    Ok(Hello { mode, set, waits_for_journal, time: hello.get_datetime("localTime").ok().copied() })
}

/// The options of a connection string, with defaults of our own, and the name of the database. The given name comes before the
/// one in the connection string.
pub(super) async fn options(
    uri: &ConnectionString,
    database: Option<&str>,
) -> Result<(ClientOptions, String), ConnectError> {
    let mut options = ClientOptions::parse(uri.driver()).await.map_err(|error| match DriverError::of(&error) {
        // The name of the server may be resolved later.
        error @ DriverError::Name => ConnectError::Unreachable(error),
        _ => ConnectError::Uri(UriErrors::of_driver(uri.option_names())),
    })?;
    options.app_name.get_or_insert_with(|| "permcached".to_owned());
    options.max_pool_size.get_or_insert(CONNECTIONS_MAX);
    options.server_selection_timeout.get_or_insert(SELECTION_TIME);
    options.connect_timeout.get_or_insert(PROBE_TIME);
    let name = database.map(str::to_owned).or_else(|| options.default_database.clone());
    Ok((options, name.ok_or(ConnectError::NoDatabase)?))
}
