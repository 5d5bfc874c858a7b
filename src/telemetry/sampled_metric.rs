//! Metrics whose values live elsewhere and are read when `/metrics` is requested.
//!
//! Keeps no values.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// How a metric's value changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows, until the process ends.
    Counter,
}

type Read = Box<dyn Fn() -> Option<f64> + Send + Sync>;

/// A metric whose values are read when metrics are rendered: one value, or one for each value of a label.
pub struct SampledMetric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    values: Vec<(Option<(&'static str, &'static str)>, Read)>,
}

impl SampledMetric {
    /// A metric without values. The name of a counter is given without its `_total`.
    #[must_use]
    pub fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self { name, help, kind, values: Vec::new() }
    }

    /// The metric's name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Adds the metric's only value. While `read` returns `None`, it shows none.
    #[must_use]
    pub fn of(mut self, read: impl Fn() -> Option<f64> + Send + Sync + 'static) -> Self {
        self.values.push((None, Box::new(read)));
        self
    }

    /// Adds the value for one value of a label. While `read` returns `None`, it is not shown.
    #[must_use]
    pub fn with(
        mut self,
        label: &'static str,
        value: &'static str,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        self.values.push((Some((label, value)), Box::new(read)));
        self
    }
}

impl Collector for SampledMetric {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let kind = match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (label, read) in &self.values {
            let Some(value) = read() else { continue };
            match (label, self.kind) {
                (None, Kind::Gauge) => metric.encode_gauge(&value)?,
                (None, Kind::Counter) => metric.encode_counter::<[(&str, &str); 0], f64, f64>(&value, None)?,
                (Some(label), Kind::Gauge) => {
                    ConstGauge::new(value).encode(metric.encode_family(&[*label])?)?;
                }
                (Some(label), Kind::Counter) => {
                    ConstCounter::new(value).encode(metric.encode_family(&[*label])?)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SampledMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SampledMetric").field("name", &self.name).finish_non_exhaustive()
    }
}
