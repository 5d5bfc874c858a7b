//! How the application is, from what its parts know: whether the source answers, whether changes are heard of, whether Redis
//! is there. Never latched: each look is a new one.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::App;
use crate::{
    freshness::{Freshness, LocalTime},
    link::Link,
    transport::Health,
};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);

/// For how long the source may say nothing before that is told.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How far what is heard of changes may lag behind the source before that is told.
const LAG_MAX: Duration = Duration::from_secs(5);

/// What is looked at.
pub(super) struct HealthMonitor {
    freshness: Arc<Freshness>,
    /// For how long what is remembered answers while the source does not.
    answers_for: Duration,
    /// Why not all is well with documents on disk, while that is so.
    trouble: watch::Receiver<Option<String>>,
    /// Whether changes are heard of, rather than found out by reading again.
    follows_changes: bool,
    links: Vec<Link>,
}

impl HealthMonitor {
    /// Of an application that has started.
    pub(super) fn of(app: &App) -> Self {
        let stale = app.schema.permissions().filter_map(|permission| permission.stale_if_error);
        Self {
            freshness: Arc::clone(&app.freshness),
            answers_for: stale.fold(app.staleness_max, Duration::max),
            trouble: app.trouble.clone(),
            follows_changes: app.follows_changes,
            links: app.links.named().map(|(_, link)| link.clone()).collect(),
        }
    }

    /// Says how it is for ever, whenever that changes.
    pub(super) async fn follow(mut self, health: watch::Sender<Health>) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = self.trouble.changed() => {}
            }
            self.publish(&health);
        }
    }

    /// Says how it is now, if that is not what was said before.
    pub(super) fn publish(&self, sender: &watch::Sender<Health>) {
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

    /// How it is.
    pub(super) fn health(&self) -> Health {
        let now = LocalTime::now();
        let degraded = |why: &str, answers| Health::Degraded { why: why.to_owned(), answers };
        if let Some(why) = &*self.trouble.borrow() {
            return degraded(why, false);
        }
        if self.freshness.required_moment(now.minus(self.answers_for)).is_none() {
            return degraded("the source has not answered for so long that nothing is answered from memory", false);
        }
        if self.freshness.newest_probe().is_none_or(|probe| now.since(probe.sent) > SILENCE_MAX) {
            return degraded("the source does not answer: what is remembered still counts", true);
        }
        let lags = |time| {
            self.freshness.probe_sent_before(time).is_some_and(|probe| probe.moment > self.freshness.watermark())
        };
        if self.follows_changes && lags(now.minus(LAG_MAX)) {
            return degraded(
                "nothing says what changes: facts are read again once they are as old as MAX_STALENESS",
                true,
            );
        }
        if !self.links.iter().all(Link::is_up) {
            return degraded("Redis is out of reach: nothing is shared with other instances", true);
        }
        Health::Ready
    }
}

fn report(before: &Health, health: &Health) {
    match (before, health) {
        // That it is ready is said where it is.
        (Health::Starting(_), Health::Ready) => {}
        (_, Health::Ready) => tracing::info!("all is well again"),
        _ => tracing::warn!(health = health.describe(), "not all is well"),
    }
}
