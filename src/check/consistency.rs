//! Consistency: how fresh a request wants its answer, and the moment that this requires of each fact (docs/freshness.md,
//! point 12).

use std::time::Duration;

use super::{CheckError, Checker};
use crate::{
    freshness::{Clock, LocalTime, Moment, Token},
    source::{Deadline, SourceError},
};

/// What a request asks for. It applies to that request only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Facts within the staleness bound, from the fastest tier.
    MinimizeLatency,
    /// Every change up to the token's moment, and the staleness bound.
    AtLeastAsFresh(Token),
    /// Every write acknowledged before the request arrived.
    FullyConsistent,
    /// Nothing older than this, nor than the staleness bound.
    MaxAge(Duration),
}

impl Consistency {
    /// How old a fact may be, given the staleness bound.
    fn age_max(self, staleness_max: Duration) -> Duration {
        match self {
            Self::MinimizeLatency | Self::AtLeastAsFresh(_) => staleness_max,
            Self::FullyConsistent => Duration::ZERO,
            Self::MaxAge(age) => age.min(staleness_max),
        }
    }
}

impl Checker {
    /// The moment as of which each fact of a request must be true.
    pub(super) async fn required_moment(
        &self,
        consistency: Consistency,
        arrived: LocalTime,
        deadline: Deadline,
    ) -> Result<Moment, CheckError> {
        let since = arrived.minus(consistency.age_max(self.staleness_max));
        let token = match consistency {
            // The ticks of one instance mean nothing to another, so a request with such a token reads the source.
            Consistency::AtLeastAsFresh(Token { clock: Clock::Local, .. }) if self.clock == Clock::Local => {
                return self.moment_by_probe(arrived, deadline).await;
            }
            Consistency::AtLeastAsFresh(token) => self.accept(token, arrived, deadline).await?,
            Consistency::MinimizeLatency | Consistency::FullyConsistent | Consistency::MaxAge(_) => Moment::default(),
        };
        match self.freshness.required_moment(since) {
            Some(moment) => Ok(moment.max(token)),
            None => Ok(self.moment_by_probe(since, deadline).await?.max(token)),
        }
    }

    /// The moment of a token, if it belongs to this source and is not later than a probe sent after `arrived`.
    ///
    /// # Errors
    /// [`CheckError::ForeignToken`], [`CheckError::FutureToken`], or the error of a probe that was sent to decide.
    pub async fn accept(&self, token: Token, arrived: LocalTime, deadline: Deadline) -> Result<Moment, CheckError> {
        if token.clock != self.clock {
            let (of, source_clock) = (token.clock.as_str(), self.clock.as_str());
            return Err(CheckError::ForeignToken { of, source_clock });
        }
        if token.moment > self.freshness.newest_moment() {
            // The moment has come only if a probe that is sent now returns it or a later one.
            self.moment_by_probe(arrived, deadline).await?;
            if token.moment > self.freshness.newest_moment() {
                return Err(CheckError::FutureToken);
            }
        }
        Ok(token.moment)
    }

    /// Waits for a probe sent at `since` or later. A fact that is true as of the returned moment shows every write
    /// acknowledged before `since`.
    async fn moment_by_probe(&self, since: LocalTime, deadline: Deadline) -> Result<Moment, CheckError> {
        let probe = self.prober.probe_since(since, deadline).await.map_err(|error| match error {
            SourceError::TimedOut if deadline.is_over() => CheckError::DeadlineExceeded,
            error => CheckError::Unavailable(error),
        })?;
        Ok(self.freshness.required_moment(since).unwrap_or(probe.moment))
    }
}
