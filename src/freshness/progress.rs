//! Progress: the watermark and the floor, and how a change batch moves them (docs/freshness.md, point 3).
//!
//! Knows nothing of marks: its caller sets those of a change batch first.

use super::Moment;

/// How far an instance has applied changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// The moment up to which every change later than the floor has been marked.
    pub watermark: Moment,
    /// Facts with an earlier stamp do not count.
    pub floor: Moment,
}

impl Progress {
    /// The progress of an instance that has applied nothing yet: facts with a stamp of `at` or later count.
    #[must_use]
    pub fn starting_at(at: Moment) -> Self {
        Self { watermark: at, floor: at }
    }

    /// The progress after a change batch of (from, to], once its changes have been marked. If `from` is later than the
    /// watermark, changes in between were missed. Facts with a stamp before `from` then no longer count; later facts have
    /// seen what was missed.
    #[must_use]
    pub fn apply(self, from: Moment, to: Moment) -> Self {
        let floor = if from > self.watermark { self.floor.max(from) } else { self.floor };
        Self { watermark: self.watermark.max(to), floor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_raises_the_floor_and_nothing_moves_back() {
        let at = Moment::from_count;
        let progress = Progress { watermark: at(5), floor: at(2) };
        assert_eq!(progress.apply(at(3), at(7)), Progress { watermark: at(7), floor: at(2) });
        assert_eq!(progress.apply(at(5), at(7)), Progress { watermark: at(7), floor: at(2) });
        assert_eq!(progress.apply(at(6), at(7)), Progress { watermark: at(7), floor: at(6) });
        assert_eq!(progress.apply(at(1), at(4)), progress);
    }
}
