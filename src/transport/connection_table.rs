//! The open connections of a port: how many there may be, and which one gives way to a new one.
//!
//! A connection whose client has shown no valid token cannot take the place of one whose client has. Connections that only
//! cost places, idle ones first, give way to new ones, so that nobody can keep probes and callers out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::open_connection::OpenConnection;
use crate::telemetry::RateLimitedLog;

/// How many places known clients leave to others, such as probes, at most. It is a quarter of the places where there are few.
const RESERVE_MAX: usize = 16;

/// How many places clients of whom nothing is known may take at most. The server keeps up to 256 small answers for each that
/// does not take them, some 2 KB each, so this bounds that memory to some 64 MB.
const UNKNOWN_MAX: usize = 128;

/// How long a connection on which nothing was answered is new: its client may be in the TLS handshake, or wait for its first
/// answer.
const NEW_TIME: Duration = Duration::from_secs(1);

/// How many connections are compared to find the one that gives way.
const COMPARED_MAX: usize = 1_024;

/// Limits log lines about connections that gave way.
static GAVE_WAY: RateLimitedLog = RateLimitedLog::per_second(1);

/// The open connections of a port. Clones share them.
#[derive(Clone)]
pub(super) struct ConnectionTable {
    state: Arc<Mutex<State>>,
    connections_max: usize,
}

#[derive(Default)]
struct State {
    next_id: u64,
    /// The connections on which no call was answered yet, by their numbers.
    unknown: HashMap<u64, Arc<OpenConnection>>,
    /// The others.
    known: HashMap<u64, Arc<OpenConnection>>,
}

impl ConnectionTable {
    /// A table of a port with this many places for connections.
    pub(super) fn new(connections_max: usize) -> Self {
        Self { state: Arc::default(), connections_max }
    }

    /// How many of the places may be taken by clients of whom nothing is known.
    fn unknown_max(&self) -> usize {
        self.connections_max.div_ceil(2).min(UNKNOWN_MAX)
    }

    /// Adds a connection, and closes another one if there is no place. Returns none if no other connection may be closed:
    /// then all of them are known clients' and have open requests.
    pub(super) fn add(&self) -> Option<Entry> {
        let mut state = self.state();
        let State { unknown, known, next_id } = &mut *state;
        let is_full = unknown.len() + known.len() >= self.connections_max;
        if is_full || unknown.len() >= self.unknown_max() {
            let gives_way = least_used(unknown, |_| true);
            let closed = match gives_way {
                Some(gives_way) => unknown.remove(&gives_way),
                None => least_used(known, OpenConnection::is_idle).and_then(|idle| known.remove(&idle)),
            };
            closed?.close();
            if let Some(suppressed) = GAVE_WAY.admit() {
                tracing::warn!(suppressed, "a connection gave way to a new one: MAX_CONNECTIONS is reached");
            }
        }
        let id = *next_id;
        *next_id += 1;
        let connection = OpenConnection::new(id);
        unknown.insert(id, Arc::clone(&connection));
        drop(state);
        Some(Entry { table: self.clone(), connection })
    }

    /// Notes that a connection's client is known. Returns whether known clients have a place left for it.
    pub(super) fn promote(&self, connection: &OpenConnection) -> bool {
        let mut state = self.state();
        let known_max = self.connections_max - RESERVE_MAX.min(self.connections_max / 4);
        if state.known.len() >= known_max {
            return false;
        }
        if let Some(promoted) = state.unknown.remove(&connection.id) {
            state.known.insert(connection.id, promoted);
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of the connection that gives way first: one without open requests, then one with open requests, and a new one only if
/// all are new; of those, the one that was used, or opened, the longest time ago.
fn least_used(connections: &HashMap<u64, Arc<OpenConnection>>, may: impl Fn(&OpenConnection) -> bool) -> Option<u64> {
    let compared = connections.values().filter(|connection| may(connection)).take(COMPARED_MAX);
    compared
        .min_by_key(|connection| {
            let is_new = connection.is_new(NEW_TIME);
            (is_new, !is_new && !connection.is_idle(), connection.last_used(), connection.id)
        })
        .map(|least| least.id)
}

/// A connection that has a place. Dropping it gives the place back.
pub(super) struct Entry {
    table: ConnectionTable,
    pub(super) connection: Arc<OpenConnection>,
}

impl Entry {
    pub(super) fn table(&self) -> &ConnectionTable {
        &self.table
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.table.state();
        let id = &self.connection.id;
        if state.unknown.remove(id).is_none() {
            state.known.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_closed(entry: &Entry) -> bool {
        futures::FutureExt::now_or_never(entry.connection.closed()).is_some()
    }

    fn closed(entries: &[Entry]) -> Vec<bool> {
        entries.iter().map(is_closed).collect()
    }

    #[test]
    fn clients_of_whom_nothing_is_known_take_no_more_than_their_places() {
        let table = ConnectionTable::new(1_024);
        let _entries: Vec<_> = (0..300).filter_map(|_| table.add()).collect();
        assert_eq!(table.state().unknown.len(), UNKNOWN_MAX);
    }

    #[test]
    fn the_unknown_connection_that_was_idle_the_longest_gives_way() {
        let table = ConnectionTable::new(6);
        let entries: Vec<_> = (0..3).map(|_| table.add().unwrap()).collect();
        let _busy = entries[0].connection.begin_request(false);
        for idle in &entries[1..] {
            drop(idle.connection.begin_request(false));
        }
        let _new = table.add().unwrap();
        assert_eq!(closed(&entries), [false, true, false]);
    }

    #[test]
    fn a_connection_that_is_new_does_not_give_way_to_the_next_while_others_are_not_new() {
        let table = ConnectionTable::new(6);
        let entries: Vec<_> = (0..3).map(|_| table.add().unwrap()).collect();
        for old in &entries[1..] {
            drop(old.connection.begin_request(false));
        }
        let _requests: Vec<_> = entries[1..].iter().map(|entry| entry.connection.begin_request(false)).collect();
        let _new = table.add().unwrap();
        assert_eq!(closed(&entries), [false, true, false]);
    }

    /// If idle ones gave way first, one after the other could be opened to keep those with a request. If those with a request did,
    /// connections on which nothing is sent would close every one on which something is.
    #[test]
    fn of_connections_that_are_all_new_the_oldest_gives_way_whether_or_not_it_has_an_open_request() {
        let table = ConnectionTable::new(6);
        let entries: Vec<_> = (0..3).map(|_| table.add().unwrap()).collect();
        let _request = entries[0].connection.begin_request(false);
        let _new = table.add().unwrap();
        assert_eq!(closed(&entries), [true, false, false]);
    }

    #[test]
    fn unknown_clients_cannot_take_the_places_of_known_clients() {
        let table = ConnectionTable::new(4);
        let known: Vec<_> = (0..2).map(|_| table.add().unwrap()).collect();
        assert!(known.iter().all(|entry| table.promote(&entry.connection)));
        let unknown: Vec<_> = (0..100).filter_map(|_| table.add()).collect();
        assert_eq!(closed(&known), [false, false]);
        assert_eq!(unknown.iter().filter(|entry| !is_closed(entry)).count(), 2);
    }

    #[test]
    fn known_clients_leave_a_place_to_others() {
        let table = ConnectionTable::new(4);
        let known = (0..3).map(|_| table.add().unwrap());
        let known: Vec<_> = known.inspect(|entry| assert!(table.promote(&entry.connection))).collect();
        let _requests: Vec<_> = known.iter().map(|entry| entry.connection.begin_request(false)).collect();
        for _ in 0..5 {
            let probe = table.add().expect("a place");
            assert!(!table.promote(&probe.connection));
        }
        assert_eq!(closed(&known), [false; 3]);
    }

    #[test]
    fn a_place_is_given_back() {
        let table = ConnectionTable::new(2);
        for _ in 0..5 {
            let entry = table.add().unwrap();
            table.promote(&entry.connection);
        }
        let state = table.state();
        assert_eq!((state.unknown.len(), state.known.len()), (0, 0));
    }
}
