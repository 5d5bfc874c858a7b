//! Traces over OTLP: what a call did, from its arrival to the database. They are off unless configured.
//!
//! All spans have one target and the finest level. So no span is made while traces are off: the cost is one comparison
//! of levels. No span carries an id, a token or a value of a document.

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{
    Key, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    trace::TracerProvider as _,
};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};
use tracing::{Span, field::Empty, level_filters::LevelFilter, trace_span};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// The target of every span.
pub const SPANS: &str = "permcached::span";

/// How long sending the last spans may take when the service ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The exporter of spans. OpenTelemetry's library reads its standard variables itself, except for the endpoint.
#[derive(Debug)]
pub struct Spans(SdkTracerProvider);

impl Spans {
    /// Starts an exporter that sends to this URL.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub(super) fn begin(endpoint: &str) -> Result<Self, String> {
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}"))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let mut resource = Resource::builder().with_attribute(version);
        if is_nameless(&Resource::builder().build()) {
            resource = resource.with_service_name("permcached");
        }
        let resource = resource.build();
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    /// Sends the spans that are left, for at most a second. Blocks.
    pub(super) fn end(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// The `tracing` layer that records spans for an exporter, or nothing if there is none.
pub(super) fn layer<S>(spans: Option<&Spans>) -> impl Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    let layer = spans.map(|Spans(provider)| {
        let layer: OpenTelemetryLayer<S, SdkTracer> =
            tracing_opentelemetry::layer().with_tracer(provider.tracer("permcached"));
        layer.with_location(false).with_threads(false).with_tracked_inactivity(false).with_target(false)
    });
    // Without a filter, a layer that does nothing wants every span of every library, and each is made.
    let level = if spans.is_some() { LevelFilter::TRACE } else { LevelFilter::OFF };
    layer.with_filter(Targets::new().with_target(SPANS, level))
}

/// Whether neither `OTEL_SERVICE_NAME` nor `OTEL_RESOURCE_ATTRIBUTES` names the service. The library then calls it
/// `unknown_service…`.
fn is_nameless(resource: &Resource) -> bool {
    let name = resource.get(&Key::from_static_str("service.name"));
    name.is_none_or(|name| name.as_str().starts_with("unknown_service"))
}

/// The trace headers of a call: the W3C's `traceparent` and `tracestate`.
struct Parent<'a>([(&'static str, Option<&'a str>); 2]);

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == key).and_then(|(_, value)| *value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }
}

/// The span of a call, in the trace that its `traceparent` and `tracestate` name. The span is disabled while traces are off.
#[must_use]
pub fn call_span<'a>(
    service: &str,
    method: &str,
    traceparent: impl FnOnce() -> Option<&'a str>,
    tracestate: impl FnOnce() -> Option<&'a str>,
) -> Span {
    static PROPAGATOR: OnceLock<TraceContextPropagator> = OnceLock::new();
    let span = trace_span!(
        target: SPANS,
        "call",
        otel.name = Empty,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
    );
    if !span.is_disabled() {
        span.record("otel.name", format!("{service}/{method}"));
        let parent = Parent([("traceparent", traceparent()), ("tracestate", tracestate())]);
        let context = PROPAGATOR.get_or_init(TraceContextPropagator::new).extract(&parent);
        if let Err(error) = span.set_parent(context) {
            tracing::debug!(%error, "the span of a call could not join the caller's trace");
        }
    }
    span
}
