//! What is recorded, and how: logs and metrics. Nothing that is secret is ever handed to this module.
//!
//! Where logs go and who may read metrics is decided by the application and the transport.

use std::{fmt::Write, io::IsTerminal, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::question::{Answer, Reason};

/// Everything that is counted. One for each process; clones of its parts count into the same.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    allowed: Counter,
    denied: [Counter; Reason::ALL.len()],
    errors: Family<ErrorLabels, Counter>,
    rounds: Histogram,
    seconds: Histogram,
    facts: Counter,
    joins: Counter,
    shared_asked: Counter,
    shared_believed: Counter,
    shared_written: Counter,
    shared_unwritten: Family<ReasonLabels, Counter>,
    repairs: Counter,
    drops: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    decision: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    error: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("permcached");
        let decisions = Family::<DecisionLabels, Counter>::default();
        registry.register("decisions", "Answers given, by decision and reason", decisions.clone());
        let errors = Family::<ErrorLabels, Counter>::default();
        registry.register("check_errors", "Questions that could not be answered, by error", errors.clone());
        let rounds = Histogram::new([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 16.0, 32.0]);
        registry.register("check_rounds", "Rounds of loading facts that a request took", rounds.clone());
        let seconds =
            Histogram::new([0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]);
        registry.register_with_unit("check", "Time that a request's checks took", Unit::Seconds, seconds.clone());
        let facts = Counter::default();
        registry.register("facts_loaded", "Facts read from the source", facts.clone());
        let joins = Counter::default();
        registry.register(
            "flights_joined",
            "Facts that were waited for while another request loaded them",
            joins.clone(),
        );
        let [shared_asked, shared_believed, shared_written] = [
            ("redis_facts_asked", "Facts that Redis was asked for"),
            ("redis_facts_believed", "Facts from Redis that still counted"),
            ("redis_facts_written", "Facts written to Redis"),
        ]
        .map(|(name, help)| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        });
        let shared_unwritten = Family::<ReasonLabels, Counter>::default();
        registry.register(
            "redis_facts_unwritten",
            "Facts that were to be written to Redis and were not, by reason",
            shared_unwritten.clone(),
        );
        let repairs = Counter::default();
        registry.register(
            "bus_repairs",
            "Gaps in what was heard from other instances, for which the log was read",
            repairs.clone(),
        );
        let drops = Counter::default();
        registry.register("bus_drops", "Statements and hints that were not believed", drops.clone());
        let counter = |decision, reason| decisions.get_or_create_owned(&DecisionLabels { decision, reason });
        Self {
            allowed: counter("allowed", ""),
            denied: Reason::ALL.map(|reason| counter("denied", reason.as_str())),
            errors,
            rounds,
            seconds,
            facts,
            joins,
            shared_asked,
            shared_believed,
            shared_written,
            shared_unwritten,
            repairs,
            drops,
            registry,
        }
    }
}

impl Metrics {
    /// Counts an answer.
    pub fn answered(&self, answer: &Answer) {
        let counter = match answer {
            Answer::Allowed { .. } => Some(&self.allowed),
            Answer::Denied(denied) => {
                Reason::ALL.iter().zip(&self.denied).find(|(reason, _)| *reason == denied).map(|(_, counter)| counter)
            }
        };
        if let Some(counter) = counter {
            counter.inc();
        }
    }

    /// Counts questions that could not be answered.
    pub fn failed(&self, error: &'static str) {
        self.errors.get_or_create(&ErrorLabels { error }).inc();
    }

    /// Counts a request's work.
    pub fn worked(&self, rounds: u32, facts: u64, time: Duration) {
        self.rounds.observe(f64::from(rounds));
        self.seconds.observe(time.as_secs_f64());
        self.facts.inc_by(facts);
    }

    /// Counts a fact that another request is loading.
    pub fn joined(&self) {
        self.joins.inc();
    }

    /// Counts facts that Redis is asked for.
    pub fn asked_redis(&self, facts: usize) {
        self.shared_asked.inc_by(u64::try_from(facts).unwrap_or(u64::MAX));
    }

    /// Counts facts from Redis that still counted.
    pub fn believed_redis(&self, facts: usize) {
        self.shared_believed.inc_by(u64::try_from(facts).unwrap_or(u64::MAX));
    }

    /// Counts a fact that was written to Redis.
    pub fn written(&self) {
        self.shared_written.inc();
    }

    /// Counts a fact that was not written to Redis.
    pub fn unwritten(&self, reason: &'static str) {
        self.shared_unwritten.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a gap in what was heard from other instances.
    pub fn repaired(&self) {
        self.repairs.inc();
    }

    /// Counts something that was heard and not believed.
    pub fn dropped(&self) {
        self.drops.inc();
    }

    /// All metrics in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
            let _infallible = text.write_str("# EOF\n");
        }
        text
    }
}

/// Whether a text has the syntax of `RUST_LOG`.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}

/// Starts logging to standard error: pretty on a terminal, JSON otherwise. `filter` has the syntax of `RUST_LOG`.
///
/// # Errors
/// What is wrong with the filter.
pub fn start_logs(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let started = if std::io::stderr().is_terminal() {
        registry.with(lines.with_target(false)).try_init()
    } else {
        registry.with(lines.json().flatten_event(true)).try_init()
    };
    started.map_err(|error| error.to_string())
}
