//! Facts in Redis: what one instance has read serves others, nothing there is believed that does not count, and whatever
//! becomes of Redis, answers stay right (design section 5, point 10).
//!
//! Each instance has its own change stream: that Redis carries statements too is another subject.

mod full;
mod requirements;
mod observer;
mod outage;
mod served;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bson::{doc, oid::ObjectId};
use mongodb::Database;
use permcached::{
    app::App,
    check::{Checked, Consistency, Settings},
    fact::{Fact, FactKey},
    facts::{ANSWER_TIME, SharedFacts, codec},
    freshness::Moment,
    link::{FORMAT, Link, Names, Server},
    question::{Id, LookupId, Question},
    schema::Schema,
    source::mongodb::MongoDb,
};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{
    both::{asked_of, fill, found_in, schema, shown},
    live::{Live, in_the_end, until},
    monitored::{Monitor, commands, level},
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

/// A database with one file, which is shared.
struct World {
    schema: Arc<Schema>,
    database: Database,
    /// Where its instances find Redis.
    url: String,
}

/// An instance, and what it asked MongoDB.
struct Instance {
    live: Live,
    link: Link,
    monitor: Monitor,
    names: Names,
    shared: Arc<SharedFacts>,
    _tasks: JoinSet<()>,
}

impl World {
    async fn new(url: &str) -> Self {
        let schema = Arc::new(schema("shared.toml", SCHEMA));
        let database = mongo().database().await;
        let files = (1..=50).map(|number| doc! { "_id": id(number), "owner_id": id(OWNER) }).collect();
        let share = doc! { "_id": id(SHARE), "file_id": id(FILE), "user_id": id(USER) };
        let documents = [("files".to_owned(), files), ("shares".to_owned(), vec![share])];
        fill(&database, &schema, &BTreeMap::from(documents)).await;
        Self { schema, database, url: url.to_owned() }
    }

    /// An instance whose link is up.
    async fn join(&self) -> Instance {
        let instance = self.start().await;
        until(|| instance.link.is_up()).await;
        instance
    }

    /// An instance that has only begun to reach for Redis.
    async fn start(&self) -> Instance {
        let monitor = Monitor::default();
        let name = format!("shared-{}-{}", self.database.name(), fastrand::u32(..));
        let database = monitor.client(mongo(), &name).await.database(self.database.name());
        let source = MongoDb::open(Arc::clone(&self.schema), database.clone()).await.expect("mongod answers");
        let identity = source.identity().await.expect("mongod answers");
        let names = Names::new(&identity, self.schema.fingerprint(), FORMAT);
        let link = Link::new(Arc::new(Server::parse(&self.url).expect("a URL of the test's own")), ANSWER_TIME);
        let mut app = App::over_mongodb(Arc::clone(&self.schema), source, Settings::default(), None);
        let (schema, metrics) = (Arc::clone(&self.schema), Arc::clone(&app.metrics));
        let (shared, writer) = SharedFacts::new(link.clone(), names.clone(), schema, metrics);
        app.checker = app.checker.sharing(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(link.clone().run(|_| ()));
        tasks.spawn(writer.run());
        let live = Live::start(Arc::clone(&self.schema), database, app).await;
        Instance { live, link, monitor, names, shared, _tasks: tasks }
    }

    fn lookup(&self, collection: &str) -> LookupId {
        self.schema.lookups().find(|(_, lookup)| &*lookup.collection == collection).expect("there is one").0
    }

    /// The key of what a file's lookup finds.
    fn key(&self, collection: &str, file: u8) -> FactKey {
        FactKey { lookup: self.lookup(collection), id: Id::ObjectId([file; 12]) }
    }

    /// The bytes of a fact by which the guest has no share.
    fn no_share(&self, stamp: Moment) -> Vec<u8> {
        codec::encode(&self.schema, &Fact::absent(self.key("shares", FILE), stamp)).expect("it is small")
    }

    /// Whether the guest may read a file.
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
    /// What is answered where nothing is remembered, in words, with the rest of the answer.
    async fn says_anew(&self, question: &Question, consistency: Consistency) -> (String, Checked) {
        let checked = self.live.ask_anew(question, consistency).await.expect("an answer");
        (shown(&self.live.schema, checked.answer), checked)
    }

    /// As [`Instance::says_anew`], and hears of what was read for it: the next may find that in Redis.
    async fn says_and_hears(&self, question: &Question) -> (String, Checked) {
        let (said, checked) = self.says_anew(question, Consistency::MinimizeLatency).await;
        self.live.heard(checked.as_of.moment).await;
        (said, checked)
    }

    /// A counter's value.
    fn counted(&self, name: &str) -> u64 {
        let metrics = self.live.app.metrics.render();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0)
    }

    fn written(&self) -> u64 {
        self.live.written()
    }

    fn unwritten(&self, reason: &str) -> u64 {
        self.counted(&format!("permcached_redis_facts_unwritten_total{{reason=\"{reason}\"}}"))
    }

    fn asked(&self) -> u64 {
        asked_of(&self.live.app.metrics, "redis")
    }

    fn believed(&self) -> u64 {
        found_in(&self.live.app.metrics, "redis")
    }

    /// How many finds of documents there were since it was asked last.
    fn finds(&self) -> usize {
        commands(&self.monitor.take(), "find").iter().filter(|find| level(find) != "linearizable").count()
    }

    /// Has the facts of a file be written, and says as of when.
    async fn fills(&self, question: &Question) -> Moment {
        self.live.fills(question).await
    }

    /// Asks anew, again and again, until something comes about: Redis may have been too slow for it at first.
    async fn asks_until(&self, question: &Question, condition: impl Fn() -> bool) {
        let asking = async {
            while !condition() {
                self.says_anew(question, Consistency::MinimizeLatency).await;
                sleep(Duration::from_millis(20)).await;
            }
        };
        in_the_end(asking).await;
    }

    /// What comes of an attempt, as [`in_time`].
    async fn in_time<T>(&self, attempt: impl AsyncFn() -> T) -> T {
        in_time(async || while_up(&self.link, attempt()).await).await
    }
}

/// What comes of the first attempt in which Redis was always in time. A busy machine may be too slow for it: that is no mistake,
/// and all is attempted again.
async fn in_time<T>(attempt: impl AsyncFn() -> Option<T>) -> T {
    let attempts = async {
        loop {
            if let Some(came) = attempt().await {
                return came;
            }
        }
    };
    in_the_end(Box::pin(attempts)).await
}

/// What comes of something, if the link is up from its beginning to its end: each time that Redis is too slow, it is lost.
async fn while_up<T>(link: &Link, something: impl Future<Output = T>) -> Option<T> {
    let mut link = link.watch();
    link.wait_for(|up| *up).await.expect("there is a link");
    let came = something.await;
    let is_held = !link.has_changed().expect("there is a link");
    is_held.then_some(came)
}

/// Runs a command with bytes in it, on a connection of its own.
fn raw<T: redis::FromRedisValue>(url: &str, command: &[&[u8]]) -> T {
    let mut connection = redis::Client::open(url).and_then(|client| client.get_connection()).expect("Redis is there");
    redis::cmd(std::str::from_utf8(command[0]).expect("a name"))
        .arg(&command[1..])
        .query(&mut connection)
        .expect("it can")
}
