//! The metrics of calls: each counts with the code that its caller saw.
//!
//! Does not test how long calls take.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use permcached::{
    telemetry::Metrics,
    transport::{
        Caller, Callers, Scope,
        proto::{
            BatchCheckRequest, CheckRequest, InvalidateRequest, WatchRequest,
            invalidation_service_client::InvalidationServiceClient, watch_service_client::WatchServiceClient,
        },
    },
};
use tonic::{Code, Request, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::support::{
    controlled::Fault,
    live::until,
    service::{Service, resource, subject},
};

const ALICE: &str = "user:a11ce0000000000000000001";
const ROADMAP: &str = "file:f11e00000000000000000001";

fn check(permission: &str) -> CheckRequest {
    let (subject, resource) = (subject(ALICE), resource(ROADMAP));
    CheckRequest { subject, permission: permission.to_owned(), resource, consistency: None, dependencies: false }
}

/// For each method, how many calls have begun, and how many have ended with each code.
fn calls(metrics: &Metrics) -> BTreeMap<String, BTreeSet<String>> {
    let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap_or_default();
        rest.split_once('"').unwrap_or_default().0.to_owned()
    };
    for line in metrics.render().lines() {
        let (_, count) = line.rsplit_once(' ').unwrap();
        let what = if line.starts_with("grpc_server_started_total{") {
            "begun".to_owned()
        } else if line.starts_with("grpc_server_handled_total{") {
            label(line, "grpc_code")
        } else {
            continue;
        };
        if count != "0" {
            calls.entry(label(line, "grpc_method")).or_default().insert(format!("{what} {count}"));
        }
    }
    calls
}

/// The calls of one method, in alphabetical order.
fn ended(metrics: &Metrics, method: &str) -> String {
    let calls = calls(metrics).remove(method).unwrap_or_default();
    calls.into_iter().collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn a_call_counts_with_the_code_that_its_caller_sees() {
    let (service, source) = Service::faulty(Fault::None, 8).await;
    let mut client = service.client();
    client.check(check("read")).await.unwrap();
    client.check(check("read")).await.unwrap();
    assert_eq!(client.check(check("fly")).await.unwrap_err().code(), Code::InvalidArgument);
    source.set(Fault::LoadFails("users"));
    assert_eq!(client.check(check("read")).await.unwrap_err().code(), Code::Unavailable);
    client
        .batch_check(BatchCheckRequest { questions: Vec::new(), consistency: None, dependencies: false })
        .await
        .unwrap_err();
    let metrics = &service.metrics;
    assert_eq!(ended(metrics, "Check"), "InvalidArgument 1, OK 2, Unavailable 1, begun 4");
    assert_eq!(ended(metrics, "BatchCheck"), "InvalidArgument 1, begun 1");
    let text = metrics.render();
    let seconds = "grpc_server_handling_seconds_count{grpc_type=\"unary\",grpc_service=\"permcached.v1.PermissionService\",grpc_method=\"Check\"} 4\n";
    assert!(text.contains(seconds), "{text}");
}

#[tokio::test]
async fn refused_calls_count_and_unknown_methods_count_together() {
    let known = [Caller::new("backend", "ch3ck", Scope::Check), Caller::new("operator", "adm1n", Scope::Admin)];
    let service = Service::guarded(Callers::Known(known.into())).await;
    let mut client = service.client();
    assert_eq!(client.check(check("read")).await.unwrap_err().code(), Code::Unauthenticated);
    let mut invalidation = InvalidationServiceClient::new(service.channel());
    let mut all = Request::new(InvalidateRequest { all: true, ..InvalidateRequest::default() });
    all.metadata_mut().insert("authorization", "Bearer ch3ck".parse().unwrap());
    assert_eq!(invalidation.invalidate(all).await.unwrap_err().code(), Code::PermissionDenied);
    let mut raw = Grpc::new(service.channel());
    let series = service.metrics.render().lines().count();
    for name in 0..20 {
        raw.ready().await.unwrap();
        let path = PathAndQuery::try_from(format!("/permcached.v1.PermissionService/Unknown{name}")).unwrap();
        let mut request = Request::new(check("read"));
        request.metadata_mut().insert("authorization", "Bearer adm1n".parse().unwrap());
        let codec = ProstCodec::<CheckRequest, CheckRequest>::default();
        assert_eq!(raw.unary(request, path, codec).await.unwrap_err().code(), Code::Unimplemented);
    }
    let metrics = &service.metrics;
    assert_eq!(ended(metrics, "Check"), "Unauthenticated 1, begun 1");
    assert_eq!(ended(metrics, "Invalidate"), "PermissionDenied 1, begun 1");
    assert_eq!(ended(metrics, "unknown"), "Unimplemented 20, begun 20");
    assert!(metrics.render().lines().count() <= series + 5, "{}", metrics.render());
}

/// Over a replica set: Watch requires its change streams.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_stream_counts_as_open_until_it_ends() {
    let live = crate::support::live::Live::new(crate::fleet::SCHEMA, &crate::fleet::shared_file()).await;
    let service = Service::of(&live.app).await;
    let metrics = Arc::clone(&service.metrics);
    let mut client = WatchServiceClient::new(service.channel());
    let mut stream = client.watch(WatchRequest { since: None }).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    assert_eq!(ended(&metrics, "Watch"), "begun 1");
    assert!(metrics.render().contains("permcached_watchers 1\n"));
    drop((stream, client));
    until(|| ended(&metrics, "Watch") == "Canceled 1, begun 1").await;
    until(|| metrics.render().contains("permcached_watchers 0\n")).await;
}
