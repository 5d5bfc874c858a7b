//! The feed: reads the change stream of a source and publishes what changes, as change batches (docs/freshness.md, points 6
//! to 8). With several instances, only the leader does so for all.
//!
//! Does not judge what a change batch means for cached facts: `freshness` does that.

mod batches;
mod lease;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use batches::Batches;
pub use lease::Lease;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    bus::{Bus, Published},
    diagnosis::error_chain,
    freshness::{Change, ChangeBatch, Changed, Epoch, Freshness, LocalTime, Moment},
    link::LinkError,
    source::{ChangeSource, ChangeStream, Deadline, Prober, SourceError, StreamError},
    telemetry::{ChangeMetrics, Via},
};

/// How far the stream may lag behind this instance's own probes, and how long it may take to answer, before it is opened
/// again.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest patience. It doubles up to this while opening the stream again does not help.
const PATIENCE_MAX: Duration = Duration::from_secs(8);

/// How long to wait before a stream that failed is opened again.
const PAUSE: Duration = Duration::from_millis(100);

/// How often an instance that runs no stream checks whether the bus still covers all changes.
const COVERAGE_INTERVAL: Duration = Duration::from_millis(100);

/// How often an empty change batch is published while files do not change.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// How many changes are kept that no change batch covers yet, such as those of a large transaction. If there are more, all
/// facts are read again.
const EARLY_MAX: usize = 100_000;

/// Publishes what changes at the source, for this instance or for all.
pub struct Feed {
    /// The source whose changes are published.
    pub source: Arc<dyn ChangeSource>,
    /// The watermark and the probes of this instance.
    pub freshness: Arc<Freshness>,
    /// Asks the source for its time.
    pub prober: Prober,
    /// Carries the change batches.
    pub bus: Arc<Bus>,
    /// Chooses the leader, if there are other instances.
    pub lease: Option<Arc<Lease>>,
    /// Times the application of changes, and counts open streams.
    pub change_metrics: ChangeMetrics,
}

/// Why the feed closed a stream, or could not open one.
#[derive(Debug)]
enum Ended {
    /// The source ended it: the database was dropped at this moment.
    Invalidated(Moment),
    /// Changes may be missing.
    Lost(String),
    /// It failed, or did not answer in time.
    Failed(String),
    /// It answers, but is too far behind, or a new epoch has begun.
    Lagging,
    /// This instance became the leader or ceased to be, or the bus covers all changes again.
    RoleChanged,
}

impl From<StreamError> for Ended {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Lost(why) => Self::Lost(why),
            StreamError::Failed(why) => Self::Failed(why),
        }
    }
}

/// Where a stream begins, and for whom its changes are published.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// The first change batch begins here.
    from: Moment,
    /// The first moment that the stream reports.
    open_at: Moment,
    /// The leader's term in which changes are published to all instances; `None` if only to this one.
    term: Option<u64>,
}

impl Feed {
    /// Sets the first floor and watermark. Facts with an earlier stamp do not count.
    ///
    /// # Errors
    /// The source could not be asked for its time.
    pub async fn begin(&self, deadline: Deadline) -> Result<(), SourceError> {
        self.bus.begin(&self.prober, deadline).await
    }

    /// Follows the change stream for ever and opens it again whenever it ends: from the watermark on, or as a new leader from
    /// where [`Bus::take_over`] says. While the bus covers all changes and this instance is not the leader, it runs no stream.
    pub async fn run(self) {
        let mut patience = PATIENCE;
        let mut invalidated = None;
        let mut has_warned = false;
        loop {
            let term = self.stream_required().await;
            let epoch = self.freshness.epoch();
            let from = if term.is_some() { self.bus.take_over().await } else { self.freshness.watermark() };
            // A stream that is opened at the moment at which it was invalidated would end there again.
            let open_at = if invalidated == Some(from) { from.next() } else { from };
            let before = self.freshness.watermark();
            let ended = self.follow(Span { from, open_at, term }, epoch, patience).await;
            let has_moved = self.freshness.watermark() > before;
            // The next stream gets more time only if this one did not advance the watermark.
            if has_moved {
                patience = PATIENCE;
            } else if matches!(ended, Ended::Failed(_) | Ended::Lagging) {
                patience = PATIENCE_MAX.min(patience * 2);
            }
            has_warned &= !has_moved;
            match ended {
                Ended::Invalidated(at) => {
                    tracing::warn!("the database was dropped: all facts are read again");
                    self.outdate_all(at, epoch).await;
                    invalidated = Some(at);
                }
                Ended::Lost(why) => self.start_over(&why, epoch).await,
                Ended::Failed(error) => {
                    if !has_warned {
                        tracing::warn!(%error, "changes cannot be followed: each fact is read again after MAX_STALENESS");
                    }
                    has_warned = true;
                    self.give_up_lease().await;
                    sleep(PAUSE).await;
                }
                Ended::Lagging => {
                    tracing::debug!("the change stream lags behind and is opened again");
                    self.give_up_lease().await;
                }
                Ended::RoleChanged => {}
            }
        }
    }

    /// Waits until this instance must run a stream: as the leader, whose term is returned, or because the bus does not cover
    /// all changes.
    async fn stream_required(&self) -> Option<u64> {
        let Some(lease) = &self.lease else { return None };
        let mut terms = lease.terms();
        loop {
            let term = *terms.borrow_and_update();
            if term.is_some() {
                self.bus.set_following_source(true);
                return term;
            }
            if self.bus.covers_all_changes() {
                self.bus.set_following_source(false);
            } else {
                // The log may have what was missed. If it does not, the subscription may no longer work.
                self.bus.catch_up().await;
                if !self.bus.covers_all_changes() {
                    self.bus.resubscribe();
                    self.bus.set_following_source(true);
                    return None;
                }
            }
            drop(timeout(COVERAGE_INTERVAL, terms.changed()).await);
        }
    }

    /// Lets another instance become the leader, as this one cannot follow the source.
    async fn give_up_lease(&self) {
        if let Some(lease) = &self.lease {
            lease.give_up().await;
        }
    }

    /// Publishes that anything may have changed up to a moment.
    async fn outdate_all(&self, at: Moment, epoch: Epoch) {
        let changes = vec![Change { at, what: Changed::Everything }];
        let change_batch = ChangeBatch { from: self.freshness.watermark(), to: at, changes };
        let is_leader = self.lease.as_ref().is_some_and(|lease| lease.is_leader());
        if self.publish(change_batch, Instant::now(), is_leader, epoch).await.is_err() {
            self.give_up_lease().await;
        }
    }

    /// Goes on at a fresh probe, after an unknown number of changes was missed.
    async fn start_over(&self, why: &str, epoch: Epoch) {
        match self.prober.probe_since(LocalTime::now(), Deadline::after(PATIENCE_MAX)).await {
            Ok(probe) => {
                tracing::warn!(why, "changes were lost: all facts are read again");
                self.outdate_all(probe.moment, epoch).await;
            }
            Err(_) => sleep(PAUSE).await,
        }
    }

    /// Applies a change batch, which arrived at `received`. The leader (`to_all`) publishes it to the other instances, too.
    async fn publish(
        &self,
        change_batch: ChangeBatch,
        received: Instant,
        to_all: bool,
        epoch: Epoch,
    ) -> Result<Published, LinkError> {
        let is_current = self.bus.apply(change_batch.clone(), epoch);
        if !change_batch.changes.is_empty() {
            self.change_metrics.took(Via::Stream, received.elapsed());
        }
        // A change batch of an earlier epoch is not published either.
        if !is_current || !to_all {
            return Ok(Published::Logged);
        }
        let published = self.bus.publish(change_batch).await;
        published.inspect_err(|error| match error {
            LinkError::Refused(_) => {
                let remedy = "see docs/redis.md for the rights that its user requires; Redis 7 or newer is required";
                tracing::warn!(error = %error_chain(error), remedy, "changes cannot be published to the other instances");
            }
            LinkError::Down | LinkError::TimedOut | LinkError::Failed(_) => {
                tracing::debug!(error = %error_chain(error), "a change batch could not be published");
            }
        })
    }

    /// Opens a stream and publishes what it returns, until it ends.
    async fn follow(&self, span: Span, epoch: Epoch, patience: Duration) -> Ended {
        let mut stream = match self.source.open_stream(span.open_at, patience).await {
            Ok(stream) => stream,
            Err(error) => return error.into(),
        };
        let followed = self.change_metrics.follow();
        let ended = self.publish_all(&mut *stream, span, epoch, patience).await;
        drop(followed);
        ended
    }

    /// Publishes what the stream returns, until it ends or this instance has a reason to close it.
    async fn publish_all(&self, stream: &mut dyn ChangeStream, span: Span, epoch: Epoch, patience: Duration) -> Ended {
        let mut batches = Batches::new(span.from);
        let mut was_in_time = LocalTime::now();
        let mut was_logged = was_in_time;
        loop {
            let batch = match stream.next(patience).await {
                Ok(batch) => batch,
                Err(error) => return error.into(),
            };
            let received = Instant::now();
            let invalidated = batch.invalidated;
            let is_within_a_moment = batches.is_within_a_moment(&batch);
            let newest_probe = self.freshness.newest_probe().map_or(Moment::default(), |probe| probe.moment);
            let change_batch = batches.next(batch, newest_probe);
            // If the term is no longer the stream's, the change batch is only applied here. What a leader publishes must follow
            // the log without a gap, and only a stream that is opened for the new term begins where the log ends.
            let term = self.lease.as_ref().and_then(|lease| lease.term());
            let is_leader = term.is_some() && term == span.term;
            let published = self.publish(change_batch, received, is_leader, epoch).await;
            if let Some(at) = invalidated {
                return Ended::Invalidated(at);
            }
            let now = LocalTime::now();
            if matches!(published, Ok(Published::Logged)) {
                was_logged = now;
            }
            if published.is_err() {
                self.give_up_lease().await;
                return Ended::RoleChanged;
            }
            // For longer than `PATIENCE`, the log has not accepted this leader's change batches, because the log ends at their
            // `to` or later. So an instance that misses one does not find it in the log. Either another instance has
            // published later moments, or the log is of another epoch. The new term starts by reading the log, which shows
            // which of the two it is.
            if now.since(was_logged) > PATIENCE
                && let Some(lease) = &self.lease
            {
                lease.release().await;
                return Ended::RoleChanged;
            }
            if term.is_some() && term != span.term || term.is_none() && self.bus.covers_all_changes() {
                return Ended::RoleChanged;
            }
            let is_behind = self
                .freshness
                .probe_sent_before(now.minus(PATIENCE))
                .is_some_and(|probe| probe.moment > batches.complete_to());
            // All of a large transaction is of one moment. As long as more of it comes, the stream does not lag.
            if !is_behind || is_within_a_moment {
                was_in_time = now;
            }
            if now.since(was_in_time) > patience || epoch != self.freshness.epoch() {
                return Ended::Lagging;
            }
            if batches.early() > EARLY_MAX {
                return Ended::Lost(format!("more than {EARLY_MAX} changes arrived that no change batch covers yet"));
            }
        }
    }
}

/// Applies what changes in files, which each probe checks for changes. While nothing changes, applies an empty change batch
/// once a second, as long as the files can be read.
pub async fn follow_documents(mut changes: mpsc::Receiver<ChangeBatch>, freshness: Arc<Freshness>, bus: Arc<Bus>) {
    loop {
        match timeout(IDLE_INTERVAL, changes.recv()).await {
            Ok(Some(change_batch)) => {
                bus.apply(change_batch, freshness.epoch());
            }
            Ok(None) => return,
            Err(_) => {
                let at = freshness.watermark();
                if freshness.required_moment(LocalTime::now().minus(IDLE_INTERVAL)).is_some() {
                    bus.apply(ChangeBatch { from: at, to: at, changes: Vec::new() }, freshness.epoch());
                }
            }
        }
    }
}
