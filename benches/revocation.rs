//! Measures how long after a permission was revoked all three instances deny it, while each is under load: by a plain write to
//! MongoDB alone, and with `Invalidate` at one instance; beside one direct read of the same document.
//!
//! The instances run in this process, each with its own clients, over a Redis and a replica set on this machine: first of a
//! single node, then of three. Measures no network but the connections to MongoDB and Redis.

#![expect(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench panics if it cannot run, and prints its results"
)]
#![allow(dead_code, reason = "the tests' support code does more than this bench uses")]

#[path = "../tests/integration/support/both.rs"]
mod both;
#[path = "../tests/integration/support/controlled.rs"]
mod controlled;
#[path = "../tests/integration/support/live.rs"]
mod live;
#[path = "../tests/integration/support/monitored.rs"]
mod monitored;
#[path = "../tests/integration/support/replica_set.rs"]
mod replica_set;
#[path = "../tests/integration/support/servers.rs"]
mod servers;
#[path = "../tests/integration/support/wrapper.rs"]
mod wrapper;

use std::{
    ffi::OsString,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bson::{Document, doc, oid::ObjectId};
use live::Live;
use mongodb::Client;
use permcached::{
    app::{Parts, Sharing, assemble},
    check::Consistency,
    invalidate::Outdated,
    link::{Secrets, Server},
    question::{Answer, Question},
    schema::Schema,
    source::{Deadline, mongodb::MongoDb},
};
use tokio::{task::JoinSet, time::sleep};

/// How many permissions are revoked in each way.
const REVOCATIONS: u32 = 500;

/// How many files the load asks about.
const FILES_ASKED: u32 = 200;

/// How many instances there are, each with a task that asks.
const INSTANCES: u32 = 3;

/// How long the load pauses after every 1,000 questions, so that the machine has time for the rest.
const BREATH: Duration = Duration::from_millis(1);

const SCHEMA: &str = include_str!("../schemas/fylora-sharing.toml");

/// How many leaders are killed.
const TAKEOVERS: u32 = 20;

/// How many revocations come first, as a warm-up, and are not shown.
const WARM_UP: u32 = 20;

fn id(kind: u8, number: u32) -> ObjectId {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// Each file has one guest, by a share; nobody else may read it.
fn documents(files: u32) -> Vec<(&'static str, Vec<Document>)> {
    let file = |number| doc! { "_id": id(2, number), "owner_id": id(1, 0), "folder_id": id(3, 0) };
    let share = |number| {
        let (file, guest) = (id(2, number), id(1, 1));
        doc! { "_id": id(4, number), "file_id": file, "shared_with_user_id": guest, "share_type": "internal", "is_active": true }
    };
    vec![
        ("users", (0..=1).map(|number| doc! { "_id": id(1, number), "is_active": true }).collect()),
        ("files", (0..files).map(file).collect()),
        ("folders", vec![doc! { "_id": id(3, 0), "owner_id": id(1, 0) }]),
        ("shares", (0..files).map(share).collect()),
    ]
}

fn reads(live: &Live, number: u32) -> Question {
    live.question(&format!("user:{}", id(1, 1)), "read", &format!("file:{}", id(2, number)))
}

/// Asks questions whose facts are in memory, until `is_over`.
async fn ask_until_over(live: Arc<Live>, is_over: Arc<AtomicBool>, asked: Arc<AtomicU64>) {
    let questions: Vec<Question> = (0..FILES_ASKED).map(|number| reads(&live, number)).collect();
    for question in questions.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let checked = live.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
        assert!(matches!(checked.answer, Answer::Allowed { .. }), "these are never revoked: {checked:?}");
        if asked.fetch_add(1, Ordering::Relaxed) % 1_000 == 999 {
            sleep(BREATH).await;
        }
        tokio::task::yield_now().await;
    }
}

/// Revokes the guest's share of one file, and waits until every instance denies it. Returns how long that took after the write
/// was acknowledged, and how long one read of the share took before.
async fn revoke(fleet: &[Arc<Live>], number: u32, invalidates: bool) -> (Duration, Duration) {
    let question = reads(&fleet[0], number);
    for live in fleet {
        let answer = live.until_cached(&question).await;
        assert!(matches!(answer, Answer::Allowed { .. }), "{answer:?}");
    }
    let shares = fleet[0].database.collection::<Document>("shares");
    let share = doc! { "_id": id(4, number) };
    let started = Instant::now();
    let found = shares.find_one(share.clone()).await.expect("mongod answers");
    let read = started.elapsed();
    assert!(found.is_some());
    shares.update_one(share, doc! { "$set": { "is_active": false } }).await.expect("mongod answers");
    let acknowledged = Instant::now();
    if invalidates {
        let resources = vec![question.resource.clone()];
        let outdated = Outdated::These { resources, documents: Vec::new(), subjects: Vec::new() };
        let place = usize::try_from(number).expect("a few") % fleet.len();
        let invalidated = fleet[place].app.invalidator.invalidate(&outdated, Deadline::after(both::TIME_MAX)).await;
        assert!(invalidated.expect("mongod answers").is_published);
    }
    for live in fleet {
        while let Answer::Allowed { .. } =
            live.ask(&question, Consistency::MinimizeLatency).await.expect("an answer").answer
        {
            tokio::task::yield_now().await;
        }
    }
    (acknowledged.elapsed(), read)
}

/// The median, the 99th percentile and the maximum, in milliseconds.
fn quantiles(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    [at(50), at(99), at(100)]
}

fn print(name: &str, times: [f64; 3], of: [f64; 3]) {
    let ratio = times[0] / of[0];
    println!("{name:<30} {:>8.2} ms {:>8.2} ms {:>8.2} ms {ratio:>8.1}", times[0], times[1], times[2]);
}

/// An instance over a replica set and a Redis.
async fn instance(uri: &str, redis: &str, schema: &Arc<Schema>) -> Live {
    let database = Client::with_uri_str(uri).await.expect("the URI is our own").database("revocation");
    let source = MongoDb::open(Arc::clone(schema), database.clone()).await.expect("mongod answers");
    let server = Server::parse(redis).expect("the URL is our own");
    let secrets = Secrets::parse(&"0123456789abcdef".repeat(2)).expect("it is long enough");
    let sharing = Sharing::over(server, &secrets, schema, &source.identity().await.expect("mongod answers"));
    let app = assemble(Parts { sharing: Some(sharing), ..Parts::over_mongodb(Arc::clone(schema), source) });
    Live::start(Arc::clone(schema), database, app).await
}

/// The instances over a replica set and a Redis, with new documents.
async fn fleet(uri: &str, redis: &str) -> Vec<Arc<Live>> {
    let schema = Arc::new(both::schema("fylora-sharing.toml", SCHEMA));
    let all = documents(FILES_ASKED + WARM_UP + 2 * REVOCATIONS);
    let all = all.into_iter().map(|(name, documents)| (name.to_owned(), documents)).collect();
    let database = Client::with_uri_str(uri).await.expect("the URI is our own").database("revocation");
    both::fill(&database, &schema, &all).await;
    let mut fleet = Vec::new();
    for _ in 0..INSTANCES {
        fleet.push(Arc::new(instance(uri, redis, &schema).await));
    }
    live::until(|| fleet.iter().all(|live| live.app.bus.covers_all_changes())).await;
    fleet
}

/// Measures how long after a leader ends, without giving its lease up, another instance is the leader.
async fn take_over(uri: &str, redis: &str) {
    let schema = Arc::new(both::schema("fylora-sharing.toml", SCHEMA));
    let mut fleet = Vec::new();
    let mut times = Vec::new();
    for _ in 0..TAKEOVERS {
        while fleet.len() < 3 {
            fleet.push(instance(uri, redis, &schema).await);
        }
        live::until(|| fleet.iter().any(|live| live.app.is_leader())).await;
        let leading = fleet.iter().position(|live| live.app.is_leader()).expect("there is a leader");
        drop(fleet.remove(leading));
        let ended = Instant::now();
        live::until(|| fleet.iter().any(|live| live.app.is_leader())).await;
        times.push(ended.elapsed());
    }
    let [p50, _, max] = quantiles(times);
    println!("{TAKEOVERS} leaders were killed: another one took over after {p50:.0} ms (p50), {max:.0} ms at most\n");
}

async fn measure(name: &str, uri: &str, redis: &str) {
    let fleet = fleet(uri, redis).await;
    let (is_over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut askers = JoinSet::new();
    for live in &fleet {
        askers.spawn(ask_until_over(Arc::clone(live), Arc::clone(&is_over), Arc::clone(&asked)));
    }
    let (mut written, mut invalidated, mut read) = (Vec::new(), Vec::new(), Vec::new());
    let began = Instant::now();
    for number in 0..WARM_UP + 2 * REVOCATIONS {
        let invalidates = number % 2 == 1;
        let (denied, one_read) = revoke(&fleet, FILES_ASKED + number, invalidates).await;
        if number >= WARM_UP {
            (if invalidates { &mut invalidated } else { &mut written }).push(denied);
            read.push(one_read);
        }
        // The pause varies, so that it cannot keep step with the change stream's own periods.
        sleep(Duration::from_micros(u64::from(number * 7_919 % 20_011))).await;
    }
    let rate = asked.load(Ordering::Relaxed) / began.elapsed().as_secs().max(1);
    is_over.store(true, Ordering::Relaxed);
    while askers.join_next().await.is_some_and(|asker| asker.is_ok()) {}
    let read = quantiles(read);
    println!("{name:<30} {:>11} {:>11} {:>11} {:>8}", "p50", "p99", "max", "ratio");
    print("one direct read of the share", read, read);
    print("acknowledged to denied on all", quantiles(written), read);
    print("the same with Invalidate", quantiles(invalidated), read);
    println!("{REVOCATIONS} revocations each; {rate} warm questions a second were asked meanwhile\n");
}

#[tokio::main]
async fn main() {
    let redis = servers::find(&["redis-server", "valkey-server"], "REDIS_SERVER").unwrap_or_else(|why| panic!("{why}"));
    let arguments = |port: u16, directory: &Path| -> Vec<OsString> {
        let flags = format!("--port {port} --bind 127.0.0.1 --appendonly no --dir {}", directory.display());
        flags.split_whitespace().map(OsString::from).chain(["--save".into(), "".into()]).collect()
    };
    let redis = servers::Server::start_program("redis-server", &redis, arguments).unwrap_or_else(|why| panic!("{why}"));
    let url = format!("redis://127.0.0.1:{}", redis.port);
    measure("a set of one node", &servers::mongo().uri(), &url).await;
    take_over(&servers::mongo().uri(), &url).await;
    let set = replica_set::ReplicaSet::start().await;
    measure("a set of three nodes", &set.uri("revocation"), &url).await;
}
