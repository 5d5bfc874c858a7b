//! Examines what a Redis server reports about itself in `INFO`: its version, whether it is a cluster or a replica, and how full
//! it is.
//!
//! Tries no other command: `examine::commands` does.

use redis::Value;
use tokio::time::timeout;

use super::{STEP_TIME, commands};
use crate::{
    diagnosis::{Diagnosis, Subject},
    link::{ClientError, Server, server::Connection},
};

/// The first version whose scripts can declare flags.
const VERSION_MIN: u64 = 7;

/// Examines the `INFO` of a server, or of each node of a cluster.
pub(super) async fn examine(connection: &mut Connection, server: &Server, diagnoses: &mut Vec<Diagnosis>) {
    let info = timeout(STEP_TIME, connection.query::<Value>(&redis::cmd("INFO"))).await;
    let info = match info {
        Ok(Ok(info)) => info,
        Ok(Err(error)) => {
            let message = format!("it does not answer INFO, so no facts are kept there: {}", ClientError::from(error));
            diagnoses.push(Diagnosis::wrong(Subject::Redis, message, commands::grant(server.user())));
            return;
        }
        Err(_) => {
            let remedy = "run `redis-cli INFO` and `redis-cli SLOWLOG GET`";
            diagnoses.push(Diagnosis::wrong(Subject::Redis, "it does not answer INFO in time", remedy));
            return;
        }
    };
    let texts = texts(&info);
    let Some(first) = texts.first() else { return };
    diagnoses.push(version(first));
    diagnoses.extend(cluster(first, server));
    diagnoses.extend(replica(&texts, server));
    let fullest = texts.iter().map(|text| memory(text)).max_by_key(|diagnosis| diagnosis.verdict);
    diagnoses.extend(fullest);
}

/// The text of a server's `INFO`, or the texts of a cluster's nodes.
fn texts(info: &Value) -> Vec<String> {
    match info {
        Value::Map(nodes) => nodes.iter().filter_map(|(_, text)| redis::from_redis_value(text.clone()).ok()).collect(),
        text => redis::from_redis_value(text.clone()).into_iter().collect(),
    }
}

/// The value of a field of an `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = info.lines().filter_map(|line| line.trim_end().split_once(':'));
    fields.find(|(field, _)| *field == name).map(|(_, value)| value)
}

fn version(info: &str) -> Diagnosis {
    let (name, version) = match field(info, "valkey_version") {
        Some(version) => ("Valkey", version),
        None => ("Redis", field(info, "redis_version").unwrap_or("of an unknown version")),
    };
    let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
    let message = format!("it is {name} {version}");
    match major {
        Some(major) if major < VERSION_MIN => Diagnosis::wrong(
            Subject::Redis,
            message,
            "run Redis 7.0 or newer, or Valkey: older versions cannot run permcached's scripts",
        ),
        _ => Diagnosis::fine(Subject::Redis, message),
    }
}

fn cluster(info: &str, server: &Server) -> Option<Diagnosis> {
    match (field(info, "redis_mode") == Some("cluster"), server.is_cluster()) {
        (true, false) => Some(Diagnosis::wrong(
            Subject::Redis,
            "it is a node of a cluster, and the only one in REDIS_URL: it refuses keys of other nodes",
            "REDIS_URL='redis://HOST1:6379,redis://HOST2:6379', naming several of its nodes (`redis-cli CLUSTER NODES`)",
        )),
        (false, true) => Some(Diagnosis::wrong(
            Subject::Redis,
            "REDIS_URL has several servers, but they are no cluster",
            "REDIS_URL='redis://HOST:6379', naming one server",
        )),
        (true, true) => Some(Diagnosis::fine(Subject::Redis, "it is a cluster")),
        (false, false) => None,
    }
}

/// The finding that a server is a replica, and takes no writes. A cluster may have replicas beside its masters.
fn replica(texts: &[String], server: &Server) -> Option<Diagnosis> {
    let text = texts.first().filter(|_| !server.is_cluster())?;
    let master = (field(text, "role")? == "slave").then(|| {
        let part = |name| field(text, name).unwrap_or("?");
        format!("{}:{}", part("master_host"), part("master_port"))
    })?;
    let message = format!("it is a replica of {master}, and takes no writes");
    let remedy = format!("name {master} in REDIS_URL; or, if this one is to be the master: redis-cli REPLICAOF NO ONE");
    Some(Diagnosis::wrong(Subject::Redis, message, remedy))
}

/// The finding on memory. permcached writes facts while less than three quarters are used.
fn memory(info: &str) -> Diagnosis {
    let number = |name| field(info, name).and_then(|value| value.parse::<u64>().ok());
    let policy = field(info, "maxmemory_policy").unwrap_or("unknown");
    match (number("used_memory"), number("maxmemory")) {
        (_, Some(0)) => Diagnosis::fine(Subject::Redis, "it has no maxmemory: its memory is not limited"),
        (Some(used), Some(max)) => {
            let percent = used.saturating_mul(100) / max.max(1);
            let message =
                format!("{percent} % of its {} MiB are used; maxmemory-policy is {policy}", max / 1_024 / 1_024);
            if used < max / 4 * 3 {
                return Diagnosis::fine(Subject::Redis, message);
            }
            let remedy =
                format!("redis-cli CONFIG SET maxmemory {}; or give permcached a Redis of its own", doubled(max));
            let message = format!("{message}: facts are written up to 75 %, so none is written now");
            Diagnosis::warning(Subject::Redis, message, remedy)
        }
        _ => Diagnosis::warning(
            Subject::Redis,
            "it does not report its maxmemory, so no facts are kept there",
            "put the server's own address in REDIS_URL, not that of a proxy that answers INFO itself",
        ),
    }
}

/// Twice as many bytes, as a whole number of MiB for `CONFIG SET`.
fn doubled(bytes: u64) -> String {
    format!("{}mb", bytes.saturating_mul(2).div_ceil(1_024 * 1_024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Verdict;

    #[test]
    fn a_version_before_7_is_wrong_and_valkey_has_a_version_of_its_own() {
        let judged = |info: &str| (version(info).verdict, version(info).message);
        assert_eq!(judged("redis_version:6.2.7\r\n"), (Verdict::Wrong, "it is Redis 6.2.7".to_owned()));
        assert_eq!(judged("redis_version:7.0.15\r\n"), (Verdict::Fine, "it is Redis 7.0.15".to_owned()));
        assert_eq!(judged("redis_version:7.2.4\r\nvalkey_version:8.1.8\r\n").1, "it is Valkey 8.1.8");
    }

    #[test]
    fn a_cluster_requires_several_urls_and_a_single_server_one() {
        let (one, many) = ("redis://a:1", "redis://a:1,redis://b:1");
        for (info, urls, verdict) in [
            ("redis_mode:cluster", one, Some(Verdict::Wrong)),
            ("redis_mode:cluster", many, Some(Verdict::Fine)),
            ("redis_mode:standalone", many, Some(Verdict::Wrong)),
            ("redis_mode:standalone", one, None),
        ] {
            let server = Server::parse(urls).expect("the URLs are valid");
            assert_eq!(cluster(info, &server).map(|diagnosis| diagnosis.verdict), verdict, "{info} {urls}");
        }
    }

    #[test]
    fn memory_that_is_three_quarters_used_is_a_warning() {
        let info = |used, max| format!("used_memory:{used}\r\nmaxmemory:{max}\r\nmaxmemory_policy:noeviction\r\n");
        assert_eq!(memory(&info(9_000, 0)).verdict, Verdict::Fine);
        assert_eq!(memory(&info(74, 100)).verdict, Verdict::Fine);
        assert_eq!(memory("used_memory:1").verdict, Verdict::Warning);
        let full = memory(&info(75 << 20, 100 << 20));
        assert_eq!(full.verdict, Verdict::Warning);
        assert!(full.message.contains("75 % of its 100 MiB") && full.message.contains("noeviction"), "{full:?}");
        assert!(full.remedy.is_some_and(|remedy| remedy.contains("CONFIG SET maxmemory 200mb")));
    }
}
