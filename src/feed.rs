//! The feed: what changes at the source becomes statements (design section 5, points 6 and 7).
//!
//! Judges nothing: what follows from a statement is `freshness`'s business.

mod event;
mod lease;
mod stream;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use lease::Lease;
use mongodb::Database;
use stream::{Ended, Stream};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    bus::{Bus, Published},
    diagnosis::error_chain,
    freshness::{Change, ChangeBatch, Changed, Epoch, Freshness, LocalTime, Moment},
    link::LinkError,
    schema::Schema,
    source::{Deadline, Prober, SourceError},
    telemetry::Via,
};

/// How far the stream may lag behind the instance's own probes, and how long it may take to answer, before it is opened anew.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long at most, where opening it anew again and again has not helped.
const PATIENCE_MAX: Duration = Duration::from_secs(8);

/// How long to wait before a stream that could not be opened is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked whether others still tell all that changes.
const LOOK: Duration = Duration::from_millis(100);

/// How long nothing is said of files that have not changed.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How many changes are kept that are later than what may be said of all, as those of a transaction are. Beyond that, all
/// facts are read again.
const EARLY_MAX: usize = 100_000;

/// Says what changes in MongoDB, for one or many instances.
pub struct Feed {
    /// The schema, which tells what changes matter.
    pub schema: Arc<Schema>,
    /// The database that is followed.
    pub database: Database,
    /// What the instance knows.
    pub freshness: Arc<Freshness>,
    /// Who asks for the source's time.
    pub prober: Prober,
    /// Who carries what is said.
    pub bus: Arc<Bus>,
    /// What chooses who speaks, where there are other instances.
    pub lease: Option<Arc<Lease>>,
}

impl Feed {
    /// Finds the moment to begin at: everything before it counts for nothing.
    ///
    /// # Errors
    /// The source could not be asked for its time.
    pub async fn begin(&self, deadline: Deadline) -> Result<(), SourceError> {
        self.bus.begin(&self.prober, deadline).await
    }

    /// Follows for ever, from W on, whatever happens to the stream; where others tell all that changes, waits until they do
    /// not, or it is to speak for them.
    pub async fn run(self) {
        let mut patience = PATIENCE;
        let mut invalidated = None;
        let mut has_complained = false;
        loop {
            let term = self.called_for().await;
            let epoch = self.freshness.epoch();
            let from = if term.is_some() { self.bus.take_over().await } else { self.freshness.watermark() };
            // A stream that is opened at the moment at which it was invalidated would end there again.
            let open_at = if invalidated == Some(from) { from.next() } else { from };
            let before = self.freshness.watermark();
            let ended = self.follow(Span { from, open_at, term }, epoch, patience).await;
            let has_moved = self.freshness.watermark() > before;
            // Only a stream that did not get on is given more time.
            if has_moved {
                patience = PATIENCE;
            } else if matches!(ended, Ended::Failed(_) | Ended::Lagging) {
                patience = PATIENCE_MAX.min(patience * 2);
            }
            has_complained &= !has_moved;
            match ended {
                Ended::Invalidated(at) => {
                    tracing::warn!("a database was dropped or renamed: all facts are read again");
                    self.forget(at, epoch).await;
                    invalidated = Some(at);
                }
                Ended::Lost(error) => self.start_over(&error, epoch).await,
                Ended::Failed(error) => {
                    if !has_complained {
                        tracing::warn!(%error, "changes cannot be followed: facts are believed for MAX_STALENESS");
                    }
                    has_complained = true;
                    self.leave_to_others().await;
                    sleep(PAUSE).await;
                }
                Ended::Lagging => {
                    tracing::debug!("the change stream lags behind, and is opened anew");
                    self.leave_to_others().await;
                }
                Ended::Relieved => {}
            }
        }
    }

    /// Done when a stream is called for: by the lease, whose term it says, or as others do not tell all that changes.
    async fn called_for(&self) -> Option<u64> {
        let Some(lease) = &self.lease else { return None };
        let mut held = lease.watch();
        loop {
            let term = *held.borrow_and_update();
            if term.is_some() {
                self.bus.set_following_source(true);
                return term;
            }
            if self.bus.covers_all_changes() {
                self.bus.set_following_source(false);
            } else {
                // What was missed may be in the log; else the subscription may be deaf.
                self.bus.catch_up().await;
                if !self.bus.covers_all_changes() {
                    self.bus.resubscribe();
                    self.bus.set_following_source(true);
                    return None;
                }
            }
            drop(timeout(LOOK, held.changed()).await);
        }
    }

    /// Lets another instance speak, where this one cannot follow.
    async fn leave_to_others(&self) {
        if let Some(lease) = &self.lease {
            lease.give_up().await;
        }
    }

    /// Says that anything may have changed up to a moment.
    async fn forget(&self, at: Moment, epoch: Epoch) {
        let changes = vec![Change { at, what: Changed::Everything }];
        let change_batch = ChangeBatch { from: self.freshness.watermark(), to: at, changes };
        let is_leader = self.lease.as_ref().is_some_and(|lease| lease.is_held());
        if self.publish(change_batch, Instant::now(), is_leader, epoch).await.is_err() {
            self.leave_to_others().await;
        }
    }

    /// Goes on at a fresh probe: what was between is not known.
    async fn start_over(&self, why: &str, epoch: Epoch) {
        match self.prober.probe_since(LocalTime::now(), Deadline::after(PATIENCE_MAX)).await {
            Ok(probe) => {
                tracing::warn!(why, "changes were lost: all facts are read again");
                self.forget(probe.moment, epoch).await;
            }
            Err(_) => sleep(PAUSE).await,
        }
    }

    /// Applies a statement that was `received` just now, and says it to the others as well where this instance is to.
    async fn publish(
        &self,
        change_batch: ChangeBatch,
        received: Instant,
        to_all: bool,
        epoch: Epoch,
    ) -> Result<Published, LinkError> {
        let is_current = self.bus.apply(change_batch.clone(), epoch);
        if !change_batch.changes.is_empty() {
            self.bus.change_metrics().took(Via::Stream, received.elapsed());
        }
        // What is of another history is not said to others either.
        if !is_current || !to_all {
            return Ok(Published::Logged);
        }
        let published = self.bus.publish(change_batch).await;
        published.inspect_err(|error| match error {
            LinkError::Refused(_) => {
                let remedy = "see docs/redis.md for the rights that its user needs; Redis 7 or newer is needed";
                tracing::warn!(error = %error_chain(error), remedy, "other instances are not told what changes");
            }
            _ => tracing::debug!(error = %error_chain(error), "a statement could not be published"),
        })
    }

    /// Says what a stream shows until it ends.
    async fn follow(&self, span: Span, epoch: Epoch, patience: Duration) -> Ended {
        let mut stream = match Stream::open(&self.schema, &self.database, span.open_at, patience).await {
            Ok(stream) => stream,
            Err(ended) => return ended,
        };
        let followed = self.bus.change_metrics().follow();
        let ended = self.publish_all(&mut stream, span, epoch, patience).await;
        drop(followed);
        stream.close().await;
        ended
    }

    async fn publish_all(&self, stream: &mut Stream, span: Span, epoch: Epoch, patience: Duration) -> Ended {
        let mut published_to = span.from;
        // What was said early.
        let mut early: Vec<Change> = Vec::new();
        let mut was_in_time = LocalTime::now();
        let mut was_kept = was_in_time;
        loop {
            let batch = match stream.next(patience).await {
                Ok(batch) => batch,
                Err(ended) => return ended,
            };
            let received = Instant::now();
            let is_within_a_moment = batch.has_events && batch.token.previous() <= published_to;
            // Strictly before the batch's token, at whose moment more may come; and nothing that no probe has confirmed.
            let known = self.freshness.newest_probe().map_or(Moment::default(), |probe| probe.moment);
            let to = batch.token.previous().min(known).max(published_to);
            // Later changes are said early, too, and said again when they are covered.
            let mut changes = batch.changes;
            early.extend(changes.iter().filter(|change| change.at > to).cloned());
            if to > published_to {
                changes.extend(early.extract_if(.., |change| change.at <= to));
            }
            // Who was relieved, or takes office, ends here: what is said to others must have no gap.
            let term = self.lease.as_ref().and_then(|lease| lease.term());
            let is_leader = term.is_some() && term == span.term;
            let published =
                self.publish(ChangeBatch { from: published_to, to, changes }, received, is_leader, epoch).await;
            published_to = to;
            if let Some(at) = batch.invalidated {
                return Ended::Invalidated(at);
            }
            let now = LocalTime::now();
            if matches!(published, Ok(Published::Logged)) {
                was_kept = now;
            }
            if published.is_err() {
                self.leave_to_others().await;
                return Ended::Relieved;
            }
            // What is not in the log cannot be repaired from it: somebody else is ahead, or it is of another history. The next
            // term begins with finding that out.
            if now.since(was_kept) > PATIENCE
                && let Some(lease) = &self.lease
            {
                lease.release().await;
                return Ended::Relieved;
            }
            if term.is_some() && term != span.term || term.is_none() && self.bus.covers_all_changes() {
                return Ended::Relieved;
            }
            // A large transaction is all of one moment: while more of it comes, the stream gets on.
            let is_behind =
                self.freshness.probe_sent_before(now.minus(PATIENCE)).is_some_and(|probe| probe.moment > published_to);
            if !is_behind || is_within_a_moment {
                was_in_time = now;
            }
            if now.since(was_in_time) > patience || epoch != self.freshness.epoch() {
                return Ended::Lagging;
            }
            if early.len() > EARLY_MAX {
                return Ended::Lost("more changed at one moment than is kept".to_owned());
            }
        }
    }
}

/// Where a stream begins, and for whom.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// From where on it is said what changes.
    from: Moment,
    /// The first moment that it shows.
    open_at: Moment,
    /// The term of office in which it is said to all.
    term: Option<u64>,
}

/// Says what changes in files, which whoever probes them has found out, and now and then that nothing has.
pub async fn follow_documents(mut changes: mpsc::Receiver<ChangeBatch>, freshness: Arc<Freshness>, bus: Arc<Bus>) {
    loop {
        match timeout(SILENCE_MAX, changes.recv()).await {
            Ok(Some(change_batch)) => {
                bus.apply(change_batch, freshness.epoch());
            }
            Ok(None) => return,
            Err(_) => {
                let at = freshness.watermark();
                if freshness.required_moment(LocalTime::now().minus(SILENCE_MAX)).is_some() {
                    bus.apply(ChangeBatch { from: at, to: at, changes: Vec::new() }, freshness.epoch());
                }
            }
        }
    }
}
