//! The client: connections that keep a number of calls open. It is as small as HTTP/2 allows, because it uses the same processors
//! as the server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, Request, header},
};
use futures::future::BoxFuture;
use h2::client::SendRequest;
use prost::Message;
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

use super::servers::Server;

/// One answer in so many is verified: to decode each would cost the client more than the call costs the server.
const VERIFIED_EVERY: usize = 100;

/// How often a call is made that is not answered in time.
const TRIES_MAX: usize = 20;

/// Verifies the answer to the message of this number.
type Verify = Arc<dyn Fn(usize, &[u8]) + Send + Sync>;

/// The action of a caller after each of its calls.
pub(crate) type Between = Arc<dyn Fn() -> Option<BoxFuture<'static, ()>> + Send + Sync>;

/// The calls to make: a method, and the messages that each caller sends one after the other, again and again.
#[derive(Clone)]
pub(crate) struct Calls {
    path: String,
    messages: Arc<[Bytes]>,
    verify: Verify,
    between: Option<Between>,
}

impl Calls {
    /// Calls of the method `package.Service/Method`.
    pub(crate) fn new(
        method: &str,
        messages: impl IntoIterator<Item = Bytes>,
        verify: impl Fn(usize, &[u8]) + Send + Sync + 'static,
    ) -> Self {
        Self {
            path: format!("/{method}"),
            messages: messages.into_iter().collect(),
            verify: Arc::new(verify),
            between: None,
        }
    }

    /// The same, with something to do after each call.
    pub(crate) fn with(self, between: Between) -> Self {
        Self { between: Some(between), ..self }
    }

    /// The same, and then the messages of others, which are of the same method and are verified in the same way.
    pub(crate) fn and(self, others: &[Self]) -> Self {
        let messages = [&self].into_iter().chain(others).flat_map(|calls| calls.messages.iter().cloned()).collect();
        Self { messages, ..self }
    }
}

/// A message with its gRPC prefix.
pub(crate) fn grpc(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("it is small");
    [&[0], length.to_be_bytes().as_slice(), &message].concat().into()
}

/// Open connections to a server.
pub(crate) struct Connections {
    clients: Vec<SendRequest<Bytes>>,
    scheme: &'static str,
    token: Option<String>,
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
        let scheme = if server.authority.is_some() { "https" } else { "http" };
        Self { clients, scheme, token: server.token.clone() }
    }

    /// Keeps so many calls open on each connection for this time. Returns how long each took, in nanoseconds.
    pub(crate) async fn call_for(&self, calls: &Calls, streams: usize, time: Duration) -> Vec<u64> {
        let until = Instant::now() + time;
        let mut callers = JoinSet::new();
        for (connection, client) in self.clients.iter().enumerate() {
            for stream in 0..streams {
                let (client, request, calls) = (client.clone(), self.request(&calls.path), calls.clone());
                // The callers begin at different messages.
                let caller = connection * streams + stream;
                let first = caller * calls.messages.len() / (self.clients.len() * streams);
                callers.spawn(async move {
                    let mut times = Vec::new();
                    loop {
                        let began = Instant::now();
                        if began >= until {
                            return times;
                        }
                        let number = (first + times.len()) % calls.messages.len();
                        let answer = answer(&client, &request, &calls.messages[number]).await;
                        times.push(u64::try_from(began.elapsed().as_nanos()).expect("it is short"));
                        if times.len() % VERIFIED_EVERY == 1 {
                            (calls.verify)(number, &answer);
                        }
                        if let Some(work) = calls.between.as_ref().and_then(|between| between()) {
                            work.await;
                        }
                    }
                });
            }
        }
        callers.join_all().await.concat()
    }

    /// Makes each of the calls once, one after the other. Returns the answers.
    pub(crate) async fn answers(&self, calls: &Calls) -> Vec<Vec<u8>> {
        let request = self.request(&calls.path);
        let mut answers = Vec::new();
        for message in &*calls.messages {
            answers.push(answer(&self.clients[0], &request, message).await);
        }
        answers
    }

    /// Makes the first of the calls again and again until it is answered in time, as it may not be with nothing in memory. Verifies the
    /// answer, and returns it.
    pub(crate) async fn until_answered(&self, calls: &Calls) -> Vec<u8> {
        let request = self.request(&calls.path);
        let mut failure = HeaderMap::new();
        for _ in 0..TRIES_MAX {
            match try_answer(&self.clients[0], &request, &calls.messages[0]).await {
                Ok(answer) => {
                    (calls.verify)(0, &answer);
                    return answer;
                }
                Err(trailers) => failure = trailers,
            }
        }
        panic!("{failure:?}");
    }

    /// Makes the first of the calls, and verifies the answer.
    pub(crate) async fn first_answer(&self, calls: &Calls) {
        let answer = answer(&self.clients[0], &self.request(&calls.path), &calls.messages[0]).await;
        (calls.verify)(0, &answer);
    }

    fn request(&self, path: &str) -> Request<()> {
        let request = Request::post(format!("{}://localhost{path}", self.scheme))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers");
        let request = match &self.token {
            None => request,
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
        };
        request.body(()).expect("a request")
    }
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Bytes> {
    // By default, h2 ends a connection on which 130 small responses wait to be read, as they do when the machine is busy.
    let handshake = h2::client::Builder::new().data_frame_budget(64 * 1_024 * 1_024).handshake(stream);
    let (client, connection) = handshake.await.expect("it speaks HTTP/2");
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
    try_answer(client, request, message).await.unwrap_or_else(|trailers| panic!("{trailers:?}"))
}

/// Sends a call, and returns the message of the response, or what says that it failed.
async fn try_answer(client: &SendRequest<Bytes>, request: &Request<()>, message: &Bytes) -> Result<Vec<u8>, HeaderMap> {
    let mut ready = client.clone().ready().await.expect("the connection stays");
    let (response, mut body) = ready.send_request(request.clone(), false).expect("a stream");
    body.send_data(message.clone(), true).expect("it is sent");
    let response = response.await.expect("a response");
    let head = response.headers().clone();
    let mut received = response.into_body();
    let mut answer = Vec::new();
    while let Some(data) = received.data().await {
        let data = data.expect("the message");
        received.flow_control().release_capacity(data.len()).expect("what was read");
        answer.extend_from_slice(&data);
    }
    // An error has no message, and its status may be in the head.
    let trailers = received.trailers().await.expect("an end").unwrap_or(head);
    if trailers["grpc-status"] == "0" { Ok(answer.split_off(5)) } else { Err(trailers) }
}
