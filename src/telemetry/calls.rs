//! Counts and times gRPC calls, under the metric names that gRPC's own middlewares use. Counting takes no lock, except
//! for the first call with a method and code.
//!
//! Does not see the calls themselves: the transport passes the list of methods, and reports how each call ends.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Instant,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::{Registry, Unit},
};

use super::histogram::Histogram;

/// The names of gRPC's codes, in the order of their numbers.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The number of `Canceled`: the code of a call whose caller went away.
const CANCELED: usize = 1;

/// The number of `Unknown`: the code of a call that ends without a status.
const UNKNOWN: usize = 2;

/// The upper bounds of the buckets of a call's time, in seconds.
const SECONDS: [f64; 13] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "these are the names of the labels")]
struct MethodLabels {
    grpc_type: &'static str,
    grpc_service: Arc<str>,
    grpc_method: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "these are the names of the labels")]
struct CodeLabels {
    grpc_type: &'static str,
    grpc_service: Arc<str>,
    grpc_method: Arc<str>,
    grpc_code: &'static str,
}

/// The metrics of all calls.
#[derive(Clone, Debug)]
pub(super) struct CallMetrics {
    started: Family<MethodLabels, Counter>,
    handled: Family<CodeLabels, Counter>,
    seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
}

impl CallMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let (started, handled) = (Family::default(), Family::default());
        let seconds: Family<_, _, fn() -> Histogram> = Family::new_with_constructor(|| Histogram::new(&SECONDS));
        registry.register("grpc_server_started", "Calls that have begun", started.clone());
        registry.register("grpc_server_handled", "Calls that have ended, by gRPC's code", handled.clone());
        let help = "Time from a call's beginning to its end";
        registry.register_with_unit("grpc_server_handling", help, Unit::Seconds, seconds.clone());
        Self { started, handled, seconds }
    }
}

/// A method that may be called.
#[derive(Clone, Debug)]
pub struct Method {
    /// The full name of its service, with the package.
    pub service: String,
    /// Its own name.
    pub name: String,
    /// Whether one call sends a stream of requests.
    pub is_client_streaming: bool,
    /// Whether one call receives a stream of responses.
    pub is_server_streaming: bool,
}

/// Counts and times the calls of a port. All calls of unknown methods are counted together, as the method `unknown`.
#[derive(Clone, Debug)]
pub struct Calls {
    /// Every method, by its path.
    methods: Arc<HashMap<String, Arc<MethodMetrics>, foldhash::fast::RandomState>>,
    unknown: Arc<MethodMetrics>,
}

/// The counters of one method.
#[derive(Debug)]
struct MethodMetrics {
    labels: MethodLabels,
    metrics: CallMetrics,
    started: Counter,
    handled: [OnceLock<Counter>; CODES.len()],
    seconds: Histogram,
}

impl MethodMetrics {
    fn new(metrics: &CallMetrics, method: &Method) -> Arc<Self> {
        let grpc_type = match (method.is_client_streaming, method.is_server_streaming) {
            (false, false) => "unary",
            (true, false) => "client_stream",
            (false, true) => "server_stream",
            (true, true) => "bidi_stream",
        };
        let labels = MethodLabels {
            grpc_type,
            grpc_service: method.service.as_str().into(),
            grpc_method: method.name.as_str().into(),
        };
        Arc::new(Self {
            started: metrics.started.get_or_create_owned(&labels),
            handled: [const { OnceLock::new() }; CODES.len()],
            seconds: metrics.seconds.get_or_create_owned(&labels),
            metrics: metrics.clone(),
            labels,
        })
    }

    fn end(&self, code: usize, since: Instant) {
        let code = if code < CODES.len() { code } else { UNKNOWN };
        let Some((counter, name)) = self.handled.get(code).zip(CODES.get(code)) else { return };
        let first = || {
            let MethodLabels { grpc_type, grpc_service, grpc_method } = self.labels.clone();
            let labels = CodeLabels { grpc_type, grpc_service, grpc_method, grpc_code: name };
            self.metrics.handled.get_or_create_owned(&labels)
        };
        counter.get_or_init(first).inc();
        self.seconds.observe(since.elapsed().as_secs_f64());
    }
}

impl Calls {
    pub(super) fn new(metrics: &CallMetrics, methods: impl IntoIterator<Item = Method>) -> Self {
        let path = |method: &Method| format!("/{}/{}", method.service, method.name);
        let methods = methods.into_iter().map(|method| (path(&method), MethodMetrics::new(metrics, &method))).collect();
        let unknown = Method {
            service: "unknown".to_owned(),
            name: "unknown".to_owned(),
            is_client_streaming: false,
            is_server_streaming: false,
        };
        Self { methods: Arc::new(methods), unknown: MethodMetrics::new(metrics, &unknown) }
    }

    /// Counts the start of a call of the method with this path.
    #[must_use]
    pub fn begin(&self, path: &str) -> Call {
        let method = Arc::clone(self.methods.get(path).unwrap_or(&self.unknown));
        method.started.inc();
        Call { method, since: Instant::now(), code: None }
    }
}

/// A call that has begun. If it is dropped before [`Call::end`], it counts as canceled.
#[derive(Debug)]
pub struct Call {
    method: Arc<MethodMetrics>,
    since: Instant,
    code: Option<usize>,
}

impl Call {
    /// When it began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.since
    }

    /// The full name of its service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.method.labels.grpc_service
    }

    /// The method's own name.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method.labels.grpc_method
    }

    /// Records the number of the gRPC code with which the call ends. Only the first one counts.
    pub fn end(&mut self, code: usize) {
        if self.code.is_none() {
            self.code = Some(code);
            self.method.end(code, self.since);
        }
    }

    /// Records that the call ends without a status.
    pub fn end_unknown(&mut self) {
        self.end(UNKNOWN);
    }

    /// The number of the gRPC code with which the call has ended.
    #[must_use]
    pub fn code(&self) -> Option<usize> {
        self.code
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CANCELED);
    }
}
