//! Measures what a call costs with warm caches, beside an empty tonic service with the same messages, in the same run: processor
//! time of the server for each call, calls a second, and latency.
//!
//! Each service is a process of its own, on the same machine as the client, which keeps several questions open on each
//! connection. They take turns, so that other load on the machine affects all. The client is as small as HTTP/2 allows,
//! because it uses the same processors. Processor time varies least on a busy machine, and is what the targets are about.
//!
//! Words after `--` choose the cases whose names contain one of them. Does not measure cold caches.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that cannot run panics with the reason, and prints its results"
)]

#[path = "served/calls.rs"]
mod calls;
#[path = "served/client.rs"]
mod client;
#[path = "served/servers.rs"]
mod servers;

use std::{collections::HashMap, env, time::Duration};

use calls::Call;
use client::Connections;
use servers::{Empty, Server};

/// The number of connections.
const CONNECTIONS: usize = 8;

/// How many rounds each case has, alternating with the same of the empty service.
const ROUNDS: usize = 3;

/// The length of a round.
const ROUND_TIME: Duration = Duration::from_millis(1_500);

/// How long a case runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(300);

/// A server's port: in the clear, and without tokens; or with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    Nothing,
    Token,
    TokenAndTls,
}

impl Security {
    const ALL: [Self; 3] = [Self::Nothing, Self::Token, Self::TokenAndTls];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Token => ", token",
            Self::TokenAndTls => ", token and TLS",
        }
    }
}

/// A call to measure, and how many of it are open at once on each connection.
struct Case {
    call: Call,
    streams: usize,
    security: Security,
    /// The most processor time of the server, as a multiple of the empty service's, or in microseconds for each question.
    target: Option<Target>,
}

#[derive(Clone, Copy)]
enum Target {
    Ratio(f64),
    Microseconds(f64),
}

/// All cases.
fn cases() -> Vec<Case> {
    let case = |call, streams, security, target| Case { call, streams, security, target };
    let mut cases = Vec::new();
    for security in Security::ALL {
        for streams in [1, 16, 128] {
            let target = if streams == 16 { 0.75 } else { 1.0 };
            cases.push(case(Call::Owner, streams, security, Some(Target::Ratio(target))));
            cases.push(case(Call::EightFolders, streams, security, None));
        }
        for (questions, most) in [(100, 16), (1_000, 4)] {
            for streams in [1, most] {
                cases.push(case(Call::Batch(questions), streams, security, Some(Target::Microseconds(0.7))));
            }
        }
    }
    cases
}

/// The figures of one round.
struct Round {
    /// In microseconds for each call.
    user: f64,
    system: f64,
    calls_a_second: f64,
    median: f64,
    p99: f64,
}

impl Round {
    fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "counts are far below 2^52")]
async fn round(server: &Server, connections: &Connections, call: Call, streams: usize, time: Duration) -> Round {
    let before = server.cpu();
    let mut times = connections.call_for(call, streams, time).await;
    let after = server.cpu();
    times.sort_unstable();
    let calls = times.len() as f64;
    let microseconds = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e6 / calls;
    let at = |share: usize| times[times.len() * share / 100] as f64 / 1_000.0;
    Round {
        user: microseconds(before.0, after.0),
        system: microseconds(before.1, after.1),
        calls_a_second: calls / time.as_secs_f64(),
        median: at(50),
        p99: at(99),
    }
}

/// The middle one by processor time.
fn middle(mut rounds: Vec<Round>) -> Round {
    rounds.sort_unstable_by(|a, b| a.cpu().total_cmp(&b.cpu()));
    rounds.swap_remove(rounds.len() / 2)
}

fn print(name: &str, streams: usize, round: &Round, remark: &str) {
    println!(
        "{name:<34} {streams:>8} {:>8.2} {:>8.2} {:>8.2} {:>10.0} {:>10.0} {:>10.0}  {remark}",
        round.cpu(),
        round.user,
        round.system,
        round.calls_a_second,
        round.median,
        round.p99
    );
}

#[tokio::main]
async fn main() {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench").peekable();
    if arguments.next_if(|first| first == Empty::ARGUMENT).is_some() {
        return Empty::serve(arguments.next().is_some()).await;
    }
    let words: Vec<String> = arguments.collect();
    let directory = tempfile::tempdir().expect("a directory");
    let mut servers = HashMap::new();
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10} {:>10}",
        "", "streams", "CPU µs", "user", "system", "calls/s", "p50 µs", "p99 µs"
    );
    let is_chosen = |case: &Case| {
        let name = format!("{}{}", case.call.name(), case.security.name());
        words.is_empty() || words.iter().any(|word| name.contains(&**word))
    };
    let mut missed = Vec::new();
    for case in cases().into_iter().filter(is_chosen) {
        let Case { call, streams, security, target } = case;
        let (empty, permcached) = servers.entry(security).or_insert_with(|| {
            (Server::empty(directory.path(), security), Server::permcached(directory.path(), security))
        });
        let to_empty = Connections::open(empty, CONNECTIONS).await;
        let to_permcached = Connections::open(permcached, CONNECTIONS).await;
        // The empty service has one call.
        let least = Call::Owner;
        let has_baseline = matches!(target, Some(Target::Ratio(_)));
        let (mut of_empty, mut of_permcached) = (Vec::new(), Vec::new());
        for number in 0..=ROUNDS {
            let time = if number == 0 { WARM_UP } else { ROUND_TIME };
            if has_baseline {
                of_empty.push(round(empty, &to_empty, least, streams, time).await);
            }
            of_permcached.push(round(permcached, &to_permcached, call, streams, time).await);
        }
        let drop_warm_up = |mut rounds: Vec<Round>| rounds.split_off(1.min(rounds.len()));
        let own = middle(drop_warm_up(of_permcached));
        let name = format!("{}{}", call.name(), security.name());
        let (remark, is_missed) = match target {
            None => (String::new(), false),
            Some(Target::Ratio(most)) => {
                let empty = middle(drop_warm_up(of_empty));
                print(&format!("empty service{}", security.name()), streams, &empty, "");
                let ratio = own.cpu() / empty.cpu();
                let rate = own.calls_a_second / empty.calls_a_second;
                (format!("{ratio:.2} x the empty service's CPU (target {most}), {rate:.2} x its calls/s"), ratio > most)
            }
            Some(Target::Microseconds(most)) => {
                let each = own.cpu() / f64::from(call.questions());
                (format!("{each:.2} µs a question (target {most})"), each > most)
            }
        };
        print(&name, streams, &own, &remark);
        if is_missed {
            missed.push(format!("{name}, {streams} streams: {remark}"));
        }
    }
    println!("\nbeyond the target: {}", if missed.is_empty() { "nothing" } else { "" });
    for line in missed {
        println!("  {line}");
    }
}
