//! The smallest gRPC client that HTTP/2 allows, and floods of calls by it.

use std::{io, net::SocketAddr};

use axum::{
    body::Bytes,
    http::{HeaderValue, Request, header},
};
use futures::future::join_all;
use h2::{RecvStream, client::SendRequest};
use tokio::net::TcpStream;

use super::aim::Aim;

pub(crate) const VICTIM_SECRET: &str = "the-secret-of-an-honest-caller";
pub(crate) const ATTACKER_SECRET: &str = "the-secret-of-an-attacker";
pub(crate) const ADMIN_SECRET: &str = "the-secret-of-an-admin";

pub(crate) const CHECK: &str = "permcached.v1.PermissionService/Check";
pub(crate) const BATCH_CHECK: &str = "permcached.v1.PermissionService/BatchCheck";
pub(crate) const LIST_PERMISSIONS: &str = "permcached.v1.PermissionService/ListPermissions";
pub(crate) const EXPLAIN: &str = "permcached.v1.PermissionService/Explain";
pub(crate) const INVALIDATE: &str = "permcached.v1.InvalidationService/Invalidate";

/// Opens an HTTP/2 connection.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // By default this client breaks off a connection on which 130 small responses wait to be read, as they do when the machine
    // is busy.
    let handshake = h2::client::Builder::new().data_frame_budget(64 * 1_024 * 1_024).handshake(stream);
    let (client, connection) = handshake.await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(client)
}

/// The head of a call of a method by the caller with this secret.
pub(crate) fn request(address: SocketAddr, method: &str, secret: &str) -> Request<()> {
    Request::post(format!("http://{address}/{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::AUTHORIZATION, format!("Bearer {secret}"))
        .body(())
        .expect("a request")
}

/// Sends a head and a body as flow control allows. Returns the response's head and body.
pub(crate) async fn send(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
) -> Result<(axum::http::response::Parts, RecvStream), h2::Error> {
    let mut ready = client.clone().ready().await?;
    let (response, mut sender) = ready.send_request(request, false)?;
    let sending = async {
        // The server may answer before it has the whole body. Then it resets the stream, and the rest is not sent.
        let _refused = sender.send_data(body, true);
        std::future::poll_fn(|context| sender.poll_reset(context)).await.ok();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        response = response => response.map(axum::http::Response::into_parts),
        () = sending => unreachable!("it is pending"),
    }
}

/// Calls, and reads the whole response. Returns its gRPC code if that is not 0.
pub(crate) async fn call(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
) -> Result<Result<(), String>, h2::Error> {
    let (head, mut body) = send(client, request, body).await?;
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    let code = trailers.get("grpc-status").map_or("no status", |code| code.to_str().unwrap_or("no text"));
    Ok(if code == "0" { Ok(()) } else { Err(format!("code {code}")) })
}

/// Many calls with the same message.
pub(crate) struct Flood {
    pub(crate) method: &'static str,
    pub(crate) secret: &'static str,
    /// With its gRPC prefix.
    pub(crate) message: Bytes,
    pub(crate) connections: usize,
    /// How many calls are open on each connection.
    pub(crate) streams: usize,
}

impl Flood {
    /// Calls again and again, on each stream as soon as the last call was answered.
    pub(crate) async fn run(self, aim: Aim) {
        let connections = (0..self.connections).map(|_| async {
            loop {
                let Ok(client) = connect(aim.address).await else {
                    aim.count("no connection");
                    tokio::task::yield_now().await;
                    continue;
                };
                join_all((0..self.streams).map(|_| self.call_until_broken(&client, &aim))).await;
            }
        });
        join_all(connections).await;
    }

    async fn call_until_broken(&self, client: &SendRequest<Bytes>, aim: &Aim) {
        loop {
            let mut request = request(aim.address, self.method, self.secret);
            // The prefix says whether the message is compressed.
            if self.message.first() == Some(&1) {
                request.headers_mut().insert("grpc-encoding", HeaderValue::from_static("gzip"));
            }
            match call(client, request, self.message.clone()).await {
                Ok(Ok(())) => aim.count("OK"),
                Ok(Err(code)) => aim.count(&code),
                Err(error) => {
                    match error.reason() {
                        Some(reason) => aim.count(&format!("{reason:?}")),
                        None => aim.count("connection lost"),
                    }
                    if error.is_go_away() || error.is_io() {
                        return;
                    }
                }
            }
        }
    }

    /// Calls, and reads no response. Each stream has one call.
    pub(crate) async fn leave_unread(self, aim: Aim) {
        let connections = (0..self.connections).map(|_| async {
            let Ok(client) = connect(aim.address).await else { return aim.count("no connection") };
            let calls = (0..self.streams).map(|_| async {
                let request = request(aim.address, self.method, self.secret);
                let Ok((_, body)) = send(&client, request, self.message.clone()).await else {
                    return aim.count("stream reset");
                };
                aim.count("unread");
                let _unread = body;
                std::future::pending::<()>().await;
            });
            join_all(calls).await;
        });
        join_all(connections).await;
    }
}
