//! In-flight loads, by the keys of the facts that they will bring. A request joins the load of a fact if that load is recent
//! enough for it. Otherwise its own load replaces that one, and later requests join the new load.
//!
//! It loads nothing itself. A load that breaks off releases its keys; the requests that waited for it notice that and try
//! again.

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

/// The results of a load, by key.
pub(super) type LoadResults = HashMap<FactKey, Result<CachedFact, SourceError>>;

/// Receives the results of a load when it completes. If the load breaks off, the sender is dropped without sending any.
pub(super) type ResultReceiver = watch::Receiver<Option<Arc<LoadResults>>>;

/// What a load was started for.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadParameters {
    /// The moment that the load reads as of, or later.
    pub(super) at: Moment,
    /// The epoch of that moment.
    pub(super) epoch: Epoch,
    /// When the load ends, complete or not.
    pub(super) deadline: Deadline,
    /// What the request that started the load requires. A fact that the load finds in Redis satisfies this, perhaps no
    /// more.
    pub(super) requirement: FreshnessRequirement,
}

/// The least that a load must offer to be joined, besides being of the same epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct JoinCondition {
    /// It reads as of this moment or later.
    pub(super) at: Moment,
    /// Its deadline is no earlier than this.
    pub(super) deadline: Option<Deadline>,
    /// It was started for a requirement at least as strict as this.
    pub(super) requirement: Option<FreshnessRequirement>,
}

impl JoinCondition {
    fn is_met_by(&self, load: &LoadParameters) -> bool {
        let is_met = |requirement: FreshnessRequirement| {
            load.requirement.as_of >= requirement.as_of && load.requirement.stamp >= requirement.stamp
        };
        load.at >= self.at
            && self.deadline.is_none_or(|deadline| load.deadline >= deadline)
            && self.requirement.is_none_or(is_met)
    }
}

/// The loads in flight, by the keys of the facts that they will bring.
#[derive(Debug, Default)]
pub(super) struct InFlightLoads {
    loads: DashMap<FactKey, InFlightLoad, foldhash::fast::RandomState>,
    next_id: AtomicU64,
}

/// A load that other requests may join.
#[derive(Clone, Debug)]
struct InFlightLoad {
    id: u64,
    parameters: LoadParameters,
    result_receiver: ResultReceiver,
}

impl InFlightLoads {
    /// A loader without keys yet: [`Loader::claim`] gives it those that it is to load.
    pub(super) fn prepare(self: &Arc<Self>, parameters: LoadParameters) -> Loader {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (result_sender, result_receiver) = watch::channel(None);
        let load = InFlightLoad { id, parameters, result_receiver };
        Loader { in_flight: Arc::clone(self), load, result_sender, claimed: Vec::new() }
    }

    /// Releases a key, unless a newer load has claimed it since.
    fn release(&self, key: &FactKey, id: u64) {
        self.loads.remove_if(key, |_, load| load.id == id);
    }
}

/// Whether a request loads a fact itself or waits for another load.
pub(super) enum Role {
    /// The request loads the fact: its loader has claimed the key.
    Loader,
    /// The request joins a load that is in flight.
    Waiter {
        /// Identifies that load.
        load_id: u64,
        /// Receives its results.
        result_receiver: ResultReceiver,
    },
}

/// Loads the facts of the keys that it has claimed. Releases them when it is dropped.
pub(super) struct Loader {
    in_flight: Arc<InFlightLoads>,
    load: InFlightLoad,
    result_sender: watch::Sender<Option<Arc<LoadResults>>>,
    claimed: Vec<FactKey>,
}

impl Loader {
    /// Joins the load of a fact if it is of the same epoch and meets the condition, or else claims the key for this loader.
    pub(super) fn claim(&mut self, key: &FactKey, condition: JoinCondition) -> Role {
        match self.in_flight.loads.entry(key.clone()) {
            Entry::Occupied(entry) if self.may_join(&entry.get().parameters, condition) => {
                let InFlightLoad { id, result_receiver, .. } = entry.get().clone();
                return Role::Waiter { load_id: id, result_receiver };
            }
            // Requests that joined the replaced load still receive its results.
            Entry::Occupied(mut entry) => drop(entry.insert(self.load.clone())),
            Entry::Vacant(entry) => drop(entry.insert(self.load.clone())),
        }
        self.claimed.push(key.clone());
        Role::Loader
    }

    fn may_join(&self, other: &LoadParameters, condition: JoinCondition) -> bool {
        other.epoch == self.load.parameters.epoch && condition.is_met_by(other)
    }

    /// Gives up a claimed key: it need not be loaded after all.
    pub(super) fn release(&mut self, key: &FactKey) {
        self.in_flight.release(key, self.load.id);
        self.claimed.retain(|claimed| claimed != key);
    }

    /// Receives the results of this loader.
    pub(super) fn result_receiver(&self) -> ResultReceiver {
        self.load.result_receiver.clone()
    }

    /// Releases all keys and sends the results. The loaded facts are cached by now, so that later requests find them there.
    pub(super) fn complete(mut self, results: LoadResults) {
        self.release_all();
        let _nobody_waits = self.result_sender.send(Some(Arc::new(results)));
    }

    fn release_all(&mut self) {
        for key in self.claimed.drain(..) {
            self.in_flight.release(&key, self.load.id);
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
    fn a_load_is_joined_only_if_it_meets_the_condition() {
        let in_flight = Arc::new(InFlightLoads::default());
        let key = FactKey::whole(LookupId(0), Id::Integer(1));
        let (soon, late) = (Deadline::after(Duration::from_secs(1)), Deadline::after(Duration::from_secs(9)));
        let requirement = |as_of, stamp| FreshnessRequirement { as_of: at(as_of), stamp: at(stamp) };
        let load = LoadParameters { at: at(10), epoch: Epoch(0), deadline: soon, requirement: requirement(7, 3) };
        let mut first = in_flight.prepare(load);
        let condition = |moment, deadline| JoinCondition { at: at(moment), deadline, requirement: None };
        assert!(matches!(first.claim(&key, condition(10, None)), Role::Loader));
        let is_joined = |epoch, condition| {
            let requirement = FreshnessRequirement::default();
            let mut next = in_flight.prepare(LoadParameters { at: at(20), epoch, deadline: late, requirement });
            let is_joined = matches!(next.claim(&key, condition), Role::Waiter { .. });
            // Puts the first load back in its place.
            next.release(&key);
            first.in_flight.loads.insert(key.clone(), first.load.clone());
            is_joined
        };
        assert!(is_joined(Epoch(0), condition(10, None)));
        assert!(!is_joined(Epoch(0), condition(11, None)), "it reads an earlier moment");
        assert!(!is_joined(Epoch(1), condition(5, None)), "its moments belong to another epoch");
        assert!(is_joined(Epoch(0), condition(10, Some(soon))));
        assert!(!is_joined(Epoch(0), condition(10, Some(late))), "its deadline is earlier");
        let started_for = |requirement| JoinCondition { requirement: Some(requirement), ..condition(10, None) };
        assert!(is_joined(Epoch(0), started_for(requirement(7, 3))));
        assert!(!is_joined(Epoch(0), started_for(requirement(8, 3))), "it was started for an earlier moment");
        assert!(!is_joined(Epoch(0), started_for(requirement(7, 4))), "it was started for another subject");
    }
}
