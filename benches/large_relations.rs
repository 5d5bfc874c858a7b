//! Measures a check in a group of a million members beside one in a group of ten, and a check of a role that a million users have
//! beside one of ten, over a real mongod: with nothing in memory, with the subject new to a known group, and with everything in
//! memory. Counts the finds, the bytes that mongod returns, and the documents that it reads.
//!
//! A check with nothing in memory takes one find for each lookup in a small group. In a large one, it takes one that is filtered to the
//! subject, and others follow after the answer; under a `!`, they are sent together with it. Small groups are read in the same way for a
//! while after a large one, and at first, when the documents have been counted and nothing else is known of the lookup. Only if small ones
//! were read before does the filtered find of a large one come after that of the first documents, at the same time as one that asks whether
//! there are more documents than a whole fact may contain. The instance runs in this process. Measures no network but the connection to MongoDB.

#![expect(
    unreachable_pub,
    clippy::expect_used,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench panics if it cannot run, and prints its results"
)]
#![allow(dead_code, reason = "the tests' support code does more than this bench uses")]

#[path = "../tests/integration/support/both.rs"]
mod both;
#[path = "../tests/integration/support/servers.rs"]
mod servers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use both::question;
use bson::{Document, doc, oid::ObjectId};
use mongodb::{
    Client, Database,
    event::{EventHandler, command::CommandEvent},
    options::ClientOptions,
};
use permcached::{
    app::{App, Parts, assemble},
    check::Consistency,
    question::Answer,
    schema::Schema,
    source::{Deadline, Source as _, mongodb::MongoDb},
};

/// How many members the large group has.
const MEMBERS: u32 = 1_000_000;

/// How many members the small group has.
const FEW: u32 = 10;

/// How many members a group has that is just large.
const MANY: u32 = 1_001;

/// How many small resources are asked for before a case in which only the sample shows that a key is large.
const SMALL: u32 = 6;

/// How many documents are inserted at once.
const INSERTED: u32 = 50_000;

/// How often each check is measured.
const CHECKS: u32 = 100;

/// How long finds may take for which no check waits. They count as those of the check before.
const SETTLED: Duration = Duration::from_millis(20);

/// How often what each check reads is counted.
const COUNTED: u32 = 10;

/// The name of the database.
const DATABASE: &str = "large_relations";

const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    [resource.group]
    id = "integer"
    [resource.group.relations]
    member = { collection = "memberships", by = "group", field = "user" }
    banned = { collection = "bans", by = "group", field = "user" }
    [resource.group.permissions]
    enter = "member"
    read  = "!banned & member"
    [resource.role]
    id = "integer"
    [resource.role.relations]
    holder = { collection = "users", by = "role", field = "_id" }
    [resource.role.permissions]
    use = "holder"
"#;

fn user(number: u32) -> ObjectId {
    let mut bytes = [0xaa; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// The groups: 0 is small, 1 is large, and 2 is just large enough to show that there are large ones. As many are banned from each
/// as are members, and they are others. As many users have the roles.
async fn fill(database: &Database) {
    let collection = database.collection::<Document>("users");
    let index = doc! { "key": { "role": 1, "_id": 1 }, "name": "role" };
    database.run_command(doc! { "createIndexes": "users", "indexes": [index] }).await.expect("an index");
    for (role, first, count) in [(0, 4 * MEMBERS, FEW), (1, 0, MEMBERS), (2, 3 * MEMBERS, MANY)] {
        for from in (0..count).step_by(usize::try_from(INSERTED).expect("it fits")) {
            let numbers = from..count.min(from.saturating_add(INSERTED));
            let documents = numbers.map(|number| doc! { "_id": user(first + number), "role": role });
            collection.insert_many(documents).ordered(false).await.expect("mongod accepts them");
        }
    }
    for (name, first) in [("memberships", 0), ("bans", 2 * MEMBERS)] {
        let index = doc! { "key": { "group": 1, "user": 1 }, "name": "group_user" };
        database.run_command(doc! { "createIndexes": name, "indexes": [index] }).await.expect("an index");
        let collection = database.collection::<Document>(name);
        for (group, count) in [(0, FEW), (1, MEMBERS), (2, MANY)] {
            for from in (0..count).step_by(usize::try_from(INSERTED).expect("it fits")) {
                let numbers = from..count.min(from.saturating_add(INSERTED));
                let documents = numbers.map(|number| doc! { "group": group, "user": user(first + number) });
                collection.insert_many(documents).ordered(false).await.expect("mongod accepts them");
            }
        }
    }
}

/// The replies of mongod, as the driver reports them.
#[derive(Debug, Default)]
struct Returned {
    finds: AtomicU64,
    bytes: AtomicU64,
}

/// The measured questions: a permission of a resource, a subject who has it, and one who has not.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    permission: &'static str,
    resource: &'static str,
    has: u32,
    /// A resource of the same type that is asked for before. The documents that may name any resource are then in memory.
    before: &'static str,
    /// How many more resources of the same type are asked for before, which do not exist.
    small_before: u32,
    /// Whether the source has looked at some documents of each collection, as `serve` does after its start.
    is_surveyed: bool,
}

/// The measurements of a case: each time with nothing in memory, of a new subject, and with everything in memory.
#[derive(Default)]
struct Measured {
    times: [Vec<Duration>; 3],
    /// The finds, the bytes, and the documents that were read.
    counts: [[u64; 3]; 2],
}

struct Bench {
    schema: Arc<Schema>,
    /// A client that does nothing but what it is asked for, to measure times.
    plain: Database,
    /// A client that reports what mongod returns. Its times would include that.
    monitored: Database,
    returned: Arc<Returned>,
}

impl Bench {
    async fn check(&self, app: &App, number: u32, permission: &str, resource: &str) -> (bool, Duration) {
        let questions = [question(&self.schema, &format!("user:{}", user(number)), permission, resource)];
        let deadline = Deadline::after(both::TIME_MAX);
        let began = Instant::now();
        let checked = app.checker.check(&questions, Consistency::MinimizeLatency, deadline).await;
        let took = began.elapsed();
        let answer = checked.into_iter().next().expect("one answer").expect("mongod answers").answer;
        (matches!(answer, Answer::Allowed { .. }), took)
    }

    /// Checks a subject and a new one, by an instance with nothing in memory.
    async fn check_cold(&self, database: &Database, case: Case, number: u32, measured: &mut Measured) -> App {
        let Case { name, permission, resource, has, before, small_before, is_surveyed } = case;
        let source = MongoDb::open(Arc::clone(&self.schema), database.clone()).await.expect("mongod answers");
        if is_surveyed {
            source.survey().await;
        }
        let app = assemble(Parts::new(Arc::clone(&self.schema), Arc::new(source)));
        // A probe, and the documents that may name any resource, so that only the reads of the resource are measured.
        self.check(&app, 0, permission, before).await;
        tokio::time::sleep(SETTLED).await;
        let (kind, _) = resource.split_once(':').expect("type:id");
        for number in 0..small_before {
            self.check(&app, 0, permission, &format!("{kind}:{}", 100 + number)).await;
            tokio::time::sleep(SETTLED).await;
        }
        for (place, number) in [has + number % FEW, 5 * MEMBERS + number].into_iter().enumerate() {
            let counts = self.counts(database).await;
            let (is_allowed, took) = self.check(&app, number, permission, resource).await;
            assert_eq!(is_allowed, place == 0, "{name}");
            measured.times[place].push(took);
            tokio::time::sleep(SETTLED).await;
            for (count, (after, before)) in self.counts(database).await.into_iter().zip(counts).enumerate() {
                measured.counts[place][count] += after - before;
            }
        }
        app
    }

    /// The replies of mongod to the monitored client, and how many documents it has read.
    async fn counts(&self, database: &Database) -> [u64; 3] {
        if !std::ptr::eq(database, &raw const self.monitored) {
            return [0; 3];
        }
        let status = database.run_command(doc! { "serverStatus": 1 }).await.expect("mongod answers");
        let executor = status.get_document("metrics").and_then(|metrics| metrics.get_document("queryExecutor"));
        let read = executor.and_then(|executor| executor.get_i64("scannedObjects")).expect("mongod counts them");
        let [finds, bytes] = [&self.returned.finds, &self.returned.bytes].map(|count| count.load(Ordering::Relaxed));
        [finds, bytes, u64::try_from(read).expect("a count")]
    }

    /// Measures cases in turn, and prints the medians of each and their ratios to the first.
    async fn compare(&self, cases: &[Case]) {
        let mut all: Vec<_> = cases.iter().map(|case| (*case, Measured::default(), Measured::default())).collect();
        for number in 0..CHECKS {
            for (case, measured, counted) in &mut all {
                if number < COUNTED {
                    self.check_cold(&self.monitored, *case, number, counted).await;
                }
                let app = self.check_cold(&self.plain, *case, number, measured).await;
                for _ in 0..10 {
                    let (is_allowed, took) =
                        self.check(&app, case.has + number % FEW, case.permission, case.resource).await;
                    assert!(is_allowed, "{}", case.name);
                    measured.times[2].push(took);
                }
            }
        }
        let mut first = None;
        for (case, measured, counted) in all {
            let times = measured.times.map(median);
            let first = *first.get_or_insert(times);
            let mean =
                |place: usize, count: usize, unit: u32| counted.counts[place][count] as f64 / f64::from(COUNTED * unit);
            let counts = [0, 1].map(|place| {
                let (finds, bytes, documents) = (mean(place, 0, 1), mean(place, 1, 1_000), mean(place, 2, 1));
                format!("{finds:.0} finds {documents:>4.0} documents {bytes:>5.1} kB")
            });
            let shown = |place: usize| format!("{:>7.1} µs ({:.2})", times[place], times[place] / first[place]);
            println!("{:<46}{} {}  {} {}  {}", case.name, shown(0), counts[0], shown(1), counts[1], shown(2));
        }
    }
}

/// The median in microseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

#[tokio::main]
async fn main() {
    let returned = Arc::<Returned>::default();
    let mut options = ClientOptions::parse(servers::mongo().uri()).await.expect("the URI is our own");
    let plain = Client::with_options(options.clone()).expect("a client").database(DATABASE);
    let counter = Arc::clone(&returned);
    options.command_event_handler = Some(EventHandler::callback(move |event| {
        if let CommandEvent::Succeeded(succeeded) = event
            && succeeded.command_name == "find"
        {
            let bytes = succeeded.reply.to_vec().map_or(0, |reply| reply.len());
            counter.finds.fetch_add(1, Ordering::Relaxed);
            counter.bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
        }
    }));
    let monitored = Client::with_options(options).expect("a client").database(DATABASE);
    fill(&plain).await;
    let schema = Arc::new(both::schema("groups.toml", SCHEMA));
    let bench = Bench { schema, plain, monitored, returned };
    println!(
        "Medians with nothing in memory, of a new subject, and with everything in memory (ratios to the first row):"
    );
    let group = |name, permission, resource, before, small_before| Case {
        name,
        permission,
        resource,
        has: 0,
        before,
        small_before,
        is_surveyed: true,
    };
    let unsampled = |case| Case { is_surveyed: false, ..case };
    bench
        .compare(&[
            group("a group of 10, after small ones", "enter", "group:0", "group:7", SMALL),
            group("a group of 10, the first one", "enter", "group:0", "group:7", 0),
            group("a group of 10, after a large one", "enter", "group:0", "group:2", 0),
            group("a group of 1,000,000, the first one", "enter", "group:1", "group:7", 0),
            group("a group of 1,000,000, after a large one", "enter", "group:1", "group:2", 0),
            group("a group of 1,000,000, after small ones", "enter", "group:1", "group:7", SMALL),
            unsampled(group("the same, not in the sample", "enter", "group:1", "group:7", SMALL)),
        ])
        .await;
    bench
        .compare(&[
            group("10 members, 10 banned, after small ones", "read", "group:0", "group:7", SMALL),
            group("1,000,000 each, the first ones", "read", "group:1", "group:7", 0),
            group("1,000,000 each, after large ones", "read", "group:1", "group:2", 0),
            group("1,000,000 each, after small ones", "read", "group:1", "group:7", SMALL),
            unsampled(group("the same, not in the sample", "read", "group:1", "group:7", SMALL)),
        ])
        .await;
    let role =
        |name, resource, has, before, small_before| Case { has, ..group(name, "use", resource, before, small_before) };
    bench
        .compare(&[
            role("a role of 10 users, after small ones", "role:0", 4 * MEMBERS, "role:7", SMALL),
            role("a role of 10 users, the first one", "role:0", 4 * MEMBERS, "role:7", 0),
            role("a role of 1,000,000 users, the first one", "role:1", 0, "role:7", 0),
            role("a role of 1,000,000 users, after a large one", "role:1", 0, "role:2", 0),
            role("a role of 1,000,000 users, after small ones", "role:1", 0, "role:7", SMALL),
            unsampled(role("the same, not in the sample", "role:1", 0, "role:7", SMALL)),
        ])
        .await;
}
