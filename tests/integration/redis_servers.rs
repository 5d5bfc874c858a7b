//! Tests of `support::redis`: its servers, and the faults that they simulate.
//!
//! permcached takes no part.

use std::time::Duration;

use redis::{Client, ErrorKind, RedisError, cluster::ClusterClient};

use crate::support::{
    certificates::Certificates,
    redis::{Cluster, NODES, Redis, ask, redis, until},
};

/// How long a server may take to answer a test that expects an answer.
const SOON: Duration = Duration::from_secs(10);

/// How long to wait for an answer that must not come.
const BRIEFLY: Duration = Duration::from_millis(100);

fn value(redis: &Redis, key: &str) -> Option<String> {
    redis.read(&["GET", key])
}

/// The code of the server's refusal.
fn code(refused: &RedisError) -> String {
    refused.code().unwrap_or_default().to_owned()
}

#[test]
fn all_tests_share_one_server() {
    redis().run(&["SET", "shared", "yes"]);
    assert_eq!(value(redis(), "shared").as_deref(), Some("yes"));
    assert_eq!(redis().info("replication", "role"), "master");
    assert_eq!(redis().info("replication", "no such field"), "");
}

#[test]
fn a_server_gets_its_arguments_and_a_flush_empties_it() {
    let redis = Redis::start(&["--maxmemory", "32mb"]);
    assert_eq!(redis.info("memory", "maxmemory"), (32 << 20).to_string());
    let empty = redis.used_memory();
    redis.run(&["SET", "key", &"a long value ".repeat(100_000)]);
    assert!(redis.used_memory() > empty + 1_000_000);
    redis.flush();
    assert_eq!(value(&redis, "key"), None);
    assert!(redis.try_run(&["NO-SUCH-COMMAND"]).is_err());
}

#[test]
fn a_frozen_server_answers_nothing_until_it_is_thawed() {
    let redis = Redis::start(&[]);
    redis.run(&["SET", "key", "value"]);
    redis.freeze();
    assert!(!redis.answers_within(BRIEFLY));
    redis.thaw();
    assert!(redis.answers_within(SOON));
    assert_eq!(value(&redis, "key").as_deref(), Some("value"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_starts_again_empty_at_the_same_address() {
    let mut redis = Redis::start(&[]);
    let (url, run) = (redis.url(), redis.info("server", "run_id"));
    redis.run(&["SET", "key", "value"]);
    redis.dump();
    redis.kill();
    assert!(redis.try_run(&["PING"]).unwrap_err().is_connection_refusal());
    redis.start_again();
    assert_eq!(value(&redis, "key"), None);
    assert_eq!(redis.url(), url);
    assert_ne!(redis.info("server", "run_id"), run);
}

#[tokio::test]
async fn an_old_dump_restores_removed_keys_and_loses_later_ones() {
    let mut redis = Redis::start(&[]);
    redis.run(&["SET", "old", "value"]);
    let dump = redis.dump();
    redis.run(&["DEL", "old"]);
    redis.run(&["SET", "new", "value"]);
    redis.restart_from(&dump);
    assert_eq!((value(&redis, "old").as_deref(), value(&redis, "new")), (Some("value"), None));
    redis.kill();
    redis.start_again();
    assert_eq!(value(&redis, "old"), None, "the dump serves one start only");
}

#[test]
fn a_failover_loses_the_last_writes() {
    let mut primary = Redis::with_password("secret");
    primary.run(&["SET", "first", "value"]);
    let replica = Redis::replica_of(&primary);
    assert_eq!(value(&replica, "first").as_deref(), Some("value"));
    primary.run(&["SET", "second", "value"]);
    replica.until_in_sync_with(&primary);
    replica.promote();
    primary.run(&["SET", "last", "value"]);
    let url = primary.url();
    primary.fail_over_losing_writes(&replica);
    assert_eq!(primary.url(), url);
    assert_eq!((value(&primary, "second").as_deref(), value(&primary, "last")), (Some("value"), None));
}

#[test]
fn a_tls_server_serves_only_clients_that_trust_its_authority() {
    let Some(redis) = Redis::with_tls() else { return };
    redis.run(&["SET", "key", "value"]);
    let ping = |url: &str, authority| ask(url, authority, &["PING"], SOON);
    let authority = redis.ca_file().unwrap();
    assert!(redis.url().starts_with("rediss://"));
    ping(&redis.url().replace("127.0.0.1", "localhost"), Some(&authority)).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let other_authority = Certificates::new().write_authority(directory.path());
    let refused = ping(&redis.url(), Some(&other_authority)).unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
    assert!(ping(&redis.url(), None).is_err(), "the system trusts an authority of the tests");
    assert!(ping(&redis.url().replace("rediss:", "redis:"), None).is_err(), "it serves without TLS");
}

#[test]
fn a_password_and_the_rights_of_users_are_enforced() {
    let redis = Redis::with_password("secret");
    redis.run(&["SET", "ours:key", "value"]);
    let ask = |url: &str, command: &[&str]| ask(url, None, command, SOON);
    let is_wrong = |url: &str| ask(url, &["PING"]).unwrap_err().kind() == ErrorKind::AuthenticationFailed;
    assert!(is_wrong(&redis.url_of("", "wrong")));
    let without_password = format!("redis://127.0.0.1:{}", redis.port());
    assert_eq!(code(&ask(&without_password, &["PING"]).unwrap_err()), "NOAUTH");

    redis.set_user("reader", "word", "~ours:* +@read");
    let reader = redis.url_of("reader", "word");
    ask(&reader, &["GET", "ours:key"]).unwrap();
    assert_eq!(code(&ask(&reader, &["GET", "theirs:key"]).unwrap_err()), "NOPERM");
    assert_eq!(code(&ask(&reader, &["SET", "ours:key", "other"]).unwrap_err()), "NOPERM");
    assert!(is_wrong(&redis.url_of("reader", "wrong")));
}

#[test]
fn a_socket_leads_to_the_same_server() {
    for redis in [Redis::start(&[]), Redis::with_password("secret")] {
        ask(&redis.socket_url(), None, &["SET", "key", "value"], SOON).unwrap();
        assert_eq!(value(&redis, "key").as_deref(), Some("value"));
    }
}

#[test]
fn subscribers_are_counted_and_disconnected() {
    let redis = Redis::start(&[]);
    let client = Client::open(redis.url()).unwrap();
    let (mut one, mut other) = (client.get_connection().unwrap(), client.get_connection().unwrap());
    assert_eq!(redis.subscribers("ours:*"), 0);
    let mut subscription = one.as_pubsub();
    subscription.subscribe(&["ours:a", "ours:b", "theirs"]).unwrap();
    assert_eq!(redis.subscribers("ours:*"), 2);
    assert_eq!(redis.kill_clients("pubsub"), 1);
    assert!(subscription.get_message().is_err());
    until("the subscriber is gone", || redis.subscribers("ours:*") == 0);

    redis::cmd("PING").exec(&mut other).unwrap();
    assert_eq!(redis.kill_clients("normal"), 1);
    assert!(redis::cmd("PING").exec(&mut other).is_err());
}

#[test]
fn a_cluster_is_incomplete_while_a_node_is_down() {
    let mut cluster = Cluster::start(&[]);
    let client = ClusterClient::new(cluster.urls()).unwrap();
    let keys: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
    let mut connection = client.get_connection().unwrap();
    for key in &keys {
        redis::cmd("SET").arg(key).arg("value").exec(&mut connection).unwrap();
    }
    let sizes = || (0..NODES).map(|node| cluster.node(node).read::<usize>(&["DBSIZE"])).collect::<Vec<_>>();
    assert!(sizes().iter().all(|size| *size > 0) && sizes().iter().sum::<usize>() == keys.len(), "{:?}", sizes());

    cluster.kill(1);
    until("the others have noticed", || !cluster.is_complete_to(0) && !cluster.is_complete_to(2));
    cluster.start_again(1);
    cluster.until_complete();
    assert_eq!(cluster.node(1).read::<usize>(&["DBSIZE"]), 0);
    let mut connection = client.get_connection().unwrap();
    for key in &keys {
        redis::cmd("SET").arg(key).arg("again").exec(&mut connection).unwrap();
    }
}
