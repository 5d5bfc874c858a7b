//! A change of the subject's own document, or of a document that names it, shows in the next answers: over the change stream,
//! and at once to a request with the token of the change.

use bson::{DateTime, doc};

use super::date;
use crate::support::live::Two;

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"
collection = "users"
until = "suspended_at"

[subject.user.relations]
admin  = { where = { role = "admin" } }
teams  = { field = "team_ids", resource = "team" }
groups = { collection = "memberships", by = "user_id", field = "group_id", resource = "group", until = "ends_at" }
banned = { collection = "bans", by = "user_id" }

[resource.team]
id = "string"

[resource.team.relations]
member = { of = "user.teams" }

[resource.group]
id = "string"

[resource.group.relations]
member = { of = "user.groups" }

[resource.page]
id = "string"
collection = "pages"

[resource.page.relations]
team   = { field = "team_id", resource = "team" }
group  = { field = "group_ids", resource = "group" }

[resource.page.permissions]
edit  = "subject.admin"
write = "team.member"
read  = "!subject.banned & group.member"
"#;

async fn two() -> Two {
    let pages = vec![doc! { "_id": "home", "team_id": "web", "group_ids": ["eng", "ops"] }];
    let users = vec![
        doc! { "_id": "ann", "role": "admin", "team_ids": ["web", "hr"] },
        doc! { "_id": "bob", "role": "editor", "team_ids": [] },
    ];
    let memberships = vec![doc! { "_id": 1, "user_id": "ann", "group_id": "eng" }];
    Two::new(SCHEMA, &[("pages", pages), ("users", users), ("memberships", memberships), ("bans", Vec::new())]).await
}

#[tokio::test]
async fn a_role_that_is_revoked_in_the_subjects_document_is_denied() {
    let two = two().await;
    let ann = two.first.question("user:ann", "edit", "page:home");
    let bob = two.first.question("user:bob", "edit", "page:home");
    let (admin, none) = ("allowed by user#admin", "denied NO_GRANT");
    two.until_cached(&[(&ann, admin), (&bob, none)]).await;
    let revoked = two.first.update("users", doc! { "_id": "ann" }, doc! { "$set": { "role": "editor" } }).await;
    two.notice(revoked, &[(&ann, none), (&bob, none)]).await;
    let granted = two.first.update("users", doc! { "_id": "bob" }, doc! { "$set": { "role": ["admin"] } }).await;
    two.notice(granted, &[(&ann, none), (&bob, admin)]).await;
    let replaced = two.first.update("users", doc! { "_id": "bob" }, doc! { "team_ids": ["web"] }).await;
    two.notice(replaced, &[(&bob, none)]).await;
}

#[tokio::test]
async fn a_team_that_leaves_the_subjects_document_is_denied() {
    let two = two().await;
    let ann = two.first.question("user:ann", "write", "page:home");
    let bob = two.first.question("user:bob", "write", "page:home");
    let (member, none) = ("allowed by team#member", "denied NO_GRANT");
    two.until_cached(&[(&ann, member), (&bob, none)]).await;
    let pulled = two.first.update("users", doc! { "_id": "ann" }, doc! { "$pull": { "team_ids": "web" } }).await;
    two.notice(pulled, &[(&ann, none), (&bob, none)]).await;
    let pushed = two.first.update("users", doc! { "_id": "bob" }, doc! { "$push": { "team_ids": "web" } }).await;
    two.notice(pushed, &[(&ann, none), (&bob, member)]).await;
    let deleted = two.first.delete("users", doc! { "_id": "bob" }).await;
    two.notice(deleted, &[(&bob, "denied SUBJECT_INACTIVE")]).await;
}

#[tokio::test]
async fn a_membership_that_ends_or_moves_to_another_user_is_denied() {
    let two = two().await;
    let ann = two.first.question("user:ann", "read", "page:home");
    let bob = two.first.question("user:bob", "read", "page:home");
    let (member, none) = ("allowed by group#member", "denied NO_GRANT");
    two.until_cached(&[(&ann, member), (&bob, none)]).await;
    let moved = two.first.update("memberships", doc! { "_id": 1 }, doc! { "$set": { "user_id": "bob" } }).await;
    two.notice(moved, &[(&ann, none), (&bob, member)]).await;
    let ended = DateTime::from_millis(DateTime::now().timestamp_millis() - 1);
    let ended = two.first.update("memberships", doc! { "_id": 1 }, doc! { "$set": { "ends_at": ended } }).await;
    two.notice(ended, &[(&bob, "denied EXPIRED")]).await;
    let inserted = two.first.insert("memberships", vec![doc! { "_id": 2, "user_id": "bob", "group_id": "ops" }]).await;
    two.notice(inserted, &[(&bob, member)]).await;
    let deleted = two.first.delete("memberships", doc! { "_id": 2 }).await;
    two.notice(deleted, &[(&bob, "denied EXPIRED")]).await;
}

#[tokio::test]
async fn a_ban_of_the_subject_counts_from_its_insertion_to_its_removal() {
    let two = two().await;
    let ann = two.first.question("user:ann", "read", "page:home");
    let member = "allowed by group#member";
    two.until_cached(&[(&ann, member)]).await;
    let banned = two.first.insert("bans", vec![doc! { "_id": 1, "user_id": "ann" }]).await;
    two.notice(banned, &[(&ann, "denied EXCLUDED")]).await;
    let lifted = two.first.delete("bans", doc! { "_id": 1 }).await;
    two.notice(lifted, &[(&ann, member)]).await;
}

#[tokio::test]
async fn a_suspension_in_the_past_makes_the_subject_inactive_until_it_is_lifted() {
    let two = two().await;
    let ann = two.first.question("user:ann", "edit", "page:home");
    two.until_cached(&[(&ann, "allowed by user#admin")]).await;
    let past = date("2026-01-01T00:00:00Z");
    let suspended = two.first.update("users", doc! { "_id": "ann" }, doc! { "$set": { "suspended_at": past } }).await;
    two.notice(suspended, &[(&ann, "denied SUBJECT_INACTIVE")]).await;
    let lifted = two.first.update("users", doc! { "_id": "ann" }, doc! { "$unset": { "suspended_at": "" } }).await;
    two.notice(lifted, &[(&ann, "allowed by user#admin")]).await;
}
