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
    facts::{Held, Need},
    freshness::{Epoch, Moment},
    source::{Deadline, SourceError},
};

/// What a flight brought.
pub(super) type Landed = HashMap<FactKey, Result<Held, SourceError>>;

/// Tells when a flight has landed, and what it brought.
pub(super) type Landing = watch::Receiver<Option<Arc<Landed>>>;

/// The flights that are under way, by what they will bring.
#[derive(Debug, Default)]
pub(super) struct Flights {
    seats: DashMap<FactKey, Boarding, foldhash::fast::RandomState>,
    numbers: AtomicU64,
}

/// A flight that may be joined.
#[derive(Clone, Debug)]
struct Boarding {
    number: u64,
    /// X: the moment as of which, or later, it reads.
    at: Moment,
    /// Which history that is a moment of.
    epoch: Epoch,
    /// When its time is up.
    deadline: Deadline,
    /// What was needed of the facts by who started it: what it finds in Redis will do for that, and perhaps for no more.
    need: Need,
    landing: Landing,
}

/// What a flight must be to be joined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fare {
    /// It reads as of this moment or later.
    pub(super) at: Moment,
    /// Its time is not up earlier.
    pub(super) deadline: Option<Deadline>,
    /// Who started it needed as much.
    pub(super) need: Option<Need>,
}

/// Who brings a fact.
pub(super) enum Seat {
    /// The flight that asked.
    Own,
    /// Another one, which is under way.
    Joined {
        /// Which one.
        number: u64,
        /// When it has landed.
        landing: Landing,
    },
}

/// A flight. Frees its seats when it is dropped.
pub(super) struct Flight {
    flights: Arc<Flights>,
    boarding: Boarding,
    landing: watch::Sender<Option<Arc<Landed>>>,
    seats: Vec<FactKey>,
}

impl Flights {
    /// A flight that will read as of `at`, in `epoch`, for who has this need.
    pub(super) fn prepare(self: &Arc<Self>, at: Moment, epoch: Epoch, deadline: Deadline, need: Need) -> Flight {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (sender, landing) = watch::channel(None);
        let boarding = Boarding { number, at, epoch, deadline, need, landing };
        Flight { flights: Arc::clone(self), boarding, landing: sender, seats: Vec::new() }
    }

    fn free(&self, key: &FactKey, number: u64) {
        self.seats.remove_if(key, |_, boarding| boarding.number == number);
    }
}

impl Boarding {
    fn will_do(&self, least: Fare, epoch: Epoch) -> bool {
        let has_need = |need: Need| self.need.as_of >= need.as_of && self.need.stamp >= need.stamp;
        self.epoch == epoch
            && self.at >= least.at
            && least.deadline.is_none_or(|deadline| self.deadline >= deadline)
            && least.need.is_none_or(has_need)
    }
}

impl Flight {
    /// Finds who brings a fact: a flight under way of the same history that will do, or else this one.
    pub(super) fn take_seat(&mut self, key: &FactKey, least: Fare) -> Seat {
        match self.flights.seats.entry(key.clone()) {
            Entry::Occupied(taken) if taken.get().will_do(least, self.boarding.epoch) => {
                let Boarding { number, landing, .. } = taken.get().clone();
                Seat::Joined { number, landing }
            }
            // Who waits for the older flight still gets what it brings.
            Entry::Occupied(mut taken) => {
                taken.insert(self.boarding.clone());
                self.seats.push(key.clone());
                Seat::Own
            }
            Entry::Vacant(free) => {
                free.insert(self.boarding.clone());
                self.seats.push(key.clone());
                Seat::Own
            }
        }
    }

    /// Will not bring it after all.
    pub(super) fn leave_seat(&mut self, key: &FactKey) {
        self.flights.free(key, self.boarding.number);
        self.seats.retain(|seat| seat != key);
    }

    /// When it has landed.
    pub(super) fn landing(&self) -> Landing {
        self.boarding.landing.clone()
    }

    /// Has landed. What it brought is remembered by now, so that who comes later finds it there.
    pub(super) fn land(mut self, landed: Landed) {
        self.free_seats();
        let _nobody_waits = self.landing.send(Some(Arc::new(landed)));
    }

    fn free_seats(&mut self) {
        for seat in self.seats.drain(..) {
            self.flights.free(&seat, self.boarding.number);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.free_seats();
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
        let flights = Arc::new(Flights::default());
        let key = FactKey { lookup: LookupId(0), id: Id::Integer(1) };
        let (soon, late) = (Deadline::after(Duration::from_secs(1)), Deadline::after(Duration::from_secs(9)));
        let need = |as_of, stamp| Need { as_of: at(as_of), stamp: at(stamp) };
        let mut first = flights.prepare(at(10), Epoch(0), soon, need(7, 3));
        let fare = |moment, deadline| Fare { at: at(moment), deadline, need: None };
        assert!(matches!(first.take_seat(&key, fare(10, None)), Seat::Own));
        let is_joined = |epoch, fare| {
            let mut next = flights.prepare(at(20), epoch, late, Need::default());
            let is_joined = matches!(next.take_seat(&key, fare), Seat::Joined { .. });
            // As it was.
            next.leave_seat(&key);
            first.flights.seats.insert(key.clone(), first.boarding.clone());
            is_joined
        };
        assert!(is_joined(Epoch(0), fare(10, None)));
        assert!(!is_joined(Epoch(0), fare(11, None)), "it reads an earlier moment");
        assert!(!is_joined(Epoch(1), fare(5, None)), "its moments are of another history");
        assert!(is_joined(Epoch(0), fare(10, Some(soon))));
        assert!(!is_joined(Epoch(0), fare(10, Some(late))), "its time is up earlier");
        let needing = |need| Fare { need: Some(need), ..fare(10, None) };
        assert!(is_joined(Epoch(0), needing(need(7, 3))));
        assert!(!is_joined(Epoch(0), needing(need(8, 3))), "it was started for less");
        assert!(!is_joined(Epoch(0), needing(need(7, 4))), "it was started for another subject");
    }
}
