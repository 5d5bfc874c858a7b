//! Writers: each changes the document of one register until the run ends, by plain MongoDB writes, and records its history.
//!
//! What a writer writes follows from its seed alone. When it writes does not: that depends on how fast the set
//! acknowledges.

use std::{sync::Arc, time::Duration};

use bson::{Document, doc};
use fastrand::Rng;
use mongodb::{ClientSession, Database};
use permcached::{freshness::Moment, question::Millis};
use tokio::time::{sleep, timeout};

use super::{
    kinds::PLACES,
    register::State,
    run::{Run, wall},
};
use crate::support::live::operation_time;

/// How long a write may take until it is sent again.
const WRITE_TIME: Duration = Duration::from_secs(3);

/// How long to wait before a write that failed is sent again.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest pause of a writer after a write.
const REST_MAX_MS: u64 = 400;

/// How many writes in a hundred follow the last one at once.
const WITHOUT_REST_PERCENT: u8 = 20;

/// How many writes in a hundred are the last in a transaction that changes many documents.
const IN_A_CROWD_PERCENT: u8 = 2;

/// How soon a grant ends if it ends during the run, in milliseconds.
const SOON_MS: std::ops::Range<Millis> = 100..2_000;

/// How soon the other grants end, in milliseconds.
const LATE_MS: Millis = 24 * 3_600 * 1_000;

/// The number before the first transaction number. The driver reuses sessions, whose numbers so far are low. The server
/// takes a write under a number that was used for a repetition, and acknowledges it without doing it.
const FIRST_NUMBER: i64 = 1 << 32;

/// Writes until the run ends.
pub async fn write(run: Arc<Run>, index: usize, database: Database) {
    let register = &run.registers[index];
    let mut rng = Rng::with_seed(run.seed.wrapping_add(index as u64));
    let mut session = Session::start(database).await;
    let mut state = State::ABSENT;
    let mut writes = 0;
    while !run.is_over() {
        writes += 1;
        let ends = if rng.u8(..100) < 15 { wall() + rng.i64(SOON_MS) } else { run.wall_begun + LATE_MS + writes };
        state = next(state, ends, &mut rng);
        let command = register.kind.command(register.number, state, rng.bool());
        let crowd = (rng.u8(..100) < IN_A_CROWD_PERCENT).then(|| register.kind.crowd_command(register.number));
        let begun = run.now();
        register.history().begin(state, begun);
        let (moment, repeats) = session.write_until_acknowledged(&command, crowd.as_ref()).await;
        let acknowledged = run.now();
        register.history().acknowledge(acknowledged, moment);
        run.set_last_written(index);
        run.tally().wrote(repeats);
        if rng.u8(..100) >= WITHOUT_REST_PERCENT {
            sleep(Duration::from_millis(rng.u64(..REST_MAX_MS))).await;
        }
    }
}

/// The next state: grants, moves, revokes or deletes. No state is written twice in a row, because `until` changes each
/// time.
fn next(state: State, until: Millis, rng: &mut Rng) -> State {
    let place = state.place.unwrap_or_else(|| rng.u8(..PLACES));
    let granted = State { place: Some(place), is_active: true, until };
    match rng.u8(..10) {
        0..4 => granted,
        4..7 => State { place: Some(rng.u8(..PLACES)), ..granted },
        7..9 => State { is_active: false, ..granted },
        _ => State::ABSENT,
    }
}

/// A writer's own session, with its transaction numbers. The server refuses a write whose number is lower than one that it
/// has seen. So an abandoned attempt that waits in the socket of a frozen node cannot take effect after a later attempt was
/// acknowledged. Without that, the recorded histories would be wrong.
struct Session {
    database: Database,
    session: ClientSession,
    number: i64,
}

impl Session {
    async fn start(database: Database) -> Self {
        let session = database.client().start_session().causal_consistency(false).await.expect("a session");
        Self { database, session, number: FIRST_NUMBER }
    }

    /// Returns the moment that covers the write, and how often it was sent again. With `crowd`, both are one transaction.
    async fn write_until_acknowledged(&mut self, command: &Document, crowd: Option<&Document>) -> (Moment, u64) {
        let mut repeats = 0;
        loop {
            self.number += 1;
            let attempt = timeout(WRITE_TIME, self.attempt(command, crowd)).await;
            if let Ok(Some(moment)) = attempt {
                return (moment, repeats);
            }
            repeats += 1;
            sleep(PAUSE).await;
        }
    }

    /// One attempt. Returns none if it is not known to have succeeded.
    async fn attempt(&mut self, command: &Document, crowd: Option<&Document>) -> Option<Moment> {
        let wait_ms = i64::try_from(WRITE_TIME.as_millis()).expect("it is small");
        let acknowledged = doc! { "writeConcern": { "w": "majority", "wtimeout": wait_ms } };
        let database = self.database.clone();
        let Some(crowd) = crowd else {
            return self.run(&database, command, acknowledged).await;
        };
        self.run(&database, crowd, doc! { "startTransaction": true, "autocommit": false }).await?;
        self.run(&database, command, doc! { "autocommit": false }).await?;
        let admin = database.client().database("admin");
        let commit = doc! { "commitTransaction": 1, "autocommit": false };
        self.run(&admin, &commit, acknowledged).await
    }

    /// Runs a command under the attempt's number.
    async fn run(&mut self, database: &Database, command: &Document, options: Document) -> Option<Moment> {
        let mut command = command.clone();
        command.extend(options);
        command.insert("txnNumber", self.number);
        let reply = database.run_command(command).session(&mut self.session).await.ok()?;
        let has_failed = reply.contains_key("writeErrors") || reply.contains_key("writeConcernError");
        (!has_failed).then(|| operation_time(&reply))
    }
}
