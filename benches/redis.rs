//! What a file's fact takes in Redis, by the growth of `used_memory`, expiry included; beside the key that an application
//! kept for each user and file before.
//!
//! Each is written to a real server of its own, which this program starts; the facts as the service writes them. Measures no
//! time.

#![expect(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that cannot run says so, and prints what it found"
)]
#![allow(dead_code, reason = "what the tests share does more than is needed here")]

#[path = "../tests/integration/support/servers.rs"]
mod servers;

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use bson::{doc, oid::ObjectId};
use permcached::{
    fact::{Fact, FactKey},
    facts::{ANSWER_TIME, SharedFacts},
    freshness::Moment,
    link::{FORMAT, Link, Names, Server},
    question::{Id, LookupId},
    schema::Schema,
    source::Identity,
    telemetry::Metrics,
};
use redis::{Client, Connection};
use tokio::time::sleep;

/// How many keys there are of each.
const KEYS: u32 = 100_000;

/// How many are written before what was written is looked at.
const BATCH: u32 = 10_000;

/// Which part of the old key's memory a fact may take.
const TARGET: f64 = 0.65;

const SCHEMA: &str = include_str!("../schemas/fylora-sharing.toml");

fn id(kind: u8, number: u32) -> ObjectId {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// A server, and a connection to it.
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
        Self { connection: connection.expect("it listens"), server }
    }

    fn used_memory(&mut self) -> u64 {
        let info: String = redis::cmd("INFO").arg("memory").query(&mut self.connection).expect("it answers");
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        used.and_then(|used| used.trim().parse().ok()).expect("a number of bytes")
    }

    fn keys(&mut self) -> u32 {
        redis::cmd("DBSIZE").query(&mut self.connection).expect("it answers")
    }
}

fn program() -> PathBuf {
    servers::find(&["redis-server", "valkey-server"], "REDIS_SERVER").unwrap_or_else(|why| panic!("{why}"))
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

/// How many bytes each of the old keys takes.
fn old() -> f64 {
    const VALUE: &str = r#"{"canRead":true,"canWrite":true,"canDelete":true,"canShare":true}"#;
    let mut redis = Redis::start();
    let before = redis.used_memory();
    for first in (0..KEYS).step_by(1_000) {
        let mut pipeline = redis::pipe();
        for number in first..first + 1_000 {
            let key = format!("perm:{}:file:{}", id(1, number % 1_000), id(2, number));
            pipeline.cmd("SET").arg(key).arg(VALUE).arg("EX").arg(300).ignore();
        }
        pipeline.query::<()>(&mut redis.connection).expect("it takes them");
    }
    each(&mut redis, before)
}

/// How many bytes each fact takes.
async fn new() -> f64 {
    let schema = Arc::new(Schema::parse("schema.toml", SCHEMA).unwrap_or_else(|errors| panic!("{errors}")));
    let lookup = schema.lookups().find(|(_, lookup)| &*lookup.collection == "files").expect("there is one").0;
    let mut redis = Redis::start();
    let link = Link::new(Arc::new(Server::parse(&url(redis.server.port)).expect("a URL")), ANSWER_TIME);
    let running = tokio::spawn(link.clone().run(|_| ()));
    link.watch().wait_for(|up| *up).await.expect("it is run");
    let collections = vec![("files".to_owned(), Some([1; 16]))];
    let identity = Identity { set: Some("rs0".to_owned()), database: "app".to_owned(), collections };
    let names = Names::new(&identity, schema.fingerprint(), FORMAT);
    let (shared, writer) = SharedFacts::new(link, names, Arc::clone(&schema), Arc::new(Metrics::default()));
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
    let each = each(&mut redis, before);
    running.abort();
    writer.abort();
    each
}

/// A file in a folder, read at some moment of its second.
fn file(schema: &Schema, lookup: LookupId, number: u32) -> Fact {
    let key = FactKey { lookup, id: Id::ObjectId(id(2, number).bytes()) };
    let document = doc! { "_id": id(2, number), "owner_id": id(1, number % 10_000), "folder_id": id(3, number / 20) };
    Fact::read(schema, key, Moment::new(1_790_000_000 + number / 500, 1 + number % 500), &[&document])
}

fn each(redis: &mut Redis, before: u64) -> f64 {
    assert_eq!(redis.keys(), KEYS);
    let growth = u32::try_from(redis.used_memory() - before).expect("some megabytes");
    f64::from(growth) / f64::from(KEYS)
}

#[tokio::main]
async fn main() {
    let (old, new) = (old(), new().await);
    let ratio = new / old;
    println!("{:<36} {:>12} {:>8}", "growth of used_memory", "bytes a key", "ratio");
    println!("{:<36} {old:>12.1} {:>8.2}", "the old key of a user and a file", 1.0);
    println!("{:<36} {new:>12.1} {ratio:>8.2}", "a file's fact");
    println!("{KEYS} keys each, expiry included; the target is {TARGET}");
}
