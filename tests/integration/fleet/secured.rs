//! Redis with TLS, passwords and limited rights, and the configuration of all three in the built binary's environment.
//!
//! The doctor's findings about them are tested in `doctor::redis`.

use std::path::Path;

use bson::doc;
use permcached::{app::Sharing, link::Server};

use super::{
    FILE, GUEST, NO_GRANT, SCHEMA, SHARE, id, reads, share, shared_file,
    together::{assert_taken_from_redis, shared_files},
};
use crate::support::{
    certificates::Certificates,
    command::{Serving, run_with, schema_file},
    fleet::Fleet,
    redis::{Redis, SECRET, secrets},
    servers::mongo,
};

/// Starts a process with these variables for Redis. Returns its output up to and including `last`.
async fn output_up_to(redis: &[(&str, &str)], last: &str) -> String {
    let fleet = Fleet::new(0, "redis://127.0.0.1", SCHEMA, &shared_file()).await;
    let (_directory, path) = schema_file(SCHEMA);
    let uri = mongo().uri();
    let mut variables = vec![("SCHEMA_FILE", path.as_str()), ("MONGODB_URI", &uri)];
    variables.push(("MONGODB_DATABASE", fleet.database.name()));
    if !redis.is_empty() {
        variables.push(("REDIS_SECRET", SECRET));
    }
    variables.extend(redis);
    let lines = Serving::begin(&["--port", "0"], &variables).lines_to(last);
    lines.concat()
}

const CONNECTED: &str = "✅ Redis cache connected";
const NOT_CONFIGURED: &str = "ℹ️  Redis not configured (REDIS_URL not set), using memory cache";
const UNAVAILABLE: &str = "Redis unavailable, using memory cache";

#[tokio::test(flavor = "multi_thread")]
async fn the_three_log_messages_are_exact_however_redis_is_configured() {
    output_up_to(&[], NOT_CONFIGURED).await;
    let redis = Redis::with_password("pass-w0rd");
    let port = redis.port().to_string();
    output_up_to(&[("REDIS_URL", &redis.url())], CONNECTED).await;
    output_up_to(&[("REDIS_URL", &redis.socket_url())], CONNECTED).await;
    let parts = [("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", port.as_str())];
    output_up_to(&[parts[0], parts[1], ("REDIS_PASSWORD", "pass-w0rd")], CONNECTED).await;
    // With a wrong password or none, the output shows no secret.
    for wrong in [vec![("REDIS_PASSWORD", "wr0ng-s3cret")], vec![]] {
        let output = output_up_to(&[&parts[..], &wrong].concat(), UNAVAILABLE).await;
        assert!(!output.contains("s3cret") && !output.contains("w0rd"), "{output}");
    }
    output_up_to(&[("REDIS_URL", "redis://127.0.0.1:1")], UNAVAILABLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_redis_is_not_used_and_the_log_names_the_reason_and_the_remedy() {
    let redis = Redis::start(&[]);
    // A variable that is empty is not set.
    let output = output_up_to(&[("REDIS_URL", &redis.url()), ("REDIS_SECRET", "")], "ready").await;
    assert!(output.contains("REDIS IS NOT USED, as REDIS_SECRET is not set"), "{output}");
    assert!(output.contains("openssl rand -hex 32") && !output.contains(CONNECTED), "{output}");
    let keys: Vec<Vec<u8>> = redis.read(&["KEYS", "*"]);
    assert!(keys.is_empty() && redis.subscribers("pc:*") == 0, "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_its_own_certificate_authority_is_trusted_only_with_that_authority() {
    let Some(redis) = Redis::with_tls() else { return };
    let url = redis.url();
    let authority = redis.ca_file().expect("it serves TLS").display().to_string();
    output_up_to(&[("REDIS_URL", &url), ("REDIS_CA_FILE", &authority)], CONNECTED).await;
    output_up_to(&[("REDIS_URL", &url)], UNAVAILABLE).await;
    let directory = tempfile::tempdir().unwrap();
    let other_authority = Certificates::new().write_authority(directory.path()).display().to_string();
    output_up_to(&[("REDIS_URL", &url), ("REDIS_CA_FILE", &other_authority)], UNAVAILABLE).await;
    output_up_to(&[("REDIS_URL", &url.replace("rediss://", "redis://"))], UNAVAILABLE).await;
    // Change batches and facts alike use TLS.
    let mut fleet = Fleet::new(0, &url, SCHEMA, &shared_files()).await;
    let pem = std::fs::read(redis.ca_file().expect("it serves TLS")).expect("it can be read");
    let server = Server::parse(&url).and_then(|server| server.with_authority(pem)).expect("it is the server's");
    for _ in 0..2 {
        let instance = fleet.start_sharing(fleet.schema.clone(), async |schema, mongodb| {
            Sharing::over(server.clone(), &secrets(), schema, &mongodb.identity().await.expect("mongod answers"))
        });
        let instance = instance.await;
        fleet.instances.push(instance);
    }
    fleet.until_bus_covers_all().await;
    fleet.until_followed_by(1).await;
    let [first, second] = [0, 1].map(|place| &fleet.instances[place]);
    assert_taken_from_redis(first, &[second]).await;
    let question = reads(&first.live, FILE);
    let gone = first.live.delete("shares", doc! { "_id": id(SHARE) }).await;
    fleet.until_applied(gone, &question, NO_GRANT).await;
}

#[test]
fn all_errors_in_the_redis_configuration_are_listed_at_once_without_passwords() {
    let base = [("SCHEMA_FILE", "schema.toml"), ("MONGODB_URI", "mongodb://h/db")];
    let cases: [Case; 8] = [
        (&[("REDIS_URL", "redis://h,rediss://i")], &["REDIS_URL names some servers with rediss://"]),
        (
            &[("REDIS_URL", "redis://h"), ("REDIS_CA_FILE", "Cargo.toml")],
            &["REDIS_CA_FILE is `Cargo.toml`", "rediss://"],
        ),
        (&[("REDIS_URL", "http://u:s3cret@h")], &["REDIS_URL is not the URL of a Redis", "redis://", "rediss://"]),
        (&[("REDIS_URL", "redis://h,unix:///s")], &["REDIS_URL names several servers"]),
        (&[("REDIS_URL", ",")], &["REDIS_URL names no server"]),
        (&[("REDIS_HOST", "h"), ("REDIS_PORT", "many"), ("PORT", "x")], &["REDIS_PORT is `many`", "PORT is `x`"]),
        (
            &[("REDIS_PORT", "1"), ("REDIS_PASSWORD", "s3cret")],
            &["REDIS_PORT is set without REDIS_URL or REDIS_HOST", "REDIS_PASSWORD is set without"],
        ),
        (&[("REDIS_URL", "rediss://h"), ("REDIS_CA_FILE", "Cargo.toml")], &["REDIS_CA_FILE is `Cargo.toml`", "PEM"]),
    ];
    for (variables, parts) in cases {
        let ended = run_with(&["serve"], &[&base[..], variables].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
        for part in parts {
            assert!(ended.stderr.contains(part), "{part}: {ended:?}");
        }
        assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
    }
    let missing = [("REDIS_URL", "rediss://h"), ("REDIS_CA_FILE", "/nowhere.pem")];
    let ended = run_with(&["serve"], &[&base[..], &missing].concat());
    assert!(ended.stderr.contains("REDIS_CA_FILE is `/nowhere.pem`, which cannot be read"), "{ended:?}");
}

/// Variables, and parts of the error messages about them.
type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);

/// The rights in docs/redis.md.
fn rules() -> String {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/redis.md");
    let manual = std::fs::read_to_string(manual).expect("the manual is there");
    let line = manual.lines().find_map(|line| line.strip_prefix("ACL SETUSER permcached on >PASSWORD "));
    line.expect("the manual lists them").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_manual_lists_are_enough() {
    let redis = Redis::start(&[]);
    redis.set_user("permcached", "s3cret", &rules());
    let url = redis.url_of("permcached", "s3cret");
    let fleet = Fleet::new(2, &url, SCHEMA, &shared_file()).await;
    fleet.until_bus_covers_all().await;
    fleet.until_followed_by(1).await;
    let question = reads(&fleet.instances[0].live, FILE);
    fleet.until_cached(&question, GUEST).await;
    let gone = fleet.instances[0].live.delete("shares", doc! { "_id": id(SHARE) }).await;
    fleet.until_applied(gone, &question, NO_GRANT).await;
    let back = fleet.instances[0].live.insert("shares", vec![share(SHARE, FILE)]).await;
    fleet.until_applied(back, &question, GUEST).await;
    // Redis refused nothing.
    let refused: Vec<String> =
        redis.read::<Vec<Vec<redis::Value>>>(&["ACL", "LOG"]).iter().map(|entry| format!("{entry:?}")).collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(redis.read::<Vec<Vec<u8>>>(&["KEYS", "*"]).iter().filter(|key| !key.starts_with(b"pc:")).count(), 0);
}
