//! The honest caller: one connection, and one check every two milliseconds. And the platform, which probes both ports.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use h2::client::SendRequest;
use tokio::{
    runtime::Runtime,
    time::{sleep, timeout},
};

use super::{
    aim::Aim,
    client::{CHECK, VICTIM_SECRET, call, connect, request},
    messages, open,
};

/// The time between two checks.
const INTERVAL: Duration = Duration::from_millis(2);

/// How long to wait for the last answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// The latencies of some time, in milliseconds.
pub(crate) struct Latencies {
    pub(crate) p99: f64,
    /// How many checks had no right answer.
    pub(crate) errors: usize,
    /// How many requests for a page, to either port, were not answered within a second.
    pub(crate) failed_probes: usize,
    /// The statuses and errors that checks got instead.
    pub(crate) instead: String,
}

/// The honest caller.
pub(crate) struct Victim {
    runtime: Runtime,
    client: SendRequest<Bytes>,
    address: SocketAddr,
    probes: SocketAddr,
}

impl Victim {
    pub(crate) fn connect(address: SocketAddr, probes: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let client = runtime.block_on(connect(address)).expect("a connection");
        Self { runtime, client, address, probes }
    }

    /// Sends checks for this time, whether or not earlier ones have been answered.
    pub(crate) fn ask_for(&self, time: Duration) -> Latencies {
        let message = messages::grpc(&messages::check());
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let instead = Aim::new(self.address);
        let failed_probes = Arc::new(AtomicUsize::new(0));
        let probing = self.runtime.spawn(probe([self.address, self.probes], Arc::clone(&failed_probes)));
        let began = Instant::now();
        let mut sent = 0;
        loop {
            let due = INTERVAL * sent;
            if due >= time {
                break;
            }
            let due = began + due;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let request = request(self.address, CHECK, VICTIM_SECRET);
            let (client, message, latencies) = (self.client.clone(), message.clone(), Arc::clone(&latencies));
            let instead = instead.clone();
            self.runtime.spawn(async move {
                match call(&client, request, message).await {
                    Ok(Ok(())) => latencies.lock().expect("nobody panics").push(due.elapsed()),
                    Ok(Err(code)) => instead.count(&code),
                    Err(error) => instead.count(&error.to_string()),
                }
            });
            sent += 1;
        }
        let sent = usize::try_from(sent).expect("few");
        let until = Instant::now() + PATIENCE;
        while latencies.lock().expect("nobody panics").len() < sent && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        probing.abort();
        let mut latencies = latencies.lock().expect("nobody panics").clone();
        let errors = sent - latencies.len();
        // A check without an answer counts as one that took as long as this waited.
        latencies.resize(sent, PATIENCE);
        latencies.sort_unstable();
        let p99 = latencies.get(sent * 99 / 100).expect("checks were sent");
        Latencies {
            p99: p99.as_secs_f64() * 1_000.0,
            errors,
            failed_probes: failed_probes.load(Ordering::Relaxed),
            instead: instead.summary(),
        }
    }
}

/// Asks both ports for each page ten times a second, and counts what fails.
async fn probe(ports: [SocketAddr; 2], failed: Arc<AtomicUsize>) {
    loop {
        for address in ports {
            for path in ["/healthz", "/readyz", "/metrics"] {
                if timeout(Duration::from_secs(1), open::get(address, path)).await != Ok(true) {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}
