//! HTTP beside gRPC on the same port: `/healthz`, `/readyz` and `/metrics`.
//!
//! Answers no questions.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};

use super::health::Current;
use crate::telemetry::Metrics;

/// Whether a request is a gRPC call rather than plain HTTP.
pub(super) fn is_call(request: &Request) -> bool {
    request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The routes. `/healthz` succeeds as long as the process runs; `/readyz` succeeds while the service serves.
pub(super) fn routes(current: Current, metrics: Arc<Metrics>) -> Router {
    let ready = move || {
        let health = current.now();
        let status = if health.is_serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        std::future::ready((status, health.describe()).into_response())
    };
    let metrics = move || {
        let headers = [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
        std::future::ready((headers, metrics.render()).into_response())
    };
    Router::new()
        .route("/healthz", get(|| std::future::ready("alive")))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}
