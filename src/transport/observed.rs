//! Counts each call, times it from its arrival to its last byte and, if traces are on, makes a span of it.
//!
//! Decides nothing. Of a call it reads the path, the status and the trace headers only.

use std::time::Instant;

use axum::http::{HeaderMap, Request, header::HeaderName};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tracing::Span;

use super::proto::DESCRIPTORS;
use crate::telemetry::{Call, Calls, Method, call_span};

/// The header or trailer with a call's status. It is a header when the call has no response message.
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Every method that the port offers.
pub(super) fn methods() -> Vec<Method> {
    let descriptors = [
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = descriptors.into_iter().filter_map(|bytes| FileDescriptorSet::decode(bytes).ok());
    let methods = files.flat_map(|files| files.file).flat_map(|file| {
        let package = file.package().to_owned();
        file.service.into_iter().flat_map(move |service| {
            let name = format!("{package}.{}", service.name());
            service.method.into_iter().map(move |method| Method {
                service: name.clone(),
                name: method.name().to_owned(),
                is_client_streaming: method.client_streaming(),
                is_server_streaming: method.server_streaming(),
            })
        })
    });
    methods.collect()
}

/// A call that has begun and not ended.
pub(super) struct Observed {
    call: Call,
    span: Span,
}

impl Observed {
    /// Begins to observe a call.
    pub(super) fn begin<B>(calls: &Calls, request: &Request<B>) -> Self {
        let call = calls.begin(request.uri().path());
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let span = call_span(call.service(), call.method(), || header("traceparent"), || header("tracestate"));
        Self { call, span }
    }

    /// When the call began.
    pub(super) fn began(&self) -> Instant {
        self.call.began()
    }

    /// The call's span, in which it is worked at.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Records that the call has ended, if no status was recorded.
    pub(super) fn end_unknown(&mut self) {
        self.call.end_unknown();
    }

    /// Records the status if these headers have one.
    pub(super) fn read(&mut self, headers: &HeaderMap) {
        let Some(status) = headers.get(STATUS) else { return };
        match status.to_str().ok().and_then(|status| status.parse().ok()) {
            Some(code) => self.call.end(code),
            None => self.call.end_unknown(),
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if self.span.is_disabled() {
            return;
        }
        // No status was sent, so the caller went away: code 1, CANCELLED.
        let code = self.call.code().unwrap_or(1);
        self.span.record("rpc.grpc.status_code", code);
        // OpenTelemetry's conventions count these codes as errors of the server, and the others as errors of the caller.
        if matches!(code, 2 | 4 | 12 | 13 | 14 | 15) {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}
