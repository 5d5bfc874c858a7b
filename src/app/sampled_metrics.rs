//! Sampled metrics of the assembled parts: their values are read whenever `/metrics` is.

use std::sync::Arc;

use super::{App, Links};
use crate::{
    facts::Memory,
    feed::Lease,
    freshness::{Freshness, LocalTime},
    telemetry::{Kind, Metrics, SampledMetric},
};

/// Shows the state of every part that has some.
pub(super) fn show_state(app: &App) {
    let metrics = &app.metrics;
    show_memory(metrics, &app.memory);
    show_probe_age(metrics, &app.freshness);
    if let Some(lease) = &app.lease {
        metrics.show(leader(Arc::clone(lease)));
    }
    if app.links.named().next().is_some() {
        metrics.show(redis_up(&app.links));
    }
}

/// Shows the size of the cache in memory.
fn show_memory(metrics: &Metrics, memory: &Arc<Memory>) {
    let show = |name, help, kind, read: fn(&Memory) -> f64| {
        let memory = Arc::clone(memory);
        metrics.show(SampledMetric::new(name, help, kind).of(move || Some(read(&memory))));
    };
    show("permcached_memory_bytes", "Bytes that cached facts take", Kind::Gauge, |memory| float(memory.bytes()));
    show("permcached_memory_bytes_max", "Bytes that cached facts may take", Kind::Gauge, |memory| {
        float(memory.bytes_max())
    });
    show("permcached_memory_facts", "Facts cached in memory", Kind::Gauge, |memory| float(memory.count()));
    let help = "Facts evicted from memory to make room for others";
    show("permcached_memory_evictions", help, Kind::Counter, |memory| float(memory.evictions()));
}

/// Shows the age of the newest probe.
fn show_probe_age(metrics: &Metrics, freshness: &Arc<Freshness>) {
    let help = "Time since the newest probe that the source has answered was sent";
    let age = SampledMetric::new("permcached_probe_age_seconds", help, Kind::Gauge);
    let freshness = Arc::clone(freshness);
    metrics.show(age.of(move || {
        let probe = freshness.newest_probe()?;
        Some(LocalTime::now().since(probe.sent).as_secs_f64())
    }));
}

/// Whether this instance is the leader.
fn leader(lease: Arc<Lease>) -> SampledMetric {
    let help = "1 while this instance is the leader, which publishes changes to the others";
    SampledMetric::new("permcached_leader", help, Kind::Gauge).of(move || Some(truth(lease.is_leader())))
}

/// Whether Redis answers, for each link.
fn redis_up(links: &Links) -> SampledMetric {
    let help = "1 while Redis answers, 0 while the circuit breaker is open";
    let metric = SampledMetric::new("permcached_redis_up", help, Kind::Gauge);
    links.named().fold(metric, |metric, (name, link)| {
        let link = link.clone();
        metric.with("link", name, move || Some(truth(link.is_up())))
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
