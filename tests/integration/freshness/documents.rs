//! Writes that move, delete and change documents, for each way in which relations read them: every instance notices.
//!
//! What happens without a change stream is tested in `bound`.

use bson::{Bson, Document, doc};

use super::{GUEST, NO_GRANT, OWNER, SCHEMA, USER, file, file_with, id, reads, share, user, users};
use crate::support::live::Two;

/// Changes one document, after which the answer to the user about file 1 is another. Then changes it back.
async fn there_and_back(
    collections: &[(&str, Vec<Document>)],
    [before, after]: [&str; 2],
    (collection, of): (&str, u8),
    [there, back]: [Bson; 2],
) {
    let mut all = vec![users()];
    all.extend_from_slice(collections);
    let two = Two::new(SCHEMA, &all).await;
    let question = reads(&two.first, USER, 1);
    two.until_cached(&[(&question, before)]).await;
    let moment = two.first.update(collection, doc! { "_id": id(of) }, there).await;
    two.notice(moment, &[(&question, after)]).await;
    let moment = two.first.update(collection, doc! { "_id": id(of) }, back).await;
    two.notice(moment, &[(&question, before)]).await;
}

fn set(fields: Document) -> Bson {
    Bson::Document(doc! { "$set": fields })
}

#[tokio::test]
async fn a_moved_document_is_noticed_under_its_old_and_its_new_key() {
    let all = [users(), ("files", vec![file(1), file(2)]), ("shares", vec![share(50, 1)])];
    let two = Two::new(SCHEMA, &all).await;
    let (old, new) = (reads(&two.first, USER, 1), reads(&two.first, USER, 2));
    two.until_cached(&[(&old, GUEST), (&new, NO_GRANT)]).await;
    let moment = two.first.update("shares", doc! { "_id": id(50) }, set(doc! { "file_id": id(2) })).await;
    two.notice(moment, &[(&old, NO_GRANT), (&new, GUEST)]).await;
    let moment = two.first.update("shares", doc! { "_id": id(50) }, share(50, 1)).await;
    two.notice(moment, &[(&old, GUEST), (&new, NO_GRANT)]).await;
}

#[tokio::test]
async fn a_deleted_share_and_a_new_share_are_noticed() {
    let all = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let two = Two::new(SCHEMA, &all).await;
    let question = reads(&two.first, USER, 1);
    two.until_cached(&[(&question, GUEST)]).await;
    let moment = two.first.delete("shares", doc! { "_id": id(50) }).await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
    let moment = two.first.insert("shares", vec![share(51, 1)]).await;
    two.notice(moment, &[(&question, GUEST)]).await;
}

/// A fact of more than 64 documents is tested against the mark of its collection, not against those of its documents.
#[tokio::test]
async fn a_deleted_share_among_a_hundred_is_noticed() {
    let others = (0..100).map(|number| doc! { "_id": number, "file_id": id(1), "user_id": id(OWNER), "active": true });
    let shares: Vec<Document> = others.chain([share(50, 1)]).collect();
    let two = Two::new(SCHEMA, &[users(), ("files", vec![file(1)]), ("shares", shares)]).await;
    let question = reads(&two.first, USER, 1);
    two.until_cached(&[(&question, GUEST)]).await;
    let moment = two.first.delete("shares", doc! { "_id": id(50) }).await;
    two.notice(moment, &[(&question, NO_GRANT)]).await;
}

#[tokio::test]
async fn a_file_that_is_deleted_and_inserted_again_is_noticed() {
    let two = Two::new(SCHEMA, &[users(), ("files", vec![file(1)])]).await;
    let question = reads(&two.first, OWNER, 1);
    two.until_cached(&[(&question, "allowed by file#owner")]).await;
    let moment = two.first.delete("files", doc! { "_id": id(1) }).await;
    two.notice(moment, &[(&question, "denied NOT_FOUND")]).await;
    let moment = two.first.insert("files", vec![file(1)]).await;
    two.notice(moment, &[(&question, "allowed by file#owner")]).await;
}

#[tokio::test]
async fn a_condition_that_becomes_true_is_noticed_though_no_document_matched_before() {
    let mut inactive = share(50, 1);
    inactive.insert("active", false);
    let documents = [("files", vec![file(1)]), ("shares", vec![inactive])];
    let changes = [set(doc! { "active": true }), set(doc! { "active": false })];
    there_and_back(&documents, [NO_GRANT, GUEST], ("shares", 50), changes).await;
}

#[tokio::test]
async fn a_shortened_array_is_noticed() {
    let reader = |number| doc! { "user_id": id(number), "level": "read" };
    // So many that the event reports a truncated array instead of its new value.
    let mut readers: Vec<Document> = (0..20).map(reader).collect();
    readers.push(reader(USER));
    let documents = [("files", vec![file_with(1, doc! { "readers": readers })])];
    let cut = vec![doc! { "$set": { "readers": { "$slice": ["$readers", 20] } } }];
    let back = doc! { "$push": { "readers": reader(USER) } };
    there_and_back(&documents, ["allowed by file#reader", NO_GRANT], ("files", 1), [cut.into(), back.into()]).await;
}

#[tokio::test]
async fn an_id_pulled_from_an_array_and_pushed_again_is_noticed() {
    let documents = [("files", vec![file_with(1, doc! { "editor_ids": [id(OWNER), id(USER)] })])];
    let changes = ["$pull", "$push"].map(|change| Bson::Document(doc! { change: { "editor_ids": id(USER) } }));
    there_and_back(&documents, ["allowed by file#editor", NO_GRANT], ("files", 1), changes).await;
}

#[tokio::test]
async fn a_change_of_a_field_within_an_array_is_noticed() {
    let readers = doc! { "readers": [{ "user_id": id(OWNER) }, { "user_id": id(USER), "level": "read" }] };
    let documents = [("files", vec![file_with(1, readers)])];
    let changes = [set(doc! { "readers.1.level": "none" }), set(doc! { "readers.1.level": "read" })];
    there_and_back(&documents, ["allowed by file#reader", NO_GRANT], ("files", 1), changes).await;
}

#[tokio::test]
async fn a_removed_field_is_noticed() {
    let documents = [("files", vec![file_with(1, doc! { "editor_ids": id(USER) })])];
    let changes = [doc! { "$unset": { "editor_ids": "" } }.into(), set(doc! { "editor_ids": [id(USER)] })];
    there_and_back(&documents, ["allowed by file#editor", NO_GRANT], ("files", 1), changes).await;
}

#[tokio::test]
async fn a_changed_flag_of_the_file_is_noticed() {
    let documents = [("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let changes = [set(doc! { "is_deleted": true }), set(doc! { "is_deleted": false })];
    there_and_back(&documents, [GUEST, "denied EXCLUDED"], ("files", 1), changes).await;
}

#[tokio::test]
async fn a_new_owner_is_noticed_after_an_update_and_after_a_replacement() {
    let documents = [("files", vec![file(1)])];
    let changes = [set(doc! { "owner_id": id(USER) }), file(1).into()];
    there_and_back(&documents, [NO_GRANT, "allowed by file#owner"], ("files", 1), changes).await;
}

#[tokio::test]
async fn a_file_that_moves_to_another_folder_is_noticed() {
    let folder = |number, owner| doc! { "_id": id(number), "owner_id": id(owner) };
    let documents = [
        ("files", vec![file_with(1, doc! { "folder_id": id(20) })]),
        ("folders", vec![folder(20, OWNER), folder(21, USER)]),
    ];
    let changes = [set(doc! { "folder_id": id(21) }), set(doc! { "folder_id": id(20) })];
    there_and_back(&documents, [NO_GRANT, "allowed by folder#owner"], ("files", 1), changes).await;
}

#[tokio::test]
async fn a_folder_that_moves_is_noticed_for_the_files_in_it() {
    let folder = |number, owner| doc! { "_id": id(number), "owner_id": id(owner) };
    let mut middle = folder(22, OWNER);
    middle.insert("parent_id", id(21));
    let documents = [
        ("files", vec![file_with(1, doc! { "folder_id": id(22) })]),
        ("folders", vec![folder(20, OWNER), folder(21, USER), middle]),
    ];
    let changes = [set(doc! { "parent_id": id(20) }), set(doc! { "parent_id": id(21) })];
    there_and_back(&documents, ["allowed by folder#owner", NO_GRANT], ("folders", 22), changes).await;
}

#[tokio::test]
async fn a_member_who_leaves_a_team_is_noticed() {
    let members = doc! { "_id": id(30), "members": [{ "user_id": id(OWNER) }, { "user_id": id(USER) }] };
    let documents = [("files", vec![file_with(1, doc! { "team_id": id(30) })]), ("teams", vec![members])];
    let changes =
        ["$pull", "$push"].map(|change| Bson::Document(doc! { change: { "members": { "user_id": id(USER) } } }));
    there_and_back(&documents, ["allowed by file#reviewer", NO_GRANT], ("teams", 30), changes).await;
}

#[tokio::test]
async fn a_user_who_is_deactivated_is_noticed() {
    let documents = [("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let changes = [set(doc! { "is_active": false }), user(USER).into()];
    there_and_back(&documents, [GUEST, "denied SUBJECT_INACTIVE"], ("users", USER), changes).await;
}
