//! Collections that are renamed, dropped or replaced. No cached fact counts afterwards, and later changes are still followed.

use bson::{Document, doc};
use permcached::{freshness::Moment, question::Question};

use super::{GUEST, NO_GRANT, OWNER, SCHEMA, USER, file, id, reads, share, users};
use crate::support::live::{Live, Two};

/// Two applications that have cached a file and its share.
async fn shared() -> (Two, Question) {
    let all = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let two = Two::new(SCHEMA, &all).await;
    let question = reads(&two.first, USER, 1);
    two.until_cached(&[(&question, GUEST)]).await;
    (two, question)
}

/// Asserts that later changes take effect.
async fn assert_follows_changes(two: &Two, question: &Question) {
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
async fn after_a_rename_over_a_collection_no_fact_counts() {
    let (two, question) = shared().await;
    two.first.insert("prepared", vec![share(51, 2)]).await;
    with_index(&two.first, "prepared").await;
    let moment = rename(&two.first, "prepared", "shares").await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    assert!(two.second.app.freshness.floor() >= moment, "the floor is raised");
    assert_follows_changes(&two, &question).await;
}

#[tokio::test]
async fn after_a_collection_is_renamed_away_no_fact_counts() {
    let (two, question) = shared().await;
    let moment = rename(&two.first, "shares", "elsewhere").await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    let moment = rename(&two.first, "elsewhere", "shares").await;
    two.notice(moment, &[(&question, GUEST)]).await;
    let moment = two.first.delete("shares", doc! { "_id": id(50) }).await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    assert_follows_changes(&two, &question).await;
}

#[tokio::test]
async fn after_a_collection_is_dropped_no_fact_counts() {
    let (two, question) = shared().await;
    let moment = two.first.run(doc! { "drop": "shares" }).await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    with_index(&two.first, "shares").await;
    assert_follows_changes(&two, &question).await;
}

#[tokio::test]
async fn after_the_database_is_dropped_no_fact_counts() {
    let (two, question) = shared().await;
    let moment = two.first.run(doc! { "dropDatabase": 1 }).await;
    two.notice(moment, &[(&question, "denied SUBJECT_INACTIVE")]).await;
    with_index(&two.first, "shares").await;
    let (name, documents) = users();
    two.first.insert(name, documents).await;
    let moment = two.first.insert("files", vec![file(1)]).await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    assert_follows_changes(&two, &question).await;
}

#[tokio::test]
async fn after_out_replaces_a_collection_no_fact_counts() {
    let (two, question) = shared().await;
    two.first.insert("prepared", vec![share(51, 2)]).await;
    let stages: Vec<Document> = vec![doc! { "$match": {} }, doc! { "$out": "shares" }];
    let moment = two.first.run(doc! { "aggregate": "prepared", "pipeline": stages, "cursor": {} }).await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    assert_follows_changes(&two, &question).await;
}
