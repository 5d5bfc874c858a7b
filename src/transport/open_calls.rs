//! Calls that require no token: health and reflection. Anybody who reaches the port can send them, so what they can hold open
//! is bounded: for each connection, and in all. A request that is complete waits for nobody.
//!
//! Answers nothing: tonic's services do.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    extract::{Request, State},
    http::HeaderMap,
    middleware::Next,
    response::Response,
};
use futures::future::poll_immediate;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::time::sleep;
use tonic::Status;

use super::{
    capacity::{Capacity, Place},
    compression::{Encoding, Packed, packed_response, unpacked_messages},
    giving_way::end_with,
    limits::Limits,
    message::PREFIX_BYTES,
    open_connection::OpenConnection,
    response_body::WholeBody,
    status,
};

/// The largest request, in bytes.
pub(super) const OPEN_BYTES_MAX: usize = 4 * 1_024;

/// How many requests whose body has not arrived may wait: of one connection, and of all whose clients are unknown. Known clients
/// have as many.
const WAITING_MAX: (usize, usize) = (16, 256);

/// How many health streams (`Watch`) may be open: of one connection, and of all whose clients are unknown. Known clients have as
/// many as there may be connections, because gRPC clients with health checking keep one on each.
const HEALTH_STREAMS_MAX: (usize, usize) = (8, 256);

/// How many reflection streams may be open: of one connection, and of all whose clients are unknown. Known clients have as many.
const REFLECTION_STREAMS_MAX: (usize, usize) = (2, 32);

/// How long a reflection stream may be open.
const REFLECTION_TIME_MAX: Duration = Duration::from_mins(1);

/// The path of the call that opens a health stream.
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The prefixes of the paths of these calls.
const HEALTH: &str = "/grpc.health.v1.";
const REFLECTION: &str = "/grpc.reflection.";

/// Whether a call to this path requires no token.
pub(super) fn is_open(path: &str) -> bool {
    path.starts_with(HEALTH) || path.starts_with(REFLECTION)
}

/// Whether a call to this path, without a token, may last.
pub(super) fn is_open_stream(path: &str) -> bool {
    path == HEALTH_WATCH || path.starts_with(REFLECTION)
}

/// What calls without a token may hold open. Clones share it.
#[derive(Clone)]
pub(super) struct OpenCalls {
    waiting: Capacity,
    health_streams: Capacity,
    reflection_streams: Capacity,
    /// How long a request may take to arrive.
    arrival_time_max: Duration,
}

impl OpenCalls {
    pub(super) fn new(limits: Limits) -> Self {
        let capacity = |(connection_max, unknown_max)| Capacity::new(connection_max, unknown_max, unknown_max);
        let (health_max, health_unknown_max) = HEALTH_STREAMS_MAX;
        Self {
            waiting: capacity(WAITING_MAX),
            health_streams: Capacity::new(health_max, health_unknown_max, limits.connections_max),
            reflection_streams: capacity(REFLECTION_STREAMS_MAX),
            arrival_time_max: limits.request_timeout,
        }
    }

    /// Waits for the whole body of a request: its message, uncompressed.
    async fn message(
        &self,
        body: Body,
        connection: &Arc<OpenConnection>,
        encoding: Option<Encoding>,
    ) -> Result<Bytes, Status> {
        let whole = self.whole(body, connection).await?;
        match Packed::of(&whole, encoding, OPEN_BYTES_MAX)? {
            Some(packed) => packed.unpack(),
            None => Ok(whole),
        }
    }

    /// Waits for the whole body of a request.
    async fn whole(&self, body: Body, connection: &Arc<OpenConnection>) -> Result<Bytes, Status> {
        let too_large = |_| Status::out_of_range("the request is larger than 4 KiB, or it broke off");
        let mut arrival = Box::pin(to_bytes(body, OPEN_BYTES_MAX + PREFIX_BYTES));
        if let Some(arrived) = poll_immediate(&mut arrival).await {
            return arrived.map_err(too_large);
        }
        let place = self.waiting.enter(connection).ok_or_else(status::overloaded)?;
        let gives_way = place.end();
        tokio::select! {
            arrived = arrival => arrived.map_err(too_large),
            () = gives_way.cancelled() => Err(status::overloaded()),
            () = sleep(self.arrival_time_max) => Err(Status::deadline_exceeded("the request did not arrive in time")),
        }
    }
}

/// The layer: passes a call on if there is capacity for what it holds open.
pub(super) async fn admit_open(State(open): State<OpenCalls>, request: Request, next: Next) -> Response {
    let Some(connection) = request.extensions().get::<Arc<OpenConnection>>().cloned() else {
        return Status::internal("the request has no connection").into_http();
    };
    let (mut parts, body) = request.into_parts();
    let encoding = match Encoding::take(&mut parts.headers) {
        Ok(encoding) => encoding,
        Err(status) => return status.into_http(),
    };
    let path = parts.uri.path();
    if path.starts_with(REFLECTION) {
        let Some(place) = open.reflection_streams.enter(&connection) else { return status::overloaded().into_http() };
        let body = match encoding {
            Some(encoding) => unpacked_messages(body, encoding, OPEN_BYTES_MAX),
            None => body,
        };
        // When the response has ended, or has to give way: otherwise the service would wait for more of the request.
        let body = Body::new(BodyUntil::new(body, place.end().cancelled_owned(), None));
        let response = next.run(Request::from_parts(parts, body)).await;
        return with_place(response, place, Some(REFLECTION_TIME_MAX));
    }
    let is_stream = path == HEALTH_WATCH;
    let message = match open.message(body, &connection, encoding).await {
        Ok(message) => message,
        Err(status) => return status.into_http(),
    };
    let answered_in = encoding.filter(|encoding| encoding.is_accepted(&parts.headers));
    let place = match is_stream.then(|| open.health_streams.enter(&connection)) {
        None => None,
        Some(Some(place)) => Some(place),
        Some(None) => return status::overloaded().into_http(),
    };
    let response = next.run(Request::from_parts(parts, Body::from(message))).await;
    match (place, answered_in) {
        (Some(place), _) => with_place(response, place, None),
        (None, Some(encoding)) => packed_response(response, encoding).await.unwrap_or_else(Status::into_http),
        (None, None) => compact(response).await,
    }
}

/// A response that keeps no more memory than its message needs while its client does not take it: tonic's buffers have 8 KiB.
async fn compact(response: Response) -> Response {
    let (head, body) = response.into_parts();
    let Ok(collected) = body.collect().await else {
        return Status::internal("the response cannot be encoded").into_http();
    };
    let trailers = collected.trailers().cloned();
    let data = Bytes::copy_from_slice(&collected.to_bytes());
    Response::from_parts(head, WholeBody::new(data, trailers).into())
}

/// The response, which holds the place as long as it lasts, and ends when it has to give way.
fn with_place(response: Response, place: Place, time_max: Option<Duration>) -> Response {
    let gives_way = place.end();
    // A client that takes nothing keeps the response from ending.
    end_with(place.end());
    // The place is given back with this future.
    let end = async move {
        match time_max {
            Some(time) => tokio::select! {
                () = gives_way.cancelled() => {}
                () = sleep(time) => {}
            },
            None => gives_way.cancelled().await,
        }
        drop(place);
    };
    response.map(|body| Body::new(BodyUntil::new(body, end, Some(status::overloaded()))))
}

/// A body that ends early, when a future completes: that of a response with a status, that of a request without one.
struct BodyUntil<E> {
    body: Body,
    /// None once the body has ended.
    end: Option<Pin<Box<E>>>,
    status: Option<Status>,
}

impl<E: Future<Output = ()>> BodyUntil<E> {
    fn new(body: Body, end: E, status: Option<Status>) -> Self {
        Self { body, end: Some(Box::pin(end)), status }
    }
}

impl<E: Future<Output = ()>> HttpBody for BodyUntil<E> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        if end.as_mut().poll(context).is_pending() {
            return Pin::new(&mut self.body).poll_frame(context);
        }
        self.end = None;
        let trailers = self.status.take().map(|status| {
            let mut trailers = HeaderMap::new();
            let _always_valid = status.add_header(&mut trailers);
            Ok(Frame::trailers(trailers))
        });
        Poll::Ready(trailers)
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() || self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_and_reflection_require_no_token_and_all_other_calls_do() {
        for path in ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/X"] {
            assert!(is_open(path), "{path}");
        }
        for path in ["/permcached.v1.PermissionService/Check", "/grpc.health", "/"] {
            assert!(!is_open(path), "{path}");
        }
    }
}
