//! A fleet: several instances over one database and one Redis, each with its own clients, as if each were a process.
//!
//! Injects no faults: the Redis belongs to the test.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bson::Document;
use mongodb::Database;
use permcached::{
    app::{Parts, Sharing, assemble},
    check::Settings,
    freshness::Moment,
    link::Server,
    question::Question,
    schema::Schema,
    source::mongodb::MongoDb,
};
use tokio::time::{sleep, timeout};

use super::{
    both::{fill, schema},
    live::{Live, at_least, until},
    monitored::{Monitor, commands},
    redis::secrets,
    servers::mongo,
};

/// How long a fleet may take to reach a state by itself.
const PATIENCE: Duration = Duration::from_secs(45);

/// An instance, and a monitor of its commands to MongoDB.
pub struct Instance {
    pub live: Live,
    pub monitor: Monitor,
}

/// Several instances.
pub struct Fleet {
    pub schema: Arc<Schema>,
    /// Through a client of the test's own.
    pub database: Database,
    pub instances: Vec<Instance>,
    urls: String,
    settings: Settings,
}

impl Fleet {
    /// Starts `count` instances over a new database with these documents, and over the Redis at `url`.
    pub async fn new(count: usize, url: &str, text: &str, collections: &[(&str, Vec<Document>)]) -> Self {
        Self::with(count, url, text, collections, Settings::default()).await
    }

    /// As [`Fleet::new`], with these settings.
    pub async fn with(
        count: usize,
        url: &str,
        text: &str,
        collections: &[(&str, Vec<Document>)],
        settings: Settings,
    ) -> Self {
        let schema = Arc::new(schema("fleet.toml", text));
        let database = mongo().database().await;
        let collections: BTreeMap<String, Vec<Document>> =
            collections.iter().map(|(name, documents)| ((*name).to_owned(), documents.clone())).collect();
        fill(&database, &schema, &collections).await;
        let mut fleet = Self { schema, database, instances: Vec::new(), urls: url.to_owned(), settings };
        for _ in 0..count {
            fleet.join().await;
        }
        fleet
    }

    /// Starts one more instance of the fleet.
    pub async fn join(&mut self) -> &Instance {
        let instance = self.start(Arc::clone(&self.schema), &self.urls).await;
        self.instances.push(instance);
        self.instances.last().expect("one was pushed")
    }

    /// Starts an instance with another schema or other URLs. It does not join the fleet.
    pub async fn start(&self, schema: Arc<Schema>, urls: &str) -> Instance {
        let server = Server::parse(urls).expect("a URL of the test's own");
        self.start_sharing(schema, async |schema, mongodb| {
            Sharing::over(server, &secrets(), schema, &mongodb.identity().await.expect("mongod answers"))
        })
        .await
    }

    /// As [`Fleet::start`], with what the instance shares with others.
    pub async fn start_sharing(
        &self,
        schema: Arc<Schema>,
        sharing: impl AsyncFnOnce(&Schema, &MongoDb) -> Sharing,
    ) -> Instance {
        let monitor = Monitor::default();
        let name = format!("fleet-{}-{}", self.database.name(), fastrand::u32(..));
        let database = monitor.client(mongo(), &name).await.database(self.database.name());
        let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.expect("mongod answers");
        let sharing = sharing(&schema, &source).await;
        let parts = Parts::over_mongodb(Arc::clone(&schema), source);
        let app = assemble(Parts { sharing: Some(sharing), settings: self.settings, ..parts });
        Instance { live: Live::start(schema, database, app).await, monitor }
    }

    /// The instances.
    pub fn each(&self) -> impl Iterator<Item = &Live> {
        self.instances.iter().map(|instance| &instance.live)
    }

    /// Waits until each instance answers the question from memory, and asserts its answer.
    pub async fn until_cached(&self, question: &Question, wanted: &str) {
        for live in self.each() {
            let answer = live.until_cached(question).await;
            assert_eq!(super::both::shown(&live.schema, answer), wanted, "from memory: {question:?}");
        }
    }

    /// Waits until each instance has applied every change up to a moment, and asserts its answers after that.
    pub async fn until_applied(&self, moment: Moment, question: &Question, wanted: &str) {
        for live in self.each() {
            live.until_applied(moment).await;
            assert_eq!(
                live.answer(question, permcached::check::Consistency::MinimizeLatency).await,
                wanted,
                "once the change is applied"
            );
            assert_eq!(live.answer(question, at_least(moment)).await, wanted, "at least as fresh as the change");
        }
    }

    /// How many of the instances run a change stream: those that ask MongoDB for events within half a second.
    pub async fn followers(&self) -> usize {
        self.instances.iter().for_each(|instance| drop(instance.monitor.take()));
        // A stream asks ten times a second.
        sleep(Duration::from_millis(500)).await;
        let follows = |instance: &&Instance| !commands(&instance.monitor.take(), "getMore").is_empty();
        self.instances.iter().filter(follows).count()
    }

    /// Waits until exactly `count` of the instances run a change stream.
    pub async fn until_followed_by(&self, count: usize) {
        let settled = async { while self.followers().await != count {} };
        timeout(PATIENCE, settled).await.unwrap_or_else(|_| panic!("it is not {count} instances that follow MongoDB"));
    }

    /// Waits until the bus delivers every change to each instance.
    pub async fn until_bus_covers_all(&self) {
        until(|| self.each().all(|live| live.app.bus.covers_all_changes())).await;
    }
}
