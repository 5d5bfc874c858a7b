//! Histograms that are recorded without a lock, several equal values at a time. `prometheus_client`'s own takes a lock for each value.
//!
//! A scrape may show a sum to which a value was added just now, and a count to which it was not yet.

use std::{
    fmt,
    iter::{once, repeat_with},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// Counts values by buckets. Clones share the counts.
#[derive(Clone, Debug)]
pub(super) struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    /// Their upper bounds, ascending. One more bucket has no bound.
    bounds: &'static [f64],
    /// How many values each bucket has.
    counts: Box<[AtomicU64]>,
    /// The bits of the sum of all values, a floating-point number.
    sum: AtomicU64,
}

impl Histogram {
    /// A histogram without values. The upper bounds of the buckets ascend.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self(Arc::new(Buckets { bounds, counts, sum: AtomicU64::new(0.0_f64.to_bits()) }))
    }

    /// Records a value.
    pub(super) fn observe(&self, value: f64) {
        self.observe_times(value, 1);
    }

    /// Records a value as often as it occurred.
    pub(super) fn observe_times(&self, value: f64, times: u32) {
        let Buckets { bounds, counts, sum } = &*self.0;
        let bucket = bounds.iter().take_while(|bound| **bound < value).count();
        if let Some(count) = counts.get(bucket) {
            count.fetch_add(u64::from(times), Ordering::Relaxed);
        }
        let add = |bits| Some((f64::from_bits(bits) + value * f64::from(times)).to_bits());
        // It always succeeds: the new sum is never `None`.
        let _before = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Buckets { bounds, counts, sum } = &*self.0;
        let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.iter().copied().chain(once(f64::INFINITY)).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(f64::from_bits(sum.load(Ordering::Relaxed)), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[test]
    fn a_histogram_is_shown_as_that_of_the_library_is() {
        const BOUNDS: [f64; 4] = [0.0, 0.5, 2.0, 8.0];
        let (ours, theirs) = (Histogram::new(&BOUNDS), prometheus_client::metrics::histogram::Histogram::new(BOUNDS));
        let shown = |registry: &Registry| {
            let mut text = String::new();
            encode(&mut text, registry).unwrap();
            text
        };
        let (mut of_ours, mut of_theirs) = (Registry::default(), Registry::default());
        of_ours.register("values", "Some values", ours.clone());
        of_theirs.register("values", "Some values", theirs.clone());
        assert_eq!(shown(&of_ours), shown(&of_theirs));
        for (value, times) in [(0.0, 1), (0.25, 7), (0.5, 1), (0.75, 2), (2.0, 3), (8.0, 1), (8.5, 4), (1e9, 1)] {
            ours.observe_times(value, times);
            (0..times).for_each(|_| theirs.observe(value));
            assert_eq!(shown(&of_ours), shown(&of_theirs), "{value}");
        }
    }

    #[test]
    fn no_value_is_lost_when_threads_record_at_once() {
        let histogram = Histogram::new(&[1.0]);
        std::thread::scope(|scope| {
            for value in [0.5, 2.0] {
                let histogram = histogram.clone();
                scope.spawn(move || (0..10_000).for_each(|_| histogram.observe(value)));
            }
        });
        let counts: Vec<u64> = histogram.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [10_000, 10_000]);
        assert!((f64::from_bits(histogram.0.sum.load(Ordering::Relaxed)) - 25_000.0).abs() < f64::EPSILON);
    }
}
