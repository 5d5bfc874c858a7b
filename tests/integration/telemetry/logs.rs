//! The log: what may flood it does not, decisions stand in it where that is asked for, and no secret ever does.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use permcached::{
    question::{Id, IdForm},
    transport::{
        Caller, Callers, Scope,
        proto::{CheckRequest, InvalidateRequest, invalidation_service_client::InvalidationServiceClient},
    },
};
use serde_json::Value;
use tonic::{Code, Request};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{
    command::{Serving, run},
    service::{DOCUMENTS, SCHEMA, Service, resource, subject},
};

/// How many calls make a flood: far more than lines are let through while they are made.
const FLOOD: usize = 400;

/// Lines of the log, as they are written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Takes all that this thread logs, as long as what is returned is kept.
    fn take_all(&self) -> tracing::subscriber::DefaultGuard {
        let lines = tracing_subscriber::fmt().json().flatten_event(true).with_writer(self.clone());
        tracing::subscriber::set_default(lines.with_max_level(tracing::Level::INFO).finish())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines that say this.
    fn saying(&self, message: &str) -> Vec<Value> {
        let lines = self.text();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"].as_str().is_some_and(|said| said.contains(message))).collect()
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

fn bearing<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn who_is_refused_again_and_again_does_not_flood_the_log_and_every_call_of_an_operator_stands_there() {
    let lines = Lines::default();
    let _taken = lines.take_all();
    let known = [Caller::new("backend", "ch3ck", Scope::Check), Caller::new("operator", "adm1n", Scope::Admin)];
    let service = Service::guarded(Callers::Known(known.into())).await;
    let mut client = InvalidationServiceClient::new(service.channel());
    let all = InvalidateRequest { all: true, ..InvalidateRequest::default() };
    for _ in 0..FLOOD {
        let refused = client.invalidate(bearing(all.clone(), "ch3ck")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        client.invalidate(bearing(all.clone(), "adm1n")).await.unwrap();
    }
    let refusals = lines.saying("refused");
    assert!(!refusals.is_empty() && refusals.len() < FLOOD, "{} lines", refusals.len());
    assert_eq!(lines.saying("an admin call").len(), FLOOD);
    for secret in ["ch3ck", "adm1n"] {
        assert!(!lines.text().contains(secret));
    }
}

const ROADMAP: &str = "file:f11e00000000000000000001";

/// The token of a link, of which nobody has heard.
const SECRET: &str = "open-sesame-3141";

#[tokio::test]
async fn decisions_are_logged_as_often_as_that_is_asked_for_and_no_secret_with_them() {
    let lines = Lines::default();
    let _taken = lines.take_all();
    for (part, wanted) in [(0.0, 0..=0), (1.0, 100..=100), (0.5, 10..=90)] {
        lines.0.lock().unwrap().clear();
        let service = Service::logging(part).await;
        let mut client = service.client();
        for _ in 0..100 {
            let (subject, resource) = (subject(&format!("link:{SECRET}")), resource(ROADMAP));
            let check = CheckRequest { subject, permission: "read".to_owned(), resource, consistency: None };
            client.check(check).await.unwrap();
        }
        let decisions = lines.saying("decided");
        assert!(wanted.contains(&decisions.len()), "{} of {part}", decisions.len());
        let text = lines.text();
        let hash = Id::parse(SECRET, IdForm::String, true).unwrap().to_string();
        assert!(!text.contains(SECRET) && !text.contains(hash.trim_start_matches("sha256:")), "{text}");
        for line in &decisions {
            assert_eq!(line["target"], "permcached::decision");
            let fields = ["caller", "subject", "permission", "resource", "decision", "reason"];
            let said: Vec<&str> = fields.iter().map(|field| line[field].as_str().unwrap()).collect();
            assert_eq!(said, ["anonymous", "link:(secret)", "read", ROADMAP, "denied", "NO_GRANT"]);
            assert!(line["age_ms"].is_u64() && line["tier"].is_string(), "{line}");
        }
    }
}

#[test]
fn the_variable_says_how_many_decisions_are_logged() {
    let serving = Serving::start_with(&["--documents", DOCUMENTS, "--schema", SCHEMA], &[("LOG_DECISIONS", "1")]);
    assert_eq!(run(&["check", "user:a11ce0000000000000000001", "read", ROADMAP, "--server", &serving.url()]).code, 0);
    assert_eq!(serving.logged("decided")["decision"], "allowed");
}
