//! Flights: loads that are under way, so that a fact is loaded once however many wait for it.
//!
//! Loads nothing itself. A flight that breaks off frees its seats; those who waited see that, and ask again.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::{DashMap, Entry};
use tokio::sync::watch;

use crate::{
    fact::FactKey,
    facts::{CachedFact, FreshnessRequirement},
    freshness::{Epoch, Moment},
    source::{Deadline, SourceError},
};

/// What a flight brought.
pub(super) type LoadResults = HashMap<FactKey, Result<CachedFact, SourceError>>;

/// Tells when a flight has landed, and what it brought.
pub(super) type ResultReceiver = watch::Receiver<Option<Arc<LoadResults>>>;

/// The flights that are under way, by what they will bring.
#[derive(Debug, Default)]
pub(super) struct InFlightLoads {
    loads: DashMap<FactKey, InFlightLoad, foldhash::fast::RandomState>,
    numbers: AtomicU64,
}

/// A flight that may be joined.
#[derive(Clone, Debug)]
struct InFlightLoad {
    number: u64,
    /// X: the moment as of which, or later, it reads.
    at: Moment,
    /// Which history that is a moment of.
    epoch: Epoch,
    /// When its time is up.
    deadline: Deadline,
    /// What was needed of the facts by who started it: what it finds in Redis will do for that, and perhaps for no more.
    requirement: FreshnessRequirement,
    result_receiver: ResultReceiver,
}

/// What a flight must be to be joined.
#[derive(Clone, Copy, Debug)]
pub(super) struct JoinCondition {
    /// It reads as of this moment or later.
    pub(super) at: Moment,
    /// Its time is not up earlier.
    pub(super) deadline: Option<Deadline>,
    /// Who started it needed as much.
    pub(super) requirement: Option<FreshnessRequirement>,
}

/// Who brings a fact.
pub(super) enum Role {
    /// The flight that asked.
    Own,
    /// Another one, which is under way.
    Joined {
        /// Which one.
        number: u64,
        /// When it has landed.
        result_receiver: ResultReceiver,
    },
}

/// A flight. Frees its seats when it is dropped.
pub(super) struct Loader {
    in_flight: Arc<InFlightLoads>,
    load: InFlightLoad,
    result_receiver: watch::Sender<Option<Arc<LoadResults>>>,
    loads: Vec<FactKey>,
}

impl InFlightLoads {
    /// A flight that will read as of `at`, in `epoch`, for who has this need.
    pub(super) fn prepare(
        self: &Arc<Self>,
        at: Moment,
        epoch: Epoch,
        deadline: Deadline,
        requirement: FreshnessRequirement,
    ) -> Loader {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (sender, result_receiver) = watch::channel(None);
        let load = InFlightLoad { number, at, epoch, deadline, requirement, result_receiver };
        Loader { in_flight: Arc::clone(self), load, result_receiver: sender, loads: Vec::new() }
    }

    fn free(&self, key: &FactKey, number: u64) {
        self.loads.remove_if(key, |_, load| load.number == number);
    }
}

impl InFlightLoad {
    fn satisfies(&self, least: JoinCondition, epoch: Epoch) -> bool {
        let has_need = |requirement: FreshnessRequirement| {
            self.requirement.as_of >= requirement.as_of && self.requirement.stamp >= requirement.stamp
        };
        self.epoch == epoch
            && self.at >= least.at
            && least.deadline.is_none_or(|deadline| self.deadline >= deadline)
            && least.requirement.is_none_or(has_need)
    }
}

impl Loader {
    /// Finds who brings a fact: a flight under way of the same history that will do, or else this one.
    pub(super) fn claim(&mut self, key: &FactKey, least: JoinCondition) -> Role {
        match self.in_flight.loads.entry(key.clone()) {
            Entry::Occupied(taken) if taken.get().satisfies(least, self.load.epoch) => {
                let InFlightLoad { number, result_receiver, .. } = taken.get().clone();
                Role::Joined { number, result_receiver }
            }
            // Who waits for the older flight still gets what it brings.
            Entry::Occupied(mut taken) => {
                taken.insert(self.load.clone());
                self.loads.push(key.clone());
                Role::Own
            }
            Entry::Vacant(free) => {
                free.insert(self.load.clone());
                self.loads.push(key.clone());
                Role::Own
            }
        }
    }

    /// Will not bring it after all.
    pub(super) fn release(&mut self, key: &FactKey) {
        self.in_flight.free(key, self.load.number);
        self.loads.retain(|claimed| claimed != key);
    }

    /// When it has landed.
    pub(super) fn result_receiver(&self) -> ResultReceiver {
        self.load.result_receiver.clone()
    }

    /// Has landed. What it brought is remembered by now, so that who comes later finds it there.
    pub(super) fn complete(mut self, results: LoadResults) {
        self.release_all();
        let _nobody_waits = self.result_receiver.send(Some(Arc::new(results)));
    }

    fn release_all(&mut self) {
        for key in self.loads.drain(..) {
            self.in_flight.free(&key, self.load.number);
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.release_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::question::{Id, LookupId};

    fn at(count: u64) -> Moment {
        Moment::from_count(count)
    }

    #[test]
    fn a_flight_is_joined_only_by_those_for_whom_it_will_do() {
        let in_flight = Arc::new(InFlightLoads::default());
        let key = FactKey { lookup: LookupId(0), id: Id::Integer(1) };
        let (soon, late) = (Deadline::after(Duration::from_secs(1)), Deadline::after(Duration::from_secs(9)));
        let requirement = |as_of, stamp| FreshnessRequirement { as_of: at(as_of), stamp: at(stamp) };
        let mut first = in_flight.prepare(at(10), Epoch(0), soon, requirement(7, 3));
        let condition = |moment, deadline| JoinCondition { at: at(moment), deadline, requirement: None };
        assert!(matches!(first.claim(&key, condition(10, None)), Role::Own));
        let is_joined = |epoch, condition| {
            let mut next = in_flight.prepare(at(20), epoch, late, FreshnessRequirement::default());
            let is_joined = matches!(next.claim(&key, condition), Role::Joined { .. });
            // As it was.
            next.release(&key);
            first.in_flight.loads.insert(key.clone(), first.load.clone());
            is_joined
        };
        assert!(is_joined(Epoch(0), condition(10, None)));
        assert!(!is_joined(Epoch(0), condition(11, None)), "it reads an earlier moment");
        assert!(!is_joined(Epoch(1), condition(5, None)), "its moments are of another history");
        assert!(is_joined(Epoch(0), condition(10, Some(soon))));
        assert!(!is_joined(Epoch(0), condition(10, Some(late))), "its time is up earlier");
        let needing = |requirement| JoinCondition { requirement: Some(requirement), ..condition(10, None) };
        assert!(is_joined(Epoch(0), needing(requirement(7, 3))));
        assert!(!is_joined(Epoch(0), needing(requirement(8, 3))), "it was started for less");
        assert!(!is_joined(Epoch(0), needing(requirement(7, 4))), "it was started for another subject");
    }
}
