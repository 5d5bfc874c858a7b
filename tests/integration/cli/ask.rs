//! `check`, `explain` and `health`: answers, in process and from a server, and the messages if there is no answer.

use std::{net::TcpListener, thread};

use permcached::transport::proto::DESCRIPTORS;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic_health::{ServingStatus, server::health_reporter};

use super::{BOB, CONTRACT, ZOE, in_process};
use crate::support::{
    command::{Serving, run, run_with},
    service::{DOCUMENTS, SCHEMA},
};

#[test]
fn check_ends_with_0_for_yes_and_1_for_no_in_process_and_from_a_server() {
    let server = Serving::start(&["--documents", DOCUMENTS, "--schema", SCHEMA]);
    let url = server.url();
    let short = server.address.to_string();
    let cases = [
        (BOB, 0, format!("allowed: {BOB} may read {CONTRACT}, by folder#guest\n")),
        (
            "user:ada000000000000000000008",
            0,
            format!(
                "allowed: user:ada000000000000000000008 may read {CONTRACT}, by folder#guest, until 2099-12-31T23:59:59Z\n"
            ),
        ),
        (ZOE, 1, format!("denied: {ZOE} may not read {CONTRACT}: NO_GRANT\n")),
        (
            "user:fad100000000000000000005",
            1,
            format!("denied: user:fad100000000000000000005 may not read {CONTRACT}: SUBJECT_INACTIVE\n"),
        ),
        ("anonymous", 1, format!("denied: anonymous may not read {CONTRACT}: NO_GRANT\n")),
    ];
    for (who, code, sentence) in &cases {
        let question = ["check", who, "read", CONTRACT];
        let ways = [
            in_process(&question),
            [question.as_slice(), &["--server", &url]].concat(),
            [question.as_slice(), &["--server", &short]].concat(),
        ];
        for way in ways {
            let ended = run(&way);
            assert_eq!((ended.code, &ended.stdout, ended.stderr.as_str()), (*code, sentence, ""), "{way:?}");
        }
        let explained = run(&in_process(&["explain", who, "read", CONTRACT]));
        assert_eq!(explained.code, *code);
        assert!(explained.stdout.starts_with(sentence.as_str()), "{explained:?}");
        let explained = run(&["explain", who, "read", CONTRACT, "--server", &url]);
        assert_eq!(explained.code, *code);
        assert!(explained.stdout.starts_with(sentence.as_str()), "{explained:?}");
    }
    let by_port = run_with(&["check", BOB, "read", CONTRACT], &[("PORT", &server.address.port().to_string())]);
    assert_eq!(by_port.code, 0, "{by_port:?}");
    let by_schema = run_with(&["check", BOB, "read", CONTRACT, "--documents", DOCUMENTS], &[("SCHEMA_FILE", SCHEMA)]);
    assert_eq!(by_schema.code, 0, "{by_schema:?}");
    let health = run(&["health", "--server", &url]);
    assert_eq!((health.code, health.stdout.as_str()), (0, "serving\n"));
}

#[test]
fn a_wrong_question_ends_with_2_and_a_suggestion() {
    let server = Serving::start(&["--documents", DOCUMENTS, "--schema", SCHEMA]);
    let url = server.url();
    let cases: [(&[&str], &str); 8] = [
        (&["check", BOB, "raed", CONTRACT], "permission: unknown permission of `file` `raed`: did you mean `read`?"),
        (&["explain", BOB, "raed", CONTRACT], "did you mean `read`?"),
        (&["check", "usr:b0b000000000000000000002", "read", CONTRACT], "subject.type: unknown subject type `usr`"),
        (&["check", BOB, "read", "file:contract.pdf"], "resource.id: is not an ObjectId"),
        (&["check", "bob", "read", CONTRACT], "the subject `bob` has no type: write type:id, such as user:"),
        (&["check", BOB, "read", "contract"], "the resource `contract` has no type: write type:id, such as file:"),
        (&["check", "user:*", "owned", "file:", "--token", "t"], "resource.id: is empty"),
        (&["check", BOB, "read", CONTRACT, "--token", "c6b0000000000001f"], "consistency.at_least_as_fresh.token: "),
    ];
    for (question, words) in cases {
        for way in [in_process(question), [question, &["--server", &url]].concat()] {
            let ended = run(&way);
            assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{way:?}: {ended:?}");
            assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(words), "{way:?}: {ended:?}");
        }
    }
    let usage: [&[&str]; 5] = [
        &["check", BOB, "read"],
        &["check", BOB, "read", CONTRACT, "--schema", SCHEMA],
        &["check", BOB, "read", CONTRACT, "--token", "t", "--fully-consistent"],
        &["chekc", BOB, "read", CONTRACT],
        &[],
    ];
    for arguments in usage {
        let ended = run(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains("Usage: "), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn a_wrong_source_or_server_ends_with_2_and_is_named() {
    let ask = ["check", BOB, "read", CONTRACT];
    let cases: [(&[&str], &str); 5] = [
        (&["--documents", DOCUMENTS], "no schema is named: set SCHEMA_FILE, or give --schema FILE"),
        (&["--documents", "no/such/directory", "--schema", SCHEMA], "cannot read the documents in `no/such/directory`"),
        (&["--documents", DOCUMENTS, "--schema", "no-such.toml"], "cannot read the schema `no-such.toml`"),
        (&["--server", "redis://127.0.0.1:1"], "is not an address: write http://host:port, https://host:port"),
        (&["--server", "not an address"], "is not an address: write http://host:port"),
    ];
    for (of, words) in cases {
        let ended = run(&[ask.as_slice(), of].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{of:?}: {ended:?}");
        assert!(ended.stderr.contains(words), "{of:?}: {ended:?}");
    }
    let ended = run_with(&ask, &[("PORT", "many")]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("PORT is `many`"), "{ended:?}");
}

#[test]
fn an_unreachable_server_ends_with_3_and_is_named() {
    let fails = |call: &str, url: &str| {
        let ended = run(&[call, BOB, "read", CONTRACT, "--server", url]);
        assert_eq!((ended.code, ended.stdout.as_str()), (3, ""), "{ended:?}");
        assert!(ended.stderr.starts_with(&format!("error: no answer from {url}: ")), "{ended:?}");
    };
    let is_unhealthy = |url: &str| {
        let ended = run(&["health", "--server", url]);
        assert_eq!((ended.code, ended.stderr.as_str()), (1, ""), "{ended:?}");
        assert!(ended.stdout.starts_with(&format!("no answer from {url}: ")), "{ended:?}");
    };
    // No process listens on this port after the listener is dropped.
    let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}");
    fails("check", &closed);
    fails("explain", &closed);
    is_unhealthy(&closed);
    // A process listens and never answers: the command waits for its deadline.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| fails("check", &silent));
        scope.spawn(|| is_unhealthy(&silent));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn health_ends_with_1_where_the_server_does_not_serve() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (health, service) = health_reporter();
    health.set_service_status("", ServingStatus::NotServing).await;
    let server = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let ended = tokio::task::spawn_blocking({
        let address = address.clone();
        move || run(&["health", "--server", &address])
    });
    let ended = ended.await.unwrap();
    assert_eq!((ended.code, ended.stdout.as_str()), (1, "not serving\n"));

    // A gRPC server without the permission service.
    let ended = tokio::task::spawn_blocking(move || run(&["check", BOB, "read", CONTRACT, "--server", &address]));
    let ended = ended.await.unwrap();
    assert_eq!(ended.code, 3, "{ended:?}");
    server.abort();
}

/// Parses JSON as a message of the protocol. Panics at a field that the message does not have.
#[track_caller]
fn read(name: &str, json: &str) -> (Value, DynamicMessage) {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let descriptor = pool.get_message_by_name(&format!("permcached.v1.{name}")).unwrap();
    let mut text = serde_json::Deserializer::from_str(json);
    let message = DynamicMessage::deserialize(descriptor, &mut text).unwrap_or_else(|error| panic!("{error}: {json}"));
    text.end().unwrap();
    (serde_json::from_str(json).unwrap(), message)
}

#[test]
fn json_is_the_whole_response_by_the_names_of_the_protocol() {
    let server = Serving::start(&["--documents", DOCUMENTS, "--schema", SCHEMA]);
    let url = server.url();
    for (who, code) in [(BOB, 0), (ZOE, 1)] {
        for way in [
            in_process(&["check", who, "read", CONTRACT, "--json"]),
            vec!["check", who, "read", CONTRACT, "--json", "--server", &url],
        ] {
            let ended = run(&way);
            assert_eq!((ended.code, ended.stderr.as_str()), (code, ""), "{ended:?}");
            let (json, _) = read("CheckResponse", &ended.stdout);
            let answer = &json["answer"];
            assert_eq!(answer["allowed"], code == 0);
            assert_eq!(answer["reason"], if code == 0 { "REASON_UNSPECIFIED" } else { "NO_GRANT" });
            assert_eq!(answer["grantedBy"], if code == 0 { "folder#guest" } else { "" });
            assert_eq!(answer["tier"], "TIER_SOURCE");
            assert!(answer["age"].as_str().unwrap().ends_with('s'));
            let token = answer["asOf"].as_str().unwrap();
            let again = run(&[way.as_slice(), &["--token", token]].concat());
            assert_eq!(again.code, code, "{again:?}");
            let again = run(&[way.as_slice(), &["--fully-consistent"]].concat());
            assert_eq!(again.code, code, "{again:?}");
        }
        let ended = run(&["explain", who, "read", CONTRACT, "--json", "--server", &url]);
        assert_eq!(ended.code, code, "{ended:?}");
        let (json, _) = read("ExplainResponse", &ended.stdout);
        let steps = json["steps"].as_array().unwrap();
        assert!(steps.len() > 20, "{json:#}");
        assert_eq!((&steps[0]["step"], &steps[0]["depth"]), (&Value::from("QUESTION"), &Value::from(0)));
        assert_eq!(json["truncated"], false);
    }
    let until = run(&in_process(&["check", "user:ada000000000000000000008", "read", CONTRACT, "--json"]));
    let (json, _) = read("CheckResponse", &until.stdout);
    assert_eq!(json["answer"]["validUntil"], "2099-12-31T23:59:59Z");
}

#[test]
fn missing_documents_cause_a_warning() {
    // A directory without documents: the denial alone would not show that the path is wrong.
    let ended = run(&["check", BOB, "read", CONTRACT, "--documents", "schemas", "--schema", SCHEMA]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("there is no file for this collection") && ended.stderr.contains("users"),
        "{ended:?}"
    );
}
