//! The memory that the fact of a file takes in Redis, by the growth of `used_memory`, expiry included. It is compared
//! with a key for each user and file, as an application kept them before.
//!
//! This program starts a real server for each. It writes the facts with the service's own writer. It measures no times.

#![expect(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench stops with a message if it cannot run, and prints its results"
)]
#![allow(dead_code, reason = "this bench uses only a part of what the tests share")]

#[path = "../tests/integration/support/servers.rs"]
mod servers;

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use bson::{doc, oid::ObjectId};
use permcached::{
    fact::{Fact, FactKey},
    facts::{ANSWER_TIME, SharedFacts},
    freshness::Moment,
    link::{FORMAT, Link, Namespace, Secrets, Server},
    question::{Id, LookupId},
    schema::Schema,
    source::Identity,
    telemetry::Metrics,
};
use redis::{Client, Connection};
use tokio::time::sleep;

/// The number of keys of each kind.
const KEYS: u32 = 100_000;

/// How many facts are queued before this program waits for the writer.
const BATCH: u32 = 10_000;

/// The memory that a fact may take, as a part of that of the old key.
const TARGET: f64 = 0.65;

const SCHEMA: &str = include_str!("../schemas/fylora-sharing.toml");

fn id(kind: u8, number: u32) -> ObjectId {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// A Redis server and a connection to it.
struct Redis {
    server: servers::Server,
    connection: Connection,
}

impl Redis {
    fn start() -> Self {
        let arguments = |port: u16, directory: &std::path::Path| -> Vec<OsString> {
            let flags = format!("--port {port} --bind 127.0.0.1 --appendonly no --dir {}", directory.display());
            let flags = flags.split_whitespace().map(OsString::from);
            flags.chain(["--save".into(), "".into()]).collect()
        };
        let server = servers::Server::start_program("redis-server", &program(), arguments);
        let server = server.unwrap_or_else(|why| panic!("{why}"));
        let connection = Client::open(url(server.port)).and_then(|client| client.get_connection());
        Self { connection: connection.expect("the server listens"), server }
    }

    fn used_memory(&mut self) -> u64 {
        let info: String = redis::cmd("INFO").arg("memory").query(&mut self.connection).expect("the server answers");
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        used.and_then(|used| used.trim().parse().ok()).expect("a number of bytes")
    }

    fn keys(&mut self) -> u32 {
        redis::cmd("DBSIZE").query(&mut self.connection).expect("the server answers")
    }
}

fn program() -> PathBuf {
    servers::find(&["redis-server", "valkey-server"], "REDIS_SERVER").unwrap_or_else(|why| panic!("{why}"))
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

/// The bytes of each old key.
fn old_key_bytes() -> f64 {
    const VALUE: &str = r#"{"canRead":true,"canWrite":true,"canDelete":true,"canShare":true}"#;
    let mut redis = Redis::start();
    let before = redis.used_memory();
    for first in (0..KEYS).step_by(1_000) {
        let mut pipeline = redis::pipe();
        for number in first..first + 1_000 {
            let key = format!("perm:{}:file:{}", id(1, number % 1_000), id(2, number));
            pipeline.cmd("SET").arg(key).arg(VALUE).arg("EX").arg(300).ignore();
        }
        pipeline.query::<()>(&mut redis.connection).expect("the server accepts the keys");
    }
    bytes_per_key(&mut redis, before)
}

/// The bytes of each fact.
async fn fact_bytes() -> f64 {
    let schema = Arc::new(Schema::parse("schema.toml", SCHEMA).unwrap_or_else(|errors| panic!("{errors}")));
    let lookup = schema.lookups().find(|(_, lookup)| &*lookup.collection == "files").expect("the schema reads files").0;
    let mut redis = Redis::start();
    let link = Link::new(Arc::new(Server::parse(&url(redis.server.port)).expect("a URL")), ANSWER_TIME);
    let running = tokio::spawn(link.clone().run(|_| ()));
    link.watch().wait_for(|up| *up).await.expect("the link runs");
    let collections = vec![("files".to_owned(), Some([1; 16]))];
    let identity = Identity { set: Some("rs0".to_owned()), database: "app".to_owned(), collections };
    let secrets = Secrets::parse(&"0123456789abcdef".repeat(2)).expect("it is long enough");
    let namespace = Namespace::new(&identity, schema.fingerprint(), FORMAT, &secrets);
    let (shared, writer) = SharedFacts::new(link, namespace, Arc::clone(&schema), Arc::new(Metrics::default()));
    let writer = tokio::spawn(writer.run());
    let before = redis.used_memory();
    for first in (0..KEYS).step_by(usize::try_from(BATCH).expect("a small number")) {
        for number in first..first + BATCH {
            shared.put(&file(&schema, lookup, number));
        }
        while redis.keys() < first + BATCH {
            sleep(Duration::from_millis(5)).await;
        }
    }
    let bytes = bytes_per_key(&mut redis, before);
    running.abort();
    writer.abort();
    bytes
}

/// The fact of a file in a folder. Five hundred files share the second of their stamps.
fn file(schema: &Schema, lookup: LookupId, number: u32) -> Fact {
    let key = FactKey::whole(lookup, Id::ObjectId(id(2, number).bytes()));
    let document = doc! { "_id": id(2, number), "owner_id": id(1, number % 10_000), "folder_id": id(3, number / 20) };
    Fact::read(schema, key, Moment::new(1_790_000_000 + number / 500, 1 + number % 500), &[&document])
}

/// The growth of the memory since `before`, for each key.
fn bytes_per_key(redis: &mut Redis, before: u64) -> f64 {
    assert_eq!(redis.keys(), KEYS);
    let growth = u32::try_from(redis.used_memory() - before).expect("some megabytes");
    f64::from(growth) / f64::from(KEYS)
}

#[tokio::main]
async fn main() {
    let (old, new) = (old_key_bytes(), fact_bytes().await);
    let ratio = new / old;
    println!("{:<36} {:>12} {:>8}", "growth of used_memory", "bytes a key", "ratio");
    println!("{:<36} {old:>12.1} {:>8.2}", "the old key of a user and a file", 1.0);
    println!("{:<36} {new:>12.1} {ratio:>8.2}", "a file's fact");
    println!("{KEYS} keys each, expiry included; the target is {TARGET}");
}
