//! The part of an instance that no safeguard changes: recording probes, raising marks and the floor, beginning an epoch.
//!
//! Uses the project's own `Probes` and `Progress`. Does not use its `Marks`, which have a million stripes: a state of the
//! model has four.

use std::time::Duration;

use permcached::freshness::{LocalTime, Moment, Probe, Probes, Progress};

use super::world::{Instance, Marks, Request, Tick};

/// The clock of an instance.
pub fn local_time(tick: Tick) -> LocalTime {
    LocalTime::after_start(Duration::from_secs(u64::from(tick)))
}

impl Instance {
    /// Point 5: records what a probe returned.
    pub fn learn(&mut self, sent: Tick, returned: Moment) {
        self.newest = self.newest.max(returned);
        self.probes.record(Probe { sent: local_time(sent), moment: returned });
    }

    /// Point 3: begins a new epoch at a moment, and discards everything known so far.
    pub fn begin_epoch(&mut self, at: Moment) {
        self.cached = None;
        self.marks = Marks::default();
        self.progress = Progress::starting_at(at);
        self.newest = at;
        self.received = Moment::default();
        self.probes = Probes::default();
    }

    /// Point 5: whether a fact that is true as of a moment is fresh enough for a request.
    pub fn is_fresh(&self, as_of: Moment, request: Request) -> bool {
        let arrived = local_time(request.arrived);
        let bound = Duration::from_secs(u64::from(request.bound));
        let fresh = self.probes.fresh_since(as_of).is_some_and(|fresh_since| arrived.since(fresh_since) <= bound);
        // The code's other test of the same must agree.
        assert_eq!(
            fresh,
            self.probes.required_moment(arrived.minus(bound)).is_some_and(|required_moment| required_moment <= as_of)
        );
        fresh
    }

    /// Point 4: raises marks, and the newest moment with them.
    pub fn mark_all(&mut self, marks: &Marks) {
        for (mark, received) in self.marks.iter_mut().zip(marks) {
            if *received > *mark {
                *mark = *received;
                self.load.iter_mut().for_each(|load| load.changed_since = true);
            }
            self.newest = self.newest.max(*received);
        }
    }

    /// Point 4: raises the floor, and the newest moment with it.
    pub fn raise_floor(&mut self, floor: Moment) {
        if floor > self.progress.floor {
            self.progress.floor = floor;
            self.load.iter_mut().for_each(|load| load.changed_since = true);
        }
        self.newest = self.newest.max(floor);
    }
}
