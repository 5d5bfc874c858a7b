//! Documents that become unusual while their facts are cached: wrong types, a large array, a cycle of folders.
//!
//! How the evaluator judges such documents is tested in `evaluator`.

use bson::{Bson, Document, doc, oid::ObjectId};

use super::{NO_GRANT, OWNER, SCHEMA, USER, file, file_with, id, reads, users};
use crate::support::live::Two;

#[tokio::test]
async fn a_value_that_changes_to_a_wrong_type_is_noticed() {
    let two = Two::new(SCHEMA, &[users(), ("files", vec![file(1)])]).await;
    let question = reads(&two.first, OWNER, 1);
    two.until_cached(&[(&question, "allowed by file#owner")]).await;
    for wrong in [Bson::String(id(OWNER).to_hex()), Bson::Double(1.5), doc! { "id": id(OWNER) }.into()] {
        let moment = two.first.update("files", doc! { "_id": id(1) }, doc! { "$set": { "owner_id": wrong } }).await;
        two.notice(moment, &[(&question, "denied MALFORMED")]).await;
        let moment = two.first.update("files", doc! { "_id": id(1) }, file(1)).await;
        two.notice(moment, &[(&question, "allowed by file#owner")]).await;
    }
}

#[tokio::test]
async fn an_array_that_becomes_large_is_noticed() {
    let two = Two::new(SCHEMA, &[users(), ("files", vec![file(1)])]).await;
    let question = reads(&two.first, USER, 1);
    two.until_cached(&[(&question, NO_GRANT)]).await;
    let mut editors: Vec<ObjectId> = (0_u32..9_999).map(numbered).collect();
    editors.push(id(USER));
    let moment = two.first.update("files", doc! { "_id": id(1) }, doc! { "$set": { "editor_ids": editors } }).await;
    two.notice(moment, &[(&question, "allowed by file#editor")]).await;
    let moment = two.first.update("files", doc! { "_id": id(1) }, doc! { "$pop": { "editor_ids": 1 } }).await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
}

/// The id of no user.
fn numbered(number: u32) -> ObjectId {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

#[tokio::test]
async fn folders_that_become_a_cycle_are_noticed() {
    let folder = |number, parent| doc! { "_id": id(number), "owner_id": id(OWNER), "parent_id": id(parent) };
    let top: Document = doc! { "_id": id(22), "owner_id": id(USER) };
    let folders = vec![folder(20, 21), folder(21, 22), top];
    let files = vec![file_with(1, doc! { "folder_id": id(20) })];
    let two = Two::new(SCHEMA, &[users(), ("files", files), ("folders", folders)]).await;
    let question = reads(&two.first, USER, 1);
    let owner = "allowed by folder#owner";
    two.until_cached(&[(&question, owner)]).await;
    for parent in [20, 21] {
        let cycle = doc! { "$set": { "parent_id": id(parent) } };
        let moment = two.first.update("folders", doc! { "_id": id(21) }, cycle).await;
        two.notice(moment, &[(&question, NO_GRANT)]).await;
        let moment = two.first.update("folders", doc! { "_id": id(21) }, folder(21, 22)).await;
        two.notice(moment, &[(&question, owner)]).await;
    }
}
