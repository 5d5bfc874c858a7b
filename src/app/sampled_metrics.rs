//! What metrics show of values that live in other modules: read when they are asked for.

use std::sync::Arc;

use crate::{
    check::Checker,
    facts::Memory,
    feed::Lease,
    freshness::LocalTime,
    link::Link,
    telemetry::{Kind, Metrics, SampledMetric},
};

/// Shows what is remembered, and how recent the newest probe is.
pub(super) fn show_state(metrics: &Metrics, checker: &Checker) {
    let memory = checker.facts().memory();
    let show = |name, help, kind, read: fn(&Memory) -> f64| {
        let memory = Arc::clone(memory);
        metrics.show(SampledMetric::new(name, help, kind).of(move || Some(read(&memory))));
    };
    show("permcached_memory_bytes", "Bytes that remembered facts take", Kind::Gauge, |memory| float(memory.bytes()));
    show("permcached_memory_bytes_max", "Bytes that they may take", Kind::Gauge, |memory| float(memory.bytes_max()));
    show("permcached_memory_facts", "Facts that are remembered", Kind::Gauge, |memory| float(memory.count()));
    let help = "Remembered facts that had to go for others";
    show("permcached_memory_evictions", help, Kind::Counter, |memory| float(memory.evictions()));
    let help = "How long ago the newest probe was sent that the source has answered";
    let age = SampledMetric::new("permcached_probe_age_seconds", help, Kind::Gauge);
    let freshness = Arc::clone(checker.freshness());
    metrics.show(age.of(move || {
        let probe = freshness.newest_probe()?;
        Some(LocalTime::now().since(probe.sent).as_secs_f64())
    }));
}

/// Whether this instance speaks for all.
pub(super) fn leader(lease: Arc<Lease>) -> SampledMetric {
    let help = "1 where this instance tells all others what changes";
    SampledMetric::new("permcached_leader", help, Kind::Gauge).of(move || Some(truth(lease.is_held())))
}

/// Whether Redis is reached, by each of these links.
pub(super) fn reached(links: &[(&'static str, Link)]) -> SampledMetric {
    let help = "1 while Redis answers, 0 while it is given up and tried again";
    let metric = SampledMetric::new("permcached_redis_up", help, Kind::Gauge);
    links.iter().fold(metric, |metric, (carries, link)| {
        let link = link.clone();
        metric.with("link", carries, move || Some(truth(link.is_up())))
    })
}

fn truth(is_true: bool) -> f64 {
    f64::from(u8::from(is_true))
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "metrics are floats, and no count is that large"
)]
fn float(count: usize) -> f64 {
    count as f64
}
