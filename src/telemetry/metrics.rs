//! Every metric that the service counts or times, and their text format. docs/metrics.md explains each metric.
//!
//! Does not decide what is counted: each module reports its own events.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{
    calls::{CallMetrics, Calls, Method},
    decisions::{DecisionLabels, Decisions},
    histogram::Histogram,
    lists::Lists,
    log_queue,
    sampled_metric::{Kind, SampledMetric},
};
use crate::question::Tier;

/// The upper bounds of buckets in seconds, for work that takes from microseconds to seconds.
const SECONDS: [f64; 13] = [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// The upper bounds of the buckets of an age, in seconds.
const AGES: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 15.0, 60.0];

/// The upper bounds of the buckets of a number of rounds.
const ROUNDS: [f64; 9] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 16.0, 32.0];

/// All metrics of the process. Clones of its parts share their values.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Metrics whose values other modules keep, by name. A new registry replaces an earlier one of the same name.
    external: Mutex<BTreeMap<&'static str, Registry>>,
    calls: CallMetrics,
    decisions: Family<DecisionLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    lists: Lists,
    rounds: Histogram,
    seconds: Histogram,
    age: Histogram,
    found: [Counter; TIERS.len()],
    missed: [Counter; TIERS.len()],
    observed: Counter,
    stale: [Counter; TIERS.len()],
    joins: Counter,
    load_wait: Histogram,
    shared_written: Counter,
    shared_unwritten: Family<ReasonLabels, Counter>,
    repairs: Counter,
    drops: Counter,
    unauthentic: Family<WhatLabels, Counter>,
    watch_streams: Gauge,
}

/// Every tier, fastest first.
const TIERS: [Tier; 3] = [Tier::Memory, Tier::Redis, Tier::Source];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    error: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatLabels {
    what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabels {
    tier: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ViaLabels {
    via: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CollectionLabels {
    collection: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LargeLabels {
    collection: String,
    size: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    command: &'static str,
}

/// What the checks of a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How many rounds of loading facts it had.
    pub rounds: u32,
    /// How many facts were found in memory, fresh enough.
    pub from_memory: u64,
    /// How many facts had to be loaded.
    pub loaded: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let all = &mut registry;
        let calls = CallMetrics::register(all);
        let decisions = Family::default();
        let help = "Answers, by permission, outcome and caller";
        all.register("permcached_decisions", help, decisions.clone());
        let errors = Family::default();
        all.register("permcached_check_errors", "Questions that could not be answered, by error", errors.clone());
        let lists = Lists::register(all);
        let rounds = Histogram::new(&ROUNDS);
        all.register("permcached_check_rounds", "Rounds of loading facts that a request took", rounds.clone());
        let seconds = seconds(all, "permcached_check", "Time that a request's checks took", &SECONDS);
        let age = self::seconds(all, "permcached_answer_age", "How old the oldest fact of an answer may be", &AGES);
        let found = by_tier(all, "permcached_facts_found", "Facts that were looked for in a tier and found there");
        let missed =
            by_tier(all, "permcached_facts_missed", "Facts that were looked for in a tier and not found there");
        let help = "Cached facts that the observer compared with the source";
        let observed = counter(all, "permcached_observed_facts", help);
        let help = "Cached facts that counted as fresh and that the source contradicted, by tier";
        let stale = by_tier(all, "permcached_stale_facts", help);
        let joins = counter(
            all,
            "permcached_loads_joined",
            "Facts that a request waited for while another request loaded them",
        );
        let help = "Time that a request waited for facts that another request loaded";
        let load_wait = self::seconds(all, "permcached_load_wait", help, &SECONDS);
        let shared_written = counter(all, "permcached_redis_facts_written", "Facts written to Redis");
        let shared_unwritten = Family::default();
        let help = "Facts that were to be written to Redis and were not, by reason";
        all.register("permcached_redis_facts_unwritten", help, shared_unwritten.clone());
        let help = "Gaps in the updates from other instances, closed by reading the log";
        let repairs = counter(all, "permcached_bus_repairs", help);
        let drops = counter(
            all,
            "permcached_bus_drops",
            "Change batches and hints from other instances that were dropped: malformed, or of an implausible moment",
        );
        let unauthentic = Family::default();
        let help = "What was found in Redis without a valid code, and ignored, by what it was";
        all.register("permcached_redis_unauthentic", help, unauthentic.clone());
        let watch_streams = Gauge::default();
        all.register("permcached_watchers", "Calls of Watch that are open", watch_streams.clone());
        let build = SampledMetric::new("permcached_build_info", "The version of permcached", Kind::Gauge);
        all.register_collector(Box::new(build.with("version", env!("CARGO_PKG_VERSION"), || Some(1.0))));
        let help = "Log lines that were dropped because the log was not read";
        let dropped = SampledMetric::new("permcached_log_lines_dropped", help, Kind::Counter);
        #[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "metrics are floating-point numbers")]
        all.register_collector(Box::new(dropped.of(|| Some(log_queue::dropped() as f64))));
        register_process(all);
        Self {
            registry,
            external: Mutex::default(),
            calls,
            decisions,
            errors,
            lists,
            rounds,
            seconds,
            age,
            found,
            missed,
            observed,
            stale,
            joins,
            load_wait,
            shared_written,
            shared_unwritten,
            repairs,
            drops,
            unauthentic,
            watch_streams,
        }
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// A histogram of seconds. The name is given without its unit.
fn seconds(registry: &mut Registry, name: &str, help: &str, bounds: &'static [f64]) -> Histogram {
    let histogram = Histogram::new(bounds);
    registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}

fn by_tier(registry: &mut Registry, name: &str, help: &str) -> [Counter; TIERS.len()] {
    let family = Family::<TierLabels, Counter>::default();
    registry.register(name, help, family.clone());
    TIERS.map(|tier| family.get_or_create_owned(&TierLabels { tier: tier.as_str() }))
}

/// Registers metrics of the process, under the names that all exporters use.
fn register_process(registry: &mut Registry) {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let help = "When the process started, in seconds since 1970";
    let started = SampledMetric::new("process_start_time_seconds", help, Kind::Gauge).of(move || Some(started));
    let help = "Resident memory of the process, in bytes";
    let memory = SampledMetric::new("process_resident_memory_bytes", help, Kind::Gauge).of(resident_bytes);
    let help = "CPU time that the process has used";
    let processors = SampledMetric::new("process_cpu_seconds", help, Kind::Counter).of(|| Some(processor_seconds()));
    for sampled_metric in [started, memory, processors] {
        registry.register_collector(Box::new(sampled_metric));
    }
}

/// The resident memory of the process as the kernel reports it, if it does.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))?;
    Some(kibibytes.parse::<f64>().ok()? * 1_024.0)
}

fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default().as_secs_f64()
}

impl Metrics {
    /// The counters of the calls of a port with these methods.
    #[must_use]
    pub fn calls(&self, methods: impl IntoIterator<Item = Method>) -> Calls {
        Calls::new(&self.calls, methods)
    }

    /// The counters of answers by these permissions: the resource type and the name of each, in the order of their numbers.
    #[must_use]
    pub fn decisions(&self, permissions: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) -> Decisions {
        Decisions::new(self.decisions.clone(), permissions)
    }

    /// The counters of lists.
    #[must_use]
    pub fn lists(&self) -> Lists {
        self.lists.clone()
    }

    /// Shows a metric whose values live elsewhere. It replaces an earlier one of the same name.
    pub fn show(&self, sampled_metric: SampledMetric) {
        let mut registry = Registry::default();
        let name = sampled_metric.name();
        registry.register_collector(Box::new(sampled_metric));
        self.put(name, registry);
    }

    /// Shows the metrics of a MongoDB connection. They replace those of an earlier one.
    pub fn show_commands(&self, commands: &Commands) {
        let Commands { seconds, in_progress, unreadable, not_understood, large } = commands;
        let help = "Time that MongoDB took for a command";
        let mut registry = Registry::default();
        registry.register_with_unit("permcached_mongodb_command", help, Unit::Seconds, seconds.clone());
        let help = "Finds that are running in MongoDB, at most 64";
        registry.register("permcached_mongodb_finds_in_progress", help, in_progress.clone());
        let help = "Documents that were read and had a field that cannot be read, by collection";
        registry.register("permcached_documents_unreadable", help, unreadable.clone());
        let help = "Change events that could not be understood, by collection";
        registry.register("permcached_events_not_understood", help, not_understood.clone());
        let help = "Facts that were read and are near their limit, over it, or filtered to a subject and over it";
        registry.register("permcached_large_facts", help, large.clone());
        self.put("mongodb", registry);
    }

    /// Shows the metrics of received changes. They replace those of an earlier start.
    pub fn show_change_metrics(&self, change_metrics: &ChangeMetrics) {
        let ChangeMetrics { delay, streams } = change_metrics;
        let help = "Time from receiving a change to marking facts as outdated by it";
        let mut registry = Registry::default();
        registry.register_with_unit("permcached_invalidation_delay", help, Unit::Seconds, delay.clone());
        let help = "Change streams that this instance follows";
        registry.register("permcached_change_streams", help, streams.clone());
        self.put("changes", registry);
    }

    /// Counts questions that could not be answered because of the same error.
    pub fn failed(&self, error: &'static str, questions: usize) {
        self.errors.get_or_create(&ErrorLabels { error }).inc_by(count(questions));
    }

    /// Counts a request's work.
    pub fn worked(&self, work: Work, time: Duration) {
        let Work { rounds, from_memory, loaded } = work;
        self.rounds.observe(f64::from(rounds));
        self.seconds.observe(time.as_secs_f64());
        let ([found, ..], [missed, ..]) = (&self.found, &self.missed);
        found.inc_by(from_memory);
        missed.inc_by(loaded);
    }

    /// Records the age of the oldest fact of answers that all have the same.
    pub fn aged(&self, age: Duration, answers: usize) {
        self.age.observe_times(age.as_secs_f64(), u32::try_from(answers).unwrap_or(u32::MAX));
    }

    /// Counts facts that Redis was asked for. `found` of them were there and fresh enough.
    pub fn asked_redis(&self, asked: usize, found: usize) {
        let ([_, all_found, _], [_, all_missed, _]) = (&self.found, &self.missed);
        all_found.inc_by(count(found));
        all_missed.inc_by(count(asked.saturating_sub(found)));
    }

    /// Counts facts that the source was asked for. `found` of them could be read.
    pub fn asked_source(&self, asked: usize, found: usize) {
        let ([.., all_found], [.., all_missed]) = (&self.found, &self.missed);
        all_found.inc_by(count(found));
        all_missed.inc_by(count(asked.saturating_sub(found)));
    }

    /// Counts a cached fact that the observer compared with the source.
    pub fn observed(&self) {
        self.observed.inc();
    }

    /// Counts a cached fact that counted as fresh and that the source contradicted.
    pub fn found_stale(&self, tier: Tier) {
        if let Some((_, counter)) = TIERS.iter().zip(&self.stale).find(|(known, _)| **known == tier) {
            counter.inc();
        }
    }

    /// Counts a fact for which a request joined another request's load.
    pub fn joined(&self) {
        self.joins.inc();
    }

    /// Records how long a request waited for a load that it joined.
    pub fn waited(&self, time: Duration) {
        self.load_wait.observe(time.as_secs_f64());
    }

    /// Counts a fact that was written to Redis.
    pub fn written(&self) {
        self.shared_written.inc();
    }

    /// Shows the counter of facts not written to Redis for this reason, before there is any such fact.
    pub fn may_leave_unwritten(&self, reason: &'static str) {
        drop(self.shared_unwritten.get_or_create(&ReasonLabels { reason }));
    }

    /// Counts a fact that was not written to Redis.
    pub fn unwritten(&self, reason: &'static str) {
        self.shared_unwritten.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a gap in the updates from other instances.
    pub fn repaired(&self) {
        self.repairs.inc();
    }

    /// Counts a change batch or a hint that was dropped as implausible.
    pub fn dropped(&self) {
        self.drops.inc();
    }

    /// Shows the counter of what is found in Redis without a valid code, before there is anything.
    pub fn may_find_unauthentic(&self, what: &'static str) {
        drop(self.unauthentic.get_or_create(&WhatLabels { what }));
    }

    /// Counts what was found in Redis without a valid code.
    pub fn unauthentic(&self, what: &'static str) {
        self.unauthentic.get_or_create(&WhatLabels { what }).inc();
    }

    /// Counts an open Watch stream until the returned value is dropped.
    #[must_use]
    pub fn watch_stream(&self) -> Present {
        Present::new(&self.watch_streams)
    }

    /// All metrics in the text format of `OpenMetrics`.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let external = self.external();
        let mut all = std::iter::once(&self.registry).chain(external.values());
        if all.try_for_each(|registry| encode_registry(&mut text, registry)).is_err() {
            text.clear();
        }
        let _infallible = encode_eof(&mut text);
        text
    }

    fn put(&self, name: &'static str, registry: Registry) {
        self.external().insert(name, registry);
    }

    fn external(&self) -> MutexGuard<'_, BTreeMap<&'static str, Registry>> {
        self.external.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(facts: usize) -> u64 {
    u64::try_from(facts).unwrap_or(u64::MAX)
}

/// Counts as one in a gauge until it is dropped.
#[derive(Debug)]
pub struct Present(Gauge);

impl Present {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The metrics of a MongoDB connection. Clones share their values.
#[derive(Clone, Debug)]
pub struct Commands {
    seconds: Family<CommandLabels, Histogram, fn() -> Histogram>,
    in_progress: Gauge,
    unreadable: Family<CollectionLabels, Counter>,
    not_understood: Family<CollectionLabels, Counter>,
    large: Family<LargeLabels, Counter>,
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            seconds: Family::new_with_constructor(|| Histogram::new(&SECONDS)),
            in_progress: Gauge::default(),
            unreadable: Family::default(),
            not_understood: Family::default(),
            large: Family::default(),
        }
    }
}

impl Commands {
    /// Counts a find as in progress until the returned value is dropped.
    #[must_use]
    pub fn begin(&self) -> Present {
        Present::new(&self.in_progress)
    }

    /// Records how long a command took.
    pub fn took(&self, command: &'static str, time: Duration) {
        self.seconds.get_or_create(&CommandLabels { command }).observe(time.as_secs_f64());
    }

    /// Shows the counters of a collection of the schema, before there is anything to count.
    pub fn show_collection(&self, collection: &str) {
        for counter in [&self.unreadable, &self.not_understood] {
            drop(counter.get_or_create(&CollectionLabels { collection: collection.to_owned() }));
        }
        for size in FactSize::ALL {
            let (collection, size) = (collection.to_owned(), size.as_str());
            drop(self.large.get_or_create(&LargeLabels { collection, size }));
        }
    }

    /// Counts a document of this collection in which a field cannot be read.
    pub fn found_unreadable(&self, collection: &str) {
        self.unreadable.get_or_create(&CollectionLabels { collection: collection.to_owned() }).inc();
    }

    /// Counts a large fact of documents of this collection.
    pub fn found_large(&self, collection: &str, size: FactSize) {
        let (collection, size) = (collection.to_owned(), size.as_str());
        self.large.get_or_create(&LargeLabels { collection, size }).inc();
    }

    /// Counts a change event of this collection that could not be understood.
    pub fn did_not_understand(&self, collection: &str) {
        self.not_understood.get_or_create(&CollectionLabels { collection: collection.to_owned() }).inc();
    }
}

/// How large a fact is that is worth a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactSize {
    /// It has at least three quarters of what it may contain.
    NearLimit,
    /// There is more than a whole fact may contain. It is read again for each subject.
    Large,
    /// There is more for one subject than a fact may contain: the relation is indeterminate.
    OverLimit,
}

impl FactSize {
    /// Every size, from small to large.
    pub const ALL: [Self; 3] = [Self::NearLimit, Self::Large, Self::OverLimit];

    /// The name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NearLimit => "near_limit",
            Self::Large => "large",
            Self::OverLimit => "over_limit",
        }
    }
}

/// How this instance received a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// From its own change stream.
    Stream,
    /// From another instance.
    Bus,
    /// From a call of `Invalidate`.
    Call,
}

impl Via {
    /// The name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Bus => "bus",
            Self::Call => "call",
        }
    }
}

/// The metrics of received changes. Clones share their values.
#[derive(Clone, Debug)]
pub struct ChangeMetrics {
    delay: Family<ViaLabels, Histogram, fn() -> Histogram>,
    streams: Gauge,
}

impl Default for ChangeMetrics {
    fn default() -> Self {
        Self { delay: Family::new_with_constructor(|| Histogram::new(&SECONDS)), streams: Gauge::default() }
    }
}

impl ChangeMetrics {
    /// Records the time from receiving changes to marking the facts that they outdate.
    pub fn took(&self, via: Via, time: Duration) {
        self.delay.get_or_create(&ViaLabels { via: via.as_str() }).observe(time.as_secs_f64());
    }

    /// Counts a change stream as open until the returned value is dropped.
    #[must_use]
    pub fn follow(&self) -> Present {
        Present::new(&self.streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The application shows them again when it retries its start.
    #[test]
    fn metrics_that_are_shown_again_replace_the_earlier_ones() {
        let metrics = Metrics::default();
        for value in [1.0, 2.0] {
            metrics.show(SampledMetric::new("permcached_shown", "A value", Kind::Gauge).of(move || Some(value)));
            metrics.show_commands(&Commands::default());
            metrics.show_change_metrics(&ChangeMetrics::default());
        }
        let text = metrics.render();
        assert!(text.contains("\npermcached_shown 2.0\n") && !text.contains("permcached_shown 1.0"), "{text}");
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{text}");
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }
}
