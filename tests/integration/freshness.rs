//! Freshness over a real replica set: cached facts stay true, whatever is written.
//!
//! Many tests have two instances (`Two`): the first is asked with the moment of a change, the second only receives the
//! change. Several instances over one Redis are tested in `fleet`.

mod bound;
mod collections;
mod deposed;
mod documents;
mod feed;
mod floods;
mod instance;
mod invalidation;
mod large;
mod moments;
mod odd;
mod other_forms;
mod outage;
mod reverse;
mod single;
mod singleflight;
mod streams;
mod unreadable;

use bson::{Document, doc, oid::ObjectId};
use permcached::question::Question;

use crate::support::live::Live;

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
collection = "users"
where = { is_active = { "$ne" = false } }

[resource.team]
collection = "teams"

[resource.team.relations]
member = { each = "members", field = "user_id" }

[resource.team.permissions]
view = "member"

[resource.folder]
collection = "folders"

[resource.folder.relations]
owner = { field = "owner_id" }
parent = { field = "parent_id", resource = "folder" }

[resource.folder.permissions]
read = "owner | parent.read"

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner_id" }
deleted = { where = { is_deleted = true } }
folder = { field = "folder_id", resource = "folder" }
editor = { field = "editor_ids" }
reader = { each = "readers", field = "user_id", where = { level = "read" } }
reviewer = { field = "team_id", subject = "team.member" }
guest = { collection = "shares", by = "file_id", field = "user_id", where = { active = true }, until = "expires_at" }

[resource.file.permissions]
read = "!deleted & (owner | editor | reader | reviewer | guest | folder.read)"
"#;

/// The user who asks.
const USER: u8 = 101;

/// The owner of everything.
const OWNER: u8 = 100;

const GUEST: &str = "allowed by file#guest";
const NO_GRANT: &str = "denied NO_GRANT";

fn id(number: u8) -> ObjectId {
    ObjectId::from_bytes([number; 12])
}

fn user(number: u8) -> Document {
    doc! { "_id": id(number), "is_active": true }
}

fn users() -> (&'static str, Vec<Document>) {
    ("users", vec![user(OWNER), user(USER)])
}

fn file(number: u8) -> Document {
    doc! { "_id": id(number), "owner_id": id(OWNER) }
}

/// A file with more fields.
fn file_with(number: u8, fields: Document) -> Document {
    let mut file = file(number);
    file.extend(fields);
    file
}

fn share(number: u8, file: u8) -> Document {
    doc! { "_id": id(number), "file_id": id(file), "user_id": id(USER), "active": true }
}

/// The question whether a user may read a file.
fn reads(live: &Live, user: u8, file: u8) -> Question {
    live.question(&format!("user:{}", id(user)), "read", &format!("file:{}", id(file)))
}
