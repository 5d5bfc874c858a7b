//! Compares permcached with two other permission services, OpenFGA and SpiceDB: the same model, the same data, the same questions.
//! Every answer is compared first, and a difference fails the run. Then it measures checks a second and the server's processor
//! time, for single checks and in bulk, everything warm.
//!
//! The peers hold their data in memory, and their caches are on, large enough for everything, and keep their entries for the whole
//! run. permcached reads its data from documents in memory. Each service is a process of its own, and the client is the same.
//! `make bench-peers` builds the peers. Does not measure writes, nor anything cold.

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
#[path = "peers/openfga.rs"]
mod openfga;
#[path = "peers/permcached.rs"]
mod permcached_service;
#[path = "served/rounds.rs"]
mod rounds;
#[path = "served/servers.rs"]
mod servers;
#[path = "peers/spicedb.rs"]
mod spicedb;
#[path = "peers/world.rs"]
mod world;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use client::{Calls, Connections};
use rounds::{Round, Side, measure};
use servers::Server;
use world::{Question, World};

const CONNECTIONS: usize = 8;

/// How many questions one call in bulk has.
const BULK: usize = 100;

/// How many calls are open on each connection: single checks, and in bulk.
const STREAMS: [usize; 2] = [16, 2];

/// How many times as many checks a second permcached is to answer: single checks, and in bulk.
const TARGETS: [f64; 2] = [5.0, 20.0];

/// How long a peer may take to start.
const START_MAX: Duration = Duration::from_secs(30);

/// Makes a message, with its gRPC prefix.
type Message<Asked> = Box<dyn Fn(&Asked) -> Bytes>;

/// A service with the world's data, and how it is asked.
struct Service {
    name: &'static str,
    server: Server,
    /// The method for single checks, and that for many.
    methods: [&'static str; 2],
    check: Message<Question>,
    bulk: Message<[Question]>,
    read_check: fn(&[u8]) -> bool,
    read_bulk: fn(&[u8]) -> Vec<bool>,
}

impl Service {
    /// The calls for single checks, and those in bulk. Each answer must be the expected one, if they are known.
    fn calls(&self, questions: &[Question], expected: &[bool]) -> [Calls; 2] {
        let (read_check, read_bulk, name) = (self.read_check, self.read_bulk, self.name);
        let (of_check, of_bulk) = (expected.to_vec(), expected.to_vec());
        [
            Calls::new(self.methods[0], questions.iter().map(&self.check), move |number, message| {
                assert_eq!(read_check(message), of_check[number], "{name}: a wrong answer");
            }),
            Calls::new(self.methods[1], questions.chunks(BULK).map(&self.bulk), move |number, message| {
                let expected = of_bulk.chunks(BULK).nth(number).expect("a call that was made");
                assert_eq!(read_bulk(message), expected, "{name}: a wrong answer");
            }),
        ]
    }

    /// Asks every question, one by one and in bulk.
    async fn answers(&self, questions: &[Question]) -> [Vec<bool>; 2] {
        let connections = Connections::open(&self.server, 1).await;
        let [checks, bulk] = self.calls(questions, &[]);
        let checks = connections.answers(&checks).await.iter().map(|message| (self.read_check)(message)).collect();
        let bulk = connections.answers(&bulk).await.iter().flat_map(|message| (self.read_bulk)(message)).collect();
        [checks, bulk]
    }
}

/// The program that a variable names.
fn program(variable: &str) -> PathBuf {
    let path = env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: run `make bench-peers`"));
    PathBuf::from(path)
}

/// Starts a peer and waits until it listens. `arguments` returns its arguments for an address.
fn start(variable: &str, token: Option<&str>, arguments: impl Fn(SocketAddr) -> Vec<String>) -> Server {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let mut command = Command::new(program(variable));
    command.args(arguments(address)).stdout(Stdio::null()).stderr(Stdio::inherit());
    let server = Server::other(command, address, token.map(str::to_owned));
    let deadline = Instant::now() + START_MAX;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "{variable} does not listen");
        sleep(Duration::from_millis(50));
    }
    server
}

#[tokio::main]
async fn main() {
    let world = World::new();
    let directory = tempfile::tempdir().expect("a directory");
    let services = [
        permcached_service::start(&world, directory.path()),
        openfga::start(&world).await,
        spicedb::start(&world).await,
    ];
    let questions = world.questions();
    let mut expected: Option<Vec<bool>> = None;
    for service in &services {
        for answers in service.answers(&questions).await {
            let expected = expected.get_or_insert_with(|| answers.clone());
            assert_eq!(answers.len(), questions.len(), "{}: answers are missing", service.name);
            for ((question, answer), expected) in questions.iter().zip(&answers).zip(&*expected) {
                assert_eq!(answer, expected, "{} answers otherwise: {question:?}", service.name);
            }
        }
    }
    let expected = expected.expect("there are services");
    let allowed = expected.iter().filter(|answer| **answer).count();
    println!(
        "{} questions, {allowed} of them allowed: all services give the same answers, one by one and in bulk",
        questions.len()
    );
    println!(
        "\n{:<12} {:>10} {:>12} {:>9} {:>9} {:>8} {:>8}",
        "", "checks/s", "CPU µs each", "p50 µs", "p99 µs", "slower", "CPU"
    );
    let mut missed = Vec::new();
    for (kind, name) in ["single checks", "in bulk of 100"].into_iter().enumerate() {
        let mut sides = Vec::new();
        for service in &services {
            let [single, bulk] = service.calls(&questions, &expected);
            let calls = if kind == 0 { single } else { bulk };
            sides.push(Side::new(&service.server, CONNECTIONS, calls).await);
        }
        let rounds = measure([&sides[0], &sides[1], &sides[2]], STREAMS[kind]).await;
        println!("{name}");
        let each = if kind == 0 { 1.0 } else { f64::from(u32::try_from(BULK).expect("it is small")) };
        for (service, round) in services.iter().zip(&rounds) {
            missed.extend(print(service.name, name, round, &rounds[0], each, TARGETS[kind]));
        }
    }
    println!("\nTargets missed: {}", if missed.is_empty() { "none" } else { "" });
    for line in missed {
        println!("  {line}");
    }
}

/// Prints the figures of a service. Returns the target that is missed, if one is.
fn print(name: &str, kind: &str, round: &Round, own: &Round, each: f64, target: f64) -> Option<String> {
    let (slower, cpu) = (own.calls_a_second / round.calls_a_second, round.cpu() / own.cpu());
    println!(
        "{name:<12} {:>10.0} {:>12.2} {:>9.0} {:>9.0} {slower:>8.1} {cpu:>8.1}",
        round.calls_a_second * each,
        round.cpu() / each,
        round.median,
        round.p99
    );
    let is_missed = name != "permcached" && slower < target;
    is_missed.then(|| {
        format!(
            "{kind}: {slower:.1} times {name}'s checks/s (target {target}: MISSED by {:.0} %)",
            (target / slower - 1.0) * 100.0
        )
    })
}
