//! How far an instance has heard: W and the floor, and what a statement does to them (design section 5, point 3).

use super::Moment;

/// What has been applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Horizon {
    /// W: everything that changed up to here, and later than the floor, has been marked.
    pub applied: Moment,
    /// Facts of earlier moments count for nothing.
    pub floor: Moment,
}

impl Horizon {
    /// Where an instance begins that has heard nothing: facts from this moment on count.
    #[must_use]
    pub fn beginning(at: Moment) -> Self {
        Self { applied: at, floor: at }
    }

    /// What a statement about (from, to] makes of it, once its changes have been marked. Where something between what was
    /// heard and `from` was missed, facts that are older than `from` no longer count; later ones saw what was missed.
    #[must_use]
    pub fn hear(self, from: Moment, to: Moment) -> Self {
        let floor = if from > self.applied { self.floor.max(from) } else { self.floor };
        Self { applied: self.applied.max(to), floor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_raises_the_floor_and_nothing_moves_back() {
        let at = Moment::from_count;
        let heard = Horizon { applied: at(5), floor: at(2) };
        assert_eq!(heard.hear(at(3), at(7)), Horizon { applied: at(7), floor: at(2) });
        assert_eq!(heard.hear(at(5), at(7)), Horizon { applied: at(7), floor: at(2) });
        assert_eq!(heard.hear(at(6), at(7)), Horizon { applied: at(7), floor: at(6) });
        assert_eq!(heard.hear(at(1), at(4)), heard);
    }
}
