//! Measures a check in a group of a million members beside one in a group of ten, and a check of a role that a million users have
//! beside one of ten, over a real mongod: with nothing in memory, with the subject new to a known group, and with everything in
//! memory. Counts the finds, and the bytes that mongod returns.
//!
//! A check with nothing in memory takes one find for each lookup in a small group. In a large one, the find of its first documents is
//! followed by one that is filtered to the subject. Where no group of the lookup was large before, a third one asks in between whether
//! there are more documents than a whole fact may contain. The instance runs in this process. Measures no network but the
//! connection to MongoDB.

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
    source::{Deadline, mongodb::MongoDb},
};

/// How many members the large group has.
const MEMBERS: u32 = 1_000_000;

/// How many members the small group has.
const FEW: u32 = 10;

/// How many members a group has that is just large.
const MANY: u32 = 1_001;

/// How many documents are inserted at once.
const INSERTED: u32 = 50_000;

/// How often each check is measured.
const CHECKS: u32 = 100;

const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    [resource.group]
    id = "integer"
    [resource.group.relations]
    member = { collection = "memberships", by = "group", field = "user" }
    banned = { collection = "bans", by = "group", field = "user" }
    [resource.group.permissions]
    read = "!banned & member"
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

/// What mongod has returned.
#[derive(Debug, Default)]
struct Returned {
    finds: AtomicU64,
    bytes: AtomicU64,
}

impl Returned {
    fn now(&self) -> [u64; 2] {
        [&self.finds, &self.bytes].map(|count| count.load(Ordering::Relaxed))
    }
}

/// A database, and what mongod has returned from it.
struct Bench {
    schema: Arc<Schema>,
    database: Database,
    returned: Arc<Returned>,
}

/// The measured questions: a permission of a resource, a subject who has it, and one who has not.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    permission: &'static str,
    resource: &'static str,
    has: u32,
    /// A large resource of the same type that is asked for before.
    before: Option<&'static str>,
}

/// Medians in microseconds: with nothing in memory, of a new subject, and with everything in memory.
type Medians = [f64; 3];

impl Bench {
    /// An instance with nothing in memory.
    async fn instance(&self) -> App {
        let source = MongoDb::open(Arc::clone(&self.schema), self.database.clone()).await.expect("mongod answers");
        assemble(Parts::new(Arc::clone(&self.schema), Arc::new(source)))
    }

    async fn check(&self, app: &App, number: u32, permission: &str, resource: &str) -> (bool, Duration) {
        let questions = [question(&self.schema, &format!("user:{}", user(number)), permission, resource)];
        let deadline = Deadline::after(both::TIME_MAX);
        let began = Instant::now();
        let checked = app.checker.check(&questions, Consistency::MinimizeLatency, deadline).await;
        let took = began.elapsed();
        let answer = checked.into_iter().next().expect("one answer").expect("mongod answers").answer;
        (matches!(answer, Answer::Allowed { .. }), took)
    }

    /// Measures checks, and prints the medians.
    async fn measure(&self, case: Case) -> Medians {
        let Case { name, permission, resource, has, before } = case;
        let (mut cold, mut new, mut warm, mut counts) = (Vec::new(), Vec::new(), Vec::new(), [[0; 2]; 2]);
        for number in 0..CHECKS {
            let app = self.instance().await;
            // A probe, and the documents that may name any resource, so that only the reads of the resource are measured.
            let (kind, _) = resource.split_once(':').expect("a resource");
            let elsewhere = before.map_or_else(|| format!("{kind}:7"), str::to_owned);
            self.check(&app, 0, permission, &elsewhere).await;
            let at = [self.returned.now()];
            let (is_allowed, took) = self.check(&app, has + number % FEW, permission, resource).await;
            let at = [at[0], self.returned.now()];
            assert!(is_allowed, "{name}");
            cold.push(took);
            let (is_allowed, took) = self.check(&app, 5 * MEMBERS + number, permission, resource).await;
            let at = [at[0], at[1], self.returned.now()];
            assert!(!is_allowed, "{name}");
            new.push(took);
            for place in 0..2 {
                for count in 0..2 {
                    counts[place][count] += at[place + 1][count] - at[place][count];
                }
            }
            for _ in 0..10 {
                let (is_allowed, took) = self.check(&app, has + number % FEW, permission, resource).await;
                assert!(is_allowed, "{name}");
                warm.push(took);
            }
        }
        let [cold, new, warm] = [cold, new, warm].map(median);
        let mean = |place: usize, count: usize, unit: u32| counts[place][count] as f64 / f64::from(CHECKS * unit);
        let shown = |place: usize| format!("{:.0} finds {:>5.1} kB", mean(place, 0, 1), mean(place, 1, 1_000));
        println!("{name:<44} {cold:>7.0} µs {} {new:>7.0} µs {} {warm:>7.1} µs", shown(0), shown(1));
        [cold, new, warm]
    }

    /// Measures a small and a large one, and prints the ratio.
    async fn compare(&self, small: Case, large: Case) {
        let small = self.measure(small).await;
        let large = self.measure(large).await;
        let ratio = |place: usize| large[place] / small[place];
        println!("{:<44} {:>7.2} {:>28.2} {:>27.2}", "ratio", ratio(0), ratio(1), ratio(2));
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
    let client = Client::with_options(options).expect("a client");
    let database = client.database("large_relations");
    fill(&database).await;
    let schema = Arc::new(both::schema("groups.toml", SCHEMA));
    let bench = Bench { schema, database, returned };
    println!("{:<44} {:<27} {:<27} in memory", "", "nothing in memory", "a new subject");
    let group = |name, resource, before| Case { name, permission: "read", resource, has: 0, before };
    bench
        .compare(
            group("a group of 10", "group:0", None),
            group("a group of 1,000,000, the first large one", "group:1", None),
        )
        .await;
    bench
        .compare(
            group("a group of 10, after a large one", "group:0", Some("group:2")),
            group("a group of 1,000,000, after a large one", "group:1", Some("group:2")),
        )
        .await;
    let role = |name, resource, has| Case { name, permission: "use", resource, has, before: Some("role:2") };
    bench
        .compare(role("a role of 10 users", "role:0", 4 * MEMBERS), role("a role of 1,000,000 users", "role:1", 0))
        .await;
}
