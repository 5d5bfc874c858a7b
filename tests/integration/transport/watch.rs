//! Watching what changes, over a real socket and a real replica set.

use std::collections::BTreeSet;

use bson::{Document, doc, oid::ObjectId};
use permcached::{
    check::Settings,
    transport::proto::{
        Change, Freshness, InvalidateRequest, Moment, Subject, WatchRequest, WatchResponse, change::What, freshness,
        invalidation_service_client::InvalidationServiceClient, watch_service_client::WatchServiceClient,
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

/// A connection that stays open for longer than a call may take.
async fn watch(service: &Service, since: Option<freshness::Moment>) -> Result<Watching, Status> {
    let since = since.map(|moment| Freshness { moment: Some(moment) });
    let mut client: WatchServiceClient<Channel> = WatchServiceClient::new(service.channel());
    let stream = client.watch(WatchRequest { since }).await?.into_inner();
    Ok(Watching { stream, token: String::new() })
}

fn token(text: &str) -> freshness::Moment {
    freshness::Moment::Token(text.to_owned())
}

/// A stream, and the last token that it told.
struct Watching {
    stream: Streaming<WatchResponse>,
    token: String,
}

impl Watching {
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        let next = timeout(PATIENCE, self.stream.message()).await.expect("something comes in time");
        let response = next?.expect("it does not end without a status");
        assert!(response.changes.len() <= 1_000);
        if !response.token.is_empty() {
            assert!(self.token.is_empty() || self.token <= response.token, "tokens do not go back");
            self.token.clone_from(&response.token);
        }
        Ok(response)
    }

    /// All changes that are told until one of these is.
    async fn until(&mut self, found: impl Fn(&What) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        loop {
            changes.extend(self.next().await.expect("it goes on").changes);
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
async fn what_changes_is_told_with_its_documents_and_keys_and_again_to_who_comes_back() {
    let (live, service) = service().await;
    let mut watching = watch(&service, None).await.unwrap();
    let first = watching.next().await.unwrap();
    assert!(first.changes.is_empty() && !first.token.is_empty(), "at once, and from now on: {first:?}");

    live.insert("shares", vec![share(51)]).await;
    let changes = watching.until(is_share(51)).await;
    assert!(changes.iter().any(|change| change.what.as_ref().is_some_and(is_key_of_file)), "{changes:?}");
    // It may be told early: the token that covers it comes later then.
    let newest = changes.iter().map(|change| change.token.clone()).max().unwrap();
    while watching.token < newest {
        watching.next().await.unwrap();
    }
    let told = watching.token.clone();
    drop(watching);

    let deleted = live.delete("shares", doc! { "_id": id(50) }).await;
    live.heard(deleted).await;
    let mut again = watch(&service, Some(token(&told))).await.unwrap();
    let first = again.next().await.unwrap();
    let documents: Vec<_> = first.changes.iter().filter_map(|change| change.what.as_ref()).collect();
    assert!(documents.iter().any(|what| is_share(50)(what)), "{documents:?}");
    assert!(!documents.iter().any(|what| is_share(51)(what)), "that was told: {documents:?}");
    for change in &first.changes {
        assert!(change.token > told && change.token <= first.token, "{change:?} of {}", first.token);
    }

    let operation_time = Moment { seconds: deleted.seconds(), increment: deleted.increment() };
    let mut since_then = watch(&service, Some(freshness::Moment::OperationTime(operation_time))).await.unwrap();
    assert_eq!(since_then.next().await.unwrap().changes, []);
}

#[tokio::test]
async fn many_changes_are_told_in_pieces() {
    let (live, service) = service().await;
    let mut watching = watch(&service, None).await.unwrap();
    watching.next().await.unwrap();
    let files: Vec<Document> = (0..2_500).map(|_| doc! { "_id": ObjectId::new() }).collect();
    let mut untold: BTreeSet<String> = files.iter().map(|file| file.get_object_id("_id").unwrap().to_hex()).collect();
    live.insert("files", files).await;
    while !untold.is_empty() {
        for change in watching.next().await.unwrap().changes {
            match change.what.unwrap() {
                What::Document(document) => _ = untold.remove(&document.id),
                what => panic!("{what:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_subject_that_is_invalidated_and_everything_are_told() {
    let (_live, service) = service().await;
    let mut watching = watch(&service, None).await.unwrap();
    let mut invalidation = InvalidationServiceClient::new(service.channel());
    let subject = Subject { r#type: "user".to_owned(), id: id(2).to_hex(), anonymous: false };
    let request = InvalidateRequest { subjects: vec![subject.clone()], ..InvalidateRequest::default() };
    let response = invalidation.invalidate(request).await.unwrap().into_inner();
    let changes = watching.until(|what| *what == What::Subject(subject.clone())).await;
    assert_eq!(changes.last().unwrap().token, response.token);
    invalidation.invalidate(InvalidateRequest { all: true, ..InvalidateRequest::default() }).await.unwrap();
    watching.until(|what| *what == What::Everything(true)).await;
}

#[tokio::test]
async fn silence_is_broken_by_tokens_though_nothing_changes() {
    let (_live, service) = service().await;
    let mut watching = watch(&service, None).await.unwrap();
    let first = watching.next().await.unwrap();
    let second = watching.next().await.unwrap();
    assert!(second.changes.is_empty() && second.token > first.token, "{first:?}, {second:?}");
}

#[tokio::test]
async fn a_stop_ends_it_with_a_status() {
    let (live, _) = service().await;
    let mut service = Service::of(&live.app).await;
    let mut watching = watch(&service, None).await.unwrap();
    watching.next().await.unwrap();
    service.tell_to_stop();
    let status = loop {
        match watching.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    service.ended().await;
}

#[tokio::test]
async fn where_it_cannot_begin_is_said() {
    let (live, service) = service().await;
    let refused = |since| async { watch(&service, since).await.err().expect("refused") };
    assert_names(&refused(Some(token("yesterday"))).await, &[("since.token", "is not a token")]);
    assert_names(&refused(Some(token("r0000000000000001"))).await, &[("since.token", "is of revisions of documents")]);
    assert_names(&refused(Some(token("cffffffff00000001"))).await, &[("since", "has not come yet")]);
    let mut client = WatchServiceClient::new(service.channel());
    let empty = WatchRequest { since: Some(Freshness { moment: None }) };
    assert_names(&client.watch(empty).await.unwrap_err(), &[("since", "is empty")]);
    // What is older than what is kept is told as a change of everything.
    let mut watching = watch(&service, Some(token("c0000000100000001"))).await.unwrap();
    let first = watching.next().await.unwrap();
    assert_eq!(first.changes.first().and_then(|change| change.what.clone()), Some(What::Everything(true)));
    drop(live);
}

#[tokio::test]
async fn a_single_server_tells_nobody_what_changes() {
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
async fn so_many_watch_and_no_more() {
    let (_live, service) = service().await;
    let mut client = WatchServiceClient::new(service.channel());
    let mut open = Vec::new();
    for _ in 0..1_000 {
        open.push(client.watch(WatchRequest { since: None }).await.unwrap());
    }
    let status = client.watch(WatchRequest { since: None }).await.expect_err("refused");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    open.clear();
    // A place is free as soon as the service has noticed that somebody went.
    let admitted = async { while client.watch(WatchRequest { since: None }).await.is_err() {} };
    timeout(PATIENCE, admitted).await.expect("there is room again");
}
