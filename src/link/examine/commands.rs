//! Tries each command that permcached uses: whether the user has the right to run it, and whether the server runs it.
//!
//! Judges no state of the server: `examine::server` does.

use redis::{Cmd, Value};
use tokio::time::timeout;

use super::STEP_TIME;
use crate::{
    diagnosis::{Diagnosis, Subject, error_chain},
    link::{LinkError, Server, server::Connection},
};

/// The rights that a user must have, as arguments of `ACL SETUSER`. docs/redis.md lists the same.
const RIGHTS: &str = "~pc:* &pc:* +ping +info +get +set +del +mget +getrange +pexpire +xadd +xrange +xrevrange +eval +publish +subscribe +unsubscribe \
     +cluster|slots";

/// After how many milliseconds the keys expire, should their removal fail.
const LIFE_MS: u32 = 10_000;

/// A script with the flag that permcached's scripts have: a full server runs it too.
const SCRIPT: &str = "#!lua flags=allow-oom
return redis.call('GET', KEYS[1])";

/// The command that grants a user all these rights. It keeps other rights and the password as they are.
pub(super) fn grant(user: &str) -> String {
    format!("in redis-cli: ACL SETUSER {user} {RIGHTS}")
}

/// Tries each command, and adds a finding for each kind of failure.
pub(super) async fn examine(connection: &mut Connection, server: &Server, diagnoses: &mut Vec<Diagnosis>) {
    // The braces put all keys that are made from the name into the same slot of a cluster.
    let name = format!("pc:doctor:{{{:032x}}}", fastrand::u128(..));
    let mut lacking = Vec::new();
    let mut full = Vec::new();
    let mut others = Vec::new();
    let commands = commands(&name);
    let mut sort = |what: &'static str, error: LinkError| match error {
        LinkError::Refused(error) if error.code() == Some("NOPERM") => lacking.push(what),
        error if error.is_out_of_memory() => full.push(what),
        // `examine::server` has reported a replica and a cluster's node already.
        error if error.is_read_only() => {}
        LinkError::Refused(error) if error.code() == Some("MOVED") => {}
        error => others.push(format!("{what} fails: {}", error_chain(&error))),
    };
    for (what, command) in commands {
        match timeout(STEP_TIME, connection.query::<Value>(&command)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => sort(what, LinkError::of(&error)),
            Err(_) => sort(what, LinkError::TimedOut),
        }
    }
    match timeout(STEP_TIME, server.subscribe(&[&name])).await {
        Ok(Ok(_subscription)) => {}
        Ok(Err(error)) => sort("SUBSCRIBE", LinkError::of(&error)),
        Err(_) => sort("SUBSCRIBE", LinkError::TimedOut),
    }
    let is_fine = lacking.is_empty() && full.is_empty() && others.is_empty();
    if is_fine {
        diagnoses.push(Diagnosis::fine(Subject::Redis, "the user may run each command that permcached uses"));
    }
    if !lacking.is_empty() {
        let message = format!("the user `{}` lacks the right to {}", server.user(), lacking.join(", "));
        diagnoses.push(Diagnosis::wrong(Subject::Redis, message, grant(server.user())));
    }
    if !full.is_empty() {
        let message = format!(
            "it is full, and refuses {}: no facts are kept there, and the application's writes fail too",
            full.join(", ")
        );
        let remedy = "redis-cli CONFIG SET maxmemory 256mb, or what the machine has; or, if every key may be evicted: \
                      redis-cli CONFIG SET maxmemory-policy allkeys-lru";
        diagnoses.push(Diagnosis::wrong(Subject::Redis, message, remedy));
    }
    let remedy = "run `redis-cli INFO`, and read the server's log";
    diagnoses.extend(others.into_iter().map(|message| Diagnosis::wrong(Subject::Redis, message, remedy)));
}

/// All commands but `SUBSCRIBE`, which requires a connection of its own. The last one removes what the others wrote.
fn commands(name: &str) -> Vec<(&'static str, Cmd)> {
    let log = format!("{name}:log");
    let command = |name: &'static str, arguments: &[&str]| {
        let mut command = redis::cmd(name);
        command.arg(arguments);
        (name, command)
    };
    let life = LIFE_MS.to_string();
    vec![
        command("SET", &[name, "1", "PX", &life]),
        command("GET", &[name]),
        command("MGET", &[name]),
        command("GETRANGE", &[name, "0", "1"]),
        command("XADD", &[&log, "*", "k", "v"]),
        command("PEXPIRE", &[&log, &life]),
        command("XRANGE", &[&log, "-", "+"]),
        command("XREVRANGE", &[&log, "+", "-"]),
        command("EVAL", &[SCRIPT, "1", name]),
        command("PUBLISH", &[name, "1"]),
        command("DEL", &[name, &log]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_granted_rights_match_the_manual_and_cover_each_command_that_is_tried() {
        let manual = include_str!("../../../docs/redis.md");
        assert!(RIGHTS.split(' ').all(|right| manual.contains(right)), "{RIGHTS}");
        let line = manual.lines().find(|line| line.starts_with("ACL SETUSER")).expect("the manual has the command");
        let granted = line.split(' ').filter(|word| word.starts_with('+'));
        assert_eq!(
            granted.collect::<Vec<_>>(),
            RIGHTS.split(' ').filter(|word| word.starts_with('+')).collect::<Vec<_>>()
        );
        for (name, _) in commands("pc:x") {
            assert!(RIGHTS.contains(&format!("+{}", name.to_lowercase())), "{name}");
        }
    }
}
