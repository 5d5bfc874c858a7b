//! An application over a database of its own, with all that runs in the background: probes and the change stream.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bson::{Bson, Document, doc};
use mongodb::Database;
use permcached::{
    app::{App, ChangesFrom, Parts, assemble},
    check::{CheckError, Checked, Consistency, Settings},
    freshness::{Clock, Moment, Token},
    question::{Answer, Question},
    schema::Schema,
    source::{Deadline, mongodb::MongoDb},
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

/// How long a condition is waited for: most should come about at once, and the longest in some seconds.
const PATIENCE: Duration = Duration::from_secs(45);

/// How long Redis may take to be given what was read, or to be given up.
const SETTLING: Duration = Duration::from_secs(3);

/// A running application.
pub struct Live {
    pub schema: Arc<Schema>,
    pub database: Database,
    pub app: App,
    /// What counted for nothing when it started.
    pub first_floor: Moment,
    _tasks: JoinSet<()>,
}

impl Live {
    /// Over a database with these documents.
    pub async fn new(schema: &str, collections: &[(&str, Vec<Document>)]) -> Self {
        Self::with(schema, collections, Settings::default()).await
    }

    /// As [`Live::new`], with these bounds.
    pub async fn with(schema: &str, collections: &[(&str, Vec<Document>)], settings: Settings) -> Self {
        let (schema, database) = filled(schema, collections).await;
        Self::over(schema, database, settings).await
    }

    /// As [`Live::with`], by a client of this name: so that its commands alone can be made to fail.
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

    /// Over a database that is there already.
    pub async fn over(schema: Arc<Schema>, database: Database, settings: Settings) -> Self {
        let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.expect("mongod answers");
        let app = assemble(Parts { settings, ..Parts::over_mongodb(Arc::clone(&schema), source) });
        Self::start(schema, database, app).await
    }

    /// Over a gate that is open.
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

    /// An application that was put together by the test.
    pub async fn start(schema: Arc<Schema>, database: Database, mut app: App) -> Self {
        let tasks = app.start().await.expect("mongod says what time it is");
        let first_floor = app.freshness.floor();
        Self { schema, database, app, first_floor, _tasks: tasks }
    }

    /// A question in words.
    pub fn question(&self, subject: &str, permission: &str, resource: &str) -> Question {
        question(&self.schema, subject, permission, resource)
    }

    /// What is answered.
    pub async fn ask(&self, question: &Question, consistency: Consistency) -> Result<Checked, CheckError> {
        let questions = std::slice::from_ref(question);
        self.app.checker.check(questions, consistency, Deadline::after(TIME_MAX)).await.remove(0)
    }

    /// What is answered, in words.
    pub async fn says(&self, question: &Question, consistency: Consistency) -> String {
        match self.ask(question, consistency).await {
            Ok(checked) => shown(&self.schema, checked.answer),
            Err(error) => format!("error: {error}"),
        }
    }

    /// Asks with the default demand until the answer comes from memory alone: from then on only what is heard changes it.
    pub async fn remembers(&self, question: &Question) -> Answer {
        use permcached::question::Tier;
        let remembered = async {
            loop {
                let checked = self.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
                if checked.tier == Tier::Memory {
                    return checked.answer;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, remembered).await.expect("it is remembered in the end")
    }

    /// What is answered where nothing is remembered, once all that was read for it is written to Redis or given up.
    pub async fn ask_anew(&self, question: &Question, consistency: Consistency) -> Result<Checked, CheckError> {
        self.app.memory.clear();
        let read = || found_in(&self.app.metrics, "source");
        let before = [read(), self.handled()];
        let checked = self.ask(question, consistency).await;
        let is_settled = || self.handled() - before[1] >= read() - before[0];
        let _where_it_can = timeout(SETTLING, until(is_settled)).await;
        checked
    }

    /// How many facts were written to Redis, or could not be, for whichever reason.
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

    /// Has both facts of a question be written to Redis, unless it has them, and says as of when: who has heard that may
    /// find them there. Where Redis is too slow for that, again.
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

    /// Waits until the feed has said everything up to a moment.
    pub async fn heard(&self, moment: Moment) {
        until(|| self.app.freshness.watermark() >= moment).await;
    }

    /// Runs a command, and says the moment of what it did.
    pub async fn run(&self, command: Document) -> Moment {
        operation_time(&self.database.run_command(command).await.expect("the command is right"))
    }

    /// Runs a command of the whole server, and says the moment of what it did.
    pub async fn administer(&self, command: Document) -> Moment {
        let admin = self.database.client().database("admin");
        operation_time(&admin.run_command(command).await.expect("the command is right"))
    }

    /// Waits until a find in a collection stands at a fail point.
    pub async fn find_stands(&self, collection: &str) {
        let command = doc! { "currentOp": 1, "ns": self.full_name(collection), "failpointMsg": { "$exists": true } };
        let admin = self.database.client().database("admin");
        let stands = async {
            loop {
                let operations = admin.run_command(command.clone()).await.expect("the command is right");
                if operations.get_array("inprog").is_ok_and(|operations| !operations.is_empty()) {
                    return;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, stands).await.expect("a find comes there in the end");
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

    /// Puts documents in.
    pub async fn insert(&self, collection: &str, documents: Vec<Document>) -> Moment {
        self.run(doc! { "insert": collection, "documents": documents }).await
    }

    /// Takes one document out that matches.
    pub async fn delete(&self, collection: &str, filter: Document) -> Moment {
        self.run(doc! { "delete": collection, "deletes": [{ "q": filter, "limit": 1 }] }).await
    }

    /// Changes the documents that match.
    pub async fn update(&self, collection: &str, filter: Document, update: impl Into<Bson>) -> Moment {
        let updates = vec![doc! { "q": filter, "u": update.into(), "multi": false }];
        self.run(doc! { "update": collection, "updates": updates }).await
    }
}

/// A schema, and a database of its own with these documents.
async fn filled(schema: &str, collections: &[(&str, Vec<Document>)]) -> (Arc<Schema>, Database) {
    let schema = Arc::new(super::both::schema("live.toml", schema));
    let database = mongo().database().await;
    let collections: BTreeMap<String, Vec<Document>> =
        collections.iter().map(|(name, documents)| ((*name).to_owned(), documents.clone())).collect();
    fill(&database, &schema, &collections).await;
    (schema, database)
}

/// Waits until a condition comes about.
pub async fn until(condition: impl Fn() -> bool) {
    let comes_about = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    in_the_end(comes_about).await;
}

/// What comes of something that may take as long as [`until`] waits.
pub async fn in_the_end<T>(something: impl Future<Output = T>) -> T {
    timeout(PATIENCE, something).await.expect("it comes about in the end")
}

/// Attempts something until it succeeds, ten times at most: where only a machine that was too busy excuses a failure.
pub async fn in_one_attempt(attempt: impl AsyncFn() -> bool) {
    for _ in 0..10 {
        if attempt().await {
            return;
        }
    }
    panic!("no attempt succeeds");
}

/// When a command was done.
pub fn operation_time(reply: &Document) -> Moment {
    let time = reply.get_timestamp("operationTime").expect("a replica set says when");
    Moment::new(time.time, time.increment)
}

/// A demand for everything up to a moment.
pub fn at_least(moment: Moment) -> Consistency {
    Consistency::AtLeastAsFresh(Token { clock: Clock::Cluster, moment })
}

/// Two applications over one database: the first is asked by the moment of each change, the second only hears of them. So
/// that the first asks the source tells the second nothing.
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

    /// Asks both until they answer from memory, and that this.
    pub async fn remember(&self, answers: &[(&Question, &str)]) {
        for (question, wanted) in answers {
            for live in [&self.first, &self.second] {
                let answer = live.remembers(question).await;
                assert_eq!(shown(&live.schema, answer), *wanted, "before: {question:?}");
            }
        }
    }

    /// After a change: the first answers so at once, by its moment; the second, once it has heard of it. Then both remember
    /// that.
    pub async fn notice(&self, moment: Moment, answers: &[(&Question, &str)]) {
        for (question, wanted) in answers {
            assert_eq!(self.first.says(question, at_least(moment)).await, *wanted, "by the moment: {question:?}");
        }
        self.second.heard(moment).await;
        for (question, wanted) in answers {
            assert_eq!(
                self.second.says(question, Consistency::MinimizeLatency).await,
                *wanted,
                "when heard: {question:?}"
            );
        }
        self.remember(answers).await;
    }
}
