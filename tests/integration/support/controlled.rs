//! A source under a test's control: it asks another source, and can hold back loads, fail, count and report what it is asked.
//!
//! What it answers, and its moments, are the other source's: MongoDB, documents, or a `MemorySource`.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use permcached::{
    fact::{Fact, FactKey},
    freshness::Moment,
    schema::Schema,
    source::{Deadline, Listed, Listing, Source, SourceError},
};
use tokio::sync::{Semaphore, watch};

use super::{
    live::{in_the_end, until},
    wrapper::{Wrapped, Wrapper},
};

/// What the gate does to a load while it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The load reads, and waits before it returns.
    Waits,
    /// The load reads, waits, and panics.
    Panics,
}

/// What is wrong with the source.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// A probe never returns, and ignores its deadline.
    ProbeHangs,
    /// A load never returns, and ignores its deadline.
    LoadHangs,
    /// A probe fails.
    ProbeFails,
    /// One collection cannot be read.
    LoadFails(&'static str),
}

/// A step of a load that an observer is called at.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Before the source is asked.
    Before,
    /// After it has answered, with the keys that were asked for.
    After(&'a [FactKey]),
}

/// Called at each step of each load.
type Observer = Box<dyn Fn(Step<'_>) + Send + Sync>;

/// Another source under control.
pub type ControlledSource = Wrapped<Controlled>;

/// The state by which a test controls the other source.
pub struct Controlled {
    schema: Arc<Schema>,
    /// The source that is asked for the time.
    time: Arc<dyn Source>,
    /// The source that is asked for facts and keys.
    facts: Arc<dyn Source>,
    fault: Mutex<Fault>,
    /// How many more loads the gate is closed for, and what it does to them.
    closed: Mutex<(usize, Closed)>,
    waiting: watch::Sender<usize>,
    opened: Semaphore,
    probes: AtomicUsize,
    /// The moment as of which each load was to read.
    moments: Mutex<Vec<Moment>>,
    observer: Observer,
}

impl ControlledSource {
    /// A source whose gate is open and which has no fault.
    pub fn over(schema: &Arc<Schema>, source: Arc<dyn Source>) -> Self {
        Wrapped(Controlled {
            schema: Arc::clone(schema),
            time: Arc::clone(&source),
            facts: source,
            fault: Mutex::new(Fault::None),
            closed: Mutex::new((0, Closed::Waits)),
            waiting: watch::Sender::new(0),
            opened: Semaphore::new(0),
            probes: AtomicUsize::new(0),
            moments: Mutex::default(),
            observer: Box::new(|_| ()),
        })
    }

    /// The same, but asks another source for the time.
    pub fn with_time_of(self, time: Arc<dyn Source>) -> Self {
        Wrapped(Controlled { time, ..self.0 })
    }

    /// The same, with an observer of each load.
    pub fn observed(self, observer: impl Fn(Step<'_>) + Send + Sync + 'static) -> Self {
        Wrapped(Controlled { observer: Box::new(observer), ..self.0 })
    }
}

impl Controlled {
    /// Sets what is wrong from now on.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock().expect("no panic before") = fault;
    }

    /// Closes the gate for the next loads.
    pub fn close(&self, loads: usize, closed: Closed) {
        *self.closed.lock().expect("no panic before") = (loads, closed);
    }

    /// Waits until this many loads wait at the gate.
    pub async fn wait_for(&self, loads: usize) {
        let mut waiting = self.waiting.subscribe();
        in_the_end(waiting.wait_for(|waiting| *waiting >= loads)).await.expect("the gate is there");
    }

    /// Lets one of the loads at the gate pass.
    pub fn open(&self) {
        self.opened.add_permits(1);
    }

    /// How many loads there were.
    pub fn loads(&self) -> usize {
        self.moments().len()
    }

    /// The moments as of which the loads were to read, in their order.
    pub fn moments(&self) -> Vec<Moment> {
        self.moments.lock().expect("no panic before").clone()
    }

    /// How many probes there were.
    pub fn probes(&self) -> usize {
        self.probes.load(Ordering::SeqCst)
    }

    /// Waits until there were this many probes.
    pub async fn wait_for_probes(&self, probes: usize) {
        until(|| self.probes() >= probes).await;
    }

    fn fault(&self) -> Fault {
        self.fault.lock().expect("no panic before").clone()
    }

    fn take_turn(&self) -> Option<Closed> {
        let mut closed = self.closed.lock().expect("no panic before");
        closed.0 = closed.0.checked_sub(1)?;
        Some(closed.1)
    }

    /// The result of a load, or an error if the key's collection cannot be read.
    fn spoiled(&self, key: &FactKey, result: Result<Fact, SourceError>, broken: &str) -> Result<Fact, SourceError> {
        let collection = self.schema.lookup(key.lookup).collection.to_string();
        if collection == broken { Err(SourceError::Find { collection, source: driver_error() }) } else { result }
    }
}

/// What a driver could report. No caller may see it.
fn driver_error() -> Arc<dyn std::error::Error + Send + Sync> {
    Arc::from(Box::from("s3cret-host: connection reset"))
}

#[async_trait]
impl Wrapper for Controlled {
    fn inner(&self) -> &dyn Source {
        &*self.facts
    }

    fn time(&self) -> &dyn Source {
        &*self.time
    }

    async fn probe(&self, deadline: Deadline) -> Result<Moment, SourceError> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        match self.fault() {
            Fault::ProbeHangs => pending().await,
            Fault::ProbeFails => Err(SourceError::Probe(driver_error())),
            Fault::None | Fault::LoadHangs | Fault::LoadFails(_) => self.time.probe(deadline).await,
        }
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        if_large: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        self.moments.lock().expect("no panic before").push(at);
        (self.observer)(Step::Before);
        let (closed, fault) = (self.take_turn(), self.fault());
        if matches!(fault, Fault::LoadHangs) {
            pending::<()>().await;
        }
        let mut loaded = self.facts.load(keys.clone(), if_large, at, deadline).await;
        if let Fault::LoadFails(broken) = fault {
            let spoil = |(key, result)| (FactKey::clone(&key), self.spoiled(&key, result, broken));
            loaded = loaded.into_iter().map(spoil).collect();
        }
        if let Some(closed) = closed {
            self.waiting.send_modify(|waiting| *waiting += 1);
            self.opened.acquire().await.expect("never closed").forget();
            assert_eq!(closed, Closed::Waits, "on purpose");
        }
        (self.observer)(Step::After(&keys));
        loaded
    }

    async fn list(&self, listing: Listing, at: Moment, deadline: Deadline) -> Result<Listed, SourceError> {
        match self.fault() {
            Fault::LoadHangs => pending().await,
            Fault::LoadFails(collection) if self.schema.collection_name(listing.collection) == collection => {
                Err(SourceError::Find { collection: collection.to_owned(), source: driver_error() })
            }
            Fault::None | Fault::LoadFails(_) | Fault::ProbeHangs | Fault::ProbeFails => {
                self.facts.list(listing, at, deadline).await
            }
        }
    }
}
