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
    fact::{Fact, FactKey},
    freshness::Moment,
    source::SourceError,
};

/// What a flight brought.
pub(super) type Landed = HashMap<FactKey, Result<Fact, SourceError>>;

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
    landing: Landing,
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
    /// A flight that will read as of `at`.
    pub(super) fn prepare(self: &Arc<Self>, at: Moment) -> Flight {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (sender, landing) = watch::channel(None);
        let boarding = Boarding { number, at, landing };
        Flight { flights: Arc::clone(self), boarding, landing: sender, seats: Vec::new() }
    }

    fn free(&self, key: &FactKey, number: u64) {
        self.seats.remove_if(key, |_, boarding| boarding.number == number);
    }
}

impl Flight {
    /// Finds who brings a fact as of `least` or later: a flight under way, or else this one.
    pub(super) fn take_seat(&mut self, key: &FactKey, least: Moment) -> Seat {
        match self.flights.seats.entry(key.clone()) {
            Entry::Occupied(taken) if taken.get().at >= least => {
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
