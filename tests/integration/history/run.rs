//! A run: the registers, the instances that are asked, and what all who take part share.
//!
//! It starts writers and checkers, and lets go of them. What is done to the servers meanwhile is the `faults`' business.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mongodb::{Client, Database};
use permcached::{
    app::App,
    check::Settings,
    freshness::Token,
    question::{Millis, Question},
    schema::Schema,
    source::mongodb::MongoDb,
};
use tokio::task::JoinSet;

use super::{
    checkers::check,
    kinds::{Kind, SCHEMA, first_documents},
    register::History,
    tally::Tally,
    writers::write,
};
use crate::support::both::{fill, question, schema};

/// The name of the instances' clients, by which fail points tell them from the writers.
pub const APP_NAME: &str = "instance";

/// How many registers there are of each kind, one kind after the other.
pub const REGISTERS_OF_A_KIND: usize = 6;

/// How many checkers ask each instance.
const CHECKERS: usize = 6;

/// How many tokens of earlier answers are kept.
const TOKENS_MAX: usize = 256;

/// What a run is made of.
pub struct Plan {
    /// What writers write, what checkers ask, and which faults there are: all of it follows from this.
    pub seed: u64,
    /// How many instances are asked.
    pub instances: usize,
}

/// A document, and all that was ever written to it.
pub struct Register {
    pub kind: Kind,
    pub number: usize,
    history: Mutex<History>,
}

impl Register {
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no panic before")
    }
}

/// A token that an answer gave.
#[derive(Clone, Copy)]
pub struct Earlier {
    pub register: usize,
    pub place: u8,
    pub token: Token,
    /// The oldest write of that register that may have been seen by the answer.
    pub seen: usize,
}

/// What all who take part share.
pub struct Run {
    pub seed: u64,
    pub schema: Arc<Schema>,
    pub bound: Duration,
    pub registers: Vec<Register>,
    pub instances: Vec<App>,
    /// When it began, by the wall clock.
    pub wall_begun: Millis,
    begun: Instant,
    earlier: Mutex<VecDeque<Earlier>>,
    tally: Mutex<Tally>,
    over: AtomicBool,
}

impl Run {
    /// Over a replica set that is found so: lets writers and checkers go on until `meanwhile` is done, and says what was
    /// seen.
    pub async fn during<F: Future<Output = ()>>(
        plan: &Plan,
        uri_of: impl Fn(&str) -> String,
        meanwhile: impl FnOnce(Arc<Self>) -> F,
    ) -> Tally {
        let schema = Arc::new(schema("history.toml", SCHEMA));
        let client = Client::with_uri_str(uri_of("writers")).await.expect("the URI is our own");
        let database = client.database("history");
        fill(&database, &schema, &first_documents(REGISTERS_OF_A_KIND)).await;
        let mut instances = Vec::new();
        let mut background = Vec::new();
        for _ in 0..plan.instances {
            let (instance, tasks) = start(&schema, &uri_of(APP_NAME), &database).await;
            instances.push(instance);
            background.push(tasks);
        }
        let run = Arc::new(Self::new(plan, schema, instances));
        let mut tasks = JoinSet::new();
        for register in 0..run.registers.len() {
            tasks.spawn(write(Arc::clone(&run), register, database.clone()));
        }
        for checker in 0..plan.instances * CHECKERS {
            tasks.spawn(check(Arc::clone(&run), checker));
        }
        meanwhile(Arc::clone(&run)).await;
        run.over.store(true, Ordering::Relaxed);
        tasks.join_all().await;
        let mut tally = std::mem::take(&mut *run.tally());
        tally.lasted = run.now();
        tally
    }

    fn new(plan: &Plan, schema: Arc<Schema>, instances: Vec<App>) -> Self {
        let of_a_kind =
            |kind| (0..REGISTERS_OF_A_KIND).map(move |number| Register { kind, number, history: Mutex::default() });
        Self {
            seed: plan.seed,
            schema,
            bound: Settings::default().staleness_max,
            registers: Kind::ALL.into_iter().flat_map(of_a_kind).collect(),
            instances,
            wall_begun: wall(),
            begun: Instant::now(),
            earlier: Mutex::default(),
            tally: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    /// The time since it began.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Whether writers and checkers are to end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no panic before")
    }

    /// Whether a register grants at a place.
    pub fn question(&self, register: usize, place: u8) -> Question {
        let Register { kind, number, .. } = &self.registers[register];
        let [subject, resource] = kind.question(*number, place);
        question(&self.schema, &subject, "read", &resource)
    }

    /// Keeps the token of an answer, for whoever asks next of whichever instance.
    pub fn keep(&self, token: Earlier) {
        let mut earlier = self.earlier.lock().expect("no panic before");
        earlier.push_back(token);
        if earlier.len() > TOKENS_MAX {
            earlier.pop_front();
        }
    }

    /// One of the tokens that were kept: `pick` chooses by how many there are.
    pub fn earlier(&self, pick: impl FnOnce(usize) -> usize) -> Option<Earlier> {
        let earlier = self.earlier.lock().expect("no panic before");
        (!earlier.is_empty()).then(|| earlier[pick(earlier.len())])
    }
}

/// An instance with a client of its own, and what it has running in the background.
async fn start(schema: &Arc<Schema>, uri: &str, database: &Database) -> (App, JoinSet<()>) {
    let source = MongoDb::connect(Arc::clone(schema), uri, Some(database.name())).await.expect("the set is there");
    let mut app = App::over_mongodb(Arc::clone(schema), source, Settings::default(), None);
    let tasks = app.start().await.expect("the set says what time it is");
    (app, tasks)
}

/// The time by the clock that expiries are compared with.
pub fn wall() -> Millis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    Millis::try_from(since_epoch.as_millis()).expect("and earlier than the end of time")
}
