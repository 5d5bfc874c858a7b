//! Measures a check in a group of a million members beside one in a group of ten, over a real mongod: with nothing in memory, with
//! the subject new to a known group, and with everything in memory. Counts the bytes that mongod returns.
//!
//! A check with nothing in memory is slower for a large group: that the whole fact is over its limit is read first. The instance
//! runs in this process. Measures no network but the connection to MongoDB.

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
    question::{Answer, Question},
    schema::Schema,
    source::{Deadline, mongodb::MongoDb},
};

/// How many members the large group has.
const MEMBERS: u32 = 1_000_000;

/// How many members the small group has.
const FEW: u32 = 10;

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
"#;

fn user(number: u32) -> ObjectId {
    let mut bytes = [0xaa; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// The groups: 0 is small, 1 is large. As many are banned from each as are members, and they are others.
async fn fill(database: &Database) {
    for (name, first) in [("memberships", 0), ("bans", 2 * MEMBERS)] {
        let index = doc! { "key": { "group": 1, "user": 1 }, "name": "group_user" };
        database.run_command(doc! { "createIndexes": name, "indexes": [index] }).await.expect("an index");
        let collection = database.collection::<Document>(name);
        for (group, count) in [(0, FEW), (1, MEMBERS)] {
            for from in (0..count).step_by(usize::try_from(INSERTED).expect("it fits")) {
                let numbers = from..count.min(from.saturating_add(INSERTED));
                let documents = numbers.map(|number| doc! { "group": group, "user": user(first + number) });
                collection.insert_many(documents).ordered(false).await.expect("mongod accepts them");
            }
        }
    }
}

/// An instance, and the bytes that mongod has returned to it.
struct Bench {
    schema: Arc<Schema>,
    database: Database,
    returned: Arc<AtomicU64>,
}

impl Bench {
    /// An instance with nothing in memory.
    async fn instance(&self) -> App {
        let source = MongoDb::open(Arc::clone(&self.schema), self.database.clone()).await.expect("mongod answers");
        assemble(Parts::new(Arc::clone(&self.schema), Arc::new(source)))
    }

    fn asks(&self, number: u32, group: u32) -> Question {
        question(&self.schema, &format!("user:{}", user(number)), "read", &format!("group:{group}"))
    }

    async fn check(&self, app: &App, question: Question, is_member: bool) -> Duration {
        let (questions, deadline) = ([question], Deadline::after(both::TIME_MAX));
        let began = Instant::now();
        let checked = app.checker.check(&questions, Consistency::MinimizeLatency, deadline).await;
        let took = began.elapsed();
        let answer = checked.into_iter().next().expect("one answer").expect("mongod answers").answer;
        assert_eq!(matches!(answer, Answer::Allowed { .. }), is_member, "{answer:?}");
        took
    }

    /// Measures checks in a group, and prints the medians. Returns them: nothing in memory, a new subject, everything in memory.
    async fn measure(&self, name: &str, group: u32) -> [f64; 3] {
        let (mut cold, mut new, mut warm, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), [0, 0]);
        for number in 0..CHECKS {
            let app = self.instance().await;
            // A probe, so that only the reads of facts are measured.
            let elsewhere = self.asks(0, 7);
            self.check(&app, elsewhere, false).await;
            let before = self.returned.load(Ordering::Relaxed);
            cold.push(self.check(&app, self.asks(number % FEW, group), true).await);
            let between = self.returned.load(Ordering::Relaxed);
            new.push(self.check(&app, self.asks(5 * MEMBERS + number, group), false).await);
            bytes[0] += between - before;
            bytes[1] += self.returned.load(Ordering::Relaxed) - between;
            for _ in 0..10 {
                warm.push(self.check(&app, self.asks(number % FEW, group), true).await);
            }
        }
        let [cold, new, warm] = [cold, new, warm].map(median);
        let kilobytes = bytes.map(|bytes| bytes / u64::from(CHECKS) / 1_000);
        println!(
            "{name:<32} {cold:>9.0} µs {:>5} kB {new:>9.0} µs {:>5} kB {warm:>9.1} µs",
            kilobytes[0], kilobytes[1]
        );
        [cold, new, warm]
    }
}

/// The median in microseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

#[tokio::main]
async fn main() {
    let returned = Arc::<AtomicU64>::default();
    let mut options = ClientOptions::parse(servers::mongo().uri()).await.expect("the URI is our own");
    let counter = Arc::clone(&returned);
    options.command_event_handler = Some(EventHandler::callback(move |event| {
        if let CommandEvent::Succeeded(succeeded) = event
            && succeeded.command_name == "find"
        {
            let bytes = succeeded.reply.to_vec().map_or(0, |reply| reply.len());
            counter.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
        }
    }));
    let client = Client::with_options(options).expect("a client");
    let database = client.database("large_relations");
    fill(&database).await;
    let schema = Arc::new(both::schema("groups.toml", SCHEMA));
    let bench = Bench { schema, database, returned };
    println!("{:<32} {:>21} {:>21} {:>12}", "", "nothing in memory", "a new subject", "in memory");
    let small = bench.measure("a group of 10 members", 0).await;
    let large = bench.measure("a group of 1,000,000 members", 1).await;
    let ratio = |place: usize| large[place] / small[place];
    println!("{:<32} {:>12.2} {:>21.2} {:>20.2}", "ratio", ratio(0), ratio(1), ratio(2));
}
