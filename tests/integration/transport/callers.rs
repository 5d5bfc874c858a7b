//! Who may call which method, over real sockets: tokens, scopes, and paths that require neither.
//!
//! Does not test how many requests a caller may have open (`limits` does).

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use permcached::transport::{
    Caller, Callers, Scope,
    proto::{
        BatchCheckRequest, ExplainRequest, InvalidateRequest, ListPermissionsRequest, ListResourcesRequest,
        ListSubjectsRequest, PlanFilterRequest, Question, WatchRequest,
        invalidation_service_client::InvalidationServiceClient, permission_service_client::PermissionServiceClient,
        watch_service_client::WatchServiceClient,
    },
};
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{ALICE, ROADMAP, check, question};
use crate::support::{
    command::{Serving, run_with},
    service::{DOCUMENTS, SCHEMA, Service},
};

async fn guarded() -> Service {
    let known = [
        Caller::new("backend", "ch3ck-0123456789", Scope::Check),
        Caller::new("cache", "w4tch-0123456789", Scope::Watch),
        Caller::new("operator", "adm1n-0123456789", Scope::Admin),
    ];
    Service::guarded(Callers::Known(known.into())).await
}

fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

fn code<T>(result: Result<T, Status>) -> Code {
    let Err(status) = result else { return Code::Ok };
    assert!(
        !format!("{status:?}").contains("ch3ck-0123456789") && !format!("{status:?}").contains("adm1n-0123456789"),
        "{status:?}"
    );
    status.code()
}

/// The code of each method for a caller with this token.
async fn codes(service: &Service, token: Option<&str>) -> [Code; 9] {
    let mut permissions = PermissionServiceClient::new(service.channel());
    let mut invalidation = InvalidationServiceClient::new(service.channel());
    let mut watch = WatchServiceClient::new(service.channel());
    let Question { subject, permission, resource } = question(ALICE, "read", ROADMAP);
    let questions = vec![question(ALICE, "read", ROADMAP)];
    let batch = BatchCheckRequest { questions, ..BatchCheckRequest::default() };
    let list = ListPermissionsRequest { subject: subject.clone(), resource: resource.clone(), consistency: None };
    let (kind, read) = ("file".to_owned(), permission.clone());
    let plan = PlanFilterRequest {
        subject: subject.clone(),
        permission: read.clone(),
        resource_type: kind.clone(),
        ..PlanFilterRequest::default()
    };
    let resources = ListResourcesRequest {
        subject: subject.clone(),
        permission: read.clone(),
        resource_type: kind,
        ..ListResourcesRequest::default()
    };
    let subjects =
        ListSubjectsRequest { permission: read, resource: resource.clone(), ..ListSubjectsRequest::default() };
    let explain = ExplainRequest { subject, permission, resource, consistency: None };
    let all = InvalidateRequest { all: true, ..InvalidateRequest::default() };
    [
        code(permissions.check(with_token(check(ALICE, "read", ROADMAP), token)).await),
        code(permissions.batch_check(with_token(batch, token)).await),
        code(permissions.list_permissions(with_token(list, token)).await),
        code(permissions.plan_filter(with_token(plan, token)).await),
        code(permissions.list_resources(with_token(resources, token)).await),
        code(permissions.list_subjects(with_token(subjects, token)).await),
        code(permissions.explain(with_token(explain, token)).await),
        code(invalidation.invalidate(with_token(all, token)).await),
        code(watch.watch(with_token(WatchRequest { since: None }, token)).await),
    ]
}

#[tokio::test]
async fn every_method_requires_a_token_and_some_require_the_scope_watch_or_admin() {
    use Code::{Ok, PermissionDenied as Denied, Unauthenticated as Unknown};
    let service = guarded().await;
    assert_eq!(codes(&service, None).await, [Unknown; 9]);
    assert_eq!(codes(&service, Some("ch3ck-0123456789 ")).await, [Unknown; 9]);
    assert_eq!(codes(&service, Some("ch3ck-0123456789")).await, [Ok, Ok, Ok, Ok, Ok, Ok, Denied, Denied, Denied]);
    assert_eq!(codes(&service, Some("w4tch-0123456789")).await, [Ok, Ok, Ok, Ok, Ok, Ok, Denied, Denied, Ok]);
    assert_eq!(codes(&service, Some("adm1n-0123456789")).await, [Ok; 9]);
    let open = Service::start().await;
    assert_eq!(codes(&open, None).await, [Ok; 9], "no token is required if anybody may call");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_require_no_token() {
    let service = guarded().await;
    let mut health = HealthClient::new(service.channel());
    health.check(HealthCheckRequest::default()).await.unwrap();
    for (path, wanted) in
        [("/healthz", "200 OK"), ("/readyz", "200 OK"), ("/metrics", "200 OK"), ("/else", "404 Not Found")]
    {
        let mut stream = TcpStream::connect(service.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {wanted}")), "{path}: {answer}");
    }
}

#[test]
fn the_commands_send_the_token_of_the_environment_and_no_log_shows_a_token() {
    let tokens = [
        ("AUTH_TOKENS", "backend:ch3ck-0123456789,backend:r0tated-0123456789"),
        ("AUTH_ADMIN_TOKENS", "operator:adm1n-0123456789"),
    ];
    let serving = Serving::start_with(&["--documents", DOCUMENTS, "--schema", SCHEMA], &tokens);
    assert_eq!(serving.address.ip().to_string(), "0.0.0.0");
    let url = format!("http://127.0.0.1:{}", serving.address.port());
    let asked = ["check", ALICE, "read", ROADMAP, "--server", &url];
    let ended = run_with(&asked, &[]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.output().contains("AUTH_TOKEN"), "{ended:?}");
    for token in ["ch3ck-0123456789", "r0tated-0123456789", "adm1n-0123456789"] {
        assert_eq!(run_with(&asked, &[("AUTH_TOKEN", token)]).code, 0);
    }
    let all = ["invalidate", "--all", "--server", &url];
    let ended = run_with(&all, &[("AUTH_TOKEN", "ch3ck-0123456789")]);
    assert!(ended.code == 3 && ended.output().contains("scope admin"), "{ended:?}");
    assert_eq!(run_with(&all, &[("AUTH_TOKEN", "adm1n-0123456789")]).code, 0);
    assert_eq!(run_with(&["health", "--server", &url], &[]).code, 0);
    serving.signal("TERM");
    let mut logs = String::new();
    loop {
        let entry = serving.logged_with("").to_string();
        logs.push_str(&entry);
        if entry.contains("stopped") {
            break;
        }
    }
    assert!(logs.contains("refused: this call requires the scope admin") && logs.contains("operator"), "{logs}");
    for secret in ["ch3ck-0123456789", "r0tated-0123456789", "adm1n-0123456789"] {
        assert!(!logs.contains(secret), "{logs}");
    }
}
