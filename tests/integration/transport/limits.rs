//! The port's limits: clients that send too much or take too long are refused or disconnected, and other clients are
//! not affected.
//!
//! Does not test the limits of a check (`evaluator::limits` does).

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use futures::FutureExt as _;
use permcached::transport::{Caller, Callers, Scope, proto::permission_service_client::PermissionServiceClient};
use tokio::task::{JoinSet, spawn_blocking};
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;

use super::{ALICE, ROADMAP, ask, check};
use crate::support::{
    controlled::Fault,
    http2::{self, Raw},
    service::{PATIENCE, Service},
};

/// The HTTP/2 connection preface, with empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Sends these bytes and then nothing more. Returns what the server has sent when it has closed the connection.
async fn until_closed(address: SocketAddr, sent: &'static [u8]) -> Vec<u8> {
    let wait = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(sent).unwrap();
        let mut received = Vec::new();
        match stream.read_to_end(&mut received) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it is not closed"),
        }
        received
    };
    spawn_blocking(wait).await.unwrap()
}

#[tokio::test]
async fn a_silent_or_slow_client_is_disconnected() {
    let service = Service::start_as(|serving| serving.limits.handshake_timeout = Duration::from_millis(200)).await;
    for sent in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: "] {
        until_closed(service.address, sent).await;
    }
    ask(&service.client(), check(ALICE, "read", ROADMAP)).await.unwrap();
}

#[tokio::test]
async fn a_silent_client_of_a_tls_port_is_disconnected() {
    let certificates = crate::support::certificates::Certificates::new();
    let directory = tempfile::tempdir().unwrap();
    let [cert, key] = certificates.server.write(directory.path(), "server");
    let files = permcached::transport::TlsFiles { cert, key, clients: None };
    let service = Service::start_as(|serving| {
        serving.tls = Some(permcached::transport::Tls::load(files).unwrap());
        serving.limits.handshake_timeout = Duration::from_millis(200);
    });
    let service = service.await;
    for sent in [&b""[..], b"\x16\x03\x01"] {
        until_closed(service.address, sent).await;
    }
}

#[tokio::test]
async fn a_request_that_does_not_arrive_in_time_is_refused() {
    let service = Service::start_as(|serving| serving.limits.request_timeout = Duration::from_millis(200)).await;
    let raw = Raw::connect(service.address).await;
    for path in ["/permcached.v1.PermissionService/Check", http2::HEALTH_CHECK, http2::HEALTH_WATCH] {
        let (response, _unfinished) = raw.begin(path, &[]).await.unwrap();
        assert_eq!(http2::status(response).await.unwrap(), Code::DeadlineExceeded as i32, "{path}");
    }
}

#[tokio::test]
async fn frames_and_headers_that_are_too_large_are_refused() {
    let service = Service::start().await;
    // A frame of 16 MiB. The server announces 16 KiB as the largest.
    let frame: &'static [u8] = Box::leak([PREFACE, b"\xff\xff\xff\0\0\0\0\0\x01"].concat().into_boxed_slice());
    until_closed(service.address, frame).await;
    let head = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-large: {}\r\n\r\n", "x".repeat(64 * 1_024));
    let received = until_closed(service.address, Box::leak(head.into_bytes().into_boxed_slice())).await;
    assert!(received.starts_with(b"HTTP/1.1 431 ") || received.is_empty(), "{}", String::from_utf8_lossy(&received));
    let mut request = Request::new(check(ALICE, "read", ROADMAP));
    request.metadata_mut().insert("x-large", "x".repeat(64 * 1_024).parse().unwrap());
    service.client().check(request).await.unwrap_err();
    ask(&service.client(), check(ALICE, "read", ROADMAP)).await.unwrap();
}

#[tokio::test]
async fn at_the_limit_a_new_connection_takes_the_place_of_an_idle_unknown_one_and_never_of_a_call() {
    let (service, source) = Service::faulty_as(Fault::None, 8, |serving| serving.limits.connections_max = 2).await;
    let client = service.client();
    ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap();
    source.set(Fault::LoadHangs);
    let open = tokio::spawn(async move { ask(&client, check(ALICE, "read", ROADMAP)).await });
    source.wait_for_probes(2).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(service.address).unwrap());
    }
    // Probes still get in.
    assert_eq!(service.get("/healthz").await.status, 200);
    assert_eq!(open.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded, "by the service's own deadline");
}

#[tokio::test]
async fn a_connection_is_refused_while_all_others_are_in_use_by_callers() {
    let (service, source) = Service::faulty_as(Fault::None, 8, |serving| serving.limits.connections_max = 1).await;
    let client = service.client();
    ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap();
    source.set(Fault::LoadHangs);
    let open = tokio::spawn(async move { ask(&client, check(ALICE, "read", ROADMAP)).await });
    source.wait_for_probes(2).await;
    until_closed(service.address, b"").await;
    assert_eq!(open.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded, "by the service's own deadline");
    // It is idle now, and gives way.
    assert_eq!(service.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_caller_with_too_many_requests_does_not_block_other_callers() {
    let known = [Caller::new("greedy", "gr33dy", Scope::Check), Caller::new("modest", "m0dest", Scope::Check)];
    let (service, source) = Service::faulty_as(Fault::LoadHangs, 8, |serving| {
        serving.callers = Callers::Known(known.into());
        serving.limits.caller_requests_max = 2;
    })
    .await;
    let call = |token: &str| {
        let mut request = Request::new(check(ALICE, "read", ROADMAP));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let mut client = service.client();
        async move { client.check(request).await.map(|_| ()).map_err(|status| (status.code(), status)) }
    };
    let open: Vec<_> = (0..2).map(|_| tokio::spawn(call("gr33dy"))).collect();
    source.wait_for_probes(2).await;
    let (code, status) = call("gr33dy").await.unwrap_err();
    assert_eq!(code, Code::ResourceExhausted, "{status}");
    assert!(status.get_error_details().retry_info().is_some(), "it has RetryInfo");
    assert_eq!(call("m0dest").await.unwrap_err().0, Code::DeadlineExceeded, "it reached the source, which hangs");
    for call in open {
        assert_eq!(call.await.unwrap().unwrap_err().0, Code::DeadlineExceeded);
    }
}

#[tokio::test]
async fn an_old_connection_ends_even_with_an_open_stream() {
    let service = Service::start_as(|serving| {
        serving.limits.connection_age_max = Duration::from_millis(100);
        serving.limits.connection_grace = Duration::from_millis(200);
    });
    let service = service.await;
    let mut health = HealthClient::new(service.channel());
    // The connection may end during the call.
    let mut watch = loop {
        if let Ok(watch) = health.watch(HealthCheckRequest::default()).await {
            break watch.into_inner();
        }
    };
    let ended = async { while watch.message().await.is_ok_and(|message| message.is_some()) {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("an end");
}

/// A client without a token cannot make the service buffer more than a probe requires.
#[tokio::test]
async fn requests_without_a_token_must_be_small() {
    let service = Service::start().await;
    let mut health = HealthClient::new(service.channel());
    let large = HealthCheckRequest { service: "x".repeat(5 * 1_024) };
    assert_eq!(health.check(large).await.unwrap_err().code(), Code::OutOfRange);
}

/// That its connection moves to other threads meanwhile is tested in `transport::connections`.
#[tokio::test]
async fn a_caller_with_many_requests_open_loses_neither_answers_nor_streams_while_others_call() {
    let callers = [("greedy", "gr33dy-0123456789"), ("modest", "m0dest-0123456789")];
    let known = callers.map(|(name, secret)| Caller::new(name, secret, Scope::Check));
    let service = Service::guarded(Callers::Known(known.into())).await;
    let request = |secret: &str| {
        let mut request = Request::new(check(ALICE, "read", ROADMAP));
        request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
        request
    };
    let [(_, greedy), (_, modest)] = callers;
    let (of_greedy, of_modest) = (service.channel(), service.client());
    let watch = HealthClient::new(of_greedy.clone()).watch(HealthCheckRequest::default()).await;
    let mut health = watch.unwrap().into_inner();
    assert!(health.message().await.unwrap().is_some());
    for _ in 0..20 {
        let mut many = JoinSet::new();
        of_modest.clone().check(request(modest)).await.unwrap();
        for _ in 0..200 {
            let (mut client, request) = (PermissionServiceClient::new(of_greedy.clone()), request(greedy));
            many.spawn(async move { client.check(request).await });
        }
        for answer in many.join_all().await {
            assert!(answer.unwrap().into_inner().answer.is_some());
        }
    }
    assert!(health.message().now_or_never().is_none(), "the stream is open");
}
