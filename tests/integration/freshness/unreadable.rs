//! Change events in which something cannot be read: text that is not UTF-8, names twice. They outdate the facts of their
//! collection and nothing else, and the stream goes on with the next event.
//!
//! What such documents mean for answers is tested in `mongodb::unreadable`.

use bson::{Bson, doc};
use permcached::{
    check::Consistency,
    freshness::Moment,
    question::{Id, LookupId},
};

use super::{GUEST, NO_GRANT, SCHEMA, USER, file, file_with, id, reads, share, users};
use crate::support::{
    both::counted,
    fleet::Fleet,
    live::{Live, Two, until},
    raw::{Raw, delete, insert, text_value, update},
    redis::Redis,
};

/// Text that is not UTF-8.
const BAD: &[u8] = b"bad\xff";

fn not_understood(live: &Live, collection: &str) -> u64 {
    counted(&live.app.metrics, &format!("permcached_events_not_understood_total{{collection=\"{collection}\"}}"))
}

fn lookup(live: &Live, collection: &str) -> LookupId {
    live.schema.lookups().find(|(_, lookup)| &*lookup.collection == collection).expect("a lookup").0
}

/// When a key of a collection that no event has mentioned was last marked.
fn mark(live: &Live, collection: &str) -> Moment {
    live.app.freshness.key_mark(lookup(live, collection), &Id::ObjectId([77; 12]))
}

/// A share of file 2 with this `_id`, which is BSON of type `kind`.
fn share_with_id(kind: u8, value: &[u8]) -> Raw {
    Raw::default().element(kind, b"_id", value).and(&doc! { "file_id": id(2), "user_id": id(USER), "active": true })
}

#[tokio::test]
async fn an_event_that_cannot_be_read_outdates_its_collection_and_the_stream_goes_on() {
    let all = [users(), ("files", vec![file(1), file(2), file(3)]), ("shares", vec![share(50, 1), share(51, 3)])];
    let two = Two::new(SCHEMA, &all).await;
    let database = &two.first.database;
    let (one, second) = (reads(&two.first, USER, 1), reads(&two.first, USER, 2));
    two.until_cached(&[(&one, GUEST), (&second, NO_GRANT)]).await;
    let of_share = |number| Raw::of(&doc! { "_id": id(number) });
    let set = |name: &[u8]| Raw::default().document(b"$set", &Raw::default().element(0x10, name, &[1, 0, 0, 0]));
    let unset = Raw::default().document(b"$unset", &Raw::default().element(0x10, BAD, &[1, 0, 0, 0]));
    let inner = Raw::default().element(0x10, BAD, &[1, 0, 0, 0]);
    let twice = Raw::of(&doc! { "a": 1 }).and(&doc! { "a": 2 });
    let with_key = |key: Raw| of_share(60).and(&doc! { "user_id": id(USER) }).and_all(key);
    let mut count = 0;
    let mut moments = Vec::new();
    for hostile in [
        share_with_id(0x02, &text_value(BAD)),
        share_with_id(0x03, &inner.bytes()),
        share_with_id(0x03, &twice.bytes()),
        // Symbols, code and pointers are texts, too.
        share_with_id(0x0E, &text_value(BAD)),
        share_with_id(0x0D, &text_value(BAD)),
        share_with_id(0x0C, &[text_value(BAD), vec![7; 12]].concat()),
        with_key(Raw::default().text(b"file_id", BAD)),
        with_key(Raw::default().element(0x0B, b"file_id", b"bad\xff\0\0")),
        with_key(Raw::of(&doc! { "file_id": id(2) }).and(&doc! { "file_id": id(3) })),
        with_key(Raw::default().array(b"file_id", &Raw::default().text(b"0", BAD))),
        with_key(Raw::default().document(b"file_id", &inner)),
    ] {
        insert(database, "shares", &hostile).await;
        moments.push(delete(database, "shares", &of_id(&hostile)).await);
        count += 2;
    }
    moments.push(update(database, "shares", &of_share(51), &set(BAD)).await);
    moments.push(update(database, "shares", &of_share(51), &set(b"extra.bad\xff")).await);
    moments.push(update(database, "shares", &of_share(51), &unset).await);
    count += 3;
    let last = *moments.last().expect("there are some");
    for live in [&two.first, &two.second] {
        live.until_applied(last).await;
        assert!(mark(live, "shares") >= last, "the facts of the collection are outdated");
        assert!(mark(live, "files") < moments[0], "and no others");
        assert_eq!(live.app.freshness.floor(), live.first_floor);
        // A deleted document is gone from its event, so some deletions can be read.
        let counted = not_understood(live, "shares");
        assert!(counted >= 9 && counted <= count, "{counted} of {count}");
        assert_eq!(not_understood(live, "files"), 0);
    }
    // What is written afterwards is noticed by the same stream.
    two.until_cached(&[(&one, GUEST), (&second, NO_GRANT)]).await;
    let moment = two.first.update("shares", doc! { "_id": id(50) }, doc! { "$set": { "active": false } }).await;
    two.notice(moment, &[(&one, NO_GRANT)]).await;
}

/// The `_id` of a document that begins with it, as a filter.
fn of_id(document: &Raw) -> Raw {
    document.first()
}

#[tokio::test]
async fn a_document_whose_id_cannot_be_read_grants_and_revokes_like_any_other() {
    let two = Two::new(SCHEMA, &[users(), ("files", vec![file(2)])]).await;
    let question = reads(&two.first, USER, 2);
    two.until_cached(&[(&question, NO_GRANT)]).await;
    let share = share_with_id(0x02, &text_value(BAD));
    for _ in 0..2 {
        let moment = insert(&two.first.database, "shares", &share).await;
        two.notice(moment, &[(&question, GUEST)]).await;
        let moment = delete(&two.first.database, "shares", &of_id(&share)).await;
        two.notice(moment, &[(&question, NO_GRANT)]).await;
    }
}

#[tokio::test]
async fn a_field_that_no_relation_reads_may_hold_anything() {
    let all = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let two = Two::new(SCHEMA, &all).await;
    let question = reads(&two.first, USER, 1);
    two.until_cached(&[(&question, GUEST)]).await;
    let note = Raw::default().document(b"$set", &Raw::default().text(b"note", BAD));
    let moment = update(&two.first.database, "shares", &Raw::of(&doc! { "_id": id(50) }), &note).await;
    two.notice(moment, &[(&question, GUEST)]).await;
    for live in [&two.first, &two.second] {
        assert_eq!(not_understood(live, "shares"), 0);
        assert!(mark(live, "shares") < moment);
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_read_outdates_the_facts_of_every_instance() {
    let redis = Redis::start(&[]);
    let all = [users(), ("files", vec![file(1), file(2)]), ("shares", vec![share(50, 1)])];
    let fleet = Fleet::new(3, &redis.url(), SCHEMA, &all).await;
    let lives: Vec<&Live> = fleet.instances.iter().map(|instance| &instance.live).collect();
    let question = reads(lives[0], USER, 2);
    for live in &lives {
        assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT);
    }
    let moment = insert(&fleet.database, "shares", &share_with_id(0x02, &text_value(BAD))).await;
    for live in &lives {
        live.until_applied(moment).await;
        assert!(mark(live, "shares") >= moment);
        assert!(mark(live, "files") < moment);
        assert_eq!(live.app.freshness.floor(), live.first_floor);
        assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, GUEST);
    }
    // Only the leader has read the event.
    let counts: Vec<u64> = lives.iter().map(|live| not_understood(live, "shares")).collect();
    assert_eq!(counts.iter().filter(|count| **count > 0).count(), 1, "{counts:?}");
}

#[tokio::test]
async fn hostile_documents_pass_through_the_stream() {
    let two = Two::new(SCHEMA, &[users(), ("files", vec![file(1)])]).await;
    let question = reads(&two.first, USER, 1);
    two.until_cached(&[(&question, NO_GRANT)]).await;
    let mut deep = Bson::Int32(1);
    for _ in 0..90 {
        deep = doc! { "a": [deep] }.into();
    }
    let many: bson::Document = (0..100_000).map(|number| (format!("f{number}"), Bson::Int32(number))).collect();
    let large = "x".repeat(15 * 1_024 * 1_024);
    let strange = [
        Bson::Double(f64::NAN),
        Bson::Double(f64::INFINITY),
        Bson::Double(-0.0),
        Bson::Decimal128("NaN".parse().unwrap()),
        Bson::DateTime(bson::DateTime::MAX),
        Bson::DateTime(bson::DateTime::MIN),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Undefined,
        Bson::Array((0..200_000).map(Bson::Int32).collect()),
        deep,
        many.into(),
        large.into(),
    ];
    for (number, value) in (60..).zip(strange) {
        for document in [doc! { "_id": id(number), "owner_id": value.clone() }, file_with(number, doc! { "x": value })]
        {
            two.first.delete("files", doc! { "_id": id(number) }).await;
            let moment = two.first.insert("files", vec![document]).await;
            two.second.until_applied(moment).await;
            let answer = two.first.answer(&reads(&two.first, USER, number), Consistency::FullyConsistent).await;
            assert!(answer.starts_with("denied "), "{number}: {answer}");
        }
    }
    until(|| not_understood(&two.second, "files") == 0).await;
    assert_eq!(two.second.app.freshness.floor(), two.second.first_floor);
    let moment = two.first.insert("shares", vec![share(50, 1)]).await;
    two.notice(moment, &[(&question, GUEST)]).await;
}
