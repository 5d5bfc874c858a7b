//! Compares `docs/metrics.md`, the dashboard and the alerts with the metrics of a busy service.
//!
//! Evaluates no query.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use bson::doc;
use permcached::{
    freshness::{Clock, Moment, Token},
    transport::proto::{
        CheckRequest, Consistency, Freshness, InvalidateRequest, PlanFilterRequest, consistency::Requirement,
        freshness, invalidation_service_client::InvalidationServiceClient,
    },
};
use serde_json::Value;
use tonic::Code;

use super::{Shown, shown};
use crate::{
    fleet::{FILE, GUEST, SCHEMA, SHARE, USER, id, reads, shared_file},
    support::{
        fleet::Fleet,
        live::until,
        redis::redis,
        service::{Service, resource, subject},
    },
};

/// Labels that Prometheus or a query adds.
const OUTER: [&str; 3] = ["instance", "job", "le"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The metrics of a service to which everything that it counts has happened.
async fn of_a_busy_service() -> BTreeMap<String, Shown> {
    let fleet = Fleet::new(2, &redis().url(), SCHEMA, &shared_file()).await;
    fleet.until_bus_covers_all().await;
    until(|| fleet.each().any(|live| live.app.is_leader())).await;
    let leader = fleet.each().find(|live| live.app.is_leader()).unwrap();
    let service = Service::of(&leader.app).await;
    let question = reads(leader, FILE);
    fleet.until_cached(&question, GUEST).await;
    let gone = leader.delete("shares", doc! { "_id": id(SHARE) }).await;
    leader.until_applied(gone).await;
    let check = |token: Option<&str>| CheckRequest {
        subject: subject(&format!("user:{}", id(USER).to_hex())),
        permission: "read".to_owned(),
        resource: resource(&format!("file:{}", id(FILE).to_hex())),
        consistency: token.map(|token| {
            let freshness = Freshness { moment: Some(freshness::Moment::Token(token.to_owned())) };
            Consistency { requirement: Some(Requirement::AtLeastAsFresh(freshness)) }
        }),
        dependencies: false,
    };
    let mut client = service.client();
    let answer = client.check(check(None)).await.unwrap().into_inner().answer.unwrap();
    let future = Token { clock: Clock::Cluster, moment: Moment::new(u32::MAX, 1) };
    assert!(!answer.allowed);
    assert_eq!(client.check(check(Some(&future.to_string()))).await.unwrap_err().code(), Code::InvalidArgument);
    let plan = PlanFilterRequest {
        subject: check(None).subject,
        permission: "read".to_owned(),
        resource_type: "file".to_owned(),
        ..PlanFilterRequest::default()
    };
    client.plan_filter(plan).await.unwrap();
    let all = InvalidateRequest { all: true, ..InvalidateRequest::default() };
    InvalidationServiceClient::new(service.channel()).invalidate(all).await.unwrap();
    shown(&service.metrics.render())
}

/// The metrics of `docs/metrics.md`, by name.
fn documented() -> BTreeMap<String, Shown> {
    let mut all = BTreeMap::new();
    for line in read("docs/metrics.md").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let &[name, kind, labels, meaning] = cells.as_slice() else { continue };
        let label = |label: &str| label.trim().trim_matches('`').to_owned();
        let labels = labels.split(',').map(label).filter(|label| !label.is_empty()).collect();
        let samples = BTreeSet::new();
        assert!(!meaning.is_empty(), "{line}");
        let before = all.insert(label(name), Shown { kind: kind.to_owned(), samples, labels });
        assert_eq!(before, None, "twice: {line}");
    }
    all
}

/// The names in a query outside of strings: the metrics, and the labels in braces or after `by`.
fn names(query: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut metrics, mut labels) = (BTreeSet::new(), BTreeSet::new());
    let outside: String = query.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    let mut rest = outside.as_str();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut braces = false;
    let mut grouping = false;
    while let Some(first) = rest.chars().next() {
        if is_name(first) {
            let (name, after) = rest.split_at(rest.find(|letter| !is_name(letter)).unwrap_or(rest.len()));
            rest = after;
            if name == "by" {
                grouping = true;
            } else if braces || grouping {
                labels.insert(name.to_owned());
            } else if ["permcached_", "grpc_server_", "process_"].iter().any(|prefix| name.starts_with(prefix)) {
                metrics.insert(name.to_owned());
            }
            continue;
        }
        match first {
            '{' => braces = true,
            '}' => braces = false,
            ')' => grouping = false,
            _ => {}
        }
        rest = &rest[first.len_utf8()..];
    }
    (metrics, labels)
}

/// Every query of the dashboard and of the alerts, with its place.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboards/permcached.json")).unwrap();
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.push((panel["title"].to_string(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    assert!(all.len() > 30, "{}", all.len());
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        all.push((annotation["name"].to_string(), annotation["expr"].as_str().unwrap().to_owned()));
    }
    let alerts = rules();
    assert!(alerts.len() >= 8, "{alerts:?}");
    all.extend(alerts);
    all
}

fn rules() -> Vec<(String, String)> {
    let rules: Value = serde_saphyr::from_str(&read("deploy/alerts.yml")).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap().clone();
    let text = |rule: &Value, key: &str| rule[key].as_str().unwrap().to_owned();
    rules.iter().map(|rule| (text(rule, "alert"), text(rule, "expr"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_query_names_existing_metrics() {
    let all = of_a_busy_service().await;
    let documented = documented();
    let suffix = |kind: &str| if kind == "counter" { "_total" } else { "" };
    let as_documented = |(name, metric): (&String, &Shown)| {
        let name = format!("{name}{}", suffix(&metric.kind));
        (name, Shown { samples: BTreeSet::new(), ..metric.clone() })
    };
    let there: BTreeMap<String, Shown> = all.iter().map(as_documented).collect();
    for (name, metric) in &there {
        assert_eq!(documented.get(name), Some(metric), "{name} in docs/metrics.md");
    }
    for name in documented.keys() {
        assert!(there.contains_key(name), "docs/metrics.md has {name}, which the service does not show");
    }
    for (place, query) in queries() {
        let (metrics, labels) = names(&query);
        let mut known: BTreeSet<String> = OUTER.iter().map(|label| (*label).to_owned()).collect();
        for name in &metrics {
            let found = all.values().find(|metric| metric.samples.contains(name));
            known.extend(found.unwrap_or_else(|| panic!("{place}: there is no {name}: {query}")).labels.clone());
        }
        assert!(labels.is_subset(&known), "{place}: {labels:?} of {known:?}: {query}");
    }
}

#[test]
fn every_alert_is_documented() {
    let manual = read("docs/metrics.md");
    let rules_text = read("deploy/alerts.yml");
    let rules = rules();
    for (alert, _) in &rules {
        assert!(manual.contains(&format!("\n### {alert}\n")), "docs/metrics.md has no section on {alert}");
        assert!(rules_text.contains(&format!("docs/metrics.md#{}\n", alert.to_lowercase())), "{alert} leads nowhere");
    }
    let sections = manual.lines().filter(|line| line.starts_with("### Permcached")).count();
    assert_eq!(sections, rules.len(), "docs/metrics.md has alerts that do not exist");
}

#[test]
fn names_in_a_query_are_found() {
    let (metrics, labels) = names(
        "sum by (le, a) (rate(permcached_x_bucket{b=~\"permcached_no|c\", d!=\"e\"}[5m])) / process_y + up{f=\"g\"}",
    );
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(metrics, set(&["permcached_x_bucket", "process_y"]));
    assert_eq!(labels, set(&["le", "a", "b", "d", "f"]));
}
