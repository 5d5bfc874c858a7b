//! The Redis servers of the tests do to their clients what they say: these are tests of `support::redis` alone.

use std::time::Duration;

use redis::{Client, ErrorKind, RedisError, cluster::ClusterClient};

use crate::support::{
    certificates::Certificates,
    redis::{Cluster, NODES, Redis, ask, redis, until},
};

/// How long a server may take to answer, where it should.
const SOON: Duration = Duration::from_secs(10);
/// How long to wait for an answer that should not come.
const BRIEFLY: Duration = Duration::from_millis(100);

fn value(redis: &Redis, key: &str) -> Option<String> {
    redis.read(&["GET", key])
}

/// Why the server refused.
fn code(refused: &RedisError) -> String {
    refused.code().unwrap_or_default().to_owned()
}

#[test]
fn one_server_is_shared() {
    redis().run(&["SET", "shared", "yes"]);
    assert_eq!(value(redis(), "shared").as_deref(), Some("yes"));
    assert_eq!(redis().info("replication", "role"), "master");
    assert_eq!(redis().info("replication", "no such field"), "");
}

#[test]
fn a_server_has_its_arguments_and_forgets_what_it_is_told_to() {
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
fn a_frozen_server_says_nothing_until_it_is_thawed() {
    let redis = Redis::start(&[]);
    redis.run(&["SET", "key", "value"]);
    redis.freeze();
    assert!(!redis.answers_within(BRIEFLY));
    redis.thaw();
    assert!(redis.answers_within(SOON));
    assert_eq!(value(&redis, "key").as_deref(), Some("value"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_starts_again_with_nothing_at_the_same_address() {
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
async fn an_old_dump_brings_back_what_was_removed() {
    let mut redis = Redis::start(&[]);
    redis.run(&["SET", "old", "value"]);
    let dump = redis.dump();
    redis.run(&["DEL", "old"]);
    redis.run(&["SET", "new", "value"]);
    redis.restart_from(&dump);
    assert_eq!((value(&redis, "old").as_deref(), value(&redis, "new")), (Some("value"), None));
    redis.kill();
    redis.start_again();
    assert_eq!(value(&redis, "old"), None, "the dump was for one start");
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
fn tls_is_spoken_with_those_who_believe_the_authority() {
    let Some(redis) = Redis::with_tls() else { return };
    redis.run(&["SET", "key", "value"]);
    let ping = |url: &str, authority| ask(url, authority, &["PING"], SOON);
    let authority = redis.ca_file().unwrap();
    assert!(redis.url().starts_with("rediss://"));
    ping(&redis.url().replace("127.0.0.1", "localhost"), Some(&authority)).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let stranger = Certificates::new().write_authority(directory.path());
    let refused = ping(&redis.url(), Some(&stranger)).unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
    assert!(ping(&redis.url(), None).is_err(), "the system believes an authority of the tests");
    assert!(ping(&redis.url().replace("rediss:", "redis:"), None).is_err(), "it speaks without TLS");
}

#[test]
fn a_password_and_users_are_asked_for() {
    let redis = Redis::with_password("secret");
    redis.run(&["SET", "ours:key", "value"]);
    let ask = |url: &str, command: &[&str]| ask(url, None, command, SOON);
    let is_wrong = |url: &str| ask(url, &["PING"]).unwrap_err().kind() == ErrorKind::AuthenticationFailed;
    assert!(is_wrong(&redis.url_of("", "wrong")));
    let nobody = format!("redis://127.0.0.1:{}", redis.port());
    assert_eq!(code(&ask(&nobody, &["PING"]).unwrap_err()), "NOAUTH");

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
fn subscribers_are_counted_and_cut_off() {
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
fn a_cluster_is_broken_while_a_node_is_down() {
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
    until("the others have seen it", || !cluster.is_whole_to(0) && !cluster.is_whole_to(2));
    cluster.start_again(1);
    cluster.whole();
    assert_eq!(cluster.node(1).read::<usize>(&["DBSIZE"]), 0);
    let mut connection = client.get_connection().unwrap();
    for key in &keys {
        redis::cmd("SET").arg(key).arg("again").exec(&mut connection).unwrap();
    }
}
