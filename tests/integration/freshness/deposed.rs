//! A node that was the primary and receives no writes any more. It still answers, and no answer relies on it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bson::{Document, doc};
use mongodb::{Client, Database};
use permcached::{
    app::{ChangesFrom, Parts, assemble},
    check::{CheckError, Consistency, Settings},
    freshness::Moment,
    question::Question,
    schema::Schema,
    source::{Deadline, Source, mongodb::MongoDb},
};

use super::{GUEST, NO_GRANT, SCHEMA, USER, file, id, reads, share, users};
use crate::support::{
    both::{fill, schema, shown},
    controlled::ControlledSource,
    live::{Live, in_the_end, operation_time},
    replica_set::ReplicaSet,
};

const BOUND: Duration = Duration::from_millis(900);

/// How long a read that cannot succeed may take.
const READ_TIME: Duration = Duration::from_secs(2);

/// The fail points that keep a node from receiving writes.
const STALLS: [&str; 2] = ["rsSyncApplyStop", "stopReplProducer"];

/// A guest's share of a file, in a replica set of three.
struct Guest {
    set: ReplicaSet,
    schema: Arc<Schema>,
    database: Database,
    /// The node that is deposed later.
    node: usize,
}

impl Guest {
    async fn new() -> Self {
        let set = ReplicaSet::start().await;
        let client = Client::with_uri_str(set.uri("guest")).await.expect("the URI is our own");
        let (database, schema) = (client.database("deposed"), Arc::new(schema("deposed.toml", SCHEMA)));
        let all = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
        fill(&database, &schema, &all.map(|(name, documents)| (name.to_owned(), documents)).into()).await;
        let node = set.primary().await;
        Self { set, schema, database, node }
    }

    /// The database by a client that follows the primary.
    async fn primary(&self) -> MongoDb {
        MongoDb::open(Arc::clone(&self.schema), self.database.clone()).await.expect("the primary answers")
    }

    /// The database by a client of the node that is deposed later.
    async fn deposed(&self) -> MongoDb {
        let database = self.set.database(self.node, self.database.name());
        MongoDb::open(Arc::clone(&self.schema), database).await.expect("the node answers")
    }

    /// An application that reads from `source` and has its change stream on `stream`. It has cached that the guest may read.
    async fn live(&self, source: Arc<dyn Source>, stream: MongoDb) -> (Live, Question) {
        let settings = Settings { staleness_max: BOUND, ..Settings::default() };
        let changes = ChangesFrom::ChangeStream(Arc::new(stream));
        let app = assemble(Parts { changes, settings, ..Parts::new(Arc::clone(&self.schema), source) });
        let live = Live::start(Arc::clone(&self.schema), self.database.clone(), app).await;
        let question = reads(&live, USER, 1);
        assert_eq!(shown(&live.schema, live.until_cached(&question).await), GUEST);
        (live, question)
    }

    /// How many streams were opened on the node so far. Nothing else is an aggregation.
    async fn opened_streams(&self) -> i64 {
        let node = self.set.database(self.node, "admin");
        let status = node.run_command(doc! { "serverStatus": 1 }).await.expect("the node answers");
        let commands = status.get_document("metrics").and_then(|metrics| metrics.get_document("commands"));
        let aggregations = commands.and_then(|commands| commands.get_document("aggregate"));
        aggregations.and_then(|aggregations| aggregations.get_i64("total")).expect("a count")
    }

    /// Makes the node step down, keeps it from receiving writes, and then deletes the share.
    async fn depose_and_revoke(&self) -> (Moment, Instant) {
        for stall in STALLS {
            self.set.fail(self.node, stall, "alwaysOn", doc! {}).await;
        }
        self.set.step_down(self.node).await;
        let _elected = self.set.primary_other_than(Some(self.node)).await;
        let delete = doc! {
            "delete": "shares",
            "deletes": [{ "q": { "_id": id(50) }, "limit": 1 }],
            "writeConcern": { "w": "majority" },
        };
        let deleted: Document = self.database.run_command(delete).await.expect("there is a primary");
        (operation_time(&deleted), Instant::now())
    }
}

/// Asks until the answer is not the grant any more, and asserts that this is within the bound.
async fn grant_ends_in_time(live: &Live, question: &Question, revoked: Instant) -> Result<String, CheckError> {
    loop {
        let asked = revoked.elapsed();
        match live.ask(question, Consistency::MinimizeLatency).await.map(|checked| shown(&live.schema, checked.answer))
        {
            Ok(answer) if answer == GUEST => assert!(asked <= BOUND, "allowed though asked {asked:?} after the write"),
            other => return other,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_relies_on_a_node_that_is_no_longer_the_primary() {
    let guest = Guest::new().await;
    let stream = guest.live(Arc::new(guest.primary().await), guest.deposed().await).await;
    // One node is asked for the time and another one for facts, as when the driver does not know yet which is primary.
    let split = ControlledSource::over(&guest.schema, Arc::new(guest.deposed().await));
    let split = split.with_time_of(Arc::new(guest.primary().await));
    let reads = guest.live(Arc::new(split), guest.deposed().await).await;
    let everything = guest.live(Arc::new(guest.deposed().await), guest.deposed().await).await;

    let (moment, revoked) = guest.depose_and_revoke().await;
    let opened = guest.opened_streams().await;
    // An instance that has only this node cannot probe, so it gives no answer.
    let (live, question) = &everything;
    let ended = grant_ends_in_time(live, question, revoked).await;
    assert!(matches!(ended, Err(CheckError::Unavailable(_) | CheckError::DeadlineExceeded)), "{ended:?}");
    // An instance that has its stream on this node sees that the watermark stays behind its probes.
    let (live, question) = &stream;
    assert_eq!(grant_ends_in_time(live, question, revoked).await.expect("the primary answers"), NO_GRANT);
    assert!(live.app.freshness.watermark() < moment, "the stream cannot report it");
    // An instance that reads from this node fails, as the node does not know the moment.
    let (live, question) = &reads;
    let asked = live.app.checker.check(
        std::slice::from_ref(question),
        Consistency::FullyConsistent,
        Deadline::after(READ_TIME),
    );
    let asked = asked.await.remove(0);
    assert!(matches!(asked, Err(CheckError::Unavailable(_) | CheckError::DeadlineExceeded)), "{asked:?}");

    // The node answers, but is behind. Both instances that can probe open their streams again and again.
    let opened_again = async {
        while guest.opened_streams().await < opened + 4 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    in_the_end(opened_again).await;
    for stall in STALLS {
        guest.set.fail(guest.node, stall, "off", doc! {}).await;
    }
    let (live, question) = &stream;
    live.until_applied(moment).await;
    assert_eq!(live.answer(question, Consistency::MinimizeLatency).await, NO_GRANT);
}
