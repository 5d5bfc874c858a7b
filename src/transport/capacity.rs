//! Places for requests that anybody may send and that can be held open: a bounded number, shared fairly between connections.
//! When all places are taken, the oldest request of the connection that holds the most places gives way to a new one, so that
//! nobody can keep others out. Connections whose clients are known have places of their own, so that clients of whom nothing is
//! known cannot end their requests; among themselves, only a connection that holds more than its share gives way.
//!
//! Does not know what the requests are.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::open_connection::OpenConnection;

/// A bounded number of places. Clones share them.
#[derive(Clone)]
pub(super) struct Capacity {
    state: Arc<Mutex<State>>,
    connection_max: usize,
    /// The places of connections of whom nothing is known, and of the others.
    unknown_max: usize,
    known_max: usize,
}

/// Who holds places.
#[derive(Default)]
struct State {
    /// In the order in which they were taken. Includes requests that had to give way and have not ended yet, because they
    /// still use memory.
    taken: Vec<Taken>,
    /// The number of the next place.
    next: u64,
}

/// A place that is taken.
struct Taken {
    place: u64,
    connection: Arc<OpenConnection>,
    end: CancellationToken,
    /// Whether the request had to give way.
    is_ended: bool,
}

impl Capacity {
    /// A capacity with this many places for each connection, and for all connections of whom nothing is known, and for all others.
    pub(super) fn new(connection_max: usize, unknown_max: usize, known_max: usize) -> Self {
        Self { state: Arc::default(), connection_max, unknown_max, known_max }
    }

    /// Takes a place for a request of this connection. Returns none if the connection has all the places that it may have, or if
    /// nobody has to give way to it; or if as many requests as there are places have had to give way and have not ended yet.
    pub(super) fn enter(&self, connection: &Arc<OpenConnection>) -> Option<Place> {
        let mut state = self.state();
        let is_known = connection.is_known();
        let (places, most_allowed) = if is_known { (self.known_max, 1) } else { (self.unknown_max, 0) };
        // A connection becomes known while it holds places, so it is asked for each of them.
        let mut served = HashMap::<u64, usize>::new();
        let alike = |taken: &&Taken| taken.connection.is_known() == is_known;
        for taken in state.taken.iter().filter(alike).filter(|taken| !taken.is_ended) {
            *served.entry(taken.connection.id).or_default() += 1;
        }
        let own = served.get(&connection.id).copied().unwrap_or(0);
        let all = state.taken.iter().filter(alike).count();
        let all_max = 2 * (self.unknown_max + self.known_max);
        if own >= self.connection_max || all >= 2 * places || state.taken.len() >= all_max {
            return None;
        }
        if served.values().sum::<usize>() >= places {
            let most = served.values().copied().max().filter(|most| *most > own + most_allowed)?;
            let gives_way = |taken: &&mut Taken| !taken.is_ended && served.get(&taken.connection.id) == Some(&most);
            let oldest = state.taken.iter_mut().find(gives_way)?;
            oldest.is_ended = true;
            oldest.end.cancel();
        }
        let (place, end) = (state.next, CancellationToken::new());
        state.next += 1;
        state.taken.push(Taken { place, connection: Arc::clone(connection), end: end.clone(), is_ended: false });
        drop(state);
        Some(Place { capacity: self.clone(), number: place, end: end.clone(), _ends: end.drop_guard() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.capacity.state().taken.retain(|taken| taken.place != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections with these numbers.
    fn unknown(ids: impl IntoIterator<Item = u64>) -> Vec<Arc<OpenConnection>> {
        ids.into_iter().map(OpenConnection::new).collect()
    }

    fn known(ids: impl IntoIterator<Item = u64>) -> Vec<Arc<OpenConnection>> {
        unknown(ids).into_iter().inspect(|connection| assert!(connection.set_known())).collect()
    }

    fn enter(capacity: &Capacity, connection: &Arc<OpenConnection>, count: usize) -> Vec<Place> {
        (0..count).filter_map(|_| capacity.enter(connection)).collect()
    }

    fn ended(places: &[Place]) -> Vec<bool> {
        places.iter().map(|place| place.end().is_cancelled()).collect()
    }

    #[test]
    fn a_connection_has_its_share_and_no_more() {
        let capacity = Capacity::new(2, 8, 8);
        let connections = unknown([1, 2]);
        let places = enter(&capacity, &connections[0], 3);
        assert_eq!(places.len(), 2);
        assert!(capacity.enter(&connections[1]).is_some());
        drop(places);
        assert!(capacity.enter(&connections[0]).is_some());
    }

    #[test]
    fn beyond_the_capacity_the_oldest_request_of_the_greediest_connection_gives_way() {
        let capacity = Capacity::new(4, 6, 6);
        let connections = unknown(1..=4);
        let modest = enter(&capacity, &connections[0], 1);
        let greedy = enter(&capacity, &connections[1], 4);
        let others: Vec<_> = connections.iter().skip(2).map(|connection| capacity.enter(connection).unwrap()).collect();
        assert_eq!(ended(&greedy), [true, false, false, false]);
        assert_eq!((ended(&modest), ended(&others)), (vec![false], vec![false; 2]));
    }

    #[test]
    fn of_equals_the_oldest_request_gives_way() {
        let capacity = Capacity::new(4, 3, 3);
        let connections = unknown(0..4);
        let places: Vec<_> = connections.iter().take(3).map(|connection| capacity.enter(connection).unwrap()).collect();
        let _new = capacity.enter(&connections[3]).unwrap();
        assert_eq!(ended(&places), [true, false, false]);
    }

    #[test]
    fn known_connections_end_requests_neither_of_equals_nor_of_unknown_ones_and_the_reverse() {
        let capacity = Capacity::new(4, 3, 3);
        let (others, callers) = (unknown(0..9), known(10..19));
        let of_others: Vec<_> = others.iter().take(3).map(|connection| capacity.enter(connection).unwrap()).collect();
        let of_callers: Vec<_> = callers.iter().take(3).map(|connection| capacity.enter(connection).unwrap()).collect();
        assert!(capacity.enter(&callers[3]).is_none(), "all have one");
        assert_eq!((ended(&of_others), ended(&of_callers)), (vec![false; 3], vec![false; 3]));
        let _more: Vec<_> =
            others.iter().skip(3).take(3).map(|connection| capacity.enter(connection).unwrap()).collect();
        assert_eq!((ended(&of_others), ended(&of_callers)), (vec![true; 3], vec![false; 3]));
    }

    #[test]
    fn a_known_connection_that_holds_more_than_its_share_gives_way() {
        let capacity = Capacity::new(4, 3, 4);
        let callers = known([1, 2, 3]);
        let greedy = enter(&capacity, &callers[0], 3);
        let modest = enter(&capacity, &callers[1], 1);
        assert!(capacity.enter(&callers[2]).is_some());
        assert_eq!((ended(&greedy), ended(&modest)), (vec![true, false, false], vec![false]));
    }

    /// As a client with health checking does: it waits for its health before its first call.
    #[test]
    fn a_connection_that_becomes_known_keeps_what_it_has_and_takes_no_place_of_unknown_ones_any_more() {
        let capacity = Capacity::new(1, 2, 100);
        let connections = unknown(0..50);
        let mut places = Vec::new();
        for connection in &connections {
            places.push(capacity.enter(connection).unwrap());
            connection.set_known();
        }
        assert_eq!(ended(&places), [false; 50]);
    }

    /// Requests that cannot be ended, because nobody reads their responses, are not replaced without a bound.
    #[test]
    fn requests_that_do_not_end_are_bounded_too() {
        let capacity = Capacity::new(1, 4, 2);
        let connections = unknown(0..100);
        let places: Vec<_> = connections.iter().filter_map(|connection| capacity.enter(connection)).collect();
        assert_eq!((places.len(), capacity.state().taken.len()), (8, 8));
        drop(places);
        assert!(capacity.state().taken.is_empty());
    }
}
