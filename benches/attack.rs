//! Measures what one client can do to another: for each attack, the 99th percentile of an honest caller's latency while
//! the attack runs, as a multiple of the same caller's quiet 99th percentile, and the server's peak memory.
//!
//! Each attack has a server of its own, over the sample documents. The honest caller sends checks at a constant rate over one
//! connection; each latency counts from the moment at which the check was due, so that a stalled server is not measured
//! less often. The attacker is a process that uses only what the others leave of the processors (`chrt --idle`): on a machine of
//! two cores, its *own* use of them would otherwise delay server and honest caller alike, and would count as the server's
//! unfairness. A low niceness does not suffice: the system lets such a process run on for 3 ms when another has work.
//!
//! Exits with 1 if an attack exceeds a limit. Words after `--` choose the attacks whose names contain one of them.
//! `--server PATH` measures another build of the server.
//!
//! To add an attack, write a function in `attack/attacks.rs` and list it there. Does not judge whether answers are right.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench that cannot run panics with the reason, and prints its results"
)]

#[path = "attack/aim.rs"]
mod aim;
#[path = "attack/attacks.rs"]
mod attacks;
#[path = "attack/client.rs"]
mod client;
#[path = "attack/messages.rs"]
mod messages;
#[path = "attack/open.rs"]
mod open;
#[path = "attack/server.rs"]
mod server;
#[path = "attack/victim.rs"]
mod victim;

use std::{
    env,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    thread::sleep,
    time::Duration,
};

use aim::Aim;
use attacks::{ATTACKS, Attack};
use server::Server;
use victim::Victim;

/// How long the honest caller asks before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long the quiet latency is measured.
const QUIET: Duration = Duration::from_secs(4);

/// How long an attack runs before the latency is measured.
const RAMP: Duration = Duration::from_millis(500);

/// How long the latency is measured under attack.
const UNDER_ATTACK: Duration = Duration::from_secs(6);

/// After what time the memory that remains is measured.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// The limit of an honest caller's 99th percentile, as a multiple of its quiet one.
const RATIO_MAX: f64 = 3.0;

/// `CACHE_MAX_BYTES` of the servers: the default.
const CACHE_BYTES: f64 = 64.0 * 1_024.0 * 1_024.0;

/// The limit of the server's memory, in bytes.
const MEMORY_MAX: f64 = 1.3 * CACHE_BYTES + 64e6;

/// The first argument of the attacker's process.
const ATTACKER: &str = "attacker";

/// The figures of one attack.
struct Outcome {
    quiet: victim::Latencies,
    attacked: victim::Latencies,
    peak: f64,
    afterwards: f64,
    cpu: Duration,
    answers: String,
}

impl Outcome {
    fn ratio(&self) -> f64 {
        self.attacked.p99 / self.quiet.p99
    }

    /// How many checks and probes failed.
    fn failures(&self) -> usize {
        [&self.quiet, &self.attacked].iter().map(|latencies| latencies.errors + latencies.failed_probes).sum()
    }

    fn is_within_limits(&self) -> bool {
        self.ratio() <= RATIO_MAX && self.peak <= MEMORY_MAX && self.failures() == 0
    }

    fn print(&self, name: &str) {
        const MB: f64 = 1e6;
        println!(
            "{name:<44} {:>7.2} {:>8.2} {:>6.2} {:>6} {:>7.0} {:>7.0} {:>6.0} %  {:<7} {}",
            self.quiet.p99,
            self.attacked.p99,
            self.ratio(),
            self.attacked.errors,
            self.peak / MB,
            self.afterwards / MB,
            100.0 * self.cpu.as_secs_f64() / (RAMP + UNDER_ATTACK).as_secs_f64(),
            if self.is_within_limits() { "held" } else { "FAILED" },
            self.answers,
        );
        for (when, latencies) in [("before", &self.quiet), ("under", &self.attacked)] {
            if latencies.errors > 0 {
                println!("    {when} the attack, {} checks had no answer: {}", latencies.errors, latencies.instead);
            }
            if latencies.failed_probes > 0 {
                println!("    {when} the attack, {} probes had no answer", latencies.failed_probes);
            }
        }
    }
}

/// Runs one attack against a new server.
fn measure(attack: &Attack, binary: &PathBuf) -> Outcome {
    let server = Server::start(binary, attack);
    let victim = Victim::connect(server.address, server.probes);
    victim.ask_for(WARM_UP);
    let quiet = victim.ask_for(QUIET);
    let attacker = Command::new("chrt")
        .args(["--idle", "0"])
        .arg(env::current_exe().expect("this program"))
        .args([ATTACKER, attack.name, &server.address.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("chrt, of util-linux, starts it");
    sleep(RAMP);
    let before = server.cpu();
    let attacked = victim.ask_for(UNDER_ATTACK);
    let cpu = server.cpu().saturating_sub(before);
    let output = attacker.wait_with_output().expect("it ends");
    sleep(AFTERWARDS);
    let answers = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Outcome { quiet, attacked, peak: server.peak(), afterwards: server.memory(), cpu, answers }
}

/// Attacks a server for as long as its honest caller is measured, and prints how it answered.
fn attack(name: &str, address: SocketAddr) {
    let attack = ATTACKS.iter().find(|attack| attack.name == name).expect("the name of an attack");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let aim = Aim::new(address);
    runtime.block_on(async {
        let attacked = tokio::time::timeout(RAMP + UNDER_ATTACK, (attack.run)(aim.clone()));
        let _over = attacked.await;
    });
    println!("{}", aim.summary());
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_permcached"));
    let mut words = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            ATTACKER => {
                let mut next = || arguments.next().expect("an argument");
                let (name, address) = (next(), next());
                attack(&name, address.parse().expect("an address"));
                return ExitCode::SUCCESS;
            }
            "--server" => binary = arguments.next().expect("--server has a path").into(),
            _ => words.push(argument),
        }
    }
    println!(
        "{:<44} {:>7} {:>8} {:>6} {:>6} {:>7} {:>7} {:>8}",
        "", "p99", "p99", "", "", "peak", "MB 2 s", "server's"
    );
    println!(
        "{:<44} {:>7} {:>8} {:>6} {:>6} {:>7} {:>7} {:>8}  {:<7} answers to the attacker",
        "attack", "quiet", "attacked", "ratio", "errors", "MB", "after", "CPU", "limits"
    );
    let mut failed = Vec::new();
    let is_chosen = |attack: &&Attack| words.is_empty() || words.iter().any(|word| attack.name.contains(&**word));
    for attack in ATTACKS.iter().filter(is_chosen) {
        let outcome = measure(attack, &binary);
        outcome.print(attack.name);
        if !outcome.is_within_limits() {
            failed.push(attack.name);
        }
    }
    println!(
        "limits: ratio {RATIO_MAX}, no errors, peak {:.0} MB (1.3 x CACHE_MAX_BYTES + 64 MB); latencies in ms",
        MEMORY_MAX / 1e6
    );
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("beyond a limit: {}", failed.join(", "));
    ExitCode::FAILURE
}
