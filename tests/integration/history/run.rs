//! A run: the registers, the instances that are asked, and the state that writers, checkers and faults share.
//!
//! Starts writers and checkers, and ends them. Does nothing to the servers; `faults` does.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mongodb::Client;
use permcached::{
    check::Settings,
    freshness::Token,
    question::{Millis, Question},
    schema::Schema,
};
use tokio::task::JoinSet;

use super::{
    checkers::check,
    instances::{Instance, Setup},
    kinds::{Kind, SCHEMA, first_documents},
    register::History,
    tally::Tally,
    writers::write,
};
use crate::support::{
    both::{fill, question, schema},
    links::Links,
};

/// How many registers there are of each kind, one kind after the other.
pub const REGISTERS_OF_A_KIND: usize = 6;

/// How many checkers ask each instance.
const CHECKERS: usize = 6;

/// How many tokens of earlier answers are kept.
const TOKENS_MAX: usize = 256;

/// The parameters of a run.
pub struct Plan {
    /// Determines what writers write, what checkers ask, and which faults occur.
    pub seed: u64,
    /// The links of each instance that is asked.
    pub links: Arc<Vec<Links>>,
    /// How long each instance may take to recover, once the fault is over and the set has a primary. An instance has
    /// recovered when it answers from MongoDB and from memory, and has applied everything that was written by then.
    pub recovery_max: Duration,
}

/// A document, and every write to it.
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
    /// The oldest write of that register that explains the answer.
    pub seen: usize,
}

/// The state that writers, checkers and faults share.
pub struct Run {
    pub seed: u64,
    pub bound: Duration,
    pub recovery_max: Duration,
    pub registers: Vec<Register>,
    setup: Setup,
    instances: RwLock<Vec<Arc<Instance>>>,
    /// When it began, by the wall clock.
    pub wall_begun: Millis,
    begun: Instant,
    earlier: Mutex<VecDeque<Earlier>>,
    /// Which register's write was acknowledged last.
    last_written: AtomicUsize,
    tally: Mutex<Tally>,
    over: AtomicBool,
}

impl Run {
    /// Runs writers and checkers over a replica set until `meanwhile` ends. Returns the tally. `uri_of` makes the set's URI
    /// for a client of a given name.
    pub async fn during<F: Future<Output = ()>>(
        plan: &Plan,
        uri_of: impl Fn(&str) -> String,
        meanwhile: impl FnOnce(Arc<Self>) -> F,
    ) -> Tally {
        let schema = Arc::new(schema("history.toml", SCHEMA));
        let client = Client::with_uri_str(uri_of("writers")).await.expect("the URI is our own");
        let database = client.database("history");
        fill(&database, &schema, &first_documents(REGISTERS_OF_A_KIND)).await;
        let setup = Setup { schema, links: Arc::clone(&plan.links), database: database.name().to_owned() };
        let mut instances = Vec::new();
        for place in 0..plan.links.len() {
            instances.push(Arc::new(Instance::start(&setup, place).await));
        }
        let run = Arc::new(Self::new(plan, setup, instances));
        let mut tasks = JoinSet::new();
        for register in 0..run.registers.len() {
            tasks.spawn(write(Arc::clone(&run), register, database.clone()));
        }
        for checker in 0..plan.links.len() * CHECKERS {
            tasks.spawn(check(Arc::clone(&run), checker));
        }
        meanwhile(Arc::clone(&run)).await;
        run.over.store(true, Ordering::Relaxed);
        tasks.join_all().await;
        let mut tally = std::mem::take(&mut *run.tally());
        tally.lasted = run.now();
        tally
    }

    fn new(plan: &Plan, setup: Setup, instances: Vec<Arc<Instance>>) -> Self {
        let of_a_kind =
            |kind| (0..REGISTERS_OF_A_KIND).map(move |number| Register { kind, number, history: Mutex::default() });
        Self {
            seed: plan.seed,
            recovery_max: plan.recovery_max,
            bound: Settings::default().staleness_max,
            registers: Kind::ALL.into_iter().flat_map(of_a_kind).collect(),
            setup,
            instances: RwLock::new(instances),
            wall_begun: wall(),
            begun: Instant::now(),
            earlier: Mutex::default(),
            last_written: AtomicUsize::default(),
            tally: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    /// The time since it began.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Whether writers and checkers must end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no panic before")
    }

    /// The question whether a register grants at a place.
    pub fn question(&self, register: usize, place: u8) -> Question {
        let Register { kind, number, .. } = &self.registers[register];
        let [subject, resource] = kind.question(*number, place);
        question(self.schema(), &subject, "read", &resource)
    }

    pub fn schema(&self) -> &Schema {
        &self.setup.schema
    }

    /// Whether the instances share a Redis.
    pub fn is_shared(&self) -> bool {
        self.setup.links.iter().any(|links| links.redis.is_some())
    }

    /// How many instances are asked.
    pub fn count(&self) -> usize {
        self.instances.read().expect("no panic before").len()
    }

    /// All instances that are asked now.
    pub fn all(&self) -> Vec<Arc<Instance>> {
        self.instances.read().expect("no panic before").clone()
    }

    /// One of the instances, as it is now.
    pub fn instance(&self, place: usize) -> Arc<Instance> {
        Arc::clone(&self.instances.read().expect("no panic before")[place])
    }

    /// Starts an instance in the place of another.
    pub async fn replace(&self, place: usize) {
        let next = Arc::new(Instance::start(&self.setup, place).await);
        self.instances.write().expect("no panic before")[place] = next;
    }

    /// The register whose write was acknowledged last.
    pub fn last_written(&self) -> usize {
        self.last_written.load(Ordering::Relaxed)
    }

    /// Records that a write of this register was just acknowledged.
    pub fn set_last_written(&self, register: usize) {
        self.last_written.store(register, Ordering::Relaxed);
    }

    /// Keeps the token of an answer, for a later request to any instance.
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

/// The time by the clock that expiries are compared with.
pub fn wall() -> Millis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    Millis::try_from(since_epoch.as_millis()).expect("and earlier than the end of time")
}
