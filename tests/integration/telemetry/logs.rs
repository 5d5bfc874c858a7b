//! The log: floods are limited, decisions are logged if configured, and secrets never are.
//!
//! Does not test the format of the log.

use std::{
    io::{self, Read as _, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use permcached::{
    question::{Id, IdForm},
    transport::{
        Caller, Callers, Scope,
        proto::{
            CheckRequest, InvalidateRequest, invalidation_service_client::InvalidationServiceClient,
            permission_service_client::PermissionServiceClient,
        },
    },
};
use serde_json::Value;
use tonic::{Code, Request};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{
    command::{Serving, command, run},
    servers::free_port,
    service::{DOCUMENTS, PATIENCE, SCHEMA, Service, http, resource, subject},
};

/// The number of calls in a flood: far more than the lines that are allowed meanwhile.
const FLOOD: usize = 400;

/// The log as it is written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Receives everything that this thread logs until the returned guard is dropped.
    fn take_all(&self) -> tracing::subscriber::DefaultGuard {
        let lines = tracing_subscriber::fmt().json().flatten_event(true).with_writer(self.clone());
        tracing::subscriber::set_default(lines.with_max_level(tracing::Level::INFO).finish())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The log lines whose message contains this text.
    fn with_message(&self, message: &str) -> Vec<Value> {
        let lines = self.text();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"].as_str().is_some_and(|text| text.contains(message))).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn repeated_refusals_do_not_flood_the_log_and_every_admin_call_is_logged() {
    let lines = Lines::default();
    let _taken = lines.take_all();
    let known = [Caller::new("backend", "ch3ck", Scope::Check), Caller::new("operator", "adm1n", Scope::Admin)];
    let service = Service::guarded(Callers::Known(known.into())).await;
    let mut client = InvalidationServiceClient::new(service.channel());
    let all = InvalidateRequest { all: true, ..InvalidateRequest::default() };
    for _ in 0..FLOOD {
        let refused = client.invalidate(with_token(all.clone(), "ch3ck")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        client.invalidate(with_token(all.clone(), "adm1n")).await.unwrap();
    }
    let refusals = lines.with_message("refused");
    assert!(!refusals.is_empty() && refusals.len() < FLOOD, "{} lines", refusals.len());
    assert_eq!(lines.with_message("an admin call").len(), FLOOD);
    for secret in ["ch3ck", "adm1n"] {
        assert!(!lines.text().contains(secret));
    }
}

const ROADMAP: &str = "file:f11e00000000000000000001";

/// The token of an unknown link.
const SECRET: &str = "open-sesame-3141";

#[tokio::test]
async fn the_configured_share_of_decisions_is_logged_without_secrets() {
    let lines = Lines::default();
    let _taken = lines.take_all();
    for (share, wanted) in [(0.0, 0..=0), (1.0, 100..=100), (0.5, 10..=90)] {
        lines.0.lock().unwrap().clear();
        let service = Service::logging(share).await;
        let mut client = service.client();
        for _ in 0..100 {
            let (subject, resource) = (subject(&format!("link:{SECRET}")), resource(ROADMAP));
            let check = CheckRequest {
                subject,
                permission: "read".to_owned(),
                resource,
                consistency: None,
                dependencies: false,
            };
            client.check(check).await.unwrap();
        }
        let decisions = lines.with_message("decided");
        assert!(wanted.contains(&decisions.len()), "{} of {share}", decisions.len());
        let text = lines.text();
        let hash = Id::parse(SECRET, IdForm::String, true).unwrap().to_string();
        assert!(!text.contains(SECRET) && !text.contains(hash.trim_start_matches("sha256:")), "{text}");
        for line in &decisions {
            assert_eq!(line["target"], "permcached::decision");
            let fields = ["caller", "subject", "permission", "resource", "decision", "reason"];
            let values: Vec<&str> = fields.iter().map(|field| line[field].as_str().unwrap()).collect();
            assert_eq!(values, ["anonymous", "link:(secret)", "read", ROADMAP, "denied", "NO_GRANT"]);
            assert!(line["age_ms"].is_u64() && line["tier"].is_string(), "{line}");
        }
    }
}

#[test]
fn the_variable_sets_the_share_of_logged_decisions() {
    let serving = Serving::start_with(&["--documents", DOCUMENTS, "--schema", SCHEMA], &[("LOG_DECISIONS", "1")]);
    assert_eq!(run(&["check", "user:a11ce0000000000000000001", "read", ROADMAP, "--server", &serving.url()]).code, 0);
    assert_eq!(serving.logged("decided")["decision"], "allowed");
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _ended_before = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_neither_calls_nor_probes_nor_the_end() {
    let port = free_port().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let port = port.to_string();
    let arguments = ["serve", "--documents", DOCUMENTS, "--schema", SCHEMA, "--bind", "127.0.0.1", "--port", &port];
    // Each call makes the libraries log a lot, so that the pipe is soon full.
    let variables = [("AUTH_TOKENS", "tests:a-token-of-the-tests"), ("RUST_LOG", "trace")];
    let piped = || Stdio::piped();
    let mut process = Killed(command(&arguments, &variables).stdout(piped()).stderr(piped()).spawn().unwrap());
    let process = &mut process.0;
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(started.elapsed() < PATIENCE, "the port opens although nobody reads the log");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let dropped = async || {
        let metrics = http(address, "/metrics").await.body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("permcached_log_lines_dropped_total "));
        line.expect("the metric is there").parse::<f64>().unwrap()
    };
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let mut permissions = PermissionServiceClient::new(channel);
    let fill = async {
        while dropped().await < 1_000.0 {
            for token in ["a-token-of-nobody", "a-token-of-the-tests"] {
                let mut request = Request::new(CheckRequest::default());
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
                let refused = permissions.check(request).await.unwrap_err().code();
                let expected = if token.ends_with("tests") { Code::InvalidArgument } else { Code::Unauthenticated };
                assert_eq!(refused, expected);
            }
            assert_eq!(http(address, "/healthz").await.status, 200);
        }
    };
    tokio::time::timeout(PATIENCE, fill).await.expect("calls and probes are answered, and lines are dropped");
    let sent = Command::new("kill").args(["-s", "TERM", &process.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ended = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        assert!(ended.elapsed() < PATIENCE, "the process ends although nobody reads the log");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success(), "{status}");
    // What fitted in the pipe can still be read.
    let mut lines = Vec::new();
    process.stderr.take().unwrap().read_to_end(&mut lines).unwrap();
    assert!(lines.starts_with(b"{"), "{} bytes", lines.len());
}
