//! Measures `Check` with warm caches, beside an empty tonic service with the same messages, in the same run.
//!
//! Each service is a process of its own, on the same machine as the client, which keeps several questions open on each
//! connection. The two take turns, so that other load on the machine affects both. The client is as small as HTTP/2
//! allows, because it uses the same cores. Does not measure cold caches.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that cannot run panics with the reason, and prints its results"
)]

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::{Request, header},
};
use h2::client::SendRequest;
use permcached::transport::proto::{
    BatchCheckRequest, BatchCheckResponse, CheckRequest, CheckResponse, ExplainRequest, ExplainResponse,
    ListPermissionsRequest, ListPermissionsResponse, Resource, Subject,
    permission_service_server::{PermissionService, PermissionServiceServer},
};
use prost::Message as _;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tonic::{Response, Status, transport::Server, transport::server::TcpIncoming};

/// The number of connections.
const CONNECTIONS: usize = 8;

/// How many questions are open on each connection.
const STREAMS: usize = 16;

/// How many rounds each service has, alternating with the other.
const ROUNDS: usize = 5;

/// The length of a round.
const ROUND_TIME: Duration = Duration::from_secs(4);

/// How long both services run before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// The target: this share of the empty service's requests a second.
const TARGET: f64 = 0.9;

/// The target: at most this multiple of the empty service's 99th percentile.
const TARGET_P99: f64 = 1.2;

/// The argument that makes this program run as the empty service.
const EMPTY: &str = "empty-service";

const TOKEN: &str = "a-token-of-this-bench";

/// A service that always gives the same answer.
struct Empty(CheckResponse);

#[tonic::async_trait]
impl PermissionService for Empty {
    async fn check(&self, _: tonic::Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn batch_check(&self, _: tonic::Request<BatchCheckRequest>) -> Result<Response<BatchCheckResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn list_permissions(
        &self,
        _: tonic::Request<ListPermissionsRequest>,
    ) -> Result<Response<ListPermissionsResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn explain(&self, _: tonic::Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

/// Serves the answer that it reads from standard input, until this process is killed.
async fn serve_nothing() {
    let mut response = Vec::new();
    std::io::stdin().read_to_end(&mut response).expect("it is piped");
    let response = CheckResponse::decode(&*response).expect("a response");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    println!("{}", listener.local_addr().expect("an address"));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = PermissionServiceServer::new(Empty(response));
    Server::builder().add_service(service).serve_with_incoming(incoming).await.expect("it serves");
}

/// A service in a process of its own, which is killed when this is dropped.
struct Serving {
    process: Child,
    address: SocketAddr,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Serving {
    /// The empty service, which always gives this answer.
    fn empty(response: &CheckResponse) -> Self {
        let mut command = Command::new(env::current_exe().expect("this program"));
        let mut process = command.arg(EMPTY).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut stdin = process.stdin.take().expect("it is piped");
        stdin.write_all(&response.encode_to_vec()).expect("it is read");
        drop(stdin);
        let mut line = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it prints its address");
        Self { process, address: line.trim().parse().expect("an address") }
    }

    fn permcached() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_permcached"));
        command.args(["serve", "--port", "0", "--bind", "127.0.0.1"]);
        command.args(["--schema", "schemas/fylora-sharing.toml", "--documents", "examples/fylora"]);
        command.env_clear().env("AUTH_TOKENS", format!("bench:{TOKEN}"));
        let mut process = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let address = loop {
            let line = lines.next().expect("it gets ready").expect("text");
            let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            if line["message"] == "ready" {
                break line["address"].as_str().and_then(|text| text.parse().ok()).expect("an address");
            }
        };
        // Its later output must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    /// Sends questions for this time. Returns how long each took, in nanoseconds, sorted.
    async fn asked_for(&self, time: Duration) -> Vec<u64> {
        let until = Instant::now() + time;
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let client = connect(self.address).await;
            for _ in 0..STREAMS {
                let (client, request, question) = (client.clone(), request(self.address), question());
                clients.spawn(async move {
                    let mut times = Vec::new();
                    loop {
                        let began = Instant::now();
                        if began >= until {
                            return times;
                        }
                        ask(&client, &request, &question).await;
                        times.push(u64::try_from(began.elapsed().as_nanos()).expect("it is short"));
                    }
                });
            }
        }
        let mut times: Vec<u64> = clients.join_all().await.concat();
        times.sort_unstable();
        times
    }
}

/// The question whether an owner may read, as a gRPC message.
fn question() -> Bytes {
    let request = CheckRequest {
        subject: Some(Subject { id: "a11ce0000000000000000001".to_owned(), ..Subject::default() }),
        permission: "read".to_owned(),
        resource: Some(Resource { r#type: "file".to_owned(), id: "f11e00000000000000000001".to_owned() }),
        consistency: None,
    };
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).expect("it is small");
    [&[0], length.to_be_bytes().as_slice(), &message].concat().into()
}

/// Sends the question over HTTP/2, and verifies the answer.
async fn ask(client: &SendRequest<Bytes>, request: &Request<()>, question: &Bytes) -> CheckResponse {
    let mut ready = client.clone().ready().await.expect("the connection stays");
    let (response, mut body) = ready.send_request(request.clone(), false).expect("a stream");
    body.send_data(question.clone(), true).expect("it is sent");
    let mut received = response.await.expect("a response").into_body();
    let mut message = Vec::new();
    while let Some(data) = received.data().await {
        let data = data.expect("the message");
        received.flow_control().release_capacity(data.len()).expect("what was read");
        message.extend_from_slice(&data);
    }
    let trailers = received.trailers().await.expect("an end").expect("a status");
    assert_eq!(trailers["grpc-status"], "0", "{trailers:?}");
    let response = CheckResponse::decode(&message[5..]).expect("a response");
    assert!(response.answer.as_ref().is_some_and(|answer| answer.allowed), "a wrong answer: {response:?}");
    response
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let (client, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    client
}

fn request(address: SocketAddr) -> Request<()> {
    Request::post(format!("http://{address}/permcached.v1.PermissionService/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
        .body(())
        .expect("a request")
}

/// Requests a second, and the 99th percentile in microseconds.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn figures(times: &[u64]) -> (f64, f64) {
    let p99 = times[times.len() * 99 / 100] as f64 / 1_000.0;
    (times.len() as f64 / ROUND_TIME.as_secs_f64(), p99)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    if env::args().nth(1).as_deref() == Some(EMPTY) {
        return serve_nothing().await;
    }
    let permcached = Serving::permcached();
    let response = ask(&connect(permcached.address).await, &request(permcached.address), &question()).await;
    let empty = Serving::empty(&response);
    for serving in [&empty, &permcached] {
        serving.asked_for(WARM_UP).await;
    }
    let (mut rates, mut p99s) = (Vec::new(), Vec::new());
    println!(
        "{:>8} {:>12} {:>12} {:>7} {:>10} {:>10} {:>7}",
        "round", "empty /s", "check /s", "ratio", "p99 µs", "p99 µs", "ratio"
    );
    for round in 1..=ROUNDS {
        let (least, least_p99) = figures(&empty.asked_for(ROUND_TIME).await);
        let (rate, p99) = figures(&permcached.asked_for(ROUND_TIME).await);
        println!(
            "{round:>8} {least:>12.0} {rate:>12.0} {:>7.3} {least_p99:>10.0} {p99:>10.0} {:>7.2}",
            rate / least,
            p99 / least_p99
        );
        rates.push(rate / least);
        p99s.push(p99 / least_p99);
    }
    let (rate, p99) = (median(rates), median(p99s));
    println!("median: {:.1} % of an empty service's requests a second (target: {:.0} %)", rate * 100.0, TARGET * 100.0);
    println!("median: {p99:.2} times its 99th percentile (target: {TARGET_P99})");
}
