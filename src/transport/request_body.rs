//! The body of a request over HTTP/2. What is left of it when the request has been answered is read and dropped, up to a bound:
//! a client that is refused may not know it yet, and goes on sending. If what it sends were not expected any more, HTTP/2 would
//! count it as an error of the client, and close its connection after many of them.
//!
//! Decides nothing about the request.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{runtime::Handle, time::timeout};

use super::low_priority::LowPriority;

/// The most bytes of a body that are read and dropped. No message is larger.
const DRAINED_BYTES_MAX: usize = 4 * 1_024 * 1_024 + 64 * 1_024;

/// How long they may take to arrive.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// The body of a request.
///
/// A body that is read and dropped is an open request of its connection, which may have as many as the limits say.
pub(super) struct RequestBody<B: Rest> {
    /// None once it is dropped.
    body: Option<B>,
    /// Reads and drops what is left; the present runtime does if this is none.
    threads: Option<Arc<LowPriority>>,
}

/// A body that can be read to its end by a task of its own.
pub(super) trait Rest: HttpBody<Data = Bytes> + Send + Unpin + 'static {}

impl<B: HttpBody<Data = Bytes> + Send + Unpin + 'static> Rest for B {}

impl<B: Rest> RequestBody<B> {
    /// A body. What is left of it is read by these threads, if there are any: its client has not shown that it may call.
    pub(super) fn new(body: B, threads: Option<Arc<LowPriority>>) -> Self {
        Self { body: Some(body), threads }
    }
}

impl<B: Rest> HttpBody for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl<B: Rest> Drop for RequestBody<B> {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        let rest = async move {
            let _slow = timeout(DRAIN_TIME_MAX, drain(body)).await;
        };
        match &self.threads {
            Some(threads) => drop(threads.spawn(rest)),
            None => drop(runtime.spawn(rest)),
        }
    }
}

/// Reads a body and drops what it holds, until it ends or breaks off.
async fn drain(mut body: impl Rest) {
    let mut bytes = 0;
    while bytes <= DRAINED_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, thread};

    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    use super::*;

    /// An endless body. It sends the name of the thread that reads it.
    struct Endless(UnboundedSender<Option<String>>);

    impl HttpBody for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let _nobody_listens = self.0.send(thread::current().name().map(str::to_owned));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 1_024])))))
        }
    }

    #[tokio::test]
    async fn the_rest_is_read_on_the_threads_of_unknown_clients_up_to_a_bound() {
        let threads = Arc::new(LowPriority::start("low", 1).expect("threads"));
        for (threads, is_low) in [(Some(threads), true), (None, false)] {
            let (reads, mut readers) = unbounded_channel();
            drop(RequestBody::new(Endless(reads), threads));
            let mut frames = 0;
            while let Some(reader) = readers.recv().await {
                assert_eq!(reader.as_deref() == Some("low"), is_low, "{reader:?}");
                frames += 1;
            }
            assert_eq!(frames, DRAINED_BYTES_MAX / 1_024 + 1);
        }
    }
}
