//! Demands: how fresh a request wants its answer.

use std::time::Duration;

use crate::freshness::Token;

/// What a request demands of the freshness of its answer. It belongs to its request alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// What is known, within the bound of staleness.
    MinimizeLatency,
    /// Everything up to a moment, and within the bound of staleness.
    AtLeastAsFresh(Token),
    /// Everything that was acknowledged before the request arrived.
    FullyConsistent,
    /// Nothing older than this, nor than the bound of staleness.
    MaxAge(Duration),
}

impl Consistency {
    /// How old a fact may be where `staleness_max` is the bound.
    pub(super) fn age_max(self, staleness_max: Duration) -> Duration {
        match self {
            Self::MinimizeLatency | Self::AtLeastAsFresh(_) => staleness_max,
            Self::FullyConsistent => Duration::ZERO,
            Self::MaxAge(age) => age.min(staleness_max),
        }
    }
}
