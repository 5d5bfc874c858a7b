//! A release build of the server in a process of its own, and what the system says about that process.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{
    attacks::Attack,
    client::{ADMIN_SECRET, ATTACKER_SECRET, VICTIM_SECRET},
};

/// A server, which is killed when this is dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    pub(crate) probes: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Server {
    /// Starts a server over the sample documents, with the defaults and what the attack changes of them.
    pub(crate) fn start(binary: &PathBuf, attack: &Attack) -> Self {
        let mut command = Command::new(binary);
        command.args(["serve", "--port", "0", "--bind", "127.0.0.1"]);
        command.args(["--schema", "schemas/fylora-sharing.toml", "--documents", "examples/fylora"]);
        let tokens = format!("victim:{VICTIM_SECRET},attacker:{ATTACKER_SECRET},admin:{ADMIN_SECRET}:admin");
        command.env_clear().env("AUTH_TOKENS", tokens).env("PROBE_PORT", "0");
        command.envs(attack.environment.iter().copied());
        let mut process = command.stderr(Stdio::piped()).spawn().expect("the server starts");
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let mut probes = None;
        let address = loop {
            let line = lines.next().expect("it gets ready").expect("text");
            let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            let address = || line.get("address").and_then(|text| text.as_str()?.parse().ok()).expect("an address");
            match line.get("message").and_then(|message| message.as_str()) {
                Some("probes are answered") => probes = Some(address()),
                Some("ready") => break address(),
                _ => {}
            }
        };
        // Its later output must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address, probes: probes.expect("it has a probe port") }
    }

    /// Bytes of memory that the process has.
    pub(crate) fn memory(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// The most bytes of memory that the process has had.
    pub(crate) fn peak(&self) -> f64 {
        self.status("VmHWM:")
    }

    /// A value of `/proc/PID/status`, in bytes.
    fn status(&self, name: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        // The server may have been killed for its memory.
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kibibytes.map_or(f64::INFINITY, |kibibytes| kibibytes * 1_024.0)
    }

    /// The processor time that the process has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap_or_default();
        let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
        // User and system time are the fields 14 and 15, in hundredths of a second; two fields come before the `)`.
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }
}
