//! Several instances over one database and one Redis, each with clients of its own, as if each were a process.
//!
//! Harms nothing by itself: the Redis is the test's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bson::Document;
use mongodb::Database;
use permcached::{
    app::{App, Sharing},
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
    servers::mongo,
};

/// How long a fleet may take for what it does by itself.
const PATIENCE: Duration = Duration::from_secs(45);

/// An instance, and what it asked MongoDB.
pub struct Instance {
    pub live: Live,
    pub monitor: Monitor,
}

/// Some instances.
pub struct Fleet {
    pub schema: Arc<Schema>,
    /// As the test itself sees it.
    pub database: Database,
    pub instances: Vec<Instance>,
    urls: String,
    settings: Settings,
}

impl Fleet {
    /// So many instances over a database with these documents, and over the Redis of this URL.
    pub async fn new(count: usize, url: &str, text: &str, collections: &[(&str, Vec<Document>)]) -> Self {
        Self::with(count, url, text, collections, Settings::default()).await
    }

    /// As [`Fleet::new`], with these bounds.
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

    /// One more instance starts.
    pub async fn join(&mut self) -> &Instance {
        let instance = self.start(Arc::clone(&self.schema), &self.urls).await;
        self.instances.push(instance);
        self.instances.last().expect("one was pushed")
    }

    /// An instance by another schema, or by another URL, that is none of these.
    pub async fn start(&self, schema: Arc<Schema>, urls: &str) -> Instance {
        let server = Server::parse(urls).expect("a URL of the test's own");
        self.start_over(schema, async |schema, mongodb| {
            Sharing::over(server, schema, mongodb).await.expect("mongod answers")
        })
        .await
    }

    /// An instance that shares this with others.
    pub async fn start_over(
        &self,
        schema: Arc<Schema>,
        sharing: impl AsyncFnOnce(&Schema, &MongoDb) -> Sharing,
    ) -> Instance {
        let monitor = Monitor::default();
        let name = format!("fleet-{}-{}", self.database.name(), fastrand::u32(..));
        let database = monitor.client(mongo(), &name).await.database(self.database.name());
        let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.expect("mongod answers");
        let sharing = sharing(&schema, &source).await;
        let app = App::over_mongodb(Arc::clone(&schema), source, self.settings, Some(sharing));
        Instance { live: Live::start(schema, database, app).await, monitor }
    }

    /// Each of the instances.
    pub fn each(&self) -> impl Iterator<Item = &Live> {
        self.instances.iter().map(|instance| &instance.live)
    }

    /// Waits until each instance answers from memory, and that this.
    pub async fn remember(&self, question: &Question, wanted: &str) {
        for live in self.each() {
            let answer = live.remembers(question).await;
            assert_eq!(super::both::shown(&live.schema, answer), wanted, "before: {question:?}");
        }
    }

    /// Waits until each instance has heard of everything up to a moment, and then answers this from what it has.
    pub async fn notice(&self, moment: Moment, question: &Question, wanted: &str) {
        for live in self.each() {
            live.heard(moment).await;
            assert_eq!(
                live.says(question, permcached::check::Consistency::MinimizeLatency).await,
                wanted,
                "when heard"
            );
            assert_eq!(live.says(question, at_least(moment)).await, wanted, "by the moment");
        }
    }

    /// How many of the instances follow MongoDB by themselves, over some rounds of what a stream is asked.
    pub async fn followers(&self) -> usize {
        self.instances.iter().for_each(|instance| drop(instance.monitor.take()));
        // A stream is asked ten times a second.
        sleep(Duration::from_millis(500)).await;
        let follows = |instance: &&Instance| !commands(&instance.monitor.take(), "getMore").is_empty();
        self.instances.iter().filter(follows).count()
    }

    /// Waits until so many of the instances follow MongoDB by themselves.
    pub async fn until_followed_by(&self, count: usize) {
        let settled = async { while self.followers().await != count {} };
        timeout(PATIENCE, settled).await.unwrap_or_else(|_| panic!("not {count} of them follow MongoDB"));
    }

    /// Waits until the bus tells each instance all that changes.
    pub async fn until_told(&self) {
        until(|| self.each().all(|live| live.app.bus.covers_all_changes())).await;
    }
}
