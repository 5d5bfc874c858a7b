//! The other instances, as this one sees them: the channel to them, what was received from them, and the log that all share.
//!
//! Applies no change: `receive` and `start` apply what was received.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

use super::{PROBE_TIME, Published, RedisChannel};
use crate::{
    diagnosis::error_chain,
    freshness::{Change, ChangeBatch, Changed, Clock, Epoch, LocalTime, Moment},
    link::LinkError,
    schema::Schema,
    source::{Deadline, Prober},
    telemetry::Metrics,
};

/// How long it may take to reach Redis and read the log.
const LOG_TIME: Duration = Duration::from_secs(1);

/// How many times [`Peers::log_everything`] tries to append its entry to the log.
const APPENDS_MAX: u32 = 4;

/// The other instances over the same database.
pub struct Peers {
    pub(super) channel: RedisChannel,
    pub(super) clock: Clock,
    pub(super) schema: Arc<Schema>,
    pub(super) prober: Prober,
    pub(super) metrics: Arc<Metrics>,
    /// The moment up to which every change was received from the other instances, and its epoch.
    received: Mutex<(Epoch, Moment)>,
    /// Whether this instance follows the source itself: then a gap in what it receives does no harm.
    is_following_source: AtomicBool,
    /// When a received moment was last not confirmed by a probe; none once another was.
    unconfirmed_at: Mutex<Option<LocalTime>>,
}

impl Peers {
    /// The peers on a Redis channel. `clock` is the one that moments of this instance belong to.
    #[must_use]
    pub fn new(
        channel: RedisChannel,
        schema: Arc<Schema>,
        clock: Clock,
        prober: Prober,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            channel,
            clock,
            schema,
            prober,
            metrics,
            received: Mutex::default(),
            is_following_source: AtomicBool::new(false),
            unconfirmed_at: Mutex::default(),
        }
    }

    pub(super) fn is_following_source(&self) -> bool {
        self.is_following_source.load(Ordering::Acquire)
    }

    pub(super) fn set_following_source(&self, is_following_source: bool) {
        self.is_following_source.store(is_following_source, Ordering::Release);
    }

    pub(super) fn unconfirmed_at(&self) -> Option<LocalTime> {
        *self.unconfirmed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_unconfirmed_at(&self, at: Option<LocalTime>) {
        *self.unconfirmed_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// The moment up to which every change was received, and its epoch.
    pub(super) fn received(&self) -> (Epoch, Moment) {
        *self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that every change up to `to` was received. Within an epoch the moment does not move back.
    pub(super) fn record_received(&self, to: Moment, epoch: Epoch) {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        *received = if received.0 == epoch { (epoch, received.1.max(to)) } else { (epoch, to) };
    }

    /// The change batches at the end of the log that follow one another without a gap.
    pub(super) async fn last_chain(&self) -> Result<Vec<ChangeBatch>, LinkError> {
        let mut chain: Vec<ChangeBatch> = Vec::new();
        let mut pages = self.channel.log();
        while let Some(page) = pages.next().await? {
            for batch in page {
                if chain.last().is_some_and(|last| batch.from > last.to) {
                    chain.clear();
                }
                chain.push(batch);
            }
        }
        Ok(chain)
    }

    /// Appends to the log that everything changed at `at`, for instances that start later. If the log ends after that moment
    /// already, a fresh probe's moment is used. Returns whether the entry was appended.
    pub(super) async fn log_everything(&self, mut at: Moment) -> bool {
        for _ in 0..APPENDS_MAX {
            let changes = vec![Change { at, what: Changed::Everything }];
            match self.channel.publish(ChangeBatch { from: at, to: at, changes }).await {
                Ok(Published::Logged) => return true,
                Ok(Published::AlreadyPast) => {}
                Err(error) => {
                    tracing::warn!(error = %error_chain(&error), "an invalidation of everything is not in the log in Redis: instances that start later may not learn of it");
                    return false;
                }
            }
            let probe = self.prober.probe_since(LocalTime::now(), Deadline::after(PROBE_TIME)).await;
            at = probe.map_or(at, |probe| probe.moment);
        }
        false
    }
}

/// Awaits a read of the log for at most [`LOG_TIME`]. Returns nothing if the read failed or took longer.
pub(super) async fn read_in_time<T>(read: impl Future<Output = Result<T, LinkError>>) -> Option<T> {
    match timeout(LOG_TIME, read).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::debug!(error = %error_chain(&error), "the log cannot be read");
            None
        }
        Err(_) => {
            tracing::debug!("the log cannot be read in time");
            None
        }
    }
}
