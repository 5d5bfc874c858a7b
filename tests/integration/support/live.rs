//! A running application over a database of its own, with its background tasks: probes and the change stream.
//!
//! Runs in the process of the tests and serves no port: `service` does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bson::{Bson, Document, doc};
use mongodb::Database;
use permcached::{
    app::{App, ChangesFrom, Parts, assemble},
    check::{CheckError, Checked, Consistency, Settings},
    freshness::{Clock, Moment, Token},
    question::{Answer, Question},
    schema::Schema,
    source::{Deadline, Source as _, mongodb::MongoDb},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    both::{TIME_MAX, counted, fill, found_in, question, shown},
    controlled::ControlledSource,
    monitored::Monitor,
    servers::mongo,
};

/// How long tests wait for a condition. Most conditions hold at once, and the slowest after some seconds.
const PATIENCE: Duration = Duration::from_secs(45);

/// How long the Redis writer may take for the facts of one request.
const SETTLING: Duration = Duration::from_secs(3);

/// A running application.
pub struct Live {
    pub schema: Arc<Schema>,
    pub database: Database,
    pub app: App,
    /// The floor after the start.
    pub first_floor: Moment,
    _tasks: JoinSet<()>,
}

impl Live {
    /// Over a database with these documents.
    pub async fn new(schema: &str, collections: &[(&str, Vec<Document>)]) -> Self {
        Self::with(schema, collections, Settings::default()).await
    }

    /// Like [`Live::new`], with these settings.
    pub async fn with(schema: &str, collections: &[(&str, Vec<Document>)], settings: Settings) -> Self {
        let (schema, database) = filled(schema, collections).await;
        Self::over(schema, database, settings).await
    }

    /// Like [`Live::with`], by a client of this name, whose commands can be made to fail without others.
    pub async fn named(
        app_name: &str,
        schema: &str,
        collections: &[(&str, Vec<Document>)],
        settings: Settings,
    ) -> (Self, Monitor) {
        let (schema, database) = filled(schema, collections).await;
        let monitor = Monitor::default();
        let client = monitor.client(mongo(), app_name).await;
        (Self::over(schema, client.database(database.name()), settings).await, monitor)
    }

    /// Over an existing database.
    pub async fn over(schema: Arc<Schema>, database: Database, settings: Settings) -> Self {
        let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.expect("mongod answers");
        Self::over_source(schema, database, source, settings).await
    }

    /// Like [`Live::named`], after a look at some documents, which the service does in the background.
    pub async fn surveyed(
        app_name: &str,
        schema: &str,
        collections: &[(&str, Vec<Document>)],
        settings: Settings,
    ) -> Self {
        let (schema, database) = filled(schema, collections).await;
        let client = Monitor::default().client(mongo(), app_name).await;
        let database = client.database(database.name());
        let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.expect("mongod answers");
        source.survey().await;
        Self::over_source(schema, database, source, settings).await
    }

    async fn over_source(schema: Arc<Schema>, database: Database, source: MongoDb, settings: Settings) -> Self {
        let identity = source.identity().await.ok().map(|identity| identity.fingerprint());
        let app = assemble(Parts { settings, identity, ..Parts::over_mongodb(Arc::clone(&schema), source) });
        Self::start(schema, database, app).await
    }

    /// Over MongoDB behind a gate, which is open.
    pub async fn gated(schema: &str, collections: &[(&str, Vec<Document>)]) -> (Self, Arc<ControlledSource>) {
        let (schema, database) = filled(schema, collections).await;
        let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.expect("mongod answers");
        let source = Arc::new(source);
        let gate = Arc::new(ControlledSource::over(&schema, Arc::<MongoDb>::clone(&source)));
        let changes = ChangesFrom::ChangeStream(source);
        let parts = Parts::new(Arc::clone(&schema), Arc::<ControlledSource>::clone(&gate));
        let app = assemble(Parts { changes, ..parts });
        (Self::start(schema, database, app).await, gate)
    }

    /// Starts an application that the test has assembled.
    pub async fn start(schema: Arc<Schema>, database: Database, mut app: App) -> Self {
        let tasks = app.start().await.expect("mongod answers the first probe");
        let first_floor = app.freshness.floor();
        Self { schema, database, app, first_floor, _tasks: tasks }
    }

    /// A question from text.
    pub fn question(&self, subject: &str, permission: &str, resource: &str) -> Question {
        question(&self.schema, subject, permission, resource)
    }

    /// The result of a check.
    pub async fn ask(&self, question: &Question, consistency: Consistency) -> Result<Checked, CheckError> {
        let questions = std::slice::from_ref(question);
        self.app.checker.check(questions, consistency, Deadline::after(TIME_MAX)).await.remove(0)
    }

    /// The answer to a question, as text.
    pub async fn answer(&self, question: &Question, consistency: Consistency) -> String {
        match self.ask(question, consistency).await {
            Ok(checked) => shown(&self.schema, checked.answer),
            Err(error) => format!("error: {error}"),
        }
    }

    /// Asks with the default consistency until the answer comes from memory alone. From then on, only change batches and hints
    /// change it.
    pub async fn until_cached(&self, question: &Question) -> Answer {
        use permcached::question::Tier;
        let cached = async {
            loop {
                let checked = self.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
                if checked.tier == Tier::Memory {
                    return checked.answer;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, cached).await.expect("the facts are cached in the end")
    }

    /// The result of a check with an empty memory, after the Redis writer has handled all facts that the check read.
    pub async fn ask_anew(&self, question: &Question, consistency: Consistency) -> Result<Checked, CheckError> {
        self.app.memory.clear();
        let read = || found_in(&self.app.metrics, "source");
        let before = [read(), self.handled()];
        let checked = self.ask(question, consistency).await;
        let is_settled = || self.handled() - before[1] >= read() - before[0];
        let _where_it_can = timeout(SETTLING, until(is_settled)).await;
        checked
    }

    /// How many facts the Redis writer has written or given up, for any reason.
    pub fn handled(&self) -> u64 {
        let metrics = self.app.metrics.render();
        let unwritten = metrics.lines().filter(|line| line.starts_with("permcached_redis_facts_unwritten_total{"));
        let values = unwritten.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()));
        self.written() + values.map(|value| value.expect("a counter's value")).sum::<u64>()
    }

    /// How many facts were written to Redis.
    pub fn written(&self) -> u64 {
        counted(&self.app.metrics, "permcached_redis_facts_written_total")
    }

    /// Loads both facts of a question until Redis has them, and returns the latest moment they are as of. An instance that has
    /// applied everything up to that moment can find them in Redis.
    pub async fn fills(&self, question: &Question) -> Moment {
        let there = || self.written() + found_in(&self.app.metrics, "redis");
        let filled = async {
            let mut latest = Moment::default();
            loop {
                let before = there();
                let checked = self.ask_anew(question, Consistency::MinimizeLatency).await.expect("an answer");
                latest = latest.max(checked.as_of.moment);
                if there() >= before + 2 {
                    return latest;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        in_the_end(filled).await
    }

    /// Waits until every change up to a moment has been applied.
    pub async fn until_applied(&self, moment: Moment) {
        until(|| self.app.freshness.watermark() >= moment).await;
    }

    /// Runs a command, and returns the moment of its effect.
    pub async fn run(&self, command: Document) -> Moment {
        operation_time(&self.database.run_command(command).await.expect("the command is right"))
    }

    /// Runs a command on `admin`, and returns the moment of its effect.
    pub async fn administer(&self, command: Document) -> Moment {
        let admin = self.database.client().database("admin");
        operation_time(&admin.run_command(command).await.expect("the command is right"))
    }

    /// Waits until a fail point has stopped a find in a collection.
    pub async fn find_stopped(&self, collection: &str) {
        let command = doc! { "currentOp": 1, "ns": self.full_name(collection), "failpointMsg": { "$exists": true } };
        let admin = self.database.client().database("admin");
        let stopped = async {
            loop {
                let operations = admin.run_command(command.clone()).await.expect("the command is right");
                if operations.get_array("inprog").is_ok_and(|operations| !operations.is_empty()) {
                    return;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, stopped).await.expect("a find is stopped in the end");
    }

    /// The moment of the last transaction that changed a collection.
    pub async fn transaction_time(&self, collection: &str) -> Moment {
        let oplog = self.database.client().database("local").collection::<Document>("oplog.rs");
        let of_collection = doc! { "o.applyOps.ns": self.full_name(collection) };
        let found = oplog.find_one(of_collection).sort(doc! { "$natural": -1 }).await;
        let time = found.expect("an answer").expect("there was one").get_timestamp("ts").expect("entries have times");
        Moment::new(time.time, time.increment)
    }

    /// A collection's full name.
    pub fn full_name(&self, collection: &str) -> String {
        format!("{}.{collection}", self.database.name())
    }

    /// Inserts documents, and returns the moment of that.
    pub async fn insert(&self, collection: &str, documents: Vec<Document>) -> Moment {
        self.run(doc! { "insert": collection, "documents": documents }).await
    }

    /// Deletes one document that matches, and returns the moment of that.
    pub async fn delete(&self, collection: &str, filter: Document) -> Moment {
        self.run(doc! { "delete": collection, "deletes": [{ "q": filter, "limit": 1 }] }).await
    }

    /// Updates one document that matches, and returns the moment of that.
    pub async fn update(&self, collection: &str, filter: Document, update: impl Into<Bson>) -> Moment {
        let updates = vec![doc! { "q": filter, "u": update.into(), "multi": false }];
        self.run(doc! { "update": collection, "updates": updates }).await
    }
}

/// A schema, and a new database with these documents.
async fn filled(schema: &str, collections: &[(&str, Vec<Document>)]) -> (Arc<Schema>, Database) {
    let schema = Arc::new(super::both::schema("live.toml", schema));
    let database = mongo().database().await;
    let collections: BTreeMap<String, Vec<Document>> =
        collections.iter().map(|(name, documents)| ((*name).to_owned(), documents.clone())).collect();
    fill(&database, &schema, &collections).await;
    (schema, database)
}

/// Waits until a condition holds.
pub async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    in_the_end(holds).await;
}

/// The result of a future that may take as long as [`until`] waits.
pub async fn in_the_end<T>(something: impl Future<Output = T>) -> T {
    timeout(PATIENCE, something).await.expect("it happens in the end")
}

/// Attempts something until it succeeds, ten times at most. For tests in which only a busy machine excuses a failure.
pub async fn in_one_attempt(attempt: impl AsyncFn() -> bool) {
    for _ in 0..10 {
        if attempt().await {
            return;
        }
    }
    panic!("no attempt succeeds");
}

/// The moment of a command's effect.
pub fn operation_time(reply: &Document) -> Moment {
    let time = reply.get_timestamp("operationTime").expect("a replica set reports the moment");
    Moment::new(time.time, time.increment)
}

/// The consistency that shows everything up to a moment.
pub fn at_least(moment: Moment) -> Consistency {
    Consistency::AtLeastAsFresh(Token { clock: Clock::Cluster, moment })
}

/// Two applications over one database. Tests ask the first with the token of each change. The second only follows its change
/// stream, as the reads of the first do not affect it.
pub struct Two {
    pub first: Live,
    pub second: Live,
}

impl Two {
    pub async fn new(schema: &str, collections: &[(&str, Vec<Document>)]) -> Self {
        let first = Live::new(schema, collections).await;
        let (schema, database) = (Arc::clone(&first.schema), first.database.clone());
        let second = Live::over(schema, database, Settings::default()).await;
        Self { first, second }
    }

    /// Waits until both answer each question from memory, and asserts the answers.
    pub async fn until_cached(&self, answers: &[(&Question, &str)]) {
        for (question, expected) in answers {
            for live in [&self.first, &self.second] {
                let answer = live.until_cached(question).await;
                assert_eq!(shown(&live.schema, answer), *expected, "before: {question:?}");
            }
        }
    }

    /// After a change at this moment, asserts the answers of the first at once, with a token, and of the second once it has
    /// applied the change. Then both have them cached.
    pub async fn notice(&self, moment: Moment, answers: &[(&Question, &str)]) {
        for (question, expected) in answers {
            assert_eq!(self.first.answer(question, at_least(moment)).await, *expected, "with a token: {question:?}");
        }
        self.second.until_applied(moment).await;
        for (question, expected) in answers {
            assert_eq!(
                self.second.answer(question, Consistency::MinimizeLatency).await,
                *expected,
                "once applied: {question:?}"
            );
        }
        self.until_cached(answers).await;
    }
}
