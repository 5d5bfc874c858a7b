//! `permcached doctor` on a Redis that is set up wrong, in every way that it knows, beside a correct MongoDB.

use std::path::Path;

use super::{Found, SECRET, doctor};
use crate::{
    mongodb::inspection::full,
    support::{
        both::shipped_schema,
        certificates::Certificates,
        command::Serving,
        redis::Redis,
        servers::mongo,
        service::{DOCUMENTS, SCHEMA},
    },
};

/// The findings about the Redis of these variables.
async fn examined(variables: &[(&str, &str)]) -> Found {
    let database = mongo().database().await;
    full(&database, &shipped_schema("fylora-sharing.toml")).await;
    let uri = mongo().uri();
    let mongodb = [
        ("MONGODB_URI", uri.as_str()),
        ("MONGODB_DATABASE", database.name()),
        ("REDIS_SECRET", crate::support::redis::SECRET),
    ];
    doctor(&[&mongodb[..], variables].concat())
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_a_problem() {
    let redis = Redis::with_password("another");
    for url in [redis.url_of("", SECRET), format!("redis://127.0.0.1:{}", redis.port())] {
        let found = examined(&[("REDIS_URL", &url)]).await;
        let remedy = found.assert_only_problem("does not let permcached in");
        assert!(found.finding("let permcached in").message.starts_with("127.0.0.1:"), "{found:#?}");
        assert!(remedy.contains("REDIS_PASSWORD") && remedy.contains("redis://USER:PASSWORD@HOST"), "{remedy}");
    }
}

#[tokio::test]
async fn a_missing_secret_is_a_problem_as_redis_is_then_not_used() {
    let found = examined(&[("REDIS_URL", &Redis::start(&[]).url()), ("REDIS_SECRET", "")]).await;
    let remedy = found.assert_only_problem("REDIS_SECRET is not set, so Redis is not used");
    assert!(remedy.contains("openssl rand -hex 32"), "{remedy}");
}

#[tokio::test]
async fn an_unreachable_or_frozen_server_is_named() {
    let found = examined(&[("REDIS_URL", "redis://:s3cret@127.0.0.1:1")]).await;
    let remedy = found.assert_only_problem("127.0.0.1:1 cannot be reached: ");
    assert!(remedy.contains("redis-cli"), "{remedy}");

    let redis = Redis::start(&[]);
    redis.freeze();
    let found = examined(&[("REDIS_URL", &redis.url())]).await;
    found.assert_only_problem("cannot be reached: Redis does not answer in time");
}

#[tokio::test]
async fn a_server_is_reported_when_it_is_nearly_full_and_when_it_is_full() {
    let redis = Redis::start(&["--maxmemory-policy", "noeviction", "--maxmemory", "64mb"]);
    let found = examined(&[("REDIS_URL", &redis.url())]).await;
    found.assert_no_problem();
    assert!(found.finding("% of its 64 MiB are used; maxmemory-policy is noeviction").verdict == "ok", "{found:#?}");

    redis.run(&["CONFIG", "SET", "maxmemory", &(redis.used_memory() * 5 / 4).to_string()]);
    let found = examined(&[("REDIS_URL", &redis.url())]).await;
    found.assert_no_problem();
    assert!(found.remedy("warning", "facts are written up to 75 %").contains("CONFIG SET maxmemory"));

    redis.run(&["CONFIG", "SET", "maxmemory", "1000"]);
    let found = examined(&[("REDIS_URL", &redis.url())]).await;
    let remedy = found.assert_only_problem("it is full, and refuses SET, XADD");
    assert!(remedy.starts_with("redis-cli CONFIG SET maxmemory 256mb"), "{remedy}");
    redis.run(&["CONFIG", "SET", "maxmemory", "256mb"]);
    examined(&[("REDIS_URL", &redis.url())]).await.assert_no_problem();
    assert_eq!(redis.read::<u64>(&["DBSIZE"]), 0, "the examination leaves keys behind");
}

#[tokio::test]
async fn the_remedy_grants_the_missing_rights() {
    let redis = Redis::start(&[]);
    redis.set_user("guest", SECRET, "~other:* +ping +info +get +set");
    let url = redis.url_of("guest", SECRET);
    let found = examined(&[("REDIS_URL", &url)]).await;
    let missing = "the user `guest` lacks the right to SET, GET, MGET, GETRANGE, XADD, PEXPIRE, XRANGE, XREVRANGE, EVAL, PUBLISH, DEL, SUBSCRIBE";
    let remedy = found.assert_only_problem(missing).to_owned();
    let command: Vec<&str> = remedy.strip_prefix("in redis-cli: ").unwrap().split(' ').collect();
    redis.run(&command);
    examined(&[("REDIS_URL", &url)]).await.assert_no_problem();
    assert_eq!(redis.read::<u64>(&["DBSIZE"]), 0, "the examination leaves keys behind");

    redis.set_user("guest", SECRET, "~pc:* &pc:* +@all -publish");
    let found = examined(&[("REDIS_URL", &url)]).await;
    assert_eq!(found.finding("lacks the right").message, "the user `guest` lacks the right to PUBLISH");
    redis.set_user("guest", SECRET, "~pc:* &pc:* +@all -info");
    assert_eq!(examined(&[("REDIS_URL", &url)]).await.assert_only_problem("does not answer INFO"), remedy);
    redis.set_user("guest", SECRET, "~pc:* &pc:* +@all -ping");
    assert_eq!(examined(&[("REDIS_URL", &url)]).await.assert_only_problem("refuses even a PING"), remedy);
}

#[tokio::test]
async fn a_replica_is_a_problem() {
    let primary = Redis::with_password(SECRET);
    let replica = Redis::replica_of(&primary);
    let found = examined(&[("REDIS_URL", &replica.url())]).await;
    let master = format!("127.0.0.1:{}", primary.port());
    let remedy = found.assert_only_problem(&format!("it is a replica of {master}, and takes no writes"));
    assert!(remedy.starts_with(&format!("name {master} in REDIS_URL")), "{remedy}");
}

#[tokio::test]
async fn the_remedy_for_an_unknown_authority_names_redis_ca_file() {
    let Some(redis) = Redis::with_tls() else { return };
    let authority = redis.ca_file().unwrap();
    let known = ("REDIS_CA_FILE", authority.to_str().unwrap());
    examined(&[("REDIS_URL", &redis.url()), known]).await.assert_no_problem();
    let found = examined(&[("REDIS_URL", &redis.url())]).await;
    let remedy = found.assert_only_problem("cannot be reached");
    assert!(remedy.starts_with("REDIS_CA_FILE=FILE"), "{remedy}");
    let found = examined(&[("REDIS_URL", &redis.url().replace("rediss:", "redis:"))]).await;
    let remedy = found.assert_only_problem("cannot be reached");
    assert!(remedy.contains("rediss://") && remedy.contains("REDIS_CA_FILE"), "{remedy}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_unless_it_is_that_of_an_authority() {
    let Some(redis) = Redis::with_certificates(Certificates::self_signed(false)) else { return };
    let authority = redis.ca_file().expect("it serves TLS").display().to_string();
    examined(&[("REDIS_URL", &redis.url()), ("REDIS_CA_FILE", &authority)]).await.assert_no_problem();

    // The handshake fails before it matters what serves there.
    let certificates = Certificates::self_signed(true);
    let directory = tempfile::tempdir().unwrap();
    let authority = certificates.write_authority(directory.path()).display().to_string();
    let serving = serving_tls(&certificates, directory.path());
    let url = format!("rediss://{}", serving.address);
    let found = examined(&[("REDIS_URL", &url), ("REDIS_CA_FILE", &authority)]).await;
    let remedy = found.assert_only_problem("its certificate is that of a certificate authority");
    for words in
        ["-out ca.pem`", "-CA ca.pem -CAkey ca.key", "basicConstraints=critical,CA:FALSE", "REDIS_CA_FILE is ca.pem"]
    {
        assert!(remedy.contains(words), "{words}: {remedy}");
    }
}

/// A server with these certificates. It is no Redis, but the handshake fails before that matters.
fn serving_tls(certificates: &Certificates, directory: &Path) -> Serving {
    let [cert, key] = certificates.server.write(directory, "server").map(|path| path.display().to_string());
    let variables = [("TLS_CERT_FILE", cert.as_str()), ("TLS_KEY_FILE", &key)];
    Serving::start_with(&["--schema", SCHEMA, "--documents", DOCUMENTS], &variables)
}

#[tokio::test]
async fn the_remedy_for_a_certificate_that_is_not_trusted_is_to_name_its_authority() {
    for (certificates, message) in [
        (Certificates::new(), "its certificate is of an authority that is not trusted"),
        (Certificates::self_signed(false), "its certificate is"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let serving = serving_tls(&certificates, directory.path());
        let found = examined(&[("REDIS_URL", &format!("rediss://{}", serving.address))]).await;
        let remedy = found.assert_only_problem(message);
        assert!(remedy.starts_with("REDIS_CA_FILE=FILE") && remedy.contains("self-signed"), "{remedy}");
    }
}

#[tokio::test]
async fn a_url_that_asks_for_an_unverified_server_is_refused_by_the_configuration() {
    for url in ["rediss://:s3cret@127.0.0.1:1/#insecure", "rediss://a:1,rediss://b:1/0#insecure"] {
        let found = doctor(&[("DOCUMENTS_DIR", DOCUMENTS), ("REDIS_URL", url)]);
        assert_eq!(found.code, 2, "{found:#?}");
        let message = &found.finding("REDIS_URL ends with #insecure").message;
        assert!(message.contains("REDIS_CA_FILE") && !message.contains("feature"), "{message}");
    }
}
