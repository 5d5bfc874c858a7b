//! Everything beside the calls: health over gRPC, probes and metrics over HTTP/1.1, and a graceful shutdown.
//!
//! Does not test the causes of the states (`lifecycle` does).

use std::{collections::BTreeMap, io::Write as _, net::TcpStream, time::Duration};

use tokio::time::timeout;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{ALICE, ROADMAP, ZOE, ask, check};
use crate::support::{
    controlled::Fault,
    service::{Http, PATIENCE, Service, exchange},
};

const SERVICES: [&str; 2] = ["", "permcached.v1.PermissionService"];

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_is_reported_for_the_server_and_for_the_service() {
    let service = Service::start().await;
    let mut health = HealthClient::new(service.channel());
    for name in SERVICES {
        let response = health.check(about(name)).await.unwrap().into_inner();
        assert_eq!(response.status(), ServingStatus::Serving, "`{name}`");
        let mut watch = health.watch(about(name)).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving, "`{name}`");
    }
    for name in ["permcached.v1", "permcached.v2.PermissionService", "PermissionService"] {
        assert_eq!(health.check(about(name)).await.unwrap_err().code(), Code::NotFound, "`{name}`");
        assert_eq!(health.watch(about(name)).await.unwrap_err().code(), Code::NotFound, "`{name}`");
    }
}

#[tokio::test]
async fn probes_and_metrics_are_on_the_same_port_over_http_1_1() {
    let service = Service::start().await;
    for (path, body) in [("/healthz", "alive"), ("/readyz", "ready")] {
        let answered = service.get(path).await;
        assert_eq!((answered.status, answered.body.as_str()), (200, body), "{path}");
    }
    let Http { status, head, .. } = service.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert_eq!(service.get("/nothing").await.status, 404);
    let post = format!(
        "POST /healthz HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        service.address
    );
    assert!(exchange(service.address, post).await.starts_with("HTTP/1.1 405 "));
}

/// Every sample, by its name and labels. Panics at a line that is not in the text format of Prometheus.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        ["permcached_", "grpc_server_", "process_"].iter().any(|prefix| name.starts_with(prefix))
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let is_label = |label: &str| {
        let (name, value) = label.split_once('=').unwrap_or_default();
        !name.is_empty() && value.len() >= 2 && value.starts_with('"') && value.ends_with('"')
    };
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.pop(), Some("# EOF"));
    assert!(text.ends_with("# EOF\n"));
    let mut found = BTreeMap::new();
    for line in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (kind, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind) && is_name(name) && !rest.is_empty(), "{line}");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(name), "{line}");
        assert!(labels.is_empty() || labels.split(',').all(is_label), "{line}");
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(found.insert(sample.to_owned(), value).is_none(), "twice: {line}");
    }
    found
}

#[tokio::test]
async fn metrics_count_answers() {
    let service = Service::start().await;
    let client = service.client();
    let before = samples(&service.get("/metrics").await.body);
    assert!(!before.keys().any(|name| name.starts_with("permcached_decisions_total")), "{before:?}");

    ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap();
    ask(&client, check(ALICE, "write", ROADMAP)).await.unwrap();
    ask(&client, check(ZOE, "read", ROADMAP)).await.unwrap();
    ask(&client, check(ALICE, "read", "file:f11e0000000000000000000e")).await.unwrap();
    let text = service.get("/metrics").await.body;
    let after = samples(&text);
    for (permission, outcome) in [
        ("read", "decision=\"allowed\",reason=\"\""),
        ("write", "decision=\"allowed\",reason=\"\""),
        ("read", "decision=\"denied\",reason=\"NO_GRANT\""),
        ("read", "decision=\"denied\",reason=\"MALFORMED\""),
    ] {
        let labels = format!("resource_type=\"file\",permission=\"{permission}\",{outcome},caller=\"anonymous\"");
        assert_eq!(after.get(&format!("permcached_decisions_total{{{labels}}}")), Some(&1.0), "{text}");
    }
    assert_eq!(after.keys().filter(|name| name.starts_with("permcached_decisions_total")).count(), 4, "{text}");
    assert_eq!(after.get("permcached_check_seconds_count"), Some(&4.0), "{text}");
    assert_eq!(after.get("permcached_check_rounds_count"), Some(&4.0), "{text}");
    assert!(after.get("permcached_facts_found_total{tier=\"source\"}").is_some_and(|facts| *facts >= 8.0), "{text}");
}

#[tokio::test]
async fn metrics_count_questions_that_could_not_be_answered() {
    let (service, source) = Service::faulty(Fault::ProbeFails, 8).await;
    let client = service.client();
    ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap_err();
    source.set(Fault::LoadFails("users"));
    ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap_err();
    let counted = samples(&service.get("/metrics").await.body);
    assert_eq!(counted.get("permcached_check_errors_total{error=\"unavailable\"}"), Some(&2.0), "{counted:?}");
    assert!(!counted.keys().any(|name| name.contains("decision=")), "{counted:?}");
}

/// The drain timeout is far longer than the test waits, so anything that delays the shutdown fails the test.
#[tokio::test]
async fn a_shutdown_does_not_wait_for_idle_clients() {
    let mut service = Service::draining_within(PATIENCE * 10).await;
    let silent = TcpStream::connect(service.address).unwrap();
    let client = service.client();
    ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap();
    let mut kept = TcpStream::connect(service.address).unwrap();
    kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut health = HealthClient::new(service.channel());
    let mut watches = Vec::new();
    for name in SERVICES {
        let mut watch = health.watch(about(name)).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        watches.push(watch);
    }

    service.shut_down();
    for mut watch in watches {
        let last = timeout(PATIENCE, watch.message()).await.expect("a response in time").unwrap().unwrap();
        assert_eq!(last.status(), ServingStatus::NotServing);
        assert_eq!(timeout(PATIENCE, watch.message()).await.expect("an end").unwrap(), None);
    }
    let address = service.address;
    service.ended().await;
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
    drop((silent, kept, client));
}

#[tokio::test]
async fn a_shutdown_lets_open_requests_end() {
    let (mut service, source) = Service::faulty(Fault::LoadHangs, 8).await;
    let open = tokio::spawn({
        let client = service.client();
        async move { ask(&client, check(ALICE, "read", ROADMAP)).await }
    });
    source.wait_for_probes(1).await;
    service.shut_down();
    service.ended().await;
    // It ends by the service's own deadline of 2 s, which is shorter than the drain timeout.
    assert_eq!(open.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_shutdown_ends_even_if_clients_stay() {
    let mut service = Service::draining_within(Duration::from_millis(200)).await;
    let mut slow = TcpStream::connect(service.address).unwrap();
    slow.write_all(
        b"POST /permcached.v1.PermissionService/Check HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n",
    )
    .unwrap();
    ask(&service.client(), check(ALICE, "read", ROADMAP)).await.unwrap();
    service.shut_down();
    service.ended().await;
}
