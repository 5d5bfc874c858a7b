//! Changes of `LibreChat`'s documents show in the next answers: over the change stream, and at once to a request with the token of
//! the change. The documents are those of `examples/librechat`, the schema is the shipped one.

use std::{fs, path::Path};

use bson::{Bson, Document, doc, oid::ObjectId};
use permcached::{freshness::Moment, question::Question};

use super::{documents_in, schemas};
use crate::support::{both::shipped_schema, live::Two};

const ADA: &str = "user:a5e400000000000000000001";
const GUS: &str = "user:a5e400000000000000000003";
const ELI: &str = "user:a5e400000000000000000004";
const REA: &str = "user:a5e400000000000000000005";
const ZED: &str = "user:a5e400000000000000000006";

/// An agent on which only its owner has an entry.
const OWNED: &str = "agent:a9e700000000000000000001";
/// An agent on which the editors have an entry, and the researchers of a directory.
const GROUPED: &str = "agent:a9e700000000000000000002";
/// An agent that everybody may view.
const PUBLIC: &str = "agent:a9e700000000000000000003";

const NONE: &str = "denied NO_GRANT";

/// The id of `user:…` or `agent:…`.
fn oid(name: &str) -> ObjectId {
    let (_, id) = name.split_once(':').expect("type:id");
    id.parse().expect("an ObjectId")
}

/// An entry with these bits of a user on an agent.
fn entry(id: i32, user: &str, agent: &str, bits: i32) -> Document {
    doc! {
        "_id": id, "principalType": "user", "principalId": oid(user), "principalModel": "User",
        "resourceType": "agent", "resourceId": oid(agent), "permBits": bits,
    }
}

/// Two applications over the sample documents.
struct LibreChat(Two);

impl LibreChat {
    async fn new() -> Self {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/librechat");
        let documents = documents_in(&samples, &shipped_schema("librechat.toml"));
        let collections: Vec<_> =
            documents.iter().map(|(name, documents)| (name.as_str(), documents.clone())).collect();
        let text = fs::read_to_string(schemas().join("librechat.toml")).expect("the schema is shipped");
        Self(Two::new(&text, &collections).await)
    }

    /// The questions whether a subject may view, edit, delete and share a resource.
    fn questions(&self, subject: &str, resource: &str) -> [Question; 4] {
        ["view", "edit", "delete", "share"].map(|permission| self.0.first.question(subject, permission, resource))
    }

    /// Waits until both applications have these answers cached.
    async fn before(&self, questions: &[Question; 4], answers: [&str; 4]) {
        self.0.until_cached(&Self::paired(questions, answers)).await;
    }

    /// Asserts these answers after a change at this moment.
    async fn after(&self, moment: Moment, questions: &[Question; 4], answers: [&str; 4]) {
        self.0.notice(moment, &Self::paired(questions, answers)).await;
    }

    fn paired<'a>(questions: &'a [Question; 4], answers: [&'a str; 4]) -> Vec<(&'a Question, &'a str)> {
        questions.iter().zip(answers).collect()
    }

    async fn insert(&self, entry: Document) -> Moment {
        self.0.first.insert("aclentries", vec![entry]).await
    }

    async fn update(&self, collection: &str, id: impl Into<Bson>, update: impl Into<Bson>) -> Moment {
        self.0.first.update(collection, doc! { "_id": id.into() }, update).await
    }

    async fn delete(&self, collection: &str, id: impl Into<Bson>) -> Moment {
        self.0.first.delete(collection, doc! { "_id": id.into() }).await
    }
}

#[tokio::test]
async fn bits_that_are_granted_raised_and_taken_away_count_at_once() {
    let chat = LibreChat::new().await;
    let zed = chat.questions(ZED, OWNED);
    let (view, edit) = ("allowed by agent#viewers", "allowed by agent#editors");
    let (delete, share) = ("allowed by agent#deleters", "allowed by agent#sharers");
    chat.before(&zed, [NONE; 4]).await;
    let granted = chat.insert(entry(1, ZED, OWNED, 1)).await;
    chat.after(granted, &zed, [view, NONE, NONE, NONE]).await;
    let raised = chat.update("aclentries", 1, doc! { "$set": { "permBits": 3 } }).await;
    chat.after(raised, &zed, [view, edit, NONE, NONE]).await;
    let added = chat.update("aclentries", 1, doc! { "$bit": { "permBits": { "or": 12 } } }).await;
    chat.after(added, &zed, [view, edit, delete, share]).await;
    let removed = chat.update("aclentries", 1, doc! { "$bit": { "permBits": { "and": !2 } } }).await;
    chat.after(removed, &zed, [view, NONE, delete, share]).await;
    let computed =
        chat.update("aclentries", 1, vec![doc! { "$set": { "permBits": { "$mod": ["$permBits", 4] } } }]).await;
    chat.after(computed, &zed, [view, NONE, NONE, NONE]).await;
    let emptied = chat.update("aclentries", 1, doc! { "$set": { "permBits": 0 } }).await;
    chat.after(emptied, &zed, [NONE; 4]).await;
}

#[tokio::test]
async fn bits_of_a_wrong_type_grant_nothing_until_they_are_corrected() {
    let chat = LibreChat::new().await;
    let zed = chat.questions(ZED, OWNED);
    let view = "allowed by agent#viewers";
    chat.before(&zed, [NONE; 4]).await;
    // A text has no bits, so mongod does not find it: it is as if there were no entry.
    let mut text = entry(1, ZED, OWNED, 15);
    text.insert("permBits", "15");
    let text = chat.insert(text).await;
    chat.after(text, &zed, [NONE; 4]).await;
    let corrected = chat.update("aclentries", 1, doc! { "$set": { "permBits": 1_i64 } }).await;
    chat.after(corrected, &zed, [view, NONE, NONE, NONE]).await;
    // In an array, mongod finds the entry by its first element, and the second is of a wrong type.
    let unknown = "denied MALFORMED";
    let array = chat.update("aclentries", 1, doc! { "$set": { "permBits": [15, "15"] } }).await;
    chat.after(array, &zed, [unknown; 4]).await;
    let corrected = chat.update("aclentries", 1, doc! { "$set": { "permBits": 1.0 } }).await;
    chat.after(corrected, &zed, [view, NONE, NONE, NONE]).await;
}

#[tokio::test]
async fn an_entry_for_everybody_counts_for_users_until_it_is_removed() {
    let chat = LibreChat::new().await;
    let [eli, nobody] = [ELI, "anonymous"].map(|subject| chat.questions(subject, PUBLIC));
    let (view, edit) = ("allowed by agent#all_view", "allowed by agent#all_edit");
    chat.before(&eli, [view, NONE, NONE, NONE]).await;
    chat.before(&nobody, [NONE; 4]).await;
    let id: ObjectId = "ac1e00000000000000000007".parse().expect("the entry for everybody");
    let raised = chat.update("aclentries", id, doc! { "$set": { "permBits": 3 } }).await;
    chat.after(raised, &eli, [view, edit, NONE, NONE]).await;
    chat.after(raised, &nobody, [NONE; 4]).await;
    let removed = chat.delete("aclentries", id).await;
    chat.after(removed, &eli, [NONE; 4]).await;
    let owned = chat.questions(ELI, OWNED);
    chat.before(&owned, [NONE; 4]).await;
    let mut public = entry(1, ELI, OWNED, 9);
    public.insert("principalType", "public");
    public.remove("principalId");
    let opened = chat.insert(public).await;
    chat.after(opened, &owned, [view, NONE, NONE, "allowed by agent#all_share"]).await;
}

#[tokio::test]
async fn members_of_a_group_by_text_count_from_the_day_they_join_until_they_leave() {
    let chat = LibreChat::new().await;
    let [gus, zed, eli] = [GUS, ZED, ELI].map(|subject| chat.questions(subject, GROUPED));
    let (view, edit) = ("allowed by agent#viewers", "allowed by agent#editors");
    let (editor, reader, nothing) = ([view, edit, NONE, NONE], [view, NONE, NONE, NONE], [NONE; 4]);
    chat.before(&gus, editor).await;
    chat.before(&zed, nothing).await;
    chat.before(&eli, reader).await;
    let editors: ObjectId = "940b00000000000000000001".parse().expect("the editors");
    let research: ObjectId = "940b00000000000000000002".parse().expect("the researchers");
    let joined = chat.update("groups", editors, doc! { "$push": { "memberIds": oid(ZED).to_hex() } }).await;
    chat.after(joined, &zed, editor).await;
    let left = chat.update("groups", editors, doc! { "$pull": { "memberIds": oid(GUS).to_hex() } }).await;
    chat.after(left, &gus, nothing).await;
    chat.after(left, &zed, editor).await;
    // A user that gets an id in a directory counts by that id alone.
    let linked = chat.update("users", oid(ZED), doc! { "$set": { "idOnTheSource": "zed@directory" } }).await;
    chat.after(linked, &zed, nothing).await;
    let synchronized = chat.update("groups", research, doc! { "$set": { "memberIds": ["zed@directory"] } }).await;
    chat.after(synchronized, &zed, reader).await;
    chat.after(synchronized, &eli, nothing).await;
    let unlinked = chat.update("users", oid(ZED), doc! { "$unset": { "idOnTheSource": "" } }).await;
    chat.after(unlinked, &zed, editor).await;
    let dissolved = chat.delete("groups", editors).await;
    chat.after(dissolved, &zed, nothing).await;
}

#[tokio::test]
async fn deleting_an_entry_takes_its_bits_away() {
    let chat = LibreChat::new().await;
    let [zed, gus] = [ZED, GUS].map(|subject| chat.questions(subject, OWNED));
    let view = "allowed by agent#viewers";
    chat.insert(entry(1, ZED, OWNED, 1)).await;
    let granted = chat.insert(entry(2, GUS, OWNED, 1)).await;
    chat.after(granted, &zed, [view, NONE, NONE, NONE]).await;
    chat.after(granted, &gus, [view, NONE, NONE, NONE]).await;
    let revoked = chat.delete("aclentries", 1).await;
    chat.after(revoked, &zed, [NONE; 4]).await;
    chat.after(revoked, &gus, [view, NONE, NONE, NONE]).await;
    // As when the agent is deleted: all of its entries, then its document.
    let all = doc! { "delete": "aclentries", "deletes": [{ "q": { "resourceId": oid(OWNED) }, "limit": 0 }] };
    let all = chat.0.first.run(all).await;
    chat.after(all, &gus, [NONE; 4]).await;
    let gone = chat.delete("agents", oid(OWNED)).await;
    chat.after(gone, &gus, ["denied NOT_FOUND"; 4]).await;
}

#[tokio::test]
async fn an_entry_that_changes_to_another_principal_counts_for_that_one_alone() {
    let chat = LibreChat::new().await;
    let [zed, gus, rea] = [ZED, GUS, REA].map(|subject| chat.questions(subject, OWNED));
    let (view, edit) = ("allowed by agent#viewers", "allowed by agent#editors");
    let (editor, nothing) = ([view, edit, NONE, NONE], [NONE; 4]);
    chat.insert(entry(1, ZED, OWNED, 3)).await;
    chat.before(&zed, editor).await;
    chat.before(&gus, nothing).await;
    chat.before(&rea, nothing).await;
    let moved = chat.update("aclentries", 1, doc! { "$set": { "principalId": oid(GUS) } }).await;
    chat.after(moved, &zed, nothing).await;
    chat.after(moved, &gus, editor).await;
    let role = doc! { "$set": { "principalType": "role", "principalId": "RESEARCHER", "principalModel": "Role" } };
    let role = chat.update("aclentries", 1, role).await;
    chat.after(role, &gus, nothing).await;
    chat.after(role, &rea, editor).await;
    let group: ObjectId = "940b00000000000000000001".parse().expect("the editors");
    let group = doc! { "$set": { "principalType": "group", "principalId": group, "principalModel": "Group" } };
    let group = chat.update("aclentries", 1, group).await;
    chat.after(group, &rea, nothing).await;
    chat.after(group, &gus, editor).await;
    let public = doc! { "$set": { "principalType": "public" }, "$unset": { "principalId": "", "principalModel": "" } };
    let public = chat.update("aclentries", 1, public).await;
    let everybody = ["allowed by agent#all_view", "allowed by agent#all_edit", NONE, NONE];
    chat.after(public, &zed, everybody).await;
    chat.after(public, &rea, everybody).await;
}

#[tokio::test]
async fn an_entry_that_changes_to_another_resource_counts_for_that_one_alone() {
    let chat = LibreChat::new().await;
    let owned = chat.questions(ZED, OWNED);
    let grouped = chat.questions(ZED, GROUPED);
    let remote = chat.questions(ZED, &OWNED.replace("agent", "remoteAgent"));
    let viewer = ["allowed by agent#viewers", "allowed by remoteAgent#viewers"];
    let [here, there] = viewer.map(|view| [view, NONE, NONE, NONE]);
    chat.insert(entry(1, ZED, OWNED, 1)).await;
    chat.before(&owned, here).await;
    chat.before(&grouped, [NONE; 4]).await;
    chat.before(&remote, [NONE; 4]).await;
    let other_type = chat.update("aclentries", 1, doc! { "$set": { "resourceType": "remoteAgent" } }).await;
    chat.after(other_type, &owned, [NONE; 4]).await;
    chat.after(other_type, &remote, there).await;
    let replaced = chat.update("aclentries", 1, entry(1, ZED, GROUPED, 1)).await;
    chat.after(replaced, &remote, [NONE; 4]).await;
    chat.after(replaced, &grouped, here).await;
}

#[tokio::test]
async fn a_user_whose_role_changes_has_the_bits_of_the_new_one() {
    let chat = LibreChat::new().await;
    let zed = chat.questions(ZED, OWNED);
    let ada = chat.questions(ADA, OWNED);
    let admin = ["allowed by user#admin"; 4];
    let mut researchers = entry(1, ZED, OWNED, 5);
    researchers.insert("principalType", "role");
    researchers.insert("principalId", "RESEARCHER");
    chat.insert(researchers).await;
    chat.before(&zed, [NONE; 4]).await;
    chat.before(&ada, admin).await;
    let researcher = chat.update("users", oid(ZED), doc! { "$set": { "role": "RESEARCHER" } }).await;
    let bits = ["allowed by agent#viewers", NONE, "allowed by agent#deleters", NONE];
    chat.after(researcher, &zed, bits).await;
    let promoted = chat.update("users", oid(ZED), doc! { "$set": { "role": "ADMIN" } }).await;
    chat.after(promoted, &zed, admin).await;
    let demoted = chat.update("users", oid(ADA), doc! { "$set": { "role": "RESEARCHER" } }).await;
    chat.after(demoted, &ada, bits).await;
    let removed = chat.delete("users", oid(ADA)).await;
    chat.after(removed, &ada, ["denied SUBJECT_INACTIVE"; 4]).await;
}
