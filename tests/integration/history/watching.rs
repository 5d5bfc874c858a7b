//! Clients of `Watch`, and the test that nothing is missing from what they are reported: each acknowledged write must have been
//! reported by the time the stream's token covers it, as a change of its document or as a change of everything.
//!
//! Its test goes through faults of links, of Redis and of the primary; the soak follows `Watch` too.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bson::{Document, doc};
use mongodb::{Client, Database};
use permcached::{
    freshness::Moment,
    transport::proto::{Freshness, WatchRequest, change::What, freshness, watch_service_client::WatchServiceClient},
};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tonic::transport::Endpoint;

use super::{
    faults::{Between, LinkFault, Servers},
    instances::{Instance, Setup},
    kinds::{SCHEMA, first_documents},
};
use crate::support::{
    both::{fill, schema},
    live::operation_time,
    service::Service,
};

/// How long a stream may be silent until it is opened again: it sends something each second while it receives updates.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long to wait before a stream is opened again.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a stream may take to cover a write once everything is well again.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a client was reported.
#[derive(Debug, Default)]
struct Reported {
    /// Up to where the stream has reported everything.
    token: String,
    /// The tokens of the changes of each document, by its collection and its `_id`.
    documents: BTreeMap<(String, String), Vec<String>>,
    /// The tokens of changes of everything.
    everything: Vec<String>,
    /// How often the stream was opened again.
    reopened: u64,
}

/// A client that follows the `Watch` stream of one instance, and opens it again at its last token when it ends.
#[derive(Clone, Debug, Default)]
pub struct Watching(Arc<Mutex<Reported>>);

impl Watching {
    /// Follows the instance at this URL. Never ends.
    pub async fn follow(self, url: String) {
        loop {
            self.follow_once(&url).await;
            self.0.lock().expect("no panic before").reopened += 1;
            sleep(PAUSE).await;
        }
    }

    /// Follows one stream to its end. Returns none whatever the end was.
    async fn follow_once(&self, url: &str) -> Option<()> {
        let channel = Endpoint::from_shared(url.to_owned()).expect("a URL").connect().await.ok()?;
        let token = self.0.lock().expect("no panic before").token.clone();
        let since =
            if token.is_empty() { None } else { Some(Freshness { moment: Some(freshness::Moment::Token(token)) }) };
        let opening =
            timeout(SILENCE_MAX, async { WatchServiceClient::new(channel).watch(WatchRequest { since }).await });
        let mut stream = opening.await.ok()?.ok()?.into_inner();
        loop {
            let response = timeout(SILENCE_MAX, stream.message()).await.ok()?.ok()??;
            let mut reported = self.0.lock().expect("no panic before");
            for change in response.changes {
                match change.what {
                    Some(What::Document(document)) => {
                        let tokens = reported.documents.entry((document.collection, document.id)).or_default();
                        if tokens.last() != Some(&change.token) {
                            tokens.push(change.token);
                        }
                    }
                    Some(What::Everything(_)) => reported.everything.push(change.token),
                    Some(What::Key(_) | What::Subject(_)) | None => {}
                }
            }
            if !response.token.is_empty() {
                reported.token = response.token;
            }
        }
    }

    /// Waits until the stream has reported everything up to now: the first token it gives.
    pub async fn begun(&self) {
        let begun = async {
            while self.0.lock().expect("no panic before").token.is_empty() {
                sleep(PAUSE).await;
            }
        };
        timeout(PATIENCE, begun).await.expect("a stream begins");
    }

    /// What is wrong with what the client was reported about a document that was written between two moments, the first excluded:
    /// none if it was reported of a change.
    pub async fn objection(&self, collection: &str, id: &str, [after, to]: [Moment; 2]) -> Option<String> {
        let [after, to] = [after, to].map(|moment| format!("c{:016x}", moment.as_u64()));
        let covered = async {
            while self.0.lock().expect("no panic before").token < to {
                sleep(PAUSE).await;
            }
        };
        if timeout(PATIENCE, covered).await.is_err() {
            return Some(format!("Watch does not reach {to} within {PATIENCE:?}"));
        }
        let reported = self.0.lock().expect("no panic before");
        let of_document = reported.documents.get(&(collection.to_owned(), id.to_owned()));
        let is_reported = of_document.is_some_and(|tokens| tokens.iter().any(|token| *token > after && *token <= to))
            || reported.everything.iter().any(|token| *token > after);
        (!is_reported).then(|| format!("Watch has not reported of {collection} {id}, changed in ({after}, {to}]"))
    }

    /// How often the stream was opened again, and how many changes of everything it has reported.
    pub fn counts(&self) -> (u64, usize) {
        let reported = self.0.lock().expect("no panic before");
        (reported.reopened, reported.everything.len())
    }
}

/// How long a fault lasts.
const LASTS: Duration = Duration::from_secs(2);

/// How long a write may take until it is sent again.
const WRITE_TIME: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_reports_every_change_whatever_happens() {
    let mut servers = Servers::start().await;
    let schema = Arc::new(schema("watching.toml", SCHEMA));
    let client = Client::with_uri_str(servers.set.uri("writers")).await.expect("the URI is our own");
    let database = client.database("watching");
    fill(&database, &schema, &first_documents(1)).await;
    let setup = Setup { schema, links: Arc::clone(&servers.links), database: "watching".to_owned() };
    let mut followed = Vec::new();
    for place in 0..servers.links.len() {
        let instance = Instance::start(&setup, place).await;
        let service = Service::of(&instance.app).await;
        let watching = Watching::default();
        let following = tokio::spawn(watching.clone().follow(format!("http://{}", service.address)));
        watching.begun().await;
        followed.push((watching, following, service, instance));
    }
    let (stop, stopped) = oneshot::channel();
    let writer = tokio::spawn(write_until(stopped, database));
    for (fault, between) in [
        (LinkFault::Lost, Between::InstanceAndAll(0)),
        (LinkFault::WithheldToInstance, Between::AllAndRedis),
        (LinkFault::Reset, Between::AllAndNodes),
        (LinkFault::Slow, Between::InstanceAndRedis(1)),
    ] {
        fault.inflict(between, &servers.links, LASTS).await;
    }
    let redis = servers.redis.as_mut().expect("there is one");
    redis.run(&["ACL", "SETUSER", "default", "-publish", "-xadd"]);
    sleep(LASTS / 4).await;
    redis.run(&["ACL", "SETUSER", "default", "+@all"]);
    redis.kill();
    redis.start_again();
    let primary = servers.set.primary().await;
    servers.set.kill(primary);
    servers.set.primary_other_than(Some(primary)).await;
    servers.set.start_again();
    stop.send(()).expect("the writer writes");
    let writes = writer.await.expect("no panic");
    assert!(writes.len() > 20, "{} writes", writes.len());
    for (place, (watching, ..)) in followed.iter().enumerate() {
        for interval in writes.windows(2) {
            let wrong = watching.objection("notes", "0", [interval[0], interval[1]]).await;
            assert_eq!(wrong, None, "instance {place}");
        }
        let (reopened, everything) = watching.counts();
        println!(
            "instance {place}: {} writes, {everything} changes of everything, opened again {reopened} times",
            writes.len()
        );
    }
}

/// Changes one note until it is reported to stop. Returns the moment of each write, which is sent again until it is acknowledged.
async fn write_until(mut stopped: oneshot::Receiver<()>, database: Database) -> Vec<Moment> {
    let mut moments = Vec::new();
    for number in 0.. {
        if stopped.try_recv().is_ok() {
            break;
        }
        // Each attempt changes the note, so one that takes effect late does not make a later one change nothing.
        let moment = loop {
            let owner = format!("{number}-{}", fastrand::u64(..));
            let update = doc! { "q": { "_id": "0" }, "u": { "$set": { "owner_id": owner } }, "upsert": true };
            let command = doc! { "update": "notes", "updates": [update], "writeConcern": { "w": "majority" } };
            if let Ok(Some(moment)) = timeout(WRITE_TIME, acknowledged(&database, command)).await {
                break moment;
            }
        };
        moments.push(moment);
        sleep(Duration::from_millis(30)).await;
    }
    moments
}

/// The moment of a write, if it was acknowledged.
async fn acknowledged(database: &Database, command: Document) -> Option<Moment> {
    let reply = database.run_command(command).await.ok()?;
    (!reply.contains_key("writeErrors") && !reply.contains_key("writeConcernError")).then(|| operation_time(&reply))
}
