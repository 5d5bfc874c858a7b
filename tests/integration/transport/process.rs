//! The server as a process: its memory returns after a burst, and connections leave file descriptors for everything else.
//!
//! Measures no time.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use permcached::transport::proto::permission_service_client::PermissionServiceClient;

use super::{ALICE, ROADMAP, ask, check};
use crate::support::{
    http2::{EMPTY, HEALTH_CHECK, HEALTH_WATCH, REFLECTION, Raw, eventually},
    service::{DOCUMENTS, SCHEMA, http},
};

/// A server with few file descriptors.
struct Narrow {
    process: Child,
    address: SocketAddr,
    probes: SocketAddr,
    /// What it logged before it was ready.
    log: String,
}

impl Drop for Narrow {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Narrow {
    /// Starts a server that may have this many.
    fn start(descriptors: &str) -> Self {
        let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        let mut process = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_permcached"), "serve", "--port", "0"])
            .args(["--schema", SCHEMA, "--documents", DOCUMENTS])
            .env_clear()
            .env("PROBE_PORT", "0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut log = String::new();
        let mut addresses = Vec::new();
        while addresses.len() < 2 {
            let text = lines.next().expect("it gets ready").unwrap();
            let line: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
            if matches!(line["message"].as_str(), Some("probes are answered" | "ready")) {
                addresses.push(line["address"].as_str().unwrap().parse().unwrap());
            }
            log.push_str(&text);
        }
        // Its later output must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, probes: addresses[0], address: addresses[1], log }
    }

    /// How much memory it has, in bytes.
    fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1_024
    }
}

/// The limit: of 64 descriptors, 16 are for connections of the port, and 8 for those of the probe port.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn idle_connections_leave_descriptors_for_everything_else() {
    let server = Narrow::start("64");
    assert!(server.log.contains("MAX_CONNECTIONS was lowered"), "{}", server.log);
    let mut idle = Vec::new();
    for address in [server.address, server.probes] {
        for _ in 0..100 {
            idle.push(TcpStream::connect(address).unwrap());
        }
    }
    for address in [server.address, server.probes] {
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(http(address, path).await.status, 200, "{path}");
        }
    }
    let client = PermissionServiceClient::connect(format!("http://{}", server.address)).await.unwrap();
    assert!(ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap().allowed);
}

/// The limits: 64 MiB more than before while clients attack, and at most 16 MiB more after further bursts than after the
/// first: the allocator keeps some memory of a burst, and nothing else does.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn what_clients_without_a_token_can_take_is_bounded_and_does_not_add_up() {
    const MIB: usize = 1_024 * 1_024;
    let server = Narrow::start("4096");
    let before = server.memory();
    let mut after_first = None;
    for round in 0..3 {
        for (path, body) in
            [(HEALTH_WATCH, Some(EMPTY)), (REFLECTION, Some(EMPTY)), (HEALTH_CHECK, None), (HEALTH_CHECK, Some(EMPTY))]
        {
            let mut connections = Vec::new();
            for _ in 0..40 {
                let raw = Raw::with_window(server.address, 0).await;
                let mut open = Vec::new();
                for _ in 0..256 {
                    let Ok((response, mut stream)) = raw.begin(path, &[]).await else { break };
                    if let Some(body) = body {
                        let _refused = stream.send_data(body.into(), false);
                    }
                    open.push((response, stream));
                }
                connections.push((raw, open));
            }
            assert_eq!(http(server.address, "/healthz").await.status, 200, "{path}");
            let grown = server.memory().saturating_sub(before);
            assert!(grown < 64 * MIB, "{path}: {grown} bytes more");
        }
        let limit = *after_first.get_or_insert_with(|| server.memory()) + 16 * MIB;
        eventually(async || (server.memory() <= limit).then_some(())).await;
        assert!(server.memory() <= limit, "round {round}");
    }
}
