//! `Watch` over a real socket and a real replica set.
//!
//! Does not test how the bus keeps its log.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bson::{Document, doc, oid::ObjectId};
use permcached::{
    app::{Parts, assemble},
    check::Settings,
    freshness::{LocalTime, Probe},
    source::mongodb::MongoDb,
    transport::proto::{
        BatchCheckRequest, Change, CheckRequest, Dependencies, Freshness, InvalidateRequest, Moment, Question,
        Resource, Subject, WatchRequest, WatchResponse, batch_check_response::result::Outcome, change::What, freshness,
        invalidation_service_client::InvalidationServiceClient, permission_service_client::PermissionServiceClient,
        watch_service_client::WatchServiceClient,
    },
};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::assert_names;
use crate::support::{
    both::{fill, schema},
    live::Live,
    servers::standalone_mongo,
    service::{PATIENCE, Service},
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

fn id(number: u8) -> ObjectId {
    ObjectId::from_bytes([number; 12])
}

fn share(number: u8) -> Document {
    doc! { "_id": id(number), "file_id": id(1), "user_id": id(2) }
}

/// A service over a database with a file and a share.
async fn service() -> (Live, Service) {
    let live = Live::new(SCHEMA, &[("files", vec![doc! { "_id": id(1) }]), ("shares", vec![share(50)])]).await;
    let service = Service::of(&live.app).await;
    (live, service)
}

/// Opens a Watch stream.
async fn watch(service: &Service, since: Option<freshness::Moment>) -> Result<WatchStream, Status> {
    let since = since.map(|moment| Freshness { moment: Some(moment) });
    let mut client: WatchServiceClient<Channel> = WatchServiceClient::new(service.channel());
    let stream = client.watch(WatchRequest { since }).await?.into_inner();
    Ok(WatchStream { stream, token: String::new() })
}

fn token(text: &str) -> freshness::Moment {
    freshness::Moment::Token(text.to_owned())
}

/// A Watch stream, and the last token that it has received.
struct WatchStream {
    stream: Streaming<WatchResponse>,
    token: String,
}

impl WatchStream {
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        let next = timeout(PATIENCE, self.stream.message()).await.expect("a response in time");
        let response = next?.expect("the stream ends with a status");
        assert!(response.changes.len() <= 1_000);
        if !response.token.is_empty() {
            assert!(self.token.is_empty() || self.token <= response.token, "tokens never decrease");
            self.token.clone_from(&response.token);
        }
        Ok(response)
    }

    /// All changes up to and including the response that has one of these.
    async fn until(&mut self, found: impl Fn(&What) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        loop {
            changes.extend(self.next().await.expect("the stream goes on").changes);
            if changes.iter().any(|change| change.what.as_ref().is_some_and(&found)) {
                return changes;
            }
        }
    }
}

fn is_share(number: u8) -> impl Fn(&What) -> bool {
    move |what| matches!(what, What::Document(document) if document.collection == "shares" && document.id == id(number).to_hex())
}

fn is_key_of_file(what: &What) -> bool {
    matches!(what, What::Key(key) if (&*key.collection, &*key.field) == ("shares", "file_id") && key.id == id(1).to_hex())
}

#[tokio::test]
async fn changes_are_reported_with_documents_and_keys_and_missed_ones_to_a_client_that_reconnects() {
    let (live, service) = service().await;
    let mut stream = watch(&service, None).await.unwrap();
    let first = stream.next().await.unwrap();
    assert!(first.changes.is_empty() && !first.token.is_empty(), "the first response comes at once: {first:?}");

    live.insert("shares", vec![share(51)]).await;
    let changes = stream.until(is_share(51)).await;
    assert!(changes.iter().any(|change| change.what.as_ref().is_some_and(is_key_of_file)), "{changes:?}");
    // A change may be reported early. Then the token that covers it comes later.
    let newest = changes.iter().map(|change| change.token.clone()).max().unwrap();
    while stream.token < newest {
        stream.next().await.unwrap();
    }
    let last_token = stream.token.clone();
    drop(stream);

    let deleted = live.delete("shares", doc! { "_id": id(50) }).await;
    live.until_applied(deleted).await;
    let mut again = watch(&service, Some(token(&last_token))).await.unwrap();
    let first = again.next().await.unwrap();
    let documents: Vec<_> = first.changes.iter().filter_map(|change| change.what.as_ref()).collect();
    assert!(documents.iter().any(|what| is_share(50)(what)), "{documents:?}");
    assert!(!documents.iter().any(|what| is_share(51)(what)), "an earlier response reported that: {documents:?}");
    for change in &first.changes {
        assert!(change.token > last_token && change.token <= first.token, "{change:?} of {}", first.token);
    }

    let operation_time = Moment { seconds: deleted.seconds(), increment: deleted.increment() };
    let mut since_then = watch(&service, Some(freshness::Moment::OperationTime(operation_time))).await.unwrap();
    assert_eq!(since_then.next().await.unwrap().changes, []);
}

/// A duration of a response, in seconds.
fn seconds(duration: Option<prost_types::Duration>) -> f64 {
    let duration = duration.expect("the response has it");
    Duration::new(u64::try_from(duration.seconds).unwrap(), u32::try_from(duration.nanos).unwrap()).as_secs_f64()
}

#[tokio::test]
async fn a_revoked_share_is_reported_with_the_hash_of_something_that_the_answer_depended_on() {
    let (live, service) = service().await;
    let mut stream = watch(&service, None).await.unwrap();
    let mut domain = stream.next().await.unwrap().domain;
    let check = CheckRequest {
        subject: Some(Subject { id: id(2).to_hex(), ..Subject::default() }),
        permission: "read".to_owned(),
        resource: Some(Resource { r#type: "file".to_owned(), id: id(1).to_hex() }),
        consistency: None,
        dependencies: true,
    };
    let mut client = PermissionServiceClient::new(service.channel());
    let answer = client.check(check.clone()).await.unwrap().into_inner().answer.unwrap();
    let depends_on = answer.depends_on.expect("the answer may be kept");
    // The subject, the file, the key of its shares, and the share.
    assert!(answer.allowed && depends_on.hashes.len() == 4 && depends_on.domain == domain, "{depends_on:?}");
    assert_ne!(domain, 0);
    let question = Question {
        subject: check.subject.clone(),
        permission: check.permission.clone(),
        resource: check.resource.clone(),
    };
    let batch = BatchCheckRequest { questions: vec![question; 2], consistency: None, dependencies: true };
    for result in client.batch_check(batch).await.unwrap().into_inner().results {
        let Some(Outcome::Answer(answer)) = result.outcome else { panic!("{result:?}") };
        assert_eq!(answer.depends_on.unwrap().hashes, depends_on.hashes);
    }
    let plain = client.check(CheckRequest { dependencies: false, ..check }).await.unwrap().into_inner().answer.unwrap();
    assert_eq!(plain.depends_on, None);

    let deleted = live.delete("shares", doc! { "_id": id(50) }).await;
    let changes = loop {
        let response = stream.next().await.unwrap();
        domain = response.domain;
        if !response.changes.is_empty() {
            break response.changes;
        }
    };
    assert_eq!(domain, depends_on.domain);
    assert!(changes.iter().any(|change| depends_on.hashes.contains(&change.hash)), "{changes:?} {depends_on:?}");
    assert!(changes.iter().all(|change| change.moment == deleted.as_u64() && change.moment > depends_on.moment));
}

/// What an answer of the service depends on.
async fn dependencies(service: &Service) -> Option<Dependencies> {
    let check = CheckRequest {
        subject: Some(Subject { id: id(2).to_hex(), ..Subject::default() }),
        permission: "read".to_owned(),
        resource: Some(Resource { r#type: "file".to_owned(), id: id(1).to_hex() }),
        consistency: None,
        dependencies: true,
    };
    let mut client = PermissionServiceClient::new(service.channel());
    client.check(check).await.unwrap().into_inner().answer.unwrap().depends_on
}

#[tokio::test]
async fn answers_of_one_source_are_of_no_use_with_the_changes_of_another() {
    let ((live, own), (_other_live, other)) = (service().await, service().await);
    let domain_of_stream = async |service: &Service| watch(service, None).await.unwrap().next().await.unwrap().domain;
    let domains = [domain_of_stream(&own).await, domain_of_stream(&other).await];
    assert_eq!([dependencies(&own).await.unwrap().domain, dependencies(&other).await.unwrap().domain], domains);
    assert_ne!(domains[0], domains[1], "two databases, one schema");
    // Another instance over the same database.
    let (schema, database) = (std::sync::Arc::clone(&live.schema), live.database.clone());
    let second = Live::over(schema, database, Settings::default()).await;
    assert_eq!(domain_of_stream(&Service::of(&second.app).await).await, domains[0]);
}

#[tokio::test]
async fn nothing_can_be_kept_if_it_is_not_known_which_source_answers() {
    let live = Live::new(SCHEMA, &[("files", vec![doc! { "_id": id(1) }]), ("shares", vec![share(50)])]).await;
    let source = MongoDb::open(std::sync::Arc::clone(&live.schema), live.database.clone()).await.unwrap();
    let app = assemble(Parts::over_mongodb(std::sync::Arc::clone(&live.schema), source));
    let live = Live::start(std::sync::Arc::clone(&live.schema), live.database.clone(), app).await;
    let service = Service::of(&live.app).await;
    assert_eq!(dependencies(&service).await, None);
    let response = watch(&service, None).await.unwrap().next().await.unwrap();
    assert_eq!((response.domain, response.age), (0, None));
}

#[tokio::test]
async fn each_response_has_the_age_of_the_state_that_it_confirms() {
    let (live, service) = service().await;
    let began = Instant::now();
    let mut stream = watch(&service, None).await.unwrap();
    let mut last = 0.0;
    let mut slow = 0;
    for _ in 0..8 {
        let response = stream.next().await.unwrap();
        assert!(response.moment > 0 && !response.token.is_empty());
        assert!((seconds(response.staleness_max) - 2.0).abs() < 1e-9);
        let [age, elapsed] = [seconds(response.age), seconds(response.elapsed)];
        assert!(elapsed >= last && elapsed <= began.elapsed().as_secs_f64(), "{elapsed} after {last}");
        slow += usize::from(elapsed - last > 0.5);
        // What the probes of this instance prove about the token's moment.
        let moment = permcached::freshness::Moment::from_count(response.moment);
        let real = live.app.freshness.age(moment, LocalTime::now()).as_secs_f64();
        assert!(age <= real && age < 2.0, "{age}, {real}");
        last = elapsed;
    }
    assert!(slow <= 2, "{slow} of 8 responses came after more than 500 ms");
    // Nothing is confirmed by the moments of another epoch: the source's time has gone back.
    let freshness = &live.app.freshness;
    let (sent, moment) = (LocalTime::now(), permcached::freshness::Moment::from_count(1));
    assert!(freshness.record_probe(Probe { sent, moment }, freshness.watermark(), freshness.epoch(), || {}));
    // Its tokens go back, too.
    stream.token.clear();
    loop {
        let response = stream.next().await.unwrap();
        if response.changes.iter().any(|change| change.what == Some(What::Everything(true))) {
            assert_eq!(response.changes[0].hash, 0);
            break;
        }
        stream.token.clear();
        assert_eq!((response.age, response.elapsed), (None, None), "{response:?}");
    }
}

#[tokio::test]
async fn many_changes_are_split_into_several_responses() {
    let (live, service) = service().await;
    let mut stream = watch(&service, None).await.unwrap();
    stream.next().await.unwrap();
    let files: Vec<Document> = (0..2_500).map(|_| doc! { "_id": ObjectId::new() }).collect();
    let mut missing: BTreeSet<String> = files.iter().map(|file| file.get_object_id("_id").unwrap().to_hex()).collect();
    live.insert("files", files).await;
    while !missing.is_empty() {
        for change in stream.next().await.unwrap().changes {
            match change.what.unwrap() {
                What::Document(document) => _ = missing.remove(&document.id),
                what => panic!("{what:?}"),
            }
        }
    }
}

#[tokio::test]
async fn invalidations_of_a_subject_and_of_everything_are_reported() {
    let (_live, service) = service().await;
    let mut stream = watch(&service, None).await.unwrap();
    let mut invalidation = InvalidationServiceClient::new(service.channel());
    let subject = Subject { r#type: "user".to_owned(), id: id(2).to_hex(), anonymous: false };
    let request = InvalidateRequest { subjects: vec![subject.clone()], ..InvalidateRequest::default() };
    let response = invalidation.invalidate(request).await.unwrap().into_inner();
    let changes = stream.until(|what| *what == What::Subject(subject.clone())).await;
    assert_eq!(changes.last().unwrap().token, response.token);
    invalidation.invalidate(InvalidateRequest { all: true, ..InvalidateRequest::default() }).await.unwrap();
    stream.until(|what| *what == What::Everything(true)).await;
}

#[tokio::test]
async fn tokens_are_sent_even_if_nothing_changes() {
    let (_live, service) = service().await;
    let mut stream = watch(&service, None).await.unwrap();
    let first = stream.next().await.unwrap();
    let second = stream.next().await.unwrap();
    assert!(second.changes.is_empty() && second.token > first.token, "{first:?}, {second:?}");
}

#[tokio::test]
async fn a_shutdown_ends_the_stream_with_a_status() {
    let (live, _) = service().await;
    let mut service = Service::of(&live.app).await;
    let mut stream = watch(&service, None).await.unwrap();
    stream.next().await.unwrap();
    service.shut_down();
    let status = loop {
        match stream.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    service.ended().await;
}

#[tokio::test]
async fn a_moment_at_which_a_stream_cannot_begin_is_refused() {
    let (live, service) = service().await;
    let refused = |since| async { watch(&service, since).await.err().expect("refused") };
    assert_names(&refused(Some(token("yesterday"))).await, &[("since.token", "is not a token")]);
    assert_names(&refused(Some(token("r0000000000000001"))).await, &[("since.token", "is of revisions of documents")]);
    assert_names(&refused(Some(token("cffffffff00000001"))).await, &[("since", "has not come yet")]);
    let mut client = WatchServiceClient::new(service.channel());
    let empty = WatchRequest { since: Some(Freshness { moment: None }) };
    assert_names(&client.watch(empty).await.unwrap_err(), &[("since", "is empty")]);
    // If the log does not reach back that far, a change of everything is reported.
    let mut stream = watch(&service, Some(token("c0000000100000001"))).await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(first.changes.first().and_then(|change| change.what.clone()), Some(What::Everything(true)));
    drop(live);
}

#[tokio::test]
async fn watch_is_refused_on_a_single_server() {
    let schema = std::sync::Arc::new(schema("watch.toml", SCHEMA));
    let database = standalone_mongo().database().await;
    fill(&database, &schema, &[("files".to_owned(), vec![doc! { "_id": id(1) }])].into()).await;
    let live = Live::over(schema, database, Settings::default()).await;
    let service = Service::of(&live.app).await;
    let status = watch(&service, None).await.err().expect("refused");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("--replSet"), "{status:?}");
}

#[tokio::test]
async fn one_stream_too_many_is_refused() {
    let (_live, service) = service().await;
    // A connection may have 256 open calls.
    let mut clients: Vec<_> = (0..5).map(|_| WatchServiceClient::new(service.channel())).collect();
    let mut client = clients.pop().unwrap();
    let mut open = Vec::new();
    for client in &mut clients {
        for _ in 0..250 {
            open.push(client.watch(WatchRequest { since: None }).await.unwrap());
        }
    }
    let status = client.watch(WatchRequest { since: None }).await.expect_err("refused");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    open.clear();
    // Once the service notices that a client has gone, it accepts another one.
    let admitted = async { while client.watch(WatchRequest { since: None }).await.is_err() {} };
    timeout(PATIENCE, admitted).await.expect("a stream is accepted again");
}
