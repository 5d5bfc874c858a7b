//! Clients that send what no gRPC library sends: HTTP/2 by hand.
//!
//! Asserts nothing.

use std::{net::SocketAddr, time::Duration};

use axum::{body::Bytes, http::Request};
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use super::service::PATIENCE;

/// An empty message, with its prefix. It is a valid request to health.
pub const EMPTY: &[u8] = &[0; 5];

/// The path of health's `Check`.
pub const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// The path of health's `Watch`.
pub const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
/// The path of reflection.
pub const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// A connection of HTTP/2. Dropping it closes it.
pub struct Raw {
    pub send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Raw {
    /// Connects with an ordinary window.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with_window(address, 65_535).await
    }

    /// Connects with this window for each response.
    pub async fn with_window(address: SocketAddr, bytes: u32) -> Self {
        Self::try_with_window(address, bytes).await.expect("a connection")
    }

    /// As [`Raw::with_window`], where the server may refuse the connection.
    pub async fn try_with_window(address: SocketAddr, bytes: u32) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let handshake = Builder::new().initial_window_size(bytes).max_concurrent_streams(0).handshake(stream);
        let (send, connection) =
            timeout(PATIENCE, handshake).await.expect("in time").map_err(|error| error.to_string())?;
        Ok(Self { send, connection: tokio::spawn(connection) })
    }

    /// Begins a call: sends its headers, with these in addition, and no body.
    pub async fn begin(
        &self,
        path: &str,
        more: &[(&str, &str)],
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let request = Request::post(format!("http://localhost{path}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let request = more.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let mut ready = self.send.clone().ready().await?;
        ready.send_request(request.body(()).unwrap(), false)
    }

    /// Begins a call and sends this body, whole.
    pub async fn call(&self, path: &str, body: &'static [u8]) -> Result<ResponseFuture, h2::Error> {
        let (response, mut stream) = self.begin(path, &[]).await?;
        stream.send_data(Bytes::from_static(body), true)?;
        Ok(response)
    }

    /// Waits until the server has closed the connection.
    pub async fn closed(mut self) {
        let _how = timeout(PATIENCE, &mut self.connection).await.expect("the connection is closed");
    }

    /// Whether the connection is open.
    pub fn is_open(&self) -> bool {
        !self.connection.is_finished()
    }
}

/// The gRPC status of a response, read to its end.
pub async fn status(response: ResponseFuture) -> Result<i32, h2::Error> {
    let read = async {
        let response = response.await?;
        let code = |headers: &axum::http::HeaderMap| {
            headers.get("grpc-status").map(|status| status.to_str().unwrap().parse().unwrap())
        };
        if let Some(code) = code(response.headers()) {
            return Ok(code);
        }
        let mut body: RecvStream = response.into_body();
        while let Some(data) = body.data().await {
            let data = data?;
            let _sent = body.flow_control().release_capacity(data.len());
        }
        Ok(body.trailers().await?.and_then(|trailers| code(&trailers)).unwrap_or(-1))
    };
    timeout(PATIENCE, read).await.expect("a response in time")
}

/// Repeats until it succeeds. Panics after [`PATIENCE`].
pub async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let repeat = async {
        loop {
            if let Some(done) = attempt().await {
                return done;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, repeat).await.expect("it happens in time")
}
