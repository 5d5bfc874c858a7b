//! What an instance does with what it learns, whatever the safeguards: probes, marks and the floor.
//!
//! The probes are the project's own code, and so is `Progress`. The marks are not: those have a million stripes, and a state has
//! room for four.

use std::time::Duration;

use permcached::freshness::{LocalTime, Moment, Probe, Probes, Progress};

use super::world::{Instance, Marks, Request, Tick};

/// The clock of an instance.
pub fn local_time(tick: Tick) -> LocalTime {
    LocalTime::after_start(Duration::from_secs(u64::from(tick)))
}

impl Instance {
    /// Point 5: takes in what a probe returned.
    pub fn learn(&mut self, sent: Tick, returned: Moment) {
        self.newest = self.newest.max(returned);
        self.probes.record(Probe { sent: local_time(sent), moment: returned });
    }

    /// Point 3: begins again at a moment, as though nothing had been before.
    pub fn begin_again(&mut self, at: Moment) {
        self.remembered = None;
        self.marks = Marks::default();
        self.progress = Progress::starting_at(at);
        self.newest = at;
        self.probes = Probes::default();
    }

    /// Point 5: whether what is true as of a moment is fresh enough for a request.
    pub fn is_fresh(&self, as_of: Moment, request: Request) -> bool {
        let arrived = local_time(request.arrived);
        let bound = Duration::from_secs(u64::from(request.bound));
        let fresh = self.probes.fresh_since(as_of).is_some_and(|fresh_since| arrived.since(fresh_since) <= bound);
        // The other way to put the question.
        assert_eq!(
            fresh,
            self.probes.required_moment(arrived.minus(bound)).is_some_and(|required_moment| required_moment <= as_of)
        );
        fresh
    }

    /// Point 4: raises marks, and X with them.
    pub fn mark_all(&mut self, marks: &Marks) {
        for (mark, heard) in self.marks.iter_mut().zip(marks) {
            if *heard > *mark {
                *mark = *heard;
                self.flight.iter_mut().for_each(|flight| flight.heard_since = true);
            }
            self.newest = self.newest.max(*heard);
        }
    }

    /// Point 4: raises the floor, and X with it.
    pub fn raise_floor(&mut self, floor: Moment) {
        if floor > self.progress.floor {
            self.progress.floor = floor;
            self.flight.iter_mut().for_each(|flight| flight.heard_since = true);
        }
        self.newest = self.newest.max(floor);
    }
}
