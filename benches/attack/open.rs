//! Attacks without a token: on health, on reflection, on the pages of plain HTTP and on the places for connections.

use std::{net::SocketAddr, time::Duration};

use axum::{
    body::Bytes,
    http::{Request, header},
};
use futures::future::join_all;
use h2::client::SendRequest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::{aim::Aim, client::connect};

pub(crate) const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
pub(crate) const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
pub(crate) const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
pub(crate) const CHECK: &str = "/permcached.v1.PermissionService/Check";

/// A request for the file that describes `PermissionService`, with its prefix.
pub(crate) const LARGE_FILE: &[u8] = b"\x00\x00\x00\x00!\x22\x1fpermcached.v1.PermissionService";
/// An empty message, with its prefix.
pub(crate) const EMPTY: &[u8] = &[0; 5];

/// The part of each call that the attacker sends.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) path: &'static str,
    /// None: the body does not come.
    pub(crate) body: Option<&'static [u8]>,
    /// Whether the request ends with this body.
    pub(crate) is_whole: bool,
    pub(crate) connections: usize,
    pub(crate) streams: usize,
}

impl Opened {
    /// Opens calls, reads none of the responses, and opens new ones as soon as some have ended.
    pub(crate) async fn run(self, aim: Aim) {
        let connections = (0..self.connections).map(|_| async {
            loop {
                let Some(client) = connect_without_window(aim.address).await else {
                    aim.count("no connection");
                    sleep(Duration::from_millis(10)).await;
                    continue;
                };
                join_all((0..self.streams).map(|_| self.hold(&client, &aim))).await;
                sleep(Duration::from_millis(1)).await;
            }
        });
        join_all(connections).await;
    }

    /// Opens one call after the other, each until it has ended.
    async fn hold(&self, client: &SendRequest<Bytes>, aim: &Aim) {
        for _ in 0..100 {
            let request = request(aim.address, self.path, &[]);
            let Ok(mut ready) = client.clone().ready().await else { return };
            let Ok((response, mut sender)) = ready.send_request(request, false) else { return };
            if let Some(body) = self.body {
                let _refused = sender.send_data(Bytes::from_static(body), self.is_whole);
            }
            match response.await {
                Ok(response) if response.headers().contains_key("grpc-status") => aim.count("refused"),
                Ok(response) => {
                    aim.count("accepted");
                    let mut body = response.into_body();
                    while let Some(Ok(_)) = body.data().await {}
                }
                Err(_) => {
                    aim.count("reset");
                    return;
                }
            }
        }
    }
}

/// Calls with this many headers, again and again.
pub(crate) async fn headers(aim: Aim, path: &'static str, count: usize, connections: usize) {
    let names: Vec<String> = (0..count).map(|number| format!("x{number}")).collect();
    let connections = (0..connections).map(|_| async {
        loop {
            let Ok(client) = connect(aim.address).await else {
                aim.count("no connection");
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            join_all((0..64).map(|_| async {
                loop {
                    let request = request(aim.address, path, &names);
                    let Ok(mut ready) = client.clone().ready().await else { return };
                    let Ok((response, mut sender)) = ready.send_request(request, false) else { return };
                    let _refused = sender.send_data(Bytes::from_static(EMPTY), true);
                    match response.await {
                        Ok(_) => aim.count("answered"),
                        Err(_) => return aim.count("reset"),
                    }
                }
            }))
            .await;
        }
    });
    join_all(connections).await;
}

/// Requests for a page, again and again.
pub(crate) async fn page(aim: Aim, path: &'static str, connections: usize) {
    let connections = (0..connections).map(|_| async {
        loop {
            aim.count(if get(aim.address, path).await { "200" } else { "failed" });
        }
    });
    join_all(connections).await;
}

/// Connections that send nothing, and new ones for those that are closed.
pub(crate) async fn idle(aim: Aim, connections: usize) {
    let idle = (0..connections).map(|_| async {
        loop {
            let Ok(mut stream) = TcpStream::connect(aim.address).await else {
                aim.count("no connection");
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            aim.count("connected");
            let _closed = stream.read(&mut [0]).await;
            sleep(Duration::from_millis(10)).await;
        }
    });
    join_all(idle).await;
}

/// Whether a page is answered with 200.
pub(crate) async fn get(address: SocketAddr, path: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some(answer.starts_with(b"HTTP/1.1 200 "))
    };
    ask.await == Some(true)
}

/// A connection on which the server may send no body.
async fn connect_without_window(address: SocketAddr) -> Option<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let handshake = h2::client::Builder::new().initial_window_size(0).handshake(stream);
    let (client, connection) = handshake.await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

fn request(address: SocketAddr, path: &str, names: &[String]) -> Request<()> {
    let request = Request::post(format!("http://{address}{path}"));
    let request = request.header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
    names.iter().fold(request, |request, name| request.header(name, "")).body(()).expect("a request")
}
