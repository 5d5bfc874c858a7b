//! A small Redis without eviction that an application uses too: under any load of permcached, the application's writes never
//! fail.
//!
//! Other eviction policies are tested in `setbacks`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use bson::{Document, doc, oid::ObjectId};
use permcached::{check::Consistency, invalidate::Outdated, source::Deadline};

use super::{SCHEMA, USER, id};
use crate::support::{both::TIME_MAX, fleet::Fleet, redis::Redis};

/// How many files the questions are about: as many as a successful application has.
const FILES: usize = 1_000_000;

/// How many questions a batch has: the maximum.
const BATCH: usize = 10_000;

/// How many of the files exist. All of these change at once, again and again, so that the log grows to its maximum.
const EXISTING: u32 = 20_000;

/// How many sessions of 1 KB the application keeps.
const SESSIONS: u64 = 5_000;

fn file_id(number: u32) -> ObjectId {
    let mut bytes = [9; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// An application that keeps sessions and a queue until `is_over`. Counts its writes, and returns the errors of those that failed.
fn run_application(redis: &Redis, is_over: &AtomicBool, written: &AtomicU64) -> Vec<String> {
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let session = "s".repeat(1_000);
    let mut failed = Vec::new();
    for turn in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let writes = redis::pipe()
            .cmd("SET")
            .arg(format!("session:{}", turn % SESSIONS))
            .arg(&session)
            .arg("EX")
            .arg(3_600)
            .cmd("LPUSH")
            .arg("queue")
            .arg(&session)
            .cmd("LTRIM")
            .arg("queue")
            .arg(0)
            .arg(200)
            .query::<(String, u64, String)>(&mut connection);
        match writes {
            Ok(_) => {
                written.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => failed.push(error.to_string()),
        }
        // An application does other things too.
        thread::sleep(std::time::Duration::from_micros(200));
    }
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_a_million_files_never_make_an_applications_write_fail() {
    let redis = Arc::new(Redis::start(&["--maxmemory", "25mb", "--maxmemory-policy", "noeviction"]));
    let file = |number: u32| doc! { "_id": file_id(number), "owner_id": id(USER) };
    let fleet = Fleet::new(3, &redis.url(), SCHEMA, &[("files", (0..EXISTING).map(file).collect())]).await;
    let (is_over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let application = {
        let (redis, is_over, written) = (Arc::clone(&redis), Arc::clone(&is_over), Arc::clone(&written));
        thread::spawn(move || run_application(&redis, &is_over, &written))
    };
    let mut most = 0;
    for (batch, place) in (0..FILES / BATCH).zip((0..3).cycle()) {
        let live = &fleet.instances[place].live;
        let questions: Vec<_> = (0..BATCH)
            .map(|number| {
                let file = file_id((batch * BATCH + number) as u32);
                live.question(&format!("user:{}", id(USER)), "read", &format!("file:{file}"))
            })
            .collect();
        let answers = live.app.checker.check(&questions, Consistency::MinimizeLatency, Deadline::after(TIME_MAX)).await;
        assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
        if batch % 20 == 10 {
            let files = fleet.database.collection::<Document>("files");
            let owner = doc! { "$set": { "owner_id": ObjectId::new() } };
            files.update_many(doc! {}, owner).await.expect("mongod answers");
            live.app.invalidator.invalidate(&Outdated::All, Deadline::after(TIME_MAX)).await.expect("mongod answers");
        }
        most = most.max(redis.used_memory());
    }
    is_over.store(true, Ordering::Relaxed);
    let failed = application.join().expect("the application does not panic");
    assert!(failed.is_empty(), "{} writes failed: {}", failed.len(), failed[0]);
    let facts: u64 = redis.read(&["DBSIZE"]);
    println!(
        "{} writes of the application, {facts} keys at the end, {most} bytes at most",
        written.load(Ordering::Relaxed)
    );
    assert!(written.load(Ordering::Relaxed) > SESSIONS, "the application wrote all its sessions");
    assert!(facts > 2 * SESSIONS, "facts were shared: {facts}");
}
