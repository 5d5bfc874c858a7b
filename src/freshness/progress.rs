//! How far an instance has heard: W and the floor, and what a statement does to them (design section 5, point 3).

use super::Moment;

/// What has been applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// W: everything that changed up to here, and later than the floor, has been marked.
    pub watermark: Moment,
    /// Facts of earlier moments count for nothing.
    pub floor: Moment,
}

impl Progress {
    /// Where an instance begins that has heard nothing: facts from this moment on count.
    #[must_use]
    pub fn beginning(at: Moment) -> Self {
        Self { watermark: at, floor: at }
    }

    /// What a statement about (from, to] makes of it, once its changes have been marked. Where something between what was
    /// heard and `from` was missed, facts that are older than `from` no longer count; later ones saw what was missed.
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
        let heard = Progress { watermark: at(5), floor: at(2) };
        assert_eq!(heard.apply(at(3), at(7)), Progress { watermark: at(7), floor: at(2) });
        assert_eq!(heard.apply(at(5), at(7)), Progress { watermark: at(7), floor: at(2) });
        assert_eq!(heard.apply(at(6), at(7)), Progress { watermark: at(7), floor: at(6) });
        assert_eq!(heard.apply(at(1), at(4)), heard);
    }
}
