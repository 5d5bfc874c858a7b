//! Large requests: they are counted before they are decoded, need room for their bytes, take turns, and are answered like small
//! ones.
//!
//! Does not measure what they do to other callers (`benches/attack.rs` does).

mod compressed;

use std::{fs, future::poll_fn, net::SocketAddr};

use axum::http::{HeaderMap, Request, header};
use futures::future::join_all;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use permcached::transport::{
    Caller, Callers, Scope,
    proto::{
        BatchCheckRequest, InvalidateRequest, Question, Resource, Subject, batch_check_response::result::Outcome,
        invalidation_service_client::InvalidationServiceClient, permission_service_client::PermissionServiceClient,
    },
};
use prost::{Message as _, bytes::Bytes};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{ALICE, BOB, CONTRACT, ROADMAP, ZOE, ask, assert_names, check, question, violations};
use crate::support::{
    command::Serving,
    http2::eventually,
    service::{PATIENCE, Service},
};

const CHECK: &str = "/permcached.v1.PermissionService/Check";
const BATCH: &str = "/permcached.v1.PermissionService/BatchCheck";
const LIST: &str = "/permcached.v1.PermissionService/ListPermissions";
const EXPLAIN: &str = "/permcached.v1.PermissionService/Explain";
const INVALIDATE: &str = "/permcached.v1.InvalidationService/Invalidate";
const WATCH: &str = "/permcached.v1.WatchService/Watch";

/// The largest message.
const MESSAGE_BYTES_MAX: usize = 4 * 1_024 * 1_024;

const GREEDY: &str = "the secret of a greedy caller";
const MODEST: &str = "the secret of a modest caller";

/// A connection whose frames a test decides on.
struct Raw(SendRequest<Bytes>);

impl Raw {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    /// Begins a call.
    async fn begin(&self, method: &str, headers: &[(&str, &str)]) -> (ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post(format!("http://localhost{method}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.0.clone().ready().await.unwrap().send_request(request.body(()).unwrap(), false).unwrap()
    }

    /// Begins a call of the caller with this secret, and sends these bytes of its body, but not its end.
    async fn begin_as(&self, secret: &str, method: &str, body: Vec<u8>) -> (ResponseFuture, SendStream<Bytes>) {
        let (response, mut stream) = self.begin(method, &[("authorization", &format!("Bearer {secret}"))]).await;
        stream.send_data(body.into(), false).unwrap();
        (response, stream)
    }

    /// Sends a message, and returns the first status that is not about the time: on a busy machine, 2 s may be too short.
    async fn call(&self, method: &str, message: &[u8]) -> Status {
        eventually(async || {
            let (response, mut stream) = self.begin(method, &[]).await;
            // The service may refuse the message before it has all of it.
            let _refused = stream.send_data(prefixed(message.len(), message).into(), true);
            Some(status(response).await).filter(|status| status.code() != Code::DeadlineExceeded)
        })
        .await
    }
}

/// The prefix of a message of so many bytes, and the bytes of it that are given.
fn prefixed(length: usize, bytes: &[u8]) -> Vec<u8> {
    [&[0], u32::try_from(length).unwrap().to_be_bytes().as_slice(), bytes].concat()
}

/// The status of a response, which is read to its end.
async fn status(response: ResponseFuture) -> Status {
    let read = async {
        let (head, mut body) = response.await.unwrap().into_parts();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data.unwrap().len()).unwrap();
        }
        let trailers: HeaderMap = body.trailers().await.unwrap().unwrap_or(head.headers);
        Status::from_header_map(&trailers).expect("a status")
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a response")
}

/// A service with two callers that may call everything.
async fn of_two_callers() -> Service {
    let callers = [Caller::new("greedy", GREEDY, Scope::Admin), Caller::new("modest", MODEST, Scope::Admin)];
    Service::guarded(Callers::Known(callers.into())).await
}

fn batch(questions: Vec<Question>) -> BatchCheckRequest {
    BatchCheckRequest { questions, consistency: None, dependencies: false }
}

#[tokio::test]
async fn every_method_names_the_field_of_which_there_are_too_many() {
    let service = Service::start().await;
    let raw = Raw::connect(service.address).await;
    let subject_10_001_times = [0x1a, 0].repeat(10_001);
    let cases: [(&str, &str, Vec<u8>, &str, &str); 9] = [
        ("questions", BATCH, [0x0a, 0].repeat(MESSAGE_BYTES_MAX / 2), "questions", "a request has 10,000 at most"),
        ("resources", INVALIDATE, [0x0a, 0].repeat(MESSAGE_BYTES_MAX / 2), "resources", "10,000 at most"),
        ("subjects", INVALIDATE, subject_10_001_times, "subjects", "10,000 at most"),
        ("a field repeated", CHECK, [0x0a, 0].repeat(MESSAGE_BYTES_MAX / 2), "subject", "one field too many"),
        ("a list's field", LIST, [0x12, 0].repeat(65), "resource", "one field too many"),
        ("an explanation's field", EXPLAIN, [0x12, 0].repeat(65), "permission", "one field too many"),
        ("a stream's field", WATCH, [0x0a, 0].repeat(65), "since", "one field too many"),
        ("unknown fields", CHECK, [0x78, 0].repeat(MESSAGE_BYTES_MAX / 2), "field 15", "no unknown fields"),
        ("unknown fields of a batch", BATCH, [0x78, 0].repeat(200_000), "field 15", "no unknown fields"),
    ];
    for (name, method, message, field, words) in cases {
        let status = raw.call(method, &message).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
        assert_names(&status, &[(field, words)]);
    }
    for (name, message) in [("a group", &[0x0b, 0x0c][..]), ("a broken field", &[0x0a, 200])] {
        let status = raw.call(CHECK, message).await;
        assert_eq!(status.code(), Code::Internal, "{name}: {status:?}");
    }
    assert!(ask(&service.client(), check(ALICE, "read", ROADMAP)).await.unwrap().allowed);
}

/// The most memory that a process has had, in bytes.
fn peak_memory(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1_024
}

/// As structures, two million empty questions take 270 MB.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn two_million_empty_questions_are_refused_without_memory_for_them() {
    const MEMORY_MAX: usize = 64 * 1_024 * 1_024;
    let serving = Serving::start(&["--schema", "schemas/fylora-sharing.toml", "--documents", "examples/fylora"]);
    let before = peak_memory(serving.process_id());
    let raw = Raw::connect(serving.address).await;
    for method in [BATCH, INVALIDATE] {
        let status = raw.call(method, &[0x0a, 0].repeat(MESSAGE_BYTES_MAX / 2)).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    let grown = peak_memory(serving.process_id()) - before;
    assert!(grown < MEMORY_MAX, "{grown} bytes more");
}

#[tokio::test]
async fn a_large_batch_has_the_answers_of_single_checks() {
    let service = Service::start().await;
    let client = service.client();
    let mut different = Vec::new();
    for subject in [ALICE, BOB, ZOE, "anonymous"] {
        for permission in ["read", "write", "share", "raed"] {
            different.extend([ROADMAP, CONTRACT, "file:plan"].map(|file| question(subject, permission, file)));
        }
    }
    let mut single = Vec::new();
    for question in &different {
        let Question { subject, permission, resource } = question.clone();
        let request = permcached::transport::proto::CheckRequest {
            subject,
            permission,
            resource,
            consistency: None,
            dependencies: false,
        };
        single.push(ask(&client, request).await.map_err(|status| status.code()));
    }
    // A batch of the first size is answered by the workers, and one of the other size at once. On a slow machine, no more
    // questions would fit in the request's 2 s.
    for size in [1_000, 48] {
        let questions = different.iter().cloned().cycle().take(size).collect();
        let results = client.clone().batch_check(batch(questions)).await.unwrap().into_inner().results;
        assert_eq!(results.len(), size);
        for (place, result) in results.into_iter().enumerate() {
            let expected = &single[place % single.len()];
            match (result.outcome.unwrap(), expected) {
                (Outcome::Answer(answer), Ok(expected)) => {
                    assert_eq!(
                        (answer.allowed, answer.reason, answer.granted_by),
                        (expected.allowed, expected.reason, expected.granted_by.clone()),
                        "{place}"
                    );
                }
                (Outcome::Error(error), Err(code)) => assert_eq!(error.code, i32::from(*code), "{place}"),
                (outcome, expected) => panic!("{place}: {outcome:?} instead of {expected:?}"),
            }
        }
    }
}

/// Sends bytes of a body as the service's window allows: afterwards it has read all but the window's 256 KiB of them.
async fn send_all(stream: &mut SendStream<Bytes>, bytes: usize) {
    let mut left = bytes;
    while left > 0 {
        stream.reserve_capacity(left.min(16 * 1_024));
        let Some(Ok(capacity)) = poll_fn(|context| stream.poll_capacity(context)).await else { return };
        let now = capacity.min(left);
        if now > 0 && stream.send_data(vec![0; now].into(), false).is_err() {
            return;
        }
        left -= now;
    }
}

/// How many results a batch of 10,000 questions has, asked by the caller with this secret, again if 2 s are too short.
async fn ask_batch(service: &Service, secret: &'static str) -> Result<usize, Status> {
    let mut client =
        PermissionServiceClient::with_interceptor(service.channel(), move |mut request: tonic::Request<()>| {
            request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
            Ok(request)
        });
    let questions = batch(vec![question(ALICE, "write", ROADMAP); 10_000]);
    loop {
        match client.batch_check(questions.clone()).await {
            Err(status) if status.code() == Code::DeadlineExceeded => {}
            result => return result.map(|response| response.into_inner().results.len()),
        }
    }
}

#[tokio::test]
async fn bytes_that_are_only_announced_are_not_counted() {
    let service = of_two_callers().await;
    let raw = Raw::connect(service.address).await;
    let mut announced = Vec::new();
    for secret in [GREEDY, MODEST] {
        for _ in 0..50 {
            announced.push(raw.begin_as(secret, BATCH, prefixed(MESSAGE_BYTES_MAX, &[0; 100])).await);
        }
        assert_eq!(ask_batch(&service, secret).await.unwrap(), 10_000);
    }
    // None had to give way: they wait for the rest of their messages until their deadlines.
    for (response, _stream) in announced {
        assert_eq!(status(response).await.code(), Code::DeadlineExceeded);
    }
}

/// A batch of 700 KB of which only a few questions are long.
fn long_batch() -> Vec<u8> {
    let mut long = question(ALICE, "write", ROADMAP);
    long.permission = "x".repeat(11_000);
    batch(vec![long; 64]).encode_to_vec()
}

/// Twelve on one connection have less than the caller's room. The thirty others, each on a connection of its own, have more.
#[tokio::test]
async fn a_callers_requests_wait_for_free_bytes_within_their_deadlines() {
    let service = of_two_callers().await;
    let message = long_batch();
    for (connections, requests) in [(1, 12), (30, 1)] {
        // On a busy machine, some may reach their deadlines.
        eventually(async || {
            let mut open = Vec::new();
            let mut responses = Vec::new();
            for _ in 0..connections {
                let raw = Raw::connect(service.address).await;
                for _ in 0..requests {
                    let (response, mut stream) = raw.begin_as(GREEDY, BATCH, prefixed(message.len(), &message)).await;
                    stream.send_data(Bytes::new(), true).unwrap();
                    responses.push(status(response));
                }
                open.push(raw);
            }
            let codes: Vec<Code> = join_all(responses).await.iter().map(Status::code).collect();
            let are_late = codes.contains(&Code::DeadlineExceeded);
            assert!(
                are_late || codes.iter().all(|code| *code == Code::Ok),
                "{connections} times {requests}: {codes:?}"
            );
            (!are_late).then_some(())
        })
        .await;
    }
}

/// Two messages have arrived but for their last bytes, and a third takes the part of the room that is for one message at a time.
#[tokio::test]
async fn a_message_that_stalls_while_others_wait_for_bytes_gives_way_to_them() {
    let service = of_two_callers().await;
    let attempt = async || {
        let mut full = Vec::new();
        for _ in 0..2 {
            let raw = Raw::connect(service.address).await;
            let (response, mut stream) = raw.begin_as(GREEDY, BATCH, prefixed(MESSAGE_BYTES_MAX, &[])).await;
            send_all(&mut stream, MESSAGE_BYTES_MAX - 1_000).await;
            full.push((raw, response, stream));
        }
        let raw = Raw::connect(service.address).await;
        let (stalled, _stream) = raw.begin_as(GREEDY, BATCH, prefixed(MESSAGE_BYTES_MAX, &vec![0; 600_000])).await;
        let (waiting, stalled) = tokio::join!(ask_batch(&service, GREEDY), status(stalled));
        // Small requests need no room.
        let small = check(ALICE, "read", ROADMAP).encode_to_vec();
        let (response, mut stream) = raw.begin_as(GREEDY, CHECK, prefixed(small.len(), &small)).await;
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(status(response).await.code(), Code::Ok);
        assert_eq!(ask_batch(&service, MODEST).await.unwrap(), 10_000, "another caller has room of its own");
        // On a slow machine the first two may have reached their deadlines before.
        let gave_way = stalled.code() == Code::ResourceExhausted && waiting.is_ok();
        gave_way.then(|| assert!(stalled.get_error_details().retry_info().is_some(), "{stalled:?}"))
    };
    eventually(attempt).await;
}

/// As of clients that do not notice at once that they are refused.
#[tokio::test]
async fn a_client_that_is_refused_while_it_sends_large_bodies_keeps_its_connection() {
    let service = of_two_callers().await;
    let raw = Raw::connect(service.address).await;
    let body = prefixed(1_000_000, &vec![0; 1_000_000]);
    let mut open = Vec::new();
    for index in 0..100 {
        let (response, stream) = raw.begin_as("a secret that nobody has", BATCH, body.clone()).await;
        assert_eq!(status(response).await.code(), Code::Unauthenticated, "{index}");
        open.push(stream);
        // Neither is this a call.
        let (response, stream) = raw.begin_as(MODEST, "/healthz", body.clone()).await;
        assert_eq!(response.await.unwrap().status(), 405, "{index}");
        open.push(stream);
    }
    let small = check(ALICE, "read", ROADMAP).encode_to_vec();
    let (response, mut stream) = raw.begin_as(MODEST, CHECK, prefixed(small.len(), &small)).await;
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(status(response).await.code(), Code::Ok);
}

#[tokio::test]
async fn responses_that_nobody_reads_stay_in_the_byte_budget() {
    let service = of_two_callers().await;
    // Each response has half a megabyte or more, and the client's window has room for 64 KiB.
    let large = batch(vec![question(ALICE, "write", ROADMAP); 10_000]).encode_to_vec();
    unread_until_refused(&service, &large, 32).await;
    // Small requests with errors whose details are long.
    let small = batch(vec![Question::default(); 256]).encode_to_vec();
    unread_until_refused(&service, &small, 250).await;
}

/// Sends this batch again and again, and reads no response, until one is refused. Then drops them, and there is room again.
async fn unread_until_refused(service: &Service, message: &[u8], responses_max: usize) {
    let mut unread = Vec::new();
    let raw = Raw::connect(service.address).await;
    let refused = loop {
        let (response, mut stream) = raw.begin_as(GREEDY, BATCH, prefixed(message.len(), message)).await;
        stream.send_data(Bytes::new(), true).unwrap();
        let response = tokio::time::timeout(PATIENCE, response).await.expect("a response").unwrap();
        if let Some(status) = Status::from_header_map(response.headers()) {
            break status;
        }
        unread.push(response.into_body());
        assert!(unread.len() < responses_max, "the responses have no room of 13 MiB");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    drop(unread);
    let again = async {
        loop {
            let (response, mut stream) = raw.begin_as(GREEDY, BATCH, prefixed(message.len(), message)).await;
            stream.send_data(Bytes::new(), true).unwrap();
            if status(response).await.code() == Code::Ok {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("room");
}

/// The bound for the arrival of any request is much later.
#[tokio::test]
async fn a_deadline_counts_from_the_arrival_of_the_headers() {
    let service = Service::start_as(|serving| serving.limits.request_timeout = PATIENCE).await;
    let raw = Raw::connect(service.address).await;
    let (response, mut stream) = raw.begin(BATCH, &[("grpc-timeout", "200m")]).await;
    stream.send_data(prefixed(1_000, &[0x0a]).into(), false).unwrap();
    let status = tokio::time::timeout(PATIENCE / 2, status(response)).await.expect("a status before the other bound");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    // The service's own bound counts in the same way.
    let (response, _stream) = raw.begin(CHECK, &[]).await;
    let status = tokio::time::timeout(PATIENCE / 2, self::status(response)).await.expect("a status");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

/// The status is sent as headers, of which clients accept few.
#[tokio::test]
async fn a_status_names_sixteen_wrong_fields_and_how_many_more_there_are() {
    let service = Service::start().await;
    let wrong = Resource { r#type: "flie".to_owned(), id: "x".to_owned() };
    let request = InvalidateRequest { resources: vec![wrong; 10_000], ..InvalidateRequest::default() };
    let status = InvalidationServiceClient::new(service.channel()).invalidate(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let named = violations(&status);
    assert_eq!(named.len(), 16);
    assert_eq!(named[15].0, "resources[15].type");
    assert!(status.message().ends_with("; and 9984 more"), "{}", status.message());
    assert!(status.message().len() + status.details().len() < 6_000);
}

#[tokio::test]
async fn a_batch_of_errors_has_the_details_of_the_first() {
    let service = Service::start().await;
    let wrong = Question { subject: Some(Subject::default()), ..Question::default() };
    let results = service.client().batch_check(batch(vec![wrong; 10_000])).await.unwrap().into_inner().results;
    let has_details = |outcome: &Option<Outcome>| match outcome {
        Some(Outcome::Error(error)) => !error.details.is_empty(),
        other => panic!("{other:?}"),
    };
    let detailed = results.iter().filter(|result| has_details(&result.outcome)).count();
    assert!((100..2_000).contains(&detailed), "{detailed}");
    assert!(results[..detailed].iter().all(|result| has_details(&result.outcome)));
    let bytes: usize = results.iter().map(prost::Message::encoded_len).sum();
    assert!(bytes < 2 * 1_024 * 1_024, "{bytes}");
}

#[tokio::test]
async fn a_body_with_two_messages_is_refused() {
    let service = Service::start().await;
    let raw = Raw::connect(service.address).await;
    let message = check(ALICE, "read", ROADMAP).encode_to_vec();
    let once = prefixed(message.len(), &message);
    let (response, mut stream) = raw.begin(CHECK, &[]).await;
    stream.send_data(once.repeat(2).into(), true).unwrap();
    assert_eq!(status(response).await.code(), Code::Internal);
    // One message in many frames is answered.
    let (response, mut stream) = raw.begin(CHECK, &[]).await;
    for byte in once {
        stream.send_data(vec![byte].into(), false).unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(status(response).await.code(), Code::Ok);
}
