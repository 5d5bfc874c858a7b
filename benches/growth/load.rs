//! A served check by the number of connections, and by the depth of folders, beside the empty service.

use super::{
    STREAMS,
    calls::{Call, DEPTH_MAX},
    plot::{Panel, plot},
    rounds::{Round, Side, measure},
    servers::{Security, Server},
};

const CONNECTIONS: [u32; 3] = [1, 8, 64];

const DEPTHS: [u32; 6] = [0, 1, 2, 4, 8, DEPTH_MAX];

/// Measures the call on both services. Returns the round of the empty service, and that of permcached.
async fn both(empty: &Server, permcached: &Server, connections: usize, call: Call) -> [Round; 2] {
    let empty = Side::new(empty, connections, call.calls()).await;
    let own = Side::new(permcached, connections, call.calls()).await;
    measure([&empty, &own], STREAMS).await
}

fn print(name: &str, [empty, own]: [Round; 2]) {
    println!(
        "{name:<24} {:>9.2} {:>9.2} {:>6.2} {:>10.0} {:>10.0} {:>10.0} {:>10.0}",
        empty.cpu(),
        own.cpu(),
        own.cpu() / empty.cpu(),
        empty.calls_a_second,
        own.calls_a_second,
        empty.p99,
        own.p99
    );
}

fn heading(what: &str) {
    println!(
        "\n{what:<24} {:>9} {:>9} {:>6} {:>10} {:>10} {:>10} {:>10}",
        "CPU µs", "CPU µs", "ratio", "calls/s", "calls/s", "p99 µs", "p99 µs"
    );
    println!(
        "{:<24} {:>9} {:>9} {:>6} {:>10} {:>10} {:>10} {:>10}",
        "", "empty", "own", "", "empty", "own", "empty", "own"
    );
}

/// By the number of connections.
pub(crate) async fn connections() {
    let directory = tempfile::tempdir().expect("a directory");
    let empty = Server::empty(directory.path(), Security::Nothing);
    let permcached = Server::permcached(directory.path(), Security::Nothing);
    heading("Check, owner");
    let mut rounds = Vec::new();
    for connections in CONNECTIONS {
        let pair = both(&empty, &permcached, usize::try_from(connections).expect("a few"), Call::Owner).await;
        print(&format!("{connections} connections"), pair);
        rounds.push(pair);
    }
    let column = |of: &dyn Fn(&[Round; 2]) -> f64| rounds.iter().map(of).collect::<Vec<f64>>();
    let panel = |title: &str, of: &dyn Fn(&Round) -> f64| {
        Panel::of_steps(title, "connections, 16 calls open on each", CONNECTIONS.map(|count| count.to_string()))
            .line("empty tonic service", column(&|[empty, _]| of(empty)))
            .line("permcached", column(&|[_, own]| of(own)))
    };
    let panels = [
        panel("processor time of a Check, µs", &Round::cpu),
        panel("calls a second, thousands", &|round| round.calls_a_second / 1_000.0),
    ];
    plot("growth-connections", &panels);
}

/// By the depth of folders.
pub(crate) async fn depth() {
    let directory = tempfile::tempdir().expect("a directory");
    let empty = Server::empty(directory.path(), Security::Nothing);
    let permcached = Server::permcached(directory.path(), Security::Nothing);
    heading("Check");
    let (mut baseline, mut own) = (Vec::new(), Vec::new());
    for depth in DEPTHS {
        let pair = both(&empty, &permcached, 8, Call::Folders(depth)).await;
        print(&format!("{depth} folders deep"), pair);
        let [of_empty, of_own] = pair;
        baseline.push((f64::from(depth), of_empty.cpu()));
        own.push((f64::from(depth), of_own.cpu()));
    }
    let panel = Panel::new("processor time of a Check, µs", "folders between the file and the shared one")
        .points("empty tonic service", baseline)
        .points("permcached", own);
    plot("growth-depth", &[panel]);
}
