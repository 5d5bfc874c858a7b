//! Probes of a replica set in which every majority includes the primary: it writes its journal for them, by transactions that
//! only read. Probes are right whatever becomes of these.

use std::{sync::Arc, time::Instant};

use mongodb::{
    Client, Database,
    bson::{Document, Timestamp, doc},
    event::command::CommandEvent,
};
use permcached::source::{Deadline, Source as _, mongodb::MongoDb};

use crate::support::{
    both::{TIME_MAX, shipped_schema},
    monitored::{FailPoint, Monitor, commands, level},
    servers::{Mongo, mongo, secured_mongo},
};

/// How many transactions one probe commits at most.
const TRANSACTIONS_MAX: usize = 6;

/// How many probes are sent.
const PROBES: usize = 10;

/// A database by a client whose commands are recorded.
struct Probed {
    source: MongoDb,
    database: Database,
    monitor: Monitor,
}

impl Probed {
    async fn over(uri: &str, app_name: &str) -> Self {
        let monitor = Monitor::default();
        let database = monitor.client_of(uri, app_name).await.database("probed");
        let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
        let source = MongoDb::open(schema, database.clone()).await.expect("mongod answers");
        monitor.take();
        Self { source, database, monitor }
    }

    /// Probes, asserts that this was by a linearizable read, and returns the moment and all commands.
    async fn probe(&self) -> (Timestamp, Vec<CommandEvent>) {
        self.monitor.take();
        let moment = self.source.probe(Deadline::after(TIME_MAX)).await.expect("mongod answers");
        let events = self.monitor.take();
        let finds = commands(&events, "find");
        assert!(!finds.is_empty() && finds.iter().all(|find| level(find) == "linearizable"), "{finds:?}");
        (Timestamp { time: moment.seconds(), increment: moment.increment() }, events)
    }
}

fn failures(events: &[CommandEvent]) -> Vec<&CommandEvent> {
    events.iter().filter(|event| matches!(event, CommandEvent::Failed(_))).collect()
}

#[tokio::test]
async fn a_probe_does_not_wait_until_mongod_writes_its_journal_at_its_interval() {
    let server = Mongo::own_with(&["--journalCommitInterval", "500"]);
    let probed = Probed::over(&server.uri(), "journal-interval").await;
    let (mut sent, mut waited) = (0, 0);
    for number in (0_i32..).take(PROBES) {
        let concern = doc! { "w": 1, "j": false };
        let write = doc! { "insert": "written", "documents": [{ "_id": number }], "writeConcern": concern };
        let written = probed.database.run_command(write).await.expect("there is a primary");
        let (moment, events) = probed.probe().await;
        assert!(moment >= written.get_timestamp("operationTime").unwrap());
        let commits = commands(&events, "commitTransaction");
        sent += commits.len();
        waited += usize::from(commits.len() == TRANSACTIONS_MAX);
    }
    assert!(sent >= PROBES / 2);
    // With transactions that do not make mongod write its journal, nine of ten probes need more than all of them.
    assert!(waited < PROBES / 2, "{waited} of {PROBES} probes waited for the interval");
}

#[tokio::test]
async fn probes_write_nothing() {
    let server = Mongo::own();
    let probed = Probed::over(&server.uri(), "journal-nothing").await;
    let (begin, _) = probed.probe().await;
    let mut commits = 0;
    for _ in 0..PROBES {
        commits += commands(&probed.probe().await.1, "commitTransaction").len();
    }
    assert!(commits > 0);
    let oplog = probed.database.client().database("local").collection::<Document>("oplog.rs");
    // The entries that change nothing have the operation `n`. mongod itself writes to other databases.
    let written = doc! { "ts": { "$gt": begin }, "op": { "$ne": "n" }, "ns": { "$regex": "^probed" } };
    assert_eq!(oplog.find_one(written).await.expect("mongod answers"), None);
    assert!(probed.database.list_collection_names().await.expect("mongod answers").is_empty());
}

#[tokio::test]
async fn the_role_read_is_enough_for_a_probe_to_have_the_journal_written() {
    let admin = Client::with_uri_str(secured_mongo().uri()).await.expect("the URI is our own").database("admin");
    let user = doc! {
        "createUser": "journal_reader",
        "pwd": "pw",
        "roles": [{ "role": "read", "db": "probed" }],
        "mechanisms": ["SCRAM-SHA-256"],
    };
    admin.run_command(user).await.expect("the user is right");
    let uri = secured_mongo().uri_of("journal_reader", "pw", "admin");
    let probed = Probed::over(&uri, "journal-reader").await;
    let mut events = Vec::new();
    // Another client may have the journal written at the same time, so that a probe need not.
    for _ in 0..100 * PROBES {
        events.extend(probed.probe().await.1);
        if commands(&events, "commitTransaction").len() >= PROBES {
            break;
        }
    }
    assert!(commands(&events, "commitTransaction").len() >= PROBES);
    assert!(failures(&events).is_empty(), "{:?}", failures(&events));
}

#[tokio::test]
async fn a_probe_is_answered_although_the_transactions_fail_or_hang() {
    let hangs = doc! { "blockConnection": true, "blockTimeMS": 10_000 };
    let faults = [doc! { "errorCode": 13 }, doc! { "errorCode": 11_602 }, doc! { "closeConnection": true }, hangs];
    for command in ["distinct", "commitTransaction"] {
        for fault in &faults {
            // A source of its own, as no transactions follow on a refusal.
            let probed = Probed::over(&mongo().uri(), "journal-faults").await;
            let mut data = fault.clone();
            data.insert("failCommands", vec![command]);
            let point = FailPoint::on(mongo(), "journal-faults", "alwaysOn", data).await;
            let mut sent = 0;
            // Another client may have the journal written at the same time.
            for _ in 0..10 * PROBES {
                let (_, events) = probed.probe().await;
                sent += commands(&events, command).len();
                if sent > 0 {
                    break;
                }
            }
            assert!(sent > 0, "{command} {fault}");
            point.off().await;
        }
    }
}

#[tokio::test]
async fn after_a_refusal_no_more_transactions_are_sent_and_of_others_two_run_at_once() {
    let server = Mongo::own_with(&["--journalCommitInterval", "500"]);
    let probe_all = async |probed: &Probed| {
        let probes = (0..PROBES).map(|_| probed.source.probe(Deadline::after(TIME_MAX)));
        let moments = futures::future::join_all(probes).await;
        assert!(moments.iter().all(Result::is_ok), "{moments:?}");
        commands(&probed.monitor.take(), "distinct").len()
    };
    let probed = Probed::over(&server.uri(), "journal-refused").await;
    let data = doc! { "errorCode": 13, "failCommands": ["distinct"] };
    let point = FailPoint::on(&server, "journal-refused", "alwaysOn", data).await;
    // The command of a probe may be sent after the probe was answered.
    let (mut sent, mut more) = (0, 0);
    while more < 5 {
        sent += probe_all(&probed).await;
        more += usize::from(sent > 0);
    }
    assert!(sent <= 2, "{sent}: one is refused, and another may run");
    point.off().await;
    let probed = Probed::over(&server.uri(), "journal-hangs").await;
    let data = doc! { "blockConnection": true, "blockTimeMS": 10_000, "failCommands": ["commitTransaction"] };
    let point = FailPoint::on(&server, "journal-hangs", "alwaysOn", data).await;
    let began = Instant::now();
    let sent = probe_all(&probed).await;
    // Each is given up after a second.
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(sent <= 2 * (1 + seconds), "{sent} in {seconds} s");
    point.off().await;
}
