//! Runs filters in a real mongod, and compares what it finds with what they find in process.
//!
//! Does not know what is allowed.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};
use futures::{StreamExt, stream};
use mongodb::Collection;
use permcached::schema::Condition;

/// The maximal number of finds that wait for mongod.
const FINDS_MAX: usize = 8;

/// A filter, and the places of the documents that it finds in process.
#[derive(Clone)]
pub struct Found {
    pub condition: Condition,
    pub ids: BTreeSet<usize>,
    /// What it is the filter of, for messages.
    pub of: String,
}

/// Stores the documents, and runs each filter. Returns how many there were, or what mongod finds otherwise. Documents with an `_id` that
/// no request can name do not count.
pub async fn compare_with_mongod(
    collection: &Collection<Document>,
    documents: &[Document],
    found: Vec<Found>,
) -> Result<usize, String> {
    if documents.is_empty() {
        return Ok(0);
    }
    collection.drop().await.expect("dropped");
    collection.insert_many(documents).await.expect("inserted");
    let mut distinct: Vec<Found> = Vec::new();
    for one in found {
        if !distinct.iter().any(|other| other.condition == one.condition && other.ids == one.ids) {
            distinct.push(one);
        }
    }
    let count = distinct.len();
    let finds = distinct.into_iter().map(|found| async move { (find(collection, &found.condition).await, found) });
    let mut finds = stream::iter(finds).buffered(FINDS_MAX);
    while let Some((ids, found)) = finds.next().await {
        let ids = ids.map_err(|error| format!("{}: {error}", found.of))?;
        for (place, document) in documents.iter().enumerate() {
            let by_mongod = ids.contains(&document["_id"]);
            let in_process = found.ids.contains(&place) || by_mongod && found.condition.matches(document);
            if by_mongod != in_process {
                let query = found.condition.to_query();
                return Err(format!("{}: mongod finds it: {by_mongod}\n  {query}\n  {document}", found.of));
            }
        }
    }
    collection.drop().await.expect("dropped");
    Ok(count)
}

async fn find(collection: &Collection<Document>, condition: &Condition) -> Result<Vec<Bson>, String> {
    let query = condition.to_query();
    let find = collection.find(query.clone()).projection(doc! { "_id": 1 }).batch_size(1_000);
    let mut cursor = find.await.map_err(|error| format!("mongod refuses {query}: {error}"))?;
    let mut ids = Vec::new();
    while cursor.advance().await.map_err(|error| error.to_string())? {
        ids.push(cursor.deserialize_current().map_err(|error| error.to_string())?["_id"].clone());
    }
    Ok(ids)
}
