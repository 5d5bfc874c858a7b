//! Probes of a source, shared by all who wait for one (design section 5, point 5).
//!
//! Sends them and notes what they returned. What follows from that is `freshness`'s business.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout_at},
};
use tracing::Instrument as _;

use super::{Deadline, Source, SourceError};
use crate::{
    diagnosis::error_chain,
    freshness::{Clock, Epoch, Freshness, LocalTime, Probe},
};

/// How often a probe is sent, whether somebody waits for it or not.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// How long a probe may take: so long that a primary which is only slow still answers.
const PROBE_TIME: Duration = Duration::from_secs(2);

/// How long no probe may be answered before it is said.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How many probes are under way at once.
const UNDERWAY_MAX: usize = 8;

/// A probe that was sent, and what became of it.
#[derive(Clone)]
struct Sent {
    at: LocalTime,
    outcome: watch::Receiver<Option<Result<(), SourceError>>>,
}

/// Sends probes. Clones share theirs.
#[derive(Clone)]
pub struct Prober {
    source: Arc<dyn Source>,
    freshness: Arc<Freshness>,
    /// What else there is to do when the source's time has gone back.
    forget: Arc<dyn Fn() + Send + Sync>,
    underway: Arc<Mutex<Vec<Sent>>>,
}

impl Prober {
    /// A prober that tells `freshness` what it finds out. `forget` empties what else is remembered, for a source whose time
    /// turns out to have gone back.
    pub fn new(source: Arc<dyn Source>, freshness: Arc<Freshness>, forget: impl Fn() + Send + Sync + 'static) -> Self {
        Self { source, freshness, forget: Arc::new(forget), underway: Arc::default() }
    }

    /// Probes for ever, so that there is always a recent one while the source answers.
    pub async fn run(self) {
        let mut ticks = interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut answered, mut is_silent, mut why) = (LocalTime::now(), false, None);
        loop {
            ticks.tick().await;
            let deadline = Deadline::after(PROBE_TIME);
            tokio::select! {
                outcome = self.probe_since(LocalTime::now(), deadline) => why = outcome.err(),
                // One that does not answer does not keep the next one from being sent.
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
            }
            answered = answered.max(self.freshness.newest_probe().map_or(answered, |probe| probe.sent));
            let was_silent = std::mem::replace(&mut is_silent, LocalTime::now().since(answered) > SILENCE_MAX);
            match &why {
                _ if was_silent && !is_silent => tracing::info!("the source answers again"),
                _ if was_silent || !is_silent => {}
                Some(error) => tracing::warn!(error = %error_chain(error), "the source cannot be asked for its time"),
                None => tracing::warn!("the source does not say what time it is"),
            }
        }
    }

    /// Whose time it asks for.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.source.clock()
    }

    /// Which history its probes are of.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.freshness.epoch()
    }

    /// A probe that was sent no earlier than `since`: the last one, one that is under way, or a new one.
    ///
    /// # Errors
    /// The source's, or that there was no time left.
    pub async fn probe_since(&self, since: LocalTime, deadline: Deadline) -> Result<Probe, SourceError> {
        loop {
            if let Some(probe) = self.freshness.newest_probe().filter(|probe| probe.sent >= since) {
                return Ok(probe);
            }
            let mut sent = self.join_or_send(since);
            let outcome = timeout_at(deadline.instant(), sent.outcome.wait_for(Option::is_some)).await;
            let outcome = outcome.map_err(|_| SourceError::TimedOut)?.map(|outcome| outcome.clone());
            match outcome {
                Ok(Some(Err(error))) if sent.at >= since => return Err(error),
                Ok(_) => {}
                // It panicked: the next one may not.
                Err(_) => tokio::task::yield_now().await,
            }
            if deadline.is_over() {
                return Err(SourceError::TimedOut);
            }
        }
    }

    /// A probe under way that will do; else a new one; else, where there are too many, the one that was sent last.
    fn join_or_send(&self, since: LocalTime) -> Sent {
        let mut underway = self.underway.lock().unwrap_or_else(PoisonError::into_inner);
        underway.retain(|sent| sent.outcome.borrow().is_none() && sent.outcome.has_changed().is_ok());
        if let Some(last) = underway.last().filter(|last| last.at >= since || underway.len() >= UNDERWAY_MAX) {
            return last.clone();
        }
        let (sender, outcome) = watch::channel(None);
        let sent = Sent { at: LocalTime::now(), outcome };
        underway.push(sent.clone());
        let (this, at) = (self.clone(), sent.at);
        let probe = async move {
            let outcome = this.send(at).await;
            let _nobody_waits = sender.send(Some(outcome));
        };
        tokio::spawn(probe.in_current_span());
        sent
    }

    /// Sends a probe. `at` is a time before that.
    async fn send(&self, at: LocalTime) -> Result<(), SourceError> {
        let (epoch, watermark) = (self.freshness.epoch(), self.freshness.watermark());
        let moment = self.source.probe(Deadline::after(PROBE_TIME)).await?;
        if self.freshness.record_probe(Probe { sent: at, moment }, watermark, epoch, &*self.forget) {
            tracing::error!(
                now = moment.as_u64(),
                before = watermark.as_u64(),
                "the source's time has gone back: it is another one, or was restored from a backup; all is forgotten"
            );
        }
        Ok(())
    }
}
