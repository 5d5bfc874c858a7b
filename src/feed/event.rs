//! What a change marks (design section 5, point 6): its document's `_id`, and every key under which the document is found
//! afterwards. The keys it had before need not be known, as facts name the documents that they are made of.

use bson::{Bson, Document, doc};

use crate::{
    fact::{DocumentId, FactKey, document_keys},
    freshness::{Change, Changed, Moment},
    schema::Schema,
    source::mongodb::moment_of,
};

/// What one event says.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    /// Its moment.
    pub(super) at: Moment,
    /// What it changes, where that is of use to any fact.
    pub(super) changes: Vec<Change>,
    /// Whether the stream ends here.
    pub(super) is_last: bool,
}

/// The stages after `$changeStream`: the events of the schema's collections, and those that end or replace one; of each no
/// more than is needed, for documents can be large.
pub(super) fn pipeline(schema: &Schema) -> Vec<Document> {
    let collections: Vec<&str> = schema.collections().collect();
    let matching = doc! { "$or": [
        { "ns.coll": { "$in": collections.clone() } },
        { "to.coll": { "$in": collections } },
        { "operationType": { "$in": ["dropDatabase", "invalidate"] } },
    ] };
    let names = doc! { "$map": {
        "input": { "$objectToArray": { "$ifNull": ["$updateDescription.updatedFields", {}] } },
        "in": "$$this.k",
    } };
    let mut parts = doc! {
        "operationType": 1,
        "clusterTime": 1,
        "ns": 1,
        "to": 1,
        "documentKey": 1,
        "updated": names,
        "removed": "$updateDescription.removedFields",
        "truncated": "$updateDescription.truncatedArrays.field",
    };
    for (_, lookup) in schema.lookups() {
        parts.insert(format!("fullDocument.{}", lookup.by.top()), 1);
    }
    vec![doc! { "$match": matching }, doc! { "$project": parts }]
}

impl Event {
    /// Reads an event. One that makes no sense changes everything.
    pub(super) fn read(schema: &Schema, event: &Document) -> Option<Self> {
        let Some(Bson::Timestamp(time)) = event.get("clusterTime") else { return None };
        let at = moment_of(*time);
        let kind = event.get_str("operationType").unwrap_or_default();
        let changed = match kind {
            "insert" | "update" | "replace" | "delete" => of_document(schema, event, kind == "update"),
            _ => None,
        };
        let changed = changed.unwrap_or_else(|| vec![Changed::Everything]);
        let changes = changed.into_iter().map(|what| Change { at, what }).collect();
        Some(Self { at, changes, is_last: kind == "invalidate" })
    }
}

fn of_document(schema: &Schema, event: &Document, is_update: bool) -> Option<Vec<Changed>> {
    let name = event.get_document("ns").ok()?.get_str("coll").ok()?;
    let collection = schema.collection_id(name)?;
    let key = event.get_document("documentKey").ok()?;
    let fields = if is_update { Some(changed_fields(event)?) } else { None };
    let lookups = schema.lookups().filter(|(_, lookup)| lookup.collection_id == collection);
    // An update that no relation looks at changes no fact.
    let lookups: Vec<_> = lookups
        .filter(|(_, lookup)| fields.as_ref().is_none_or(|fields| fields.iter().any(|field| lookup.reads(field))))
        .collect();
    if lookups.is_empty() {
        return Some(Vec::new());
    }
    let mut changed = vec![Changed::Document { collection, id: DocumentId::of(key) }];
    // It may be gone by now, or be newer than the event: then later events tell the rest.
    if let Ok(document) = event.get_document("fullDocument") {
        for (lookup, by) in lookups.iter().filter(|(_, lookup)| !lookup.is_by_id()).map(|(id, at)| (*id, &at.by)) {
            document_keys(by, document, &mut |id| changed.push(Changed::Key(FactKey { lookup, id })));
        }
    }
    Some(changed)
}

/// The fields that an update changed; nothing where it does not say.
fn changed_fields(event: &Document) -> Option<Vec<&str>> {
    let mut fields = Vec::new();
    for name in ["updated", "removed", "truncated"] {
        match event.get(name) {
            Some(Bson::Array(items)) => {
                for item in items {
                    fields.push(item.as_str()?);
                }
            }
            None | Some(Bson::Null) => {}
            Some(_) => return None,
        }
    }
    Some(fields)
}
