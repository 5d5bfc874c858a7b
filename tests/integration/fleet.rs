//! Several instances over one database and one Redis: every instance sees every change, and faults of Redis cost speed and
//! nothing else (docs/freshness.md, points 3, 8 to 11 and 13).
//!
//! The facts in Redis have tests of their own: `shared_facts`.

mod beside_application;
mod cluster;
mod log;
mod outage;
mod secured;
mod setbacks;
mod leaders;
mod neighbour;
mod together;
mod versions;

use bson::{Document, doc, oid::ObjectId};
use permcached::question::Question;

use crate::support::live::Live;

pub const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]

[resource.folder]
collection = "folders"

[resource.folder.relations]
owner = { field = "owner_id" }

[resource.folder.permissions]
read = "owner"

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner_id" }
folder = { field = "folder_id", resource = "folder" }
guest = { collection = "shares", by = "file_id", field = "user_id" }

[resource.file.permissions]
read = "owner | guest | folder.read"
"#;

pub const USER: u8 = 101;
pub const OWNER: u8 = 100;
pub const FILE: u8 = 1;
pub const SHARE: u8 = 51;

pub const GUEST: &str = "allowed by file#guest";
pub const NO_GRANT: &str = "denied NO_GRANT";

pub fn id(number: u8) -> ObjectId {
    ObjectId::from_bytes([number; 12])
}

pub fn share(number: u8, file: u8) -> Document {
    doc! { "_id": id(number), "file_id": id(file), "user_id": id(USER) }
}

/// A file, and a share of it.
pub fn shared_file() -> [(&'static str, Vec<Document>); 2] {
    [("files", vec![doc! { "_id": id(FILE), "owner_id": id(OWNER) }]), ("shares", vec![share(SHARE, FILE)])]
}

/// The question whether the guest may read a file.
pub fn reads(live: &Live, file: u8) -> Question {
    live.question(&format!("user:{}", id(USER)), "read", &format!("file:{}", id(file)))
}
