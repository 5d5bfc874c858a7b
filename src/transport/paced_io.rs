//! A connection's bytes: how much it may read in one turn, so that connections take turns, and whether the other side reads
//! what is sent to it.
//!
//! Changes no byte.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::open_connection::{OpenConnection, Untaken};

/// How many bytes a connection reads in one turn. Then it waits until all others have had theirs. This bounds how much work
/// its requests can put in front of the work of others.
const TURN_BYTES: usize = 16 * 1_024;

/// The same while nothing shows that its client may call: many small requests fit in few bytes.
const UNKNOWN_TURN_BYTES: usize = 2 * 1_024;

/// The two directions of a connection.
pub(super) struct PacedIo<S> {
    stream: S,
    connection: Arc<OpenConnection>,
    /// Since when the other side has read nothing, while there is something for it to read.
    unwritten: Option<Untaken>,
}

impl<S> PacedIo<S> {
    pub(super) fn new(stream: S, connection: Arc<OpenConnection>) -> Self {
        Self { stream, connection, unwritten: None }
    }

    /// Counts what was written, and notes whether a write has to wait for the other side.
    fn note_written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.connection.count_written(bytes);
        }
        self.note(written)
    }

    /// Notes whether a write has to wait for the other side.
    fn note<T>(&mut self, written: Poll<T>) -> Poll<T> {
        match written {
            Poll::Pending if self.unwritten.is_none() => self.unwritten = Some(self.connection.untaken()),
            Poll::Pending => {}
            Poll::Ready(_) => self.unwritten = None,
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.connection.holds_input() {
            // Its task runs again by itself.
            return Poll::Pending;
        }
        let is_known = this.connection.is_known();
        let bytes_max = if is_known { TURN_BYTES } else { UNKNOWN_TURN_BYTES };
        let left = bytes_max.saturating_sub(this.connection.bytes_in_turn());
        if left == 0 {
            // The turn is over. The connection's task is run again after all that wait now.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = if is_known {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            buffer.filled().len().saturating_sub(before)
        } else {
            let length = left.min(buffer.remaining());
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(length));
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
            let count = part.filled().len();
            buffer.advance(count);
            count
        };
        this.connection.count_read(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_written(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = Pin::new(&mut self.stream).poll_shutdown(context);
        self.note(shut_down)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
