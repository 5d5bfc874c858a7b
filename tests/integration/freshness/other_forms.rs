//! Documents that name a resource in another form of its id, as text or inside a document, begin and end to matter as any
//! other: their change events mark the facts that find them.
//!
//! Which forms there are is tested in `wrong_types::keys`.

use bson::{Bson, Document, doc};

use super::{OWNER, file, id, user};
use crate::support::live::Two;

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
collection = "users"

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner_id" }
banned = { collection = "bans", by = "file_id", field = "user_id" }
held = { collection = "holds", by = "_id" }
closed = { collection = "closures", by = "refs.file", where = { lifted = { "$ne" = true } } }

[resource.file.permissions]
read = "!banned & !held & !closed & owner"
"#;

const OWNS: &str = "allowed by file#owner";
const MALFORMED: &str = "denied MALFORMED";

fn ban(file: impl Into<Bson>) -> Document {
    doc! { "_id": "ban", "file_id": file.into(), "user_id": id(OWNER) }
}

fn text(number: u8) -> String {
    id(number).to_hex()
}

#[tokio::test]
async fn a_ban_in_another_form_takes_effect_and_ends_through_the_change_stream() {
    let all = [("users", vec![user(OWNER)]), ("files", vec![file(1), file(2), file(0xab)])];
    let two = Two::new(SCHEMA, &all).await;
    let live = &two.first;
    let reads = |file: u8| live.question(&format!("user:{}", text(OWNER)), "read", &format!("file:{}", text(file)));
    let (one, other, hex) = (reads(1), reads(2), reads(0xab));
    let free = [(&one, OWNS), (&other, OWNS), (&hex, OWNS)];
    two.until_cached(&free).await;
    let the_ban = || doc! { "_id": "ban" };

    // Written in a form of the closed list: exactly the named file is concerned.
    two.notice(live.insert("bans", vec![ban(text(1))]).await, &[(&one, MALFORMED), (&other, OWNS)]).await;
    two.notice(
        live.update("bans", the_ban(), doc! { "$set": { "file_id": text(2) } }).await,
        &[(&one, OWNS), (&other, MALFORMED)],
    )
    .await;
    let upper = text(0xab).to_uppercase();
    two.notice(
        live.update("bans", the_ban(), doc! { "$set": { "file_id": [upper] } }).await,
        &[(&other, OWNS), (&hex, MALFORMED)],
    )
    .await;
    // Another user's ban concerns nobody else.
    two.notice(live.update("bans", the_ban(), doc! { "$set": { "user_id": id(99) } }).await, &free).await;
    two.notice(live.delete("bans", the_ban()).await, &free).await;

    // Inside a document or a nested array: it may be any file.
    let all_unknown = [(&one, MALFORMED), (&other, MALFORMED)];
    let reference = doc! { "$ref": "files", "$id": id(1) };
    two.notice(live.insert("bans", vec![ban(reference)]).await, &all_unknown).await;
    two.notice(live.update("bans", the_ban(), doc! { "$set": { "file_id": id(77) } }).await, &free).await;
    two.notice(live.update("bans", the_ban(), doc! { "$set": { "file_id": [[text(1)]] } }).await, &all_unknown).await;
    two.notice(live.update("bans", the_ban(), doc! { "$set": { "file_id": ["x"] } }).await, &free).await;
    let push = doc! { "$push": { "file_id": { "_id": id(1), "name": "populated" } } };
    two.notice(live.update("bans", the_ban(), push).await, &all_unknown).await;
    two.notice(live.update("bans", the_ban(), doc! { "$unset": { "user_id": 1 } }).await, &free).await;
    two.notice(live.delete("bans", the_ban()).await, &free).await;
}

#[tokio::test]
async fn a_flag_in_another_form_takes_effect_and_ends_through_the_change_stream() {
    let two = Two::new(SCHEMA, &[("users", vec![user(OWNER)]), ("files", vec![file(1), file(2)])]).await;
    let live = &two.first;
    let reads = |file: u8| live.question(&format!("user:{}", text(OWNER)), "read", &format!("file:{}", text(file)));
    let (one, other) = (reads(1), reads(2));
    let free = [(&one, OWNS), (&other, OWNS)];
    two.until_cached(&free).await;

    two.notice(live.insert("holds", vec![doc! { "_id": text(1) }]).await, &[(&one, MALFORMED), (&other, OWNS)]).await;
    two.notice(live.delete("holds", doc! {}).await, &free).await;
    let all_unknown = [(&one, MALFORMED), (&other, MALFORMED)];
    two.notice(live.insert("holds", vec![doc! { "_id": { "file": id(1) } }]).await, &all_unknown).await;
    two.notice(live.delete("holds", doc! {}).await, &free).await;

    let closure = doc! { "_id": 1, "refs": [{ "file": "other" }, { "file": text(2) }] };
    two.notice(live.insert("closures", vec![closure]).await, &[(&one, OWNS), (&other, MALFORMED)]).await;
    two.notice(live.update("closures", doc! {}, doc! { "$set": { "lifted": true } }).await, &free).await;
    // Whether a closure that names the file in a document is lifted is not known.
    let unknown = doc! { "$set": { "refs": [{ "file": { "_id": id(2) } }], "lifted": "yes" } };
    two.notice(live.update("closures", doc! {}, unknown).await, &all_unknown).await;
    two.notice(live.delete("closures", doc! {}).await, &free).await;
}
