//! How MongoDB is reached and greeted, and what it says of itself then.
//!
//! Reads no document.

use std::time::Duration;

use bson::{DateTime, doc};
use mongodb::{Client, Database, error::ErrorKind, options::ClientOptions};

use super::{COMMANDS_MAX, Mode, PROBE_TIME, primary};
use crate::source::Deadline;

/// How many connections there may be: one for each of these, for each probe under way, and some for the change stream.
const CONNECTIONS_MAX: u32 = COMMANDS_MAX + 16;

/// How long a command waits for a server that is within reach, unless the connection string says otherwise: less than a
/// request may take, so that its answer can be that there is none.
const SELECTION_TIME: Duration = Duration::from_secs(1);

/// The first version of the wire protocol with reads at a snapshot outside of transactions: MongoDB 5.0.
const SNAPSHOTS: i32 = 13;

/// Why MongoDB cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection string is wrong.
    #[error("the connection string is wrong: {0}")]
    Uri(String),
    /// Neither the connection string nor the configuration names a database.
    #[error("no database is named: add it to the connection string (…:27017/NAME), or set MONGODB_DATABASE")]
    NoDatabase,
    /// It is a member of a replica set that is not there yet.
    #[error("this MongoDB waits to become a replica set: run rs.initiate() on it")]
    NotInitiated,
    /// It cannot read at a snapshot.
    #[error("this MongoDB is older than 5.0, which is the first to read at a snapshot")]
    TooOld,
    /// It does not answer.
    #[error("MongoDB does not answer, or does not let us in")]
    Unreachable(#[source] Box<ErrorKind>),
}

impl ConnectError {
    /// Why a server could not be greeted. One that waits to be initiated is no primary, so that the driver never gets to it.
    fn of_hello(error: mongodb::error::Error) -> Self {
        if error.to_string().contains("RsGhost") { Self::NotInitiated } else { Self::Unreachable(error.kind) }
    }
}

/// What a server says of itself.
#[derive(Debug)]
pub(super) struct Greeting {
    /// What it can promise.
    pub(super) mode: Mode,
    /// The name of its replica set, if it is in one.
    pub(super) set: Option<String>,
    /// Its clock, where it tells it.
    pub(super) time: Option<DateTime>,
}

/// A database of a server that has not been greeted, by what its connection string says.
pub(super) fn database(uri: &str, options: ClientOptions, name: &str) -> Result<Database, ConnectError> {
    Ok(Client::with_options(options).map_err(|error| wrong_uri(uri, &error))?.database(name))
}

/// Greets a server, again and again for some time while none is within reach.
pub(super) async fn reach(database: &Database) -> Result<Greeting, ConnectError> {
    // At the start there is more time than a request has.
    let deadline = Deadline::after(PROBE_TIME);
    loop {
        match greet(database).await {
            Err(ConnectError::Unreachable(kind)) if is_out_of_reach(&kind) && !deadline.is_over() => {}
            result => return result,
        }
    }
}

/// Greets a server, and finds out whether it will do.
pub(super) async fn greet(database: &Database) -> Result<Greeting, ConnectError> {
    let hello = database.run_command(doc! { "hello": 1 }).selection_criteria(primary()).await;
    let hello = hello.map_err(ConnectError::of_hello)?;
    if hello.get_bool("isreplicaset").unwrap_or(false) {
        return Err(ConnectError::NotInitiated);
    }
    if hello.get_i32("maxWireVersion").unwrap_or(0) < SNAPSHOTS {
        return Err(ConnectError::TooOld);
    }
    let set = hello.get_str("setName").ok().map(str::to_owned);
    let mode = match hello.get_str("msg") {
        Ok("isdbgrid") => Mode::Sharded,
        _ if set.is_some() => Mode::ReplicaSet,
        _ => Mode::Standalone,
    };
    Ok(Greeting { mode, set, time: hello.get_datetime("localTime").ok().copied() })
}

/// Whether no server that would do was found in time.
fn is_out_of_reach(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::ServerSelection { .. })
}

/// What a connection string says, and what it leaves to us; and the database, which is the one named, else its own.
pub(super) async fn options(uri: &str, database: Option<&str>) -> Result<(ClientOptions, String), ConnectError> {
    let mut options = ClientOptions::parse(uri).await.map_err(|error| {
        // Its name may be found later.
        if matches!(*error.kind, ErrorKind::DnsResolve { .. }) {
            return ConnectError::Unreachable(error.kind);
        }
        wrong_uri(uri, &error)
    })?;
    options.app_name.get_or_insert_with(|| "permcached".to_owned());
    options.max_pool_size.get_or_insert(CONNECTIONS_MAX);
    options.server_selection_timeout.get_or_insert(SELECTION_TIME);
    options.connect_timeout.get_or_insert(PROBE_TIME);
    let name = database.map(str::to_owned).or_else(|| options.default_database.clone());
    Ok((options, name.ok_or(ConnectError::NoDatabase)?))
}

/// What is wrong with a connection string. What the driver says of it may hold a piece of the password.
fn wrong_uri(uri: &str, error: &mongodb::error::Error) -> ConnectError {
    let advice = "percent-encode what is neither a letter nor a digit in the user's name and password";
    ConnectError::Uri(if uri.contains('@') { advice.to_owned() } else { error.to_string() })
}
