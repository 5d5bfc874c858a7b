//! Measures how costs grow: of a served check with the number of connections, the share of writes and the depth of folders; of a
//! cached fact with the number of facts; and the memory of a cache with a budget over a long simulated trace. Each has a baseline
//! in the same run. Prints tables, and writes plots into `docs/`.
//!
//! Words after `--` choose among `connections`, `depth`, `writes`, `facts` and `trace`. `writes` requires a mongod.

#![expect(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that cannot run panics with the reason, and prints its results"
)]
#![allow(dead_code, reason = "the tests' support code and the other benches' modules do more than this bench uses")]

#[path = "growth/cache.rs"]
mod cache;
#[path = "served/calls.rs"]
mod calls;
#[path = "served/client.rs"]
mod client;
#[path = "../tests/integration/support/servers.rs"]
mod database;
#[path = "growth/facts.rs"]
mod facts;
#[path = "growth/load.rs"]
mod load;
#[path = "growth/plot.rs"]
mod plot;
#[path = "served/rounds.rs"]
mod rounds;
#[path = "served/servers.rs"]
mod servers;
#[path = "growth/trace.rs"]
mod trace;
#[path = "growth/writes.rs"]
mod writes;

use std::env;

use servers::Empty;

/// The number of calls that are open at once on each connection.
const STREAMS: usize = 16;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let first = arguments.first().map_or("", |first| &**first);
    match first {
        Empty::ARGUMENT => return Empty::serve(arguments.len() > 1).await,
        cache::ARGUMENT => return cache::measure(&arguments[1..]),
        trace::ARGUMENT => return trace::replay(&arguments[1..]),
        _ => {}
    }
    let is_chosen = |name: &str| arguments.is_empty() || arguments.iter().any(|word| name.contains(&**word));
    if is_chosen("connections") {
        load::connections().await;
    }
    if is_chosen("depth") {
        load::depth().await;
    }
    if is_chosen("writes") {
        writes::run().await;
    }
    if is_chosen("facts") {
        cache::run();
    }
    if is_chosen("trace") {
        trace::run();
    }
}

/// Starts this program again with these arguments. Returns the numbers that it prints, line by line.
fn child(arguments: &[&str]) -> Vec<Vec<f64>> {
    let program = env::current_exe().expect("this program has a path");
    let mut command = std::process::Command::new(program);
    let output = command.args(arguments).stderr(std::process::Stdio::inherit()).output().expect("this program runs");
    assert!(output.status.success(), "{arguments:?} failed");
    let numbers = |line: &str| line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    String::from_utf8_lossy(&output.stdout).lines().map(numbers).collect()
}

/// The resident memory of this process, in bytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this bench runs on Linux");
    let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has a resident size");
    let kibibytes: f64 = size.trim().trim_end_matches(" kB").parse().expect("the size is a number");
    kibibytes * 1_024.0
}
