//! Where the bus begins: at the start of an instance, and when an instance becomes the leader (docs/freshness.md, points 8
//! and 9).
//!
//! It does not choose the leader: `feed::Lease` does.

use super::{
    Bus, PROBE_TIME, lock,
    peers::{Peers, read_in_time},
    receive::latest_moment,
    redis::LogEnd,
};
use crate::{
    diagnosis::error_chain,
    freshness::{ChangeBatch, LocalTime, Moment},
    source::{Deadline, Prober, SourceError},
};

/// How many seconds the end of the log may be behind the watermark. If it is further behind, a new leader does not publish
/// the changes in between again.
const REPUBLISHED_MAX: u32 = 60;

/// Whether a chain ends no more than a minute before this moment. A leader publishes several times a second, so a log that ends
/// earlier is not continued. Whoever can write to Redis may have put it back, from before a backup was restored.
fn is_recent(chain: &[ChangeBatch], now: Moment) -> bool {
    chain.last().is_some_and(|last| now.seconds_after(last.to) <= REPUBLISHED_MAX)
}

impl Bus {
    /// Raises the floor and the watermark to a moment before which nothing is known.
    pub fn begin_at(&self, moment: Moment) {
        self.freshness.begin_at(moment);
        lock(&self.updates).begin_at(moment, self.freshness.epoch());
    }

    /// Begins with the last chain of the other instances' log, or at a fresh probe if there is no log that can be used
    /// (docs/freshness.md, point 9).
    ///
    /// # Errors
    /// The source could not be asked for its time.
    pub async fn begin(&self, prober: &Prober, deadline: Deadline) -> Result<(), SourceError> {
        let mut chain = Vec::new();
        if let Some(peers) = &self.peers {
            let read = async {
                peers.channel.until_up().await;
                peers.last_chain().await
            };
            chain = read_in_time(read).await.unwrap_or_default();
        }
        // The probe is sent after the log was read. So a log that reaches past it does not come from this source.
        let now = prober.probe_since(LocalTime::now(), deadline).await?.moment;
        let epoch = self.freshness.epoch();
        match chain.first() {
            Some(first) if is_recent(&chain, now) && chain.iter().all(|batch| latest_moment(batch) <= now) => {
                self.begin_at(first.from);
            }
            _ => {
                chain.clear();
                self.begin_at(now);
            }
        }
        for batch in chain {
            self.apply(batch, epoch);
        }
        if let Some(peers) = &self.peers {
            peers.record_received(self.freshness.watermark(), epoch);
            peers.channel.start_delivery();
        }
        Ok(())
    }

    /// As [`Bus::begin`], for instances without change streams: they exchange hints and no change batches.
    pub fn begin_hints_only(&self) {
        if let Some(peers) = &self.peers {
            peers.channel.start_delivery();
        }
    }

    /// Catches up with the log, and returns the moment from which this instance publishes as the new leader: the end of the
    /// log if that is at most 60 s before the watermark, so that there is no gap; else the watermark.
    /// Removes a log that ends after a fresh probe, as it belongs to another epoch, and one to whose end another client has
    /// written.
    pub async fn take_over(&self) -> Moment {
        self.catch_up().await;
        let watermark = self.freshness.watermark();
        let Some(peers) = &self.peers else { return watermark };
        match peers.channel.log_end().await {
            Ok(LogEnd::At(end)) if end <= watermark => {
                let is_near = watermark.seconds_after(end) <= REPUBLISHED_MAX;
                if is_near { end } else { watermark }
            }
            Ok(LogEnd::At(end)) => {
                let probe = peers.prober.probe_since(LocalTime::now(), Deadline::after(PROBE_TIME)).await;
                if probe.is_ok_and(|probe| probe.moment < end) {
                    tracing::warn!("the log in Redis ends after the source's present, so it is removed");
                    remove_log(peers).await;
                }
                watermark
            }
            // The log must accept change batches, so that an instance that misses one finds it there.
            Ok(LogEnd::Forged) => {
                remove_log(peers).await;
                watermark
            }
            Ok(LogEnd::Empty) | Err(_) => watermark,
        }
    }
}

async fn remove_log(peers: &Peers) {
    if let Err(error) = peers.channel.remove_log().await {
        tracing::debug!(error = %error_chain(&error), "the log cannot be removed");
    }
}
