//! Measures what a cold check costs this process: the two facts of a question from MongoDB, or from Redis, none in memory; beside
//! the same reads by the bare drivers. The databases run in processes of their own, whose time does not count.

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
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bson::{Document, doc, oid::ObjectId};
use futures::StreamExt as _;
use live::Live;
use mongodb::{Client, Database};
use permcached::{
    app::{Parts, Sharing, assemble},
    check::Consistency,
    fact::FactKey,
    link::{Secrets, Server},
    question::{Answer, Id, Question, Tier},
    schema::Schema,
    source::{Deadline, Source as _, mongodb::MongoDb},
};
use tokio::task::JoinSet;

/// How many questions there are, each about a file and a user of its own.
const QUESTIONS: u32 = 20_000;

/// How many are asked at once.
const AT_ONCE: usize = 16;

/// How often everything is measured. The median is shown.
const ROUNDS: usize = 5;

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
collection = "users"
where = { is_active = { "$ne" = false } }

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner_id" }
deleted = { where = { is_deleted = true } }

[resource.file.permissions]
read = "!deleted & owner"
"#;

fn id(kind: u8, number: u32) -> ObjectId {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// Each user owns one file. Both have fields that no permission depends on.
fn documents() -> Vec<(&'static str, Vec<Document>)> {
    let user = |number| {
        doc! { "_id": id(1, number), "is_active": true, "name": format!("user {number}"), "email": format!("{number}@example.org") }
    };
    let file = |number| {
        doc! { "_id": id(2, number), "owner_id": id(1, number), "name": format!("file {number}"), "size": 4_096, "tags": ["a", "b"] }
    };
    vec![("users", (0..QUESTIONS).map(user).collect()), ("files", (0..QUESTIONS).map(file).collect())]
}

/// The time that this process has used, in all its threads.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("the process runs");
    let (_, fields) = stat.rsplit_once(')').expect("the end of its name");
    // The 14th and 15th fields, in hundredths of a second.
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Does something once for each number, and returns the processor time and the time of one, in microseconds.
async fn measure<F: Future<Output = ()> + Send + 'static>(
    work: impl Fn(u32) -> F + Clone + Send + Sync + 'static,
) -> [f64; 2] {
    let next = Arc::new(AtomicU32::new(0));
    let (began, used) = (Instant::now(), processor_time());
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (next, work) = (Arc::clone(&next), work.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= QUESTIONS {
                    return;
                }
                work(number).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(QUESTIONS);
    [each(processor_time().saturating_sub(used)), each(began.elapsed())]
}

fn print(name: &str, rounds: &[[f64; 2]], baseline: f64) -> f64 {
    let median = |place: usize| {
        let mut all: Vec<f64> = rounds.iter().map(|round| round[place]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let used = median(0);
    let ratio = used / if baseline == 0.0 { used } else { baseline };
    println!("{name:<44} {used:>8.1} µs {ratio:>8.2} {:>8.1} µs", median(1));
    used
}

/// The same find as for a fact, by the driver alone.
async fn find(database: Database, collection: &'static str, id: ObjectId, field: &'static str) {
    let command = doc! {
        "find": collection, "filter": { "_id": id }, "projection": { field: 1 }, "limit": 2_i64, "batchSize": 2_i64,
        "collation": { "locale": "simple" }, "readConcern": { "level": "snapshot" },
    };
    let mut batches = database.run_cursor_command(command).batch().await.expect("mongod answers");
    let batch = batches.next().await.expect("a batch").expect("mongod answers");
    assert_eq!(batch.doc_slices().expect("documents").into_iter().count(), 1);
}

async fn ask(live: &Live, questions: &[Question], number: u32, tier: Tier) {
    let question = &questions[usize::try_from(number).expect("a few")];
    let checked = live.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
    assert!(matches!(checked.answer, Answer::Allowed { .. }), "{checked:?}");
    assert_eq!(checked.tier, tier);
}

/// An instance over a Redis.
async fn instance(database: &Database, redis: &str, schema: &Arc<Schema>) -> Live {
    let source = MongoDb::open(Arc::clone(schema), database.clone()).await.expect("mongod answers");
    let server = Server::parse(redis).expect("the URL is our own");
    let secrets = Secrets::parse(&"0123456789abcdef".repeat(2)).expect("it is long enough");
    let sharing = Sharing::over(server, &secrets, schema, &source.identity().await.expect("mongod answers"));
    let app = assemble(Parts { sharing: Some(sharing), ..Parts::over_mongodb(Arc::clone(schema), source) });
    Live::start(Arc::clone(schema), database.clone(), app).await
}

async fn measure_mongodb(schema: &Arc<Schema>, database: &Database, questions: &Arc<Vec<Question>>) {
    let source = Arc::new(MongoDb::open(Arc::clone(schema), database.clone()).await.expect("mongod answers"));
    let at = source.probe(Deadline::after(both::TIME_MAX)).await.expect("mongod answers");
    let files = schema.lookups().find(|(_, lookup)| &*lookup.collection == "files").expect("it is there").0;
    let live = Arc::new(Live::over(Arc::clone(schema), database.clone(), permcached::check::Settings::default()).await);
    let (mut bare, mut loaded, mut checked) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let database = database.clone();
        bare.push(measure(move |number| find(database.clone(), "files", id(2, number), "owner_id")).await);
        let source = Arc::clone(&source);
        let load = move |number| {
            let source = Arc::clone(&source);
            async move {
                let key = FactKey::whole(files, Id::ObjectId(id(2, number).bytes()));
                let results = source.load(vec![key], &[], at, Deadline::after(both::TIME_MAX)).await;
                assert!(results[0].1.is_ok());
            }
        };
        loaded.push(measure(load).await);
        live.app.memory.clear();
        let (live, questions) = (Arc::clone(&live), Arc::clone(questions));
        let ask = move |number| {
            let (live, questions) = (Arc::clone(&live), Arc::clone(&questions));
            async move { ask(&live, &questions, number, Tier::Source).await }
        };
        checked.push(measure(ask).await);
    }
    let baseline = print("one find, by the driver alone", &bare, 0.0);
    print("one fact from MongoDB", &loaded, baseline);
    print("a check with two facts from MongoDB", &checked, baseline);
}

async fn measure_redis(schema: &Arc<Schema>, database: &Database, questions: &Arc<Vec<Question>>, url: &str) {
    let client = redis::Client::open(url).expect("the URL is our own");
    let connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    let mut fill = redis::pipe();
    for number in 0..QUESTIONS {
        fill.set(format!("bare:user:{number}"), &[7_u8; 30][..]).set(format!("bare:file:{number}"), &[7_u8; 50][..]);
    }
    fill.query_async::<()>(&mut connection.clone()).await.expect("Redis answers");
    let live = Arc::new(instance(database, url, schema).await);
    for question in questions.iter() {
        live.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
    }
    live::until(|| live.handled() >= u64::from(2 * QUESTIONS)).await;
    assert_eq!(live.written(), u64::from(2 * QUESTIONS), "everything is written");
    let (mut bare, mut checked) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let connection = connection.clone();
        let mget = move |number| {
            let mut connection = connection.clone();
            async move {
                let mut command = redis::cmd("MGET");
                command.arg(format!("bare:user:{number}")).arg(format!("bare:file:{number}"));
                let values: Vec<Vec<u8>> = command.query_async(&mut connection).await.expect("Redis answers");
                assert_eq!(values.len(), 2);
            }
        };
        bare.push(measure(mget).await);
        live.app.memory.clear();
        let (live, questions) = (Arc::clone(&live), Arc::clone(questions));
        let ask = move |number| {
            let (live, questions) = (Arc::clone(&live), Arc::clone(&questions));
            async move { ask(&live, &questions, number, Tier::Redis).await }
        };
        checked.push(measure(ask).await);
    }
    let baseline = print("one MGET of two values, by the client alone", &bare, 0.0);
    print("a check with two facts from Redis", &checked, baseline);
}

#[tokio::main]
async fn main() {
    let schema = Arc::new(both::schema("cold.toml", SCHEMA));
    let database = Client::with_uri_str(servers::mongo().uri()).await.expect("the URI is our own").database("cold");
    let all = documents().into_iter().map(|(name, documents)| (name.to_owned(), documents)).collect();
    both::fill(&database, &schema, &all).await;
    let question = |number| {
        both::question(&schema, &format!("user:{}", id(1, number)), "read", &format!("file:{}", id(2, number)))
    };
    let questions: Arc<Vec<Question>> = Arc::new((0..QUESTIONS).map(question).collect());
    println!("{:<44} {:>11} {:>8} {:>11}", "16 at once", "processor", "ratio", "time");
    measure_mongodb(&schema, &database, &questions).await;
    let redis = servers::find(&["redis-server", "valkey-server"], "REDIS_SERVER").unwrap_or_else(|why| panic!("{why}"));
    let arguments = |port: u16, directory: &Path| -> Vec<OsString> {
        let flags = format!("--port {port} --bind 127.0.0.1 --appendonly no --dir {}", directory.display());
        flags.split_whitespace().map(OsString::from).chain(["--save".into(), "".into()]).collect()
    };
    let redis = servers::Server::start_program("redis-server", &redis, arguments).unwrap_or_else(|why| panic!("{why}"));
    measure_redis(&schema, &database, &questions, &format!("redis://127.0.0.1:{}", redis.port)).await;
}
