//! The start and the memory of the server.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    calls::Call,
    client::Connections,
    rounds::Side,
    servers::{Security, Server},
    verdict,
};

/// The word that chooses these figures on the command line.
pub(crate) const NAME: &str = "start and memory";

/// How often the server is started.
const STARTS: usize = 5;

/// How long batches are asked before the memory is read.
const LOAD: Duration = Duration::from_secs(5);

/// How long after its start the server is idle.
const IDLE: Duration = Duration::from_secs(1);

/// `CACHE_MAX_BYTES`: the default.
const BUDGET: f64 = 64.0 * 1_024.0 * 1_024.0;

const MB: f64 = 1e6;

/// Measures, prints, and returns the targets that are missed.
pub(crate) async fn run(directory: &Path) -> Vec<String> {
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let began = Instant::now();
        let server = Server::permcached(directory, Security::Nothing);
        let connections = Connections::open(&server, 1).await;
        connections.first_answer(&Call::Owner.calls()).await;
        starts.push(began.elapsed().as_secs_f64() * 1e3);
    }
    starts.sort_unstable_by(f64::total_cmp);
    let server = Server::permcached(directory, Security::Nothing);
    tokio::time::sleep(IDLE).await;
    let idle = server.memory();
    for (call, streams) in [(Call::Batch(1_000), 4), (Call::Batch(100), 16)] {
        Side::new(&server, super::CONNECTIONS, call.calls()).await.round(streams, LOAD).await;
    }
    let loaded = server.memory();
    println!();
    let mut missed = Vec::new();
    for (name, value, unit, most) in [
        ("start to first answer", starts[STARTS / 2], "ms", 200.0),
        ("idle RSS", idle / MB, "MB", 25.0),
        ("RSS after batches", loaded / MB, "MB", (1.3 * BUDGET / MB + 25.0).round()),
    ] {
        let line = format!("{name:<36} {value:>7.1} {unit} ({})", verdict(value, most));
        println!("{line}");
        if value > most {
            missed.push(line);
        }
    }
    missed
}
