//! Measures what a call costs with warm caches, beside an empty tonic service with the same messages, in the same run: processor
//! time of the server for each call, calls a second, and latency. Also the start and the memory of the server.
//!
//! Each service is a process of its own, on the same machine as the client, which keeps several calls open on each connection.
//! Processor time varies least on a busy machine, and is what the targets are about.
//!
//! Words after `--` choose the cases whose names contain one of them. `--profile` before them profiles these cases in place
//! of measuring them (`served/profile.rs`). Does not measure cold caches.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that cannot run panics with the reason, and prints its results"
)]
#![allow(dead_code, reason = "other benches use more of the client and the servers")]

#[path = "served/calls.rs"]
mod calls;
#[path = "served/client.rs"]
mod client;
#[path = "served/layers.rs"]
mod layers;
#[path = "served/profile.rs"]
mod profile;
#[path = "served/rounds.rs"]
mod rounds;
#[path = "served/servers.rs"]
mod servers;
#[path = "served/size.rs"]
mod size;

use std::{collections::HashMap, env, path::Path};

use calls::Call;
use rounds::{Round, Side, measure};
use servers::{Empty, Security, Server};

/// The number of connections.
const CONNECTIONS: usize = 8;

/// A call to measure, and how many of it are open at once on each connection.
struct Case {
    call: Call,
    streams: usize,
    security: Security,
    target: Option<Target>,
}

/// The most processor time of the server.
#[derive(Clone, Copy)]
enum Target {
    /// For each call, as a multiple of the empty service's.
    Ratio(f64),
    /// For each question, in microseconds.
    Microseconds(f64),
}

impl Case {
    fn name(&self) -> String {
        format!("{}{}", self.call.name(), self.security.name())
    }
}

/// All cases.
fn cases() -> Vec<Case> {
    let case = |call, streams, security, target| Case { call, streams, security, target };
    let mut cases = Vec::new();
    for security in Security::ALL {
        for streams in [1, 16, 128] {
            let target = if streams == 16 { 0.75 } else { 1.0 };
            cases.push(case(Call::Owner, streams, security, Some(Target::Ratio(target))));
            cases.push(case(Call::Folders(8), streams, security, None));
        }
        for (questions, most) in [(100, 16), (1_000, 4)] {
            for streams in [1, most] {
                cases.push(case(Call::Batch(questions), streams, security, Some(Target::Microseconds(0.7))));
            }
        }
    }
    cases
}

/// Says whether a target is met, and otherwise by how much it is missed.
fn verdict(value: f64, most: f64) -> String {
    if value <= most {
        format!("target {most}: met")
    } else {
        format!("target {most}: MISSED by {:.0} %", (value / most - 1.0) * 100.0)
    }
}

fn print(name: &str, streams: usize, round: &Round, remark: &str) {
    println!(
        "{name:<36} {streams:>7} {:>9.2} {:>8.2} {:>8.2} {:>9.0} {:>9.0} {:>9.0}  {remark}",
        round.cpu(),
        round.user,
        round.system,
        round.calls_a_second,
        round.median,
        round.p99
    );
}

/// The servers of a port of this kind: the empty service, and permcached.
type Servers = HashMap<Security, (Server, Server)>;

fn servers_of<'a>(servers: &'a mut Servers, directory: &Path, security: Security) -> &'a (Server, Server) {
    servers
        .entry(security)
        .or_insert_with(|| (Server::empty(directory, security), Server::permcached(directory, security)))
}

/// Measures a case and prints its figures. Returns the target that is missed, if one is.
async fn run(case: &Case, (empty, permcached): &(Server, Server)) -> Option<String> {
    let Case { call, streams, security, target } = *case;
    let own = Side::new(permcached, CONNECTIONS, call.calls()).await;
    let (round, value, most, remark) = match target {
        Some(Target::Ratio(most)) => {
            let empty = Side::new(empty, CONNECTIONS, call.calls()).await;
            let [of_empty, round] = measure([&empty, &own], streams).await;
            print(&format!("empty service{}", security.name()), streams, &of_empty, "");
            let (ratio, rate) = (round.cpu() / of_empty.cpu(), round.calls_a_second / of_empty.calls_a_second);
            (round, ratio, most, format!("{ratio:.2} x the empty service's CPU, {rate:.2} x its calls/s"))
        }
        Some(Target::Microseconds(most)) => {
            let [round] = measure([&own], streams).await;
            let each = round.cpu() / f64::from(call.questions());
            (round, each, most, format!("{each:.2} µs a question"))
        }
        None => {
            let [round] = measure([&own], streams).await;
            (round, 0.0, f64::INFINITY, String::new())
        }
    };
    let remark = if target.is_some() { format!("{remark} ({})", verdict(value, most)) } else { remark };
    print(&case.name(), streams, &round, &remark);
    (value > most).then(|| format!("{}, {streams} streams: {remark}", case.name()))
}

#[tokio::main]
async fn main() {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench").peekable();
    if arguments.next_if(|first| first == Empty::ARGUMENT).is_some() {
        return Empty::serve(arguments.next().is_some()).await;
    }
    let is_profile = arguments.next_if(|first| first == "--profile").is_some();
    let words: Vec<String> = arguments.collect();
    let is_chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(&**word));
    let directory = tempfile::tempdir().expect("a directory");
    let mut servers = Servers::new();
    let cases: Vec<Case> = cases().into_iter().filter(|case| is_chosen(&case.name())).collect();
    if is_profile {
        for case in cases.iter().filter(|case| case.streams == 16) {
            let (empty, permcached) = servers_of(&mut servers, directory.path(), case.security);
            profile::run(&case.name(), permcached, case).await;
            profile::run(&format!("empty service{}", case.security.name()), empty, case).await;
        }
        return;
    }
    println!("Processor time (CPU) of the server in µs a call, {CONNECTIONS} connections\n");
    println!(
        "{:<36} {:>7} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9}",
        "", "streams", "CPU µs", "user", "system", "calls/s", "p50 µs", "p99 µs"
    );
    let mut missed = Vec::new();
    for case in &cases {
        missed.extend(run(case, servers_of(&mut servers, directory.path(), case.security)).await);
    }
    drop(servers);
    if is_chosen(size::NAME) {
        missed.extend(size::run(directory.path()).await);
    }
    println!("\nTargets missed: {}", if missed.is_empty() { "none" } else { "" });
    for line in missed {
        println!("  {line}");
    }
}
