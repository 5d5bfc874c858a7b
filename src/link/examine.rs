//! Redis examined: what is wrong with the way to it, with the server, and with what the user may do there; each with its
//! remedy.
//!
//! Tries each command that permcached uses, with a key and a channel of its own, which are gone afterwards. Every step has its
//! time, so that a server that hangs is a diagnosis too.

mod commands;
mod server;

use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisError};
use tokio::time::timeout;

use super::{LinkError, Server, server::Connection};
use crate::diagnosis::{Diagnosis, Subject, error_chain};

/// How long one step may take: less than the client itself waits.
const STEP_TIME: Duration = Duration::from_secs(3);

/// From how long an answer on nobody waits for it, as for a fact.
const SLOW: Duration = Duration::from_millis(50);

/// How many answers are timed: the quickest tells how far it is.
const ROUND_TRIPS: usize = 3;

/// Examines a server or a cluster, in the order in which one would look.
pub async fn examine(server: &Server) -> Vec<Diagnosis> {
    let mut connection = match reach(server).await {
        Ok(connection) => connection,
        Err(error) => return vec![unreachable(&error, server)],
    };
    let mut took = Duration::MAX;
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        match timeout(STEP_TIME, connection.greet()).await {
            Ok(Ok(())) => took = took.min(asked.elapsed()),
            Ok(Err(error)) => return vec![unreachable(&LinkError::Failed(error), server)],
            Err(_) => return vec![unreachable(&LinkError::TimedOut, server)],
        }
    }
    let mut diagnoses = vec![reached(&server.addresses(), took)];
    server::examine(&mut connection, server, &mut diagnoses).await;
    commands::examine(&mut connection, server, &mut diagnoses).await;
    diagnoses
}

/// A connection that has answered.
async fn reach(server: &Server) -> Result<Connection, LinkError> {
    let connecting = timeout(STEP_TIME, server.connect()).await;
    let mut connection = connecting.map_err(|_| LinkError::TimedOut)?.map_err(LinkError::Failed)?;
    let greeting = timeout(STEP_TIME, connection.greet()).await;
    greeting.map_err(|_| LinkError::TimedOut)?.map_err(LinkError::Failed)?;
    Ok(connection)
}

fn reached(addresses: &str, took: Duration) -> Diagnosis {
    let message = format!("{addresses} answers in {:.1} ms", took.as_secs_f64() * 1_000.0);
    if took < SLOW {
        Diagnosis::fine(Subject::Redis, message)
    } else {
        let remedy =
            "run it in the same region: who asks for a fact does not wait longer than 50 ms, and reads MongoDB";
        Diagnosis::warning(Subject::Redis, message, remedy)
    }
}

/// Why it cannot be used at all.
fn unreachable(error: &LinkError, server: &Server) -> Diagnosis {
    let addresses = server.addresses();
    let is_login = |error: &RedisError| {
        error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
    };
    match error {
        LinkError::Failed(error) | LinkError::Refused(error) if is_login(error) => Diagnosis::wrong(
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
        error => Diagnosis::wrong(
            Subject::Redis,
            format!("{addresses} cannot be reached: {}", error_chain(error)),
            "see that it runs, that host and port in REDIS_URL are its own (rediss:// where it speaks TLS, with REDIS_CA_FILE if \
             its authority is its own), and that this machine may reach it: `redis-cli -u REDIS_URL ping`",
        ),
    }
}
