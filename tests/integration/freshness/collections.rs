//! Whole collections that are renamed, dropped and replaced: nothing that was remembered counts, and what changes
//! afterwards is heard.

use bson::{Document, doc};
use permcached::{freshness::Moment, question::Question};

use super::{GUEST, NO_GRANT, OWNER, SCHEMA, USER, file, id, reads, share, users};
use crate::support::live::{Live, Two};

/// A file with a share, both remembered.
async fn shared() -> (Two, Question) {
    let all = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let two = Two::new(SCHEMA, &all).await;
    let question = reads(&two.first, USER, 1);
    two.remember(&[(&question, GUEST)]).await;
    (two, question)
}

/// A later change is heard as ever.
async fn is_still_heard(two: &Two, question: &Question) {
    let moment = two.first.update("files", doc! { "_id": id(1) }, doc! { "$set": { "owner_id": id(USER) } }).await;
    two.notice(moment, &[(question, "allowed by file#owner")]).await;
    let moment = two.first.update("files", doc! { "_id": id(1) }, doc! { "$set": { "owner_id": id(OWNER) } }).await;
    two.notice(moment, &[(question, NO_GRANT)]).await;
    let moment = two.first.insert("shares", vec![share(60, 1)]).await;
    two.notice(moment, &[(question, GUEST)]).await;
}

async fn with_index(live: &Live, collection: &str) {
    let index = doc! { "key": { "file_id": 1 }, "name": "file_id" };
    live.run(doc! { "createIndexes": collection, "indexes": [index] }).await;
}

async fn rename(live: &Live, from: &str, to: &str) -> Moment {
    let command = doc! { "renameCollection": live.full_name(from), "to": live.full_name(to), "dropTarget": true };
    live.administer(command).await
}

#[tokio::test]
async fn a_collection_renamed_over_a_watched_one_is_noticed() {
    let (two, question) = shared().await;
    two.first.insert("prepared", vec![share(51, 2)]).await;
    with_index(&two.first, "prepared").await;
    let moment = rename(&two.first, "prepared", "shares").await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    assert!(two.second.app.freshness.floor() >= moment, "the floor is raised");
    is_still_heard(&two, &question).await;
}

#[tokio::test]
async fn a_watched_collection_renamed_away_is_noticed() {
    let (two, question) = shared().await;
    let moment = rename(&two.first, "shares", "elsewhere").await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    let moment = rename(&two.first, "elsewhere", "shares").await;
    two.notice(moment, &[(&question, GUEST)]).await;
    let moment = two.first.delete("shares", doc! { "_id": id(50) }).await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    is_still_heard(&two, &question).await;
}

#[tokio::test]
async fn a_dropped_collection_is_noticed() {
    let (two, question) = shared().await;
    let moment = two.first.run(doc! { "drop": "shares" }).await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    with_index(&two.first, "shares").await;
    is_still_heard(&two, &question).await;
}

#[tokio::test]
async fn a_dropped_database_is_noticed() {
    let (two, question) = shared().await;
    let moment = two.first.run(doc! { "dropDatabase": 1 }).await;
    two.notice(moment, &[(&question, "denied SUBJECT_INACTIVE")]).await;
    with_index(&two.first, "shares").await;
    let (name, documents) = users();
    two.first.insert(name, documents).await;
    let moment = two.first.insert("files", vec![file(1)]).await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    is_still_heard(&two, &question).await;
}

#[tokio::test]
async fn what_out_replaces_is_noticed() {
    let (two, question) = shared().await;
    two.first.insert("prepared", vec![share(51, 2)]).await;
    let stages: Vec<Document> = vec![doc! { "$match": {} }, doc! { "$out": "shares" }];
    let moment = two.first.run(doc! { "aggregate": "prepared", "pipeline": stages, "cursor": {} }).await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    is_still_heard(&two, &question).await;
}
