//! Clients without a token that hold open as much as they can: what they get is bounded, probes are answered all the while,
//! and nobody else is affected.
//!
//! Measures nothing (`make attack` does).

use std::{io::Write as _, net::TcpStream, time::Duration};

use axum::{body::Bytes, http::Request};
use h2::{RecvStream, SendStream, client::ResponseFuture};
use permcached::transport::MetricsTokens;
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::Code;

use super::{ALICE, ROADMAP, ask, check};
use crate::support::{
    http2::{self, EMPTY, HEALTH_CHECK, HEALTH_WATCH, REFLECTION, Raw, eventually},
    service::{PATIENCE, Service, exchange, http},
};

const EXHAUSTED: i32 = Code::ResourceExhausted as i32;

/// A request for the list of services.
const LIST_SERVICES: &[u8] = b"\0\0\0\0\x02\x3a\0";

/// A stream that the service has accepted. Its response is not read.
type Open = (SendStream<Bytes>, RecvStream);

/// Opens this many streams, and returns those that the service accepts. It must refuse the others with
/// `RESOURCE_EXHAUSTED`.
async fn open_streams(raw: &Raw, path: &str, body: &'static [u8], count: usize) -> Vec<Open> {
    let mut begun = Vec::new();
    for _ in 0..count {
        let (response, mut stream) = raw.begin(path, &[]).await.unwrap();
        stream.send_data(Bytes::from_static(body), path == HEALTH_WATCH).unwrap();
        begun.push((response, stream));
    }
    let mut open = Vec::new();
    for (response, stream) in begun {
        let response = response.await.unwrap();
        match response.headers().get("grpc-status") {
            Some(status) => assert_eq!(status.to_str().unwrap(), EXHAUSTED.to_string()),
            None => open.push((stream, response.into_body())),
        }
    }
    open
}

/// Of these streams, how many have not ended.
async fn count_open(streams: &mut [Open]) -> usize {
    let mut open = 0;
    for (_, body) in streams {
        let ended = async {
            while let Some(data) = body.data().await {
                let _sent = body.flow_control().release_capacity(data.unwrap().len());
            }
        };
        open += usize::from(tokio::time::timeout(Duration::from_millis(1), ended).await.is_err());
    }
    open
}

/// The limits: 8 health streams of a connection and 256 in all; 2 reflection streams and 32 in all.
#[tokio::test]
async fn streams_without_a_token_are_bounded_for_each_connection_and_in_all() {
    let service = Service::start().await;
    for (path, body, connection_max, all_max) in [(HEALTH_WATCH, EMPTY, 8, 256), (REFLECTION, LIST_SERVICES, 2, 32)] {
        let mut connections = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..all_max / connection_max + 4 {
            let raw = Raw::connect(service.address).await;
            let open = open_streams(&raw, path, body, 3 * connection_max).await;
            assert_eq!(open.len(), connection_max, "{path}");
            streams.extend(open);
            connections.push(raw);
        }
        // Older ones gave way.
        eventually(async || (count_open(&mut streams).await == all_max).then_some(())).await;
        drop((streams, connections));
        eventually(async || {
            let raw = Raw::connect(service.address).await;
            let streams = open_streams(&raw, path, body, 1).await;
            (streams.len() == 1).then_some(())
        })
        .await;
    }
    ask(&service.client(), check(ALICE, "read", ROADMAP)).await.unwrap();
}

/// The windows of these clients stay closed, so their streams cannot be told to end. As many as there are places stay, and the
/// others are reset.
#[tokio::test]
async fn streams_that_have_to_give_way_and_do_not_end_are_reset_and_give_back_their_places() {
    let service = Service::start_as(|serving| serving.limits.untaken_time_max = 10 * PATIENCE).await;
    for (path, body, connection_max, all_max) in [(HEALTH_WATCH, EMPTY, 8, 256), (REFLECTION, LIST_SERVICES, 2, 32)] {
        let (mut connections, mut streams) = (Vec::new(), Vec::new());
        for _ in 0..2 * all_max / connection_max + 8 {
            let raw = Raw::with_window(service.address, 0).await;
            streams.extend(open_streams(&raw, path, body, connection_max).await);
            connections.push(raw);
        }
        assert!(streams.len() > all_max, "{path}: {} were accepted", streams.len());
        eventually(async || {
            streams.retain_mut(|(stream, _)| {
                let reset = std::future::poll_fn(|context| stream.poll_reset(context));
                futures::FutureExt::now_or_never(reset).is_none()
            });
            (streams.len() == all_max).then_some(())
        })
        .await;
        let raw = Raw::connect(service.address).await;
        assert_eq!(open_streams(&raw, path, body, 1).await.len(), 1, "{path}");
        assert!(connections.iter().all(Raw::is_open), "no connection was closed for it");
    }
}

/// As gRPC clients with health checking do: each waits for its health before its first call, and keeps the stream.
#[tokio::test]
async fn health_streams_of_clients_that_call_do_not_end_each_other() {
    let service = Service::start().await;
    let message = check(ALICE, "read", ROADMAP).encode_to_vec();
    let body: Vec<u8> = [&[0; 4], [u8::try_from(message.len()).unwrap()].as_slice(), &message].concat();
    let body: &'static [u8] = body.leak();
    let mut connections = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..300 {
        let raw = Raw::connect(service.address).await;
        streams.extend(open_streams(&raw, HEALTH_WATCH, EMPTY, 1).await);
        let response = raw.call("/permcached.v1.PermissionService/Check", body).await.unwrap();
        assert_eq!(http2::status(response).await.unwrap(), 0);
        connections.push(raw);
    }
    assert_eq!(count_open(&mut streams).await, 300);
}

/// A client whose window stays closed cannot make the service keep more and more of its responses.
#[tokio::test]
async fn streams_that_nobody_reads_are_bounded_and_their_connections_are_closed() {
    let service = Service::start_as(|serving| serving.limits.untaken_time_max = Duration::from_millis(300)).await;
    let mut connections = Vec::new();
    for _ in 0..16 {
        let raw = Raw::with_window(service.address, 0).await;
        let streams = open_streams(&raw, REFLECTION, LIST_SERVICES, 4).await;
        connections.push((raw, streams));
    }
    // None has to give way: a stream that does is reset, and then nothing on its connection waits to be read.
    let accepted: Vec<usize> = connections.iter().map(|(_, streams)| streams.len()).collect();
    assert_eq!(accepted, [2; 16]);
    for (raw, _) in connections {
        raw.closed().await;
    }
}

/// 1,040 requests: of each connection 16 may wait for their bodies, and of all 256.
#[tokio::test]
async fn calls_without_a_body_hold_up_no_probe_on_either_port() {
    let probes = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probe_address = probes.local_addr().unwrap();
    let service = Service::start_as(|serving| {
        serving.probes = Some(probes);
        // None is refused because it waits for too long.
        serving.limits.request_timeout = 10 * PATIENCE;
    })
    .await;
    let mut connections = Vec::new();
    let mut waiting: Vec<(ResponseFuture, SendStream<Bytes>)> = Vec::new();
    for address in [service.address, probe_address] {
        for _ in 0..20 {
            let raw = Raw::connect(address).await;
            for path in [HEALTH_CHECK, HEALTH_WATCH] {
                for _ in 0..26 {
                    waiting.push(raw.begin(path, &[]).await.unwrap());
                }
            }
            connections.push(raw);
        }
    }
    for address in [service.address, probe_address] {
        for _ in 0..50 {
            for path in ["/healthz", "/readyz", "/metrics"] {
                assert_eq!(http(address, path).await.status, 200, "{path}");
            }
            let raw = Raw::connect(address).await;
            let health = raw.call(HEALTH_CHECK, EMPTY).await.unwrap();
            assert_eq!(http2::status(health).await.unwrap(), Code::Ok as i32);
        }
    }
    ask(&service.client(), check(ALICE, "read", ROADMAP)).await.unwrap();
    let all = waiting.len();
    assert_eq!(all, 2_080);
    let mut refused = 0;
    for (response, _) in waiting {
        let response = tokio::time::timeout(Duration::from_millis(1), response).await;
        refused += usize::from(response.is_ok_and(|response| response.unwrap().headers().contains_key("grpc-status")));
    }
    assert!((all - 256..all).contains(&refused), "{refused}");
}

/// A body that does come is taken, however many calls of others wait for theirs.
#[tokio::test]
async fn a_late_body_is_answered() {
    let service = Service::start().await;
    let crowd = Raw::connect(service.address).await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(crowd.begin(HEALTH_CHECK, &[]).await.unwrap());
    }
    let raw = Raw::connect(service.address).await;
    let (response, mut stream) = raw.begin(HEALTH_CHECK, &[]).await.unwrap();
    for byte in EMPTY {
        stream.send_data(Bytes::from(vec![*byte]), false).unwrap();
        service.get("/healthz").await;
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(http2::status(response).await.unwrap(), Code::Ok as i32);
}

/// Every kind of response that a client can leave untaken by keeping its window closed.
#[tokio::test]
async fn a_client_that_does_not_take_a_response_is_disconnected_and_others_are_not() {
    let service = Service::start_as(|serving| serving.limits.untaken_time_max = Duration::from_millis(500)).await;
    let honest = Raw::connect(service.address).await;
    let watch = open_streams(&honest, HEALTH_WATCH, EMPTY, 1).await;
    let message = prost_message();
    for window in [0, 1, 3] {
        for (path, body) in
            [(HEALTH_CHECK, EMPTY), (HEALTH_WATCH, EMPTY), ("/permcached.v1.PermissionService/Check", message)]
        {
            let raw = Raw::with_window(service.address, window).await;
            let response = raw.call(path, body).await.unwrap().await.unwrap();
            assert!(!response.headers().contains_key("grpc-status"), "{path}");
            // Of a message that fits in one piece, HTTP/2 takes all as soon as one byte fits: then it is not waited for.
            if window == 0 {
                raw.closed().await;
            }
        }
        let raw = Raw::with_window(service.address, window).await;
        let request = Request::get("http://localhost/metrics").body(()).unwrap();
        let (response, _) = raw.send.clone().ready().await.unwrap().send_request(request, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        raw.closed().await;
    }
    let health = honest.call(HEALTH_CHECK, EMPTY).await.unwrap();
    assert_eq!(http2::status(health).await.unwrap(), Code::Ok as i32);
    assert!(honest.is_open());
    drop(watch);
}

/// A question about the sample documents, with its prefix.
fn prost_message() -> &'static [u8] {
    let message = prost::Message::encode_to_vec(&check(ALICE, "read", ROADMAP));
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    Box::leak([&[0][..], &length, &message].concat().into_boxed_slice())
}

/// A client that sends requests and reads nothing from its socket.
#[tokio::test]
async fn a_client_that_does_not_read_its_socket_is_disconnected() {
    let service = Service::start_as(|serving| serving.limits.untaken_time_max = Duration::from_millis(500)).await;
    let address = service.address;
    let broke = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\n\r\n").repeat(100);
        // Until the service reads no more, and then has closed the connection.
        while stream.write_all(request.as_bytes()).is_ok() {}
        std::io::Error::last_os_error()
    };
    let start = std::time::Instant::now();
    tokio::task::spawn_blocking(broke).await.unwrap();
    assert!(start.elapsed() < PATIENCE, "it was closed, and did not only stop");
}

/// The limit is 64 headers and 8 KiB.
#[tokio::test]
async fn calls_with_too_many_headers_are_refused() {
    let service = Service::start().await;
    let raw = Raw::connect(service.address).await;
    let cookies: Vec<_> = (0..100).map(|_| ("cookie", "a=b")).collect();
    let names: Vec<String> = (0..100).map(|number| format!("grpc-x{number}")).collect();
    let different: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    for headers in [cookies, different] {
        for path in [HEALTH_CHECK, REFLECTION, "/permcached.v1.PermissionService/Check"] {
            let (response, _open) = raw.begin(path, &headers).await.unwrap();
            assert_eq!(http2::status(response).await.unwrap(), EXHAUSTED, "{path}");
        }
    }
    let many =
        format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\r\n", "a: b\r\n".repeat(100));
    assert!(exchange(service.address, many).await.starts_with("HTTP/1.1 431 "));
    let few = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\r\n", "a: b\r\n".repeat(50));
    assert!(exchange(service.address, few).await.starts_with("HTTP/1.1 200 "));
}

/// What a web page in a browser can send to a service on the same machine, whoever's page it is.
#[tokio::test]
async fn a_web_page_can_neither_call_nor_read() {
    let service = Service::start().await;
    let address = service.address;
    let admin = "/permcached.v1.InvalidationService/Invalidate";
    let body = "\0\0\0\0\x02\x20\x01";
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/grpc"] {
        let head = format!("POST {admin} HTTP/1.1\r\nhost: {address}\r\norigin: http://evil.example\r\n");
        let request = format!("{head}content-type: {kind}\r\nconnection: close\r\ncontent-length: 7\r\n\r\n{body}");
        let answered = exchange(address, request).await;
        assert!(answered.starts_with("HTTP/1.1 415 "), "{kind}: {answered}");
    }
    let metrics = service.get("/metrics").await.body;
    let mut calls = metrics.lines().filter(|line| line.starts_with("grpc_server_") && line.contains("Invalidate"));
    assert!(calls.all(|line| line.ends_with(" 0") || line.ends_with(" 0.0")), "it was no call: {metrics}");
    for (host, origin) in
        [("evil.example", None), ("localhost", Some("http://evil.example")), ("localhost", Some("null"))]
    {
        for path in ["/metrics", "/readyz", "/healthz"] {
            let origin = origin.map(|origin| format!("origin: {origin}\r\n")).unwrap_or_default();
            let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{origin}connection: close\r\n\r\n");
            let answered = exchange(address, request).await;
            // A probe may name any host: a proxy on this machine passes it on.
            let expected = if path != "/metrics" && origin.is_empty() { "HTTP/1.1 200 " } else { "HTTP/1.1 403 " };
            assert!(answered.starts_with(expected), "{path}, {host}, {origin}: {answered}");
        }
    }
}

#[tokio::test]
async fn metrics_require_a_token_on_both_ports_where_one_is_set() {
    let probes = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probe_address = probes.local_addr().unwrap();
    let service = Service::start_as(|serving| {
        serving.probes = Some(probes);
        serving.metrics_tokens = Some(MetricsTokens::new(["old-metrics-token", "new-metrics-token"]));
    })
    .await;
    for address in [service.address, probe_address] {
        assert_eq!(http(address, "/metrics").await.status, 401);
        assert_eq!(http(address, "/readyz").await.status, 200, "probes need none");
        for (token, status) in [("old-metrics-token", 200), ("new-metrics-token", 200), ("no-metrics-token", 401)] {
            let head = format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n");
            let answered = exchange(address, format!("{head}connection: close\r\n\r\n")).await;
            assert!(answered.starts_with(&format!("HTTP/1.1 {status} ")), "{token}: {answered}");
            assert_eq!(answered.contains("permcached_health"), status == 200, "{token}");
        }
    }
}
