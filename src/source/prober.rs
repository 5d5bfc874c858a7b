//! The prober: sends probes to the source and records their results. Requests that wait for a probe at the same time share
//! one (docs/freshness.md, point 5).
//!
//! It does not decide what follows from a probe: `freshness` does.

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
    freshness::{Freshness, LocalTime, Probe},
};

/// How often a probe is sent, even if nothing waits for it.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// How long a probe may take. A primary that is merely slow answers within this time.
const PROBE_TIME: Duration = Duration::from_secs(2);

/// How long the source may leave all probes unanswered before that is logged.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// The most probes in flight at once.
const IN_FLIGHT_MAX: usize = 8;

/// A probe that was sent.
#[derive(Clone)]
struct SentProbe {
    at: LocalTime,
    /// The result, once there is one. If the probe panics, the sender is dropped without sending any.
    outcome: watch::Receiver<Option<Result<(), SourceError>>>,
}

/// Sends probes. Clones share the probes in flight.
#[derive(Clone)]
pub struct Prober {
    source: Arc<dyn Source>,
    freshness: Arc<Freshness>,
    /// Clears what else is cached when the source's time has gone back.
    forget: Arc<dyn Fn() + Send + Sync>,
    in_flight: Arc<Mutex<Vec<SentProbe>>>,
}

impl Prober {
    /// A prober that records its probes in `freshness`. It calls `forget`, which clears all other caches, when the
    /// source's time turns out to have gone back.
    pub fn new(source: Arc<dyn Source>, freshness: Arc<Freshness>, forget: impl Fn() + Send + Sync + 'static) -> Self {
        Self { source, freshness, forget: Arc::new(forget), in_flight: Arc::default() }
    }

    /// Sends probes at a fixed interval, so that there is always a recent one while the source answers. Never ends.
    pub async fn run(self) {
        let mut ticks = interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut answered, mut is_silent, mut last_error) = (LocalTime::now(), false, None);
        loop {
            ticks.tick().await;
            let deadline = Deadline::after(PROBE_TIME);
            tokio::select! {
                outcome = self.probe_since(LocalTime::now(), deadline) => last_error = outcome.err(),
                // A probe without an answer does not delay the next one.
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
            }
            answered = answered.max(self.freshness.newest_probe().map_or(answered, |probe| probe.sent));
            let was_silent = std::mem::replace(&mut is_silent, LocalTime::now().since(answered) > SILENCE_MAX);
            match &last_error {
                _ if was_silent && !is_silent => tracing::info!("the source answers again"),
                _ if was_silent || !is_silent => {}
                Some(error) => tracing::warn!(error = %error_chain(error), "the source cannot be asked for its time"),
                None => tracing::warn!("the source does not answer probes"),
            }
        }
    }

    /// A probe that was sent no earlier than `since`: the last answered one, one in flight, or a new one.
    ///
    /// # Errors
    /// The source's error if the probe fails, or [`SourceError::TimedOut`] after the deadline.
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
                // The probe panicked. Another one may succeed.
                Err(_) => tokio::task::yield_now().await,
            }
            if deadline.is_over() {
                return Err(SourceError::TimedOut);
            }
        }
    }

    /// Joins the last probe in flight if it was sent no earlier than `since`, or if too many are in flight; else sends a
    /// new one.
    fn join_or_send(&self, since: LocalTime) -> SentProbe {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        in_flight.retain(|sent| sent.outcome.borrow().is_none() && sent.outcome.has_changed().is_ok());
        if let Some(last) = in_flight.last().filter(|last| last.at >= since || in_flight.len() >= IN_FLIGHT_MAX) {
            return last.clone();
        }
        let (sender, outcome) = watch::channel(None);
        let sent = SentProbe { at: LocalTime::now(), outcome };
        in_flight.push(sent.clone());
        let (this, at) = (self.clone(), sent.at);
        let probe = async move {
            let outcome = this.send(at).await;
            let _nobody_waits = sender.send(Some(outcome));
        };
        tokio::spawn(probe.in_current_span());
        sent
    }

    /// Sends a probe and records its result. `at` is a local time before the call.
    async fn send(&self, at: LocalTime) -> Result<(), SourceError> {
        let (epoch, watermark) = (self.freshness.epoch(), self.freshness.watermark());
        let moment = self.source.probe(Deadline::after(PROBE_TIME)).await?;
        if self.freshness.record_probe(Probe { sent: at, moment }, watermark, epoch, &*self.forget) {
            tracing::error!(
                now = moment.as_u64(),
                before = watermark.as_u64(),
                "the source's time has gone back: it is another source, or was restored from a backup; all facts are dropped"
            );
        }
        Ok(())
    }
}
