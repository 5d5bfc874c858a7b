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
pub use log::{News, Watched};
pub use redis::{COMMAND_TIME, Published, Wire};
use tokio::time::timeout;

use self::redis::Heard;
use crate::{
    freshness::{Change, Changed, Clock, Epoch, Freshness, LocalTime, Moment, Statement},
    link::LinkError,
    schema::Schema,
    source::{Deadline, Prober, SourceError},
    telemetry::{Hearing, Metrics, Seldom, Via},
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
static UNTOLD: Seldom = Seldom::per_second(10);

/// How many seconds the log may be behind for who speaks next to say again what has happened since.
const RESAID_MAX: u32 = 60;

/// Carries statements and hints.
pub struct Bus {
    freshness: Arc<Freshness>,
    log: Arc<Mutex<Log>>,
    line: Option<Line>,
    hearing: Hearing,
}

/// What goes on between instances, as this one sees it.
struct Line {
    wire: Wire,
    schema: Arc<Schema>,
    prober: Prober,
    metrics: Arc<Metrics>,
    /// Up to where everything was heard from others, and in which history.
    heard: Mutex<(Epoch, Moment)>,
    /// Whether this instance follows the source by itself: then a gap in what is heard is nothing to it.
    is_followed: AtomicBool,
}

impl Bus {
    /// A bus to one instance.
    #[must_use]
    pub fn new(freshness: Arc<Freshness>) -> Self {
        Self { freshness, log: Arc::default(), line: None, hearing: Hearing::default() }
    }

    /// A bus to all instances on a wire.
    #[must_use]
    pub fn over(self, wire: Wire, schema: Arc<Schema>, prober: Prober, metrics: Arc<Metrics>) -> Self {
        let (heard, is_followed) = (Mutex::default(), AtomicBool::new(false));
        Self { line: Some(Line { wire, schema, prober, metrics, heard, is_followed }), ..self }
    }

    /// What is counted of what is heard.
    #[must_use]
    pub fn hearing(&self) -> &Hearing {
        &self.hearing
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
        if let Some(line) = &self.line {
            let reading = async {
                line.wire.wait().await;
                line.last_chain().await
            };
            match timeout(READING_TIME, reading).await {
                Ok(Ok(read)) => chain = read,
                Ok(Err(error)) => tracing::debug!(%error, "the log cannot be read"),
                Err(_) => tracing::debug!("the log cannot be read in time"),
            }
        }
        // After the log was read: whatever that reaches up to has happened by now, if it is of this source.
        let now = prober.sent_since(LocalTime::now(), deadline).await?.moment;
        let epoch = self.freshness.epoch();
        match chain.first() {
            Some(first) if chain.iter().all(|statement| latest(statement) <= now) => self.begin_at(first.from),
            _ => {
                chain.clear();
                self.begin_at(now);
            }
        }
        for statement in chain {
            self.say(statement, epoch);
        }
        if let Some(line) = &self.line {
            line.has_heard(self.freshness.applied(), epoch);
            line.wire.begin();
        }
        Ok(())
    }

    /// As [`Bus::begin`], where nothing is said and hints are all that is heard.
    pub fn begin_hints(&self) {
        if let Some(line) = &self.line {
            line.wire.begin();
        }
    }

    /// Says within this process what has changed, as seen in `epoch`: who hears it by now has applied it. Says whether that is
    /// the history still.
    pub fn say(&self, statement: Statement, epoch: Epoch) -> bool {
        let is_current = self.freshness.hear(&statement, epoch);
        if is_current {
            lock(&self.log).say(statement, epoch);
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
    pub fn watch(&self, since: Option<Moment>) -> Watched {
        Watched::new(&self.log, since)
    }

    /// Says to the other instances what has changed.
    ///
    /// # Errors
    /// They may not have heard it: who speaks must not go on as if they had.
    pub async fn publish(&self, statement: Statement) -> Result<Published, LinkError> {
        match &self.line {
            Some(line) => line.wire.publish(statement).await,
            None => Ok(Published::Kept),
        }
    }

    /// Says to the other instances what is outdated, as far as they listen. Says whether Redis took it.
    pub async fn tell(&self, hint: &Hint) -> bool {
        let Some(line) = &self.line else { return false };
        let told = line.wire.hint(hint.encode()).await;
        let is_told = told.inspect_err(|error| {
            if let Some(suppressed) = UNTOLD.admit() {
                tracing::warn!(%error, suppressed, "other instances were not told what is outdated");
            }
        });
        let is_all = line.prober.clock() == Clock::Cluster && hint.changed(&line.schema) == [Changed::Everything];
        is_told.is_ok() && (!is_all || line.keep_everything(hint.at()).await)
    }

    /// Whether the other instances tell this one of all that changes, so that it need not follow the source itself.
    #[must_use]
    pub fn tells_all(&self) -> bool {
        let Some(line) = &self.line else { return false };
        let before = LocalTime::now().minus(PATIENCE);
        let (epoch, heard) = *line.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = epoch == self.freshness.epoch();
        line.wire.listens()
            && is_current
            && self.freshness.probed_before(before).is_none_or(|probe| probe.moment <= heard)
    }

    /// Says whether this instance follows the source by itself from now on.
    pub fn set_followed(&self, is_followed: bool) {
        if let Some(line) = &self.line {
            line.is_followed.store(is_followed, Ordering::Release);
        }
    }

    /// Takes in what the log has and this instance has not heard.
    pub async fn catch_up(&self) {
        let Some(line) = &self.line else { return };
        let reading = async {
            let mut pages = line.wire.log_after(self.freshness.applied());
            while let Some(page) = pages.next().await? {
                // What follows on what is not believed is not believed either.
                if !page.into_iter().all(|statement| self.take_in(line, statement)) {
                    break;
                }
            }
            Ok::<_, LinkError>(())
        };
        match timeout(READING_TIME, reading).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the log cannot be read"),
            Err(_) => tracing::debug!("the log cannot be read in time"),
        }
    }

    /// Replaces the subscription, which seems to be deaf.
    pub fn listen_again(&self) {
        if let Some(line) = &self.line {
            line.wire.listen_again();
        }
    }

    /// Where who is to speak begins, once it has taken in what others have said: no later than the log ends, so that
    /// nothing is missing between, where that was not long ago. A log that reaches past a fresh probe is of another history,
    /// and removed.
    pub async fn take_over(&self) -> Moment {
        self.catch_up().await;
        let applied = self.freshness.applied();
        let Some(line) = &self.line else { return applied };
        match line.wire.log_end().await {
            Ok(Some(end)) if end <= applied => {
                let is_near = applied.seconds().saturating_sub(end.seconds()) <= RESAID_MAX;
                if is_near { end } else { applied }
            }
            Ok(Some(end)) => {
                let probe = line.prober.sent_since(LocalTime::now(), Deadline::after(PROBE_TIME)).await;
                if probe.is_ok_and(|probe| probe.moment < end) {
                    tracing::warn!("the log in Redis is of another history, and removed");
                    if let Err(error) = line.wire.remove_log().await {
                        tracing::debug!(%error, "the log cannot be removed");
                    }
                }
                applied
            }
            Ok(None) | Err(_) => applied,
        }
    }

    /// Listens for ever to what other instances say.
    pub async fn listen(&self) {
        let Some(line) = &self.line else { return };
        // Without change streams nobody speaks, and hints are rare.
        let silence_max = if line.prober.clock() == Clock::Cluster { SILENCE_MAX } else { SILENCE_MAX_OF_HINTS };
        let mut ear = line.wire.ear(silence_max);
        loop {
            self.hear(line, ear.next().await).await;
        }
    }

    async fn hear(&self, line: &Line, heard: Heard) {
        match heard {
            Heard::Listening => self.catch_up().await,
            Heard::Statement(statement) => {
                let (began, tells_changes) = (Instant::now(), !statement.changes.is_empty());
                // What is missing between may be in the log.
                if statement.from > self.freshness.applied() {
                    line.metrics.repaired();
                    self.catch_up().await;
                }
                if self.take_in(line, statement) && tells_changes {
                    self.hearing.took(Via::Bus, began.elapsed());
                }
            }
            Heard::Hint(bytes) => self.hear_hint(line, &bytes).await,
        }
    }

    /// Applies what was heard, if it can be believed. Says whether it can.
    fn take_in(&self, line: &Line, statement: Statement) -> bool {
        let epoch = self.freshness.epoch();
        if !self.has_come(latest(&statement)) {
            line.metrics.dropped();
            return false;
        }
        let has_gap = statement.from > self.freshness.applied();
        if has_gap && line.is_followed.load(Ordering::Acquire) {
            // What has changed has changed; up to where, the own stream will tell.
            self.hint(statement.changes, epoch);
            return true;
        }
        let to = statement.to;
        if self.say(statement, epoch) {
            line.has_heard(to, epoch);
        }
        true
    }

    async fn hear_hint(&self, line: &Line, bytes: &[u8]) {
        let epoch = self.freshness.epoch();
        let began = Instant::now();
        let Some(hint) = Hint::decode(bytes) else {
            line.metrics.dropped();
            return;
        };
        // Ticks of another instance mean nothing here: it was outdated before this was heard.
        let at = if line.prober.clock() == Clock::Cluster {
            self.has_come(hint.at()).then(|| hint.at())
        } else {
            line.prober.sent_since(LocalTime::now(), Deadline::after(PROBE_TIME)).await.ok().map(|probe| probe.moment)
        };
        let Some(at) = at else {
            line.metrics.dropped();
            return;
        };
        self.hint(hint.changed(&line.schema).into_iter().map(|what| Change { at, what }).collect(), epoch);
        self.hearing.took(Via::Bus, began.elapsed());
    }

    /// Whether a moment is one of this source's, and no later than now: up to some seconds after the newest probe's it is taken
    /// to be. Where the source cannot be asked, what is later than that is not waited for: the log will have it, and nothing
    /// remembered is worth much by then.
    fn has_come(&self, moment: Moment) -> bool {
        let newest = self.freshness.newest_probe().map_or(Moment::default(), |probe| probe.moment);
        moment.seconds() <= newest.seconds().saturating_add(AHEAD_MAX)
    }
}

/// The latest moment that a statement tells of.
fn latest(statement: &Statement) -> Moment {
    statement.changes.iter().map(|change| change.at).fold(statement.to, Moment::max)
}

impl Line {
    /// The statements of the log that follow one another without a gap, up to its end.
    async fn last_chain(&self) -> Result<Vec<Statement>, LinkError> {
        let mut chain: Vec<Statement> = Vec::new();
        let mut pages = self.wire.log();
        while let Some(page) = pages.next().await? {
            for statement in page {
                if chain.last().is_some_and(|last| statement.from > last.to) {
                    chain.clear();
                }
                chain.push(statement);
            }
        }
        Ok(chain)
    }

    /// Has it stand in the log that everything has changed, for those who start later. The log may have got past the moment:
    /// then it is said of a later one. Says whether it does.
    async fn keep_everything(&self, mut at: Moment) -> bool {
        for _ in 0..APPENDS_MAX {
            let changes = vec![Change { at, what: Changed::Everything }];
            match self.wire.publish(Statement { from: at, to: at, changes }).await {
                Ok(Published::Kept) => return true,
                Ok(Published::Passed) => {}
                Err(error) => {
                    tracing::warn!(%error, "who starts later is not told that all is outdated");
                    return false;
                }
            }
            let probe = self.prober.sent_since(LocalTime::now(), Deadline::after(PROBE_TIME)).await;
            at = probe.map_or(at, |probe| probe.moment);
        }
        false
    }

    fn has_heard(&self, to: Moment, epoch: Epoch) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        *heard = if heard.0 == epoch { (epoch, heard.1.max(to)) } else { (epoch, to) };
    }
}
