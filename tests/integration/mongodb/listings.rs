//! Listings: the ids that a query finds, in pages. A real replica set lists what documents in memory do, whatever values stand in the
//! place of ids.
//!
//! What lists make of them is tested in `lists`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mongodb::{
    Database,
    bson::{Bson, Document, doc},
};
use permcached::{
    fact::FactKey,
    question::{Id, IdForm},
    schema::{Comparison, Condition, Format, Path, Schema, Test},
    source::{Deadline, Listed, Listing, Source, SourceError, documents::Documents, mongodb::MongoDb},
};
use tokio::time::{Instant, sleep};

use super::keys::key_values;
use crate::support::{
    both::{Collections, TIME_MAX, fill, schema},
    monitored::{Monitor, commands},
    servers::{Mongo, mongo, standalone_mongo},
};

/// Grants of pages to users. A format is only there for the tests to use.
const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "integer"
    [resource.page]
    id = "string"
    [resource.page.relations]
    reader = { collection = "grants", by = "of", field = "user" }
    named  = { collection = "grants", by = { field = "name", format = "page:{id}" }, field = "user" }
    [resource.page.permissions]
    read = "reader | named"
"#;

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn eq(field: &str, value: impl Into<Bson>) -> Condition {
    Condition::Field(path(field), Test::Eq(value.into()))
}

fn format(schema: &Schema) -> Format {
    let mut formats = schema.lookups().filter_map(|(_, lookup)| Some(lookup.text_keys.as_ref()?.format.clone()));
    formats.next().expect("the schema has one")
}

/// A listing of everything in one collection.
fn listing(schema: &Schema, field: &str, form: IdForm) -> Listing {
    Listing {
        collection: schema.collection_id("grants").unwrap(),
        condition: Condition::And(Vec::new()),
        field: path(field),
        form,
        format: None,
        after: None,
        limit: 10,
        indexed_only: false,
    }
}

async fn list(source: &dyn Source, listing: &Listing) -> Result<Listed, SourceError> {
    let at = source.probe(Deadline::after(TIME_MAX)).await?;
    source.list(listing.clone(), at, Deadline::after(TIME_MAX)).await
}

/// All ids, in pages.
async fn in_pages(source: &dyn Source, listing: &Listing) -> Vec<Id> {
    let mut listing = listing.clone();
    let mut ids: Vec<Id> = Vec::new();
    for _ in 0..10_000 {
        let page = list(source, &listing).await.unwrap();
        assert!(page.ids.len() <= listing.limit && page.ids.is_sorted(), "{page:?}");
        assert!(page.is_complete || page.ids.len() == listing.limit, "a page that is not full is the last: {page:?}");
        assert!(page.ids.iter().all(|id| ids.last().is_none_or(|last| id > last)), "{page:?} after {ids:?}");
        ids.extend(page.ids);
        if page.is_complete {
            return ids;
        }
        listing.after = ids.last().cloned();
    }
    panic!("the pages have no end");
}

async fn database(server: &Mongo, schema: &Schema, grants: &[Document]) -> Database {
    let database = server.database().await;
    fill(&database, schema, &Collections::from([("grants".to_owned(), grants.to_vec())])).await;
    database
}

async fn sources(grants: &[Document]) -> (Arc<Schema>, MongoDb, Documents) {
    let schema = Arc::new(schema("listings.toml", SCHEMA));
    let mongodb = MongoDb::open(Arc::clone(&schema), database(mongo(), &schema, grants).await).await.unwrap();
    let documents = Documents::new(&schema, &Collections::from([("grants".to_owned(), grants.to_vec())]));
    (schema, mongodb, documents)
}

/// Documents with hostile values in place of ids: one by one, several of each, in arrays, and as parts of texts.
fn hostile() -> Vec<Document> {
    let mut documents = Vec::new();
    let texts = ["page:a", "page:b", "page:", "page:*", "page:é", "pagf:a", "page", "page:5"].map(Bson::from);
    for value in key_values().into_iter().chain(texts) {
        for user in 0..3 {
            // No listing here shows dates.
            let id = Bson::DateTime(mongodb::bson::DateTime::from_millis(i64::try_from(documents.len()).unwrap()));
            documents.push(doc! { "_id": id, "of": value.clone(), "name": value.clone(), "user": user, "refs": [{ "of": value.clone() }, { "of": user }] });
        }
    }
    documents
}

#[tokio::test]
async fn pages_have_every_id_once_and_in_order_whatever_other_values_there_are() {
    let schema = Arc::new(schema("listings.toml", SCHEMA));
    let mut grants = hostile();
    let database = database(mongo(), &schema, &grants).await;
    for (number, id) in (0..).zip(key_values()) {
        let document = doc! { "_id": id, "of": number, "user": 9 };
        // An `_id` can be no array, and some of them are the same to mongod.
        if database.collection("grants").insert_one(document.clone()).await.is_ok() {
            grants.push(document);
        }
    }
    let mongodb = MongoDb::open(Arc::clone(&schema), database).await.unwrap();
    let documents = Documents::new(&schema, &Collections::from([("grants".to_owned(), grants.clone())]));
    let conditions = [
        Condition::And(Vec::new()),
        eq("user", 1),
        Condition::Field(path("user"), Test::In(vec![0.into(), 2.into(), "x".into()])),
        Condition::Field(path("user"), Test::Compare(Comparison::Gt, 1.into())),
    ];
    let mut listed = BTreeMap::new();
    for form in IdForm::ALL {
        for field in ["of", "_id", "refs.of", "name"] {
            for format in [None, Some(format(&schema))] {
                for condition in &conditions {
                    let all = Listing {
                        condition: condition.clone(),
                        format: format.clone(),
                        limit: 10_000,
                        ..listing(&schema, field, form)
                    };
                    let expected = list(&documents, &all).await.unwrap();
                    assert!(expected.is_complete);
                    for limit in [1, 2, 3, 7, 10_000] {
                        let listing = Listing { limit, ..all.clone() };
                        let shown = format!("{form:?} in {field} by {limit}, {condition:?}");
                        assert_eq!(in_pages(&mongodb, &listing).await, expected.ids, "{shown}");
                        assert_eq!(in_pages(&documents, &listing).await, expected.ids, "{shown}");
                    }
                    let count: &mut usize = listed.entry((form.as_str(), format.is_some())).or_default();
                    *count += expected.ids.len();
                }
            }
        }
    }
    for form in IdForm::ALL {
        assert!(listed[&(form.as_str(), false)] > 0, "{form:?} is listed: {listed:?}");
    }
    assert!(listed[&("string", true)] > 0, "{listed:?}");
}

#[tokio::test]
async fn a_page_ends_although_thousands_of_documents_have_the_same_id_or_none() {
    let same = (0..3_000).map(|user| doc! { "of": 5, "user": user });
    // Between two whole numbers there is no other.
    let none = (0..3_000).map(|user| doc! { "of": 7.0 + f64::from(user + 1) / 4_000.0, "user": user });
    // In the order of mongod, they come before all others.
    let arrays = (0..300).map(|user| doc! { "of": [1, 100 + user], "user": user });
    let others = [4, 6, 7, 8, 50, 500].map(|of| doc! { "of": of, "user": 0 });
    let grants: Vec<Document> = same.chain(none).chain(arrays).chain(others).collect();
    let (schema, mongodb, documents) = sources(&grants).await;
    let all = Listing { limit: 10_000, ..listing(&schema, "of", IdForm::Integer) };
    let expected = list(&documents, &all).await.unwrap().ids;
    assert_eq!(expected.len(), 1 + 5 + 1 + 300 + 1);
    for limit in [1, 4, 100, 1_000] {
        assert_eq!(in_pages(&mongodb, &Listing { limit, ..all.clone() }).await, expected, "{limit}");
    }
    let after_all = Listing { after: Some(Id::Integer(500)), ..all };
    assert_eq!(list(&mongodb, &after_all).await.unwrap().ids, []);
}

#[tokio::test]
async fn a_listing_reads_one_snapshot_and_has_a_deadline() {
    let grants: Vec<Document> = (0..2_000).map(|number| doc! { "of": number / 300, "user": number }).collect();
    let schema = Arc::new(schema("listings.toml", SCHEMA));
    let database = database(mongo(), &schema, &grants).await;
    let monitor = Monitor::default();
    let client = monitor.client(mongo(), "mongodb-listings").await;
    let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.unwrap();
    let at = source.probe(Deadline::after(TIME_MAX)).await.unwrap();
    monitor.take();
    let all = Listing { limit: 5, ..listing(&schema, "of", IdForm::Integer) };
    let listed = source.list(all.clone(), at, Deadline::after(TIME_MAX)).await.unwrap();
    assert_eq!(listed.ids, (0..5).map(Id::Integer).collect::<Vec<_>>());
    assert!(!listed.is_complete && listed.stamp >= at && listed.examined >= 1_200, "{listed:?}");
    let finds = commands(&monitor.take(), "find");
    assert!(finds.len() > 1, "several reads: {finds:?}");
    for (number, find) in (0..).zip(&finds) {
        let concern = find.get_document("readConcern").unwrap();
        assert_eq!(concern.get_str("level").unwrap(), "snapshot");
        let moment = if number == 0 { "afterClusterTime" } else { "atClusterTime" };
        assert!(concern.get_timestamp(moment).unwrap().time >= at.seconds(), "{concern}");
        assert!(find.contains_key("maxTimeMS") && find.get_document("collation").is_ok(), "{find}");
    }

    let late = source.list(all, at, Deadline::after(Duration::ZERO)).await;
    assert!(matches!(late, Err(SourceError::TimedOut)), "{late:?}");
}

#[tokio::test]
async fn a_standalone_server_lists_too() {
    let schema = Arc::new(schema("listings.toml", SCHEMA));
    let grants: Vec<Document> = (0..500).map(|number| doc! { "of": number / 2, "user": number }).collect();
    let database = database(standalone_mongo(), &schema, &grants).await;
    let source = MongoDb::open(Arc::clone(&schema), database).await.unwrap();
    let all = Listing { limit: 7, ..listing(&schema, "of", IdForm::Integer) };
    assert_eq!(in_pages(&source, &all).await, (0..250).map(Id::Integer).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_no_index_serves_is_refused_if_the_collection_is_large() {
    let schema = Arc::new(schema("listings.toml", SCHEMA));
    let database = mongo().database().await;
    let grants = database.collection::<Document>("grants");
    let add = async |count: i32| {
        grants.insert_many((0..count).map(|of| doc! { "of": of, "user": of % 100, "is_void": true })).await.unwrap();
    };
    add(10_000).await;
    let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.unwrap();
    let by_user = Listing {
        condition: Condition::And(vec![eq("user", 7), eq("is_void", true)]),
        indexed_only: true,
        limit: 1_000,
        ..listing(&schema, "of", IdForm::Integer)
    };
    let (reverse, _) = schema.lookups().find(|(_, lookup)| lookup.is_reverse).unwrap();
    let load = async || {
        let key = FactKey::whole(reverse, Id::Integer(7));
        let at = source.probe(Deadline::after(TIME_MAX)).await?;
        source.load(vec![key], &[], at, Deadline::after(TIME_MAX)).await.remove(0).1
    };
    // A small collection is read all the same.
    assert_eq!(list(&source, &by_user).await.unwrap().ids.len(), 100);
    load().await.unwrap();

    add(1).await;
    let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.unwrap();
    let load = async || {
        let key = FactKey::whole(reverse, Id::Integer(7));
        let at = source.probe(Deadline::after(TIME_MAX)).await?;
        source.load(vec![key], &[], at, Deadline::after(TIME_MAX)).await.remove(0).1
    };
    let command = r#"db.getCollection("grants").createIndex({ "user": 1 })"#;
    match list(&source, &by_user).await {
        Err(SourceError::NoIndex { collection, command: named }) => {
            assert_eq!((collection.as_str(), named.as_str()), ("grants", command));
        }
        other => panic!("{other:?}"),
    }
    match load().await {
        Err(SourceError::NoIndex { collection, command: named }) => {
            assert_eq!((collection.as_str(), named.as_str()), ("grants", command));
        }
        other => panic!("{other:?}"),
    }
    // Who says that a scan is meant gets one, and so does whoever reads everything in the order of an index.
    assert_eq!(list(&source, &Listing { indexed_only: false, ..by_user.clone() }).await.unwrap().ids.len(), 100);
    let all = Listing { indexed_only: true, ..listing(&schema, "of", IdForm::Integer) };
    assert!(matches!(list(&source, &all).await, Err(SourceError::NoIndex { .. })));

    let indexes = [doc! { "key": { "user": 1 }, "name": "user" }, doc! { "key": { "of": 1 }, "name": "of" }];
    database.run_command(doc! { "createIndexes": "grants", "indexes": indexes.to_vec() }).await.unwrap();
    let began = Instant::now();
    // The index counts as soon as it is known.
    while list(&source, &by_user).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "the index is noticed");
        sleep(Duration::from_millis(50)).await;
    }
    load().await.unwrap();
    assert_eq!(list(&source, &all).await.unwrap().ids.len(), 10);
    // An index on something else that the condition compares is enough if few documents match that.
    let by_kind = |others: Vec<Condition>| {
        let all = [eq("kind", 1)].into_iter().chain(others).collect();
        Listing { condition: Condition::And(all), ..by_user.clone() }
    };
    let refused = |listed: Result<Listed, SourceError>| match listed {
        Err(SourceError::NoIndex { command, .. }) => assert!(command.contains("kind"), "{command}"),
        other => panic!("{other:?}"),
    };
    refused(list(&source, &by_kind(vec![eq("is_void", true)])).await);
    database
        .run_command(doc! { "createIndexes": "grants", "indexes": [{ "key": { "is_void": 1 }, "name": "is_void" }] })
        .await
        .unwrap();
    grants.update_many(doc! { "of": 3 }, doc! { "$set": { "kind": 1 } }).await.unwrap();
    let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.unwrap();
    refused(list(&source, &by_kind(vec![eq("is_void", true)])).await);
    let either = Condition::Or(vec![eq("user", 3), eq("note", 5)]);
    refused(list(&source, &by_kind(vec![either])).await);
    let inner = Condition::And(vec![eq("is_void", true), eq("user", 3)]);
    let either = Condition::Or(vec![eq("user", 3), eq("is_void", 7)]);
    for others in [vec![eq("user", 3)], vec![eq("is_void", true), eq("user", 3)], vec![inner], vec![either]] {
        assert_eq!(list(&source, &by_kind(others.clone())).await.unwrap().ids, [Id::Integer(3)], "{others:?}");
    }
}

#[tokio::test]
async fn a_listing_never_shows_what_it_searches_for() {
    let schema = schema("listings.toml", SCHEMA);
    let secret = Listing { condition: eq("token", "s3cret"), ..listing(&schema, "of", IdForm::String) };
    assert!(!format!("{secret:?}").contains("s3cret"), "{secret:?}");
}
