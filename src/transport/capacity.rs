//! Places for requests that anybody may send and that can be held open: a bounded number, shared fairly between connections.
//! When all places are taken, the oldest request of the connection that holds the most places gives way to a new one, so that
//! nobody can keep others out.
//!
//! Does not know what the requests are.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::{CancellationToken, DropGuard};

/// A bounded number of places. Clones share them.
#[derive(Clone)]
pub(super) struct Capacity {
    state: Arc<Mutex<State>>,
    connection_max: usize,
    all_max: usize,
}

/// Who holds places.
#[derive(Default)]
struct State {
    /// In the order in which they were taken. Includes requests that had to give way and have not ended yet, because they
    /// still use memory.
    taken: Vec<Taken>,
    /// How many places each connection holds, without requests that had to give way. Has no zeros.
    served: HashMap<u64, usize>,
    served_total: usize,
    /// The number of the next place.
    next: u64,
}

/// A place that is taken.
struct Taken {
    place: u64,
    connection: u64,
    end: CancellationToken,
    /// Whether the request had to give way.
    is_ended: bool,
}

impl Capacity {
    /// A capacity with this many places, and this many of them for one connection.
    pub(super) fn new(connection_max: usize, all_max: usize) -> Self {
        Self { state: Arc::default(), connection_max, all_max }
    }

    /// Takes a place for a request of this connection. Returns none if the connection has all the places that it may have,
    /// or if as many requests as there are places have had to give way and have not ended yet.
    pub(super) fn enter(&self, connection: u64) -> Option<Place> {
        let mut state = self.state();
        let own = state.served.get(&connection).copied().unwrap_or(0);
        if own >= self.connection_max || state.taken.len() >= 2 * self.all_max {
            return None;
        }
        if state.served_total >= self.all_max {
            let most = state.served.values().copied().max().filter(|most| *most > own)?;
            state.end_oldest(most);
        }
        let (place, end) = (state.next, CancellationToken::new());
        state.next += 1;
        *state.served.entry(connection).or_default() += 1;
        state.served_total += 1;
        state.taken.push(Taken { place, connection, end: end.clone(), is_ended: false });
        drop(state);
        Some(Place { capacity: self.clone(), number: place, end: end.clone(), _ends: end.drop_guard() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes the oldest request of the connections that hold this many places give way.
    fn end_oldest(&mut self, most: usize) {
        let served = &self.served;
        let oldest =
            self.taken.iter_mut().find(|taken| !taken.is_ended && served.get(&taken.connection) == Some(&most));
        if let Some(oldest) = oldest {
            oldest.is_ended = true;
            oldest.end.cancel();
            let connection = oldest.connection;
            self.give_back(connection);
        }
    }

    fn give_back(&mut self, connection: u64) {
        self.served_total = self.served_total.saturating_sub(1);
        if let Entry::Occupied(mut served) = self.served.entry(connection) {
            match *served.get() {
                0 | 1 => drop(served.remove()),
                count => *served.get_mut() = count - 1,
            }
        }
    }
}

/// A place in a [`Capacity`]. Dropping it gives it back, and ends what still waits for its [`Place::end`].
pub(super) struct Place {
    capacity: Capacity,
    number: u64,
    end: CancellationToken,
    _ends: DropGuard,
}

impl Place {
    /// Is cancelled when the request has to give way, and when the place is dropped.
    pub(super) fn end(&self) -> CancellationToken {
        self.end.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.capacity.state();
        let Some(index) = state.taken.iter().position(|taken| taken.place == self.number) else { return };
        let taken = state.taken.remove(index);
        if !taken.is_ended {
            state.give_back(taken.connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_its_share_and_no_more() {
        let capacity = Capacity::new(2, 8);
        let places = [capacity.enter(1), capacity.enter(1)];
        assert!(places.iter().all(Option::is_some));
        assert!(capacity.enter(1).is_none());
        assert!(capacity.enter(2).is_some());
        drop(places);
        assert!(capacity.enter(1).is_some());
    }

    #[test]
    fn beyond_the_capacity_the_oldest_request_of_the_greediest_connection_gives_way() {
        let capacity = Capacity::new(4, 6);
        let modest = capacity.enter(1).unwrap();
        let greedy: Vec<_> = (0..4).filter_map(|_| capacity.enter(2)).collect();
        let other = capacity.enter(3).unwrap();
        let new = capacity.enter(4).unwrap();
        let ended: Vec<_> = greedy.iter().map(|place| place.end().is_cancelled()).collect();
        assert_eq!(ended, [true, false, false, false]);
        assert!(![&modest, &other, &new].iter().any(|place| place.end().is_cancelled()));
    }

    #[test]
    fn of_equals_the_oldest_request_gives_way() {
        let capacity = Capacity::new(4, 3);
        let places: Vec<_> = (0..3).map(|connection| capacity.enter(connection).unwrap()).collect();
        let _new = capacity.enter(9).unwrap();
        let ended: Vec<_> = places.iter().map(|place| place.end().is_cancelled()).collect();
        assert_eq!(ended, [true, false, false]);
    }

    /// Requests that cannot be ended, because nobody reads their responses, are not replaced without a bound.
    #[test]
    fn requests_that_do_not_end_are_bounded_too() {
        let capacity = Capacity::new(1, 4);
        let places: Vec<_> = (0..100).filter_map(|connection| capacity.enter(connection)).collect();
        assert_eq!((places.len(), capacity.state().taken.len()), (8, 8));
        drop(places);
        let state = capacity.state();
        assert!(state.taken.is_empty() && state.served.is_empty() && state.served_total == 0);
    }
}
