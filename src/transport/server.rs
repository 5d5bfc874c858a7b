//! What stands on the port: which services, for whom, with which limits; and its life from starting to drained.
//!
//! Binds nothing: it is handed listeners, and a future that says when to stop.

use std::{
    future::{Future, pending, ready},
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
};
use futures::future::OptionFuture;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tonic::{Status, service::Routes};
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::{
    callers::{Admission, Callers, admit},
    connections::{Answering, Port},
    health::{Current, Health},
    http::{self, is_call},
    invalidation::InvalidationApi,
    observed::{methods, observe},
    permission::PermissionApi,
    proto::{
        DESCRIPTORS,
        invalidation_service_server::{InvalidationServiceServer, SERVICE_NAME as INVALIDATION},
        permission_service_server::{PermissionServiceServer, SERVICE_NAME as PERMISSION},
        watch_service_server::{SERVICE_NAME as WATCH, WatchServiceServer},
    },
    status,
    tls::Tls,
    watch::WatchApi,
};
use crate::telemetry::{Calls, Kind, Metrics, SampledMetric};

/// What health is told of: the whole server, and each service.
const SERVICES: [&str; 4] = ["", PERMISSION, INVALIDATION, WATCH];

/// The largest request of those who need no token.
const OPEN_BYTES_MAX: usize = 4 * 1_024;

/// Bounds of the port. The defaults are those of the manual.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest request, in bytes.
    pub message_bytes_max: usize,
    /// How many requests are handled at once.
    pub requests_max: usize,
    /// How many of them one caller has.
    pub caller_requests_max: usize,
    /// How many connections there are at once.
    pub connections_max: usize,
    /// How many requests one connection has open at once.
    pub streams_max: u32,
    /// How large the headers of a request are, in bytes.
    pub header_bytes_max: u32,
    /// How long who connects may take to say what is spoken, and an HTTP/1.1 request's head to arrive.
    pub greeting_time: Duration,
    /// How long a request may take to arrive and be answered, or its stream to begin.
    pub request_time: Duration,
    /// After what time a connection is closed, for callers to find new instances.
    pub connection_age: Duration,
    /// How long its requests and streams may go on after that.
    pub farewell_time: Duration,
    /// How long requests may take to end once the service stops.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 4 * 1_024 * 1_024,
            requests_max: 1_024,
            caller_requests_max: 768,
            connections_max: 10_000,
            streams_max: 1_024,
            header_bytes_max: 16 * 1_024,
            greeting_time: Duration::from_secs(10),
            request_time: Duration::from_secs(10),
            connection_age: Duration::from_mins(10),
            farewell_time: Duration::from_secs(30),
            drain_time: Duration::from_secs(3),
        }
    }
}

/// The services that need the application.
#[derive(Clone)]
pub struct Apis {
    /// Answers questions.
    pub permissions: PermissionApi,
    /// Takes what is said to have changed.
    pub invalidation: InvalidationApi,
    /// Tells what changes.
    pub watch: WatchApi,
}

/// What is served, where and for whom.
pub struct Serving {
    /// The port.
    pub listener: TcpListener,
    /// A port for probes alone, without TLS.
    pub probes: Option<TcpListener>,
    /// With what the port proves who it is.
    pub tls: Option<Tls>,
    /// Who may call.
    pub callers: Callers,
    /// Whether the port describes its services.
    pub reflection: bool,
    /// Its bounds.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How the service is.
    pub health: watch::Receiver<Health>,
    /// The services, once there are any.
    pub apis: watch::Receiver<Option<Apis>>,
}

/// Why the port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptions of the services cannot be offered.
    #[error("reflection cannot be offered")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until `stop` is done: probes and descriptions from the beginning, the services as soon as there are any. At the end
/// it says so to probes and to those who watch, and lets open requests end.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(serving: Serving, stop: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
    let Serving { listener, probes, tls, callers, reflection, limits, metrics, health, mut apis } = serving;
    let (drain, is_draining) = watch::channel(false);
    let current = Current { health, is_draining: is_draining.clone() };
    metrics.show(state(&current));
    metrics.show(serves(&current));
    let gate = Gate { admission: Admission::new(callers, limits), calls: metrics.calls(methods()) };
    let reporter = HealthReporter::new();
    let front = || {
        Routes::from(http::routes(current.clone(), Arc::clone(&metrics))).add_service(
            HealthServer::new(HealthService::from_health_reporter(reporter.clone()))
                .max_decoding_message_size(OPEN_BYTES_MAX),
        )
    };
    let described = if reflection { with_reflection(front())? } else { front() };

    let unready = current.clone();
    let starting = described
        .clone()
        .into_axum_router()
        .fallback(move |request: Request| ready(nothing(&request, || status::unavailable(&unready.now().describe()))));
    let starting = gate.before(starting);
    let open: Arc<OnceLock<Router>> = Arc::default();
    let answering: Answering = Arc::new({
        let open = Arc::clone(&open);
        move || open.get().unwrap_or(&starting).clone()
    });
    let opening = async {
        if let Ok(Some(apis)) = apis.wait_for(Option::is_some).await.map(|apis| apis.clone()) {
            let services = with_apis(described, apis, limits, is_draining.clone());
            let _once = open.set(gate.before(complete(services)));
        }
        pending::<()>().await;
    };
    let following = async {
        match &tls {
            Some(tls) => tls.clone().follow().await,
            None => pending().await,
        }
    };
    let port = |listener, tls, answering| Port { listener, tls, limits, answering, is_draining: is_draining.clone() };
    let probed = gate.before(complete(front()));
    let probes = probes.map(|listener| port(listener, None, Arc::new(move || probed.clone())).serve());
    let main = port(listener, tls.clone(), answering).serve();
    let mut ports = pin!(async { tokio::join!(main, OptionFuture::from(probes)) });
    let mut reporting = pin!(current.report(reporter, &SERVICES));

    // None but the last ends by itself. In this order: nobody is to find what is not there yet.
    tokio::select! {
        biased;
        () = &mut reporting => {}
        () = opening => {}
        _ = &mut ports => {}
        () = following => {}
        () = stop => {}
    }
    let _nobody_listens = drain.send(true);
    if timeout(limits.drain_time, async { tokio::join!(ports, reporting) }).await.is_err() {
        tracing::warn!("connections were still open when the time to drain was over");
    }
    Ok(())
}

/// These services, and those of the application.
fn with_apis(routes: Routes, apis: Apis, limits: Limits, is_draining: watch::Receiver<bool>) -> Routes {
    let Apis { permissions, invalidation, watch } = apis;
    let bytes_max = limits.message_bytes_max;
    routes
        .add_service(PermissionServiceServer::new(permissions).max_decoding_message_size(bytes_max))
        .add_service(InvalidationServiceServer::new(invalidation).max_decoding_message_size(bytes_max))
        .add_service(WatchServiceServer::new(watch.until(is_draining)).max_decoding_message_size(bytes_max))
}

/// These services, described by both versions of the protocol for that.
fn with_reflection(routes: Routes) -> Result<Routes, ServeError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The details of errors: without them, tools show these as bytes.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = reflection().build_v1()?.max_decoding_message_size(OPEN_BYTES_MAX);
    let v1alpha = reflection().build_v1alpha()?.max_decoding_message_size(OPEN_BYTES_MAX);
    Ok(routes.add_service(v1).add_service(v1alpha))
}

/// With an answer to calls of what is not there.
fn complete(routes: Routes) -> Router {
    let unknown = |request: Request| ready(nothing(&request, || Status::unimplemented("there is no such method here")));
    routes.into_axum_router().fallback(unknown)
}

/// What each request comes through before anything else looks at it.
struct Gate {
    admission: Admission,
    calls: Calls,
}

impl Gate {
    /// What is refused is counted as well.
    fn before(&self, router: Router) -> Router {
        let admitted = router.layer(from_fn_with_state(self.admission.clone(), admit));
        admitted.layer(from_fn_with_state(self.calls.clone(), observe))
    }
}

/// Whether questions are to be sent here, as metrics show it.
fn serves(current: &Current) -> SampledMetric {
    let help = "1 while questions are to be sent here, as gRPC health says it";
    let current = current.clone();
    SampledMetric::new("permcached_serving", help, Kind::Gauge)
        .of(move || Some(f64::from(u8::from(current.now().is_serving()))))
}

/// How the service is, as metrics show it.
fn state(current: &Current) -> SampledMetric {
    let metric = SampledMetric::new("permcached_health", "1 for the state that the service is in", Kind::Gauge);
    Health::STATES.iter().fold(metric, |metric, state| {
        let current = current.clone();
        metric.with("state", state, move || Some(f64::from(u8::from(current.now().state() == *state))))
    })
}

/// What is said where nothing is: to a call, this status.
fn nothing(request: &Request, status: impl FnOnce() -> Status) -> Response {
    if is_call(request) { status().into_http() } else { StatusCode::NOT_FOUND.into_response() }
}
