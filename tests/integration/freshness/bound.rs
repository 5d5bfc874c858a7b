//! The bound: whatever write ends a grant, no answer after `MAX_STALENESS` still allows it, even if the change stream is
//! silent.
//!
//! Each case is one write. What the change stream makes of it is tested in `documents`.

use std::time::{Duration, Instant};

use bson::{Bson, DateTime, Document, doc};
use permcached::{
    check::{Consistency, Settings},
    question::{Question, Tier},
};
use tokio::time::{sleep, timeout};

use super::{GUEST, OWNER, SCHEMA, USER, file, file_with, id, reads, share, user};
use crate::support::{
    both::{TIME_MAX, shown},
    live::Live,
    monitored::FailPoint,
    servers::mongo,
};

const BOUND: Duration = Duration::from_millis(800);

/// A grant by which the user may read a file, and one write that ends it.
struct Case {
    /// The kind of relation, and the write.
    name: &'static str,
    /// The file and the documents of the grant. Their ids are the number of the case, or 60 more, or 120 more.
    documents: fn(u8) -> Vec<(&'static str, Document)>,
    /// The command that ends the grant.
    write: fn(u8) -> Document,
}

fn update(collection: &str, of: u8, change: impl Into<Bson>) -> Document {
    doc! { "update": collection, "updates": [{ "q": { "_id": id(of) }, "u": change.into() }] }
}

fn set(collection: &str, of: u8, fields: Document) -> Document {
    update(collection, of, doc! { "$set": fields })
}

fn delete(collection: &str, of: u8) -> Document {
    doc! { "delete": collection, "deletes": [{ "q": { "_id": id(of) }, "limit": 1 }] }
}

fn owned(n: u8) -> Vec<(&'static str, Document)> {
    vec![("files", doc! { "_id": id(n), "owner_id": id(USER) })]
}

fn edited(n: u8) -> Vec<(&'static str, Document)> {
    vec![("files", file_with(n, doc! { "editor_ids": [id(OWNER), id(USER)] }))]
}

fn read(n: u8) -> Vec<(&'static str, Document)> {
    let readers = doc! { "readers": [{ "user_id": id(OWNER) }, { "user_id": id(USER), "level": "read" }] };
    vec![("files", file_with(n, readers))]
}

fn shared(n: u8) -> Vec<(&'static str, Document)> {
    vec![("files", file(n)), ("shares", share(n, n))]
}

fn reviewed(n: u8) -> Vec<(&'static str, Document)> {
    let team = doc! { "_id": id(n), "members": [{ "user_id": id(USER) }] };
    vec![("files", file_with(n, doc! { "team_id": id(n) })), ("teams", team)]
}

fn in_folder(n: u8) -> Vec<(&'static str, Document)> {
    let inner = doc! { "_id": id(n), "parent_id": id(n + 60) };
    let outer = doc! { "_id": id(n + 60), "owner_id": id(USER) };
    vec![("files", file_with(n, doc! { "folder_id": id(n) })), ("folders", inner), ("folders", outer)]
}

/// The guest is a user of this case only.
fn guest_of_its_own(n: u8) -> Vec<(&'static str, Document)> {
    let mut share = share(n, n);
    share.insert("user_id", id(n + 120));
    vec![("files", file(n)), ("shares", share), ("users", user(n + 120))]
}

const CASES: [Case; 29] = [
    Case { name: "field: set", documents: owned, write: |n| set("files", n, doc! { "owner_id": id(OWNER) }) },
    Case {
        name: "field: unset",
        documents: owned,
        write: |n| update("files", n, doc! { "$unset": { "owner_id": "" } }),
    },
    Case { name: "field: replaced", documents: owned, write: |n| update("files", n, file(n)) },
    Case { name: "field: deleted", documents: owned, write: |n| delete("files", n) },
    Case { name: "flag: set", documents: owned, write: |n| set("files", n, doc! { "is_deleted": true }) },
    Case {
        name: "ids: pulled",
        documents: edited,
        write: |n| update("files", n, doc! { "$pull": { "editor_ids": id(USER) } }),
    },
    Case {
        name: "ids: popped",
        documents: edited,
        write: |n| update("files", n, doc! { "$pop": { "editor_ids": 1 } }),
    },
    Case { name: "ids: emptied", documents: edited, write: |n| set("files", n, doc! { "editor_ids": [] }) },
    Case {
        name: "ids: unset",
        documents: edited,
        write: |n| update("files", n, doc! { "$unset": { "editor_ids": "" } }),
    },
    Case {
        name: "each: pulled",
        documents: read,
        write: |n| update("files", n, doc! { "$pull": { "readers": { "user_id": id(USER) } } }),
    },
    Case { name: "each: field", documents: read, write: |n| set("files", n, doc! { "readers.1.level": "none" }) },
    Case {
        name: "each: sliced",
        documents: read,
        write: |n| update("files", n, vec![doc! { "$set": { "readers": { "$slice": ["$readers", 1] } } }]),
    },
    Case { name: "each: deleted", documents: read, write: |n| delete("files", n) },
    Case { name: "key: condition", documents: shared, write: |n| set("shares", n, doc! { "active": false }) },
    Case { name: "key: other user", documents: shared, write: |n| set("shares", n, doc! { "user_id": id(OWNER) }) },
    Case { name: "key: moved", documents: shared, write: |n| set("shares", n, doc! { "file_id": id(n + 60) }) },
    Case { name: "key: replaced", documents: shared, write: |n| update("shares", n, doc! { "file_id": id(n) }) },
    Case {
        name: "key: expired",
        documents: shared,
        write: |n| set("shares", n, doc! { "expires_at": DateTime::from_millis(1) }),
    },
    Case { name: "key: deleted", documents: shared, write: |n| delete("shares", n) },
    Case {
        name: "set: pulled",
        documents: reviewed,
        write: |n| update("teams", n, doc! { "$pull": { "members": { "user_id": id(USER) } } }),
    },
    Case { name: "set: other set", documents: reviewed, write: |n| set("files", n, doc! { "team_id": id(n + 60) }) },
    Case { name: "set: deleted", documents: reviewed, write: |n| delete("teams", n) },
    Case { name: "edge: moved", documents: in_folder, write: |n| set("files", n, doc! { "folder_id": id(n + 120) }) },
    Case {
        name: "edge: moved above",
        documents: in_folder,
        write: |n| set("folders", n, doc! { "parent_id": id(n + 120) }),
    },
    Case {
        name: "edge: other owner",
        documents: in_folder,
        write: |n| set("folders", n + 60, doc! { "owner_id": id(OWNER) }),
    },
    Case { name: "edge: deleted between", documents: in_folder, write: |n| delete("folders", n) },
    Case { name: "edge: deleted above", documents: in_folder, write: |n| delete("folders", n + 60) },
    Case {
        name: "subject: inactive",
        documents: guest_of_its_own,
        write: |n| set("users", n + 120, doc! { "is_active": false }),
    },
    Case { name: "subject: deleted", documents: guest_of_its_own, write: |n| delete("users", n + 120) },
];

/// The question about the file of a case.
fn question_of(live: &Live, case: &Case, number: u8) -> Question {
    let user = if case.name.starts_with("subject") { number + 120 } else { USER };
    reads(live, user, number)
}

/// An instance over all cases, which has cached the facts by which each is allowed, and whose change stream fails from
/// then on.
async fn without_stream(app_name: &str) -> (Live, Vec<Question>, FailPoint) {
    let mut collections: Vec<(&str, Vec<Document>)> = vec![("users", vec![user(OWNER), user(USER)])];
    for (number, case) in (1..).zip(&CASES) {
        for (collection, document) in (case.documents)(number) {
            match collections.iter_mut().find(|(name, _)| *name == collection) {
                Some((_, documents)) => documents.push(document),
                None => collections.push((collection, vec![document])),
            }
        }
    }
    let settings = Settings { staleness_max: BOUND, ..Settings::default() };
    let (live, _) = Live::named(app_name, SCHEMA, &collections, settings).await;
    let failing = doc! { "failCommands": ["getMore", "aggregate"], "errorCode": 11_600 };
    let silent = FailPoint::on(mongo(), app_name, "alwaysOn", failing).await;
    let questions: Vec<Question> = (1..).zip(&CASES).map(|(number, case)| question_of(&live, case, number)).collect();
    for (case, question) in CASES.iter().zip(&questions) {
        assert!(live.answer(question, Consistency::MinimizeLatency).await.starts_with("allowed"), "{}", case.name);
    }
    (live, questions, silent)
}

#[tokio::test]
async fn every_write_that_ends_a_grant_ends_it_within_the_bound_without_a_stream() {
    let (live, questions, silent) = without_stream("silent stream").await;
    let mut waiting = Vec::new();
    for ((number, case), question) in (1..).zip(&CASES).zip(&questions) {
        live.run((case.write)(number)).await;
        waiting.push((case.name, question, Instant::now()));
    }
    let applied = live.app.freshness.watermark();
    let ending = async {
        while !waiting.is_empty() {
            let mut left = Vec::new();
            for (name, question, written) in waiting {
                let asked = written.elapsed();
                let answer = live.answer(question, Consistency::MinimizeLatency).await;
                if answer.starts_with("denied") {
                    continue;
                }
                // An error does not end a grant: only a denial does.
                assert!(
                    answer.starts_with("error") || asked <= BOUND,
                    "{name}: {answer}, asked {asked:?} after the write"
                );
                left.push((name, question, written));
            }
            waiting = left;
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(TIME_MAX, ending).await.expect("each grant is denied in the end");
    assert_eq!(live.app.freshness.watermark(), applied, "no change batch was applied");
    silent.off().await;
}

#[tokio::test]
async fn every_write_that_ends_a_grant_ends_it_at_once_for_max_age_and_full_consistency() {
    let (live, questions, silent) = without_stream("silent stream, strict").await;
    for ((number, case), question) in (1..).zip(&CASES).zip(&questions) {
        live.run((case.write)(number)).await;
        let consistency =
            if number % 2 == 0 { Consistency::FullyConsistent } else { Consistency::MaxAge(Duration::from_nanos(1)) };
        let answer = live.answer(question, consistency).await;
        assert!(answer.starts_with("denied"), "{}: {answer}", case.name);
    }
    silent.off().await;
}

#[tokio::test]
async fn a_cached_grant_ends_at_its_expiry_without_any_write() {
    let end = DateTime::from_millis(DateTime::now().timestamp_millis() + 1_500);
    let mut share = share(50, 1);
    share.insert("expires_at", end);
    let all = [super::users(), ("files", vec![file(1)]), ("shares", vec![share])];
    let live = Live::new(SCHEMA, &all).await;
    let question = reads(&live, USER, 1);
    let _cached = live.until_cached(&question).await;
    loop {
        let asked = DateTime::now();
        let checked = live.ask(&question, Consistency::MinimizeLatency).await.expect("an answer");
        match shown(&live.schema, checked.answer).as_str() {
            GUEST => assert!(asked < end, "allowed after its end"),
            answer => {
                assert_eq!((answer, checked.tier), ("denied EXPIRED", Tier::Memory));
                assert!(DateTime::now() >= end, "denied before its end");
                break;
            }
        }
        sleep(Duration::from_millis(2)).await;
    }
}
