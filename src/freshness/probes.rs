//! Probes: what an instance knows of the source's time, by its own clock (docs/freshness.md, point 5).
//!
//! A probe that was sent at local time t and returned T proves that every write acknowledged before t has a moment of T
//! or earlier. So a fact that is true as of T is no older than t.
//!
//! Sends no probes: `source::Prober` does.

use std::{collections::VecDeque, time::Duration};

use super::{LocalTime, Moment};

/// The least distance between kept probes, except to the newest one. Dropping a probe is safe: facts then only seem older
/// than they are.
const SPACING: Duration = Duration::from_millis(20);

/// How many probes are kept: more than a minute of them.
const KEPT_MAX: usize = 4_096;

/// A probe that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// When it was sent.
    pub sent: LocalTime,
    /// The moment that it returned: it covers every write acknowledged before `sent`.
    pub moment: Moment,
}

/// The answered probes of the last minute, or of more if there were few.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Probes {
    /// Sorted: a probe that was sent later has a later moment.
    kept: VecDeque<Probe>,
}

impl Probes {
    /// Records a probe that was answered.
    pub fn record(&mut self, probe: Probe) {
        // A kept probe that was sent no earlier and returned no later moment proves at least as much.
        if self.kept.iter().any(|kept| kept.sent >= probe.sent && kept.moment <= probe.moment) {
            return;
        }
        self.kept.retain(|kept| kept.sent > probe.sent || kept.moment < probe.moment);
        let index = self.kept.partition_point(|kept| kept.sent < probe.sent);
        self.kept.insert(index, probe);
        if let [.., before, last, _] = *self.kept.make_contiguous()
            && last.sent.since(before.sent) < SPACING
        {
            self.kept.remove(self.kept.len().saturating_sub(2));
        }
        while self.kept.len() > KEPT_MAX {
            self.kept.pop_front();
        }
    }

    /// Returns a moment: a fact that is true as of it shows every write acknowledged before `since`. None if no probe sent at
    /// `since` or later was answered.
    #[must_use]
    pub fn required_moment(&self, since: LocalTime) -> Option<Moment> {
        let index = self.kept.partition_point(|kept| kept.sent < since);
        self.kept.get(index).map(|probe| probe.moment)
    }

    /// The latest known local time such that a fact true as of `moment` shows every write acknowledged before it. None if
    /// `moment` is earlier than the moments of all recorded probes.
    #[must_use]
    pub fn fresh_since(&self, moment: Moment) -> Option<LocalTime> {
        let after = self.kept.partition_point(|kept| kept.moment <= moment);
        self.kept.get(after.checked_sub(1)?).map(|probe| probe.sent)
    }

    /// The last probe that was sent at `time` or before.
    #[must_use]
    pub fn sent_before(&self, time: LocalTime) -> Option<Probe> {
        let after = self.kept.partition_point(|kept| kept.sent <= time);
        self.kept.get(after.checked_sub(1)?).copied()
    }

    /// The probe that was sent last.
    #[must_use]
    pub fn newest(&self) -> Option<Probe> {
        self.kept.back().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probe(sent: u64, moment: u64) -> Probe {
        Probe { sent: LocalTime::after_start(Duration::from_millis(sent)), moment: Moment::from_count(moment) }
    }

    proptest! {
        #[test]
        fn probes_never_promise_more_than_was_recorded(
            all in prop::collection::vec((0_u64..2_000, 0_u64..50), 0..40),
            since in 0_u64..2_000,
            moment in 0_u64..50,
        ) {
            let all: Vec<Probe> = all.into_iter().map(|(sent, moment)| probe(sent, moment)).collect();
            let mut probes = Probes::default();
            for probe in &all {
                probes.record(*probe);
            }
            let since = probe(since, 0).sent;
            let least = all.iter().filter(|probe| probe.sent >= since).map(|probe| probe.moment).min();
            // Never an earlier moment than the recorded probes require, and a moment whenever they require one.
            prop_assert!(probes.required_moment(since) >= least);
            prop_assert_eq!(probes.required_moment(since).is_some(), least.is_some());
            let moment = Moment::from_count(moment);
            let newest = all.iter().filter(|probe| probe.moment <= moment).map(|probe| probe.sent).max();
            prop_assert!(probes.fresh_since(moment) <= newest);
        }
    }

    #[test]
    fn a_moment_is_as_fresh_as_the_newest_probe_that_it_covers() {
        let mut probes = Probes::default();
        for (sent, moment) in [(0, 10), (250, 10), (500, 30), (750, 40)] {
            probes.record(probe(sent, moment));
        }
        assert_eq!(probes.fresh_since(Moment::from_count(9)), None);
        assert_eq!(probes.fresh_since(Moment::from_count(29)), Some(probe(250, 0).sent));
        assert_eq!(probes.fresh_since(Moment::from_count(99)), Some(probe(750, 0).sent));
        assert_eq!(probes.required_moment(probe(251, 0).sent), Some(Moment::from_count(30)));
        assert_eq!(probes.required_moment(probe(751, 0).sent), None);
    }
}
