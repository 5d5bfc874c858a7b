//! What this instance receives from the others, by subscription and from the log in Redis: what is plausible is applied
//! (docs/freshness.md, points 8 and 11).
//!
//! It does not notice missing changes when no messages arrive. `feed` notices, reads the log, and replaces the subscription
//! if the log does not help. The subscriber also replaces its own subscription after it has received nothing for a while.

use std::time::{Duration, Instant};

use super::{
    Bus, Hint, PROBE_TIME,
    peers::{Peers, read_in_time},
    redis::Received,
};
use crate::{
    freshness::{Change, ChangeBatch, Clock, LocalTime, Moment},
    source::Deadline,
    telemetry::Via,
};

/// How many seconds a received moment may be later than the newest probe's to be believed without another probe. Probes are
/// sent four times a second.
const AHEAD_MAX: u32 = 1;

/// How long a probe may take that is to confirm a received moment. No message is handled meanwhile.
const CONFIRMATION_TIME: Duration = Duration::from_millis(500);

/// After a moment was not confirmed, how long others are dropped without a probe.
const CONFIRMATION_PAUSE: Duration = Duration::from_secs(1);

/// How long a subscription may receive nothing before it is replaced, if there is a leader: it publishes several times a
/// second.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// The same, if instances exchange only hints, which are rare.
const SILENCE_MAX_OF_HINTS: Duration = Duration::from_mins(1);

impl Bus {
    /// Receives from the other instances, for ever.
    pub async fn listen(&self) {
        let Some(peers) = &self.peers else { return };
        // Without change streams there is no leader.
        let silence_max = if peers.clock == Clock::Cluster { SILENCE_MAX } else { SILENCE_MAX_OF_HINTS };
        let mut subscriber = peers.channel.subscriber(silence_max);
        loop {
            self.receive(peers, subscriber.next().await).await;
        }
    }

    /// Applies the change batches of the log that this instance has not received.
    pub async fn catch_up(&self) {
        let Some(peers) = &self.peers else { return };
        let read = async {
            let mut pages = peers.channel.log_after(self.freshness.watermark());
            while let Some(page) = pages.next().await? {
                for batch in page {
                    // Batches after an implausible one are not applied either.
                    if !self.apply_received(peers, batch).await {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        read_in_time(read).await;
    }

    async fn receive(&self, peers: &Peers, received: Received) {
        match received {
            Received::Subscribed => self.catch_up().await,
            Received::ChangeBatch(batch) => {
                let (began, has_changes) = (Instant::now(), !batch.changes.is_empty());
                // The log may hold what was missed before this batch.
                if batch.from > self.freshness.watermark() {
                    peers.metrics.repaired();
                    self.catch_up().await;
                }
                if self.apply_received(peers, batch).await && has_changes {
                    self.change_metrics.took(Via::Bus, began.elapsed());
                }
            }
            Received::Hint(bytes) => self.receive_hint(peers, &bytes).await,
        }
    }

    /// Applies a received change batch if it is plausible. Returns whether it is.
    async fn apply_received(&self, peers: &Peers, batch: ChangeBatch) -> bool {
        let epoch = self.freshness.epoch();
        if !self.has_come(peers, latest_moment(&batch)).await {
            peers.metrics.dropped();
            return false;
        }
        let has_gap = batch.from > self.freshness.watermark();
        if has_gap && peers.is_following_source() {
            // The changes happened, whatever was missed before them. This batch does not advance the watermark: the instance's
            // own stream fills the gap.
            self.apply_hint(batch.changes, epoch);
            return true;
        }
        let to = batch.to;
        if self.apply(batch, epoch) {
            peers.record_received(to, epoch);
        }
        true
    }

    async fn receive_hint(&self, peers: &Peers, bytes: &[u8]) {
        let epoch = self.freshness.epoch();
        let began = Instant::now();
        let Some(hint) = Hint::decode(bytes) else {
            peers.metrics.dropped();
            return;
        };
        // Another instance's ticks mean nothing here. A tick of this instance's own present covers the changes, as they
        // happened before the hint arrived.
        let at = if peers.clock == Clock::Cluster {
            self.has_come(peers, hint.at()).await.then(|| hint.at())
        } else {
            peers.prober.probe_since(LocalTime::now(), Deadline::after(PROBE_TIME)).await.ok().map(|probe| probe.moment)
        };
        let Some(at) = at else {
            peers.metrics.dropped();
            return;
        };
        self.apply_hint(hint.changed(&peers.schema).into_iter().map(|what| Change { at, what }).collect(), epoch);
        self.change_metrics.took(Via::Bus, began.elapsed());
    }

    /// Whether a moment has come at this source: it is at most [`AHEAD_MAX`] seconds later than the newest probe's, or a fresh
    /// probe reaches it. Otherwise every read would wait for that moment. A message about a moment that has not come is
    /// dropped. If it was right after all, its changes are in the log.
    async fn has_come(&self, peers: &Peers, moment: Moment) -> bool {
        let newest = self.freshness.newest_probe().map_or(Moment::default(), |probe| probe.moment);
        if moment.seconds_after(newest) <= AHEAD_MAX {
            return true;
        }
        let now = LocalTime::now();
        if peers.unconfirmed_at().is_some_and(|at| now.since(at) < CONFIRMATION_PAUSE) {
            return false;
        }
        let probe = peers.prober.probe_since(now, Deadline::after(CONFIRMATION_TIME)).await;
        let has_come = probe.is_ok_and(|probe| moment <= probe.moment);
        peers.set_unconfirmed_at((!has_come).then(LocalTime::now));
        has_come
    }
}

/// The latest moment that a change batch mentions.
pub(super) fn latest_moment(batch: &ChangeBatch) -> Moment {
    batch.changes.iter().map(|change| change.at).fold(batch.to, Moment::max)
}
