//! The body of a response on its way to the client, in pieces that the client's window allows for. While the client does not
//! take the next piece, the connection knows (`open_connection`).
//!
//! Closes nothing.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::HeaderMap,
};
use futures::stream::iter;
use http_body::{Frame, SizeHint};
use http_body_util::StreamBody;

use super::open_connection::{OpenRequest, Untaken};

/// The largest piece. It is also the largest frame of HTTP/2 that every client accepts.
const PIECE_BYTES: usize = 16 * 1_024;

/// The largest last piece. HTTP/2 takes all of a piece as soon as the client's window has room for its first byte, and after
/// the last piece nobody knows whether the client has taken it. It is copied, so that what a client leaves untaken keeps no
/// more than this in memory.
const LAST_BYTES: usize = 1_024;

/// A body of which everything is there.
pub(super) fn complete_body(data: Bytes, trailers: Option<HeaderMap>) -> Body {
    let data = (!data.is_empty()).then(|| Frame::data(data));
    let mut frames = data.into_iter().chain(trailers.map(Frame::trailers)).peekable();
    match frames.peek() {
        Some(_) => Body::new(StreamBody::new(iter(frames.map(Ok::<_, Infallible>)))),
        None => Body::empty(),
    }
}

/// Whether a response may wait for its client without a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// The client has to take each piece in time.
    Limited,
    /// The stream has its own bounded buffer: a client that falls behind receives everything later.
    Unlimited,
}

/// The body of a response.
pub(super) struct ResponseBody {
    body: Body,
    /// Data that was taken from `body` and not yet passed on.
    rest: Bytes,
    /// Whether `rest` is, or was, too large for one piece.
    is_cut: bool,
    patience: Patience,
    untaken: Option<Untaken>,
    /// The request is open until the response has been taken.
    request: OpenRequest,
}

impl ResponseBody {
    pub(super) fn new(body: Body, patience: Patience, request: OpenRequest) -> Self {
        Self { body, rest: Bytes::new(), is_cut: false, patience, untaken: None, request }
    }

    /// Cuts the next piece off the data that is left.
    fn next_piece(&mut self) -> Bytes {
        let left = self.rest.len();
        let cut = if left <= LAST_BYTES { left } else { PIECE_BYTES.min(left - LAST_BYTES) };
        let piece = self.rest.split_to(cut);
        // The last piece of several: the others have been taken, and their memory is to be returned.
        if self.rest.is_empty() && self.is_cut { Bytes::copy_from_slice(&piece) } else { piece }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        // Asking for the next frame shows that the last one was taken.
        this.untaken = None;
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        this.is_cut = data.len() > LAST_BYTES;
                        this.rest = data;
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        if this.patience == Patience::Limited {
            this.untaken = Some(this.request.connection().untaken());
        }
        Poll::Ready(Some(Ok(Frame::data(this.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}
