//! Facts in Redis: a fact that one instance has read serves others, an instance uses no fact that does not count, and
//! answers stay right whatever happens to Redis (docs/freshness.md, point 10).
//!
//! Each instance has its own change stream. The bus over Redis is tested in `fleet`.

mod cluster;
mod filtered;
mod forged;
mod full;
mod observer;
mod outage;
mod requirements;
mod served;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bson::{doc, oid::ObjectId};
use mongodb::Database;
use permcached::{
    app::{Parts, Sharing, assemble},
    check::{Checked, Consistency},
    fact::{Fact, FactKey},
    facts::{ANSWER_TIME, SharedFacts, codec},
    freshness::Moment,
    link::{FORMAT, Link, Namespace, Server},
    question::{Id, LookupId, Question},
    schema::Schema,
    source::mongodb::MongoDb,
};
use tokio::time::sleep;

use crate::support::{
    both::{asked_of, fill, found_in, schema, shown},
    live::{Live, in_the_end, until},
    monitored::{Monitor, commands, level},
    redis::secrets,
    servers::mongo,
};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner_id" }
guest = { collection = "shares", by = "file_id", field = "user_id" }

[resource.file.permissions]
read = "owner | guest"
"#;

const USER: u8 = 101;
const OWNER: u8 = 100;
const FILE: u8 = 1;
const SHARE: u8 = 51;

const GUEST: &str = "allowed by file#guest";
const NO_GRANT: &str = "denied NO_GRANT";

fn id(number: u8) -> ObjectId {
    ObjectId::from_bytes([number; 12])
}

/// A database with 50 files, of which one is shared with the guest.
struct World {
    schema: Arc<Schema>,
    database: Database,
    /// The Redis of its instances.
    url: String,
}

/// An instance, and the monitor of its commands to MongoDB.
struct Instance {
    live: Live,
    link: Link,
    monitor: Monitor,
    namespace: Namespace,
    shared: Arc<SharedFacts>,
}

impl World {
    async fn new(url: &str) -> Self {
        let files = (1..=50).map(|number| doc! { "_id": id(number), "owner_id": id(OWNER) }).collect();
        let share = doc! { "_id": id(SHARE), "file_id": id(FILE), "user_id": id(USER) };
        Self::of(url, SCHEMA, [("files".to_owned(), files), ("shares".to_owned(), vec![share])]).await
    }

    /// A database with these documents.
    async fn of<const N: usize>(url: &str, text: &str, documents: [(String, Vec<bson::Document>); N]) -> Self {
        let schema = Arc::new(schema("shared.toml", text));
        let database = mongo().database().await;
        fill(&database, &schema, &BTreeMap::from(documents)).await;
        Self { schema, database, url: url.to_owned() }
    }

    /// An instance whose link is up.
    async fn join(&self) -> Instance {
        let instance = self.start().await;
        until(|| instance.link.is_up()).await;
        instance
    }

    /// An instance that has only begun to connect to Redis.
    async fn start(&self) -> Instance {
        let monitor = Monitor::default();
        let name = format!("shared-{}-{}", self.database.name(), fastrand::u32(..));
        let database = monitor.client(mongo(), &name).await.database(self.database.name());
        let source = MongoDb::open(Arc::clone(&self.schema), database.clone()).await.expect("mongod answers");
        let identity = source.identity().await.expect("mongod answers");
        let namespace = Namespace::new(&identity, self.schema.fingerprint(), FORMAT, &secrets());
        let link = Link::new(Arc::new(Server::parse(&self.url).expect("a URL of the test's own")), ANSWER_TIME);
        // Facts alone are shared: each instance follows MongoDB with a change stream of its own.
        let sharing = Some(Sharing { namespace: namespace.clone(), changes: None, facts: Some(link.clone()) });
        let app = assemble(Parts { sharing, ..Parts::over_mongodb(Arc::clone(&self.schema), source) });
        let shared = app.shared_facts.clone().expect("the clock is the cluster's");
        let live = Live::start(Arc::clone(&self.schema), database, app).await;
        Instance { live, link, monitor, namespace, shared }
    }

    fn lookup(&self, collection: &str) -> LookupId {
        self.schema.lookups().find(|(_, lookup)| &*lookup.collection == collection).expect("there is one").0
    }

    /// The key of a fact of a file: of the file itself or of its shares.
    fn key(&self, collection: &str, file: u8) -> FactKey {
        FactKey::whole(self.lookup(collection), Id::ObjectId([file; 12]))
    }

    /// The encoded fact that the file has no shares, without a code.
    fn no_share(&self, stamp: Moment) -> Vec<u8> {
        codec::encode(&self.schema, &Fact::absent(self.key("shares", FILE), stamp)).expect("it is small")
    }

    /// The question whether the guest may read a file.
    fn reads(&self, file: u8) -> Question {
        crate::support::both::question(
            &self.schema,
            &format!("user:{}", id(USER)),
            "read",
            &format!("file:{}", id(file)),
        )
    }
}

impl Instance {
    /// The answer with no fact cached in memory: as text, and whole.
    async fn answer_anew(&self, question: &Question, consistency: Consistency) -> (String, Checked) {
        let checked = self.live.ask_anew(question, consistency).await.expect("an answer");
        (shown(&self.live.schema, checked.answer), checked)
    }

    /// The same, after which the instance has applied everything up to the answer's moment: a next check may then use the
    /// facts from Redis.
    async fn answer_and_catch_up(&self, question: &Question) -> (String, Checked) {
        let (answer, checked) = self.answer_anew(question, Consistency::MinimizeLatency).await;
        self.live.until_applied(checked.as_of.moment).await;
        (answer, checked)
    }

    /// The key in Redis of a fact of a file.
    fn name(&self, world: &World, collection: &str, file: u8) -> Vec<u8> {
        self.namespace.names.fact(&world.key(collection, file))
    }

    /// The value of a counter.
    fn counter(&self, name: &str) -> u64 {
        let metrics = self.live.app.metrics.render();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0)
    }

    fn written(&self) -> u64 {
        self.live.written()
    }

    fn unwritten(&self, reason: &str) -> u64 {
        self.counter(&format!("permcached_redis_facts_unwritten_total{{reason=\"{reason}\"}}"))
    }

    /// How many facts Redis was asked for.
    fn asked(&self) -> u64 {
        asked_of(&self.live.app.metrics, "redis")
    }

    /// How many facts from Redis were used.
    fn used(&self) -> u64 {
        found_in(&self.live.app.metrics, "redis")
    }

    /// How many finds of documents there were since the last call.
    fn finds(&self) -> usize {
        commands(&self.monitor.take(), "find").iter().filter(|find| level(find) != "linearizable").count()
    }

    /// Waits until the facts of a file are in Redis. Returns the moment that they are as of.
    async fn fills(&self, question: &Question) -> Moment {
        self.live.fills(question).await
    }

    /// Asks again, each time with no fact in memory, until a condition holds: Redis may be too slow at first.
    async fn ask_until(&self, question: &Question, condition: impl Fn() -> bool) {
        let asking = async {
            while !condition() {
                self.answer_anew(question, Consistency::MinimizeLatency).await;
                sleep(Duration::from_millis(20)).await;
            }
        };
        in_the_end(asking).await;
    }

    /// The result of the first attempt in which Redis always answered in time: see [`in_time`].
    async fn in_time<T>(&self, attempt: impl AsyncFn() -> T) -> T {
        in_time(async || while_up(&self.link, attempt()).await).await
    }
}

/// The result of the first attempt that returns one. An attempt returns none if Redis did not answer in time, which
/// happens on a busy machine and is no error.
async fn in_time<T>(attempt: impl AsyncFn() -> Option<T>) -> T {
    let attempts = async {
        loop {
            if let Some(result) = attempt().await {
                return result;
            }
        }
    };
    in_the_end(Box::pin(attempts)).await
}

/// The result of a future if the link was up all the time that it ran. The link goes down whenever Redis does not answer
/// in time.
async fn while_up<T>(link: &Link, future: impl Future<Output = T>) -> Option<T> {
    let mut link = link.watch();
    link.wait_for(|up| *up).await.expect("there is a link");
    let result = future.await;
    let was_up = !link.has_changed().expect("there is a link");
    was_up.then_some(result)
}

/// Runs a command of raw bytes, on a connection of its own.
fn raw<T: redis::FromRedisValue>(url: &str, command: &[&[u8]]) -> T {
    let mut connection =
        redis::Client::open(url).and_then(|client| client.get_connection()).expect("Redis accepts connections");
    redis::cmd(std::str::from_utf8(command[0]).expect("a name"))
        .arg(&command[1..])
        .query(&mut connection)
        .expect("Redis runs the command")
}
