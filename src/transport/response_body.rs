//! The body of a response on its way to the client, in pieces that the client's window allows for. While the client does not
//! take the next piece, the connection knows (`open_connection`).
//!
//! Closes nothing.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::HeaderMap,
};
use http_body::{Frame, SizeHint};

use super::{
    observed::Observed,
    open_connection::{OpenRequest, Untaken},
};

/// The largest piece. It is also the largest frame of HTTP/2 that every client accepts.
const PIECE_BYTES: usize = 16 * 1_024;

/// The largest last piece. HTTP/2 takes all of a piece as soon as the client's window has room for its first byte, and after
/// the last piece nobody knows whether the client has taken it. It is copied, so that what a client leaves untaken keeps no
/// more than this in memory.
const LAST_BYTES: usize = 1_024;

/// The body of a response as its service makes it.
#[derive(Default)]
pub(super) enum CallBody {
    /// A response without a body.
    #[default]
    Empty,
    /// A body of which everything is there.
    Whole(WholeBody),
    /// Any other body.
    Other(Body),
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(whole) => Poll::Ready(whole.next().map(Ok)),
            Self::Other(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(whole) => whole.is_over(),
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(whole) => SizeHint::with_exact(u64::try_from(whole.data.len()).unwrap_or(u64::MAX)),
            Self::Other(body) => body.size_hint(),
        }
    }
}

/// A body of which everything is there.
#[derive(Default)]
pub(super) struct WholeBody {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl WholeBody {
    pub(super) fn new(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { data, trailers }
    }

    fn is_over(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }
}

impl Iterator for WholeBody {
    type Item = Frame<Bytes>;

    fn next(&mut self) -> Option<Frame<Bytes>> {
        if self.data.is_empty() {
            return self.trailers.take().map(Frame::trailers);
        }
        Some(Frame::data(mem::take(&mut self.data)))
    }
}

/// As a body of any kind.
impl From<WholeBody> for Body {
    fn from(whole: WholeBody) -> Self {
        Self::new(CallBody::Whole(whole))
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

/// The body of a response on its way.
pub(super) struct ResponseBody {
    body: CallBody,
    /// Data that was taken from `body` and not yet passed on.
    rest: Bytes,
    /// Whether `rest` is, or was, too large for one piece.
    is_cut: bool,
    patience: Patience,
    untaken: Option<Untaken>,
    /// The call, if it is one: it ends with its body.
    observed: Option<Observed>,
    /// The request is open until the response has been taken.
    request: OpenRequest,
}

impl ResponseBody {
    pub(super) fn new(body: CallBody, patience: Patience, observed: Option<Observed>, request: OpenRequest) -> Self {
        Self { body, rest: Bytes::new(), is_cut: false, patience, untaken: None, observed, request }
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
                    Err(trailers) => {
                        if let (Some(observed), Some(trailers)) = (&mut this.observed, trailers.trailers_ref()) {
                            observed.read(trailers);
                        }
                        return Poll::Ready(Some(Ok(trailers)));
                    }
                },
                end => {
                    if let Some(observed) = &mut this.observed {
                        observed.end_unknown();
                    }
                    return Poll::Ready(end);
                }
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
