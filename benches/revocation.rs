//! How long after a permission was taken away it is denied, while others ask: by a bare write to MongoDB alone, and with
//! `Invalidate`; beside one direct read of the same document.
//!
//! The application runs in this process, over a real replica set of one node on this machine, as in the tests. Measures no
//! wire but that to MongoDB.

#![expect(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that cannot run says so, and prints what it found"
)]
#![allow(dead_code, reason = "what the tests share does more than is needed here")]

#[path = "../tests/integration/support/both.rs"]
mod both;
#[path = "../tests/integration/support/gated.rs"]
mod gated;
#[path = "../tests/integration/support/live.rs"]
mod live;
#[path = "../tests/integration/support/monitored.rs"]
mod monitored;
#[path = "../tests/integration/support/servers.rs"]
mod servers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bson::{Document, doc, oid::ObjectId};
use live::Live;
use permcached::{
    check::Demand,
    invalidate::Outdated,
    question::{Answer, Question},
    source::Deadline,
};
use tokio::{task::JoinSet, time::sleep};

/// How many permissions are taken away in each way.
const REVOCATIONS: u32 = 500;

/// How many files others ask about, and how many ask.
const FILES_ASKED: u32 = 200;
const ASKERS: u32 = 2;

/// A warm-up that measures the same and is not shown.
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

/// Asks warm questions for as long as it is let.
async fn ask_on(live: Arc<Live>, is_over: Arc<AtomicBool>, asked: Arc<AtomicU64>) {
    let questions: Vec<Question> = (0..FILES_ASKED).map(|number| reads(&live, number)).collect();
    for question in questions.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let checked = live.ask(question, Demand::MinimizeLatency).await.expect("an answer");
        assert!(matches!(checked.answer, Answer::Allowed { .. }), "nobody takes these away: {checked:?}");
        asked.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

/// Takes the guest's share of one file away, and waits until that is seen. Says how long it took from when the write was
/// acknowledged, and how long one read of the share took before.
async fn revoke(live: &Live, number: u32, invalidates: bool) -> (Duration, Duration) {
    let question = reads(live, number);
    let answer = live.remembers(&question).await;
    assert!(matches!(answer, Answer::Allowed { .. }), "{answer:?}");
    let shares = live.database.collection::<Document>("shares");
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
        let invalidated = live.app.invalidator.invalidate(&outdated, Deadline::after(both::TIME_MAX)).await;
        invalidated.expect("mongod answers");
    }
    loop {
        let checked = live.ask(&question, Demand::MinimizeLatency).await.expect("an answer");
        if let Answer::Denied(_) = checked.answer {
            return (acknowledged.elapsed(), read);
        }
        tokio::task::yield_now().await;
    }
}

/// The middle, the 99th of a hundred and the last, in milliseconds.
fn quantiles(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    [at(50), at(99), at(100)]
}

fn print(name: &str, times: [f64; 3], of: [f64; 3]) {
    let ratio = times[0] / of[0];
    println!("{name:<30} {:>8.2} ms {:>8.2} ms {:>8.2} ms {ratio:>8.1}", times[0], times[1], times[2]);
}

#[tokio::main]
async fn main() {
    let all = documents(FILES_ASKED + WARM_UP + 2 * REVOCATIONS);
    let live = Arc::new(Live::new(include_str!("../schemas/fylora-sharing.toml"), &all).await);
    let (is_over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut askers = JoinSet::new();
    for _ in 0..ASKERS {
        askers.spawn(ask_on(Arc::clone(&live), Arc::clone(&is_over), Arc::clone(&asked)));
    }
    let (mut written, mut invalidated, mut read) = (Vec::new(), Vec::new(), Vec::new());
    let began = Instant::now();
    for number in 0..WARM_UP + 2 * REVOCATIONS {
        let invalidates = number % 2 == 1;
        let (denied, one_read) = revoke(&live, FILES_ASKED + number, invalidates).await;
        if number >= WARM_UP {
            (if invalidates { &mut invalidated } else { &mut written }).push(denied);
            read.push(one_read);
        }
        // Of no length that the change stream's own periods could keep step with.
        sleep(Duration::from_micros(u64::from(number * 7_919 % 20_011))).await;
    }
    let rate = asked.load(Ordering::Relaxed) / began.elapsed().as_secs().max(1);
    is_over.store(true, Ordering::Relaxed);
    while askers.join_next().await.is_some_and(|asker| asker.is_ok()) {}
    let read = quantiles(read);
    println!("{:<30} {:>11} {:>11} {:>11} {:>8}", "while others ask", "p50", "p99", "max", "ratio");
    print("one direct read of the share", read, read);
    print("write acknowledged to denied", quantiles(written), read);
    print("the same with Invalidate", quantiles(invalidated), read);
    println!("{REVOCATIONS} revocations each; the others asked {rate} warm questions a second");
}
