//! The examination of MongoDB: what is wrong with the connection, with the database, and with the user's rights, each with
//! its remedy.
//!
//! Runs the commands that the service runs, and changes nothing. Every step has a time limit, so that a server that hangs is
//! a diagnosis, too.

mod clock;
mod collections;
mod rights;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bson::doc;
use mongodb::{
    Database,
    options::{ClientOptions, ServerAddress},
};
use tokio::time::timeout;

use super::{
    AssumedSource, ConnectError, ConnectionString, DriverError, Finding, Mode, MongoDb, Unusable,
    client::ReplacedClient,
    connect::{self, Hello},
    finding::quoted,
    inspect::inspect,
    uri::EXTERNAL,
};
use crate::{
    diagnosis::{Diagnosis, Subject},
    schema::Schema,
};

/// How long one step may take.
const STEP_TIME: Duration = Duration::from_secs(10);

/// From this round trip on, a nearer server would be of use.
const FAR: Duration = Duration::from_millis(50);

/// MongoDB's default port.
const DEFAULT_PORT: u16 = 27_017;

/// How many round trips are measured. The shortest counts.
const ROUND_TRIPS: usize = 3;

/// The servers and the user of a connection string: all of it that may be shown.
struct Address {
    hosts: String,
    /// Shell commands that try to connect to each of them.
    trials: String,
    /// The user's name, and the database that the user is defined in.
    login: Option<(String, String)>,
    /// That database, if it is not named by `authSource`.
    assumed: Option<AssumedSource>,
}

impl Address {
    fn of(options: &ClientOptions, assumed: Option<AssumedSource>) -> Self {
        let hosts = options.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let login = options.credential.as_ref().and_then(|credential| {
            let source = credential.source.as_deref().or(options.default_database.as_deref()).unwrap_or("admin");
            credential.username.clone().map(|name| (name, source.to_owned()))
        });
        let trial = |host: &ServerAddress| match host {
            ServerAddress::Tcp { host, port } => Some(format!("nc -vz {host} {}", port.unwrap_or(DEFAULT_PORT))),
            ServerAddress::Unix { path } => Some(format!("nc -vzU {}", path.display())),
            _ => None,
        };
        let trials = options.hosts.iter().filter_map(trial).collect::<Vec<_>>().join("; ");
        Self { hosts, trials, login, assumed }
    }

    /// Whether the server is in Atlas, where users are not created by commands.
    fn is_atlas(&self) -> bool {
        self.hosts.contains(".mongodb.net")
    }
}

/// Examines the MongoDB of a connection string, from the connection to the user's rights. Without a schema, collections and
/// rights are skipped.
pub async fn examine(schema: Option<&Arc<Schema>>, uri: &str, database: Option<&str>) -> Vec<Diagnosis> {
    let uri = match ConnectionString::parse(uri) {
        Ok(uri) => uri,
        Err(errors) => return vec![unusable(&ConnectError::Uri(errors), None)],
    };
    let opened = async {
        let (options, name) = connect::options(&uri, database).await?;
        let address = Address::of(&options, uri.assumed_source(&options));
        Ok((address, connect::database(options, &name)?))
    };
    let (address, database) = match timeout(STEP_TIME, opened).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return vec![unusable(&error, None)],
        Err(_) => return vec![silent("the server names in its connection string cannot be resolved in time", None)],
    };
    examine_database(schema, database, &address).await
}

/// Examines a database at a known address.
async fn examine_database(schema: Option<&Arc<Schema>>, database: Database, address: &Address) -> Vec<Diagnosis> {
    let hello = match timeout(STEP_TIME, connect::reach(&database)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return vec![unusable(&error, Some(address))],
        Err(_) => return vec![silent(&format!("{} does not answer in time", address.hosts), Some(address))],
    };
    let mut diagnoses = round_trips(&database, address).await;
    diagnoses.push(kind(&hello));
    let (is_there, named) = collections::database(&database).await;
    diagnoses.push(named);
    match schema {
        None => diagnoses
            .push(Diagnosis::skipped(Subject::MongoDb, "collections, indexes and rights, as there is no valid schema")),
        Some(schema) => {
            let unsuitable = collections::examine(schema, &database, is_there, &mut diagnoses).await;
            let source = MongoDb::with_hello(Arc::clone(schema), ReplacedClient::new(database, None), hello);
            rights::examine(&source, schema, &unsuitable, address, &mut diagnoses).await;
            if is_there {
                diagnoses.extend(source.survey_documents().await);
            }
        }
    }
    diagnoses
}

/// How long a round trip takes, which version the server has, and what its clock shows.
async fn round_trips(database: &Database, address: &Address) -> Vec<Diagnosis> {
    let mut nearest: Option<(Duration, Diagnosis)> = None;
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        let Ok(Ok(hello)) = timeout(STEP_TIME, connect::hello(database)).await else { continue };
        let took = asked.elapsed();
        if nearest.as_ref().is_none_or(|(least, _)| took < *least) {
            nearest = Some((took, clock::examine(hello.time, took)));
        }
    }
    let Some((took, clock)) = nearest else {
        return vec![silent(
            &format!("{} has answered once, and does not answer any more", address.hosts),
            Some(address),
        )];
    };
    let build = timeout(STEP_TIME, database.run_command(doc! { "buildInfo": 1 })).await;
    let version = build.ok().and_then(Result::ok);
    let version = version.as_ref().and_then(|build| build.get_str("version").ok());
    let version = version.map(|version| format!(", version {version}")).unwrap_or_default();
    let message = format!("{} answers in {:.1} ms{version}", address.hosts, took.as_secs_f64() * 1_000.0);
    let reached = if took < FAR {
        Diagnosis::fine(Subject::MongoDb, message)
    } else {
        let remedy = "run permcached in the same region as the database: every fact that is not cached takes that long";
        Diagnosis::warning(Subject::MongoDb, message, remedy)
    };
    vec![reached, clock]
}

/// What the kind of server means for the service.
fn kind(hello: &Hello) -> Diagnosis {
    match (hello.mode, hello.set.as_deref()) {
        (Mode::ReplicaSet, set) => {
            let set = set.unwrap_or_default();
            Diagnosis::fine(Subject::MongoDb, format!("it is the replica set `{set}`, which reports what changes"))
        }
        (Mode::Standalone, _) => Diagnosis::warning(
            Subject::MongoDb,
            "it is a single server, which does not report what changes: every fact is read again once it is as old as MAX_STALENESS",
            "start it as `mongod --replSet rs0 …`, then once in mongosh: rs.initiate()",
        ),
        (Mode::Sharded, _) => Diagnosis::warning(
            Subject::MongoDb,
            "it is a sharded cluster: every fact is read again once it is as old as MAX_STALENESS; even that bound is not promised, as a shard may answer from the past",
            "keep these collections in a replica set, if that matters",
        ),
    }
}

/// Why the server cannot be used at all.
fn unusable(error: &ConnectError, address: Option<&Address>) -> Diagnosis {
    let wrong = |message: &str, remedy: &str| Diagnosis::wrong(Subject::MongoDb, message, remedy);
    let message = error.to_string();
    match error {
        ConnectError::Uri(_) => wrong(&message, "MONGODB_URI='mongodb://USER:PASSWORD@HOST:27017/DATABASE'"),
        ConnectError::AssumedSource(AssumedSource { usual, .. }) => {
            wrong(&message, &format!("authSource={usual}, in MONGODB_URI"))
        }
        ConnectError::NoDatabase => wrong(&message, "MONGODB_DATABASE=NAME"),
        ConnectError::NotInitiated => {
            wrong("this MongoDB waits to become a replica set", "once, in mongosh: rs.initiate()")
        }
        ConnectError::TooOld => wrong(&message, "run MongoDB 5.0 or newer"),
        ConnectError::Unreachable(error) => match (error, address) {
            (DriverError::Login | DriverError::NoServer(Unusable::Login), Some(address)) => refused(address),
            (DriverError::NoServer(Unusable::Certificate(fault)), Some(address)) => {
                let remedy = fault.remedy("tlsCAFile");
                wrong(&format!("it does not answer: {}: {fault}", address.hosts), &remedy)
            }
            (error, Some(address)) => silent(&format!("it does not answer: {}: {error}", address.hosts), Some(address)),
            (error, None) => silent(&format!("it does not answer: {error}"), None),
        },
    }
}

/// The server refuses the login.
fn refused(address: &Address) -> Diagnosis {
    let (name, source) = address.login.as_ref().map_or(("", ""), |(name, source)| (name, source));
    let message = format!(
        "{} refuses the login of `{name}`: there is no such user in `{source}`, or the password is wrong",
        address.hosts
    );
    let password = new_password(address, name, source);
    if let Some(AssumedSource { source, usual }) = &address.assumed {
        let message = format!("{message}. The user is looked up in `{source}` because MONGODB_URI names no authSource");
        let remedy = format!(
            "if the user was created in `{usual}`, add authSource={usual} to MONGODB_URI (…/{source}?authSource={usual}); \
             otherwise: {password}"
        );
        return Diagnosis::wrong(Subject::MongoDb, message, remedy);
    }
    Diagnosis::wrong(Subject::MongoDb, message, password)
}

/// How a user gets a new password.
fn new_password(address: &Address, name: &str, source: &str) -> String {
    let encoded = "it is percent-encoded in MONGODB_URI";
    if source == EXTERNAL || address.assumed.as_ref().is_some_and(|assumed| assumed.usual == EXTERNAL) {
        format!(
            "give MONGODB_URI what the service that authenticates `{name}` accepts, and define the user in `{EXTERNAL}`"
        )
    } else if address.is_atlas() {
        format!("in Atlas: Database Access, edit `{name}`, set a new password; {encoded}")
    } else {
        let command =
            format!("db.getSiblingDB({}).changeUserPassword({}, passwordPrompt())", quoted(source), quoted(name));
        format!("{command}, if the password is lost; {encoded}")
    }
}

/// No server answers.
fn silent(message: &str, address: Option<&Address>) -> Diagnosis {
    let trials = address.map(|address| format!(" (`{}`)", address.trials)).unwrap_or_default();
    let remedy = format!(
        "check that it runs, that host, port and replicaSet in MONGODB_URI are right, and that this machine can reach it{trials}; \
         in Atlas, allow this machine under Network Access"
    );
    Diagnosis::wrong(Subject::MongoDb, message, remedy)
}
