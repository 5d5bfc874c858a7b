//! Freshness over a real replica set: what is remembered stays true.

use bson::{Document, doc, oid::ObjectId};
use permcached::check::Demand;

use crate::support::live::{Live, at_least};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner_id" }
guest = { collection = "shares", by = "file_id", field = "user_id", where = { active = true } }

[resource.file.permissions]
read = "owner | guest"
"#;

fn id(number: u8) -> ObjectId {
    ObjectId::from_bytes([number; 12])
}

fn file(number: u8) -> Document {
    doc! { "_id": id(number), "owner_id": id(100) }
}

#[tokio::test]
async fn a_deleted_share_is_denied_at_once() {
    let live = Live::new(
        SCHEMA,
        &[
            ("files", vec![file(1)]),
            ("shares", vec![doc! { "_id": id(50), "file_id": id(1), "user_id": id(101), "active": true }]),
        ],
    )
    .await;
    let question = live.question(&format!("user:{}", id(101)), "read", &format!("file:{}", id(1)));
    assert_eq!(live.says(&question, Demand::MinimizeLatency).await, "allowed by file#guest");
    let _remembered = live.remembers(&question).await;
    let moment = live.run(doc! { "delete": "shares", "deletes": [{ "q": { "_id": id(50) }, "limit": 1 }] }).await;
    assert_eq!(live.says(&question, at_least(moment)).await, "denied NO_GRANT");
    live.heard(moment).await;
    assert_eq!(live.says(&question, Demand::MinimizeLatency).await, "denied NO_GRANT");
}
