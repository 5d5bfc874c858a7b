//! Relations that grow past the limit of a fact and shrink below it: facts that are filtered to a subject begin and end to decide
//! through the change stream as whole ones do.

use bson::{Document, doc};

use crate::support::live::Two;

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "integer"

[resource.hall]
id = "integer"
collection = "halls"

[resource.hall.relations]
member = { collection = "memberships", by = "hall", field = "user" }
banned = { collection = "bans", by = "hall", field = "user" }
listed = { field = "users" }
barred = { field = "barred" }

[resource.hall.permissions]
enter = "member"
stay  = "!banned & member"
list  = "listed"
pass  = "!barred & listed"
"#;

const MEMBER: &str = "allowed by hall#member";
const LISTED: &str = "allowed by hall#listed";
const NO_GRANT: &str = "denied NO_GRANT";
const EXCLUDED: &str = "denied EXCLUDED";

/// As many documents as a whole fact may contain.
const DOCUMENTS: i32 = 1_000;

/// As many ids as a whole fact may nearly contain: 12 bytes each, of 256 KiB.
const IDS: i32 = 21_840;

fn related(first: i32, count: i32) -> Vec<Document> {
    (first..first + count).map(|user| doc! { "_id": user, "hall": 1, "user": user }).collect()
}

#[tokio::test]
async fn documents_beyond_the_limit_and_back() {
    let all = [
        ("halls", vec![doc! { "_id": 1 }]),
        ("memberships", related(7, DOCUMENTS)),
        ("bans", related(100_000, DOCUMENTS)),
    ];
    let two = Two::new(SCHEMA, &all).await;
    let live = &two.first;
    let asks = |user: i32, permission: &str| live.question(&format!("user:{user}"), permission, "hall:1");
    let (old, new) = (asks(7, "enter"), asks(5_000, "enter"));
    let (old_stays, new_stays) = (asks(7, "stay"), asks(5_000, "stay"));
    let answers = |enter: [&'static str; 2], stay: [&'static str; 2]| {
        [(&old, enter[0]), (&new, enter[1]), (&old_stays, stay[0]), (&new_stays, stay[1])]
    };
    let excluded = |user: i32| doc! { "_id": user };
    two.until_cached(&answers([MEMBER, NO_GRANT], [MEMBER, NO_GRANT])).await;
    // Past the limit.
    let moment = live.insert("memberships", related(5_000, 1)).await;
    two.notice(moment, &answers([MEMBER, MEMBER], [MEMBER, MEMBER])).await;
    let moment = live.insert("bans", related(5_000, 1)).await;
    two.notice(moment, &answers([MEMBER, MEMBER], [MEMBER, EXCLUDED])).await;
    // Beyond it: documents begin and cease to name the subject.
    let rename = |user: i32| doc! { "$set": { "user": user } };
    let moment = live.update("bans", excluded(5_000), rename(7)).await;
    two.notice(moment, &answers([MEMBER, MEMBER], [EXCLUDED, MEMBER])).await;
    let moment = live.update("bans", excluded(5_000), doc! { "$set": { "hall": 2 } }).await;
    two.notice(moment, &answers([MEMBER, MEMBER], [MEMBER, MEMBER])).await;
    let moment = live.update("bans", excluded(5_000), doc! { "$set": { "hall": 1 } }).await;
    two.notice(moment, &answers([MEMBER, MEMBER], [EXCLUDED, MEMBER])).await;
    // Below it again.
    let moment = live.delete("memberships", excluded(7)).await;
    two.notice(moment, &answers([NO_GRANT, MEMBER], [EXCLUDED, MEMBER])).await;
    let moment = live.delete("bans", excluded(5_000)).await;
    two.notice(moment, &answers([NO_GRANT, MEMBER], [NO_GRANT, MEMBER])).await;
    // And past it once more, by others.
    live.insert("bans", related(200_000, 20)).await;
    let moment = live.insert("memberships", related(7, 1)).await;
    two.notice(moment, &answers([MEMBER, MEMBER], [MEMBER, MEMBER])).await;
    let moment = live.update("bans", excluded(200_007), rename(5_000)).await;
    two.notice(moment, &answers([MEMBER, MEMBER], [MEMBER, EXCLUDED])).await;
    let moment =
        live.run(doc! { "delete": "bans", "deletes": [{ "q": { "_id": { "$gte": 200_000 } }, "limit": 0 }] }).await;
    two.notice(moment, &answers([MEMBER, MEMBER], [MEMBER, MEMBER])).await;
}

#[tokio::test]
async fn documents_far_below_the_limit_beyond_it_and_back() {
    let few = 50;
    let all = [("halls", vec![doc! { "_id": 1 }]), ("memberships", related(7, few)), ("bans", related(100_000, few))];
    let two = Two::new(SCHEMA, &all).await;
    let live = &two.first;
    let asks = |user: i32, permission: &str| live.question(&format!("user:{user}"), permission, "hall:1");
    let (old, new) = (asks(7, "enter"), asks(5_000, "enter"));
    let (old_stays, new_stays) = (asks(7, "stay"), asks(5_000, "stay"));
    let answers = |enter: [&'static str; 2], stay: [&'static str; 2]| {
        [(&old, enter[0]), (&new, enter[1]), (&old_stays, stay[0]), (&new_stays, stay[1])]
    };
    let only = |user: i32| doc! { "_id": user };
    let rename = |user: i32| doc! { "$set": { "user": user } };
    let remove_others = async |collection: &str| {
        let deletes = vec![doc! { "q": { "_id": { "$gte": 200_000 } }, "limit": 0 }];
        live.run(doc! { "delete": collection, "deletes": deletes }).await
    };
    two.until_cached(&answers([MEMBER, NO_GRANT], [MEMBER, NO_GRANT])).await;
    // The first time, permcached learns that these groups can be large. Then it knows.
    for (first, others) in [(200_000, DOCUMENTS), (300_000, DOCUMENTS), (400_000, 300)] {
        live.insert("memberships", related(first, others)).await;
        let moment = live.insert("bans", related(first, others)).await;
        two.notice(moment, &answers([MEMBER, NO_GRANT], [MEMBER, NO_GRANT])).await;
        let moment = live.update("bans", only(first), rename(7)).await;
        two.notice(moment, &answers([MEMBER, NO_GRANT], [EXCLUDED, NO_GRANT])).await;
        let moment = live.update("memberships", only(first + 1), rename(5_000)).await;
        two.notice(moment, &answers([MEMBER, MEMBER], [EXCLUDED, MEMBER])).await;
        // Few are left of one relation, and then of the other.
        let moment = remove_others("bans").await;
        two.notice(moment, &answers([MEMBER, MEMBER], [MEMBER, MEMBER])).await;
        let moment = live.update("bans", only(100_000), rename(5_000)).await;
        two.notice(moment, &answers([MEMBER, MEMBER], [MEMBER, EXCLUDED])).await;
        let moment = live.update("bans", only(100_000), rename(100_000)).await;
        two.notice(moment, &answers([MEMBER, MEMBER], [MEMBER, MEMBER])).await;
        let moment = remove_others("memberships").await;
        two.notice(moment, &answers([MEMBER, NO_GRANT], [MEMBER, NO_GRANT])).await;
        let moment = live.update("memberships", only(7), rename(5_000)).await;
        two.notice(moment, &answers([NO_GRANT, MEMBER], [NO_GRANT, MEMBER])).await;
        let moment = live.update("memberships", only(7), rename(7)).await;
        two.notice(moment, &answers([MEMBER, NO_GRANT], [MEMBER, NO_GRANT])).await;
    }
}

#[tokio::test]
async fn arrays_beyond_the_limit_and_back() {
    let ids = |first: i32, count: i32| (first..first + count).collect::<Vec<i32>>();
    let users = [ids(1_000, IDS / 2), vec![7]].concat();
    let hall = doc! { "_id": 1, "users": users, "barred": ids(100_000, IDS / 2 - 2) };
    let two = Two::new(SCHEMA, &[("halls", vec![hall])]).await;
    let live = &two.first;
    let asks = |user: i32, permission: &str| live.question(&format!("user:{user}"), permission, "hall:1");
    let (old, new, old_passes, new_passes) = (asks(7, "list"), asks(9, "list"), asks(7, "pass"), asks(9, "pass"));
    let answers = |list: [&'static str; 2], pass: [&'static str; 2]| {
        [(&old, list[0]), (&new, list[1]), (&old_passes, pass[0]), (&new_passes, pass[1])]
    };
    let push = |field: &str, user: i32| {
        let users = [ids(500_000, 50), vec![user]].concat();
        doc! { "$push": { field: { "$each": users } } }
    };
    let pull = |field: &str, user: i32| doc! { "$pull": { field: user } };
    let pull_others = |field: &str| doc! { "$pull": { field: { "$gte": 500_000 } } };
    two.until_cached(&answers([LISTED, NO_GRANT], [LISTED, NO_GRANT])).await;
    // Past the limit.
    let moment = live.update("halls", doc! {}, push("users", 9)).await;
    two.notice(moment, &answers([LISTED, LISTED], [LISTED, LISTED])).await;
    let moment = live.update("halls", doc! {}, push("barred", 9)).await;
    two.notice(moment, &answers([LISTED, LISTED], [LISTED, EXCLUDED])).await;
    // Beyond it.
    let moment = live.update("halls", doc! {}, pull("users", 7)).await;
    two.notice(moment, &answers([NO_GRANT, LISTED], [NO_GRANT, EXCLUDED])).await;
    let moment = live.update("halls", doc! {}, pull("barred", 9)).await;
    two.notice(moment, &answers([NO_GRANT, LISTED], [NO_GRANT, LISTED])).await;
    let moment = live.update("halls", doc! {}, doc! { "$push": { "barred": 9, "users": 7 } }).await;
    two.notice(moment, &answers([LISTED, LISTED], [LISTED, EXCLUDED])).await;
    // Below it again.
    live.update("halls", doc! {}, pull_others("users")).await;
    let moment = live.update("halls", doc! {}, pull_others("barred")).await;
    two.notice(moment, &answers([LISTED, LISTED], [LISTED, EXCLUDED])).await;
    let moment = live.update("halls", doc! {}, pull("barred", 9)).await;
    two.notice(moment, &answers([LISTED, LISTED], [LISTED, LISTED])).await;
}
