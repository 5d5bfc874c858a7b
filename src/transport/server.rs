//! The port from start to drained: which services it offers, to whom and within which limits.
//!
//! Binds no address: the caller passes the listeners, and a future that completes when the service is to stop.

use std::{
    future::{Future, pending, ready},
    pin::pin,
    sync::Arc,
};

use axum::{Router, middleware::from_fn_with_state};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tonic::{Status, body::Body, service::Routes};
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::{
    callers::{Admission, Callers},
    calls::Calls,
    connections::Port,
    entrance::Entrance,
    health::{Current, Health},
    http::{MetricsTokens, Pages, Rules},
    intake::Intake,
    limits::Limits,
    observed::methods,
    open_calls::{OPEN_BYTES_MAX, OpenCalls, admit_open},
    proto::{
        DESCRIPTORS, invalidation_service_server::SERVICE_NAME as INVALIDATION,
        permission_service_server::SERVICE_NAME as PERMISSION, watch_service_server::SERVICE_NAME as WATCH,
    },
    services::{Apis, Started},
    shares::Shares,
    slow_threads::SlowThreads,
    tls::Tls,
};
use crate::telemetry::{Kind, Metrics, SampledMetric};

/// The names that gRPC health reports on: the whole server, and each service.
const SERVICES: [&str; 4] = ["", PERMISSION, INVALIDATION, WATCH];

/// The listeners, services and limits of [`serve`].
pub struct Serving {
    /// The port.
    pub listener: TcpListener,
    /// A second port without TLS, for health, `/healthz`, `/readyz` and `/metrics` only.
    pub probes: Option<TcpListener>,
    /// The port's certificate, if it uses TLS.
    pub tls: Option<Tls>,
    /// Who may call.
    pub callers: Callers,
    /// Whether the port offers gRPC reflection.
    pub reflection: bool,
    /// Bounds of both ports.
    pub limits: Limits,
    /// The tokens of which one is required for `/metrics`, if one is.
    pub metrics_tokens: Option<MetricsTokens>,
    /// The metrics that `/metrics` shows. The server adds its calls and its health state to them.
    pub metrics: Arc<Metrics>,
    /// The application's health.
    pub health: watch::Receiver<Health>,
    /// The application's services; `None` until it has started.
    pub apis: watch::Receiver<Option<Apis>>,
}

/// Why the port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptions of the services are invalid.
    #[error("reflection cannot be offered")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A port has ended although it was not to stop.
    #[error("the port cannot be served any more")]
    Port(#[source] std::io::Error),
    /// The system starts no more threads.
    #[error("the threads of lower priority cannot be started")]
    Threads(#[from] std::io::Error),
}

impl ServeError {
    /// A port has ended like this, although it was not to stop.
    fn ended(ended: std::io::Result<()>) -> Self {
        Self::Port(ended.err().unwrap_or_else(|| std::io::Error::other("it has stopped accepting connections")))
    }
}

/// Serves until `stop` completes. Health, HTTP and reflection answer from the start, the application's services as soon
/// as `apis` has them. After `stop`, health reports that the service is draining, Watch streams end, and open requests
/// have `drain_timeout` to finish.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(serving: Serving, stop: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
    let Serving { listener, probes, tls, callers, reflection, limits, metrics_tokens, metrics, health, apis } = serving;
    let (drain, is_draining) = watch::channel(false);
    let current = Current { health, is_draining: is_draining.clone() };
    metrics.show(state_metric(&current));
    metrics.show(serving_metric(&current));
    let shares = Arc::new(Shares::new(callers.names(), limits.caller_requests_max, limits.requests_max));
    let intake = Intake::start(&callers, limits)?;
    let admission = Arc::new(Admission::new(callers, Arc::clone(&shares)));
    let open = OpenCalls::new(limits);
    let observed = metrics.calls(methods());
    let pages = Pages::new(current.clone(), metrics, metrics_tokens);
    let reporter = HealthReporter::new();
    let health_service = || {
        Routes::new(
            HealthServer::new(HealthService::from_health_reporter(reporter.clone()))
                .max_decoding_message_size(OPEN_BYTES_MAX),
        )
    };
    let described = if reflection { with_reflection(health_service())? } else { health_service() };

    let reload_certificates = async {
        match &tls {
            Some(tls) => tls.clone().reload_when_changed().await,
            None => pending().await,
        }
    };
    let entrance = |listener: &TcpListener, routes: Routes, services, unknown| {
        let is_local = listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        Arc::new(Entrance {
            shares: Arc::clone(&shares),
            rules: Rules { is_local },
            pages: pages.clone(),
            open_calls: complete(routes).layer(from_fn_with_state(open.clone(), admit_open)),
            calls: Calls {
                admission: Arc::clone(&admission),
                intake: intake.clone(),
                current: current.clone(),
                services,
                request_timeout: limits.request_timeout,
            },
            observed: observed.clone(),
            unknown,
        })
    };
    let probes = probes.map(|listener| {
        let entrance = entrance(&listener, health_service(), None, None);
        let connections_max = limits.probe_connections_max;
        // Its clients are never known, and nobody's calls wait for them.
        let (tls, slower) = (None, None);
        Port { listener, tls, limits, connections_max, entrance, slower, is_draining: is_draining.clone() }.serve()
    });
    let slower = SlowThreads::start()?;
    let entrance = entrance(
        &listener,
        described,
        Some(Started::new(apis, is_draining.clone())),
        Some(Arc::clone(slower.unknown())),
    );
    let connections_max = limits.connections_max;
    let main = Port {
        listener,
        tls: tls.clone(),
        limits,
        connections_max,
        entrance,
        slower: Some(slower.clone()),
        is_draining: is_draining.clone(),
    };
    let main = slower.unknown().run(main.serve());
    let mut main = pin!(async { main.await.unwrap_or_else(|panicked| Err(panicked.into())) });
    let mut all_drain = drain.subscribe();
    let mut probes = pin!(async {
        match probes {
            Some(probes) => probes.await,
            None => all_drain.wait_for(|is_draining| *is_draining).await.map(drop).map_err(std::io::Error::other),
        }
    });
    let mut report = pin!(current.report(reporter, &SERVICES));

    // Unless a port ends, only `stop` completes. In this order, health is set before the ports accept the first connection.
    tokio::select! {
        biased;
        () = &mut report => {}
        ended = &mut main => return Err(ServeError::ended(ended)),
        ended = &mut probes => return Err(ServeError::ended(ended)),
        () = reload_certificates => {}
        () = stop => {}
    }
    let _no_receivers = drain.send(true);
    if timeout(limits.drain_timeout, async { tokio::join!(main, probes, report) }).await.is_err() {
        tracing::warn!("connections were still open when the time to drain was over");
    }
    Ok(())
}

/// Adds both versions of the reflection service.
fn with_reflection(routes: Routes) -> Result<Routes, ServeError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The messages of error details: without their descriptions, tools show them as bytes.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = reflection().build_v1()?.max_decoding_message_size(OPEN_BYTES_MAX);
    let v1alpha = reflection().build_v1alpha()?.max_decoding_message_size(OPEN_BYTES_MAX);
    Ok(routes.add_service(v1).add_service(v1alpha))
}

/// Adds the answer to unknown methods.
fn complete(routes: Routes) -> Router {
    let unknown = || ready(Status::unimplemented("there is no such method here").into_http::<Body>());
    routes.into_axum_router().fallback(unknown)
}

/// The metric that shows whether clients should send questions to this instance.
fn serving_metric(current: &Current) -> SampledMetric {
    let help = "1 while clients should send questions to this instance, as gRPC health reports it";
    let current = current.clone();
    SampledMetric::new("permcached_serving", help, Kind::Gauge)
        .of(move || Some(f64::from(u8::from(current.now().is_serving()))))
}

/// The metric that shows the service's state.
fn state_metric(current: &Current) -> SampledMetric {
    let metric = SampledMetric::new("permcached_health", "1 for the state that the service is in", Kind::Gauge);
    Health::STATES.iter().fold(metric, |metric, state| {
        let current = current.clone();
        metric.with("state", state, move || Some(f64::from(u8::from(current.now().state() == *state))))
    })
}
