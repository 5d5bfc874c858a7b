//! The port: which services stand on it, their limits, and its life from ready to drained.
//!
//! Binds nothing: it is handed a listener, and a future that says when to stop.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use axum::middleware::from_fn_with_state;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};

use super::{
    callers::{Callers, admit},
    http,
    invalidation::InvalidationApi,
    permission::PermissionApi,
    proto::{
        DESCRIPTORS,
        invalidation_service_server::{InvalidationServiceServer, SERVICE_NAME as INVALIDATION},
        permission_service_server::{PermissionServiceServer, SERVICE_NAME as PERMISSION},
        watch_service_server::{SERVICE_NAME as WATCH, WatchServiceServer},
    },
    watch::WatchApi,
};
use crate::telemetry::Metrics;

/// What health is told of: the whole server, and each service.
const SERVICES: [&str; 4] = ["", PERMISSION, INVALIDATION, WATCH];

/// Bounds of the port. The defaults are those of the manual.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest request, in bytes.
    pub message_bytes_max: usize,
    /// How many requests one connection has open at once.
    pub streams_max: u32,
    /// How large the headers of a request are, in bytes.
    pub header_bytes_max: u32,
    /// After what time a connection is closed, for callers to find new instances.
    pub connection_age: Duration,
    /// How long requests may take to end once the service stops.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 4 * 1_024 * 1_024,
            streams_max: 1_024,
            header_bytes_max: 16 * 1_024,
            connection_age: Duration::from_mins(10),
            drain_time: Duration::from_secs(4),
        }
    }
}

/// Whether requests are answered, as probes see it.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: Arc<AtomicU8>,
    /// Why not all is well with the source, while that is so.
    trouble: watch::Receiver<Option<String>>,
}

impl Readiness {
    const READY: u8 = 1;
    const DRAINING: u8 = 2;

    fn new(trouble: watch::Receiver<Option<String>>) -> Self {
        Self { state: Arc::default(), trouble }
    }

    /// Whether requests are answered, and from what the source has now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state.load(Ordering::Acquire) == Self::READY && self.trouble.borrow().is_none()
    }

    /// The state in a word, and why.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.state.load(Ordering::Acquire) {
            Self::READY => {
                self.trouble.borrow().as_ref().map_or_else(|| "ready".to_owned(), |why| format!("degraded: {why}"))
            }
            Self::DRAINING => "draining".to_owned(),
            _ => "starting".to_owned(),
        }
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::Release);
    }
}

/// The services of the port.
#[derive(Clone)]
pub struct Apis {
    /// Answers questions.
    pub permissions: PermissionApi,
    /// Takes what is said to have changed.
    pub invalidation: InvalidationApi,
    /// Tells what changes.
    pub watch: WatchApi,
}

/// Why the port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptions of the services cannot be offered.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until `stop` is done. `trouble` says why not all is well with the source, while that is so: requests are answered,
/// but probes are told that the service is not ready. At the end it says so to probes, and lets open requests end.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    listener: TcpListener,
    apis: Apis,
    callers: Callers,
    metrics: Arc<Metrics>,
    trouble: watch::Receiver<Option<String>>,
    limits: Limits,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (mut health, health_service) = health_reporter();
    // The reporter starts with the whole server as serving: it is not, yet.
    health.set_service_status("", ServingStatus::NotServing).await;
    let readiness = Readiness::new(trouble);
    let permissions =
        PermissionServiceServer::new(apis.permissions).max_decoding_message_size(limits.message_bytes_max);
    let invalidation =
        InvalidationServiceServer::new(apis.invalidation).max_decoding_message_size(limits.message_bytes_max);
    let (stopping, mut stopped) = watch::channel(false);
    let watching = WatchServiceServer::new(apis.watch.until(stopping.subscribe()));
    let mut routes = Routes::from(http::routes(readiness.clone(), metrics))
        .add_service(health_service)
        .add_service(permissions)
        .add_service(invalidation)
        .add_service(watching);
    routes = routes.add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?);
    // Before anything else looks at a request.
    let routes = Routes::from(routes.into_axum_router().layer(from_fn_with_state(callers, admit)));

    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(Duration::from_mins(1)));
    let server = Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(limits.streams_max)
        .http2_max_header_list_size(limits.header_bytes_max)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .max_connection_age(limits.connection_age)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async move {
            let _closed = stopped.wait_for(|stopped| *stopped).await;
        });
    tokio::pin!(server, stop);

    readiness.set(Readiness::READY);
    tokio::select! {
        result = &mut server => return Ok(result?),
        () = &mut stop => {}
        () = follow(&readiness, &mut health) => {}
    }
    readiness.set(Readiness::DRAINING);
    for name in SERVICES {
        health.set_service_status(name, ServingStatus::NotServing).await;
    }
    let _no_receivers = stopping.send(true);
    // Ends the streams of those who watch, once they have heard it: they would hold the drain up to its end.
    for name in SERVICES {
        health.clear_service_status(name).await;
    }
    if let Ok(result) = timeout(limits.drain_time, server).await {
        return Ok(result?);
    }
    tracing::warn!("connections were still open when the time to drain was over");
    Ok(())
}

/// Tells health what readiness is, for as long as it may change.
async fn follow(readiness: &Readiness, health: &mut HealthReporter) {
    let mut trouble = readiness.trouble.clone();
    loop {
        trouble.mark_unchanged();
        let status = if readiness.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in SERVICES {
            health.set_service_status(name, status).await;
        }
        if trouble.changed().await.is_err() {
            // There is nobody to report any.
            std::future::pending::<()>().await;
        }
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // The details of errors: without them, tools show these as bytes.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
