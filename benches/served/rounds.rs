//! A round of calls, and its figures.

use std::time::Duration;

use super::{
    client::{Calls, Connections},
    servers::Server,
};

/// How many rounds each case has; servers that are compared take turns.
const ROUNDS: usize = 3;

/// The length of a round.
const ROUND_TIME: Duration = Duration::from_millis(1_500);

/// How long a case runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(300);

/// The figures of one round.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    /// The server's processor time in user code, in microseconds for each call.
    pub(crate) user: f64,
    /// The same in the system.
    pub(crate) system: f64,
    pub(crate) calls_a_second: f64,
    /// Microseconds from a call to its answer.
    pub(crate) median: f64,
    pub(crate) p99: f64,
}

impl Round {
    /// The server's processor time, in microseconds for each call.
    pub(crate) fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// Calls to make at a server.
pub(crate) struct Side<'a> {
    pub(crate) server: &'a Server,
    pub(crate) connections: Connections,
    pub(crate) calls: Calls,
}

impl<'a> Side<'a> {
    pub(crate) async fn new(server: &'a Server, connections: usize, calls: Calls) -> Self {
        Self { server, connections: Connections::open(server, connections).await, calls }
    }

    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) async fn round(&self, streams: usize, time: Duration) -> Round {
        let before = self.server.cpu();
        let mut times = self.connections.call_for(&self.calls, streams, time).await;
        let after = self.server.cpu();
        times.sort_unstable();
        let calls = times.len() as f64;
        let total = after.total.saturating_sub(before.total).as_secs_f64() * 1e6 / calls;
        let (user, system) = (after.user_ticks - before.user_ticks, after.system_ticks - before.system_ticks);
        let user = total * user / (user + system).max(1.0);
        let at = |share: usize| times[times.len() * share / 100] as f64 / 1_000.0;
        let calls_a_second = calls / time.as_secs_f64();
        Round { user, system: total - user, calls_a_second, median: at(50), p99: at(99) }
    }
}

/// Measures each side, in turns, so that other load on the machine affects all. Returns the middle round of each, by processor
/// time.
pub(crate) async fn measure<const SIDES: usize>(sides: [&Side<'_>; SIDES], streams: usize) -> [Round; SIDES] {
    let mut rounds = [const { Vec::new() }; SIDES];
    for number in 0..=ROUNDS {
        for (side, rounds) in sides.iter().zip(&mut rounds) {
            let round = side.round(streams, if number == 0 { WARM_UP } else { ROUND_TIME }).await;
            if number > 0 {
                rounds.push(round);
            }
        }
    }
    rounds.map(|mut rounds| {
        rounds.sort_unstable_by(|a, b| a.cpu().total_cmp(&b.cpu()));
        rounds.swap_remove(rounds.len() / 2)
    })
}
