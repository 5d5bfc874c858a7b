//! A connection's socket, which wakes the threads that its connection runs on. If the runtime's own threads were woken for each
//! packet of a client that floods the port, the calls of others would wait for that.
//!
//! Chooses no threads: `connections` does.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    runtime::Handle,
};

use super::{
    open_connection::{OpenConnection, Standing},
    slow_threads::SlowThreads,
};

/// The socket.
pub(super) struct FollowingStream {
    /// None only while it moves, and if that has failed.
    stream: Option<TcpStream>,
    connection: Arc<OpenConnection>,
    /// The threads of lower priority; none if it never moves.
    slower: Option<SlowThreads>,
    /// The runtime whose own threads serve known clients.
    runtime: Handle,
    /// The standing whose threads it wakes.
    wakes: Standing,
}

impl FollowingStream {
    /// A socket that wakes the threads for unknown clients, if there are any, or else those of the present runtime.
    pub(super) fn new(stream: TcpStream, connection: Arc<OpenConnection>, slower: Option<SlowThreads>) -> Self {
        Self { stream: Some(stream), connection, slower, runtime: Handle::current(), wakes: Standing::Unknown }
    }

    /// The socket, which wakes the threads for the client's present standing.
    fn stream(&mut self, context: &Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        let standing = self.connection.standing();
        if let Some(slower) = self.slower.as_ref().filter(|_| self.wakes != standing)
            && let Some(stream) = self.stream.take()
        {
            let stream = stream.into_std()?;
            let moved = match slower.threads(standing) {
                Some(threads) => threads.with_driver(|| TcpStream::from_std(stream)),
                None => {
                    let _entered = self.runtime.enter();
                    Some(TcpStream::from_std(stream))
                }
            };
            self.stream = moved.transpose()?;
            self.wakes = standing;
            // A task that waits in the other direction would not be woken by the socket any more.
            context.waker().wake_by_ref();
        }
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for FollowingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream(context)?.poll_read(context, buffer)
    }
}

impl AsyncWrite for FollowingStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream(context)?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(context)?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(context)?.poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream(context)?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::{super::woken::Woken, *};

    /// How long something may take that has to happen.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// The name of the thread that the next byte wakes.
    async fn woken_by(stream: &mut FollowingStream, client: &mut TcpStream) -> String {
        let (woken, names) = mpsc::channel();
        let waker = Arc::new(Woken(woken)).into();
        let mut bytes = [0; 1];
        let mut read =
            |waker| Pin::new(&mut *stream).poll_read(&mut Context::from_waker(waker), &mut ReadBuf::new(&mut bytes));
        // The first time, the socket may move, or not know yet that there is nothing to read.
        let _moved = read(&waker);
        assert!(read(&waker).is_pending());
        while names.try_recv().is_ok() {}
        client.write_all(b"x").await.expect("it is open");
        let woken_by = tokio::task::spawn_blocking(move || names.recv_timeout(PATIENCE));
        let name = woken_by.await.expect("no panic").expect("it is woken");
        assert!(read(&waker).is_ready());
        name
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_socket_wakes_the_threads_for_its_client_wherever_it_was_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("its address")).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let open = OpenConnection::new(1);
        let slower = SlowThreads::start().expect("threads");
        let mut stream = FollowingStream::new(stream, Arc::clone(&open), Some(slower));
        open.set_known();
        assert_eq!(woken_by(&mut stream, &mut client).await, "tokio-rt-worker");
        open.set_busy();
        assert_eq!(woken_by(&mut stream, &mut client).await, "permcached-busy");
        open.calm_down().await;
        assert_eq!(woken_by(&mut stream, &mut client).await, "tokio-rt-worker");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_that_waits_to_write_is_woken_when_the_socket_moves_by_a_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let _client = TcpStream::connect(listener.local_addr().expect("its address")).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let open = OpenConnection::new(1);
        open.set_known();
        let mut stream = FollowingStream::new(stream, Arc::clone(&open), Some(SlowThreads::start().expect("threads")));
        let (woken, names) = mpsc::channel();
        let waker = Arc::new(Woken(woken)).into();
        let mut context = Context::from_waker(&waker);
        // The system takes a bounded number of bytes. A poll may also be pending because this task has done enough for its turn.
        let bytes = vec![0; 1_048_576];
        let mut is_full = false;
        while !is_full {
            while Pin::new(&mut stream).poll_write(&mut context, &bytes).is_ready() {}
            tokio::task::yield_now().await;
            while names.try_recv().is_ok() {}
            is_full = Pin::new(&mut stream).poll_write(&mut context, &bytes).is_pending()
                && names.recv_timeout(Duration::from_millis(50)).is_err();
        }
        tokio::task::yield_now().await;
        open.set_busy();
        let mut byte = [0; 1];
        assert!(Pin::new(&mut stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending());
        assert!(names.try_recv().is_ok());
    }
}
