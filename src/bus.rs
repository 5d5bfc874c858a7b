//! The bus: how statements and hints reach those who apply them and those who watch: within this process, and, where there
//! is a Redis, in all instances.
//!
//! Finds nothing out itself: `feed` speaks, `invalidate` hints.

mod codec;
mod hint;
mod log;
mod redis;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

pub use hint::Hint;
use log::{Log, lock};
pub use log::{Subscription, Update};
pub use redis::{COMMAND_TIME, Published, RedisChannel};
use tokio::time::timeout;

use self::redis::Received;
use crate::{
    diagnosis::error_chain,
    freshness::{Change, ChangeBatch, Changed, Clock, Epoch, Freshness, LocalTime, Moment},
    link::LinkError,
    schema::Schema,
    source::{Deadline, Prober, SourceError},
    telemetry::{ChangeMetrics, Metrics, RateLimitedLog, Via},
};

/// How many seconds a moment may be later than the newest probe's and be believed: probes are sent four times a second.
const AHEAD_MAX: u32 = 5;

/// How long a probe may take.
const PROBE_TIME: Duration = Duration::from_secs(2);

/// How long nothing may be heard, where somebody speaks four times a second, before another subscription is tried; and where
/// nobody does.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const SILENCE_MAX_OF_HINTS: Duration = Duration::from_mins(1);

/// How far the bus may be behind the instance's own probes before it is taken to be deaf.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long it may take to reach Redis and read the log, where that is waited for.
const READING_TIME: Duration = Duration::from_secs(1);

/// How often it is tried to append a moment to the log.
const APPENDS_MAX: u32 = 4;

/// Keeps an outage from flooding the log.
static UNPUBLISHED: RateLimitedLog = RateLimitedLog::per_second(10);

/// How many seconds the log may be behind for who speaks next to say again what has happened since.
const REPUBLISHED_MAX: u32 = 60;

/// Carries statements and hints.
pub struct Bus {
    freshness: Arc<Freshness>,
    log: Arc<Mutex<Log>>,
    peers: Option<Peers>,
    change_metrics: ChangeMetrics,
}

/// What goes on between instances, as this one sees it.
struct Peers {
    channel: RedisChannel,
    schema: Arc<Schema>,
    prober: Prober,
    metrics: Arc<Metrics>,
    /// Up to where everything was heard from others, and in which history.
    received: Mutex<(Epoch, Moment)>,
    /// Whether this instance follows the source by itself: then a gap in what is heard is nothing to it.
    is_following_source: AtomicBool,
}

impl Bus {
    /// A bus to one instance.
    #[must_use]
    pub fn new(freshness: Arc<Freshness>) -> Self {
        Self { freshness, log: Arc::default(), peers: None, change_metrics: ChangeMetrics::default() }
    }

    /// A bus to all instances on a wire.
    #[must_use]
    pub fn over(self, channel: RedisChannel, schema: Arc<Schema>, prober: Prober, metrics: Arc<Metrics>) -> Self {
        let (received, is_following_source) = (Mutex::default(), AtomicBool::new(false));
        Self { peers: Some(Peers { channel, schema, prober, metrics, received, is_following_source }), ..self }
    }

    /// What is counted of what is heard.
    #[must_use]
    pub fn change_metrics(&self) -> &ChangeMetrics {
        &self.change_metrics
    }

    /// Begins to carry at a moment of which nothing is known before it.
    pub fn begin_at(&self, moment: Moment) {
        self.freshness.begin_at(moment);
        lock(&self.log).begin_at(moment, self.freshness.epoch());
    }

    /// Begins where the log of the other instances does; where there is none that can be used, at a fresh probe (design
    /// section 5, point 9).
    ///
    /// # Errors
    /// The source could not be asked for its time.
    pub async fn begin(&self, prober: &Prober, deadline: Deadline) -> Result<(), SourceError> {
        let mut chain = Vec::new();
        if let Some(peers) = &self.peers {
            let reading = async {
                peers.channel.wait().await;
                peers.last_chain().await
            };
            match timeout(READING_TIME, reading).await {
                Ok(Ok(read)) => chain = read,
                Ok(Err(error)) => tracing::debug!(error = %error_chain(&error), "the log cannot be read"),
                Err(_) => tracing::debug!("the log cannot be read in time"),
            }
        }
        // After the log was read: whatever that reaches up to has happened by now, if it is of this source.
        let now = prober.probe_since(LocalTime::now(), deadline).await?.moment;
        let epoch = self.freshness.epoch();
        match chain.first() {
            Some(first) if chain.iter().all(|batch| latest(batch) <= now) => self.begin_at(first.from),
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
            peers.channel.begin();
        }
        Ok(())
    }

    /// As [`Bus::begin`], where nothing is said and hints are all that is heard.
    pub fn begin_hints_only(&self) {
        if let Some(peers) = &self.peers {
            peers.channel.begin();
        }
    }

    /// Says within this process what has changed, as seen in `epoch`: who hears it by now has applied it. Says whether that is
    /// the history still.
    pub fn apply(&self, batch: ChangeBatch, epoch: Epoch) -> bool {
        let is_current = self.freshness.apply(&batch, epoch);
        if is_current {
            lock(&self.log).append(batch, epoch);
        }
        is_current
    }

    /// Says within this process that this changed, as seen in `epoch`, and nothing about what else did.
    pub fn hint(&self, changes: Vec<Change>, epoch: Epoch) {
        if self.freshness.mark(&changes, epoch) {
            lock(&self.log).hint(changes);
        }
    }

    /// What changes after `since`, or from now on.
    #[must_use]
    pub fn watch(&self, since: Option<Moment>) -> Subscription {
        Subscription::new(&self.log, since)
    }

    /// Says to the other instances what has changed.
    ///
    /// # Errors
    /// They may not have heard it: who speaks must not go on as if they had.
    pub async fn publish(&self, batch: ChangeBatch) -> Result<Published, LinkError> {
        match &self.peers {
            Some(peers) => peers.channel.publish(batch).await,
            None => Ok(Published::Logged),
        }
    }

    /// Says to the other instances what is outdated, as far as they listen. Says whether Redis took it.
    pub async fn publish_hint(&self, hint: &Hint) -> bool {
        let Some(peers) = &self.peers else { return false };
        let published = peers.channel.hint(hint.encode()).await;
        let is_published = published.inspect_err(|error| {
            if let Some(suppressed) = UNPUBLISHED.admit() {
                tracing::warn!(error = %error_chain(error), suppressed, "other instances were not told what is outdated");
            }
        });
        let is_all = peers.prober.clock() == Clock::Cluster && hint.changed(&peers.schema) == [Changed::Everything];
        is_published.is_ok() && (!is_all || peers.log_everything(hint.at()).await)
    }

    /// Whether the other instances tell this one of all that changes, so that it need not follow the source itself.
    #[must_use]
    pub fn covers_all_changes(&self) -> bool {
        let Some(peers) = &self.peers else { return false };
        let before = LocalTime::now().minus(PATIENCE);
        let (epoch, received) = *peers.received.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = epoch == self.freshness.epoch();
        peers.channel.is_subscribed()
            && is_current
            && self.freshness.probe_sent_before(before).is_none_or(|probe| probe.moment <= received)
    }

    /// Says whether this instance follows the source by itself from now on.
    pub fn set_following_source(&self, is_following_source: bool) {
        if let Some(peers) = &self.peers {
            peers.is_following_source.store(is_following_source, Ordering::Release);
        }
    }

    /// Takes in what the log has and this instance has not heard.
    pub async fn catch_up(&self) {
        let Some(peers) = &self.peers else { return };
        let reading = async {
            let mut pages = peers.channel.log_after(self.freshness.watermark());
            while let Some(page) = pages.next().await? {
                // What follows on what is not believed is not believed either.
                if !page.into_iter().all(|batch| self.apply_received(peers, batch)) {
                    break;
                }
            }
            Ok::<_, LinkError>(())
        };
        match timeout(READING_TIME, reading).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = %error_chain(&error), "the log cannot be read"),
            Err(_) => tracing::debug!("the log cannot be read in time"),
        }
    }

    /// Replaces the subscription, which seems to be deaf.
    pub fn resubscribe(&self) {
        if let Some(peers) = &self.peers {
            peers.channel.resubscribe();
        }
    }

    /// Where who is to speak begins, once it has taken in what others have said: no later than the log ends, so that
    /// nothing is missing between, where that was not long ago. A log that reaches past a fresh probe is of another history,
    /// and removed.
    pub async fn take_over(&self) -> Moment {
        self.catch_up().await;
        let watermark = self.freshness.watermark();
        let Some(peers) = &self.peers else { return watermark };
        match peers.channel.log_end().await {
            Ok(Some(end)) if end <= watermark => {
                let is_near = watermark.seconds_after(end) <= REPUBLISHED_MAX;
                if is_near { end } else { watermark }
            }
            Ok(Some(end)) => {
                let probe = peers.prober.probe_since(LocalTime::now(), Deadline::after(PROBE_TIME)).await;
                if probe.is_ok_and(|probe| probe.moment < end) {
                    tracing::warn!("the log in Redis is of another history, and removed");
                    if let Err(error) = peers.channel.remove_log().await {
                        tracing::debug!(error = %error_chain(&error), "the log cannot be removed");
                    }
                }
                watermark
            }
            Ok(None) | Err(_) => watermark,
        }
    }

    /// Listens for ever to what other instances say.
    pub async fn listen(&self) {
        let Some(peers) = &self.peers else { return };
        // Without change streams nobody speaks, and hints are rare.
        let silence_max = if peers.prober.clock() == Clock::Cluster { SILENCE_MAX } else { SILENCE_MAX_OF_HINTS };
        let mut subscriber = peers.channel.subscriber(silence_max);
        loop {
            self.receive(peers, subscriber.next().await).await;
        }
    }

    async fn receive(&self, peers: &Peers, received: Received) {
        match received {
            Received::Subscribed => self.catch_up().await,
            Received::ChangeBatch(batch) => {
                let (began, tells_changes) = (Instant::now(), !batch.changes.is_empty());
                // What is missing between may be in the log.
                if batch.from > self.freshness.watermark() {
                    peers.metrics.repaired();
                    self.catch_up().await;
                }
                if self.apply_received(peers, batch) && tells_changes {
                    self.change_metrics.took(Via::Bus, began.elapsed());
                }
            }
            Received::Hint(bytes) => self.receive_hint(peers, &bytes).await,
        }
    }

    /// Applies what was heard, if it can be believed. Says whether it can.
    fn apply_received(&self, peers: &Peers, batch: ChangeBatch) -> bool {
        let epoch = self.freshness.epoch();
        if !self.is_plausible(latest(&batch)) {
            peers.metrics.dropped();
            return false;
        }
        let has_gap = batch.from > self.freshness.watermark();
        if has_gap && peers.is_following_source.load(Ordering::Acquire) {
            // What has changed has changed; up to where, the own stream will tell.
            self.hint(batch.changes, epoch);
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
        // Ticks of another instance mean nothing here: it was outdated before this was heard.
        let at = if peers.prober.clock() == Clock::Cluster {
            self.is_plausible(hint.at()).then(|| hint.at())
        } else {
            peers.prober.probe_since(LocalTime::now(), Deadline::after(PROBE_TIME)).await.ok().map(|probe| probe.moment)
        };
        let Some(at) = at else {
            peers.metrics.dropped();
            return;
        };
        self.hint(hint.changed(&peers.schema).into_iter().map(|what| Change { at, what }).collect(), epoch);
        self.change_metrics.took(Via::Bus, began.elapsed());
    }

    /// Whether a moment is one of this source's, and no later than now: up to some seconds after the newest probe's it is taken
    /// to be. Where the source cannot be asked, what is later than that is not waited for: the log will have it, and nothing
    /// remembered is worth much by then.
    fn is_plausible(&self, moment: Moment) -> bool {
        let newest = self.freshness.newest_probe().map_or(Moment::default(), |probe| probe.moment);
        moment.seconds_after(newest) <= AHEAD_MAX
    }
}

/// The latest moment that a statement tells of.
fn latest(batch: &ChangeBatch) -> Moment {
    batch.changes.iter().map(|change| change.at).fold(batch.to, Moment::max)
}

impl Peers {
    /// The statements of the log that follow one another without a gap, up to its end.
    async fn last_chain(&self) -> Result<Vec<ChangeBatch>, LinkError> {
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

    /// Has it stand in the log that everything has changed, for those who start later. The log may have got past the moment:
    /// then it is said of a later one. Says whether it does.
    async fn log_everything(&self, mut at: Moment) -> bool {
        for _ in 0..APPENDS_MAX {
            let changes = vec![Change { at, what: Changed::Everything }];
            match self.channel.publish(ChangeBatch { from: at, to: at, changes }).await {
                Ok(Published::Logged) => return true,
                Ok(Published::AlreadyPast) => {}
                Err(error) => {
                    tracing::warn!(error = %error_chain(&error), "who starts later is not told that all is outdated");
                    return false;
                }
            }
            let probe = self.prober.probe_since(LocalTime::now(), Deadline::after(PROBE_TIME)).await;
            at = probe.map_or(at, |probe| probe.moment);
        }
        false
    }

    fn record_received(&self, to: Moment, epoch: Epoch) {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        *received = if received.0 == epoch { (epoch, received.1.max(to)) } else { (epoch, to) };
    }
}
