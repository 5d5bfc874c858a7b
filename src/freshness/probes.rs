//! Probes: what an instance knows of the source's time, by its own clock (design section 5, point 5).
//!
//! A probe sent at local time t that returned T says: whatever was acknowledged before t has a moment of T or earlier. So who
//! has seen everything up to T is no older than t.

use std::{collections::VecDeque, time::Duration};

use super::{LocalTime, Moment};

/// How far apart the probes are that are kept, the newest one apart. Leaving one out only makes answers fresher.
const SPACING: Duration = Duration::from_millis(20);

/// How many are kept: more than a minute of them.
const KEPT_MAX: usize = 4_096;

/// A probe that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// When it was sent.
    pub sent: LocalTime,
    /// What it returned: a moment that covers every write acknowledged before that.
    pub moment: Moment,
}

/// The probes of the last minute, or as far back as they go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Probes {
    /// Later ones have later moments.
    kept: VecDeque<Probe>,
}

impl Probes {
    /// Takes in a probe that was answered.
    pub fn record(&mut self, probe: Probe) {
        // One that was sent later and saw no more is the better one.
        if self.kept.iter().any(|kept| kept.sent >= probe.sent && kept.moment <= probe.moment) {
            return;
        }
        self.kept.retain(|kept| kept.sent > probe.sent || kept.moment < probe.moment);
        let place = self.kept.partition_point(|kept| kept.sent < probe.sent);
        self.kept.insert(place, probe);
        if let [.., before, last, _] = *self.kept.make_contiguous()
            && last.sent.since(before.sent) < SPACING
        {
            self.kept.remove(self.kept.len().saturating_sub(2));
        }
        while self.kept.len() > KEPT_MAX {
            self.kept.pop_front();
        }
    }

    /// The moment that a fact must be true as of to be no older than `since`; none if no probe was sent since then.
    #[must_use]
    pub fn required_moment(&self, since: LocalTime) -> Option<Moment> {
        let place = self.kept.partition_point(|kept| kept.sent < since);
        self.kept.get(place).map(|probe| probe.moment)
    }

    /// The local time that a fact as of this moment is no older than; none if the moment is older than all probes.
    #[must_use]
    pub fn fresh_since(&self, moment: Moment) -> Option<LocalTime> {
        let after = self.kept.partition_point(|kept| kept.moment <= moment);
        self.kept.get(after.checked_sub(1)?).map(|probe| probe.sent)
    }

    /// The last one that was sent at this time or before.
    #[must_use]
    pub fn sent_before(&self, time: LocalTime) -> Option<Probe> {
        let after = self.kept.partition_point(|kept| kept.sent <= time);
        self.kept.get(after.checked_sub(1)?).copied()
    }

    /// The one that was sent last.
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
        fn nothing_is_promised_that_the_probes_do_not_say(
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
            // Never less than the probes say; and something, where they say something.
            prop_assert!(probes.required_moment(since) >= least);
            prop_assert_eq!(probes.required_moment(since).is_some(), least.is_some());
            let moment = Moment::from_count(moment);
            let newest = all.iter().filter(|probe| probe.moment <= moment).map(|probe| probe.sent).max();
            prop_assert!(probes.fresh_since(moment) <= newest);
        }
    }

    #[test]
    fn a_moment_is_worth_the_newest_probe_that_it_covers() {
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
