//! The body of a request over HTTP/2. What is left of it when the request has been answered is read and dropped, up to a bound:
//! a client that is refused may not know it yet, and goes on sending. If what it sends were not expected any more, HTTP/2 would
//! count it as an error of the client, and close its connection after many of them.
//!
//! Decides nothing about the request.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{runtime::Handle, time::timeout};

/// The most bytes of a body that are read and dropped. No message is larger.
const DRAINED_BYTES_MAX: usize = 4 * 1_024 * 1_024 + 64 * 1_024;

/// How long they may take to arrive.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// The body of a request.
///
/// A body that is read and dropped is an open request of its connection, which may have as many as the limits say.
pub(super) struct RequestBody(Option<Incoming>);

impl RequestBody {
    pub(super) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(body) = self.0.take()
            && !body.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                let _slow = timeout(DRAIN_TIME_MAX, drain(body)).await;
            });
        }
    }
}

/// Reads a body and drops what it holds, until it ends or breaks off.
async fn drain(body: Incoming) {
    let mut body = pin!(body);
    let mut bytes = 0;
    while bytes <= DRAINED_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}
