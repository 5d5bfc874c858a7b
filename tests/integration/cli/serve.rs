//! `serve`: what prevents its start, each with its remedy, and how it ends. What it answers is tested elsewhere.

use std::{fs, net::TcpListener, path::Path};

use tokio::{io::AsyncReadExt as _, net::TcpSocket};

use crate::support::{
    command::{Serving, command, run, run_with},
    service::{DOCUMENTS, SCHEMA, http},
};

#[test]
fn sigterm_and_sigint_end_it_with_0() {
    for signal in ["TERM", "INT"] {
        let server = Serving::start(&["--documents", DOCUMENTS, "--schema", SCHEMA]);
        server.signal(signal);
        server.logged("stopped");
        assert_eq!(server.exit_code(), Some(0), "{signal}");
    }
}

#[test]
fn every_error_of_the_configuration_is_listed_at_once() {
    let ended = run(&["serve"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
    for words in ["SCHEMA_FILE", "--schema", "MONGODB_URI", "DOCUMENTS_DIR"] {
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
    let variables = [
        ("PORT", "many"),
        ("BIND_ADDRESS", "everywhere"),
        ("DOCUMENTS_DIR", "examples"),
        ("DB_URI", "mongodb://u:sekrit@h/db"),
        ("RUST_LOG", "a=b=c"),
    ];
    let ended = run_with(&["serve"], &variables);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
    for words in [
        "no schema is named",
        "PORT is `many`",
        "BIND_ADDRESS is `everywhere`",
        "both DOCUMENTS_DIR and DB_URI",
        "RUST_LOG is `a=b=c`",
    ] {
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
    }
    assert_eq!(ended.stderr.lines().filter(|line| line.starts_with("  - ")).count(), 5, "{ended:?}");
    assert!(!ended.output().contains("sekrit"), "{ended:?}");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let (port, free) = (address.port().to_string(), "0".to_owned());
    for (variable, ports) in [("PORT", [&port, &free]), ("PROBE_PORT", [&free, &port])] {
        let arguments = ["serve", "--documents", DOCUMENTS, "--schema", SCHEMA, "--bind", "127.0.0.1"];
        let variables = [("PORT", &**ports[0]), ("PROBE_PORT", ports[1]), ("STARTUP_GRACE", "0s")];
        let ended = run_with(&arguments, &variables);
        assert_eq!((ended.code, ended.stdout.as_str()), (3, ""), "{ended:?}");
        let last = ended.stderr.lines().last().unwrap();
        let remedies = [format!("ss -tanp sport = :{port}"), format!("set {variable} to another port")];
        assert!(last.starts_with(&format!("error: cannot listen on {address}: the port is in use")), "{ended:?}");
        assert!(remedies.iter().all(|remedy| last.contains(remedy)), "{ended:?}");
    }
}

/// Two listeners, of which the second is on the port for probes, and an outgoing connection that was given the port.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_becomes_free_during_the_start_is_taken() {
    let arguments = ["--documents", DOCUMENTS, "--schema", SCHEMA, "--bind", "127.0.0.1"];
    for variable in ["PORT", "PROBE_PORT"] {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let port = address.port().to_string();
        let other = if variable == "PORT" { "PROBE_PORT" } else { "PORT" };
        let server = Serving::begin(&arguments, &[(variable, &port), (other, "0"), ("STARTUP_GRACE", "10m")]);
        let line = server.logged("the port is in use: it is tried again until STARTUP_GRACE is over");
        assert_eq!((line["level"].as_str(), line["address"].as_str()), (Some("WARN"), Some(&*address.to_string())));
        drop(taken);
        let lines = server.lines_to("ready");
        assert_eq!(lines.iter().filter(|line| line.contains("the port is free again")).count(), 1, "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("is in use")), "it is reported once: {lines:?}");
        let ready = http(address, "/readyz").await;
        assert_eq!((ready.status, &*ready.body), (200, "ready"));
    }
    let remote = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let (outgoing, accepted) = tokio::join!(socket.connect(remote.local_addr().unwrap()), remote.accept());
    let port = address.port().to_string();
    let server = Serving::begin(&arguments, &[("PORT", &port), ("STARTUP_GRACE", "10m")]);
    server.logged("the port is in use: it is tried again until STARTUP_GRACE is over");
    // The other side closes first, so that nothing of the connection remains on this one.
    drop(accepted.unwrap());
    let mut outgoing = outgoing.unwrap();
    assert_eq!(outgoing.read(&mut [0]).await.unwrap(), 0);
    drop(outgoing);
    server.logged("ready");
    assert_eq!(http(address, "/readyz").await.status, 200);
}

#[test]
fn the_error_about_a_connection_string_without_a_database_hides_the_password() {
    let nameless = "mongodb://u:sekrit@127.0.0.1:1";
    let ended = run_with(&["serve", "--schema", SCHEMA, "--port", "0"], &[("MONGODB_URI", nameless)]);
    assert!(ended.code != 0 && ended.stderr.contains("set MONGODB_DATABASE"), "{ended:?}");
    assert!(!ended.output().contains("sekrit"), "{ended:?}");
}

#[test]
fn every_invalid_line_of_the_documents_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(DOCUMENTS).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    let rewrite = |name: &str, change: fn(&mut Vec<String>)| {
        let path = directory.path().join(name);
        let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        change(&mut lines);
        fs::write(path, lines.join("\n")).unwrap();
    };
    rewrite("files.jsonl", |lines| {
        lines[2] = "{\"_id\": oops}".to_owned();
        lines[4] = "[]".to_owned();
        // Which of the two counts is not defined: none does.
        lines[1] = lines[1].replacen('{', "{\"gone\": {\"by\": 1, \"by\": 2}, ", 1);
    });
    rewrite("shares.jsonl", |lines| lines.insert(3, lines[0].clone()));
    rewrite("users.jsonl", |lines| lines[1] = "{\"email\": \"nobody\"}".to_owned());
    let documents = directory.path().to_str().unwrap();
    let file = |name: &str| Path::new(documents).join(name).display().to_string();

    let ended = run(&["serve", "--documents", documents, "--schema", SCHEMA, "--port", "0"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
    for (place, words) in [
        (format!("{}:2: ", file("files.jsonl")), "the field `by` occurs twice in the same object"),
        (format!("{}:3: ", file("files.jsonl")), "not a document in Extended JSON"),
        (format!("{}:5: ", file("files.jsonl")), "export without --jsonArray"),
        (format!("{}:4: ", file("shares.jsonl")), "another document has the same _id 54a4e0000000000000000001"),
        (format!("{}:2: ", file("users.jsonl")), "the document has no _id"),
    ] {
        let line =
            ended.stderr.lines().find(|line| line.contains(&place)).unwrap_or_else(|| panic!("{place}: {ended:?}"));
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn a_file_of_documents_in_another_form_has_one_error_and_a_byte_order_mark_is_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let documents = directory.path().to_str().unwrap();
    let schema = directory.path().join("schema.toml");
    let text = "default_subject = \"user\"\nsubject.user.id = \"integer\"\n[resource.note]\ncollection = \"notes\"\nid = \"integer\"\n\
                relations = { owner = { field = \"owner\" } }\npermissions = { read = \"owner\" }";
    fs::write(&schema, text).unwrap();
    let asked = |text: &[u8]| {
        fs::write(directory.path().join("notes.jsonl"), text).unwrap();
        run(&["check", "user:7", "read", "note:1", "--documents", documents, "--schema", schema.to_str().unwrap()])
    };
    let one = r#"{"_id": 1, "owner": 7}"#;
    for text in [one.to_owned(), format!("\u{feff}{one}\r\n"), format!("\u{feff}\n\n{one}\n")] {
        assert_eq!(asked(text.as_bytes()).code, 0, "{text:?}: {:?}", asked(text.as_bytes()));
    }
    for (text, line, remedy) in [
        (format!("[{one}]"), 1, "jq -c '.[]'"),
        (format!("[\n{one},\n{one}\n]\n"), 1, "jq -c '.[]'"),
        (format!("\u{feff}\n  [{one},\n{one}]"), 2, "--jsonArray"),
        ("{\n  \"_id\": 1,\n  \"owner\": 7\n}\n".to_owned(), 1, "jq -c ."),
    ] {
        let ended = asked(text.as_bytes());
        assert_eq!(ended.code, 2, "{text:?}: {ended:?}");
        assert!(ended.stderr.contains(&format!("notes.jsonl:{line}: ")) && ended.stderr.contains(remedy), "{ended:?}");
        assert_eq!(ended.stderr.matches("notes.jsonl").count(), 1, "{ended:?}");
    }
    // PowerShell's `>` writes UTF-16.
    for (mark, bytes) in [([0xff, 0xfe], u16::to_le_bytes as fn(u16) -> [u8; 2]), ([0xfe, 0xff], u16::to_be_bytes)] {
        let text: Vec<u8> = mark.into_iter().chain(one.encode_utf16().flat_map(bytes)).collect();
        let ended = asked(&text);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains("notes.jsonl:1: UTF-16, not UTF-8"), "{ended:?}");
    }
}

#[test]
fn a_missing_file_or_directory_is_named() {
    let ended = run(&["serve", "--documents", "no/such/directory", "--schema", SCHEMA, "--port", "0"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("cannot read the documents in `no/such/directory`"), "{ended:?}");
    let ended = run(&["serve", "--documents", DOCUMENTS, "--schema", "no/such.toml", "--port", "0"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("cannot read the schema `no/such.toml`"), "{ended:?}");
}

/// Each option has the effect of its variable.
#[test]
fn the_environment_configures_it_as_the_options_do() {
    let directory = tempfile::tempdir().unwrap();
    let hints = directory.path().join("hints");
    fs::write(&hints, "it is at {address}").unwrap();
    let variables =
        [("SCHEMA_FILE", SCHEMA), ("DOCUMENTS_DIR", DOCUMENTS), ("PORT", "0"), ("BIND_ADDRESS", "127.0.0.1")];
    let mut child = command(&["serve", "--hints", hints.to_str().unwrap()], &variables)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut printed = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut printed).unwrap();
    let address = printed.trim().strip_prefix("it is at ").unwrap_or_else(|| panic!("{printed}"));
    let health = run(&["health", "--server", address]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(health.code, 0, "{health:?}");
}
