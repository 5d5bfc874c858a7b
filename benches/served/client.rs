//! The client: connections that keep a number of calls open.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::{Request, header},
};
use h2::client::SendRequest;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::{
    Security,
    calls::Call,
    servers::{Server, TOKEN},
};

/// Open connections to a server.
pub(crate) struct Connections {
    clients: Vec<SendRequest<Bytes>>,
    security: Security,
}

impl Connections {
    pub(crate) async fn open(server: &Server, count: usize) -> Self {
        let mut clients = Vec::new();
        for _ in 0..count {
            let stream = TcpStream::connect(server.address).await.expect("it listens");
            stream.set_nodelay(true).expect("a socket");
            clients.push(match &server.authority {
                None => handshake(stream).await,
                Some(authority) => {
                    let name = ServerName::try_from("localhost").expect("a name");
                    handshake(connector(authority).connect(name, stream).await.expect("a TLS connection")).await
                }
            });
        }
        Self { clients, security: server.security }
    }

    /// Keeps so many calls open on each connection for this time, and verifies the answers. Returns how long each took, in
    /// nanoseconds.
    pub(crate) async fn call_for(&self, call: Call, streams: usize, time: Duration) -> Vec<u64> {
        let until = Instant::now() + time;
        let mut callers = JoinSet::new();
        let message = call.request();
        for client in &self.clients {
            for _ in 0..streams {
                let (client, request, message) = (client.clone(), self.request(call), message.clone());
                callers.spawn(async move {
                    let mut times = Vec::new();
                    loop {
                        let began = Instant::now();
                        if began >= until {
                            return times;
                        }
                        let answer = answer(&client, &request, &message).await;
                        times.push(u64::try_from(began.elapsed().as_nanos()).expect("it is short"));
                        // To decode each answer would cost the client more than the call.
                        if times.len() % 100 == 1 {
                            call.verify(&answer);
                        }
                    }
                });
            }
        }
        callers.join_all().await.concat()
    }

    fn request(&self, call: Call) -> Request<()> {
        let scheme = if self.security == Security::TokenAndTls { "https" } else { "http" };
        let request = Request::post(format!("{scheme}://localhost{}", call.path()))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers");
        let request = match self.security {
            Security::Nothing => request,
            Security::Token | Security::TokenAndTls => request.header(header::AUTHORIZATION, format!("Bearer {TOKEN}")),
        };
        request.body(()).expect("a request")
    }
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    client
}

fn connector(authority: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate")).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Sends a call, and returns the message of the response.
async fn answer(client: &SendRequest<Bytes>, request: &Request<()>, message: &Bytes) -> Vec<u8> {
    let mut ready = client.clone().ready().await.expect("the connection stays");
    let (response, mut body) = ready.send_request(request.clone(), false).expect("a stream");
    body.send_data(message.clone(), true).expect("it is sent");
    let mut received = response.await.expect("a response").into_body();
    let mut answer = Vec::new();
    while let Some(data) = received.data().await {
        let data = data.expect("the message");
        received.flow_control().release_capacity(data.len()).expect("what was read");
        answer.extend_from_slice(&data);
    }
    let trailers = received.trailers().await.expect("an end").expect("a status");
    assert_eq!(trailers["grpc-status"], "0", "{trailers:?}");
    answer.split_off(5)
}
