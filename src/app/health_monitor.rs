//! The health monitor: derives the state of the service from its parts, ten times a second: whether the source answers,
//! whether changes arrive, and whether Redis answers. No state is latched: each ends with its cause.
//!
//! Serves no health check itself: `transport::health` does.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    freshness::{Freshness, LocalTime},
    link::Link,
    transport::Health,
};

/// How often the parts are observed.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long the source may leave probes unanswered before the service counts as degraded.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How far the watermark may lag behind the source before the service counts as degraded.
const LAG_MAX: Duration = Duration::from_secs(5);

/// How long Redis may be out of reach, once it has been reached, before the service counts as degraded. A link is down after a
/// single answer that comes late, and usually up again after a tenth of a second.
const REDIS_SILENCE_MAX: Duration = Duration::from_secs(3);

/// Observes the parts of an application.
#[derive(Clone)]
pub(super) struct HealthMonitor {
    pub(super) freshness: Arc<Freshness>,
    /// How long cached facts serve some permission while the source does not answer.
    pub(super) cached_facts_serve_for: Duration,
    /// What is wrong with a directory of documents; none while nothing is.
    pub(super) trouble: watch::Receiver<Option<String>>,
    /// Whether a change stream informs this instance of changes.
    pub(super) follows_changes: bool,
    pub(super) links: Vec<Link>,
    /// When every link was last seen to be up; none before the first time.
    pub(super) reached: Option<LocalTime>,
}

impl HealthMonitor {
    /// Publishes the health whenever it changes. Never ends.
    pub(super) async fn follow(mut self, health: watch::Sender<Health>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = self.trouble.changed() => {}
            }
            self.publish(&health);
        }
    }

    /// Publishes the current health if it differs from the last published one.
    pub(super) fn publish(&mut self, sender: &watch::Sender<Health>) {
        let health = self.health();
        sender.send_if_modified(|before| {
            let has_changed = *before != health;
            if has_changed {
                report(before, &health);
                *before = health;
            }
            has_changed
        });
    }

    /// The current health.
    fn health(&mut self) -> Health {
        let now = LocalTime::now();
        if self.links.iter().all(Link::is_up) {
            self.reached = Some(now);
        }
        let degraded = |why: &str, answers| Health::Degraded { why: why.to_owned(), answers };
        if let Some(why) = &*self.trouble.borrow() {
            return degraded(why, false);
        }
        if self.freshness.required_moment(now.minus(self.cached_facts_serve_for)).is_none() {
            return degraded("the source has not answered for so long that no cached fact counts any more", false);
        }
        if self.freshness.newest_probe().is_none_or(|probe| now.since(probe.sent) > SILENCE_MAX) {
            return degraded("the source does not answer: cached facts still count", true);
        }
        let lags = |time| {
            self.freshness.probe_sent_before(time).is_some_and(|probe| probe.moment > self.freshness.watermark())
        };
        if self.follows_changes && lags(now.minus(LAG_MAX)) {
            return degraded(
                "changes are not received: facts are read again once they are as old as MAX_STALENESS",
                true,
            );
        }
        if is_away(self.reached, now) {
            return degraded("Redis is unreachable: nothing is shared with other instances", true);
        }
        Health::Ready
    }
}

/// Whether Redis counts as away, if it was last reached at this time.
fn is_away(reached: Option<LocalTime>, now: LocalTime) -> bool {
    reached.is_none_or(|reached| now.since(reached) > REDIS_SILENCE_MAX)
}

fn report(before: &Health, health: &Health) {
    match (before, health) {
        // The first `ready` is logged by `run`, with the address.
        (Health::Starting(_), Health::Ready) => {}
        (_, Health::Ready) => tracing::info!("the service is ready again"),
        _ => tracing::warn!(health = health.describe(), "the service is degraded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_counts_as_away_before_the_first_answer_and_after_a_silence_and_not_in_a_shorter_one() {
        let reached = LocalTime::now();
        let after = |time| is_away(Some(reached), reached.plus(time));
        assert!(is_away(None, reached));
        assert!(!after(Duration::ZERO) && !after(REDIS_SILENCE_MAX));
        assert!(after(REDIS_SILENCE_MAX + Duration::from_millis(1)));
    }
}
