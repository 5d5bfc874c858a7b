//! The outermost layer of calls: counts each one, times it from its arrival to its last byte and, if traces are on, makes a
//! span of it.
//!
//! Decides nothing. Of a call it reads the path, the status and the trace headers only.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, header::HeaderName},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tracing::{Instrument as _, Span};

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

/// The layer: counts a call and passes it on.
pub(super) async fn observe(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    let mut observed = Observed::begin(&calls, &request);
    let span = observed.span.clone();
    let response = next.run(request).instrument(span).await;
    observed.read(response.headers());
    response.map(|body| Body::new(ObservedBody { body, observed }))
}

/// A call that has begun and not ended.
struct Observed {
    call: Call,
    span: Span,
}

impl Observed {
    /// Begins to observe a call.
    fn begin(calls: &Calls, request: &Request) -> Self {
        let call = calls.begin(request.uri().path());
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let span = call_span(call.service(), call.method(), || header("traceparent"), || header("tracestate"));
        Self { call, span }
    }

    /// Records the status if these headers have one.
    fn read(&mut self, headers: &HeaderMap) {
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

/// The body of a response. The call ends with it.
struct ObservedBody {
    body: Body,
    observed: Observed,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.observed.read(trailers);
                }
            }
            Some(Err(_)) | None => self.observed.call.end_unknown(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
