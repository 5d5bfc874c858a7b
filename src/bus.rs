//! The bus: carries change batches and hints to this instance's freshness and Watch clients and, over Redis, to the other
//! instances (docs/freshness.md, point 8).
//!
//! Detects no change itself: `feed` publishes change batches, and `invalidate` publishes hints.

mod codec;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hint;
mod peers;
mod receive;
mod redis;
mod start;
mod update_log;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

pub use hint::Hint;
pub use peers::Peers;
pub use redis::{COMMAND_TIME, Published, RedisChannel};
pub use update_log::{Subscription, Update};
use update_log::{UpdateLog, lock};

use crate::{
    diagnosis::error_chain,
    freshness::{Change, ChangeBatch, Changed, Clock, Epoch, Freshness, LocalTime, Moment},
    link::LinkError,
    telemetry::{ChangeMetrics, RateLimitedLog},
};

/// How long a probe may take.
const PROBE_TIME: Duration = Duration::from_secs(2);

/// How far the bus may lag behind this instance's own probes before the instance no longer relies on it.
const LAG_MAX: Duration = Duration::from_secs(1);

/// Keeps an outage of Redis from flooding the log.
static UNPUBLISHED: RateLimitedLog = RateLimitedLog::per_second(10);

/// Carries change batches and hints.
pub struct Bus {
    freshness: Arc<Freshness>,
    updates: Arc<Mutex<UpdateLog>>,
    peers: Option<Peers>,
    change_metrics: ChangeMetrics,
}

impl Bus {
    /// A bus to these peers; without any, a bus within this process alone.
    #[must_use]
    pub fn new(freshness: Arc<Freshness>, peers: Option<Peers>, change_metrics: ChangeMetrics) -> Self {
        Self { freshness, updates: Arc::default(), peers, change_metrics }
    }

    /// Applies a change batch that was observed in `epoch`, then notifies the subscriptions: an update is sent only after its
    /// changes were applied. Returns whether `epoch` is still the current one; if not, nothing happens.
    pub fn apply(&self, mut batch: ChangeBatch, epoch: Epoch) -> bool {
        let is_current = self.freshness.apply(&batch, epoch);
        if is_current {
            batch.changes.retain(|change| !self.freshness.is_of_lists(&change.what));
            lock(&self.updates).append(batch, epoch);
        }
        is_current
    }

    /// Applies the changes of a hint that was received in `epoch`, then notifies the subscriptions. The watermark stays where
    /// it is, as a hint makes no claim about other changes.
    pub fn apply_hint(&self, mut changes: Vec<Change>, epoch: Epoch) {
        if self.freshness.mark(&changes, epoch) {
            changes.retain(|change| !self.freshness.is_of_lists(&change.what));
            lock(&self.updates).append_hint(changes);
        }
    }

    /// Subscribes to the changes after `since`, or to those from now on.
    #[must_use]
    pub fn subscribe(&self, since: Option<Moment>) -> Subscription {
        Subscription::new(&self.updates, since)
    }

    /// Publishes a change batch to the other instances.
    ///
    /// # Errors
    /// [`LinkError`]. The other instances may not have received the batch: the leader must not go on as if they had.
    pub async fn publish(&self, batch: ChangeBatch) -> Result<Published, LinkError> {
        match &self.peers {
            Some(peers) => peers.channel.publish(batch).await,
            None => Ok(Published::Logged),
        }
    }

    /// Publishes a hint to the other instances that are subscribed. A hint that everything is outdated is also appended to the
    /// log in Redis, for instances that start later. Returns whether Redis took all of this.
    pub async fn publish_hint(&self, hint: &Hint) -> bool {
        let Some(peers) = &self.peers else { return false };
        let published = peers.channel.publish_hint(&hint.encode()).await;
        let is_published = published.inspect_err(|error| {
            if let Some(suppressed) = UNPUBLISHED.admit() {
                tracing::warn!(error = %error_chain(error), suppressed, "an invalidation was not published to the other instances");
            }
        });
        let is_all = peers.clock == Clock::Cluster && hint.changed(&peers.schema) == [Changed::Everything];
        is_published.is_ok() && (!is_all || peers.log_everything(hint.at()).await)
    }

    /// Whether the other instances publish every change to this one, so that it need not follow the source itself: it is
    /// subscribed, and has received everything up to the last probe that was sent at least 1 s ago.
    #[must_use]
    pub fn covers_all_changes(&self) -> bool {
        let Some(peers) = &self.peers else { return false };
        let before = LocalTime::now().minus(LAG_MAX);
        let (epoch, received) = peers.received();
        let is_current = epoch == self.freshness.epoch();
        peers.channel.is_subscribed()
            && is_current
            && self.freshness.probe_sent_before(before).is_none_or(|probe| probe.moment <= received)
    }

    /// Sets whether this instance follows the source itself from now on.
    pub fn set_following_source(&self, is_following_source: bool) {
        if let Some(peers) = &self.peers {
            peers.set_following_source(is_following_source);
        }
    }

    /// Replaces the subscription to Redis, which seems to receive nothing.
    pub fn resubscribe(&self) {
        if let Some(peers) = &self.peers {
            peers.channel.resubscribe();
        }
    }
}
