//! Examines Redis for `permcached doctor`: the way to it, the server, and the user's rights. Each finding has its remedy.
//!
//! Leaves nothing behind: it tries each command that permcached uses, with a key and a channel of its own, and removes the key.
//! Every step has a time limit, so a server that hangs is a finding too.

mod commands;
mod server;

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{ClientError, LinkError, Server, server::Connection};
use crate::diagnosis::{Diagnosis, Subject, error_chain};

/// How long one step may take. This is less than the client library waits.
const STEP_TIME: Duration = Duration::from_secs(3);

/// How long a round trip may take. No request waits longer than this for a fact.
const SLOW: Duration = Duration::from_millis(50);

/// How many round trips are timed. The fastest one counts.
const ROUND_TRIPS: usize = 3;

/// Examines a server or a cluster, step by step. If it cannot be reached, the later steps are left out.
pub async fn examine(server: &Server) -> Vec<Diagnosis> {
    let mut connection = match connect(server).await {
        Ok(connection) => connection,
        Err(error) => return vec![unreachable(&error, server)],
    };
    let mut took = Duration::MAX;
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        match timeout(STEP_TIME, connection.ping()).await {
            Ok(Ok(())) => took = took.min(began.elapsed()),
            Ok(Err(error)) => return vec![unreachable(&LinkError::failed(error), server)],
            Err(_) => return vec![unreachable(&LinkError::TimedOut, server)],
        }
    }
    let mut diagnoses = vec![reached(&server.addresses(), took)];
    server::examine(&mut connection, server, &mut diagnoses).await;
    commands::examine(&mut connection, server, &mut diagnoses).await;
    diagnoses
}

/// Connects, and waits for the answer to a `PING`.
async fn connect(server: &Server) -> Result<Connection, LinkError> {
    let connecting = timeout(STEP_TIME, server.connect()).await;
    let mut connection = connecting.map_err(|_| LinkError::TimedOut)?.map_err(LinkError::failed)?;
    let pinged = timeout(STEP_TIME, connection.ping()).await;
    pinged.map_err(|_| LinkError::TimedOut)?.map_err(LinkError::failed)?;
    Ok(connection)
}

fn reached(addresses: &str, took: Duration) -> Diagnosis {
    let message = format!("{addresses} answers in {:.1} ms", took.as_secs_f64() * 1_000.0);
    if took < SLOW {
        Diagnosis::fine(Subject::Redis, message)
    } else {
        let remedy = "run Redis in the same region: a request waits 50 ms for a fact from it, then reads MongoDB";
        Diagnosis::warning(Subject::Redis, message, remedy)
    }
}

/// The finding that the server cannot be used at all.
fn unreachable(error: &LinkError, server: &Server) -> Diagnosis {
    let addresses = server.addresses();
    match error {
        LinkError::Failed(error) | LinkError::Refused(error) if error.is_login() => Diagnosis::wrong(
            Subject::Redis,
            format!("{addresses} does not let permcached in: the user or the password is wrong, or missing"),
            "REDIS_URL='redis://USER:PASSWORD@HOST:6379', percent-encoded, or REDIS_PASSWORD beside REDIS_HOST; \
             `redis-cli -h HOST --askpass ping` tries a password",
        ),
        LinkError::Failed(error) if error.code() == Some("NOPERM") => Diagnosis::wrong(
            Subject::Redis,
            format!("{addresses} refuses even a PING: {}", error_chain(error)),
            commands::grant(server.user()),
        ),
        LinkError::Failed(ClientError::Certificate(fault)) => Diagnosis::wrong(
            Subject::Redis,
            format!("{addresses} cannot be reached: {fault}"),
            fault.remedy("REDIS_CA_FILE"),
        ),
        error => Diagnosis::wrong(
            Subject::Redis,
            format!("{addresses} cannot be reached: {}", error_chain(error)),
            "check that it runs, that REDIS_URL has its host and port (and rediss:// if it uses TLS, with REDIS_CA_FILE if its \
             certificate authority is its own), and that this machine can reach it: `redis-cli -u REDIS_URL ping`",
        ),
    }
}
