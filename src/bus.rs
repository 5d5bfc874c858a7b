//! The bus: how statements and hints reach those who apply them and those who watch. For now all of them are in this process.
//!
//! Finds nothing out itself: `feed` speaks, `invalidate` hints.

mod log;

use std::sync::{Arc, Mutex};

use log::{Log, lock};
pub use log::{News, Watched};

use crate::freshness::{Change, Epoch, Freshness, Moment, Statement};

/// Carries statements and hints within this process.
#[derive(Debug)]
pub struct Bus {
    freshness: Arc<Freshness>,
    log: Arc<Mutex<Log>>,
}

impl Bus {
    /// A bus to one instance.
    #[must_use]
    pub fn new(freshness: Arc<Freshness>) -> Self {
        Self { freshness, log: Arc::default() }
    }

    /// Begins to carry at a moment of which nothing is known before it.
    pub fn begin_at(&self, moment: Moment) {
        self.freshness.begin_at(moment);
        lock(&self.log).begin_at(moment, self.freshness.epoch());
    }

    /// Says what has changed, as seen in `epoch`. Who hears it by now has applied it.
    pub fn say(&self, statement: Statement, epoch: Epoch) {
        if self.freshness.hear(&statement, epoch) {
            lock(&self.log).say(statement, epoch);
        }
    }

    /// Says that this changed, as seen in `epoch`, and nothing about what else did.
    pub fn hint(&self, changes: Vec<Change>, epoch: Epoch) {
        if self.freshness.mark(&changes, epoch) {
            lock(&self.log).hint(changes);
        }
    }

    /// What changes after `since`, or from now on.
    #[must_use]
    pub fn watch(&self, since: Option<Moment>) -> Watched {
        Watched::new(&self.log, since)
    }
}
