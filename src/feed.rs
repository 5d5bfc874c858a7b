//! The feed: what changes at the source becomes statements (design section 5, points 6 and 7).
//!
//! Judges nothing: what follows from a statement is `freshness`'s business.

mod event;
mod stream;

use std::{sync::Arc, time::Duration};

use mongodb::Database;
use stream::{Ended, Stream};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    bus::Bus,
    freshness::{Change, Changed, Epoch, Freshness, LocalTime, Moment, Statement},
    schema::Schema,
    source::{Deadline, Prober, SourceError},
};

/// How far the stream may lag behind the instance's own probes, and how long it may take to answer, before it is opened anew.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long at most, where opening it anew again and again has not helped.
const PATIENCE_MAX: Duration = Duration::from_secs(8);

/// How long to wait before a stream that could not be opened is tried again.
const PAUSE: Duration = Duration::from_millis(100);

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
}

impl Feed {
    /// Finds the moment to begin at: everything before it counts for nothing.
    ///
    /// # Errors
    /// The source could not be asked for its time.
    pub async fn begin(&self, deadline: Deadline) -> Result<(), SourceError> {
        let probe = self.prober.sent_since(LocalTime::now(), deadline).await?;
        self.bus.begin_at(probe.moment);
        Ok(())
    }

    /// Follows for ever, from W on, whatever happens to the stream.
    pub async fn run(self) {
        let mut patience = PATIENCE;
        let mut invalidated = None;
        let mut has_complained = false;
        loop {
            let epoch = self.freshness.epoch();
            let from = self.freshness.applied();
            // A stream that is opened at the moment at which it was invalidated would end there again.
            let open_at = if invalidated == Some(from) { from.next() } else { from };
            let ended = self.follow(from, open_at, epoch, patience).await;
            let has_moved = self.freshness.applied() > from;
            patience = if has_moved { PATIENCE } else { PATIENCE_MAX.min(patience * 2) };
            has_complained &= !has_moved;
            match ended {
                Ended::Invalidated(at) => {
                    tracing::warn!("a database was dropped or renamed: all facts are read again");
                    self.forget(at, epoch);
                    invalidated = Some(at);
                }
                Ended::Lost(error) => self.start_over(&error, epoch).await,
                Ended::Failed(error) => {
                    if !has_complained {
                        tracing::warn!(%error, "changes cannot be followed: facts are believed for MAX_STALENESS");
                    }
                    has_complained = true;
                    sleep(PAUSE).await;
                }
                Ended::Lagging => tracing::debug!("the change stream lags behind, and is opened anew"),
            }
        }
    }

    /// Says that anything may have changed up to a moment.
    fn forget(&self, at: Moment, epoch: Epoch) {
        let changes = vec![Change { at, what: Changed::Everything }];
        self.bus.say(Statement { from: self.freshness.applied(), to: at, changes }, epoch);
    }

    /// Goes on at a fresh probe: what was between is not known.
    async fn start_over(&self, why: &str, epoch: Epoch) {
        match self.prober.sent_since(LocalTime::now(), Deadline::after(PATIENCE_MAX)).await {
            Ok(probe) => {
                tracing::warn!(why, "changes were lost: all facts are read again");
                self.forget(probe.moment, epoch);
            }
            Err(_) => sleep(PAUSE).await,
        }
    }

    /// Says what a stream shows until it ends.
    async fn follow(&self, from: Moment, open_at: Moment, epoch: Epoch, patience: Duration) -> Ended {
        let mut stream = match Stream::open(&self.schema, &self.database, open_at, patience).await {
            Ok(stream) => stream,
            Err(ended) => return ended,
        };
        let ended = self.say_all(&mut stream, from, epoch, patience).await;
        stream.close().await;
        ended
    }

    async fn say_all(&self, stream: &mut Stream, from: Moment, epoch: Epoch, patience: Duration) -> Ended {
        let mut said = from;
        // What was said early.
        let mut early: Vec<Change> = Vec::new();
        let mut was_in_time = LocalTime::now();
        loop {
            let batch = match stream.next(patience).await {
                Ok(batch) => batch,
                Err(ended) => return ended,
            };
            // Strictly before the batch's token, at whose moment more may come; and nothing that no probe has confirmed.
            let known = self.freshness.newest_probe().map_or(Moment::default(), |probe| probe.moment);
            let to = batch.token.previous().min(known).max(said);
            // Later changes are said early, too, and said again when they are covered.
            let mut changes = batch.changes;
            early.extend(changes.iter().filter(|change| change.at > to).cloned());
            if to > said {
                changes.extend(early.extract_if(.., |change| change.at <= to));
            }
            self.bus.say(Statement { from: said, to, changes }, epoch);
            said = to;
            if let Some(at) = batch.invalidated {
                return Ended::Invalidated(at);
            }
            let now = LocalTime::now();
            if self.freshness.probed_before(now.minus(PATIENCE)).is_none_or(|probe| probe.moment <= said) {
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

/// Says what changes in files, which whoever probes them has found out, and now and then that nothing has.
pub async fn follow_documents(mut changes: mpsc::Receiver<Statement>, freshness: Arc<Freshness>, bus: Arc<Bus>) {
    loop {
        match timeout(SILENCE_MAX, changes.recv()).await {
            Ok(Some(statement)) => bus.say(statement, freshness.epoch()),
            Ok(None) => return,
            Err(_) => {
                let at = freshness.applied();
                if freshness.needed(LocalTime::now().minus(SILENCE_MAX)).is_some() {
                    bus.say(Statement { from: at, to: at, changes: Vec::new() }, freshness.epoch());
                }
            }
        }
    }
}
