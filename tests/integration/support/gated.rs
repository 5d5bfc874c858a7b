//! MongoDB as the source, with a gate: loads that have read wait before they hand over what they read, as where the
//! process is held up just then. Other loads may be made to panic.
//!
//! The reading itself, and its moments, are MongoDB's.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use permcached::{
    fact::{Fact, FactKey},
    freshness::{Clock, Moment},
    question::{CollectionId, Id},
    source::{Deadline, Source, SourceError, mongodb::MongoDb},
};
use tokio::sync::{Semaphore, watch};

use super::live::in_the_end;

/// What becomes of a load that comes while the gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It reads, and waits.
    Waits,
    /// It waits, and panics.
    Panics,
}

/// MongoDB behind a gate.
pub struct Gated {
    mongodb: Arc<MongoDb>,
    /// How many loads the gate is still closed for, and what becomes of them.
    closed: Mutex<(usize, Closed)>,
    waiting: watch::Sender<usize>,
    opened: Semaphore,
    loads: AtomicUsize,
}

impl Gated {
    pub fn new(mongodb: MongoDb) -> Arc<Self> {
        let closed = Mutex::new((0, Closed::Waits));
        let (waiting, opened) = (watch::Sender::new(0), Semaphore::new(0));
        Arc::new(Self { mongodb: Arc::new(mongodb), closed, waiting, opened, loads: AtomicUsize::new(0) })
    }

    /// What is behind the gate.
    pub fn mongodb(&self) -> Arc<MongoDb> {
        Arc::clone(&self.mongodb)
    }

    /// Closes the gate for the next loads.
    pub fn close(&self, loads: usize, closed: Closed) {
        *self.closed.lock().expect("no panic before") = (loads, closed);
    }

    /// Waits until so many loads stand at the gate.
    pub async fn wait_for(&self, loads: usize) {
        let mut waiting = self.waiting.subscribe();
        in_the_end(waiting.wait_for(|waiting| *waiting >= loads)).await.expect("the gate is there");
    }

    /// Lets one of them pass.
    pub fn open(&self) {
        self.opened.add_permits(1);
    }

    /// How many loads there were.
    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }

    fn take_turn(&self) -> Option<Closed> {
        let mut closed = self.closed.lock().expect("no panic before");
        closed.0 = closed.0.checked_sub(1)?;
        Some(closed.1)
    }
}

#[async_trait]
impl Source for Gated {
    fn clock(&self) -> Clock {
        self.mongodb.clock()
    }

    async fn probe(&self, deadline: Deadline) -> Result<Moment, SourceError> {
        self.mongodb.probe(deadline).await
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let Some(closed) = self.take_turn() else { return self.mongodb.load(keys, at, deadline).await };
        let loaded = self.mongodb.load(keys, at, deadline).await;
        self.waiting.send_modify(|waiting| *waiting += 1);
        self.opened.acquire().await.expect("never closed").forget();
        assert_eq!(closed, Closed::Waits, "on purpose");
        loaded
    }

    async fn keys_of(
        &self,
        collection: CollectionId,
        ids: Vec<Id>,
        at: Moment,
        deadline: Deadline,
    ) -> Result<Vec<FactKey>, SourceError> {
        self.mongodb.keys_of(collection, ids, at, deadline).await
    }
}
