//! Documents on disk that are edited while the service answers from them.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{BOB, CONTRACT};
use crate::support::{
    command::{Serving, run},
    service::{DOCUMENTS, SCHEMA},
};

/// The default of `MAX_STALENESS`.
const MAX_STALENESS: Duration = Duration::from_secs(2);

/// A server over a copy of the sample documents.
struct Sample {
    directory: TempDir,
    server: Serving,
}

impl Sample {
    fn serve() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(DOCUMENTS).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
        let server = Serving::start(&["--documents", directory.path().to_str().unwrap(), "--schema", SCHEMA]);
        Self { directory, server }
    }

    fn shares(&self) -> std::path::PathBuf {
        self.directory.path().join("shares.jsonl")
    }

    /// Deletes all shares with Bob, as an editor saves a file.
    fn revoke(&self) {
        let (_, bob) = BOB.split_once(':').unwrap();
        let shares = fs::read_to_string(self.shares()).unwrap();
        let others: Vec<&str> = shares.lines().filter(|line| !line.contains(bob)).collect();
        assert!(others.len() < shares.lines().count());
        replace(&self.shares(), &others.join("\n"));
    }

    /// Whether the server allows Bob to read the contract.
    fn bob_reads(&self, arguments: &[&str]) -> bool {
        let url = self.server.url();
        let ended = run(&[&["check", BOB, "read", CONTRACT, "--server", &url], arguments].concat());
        assert!(ended.code == 0 || ended.code == 1, "{ended:?}");
        ended.code == 0
    }

    /// The HTTP response to a probe.
    fn get(&self, path: &str) -> String {
        let mut connection = TcpStream::connect(self.server.address).unwrap();
        write!(connection, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        connection.read_to_string(&mut response).unwrap();
        response
    }
}

fn replace(path: &Path, text: &str) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, path).unwrap();
}

#[test]
fn an_edited_file_changes_a_fully_consistent_check_at_once() {
    let sample = Sample::serve();
    assert!(sample.bob_reads(&[]));
    let before = fs::read_to_string(sample.shares()).unwrap();
    sample.revoke();
    assert!(!sample.bob_reads(&["--fully-consistent"]));
    // Overwritten, not replaced.
    fs::write(sample.shares(), before).unwrap();
    assert!(sample.bob_reads(&["--fully-consistent"]));
}

#[test]
fn an_edited_file_changes_every_check_within_max_staleness() {
    let sample = Sample::serve();
    assert!(sample.bob_reads(&[]));
    sample.revoke();
    let revoked = Instant::now();
    loop {
        let asked = revoked.elapsed();
        if !sample.bob_reads(&[]) {
            break;
        }
        assert!(asked <= MAX_STALENESS, "allowed though asked {asked:?} after it was revoked");
    }
}

#[test]
fn watch_prints_the_change_of_an_edited_file() {
    let sample = Sample::serve();
    let mut watch = sample.server.start_client(&["watch", "--since", "r0000000000000001"]);
    sample.revoke();
    let line = watch.line();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words.len(), 3, "{line}");
    assert!(words[0] > "r0000000000000001" && words[1] == "key" && words[2].starts_with("shares."), "{line}");
    sample.server.signal("TERM");
    let (code, stderr) = watch.wait();
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("call Watch again"), "{stderr}");
}

#[test]
fn a_broken_file_keeps_the_last_good_documents_and_is_not_ready() {
    let sample = Sample::serve();
    let health = || run(&["health", "--server", &sample.server.url()]).code;
    assert_eq!((sample.get("/readyz").contains(" 200 "), health()), (true, 0));
    let good = fs::read_to_string(sample.shares()).unwrap();
    replace(&sample.shares(), &format!("{good}\n{{ oops"));
    let line = sample.server.logged_with("the documents that were read before it are kept");
    assert!(line["message"].as_str().unwrap().contains("shares.jsonl"), "{line}");
    assert_eq!(line["level"], "ERROR");
    assert!(sample.bob_reads(&[]) && sample.bob_reads(&["--fully-consistent"]));
    let is_degraded =
        |ready: &str| ready.contains(" 503 ") && ready.contains("degraded") && ready.contains("shares.jsonl");
    wait_until(|| is_degraded(&sample.get("/readyz")));
    assert!(sample.get("/healthz").contains(" 200 "), "a restart would not help");
    wait_until(|| health() == 1);
    replace(&sample.shares(), &good);
    wait_until(|| sample.get("/readyz").contains(" 200 ") && health() == 0);
    sample.revoke();
    assert!(!sample.bob_reads(&["--fully-consistent"]));
}

/// Some editors move a file away before they write the new one.
#[test]
fn a_deleted_file_does_not_count_as_empty() {
    let sample = Sample::serve();
    let good = fs::read_to_string(sample.shares()).unwrap();
    fs::remove_file(sample.shares()).unwrap();
    assert!(sample.bob_reads(&["--fully-consistent"]), "the documents are kept");
    let is_degraded = |ready: &str| ready.contains(" 503 ") && ready.contains("shares.jsonl is gone");
    wait_until(|| is_degraded(&sample.get("/readyz")));
    fs::write(sample.shares(), good).unwrap();
    wait_until(|| sample.get("/readyz").contains(" 200 "));
    sample.revoke();
    assert!(!sample.bob_reads(&["--fully-consistent"]));
}

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "the condition is not met");
        thread::sleep(Duration::from_millis(5));
    }
}
