//! Change events, and the marks that follow from one (docs/freshness.md, point 6): the document's `_id`, and every key under
//! which the document is found afterwards. The keys it had before are not required, as each fact names its documents.
//!
//! Runs no command: `change_stream` does that.

use bson::{Bson, Document, RawDocument, doc};

use crate::{
    fact::{DocumentId, FactKey, document_keys},
    freshness::{Change, Changed},
    moment::Moment,
    question::CollectionId,
    schema::Schema,
};

use super::{decode::Decoded, moment_of};

/// One event of the change stream.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    /// When it happened.
    pub(super) at: Moment,
    /// What it marks. Empty if it can change no fact.
    pub(super) changes: Vec<Change>,
    /// The collection that it marks as a whole, because something in the event cannot be read.
    pub(super) not_understood: Option<CollectionId>,
    /// Whether the stream ends with it.
    pub(super) is_last: bool,
}

/// The stages after `$changeStream`. They select the events of the schema's collections, and the events that end or replace
/// a collection. They project only the fields that are read here, as documents can be large.
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
    /// Reads an event; `None` if it has no time. An event of a document in which something cannot be read marks the whole
    /// collection. An event of another kind, or one that makes no sense, marks everything.
    pub(super) fn read(schema: &Schema, event: &RawDocument) -> Option<Self> {
        let decoded = Decoded::of(event);
        let event = &decoded.document;
        let Some(Bson::Timestamp(time)) = event.get("clusterTime") else { return None };
        let at = moment_of(*time);
        let kind = event.get_str("operationType").unwrap_or_default();
        let is_of_document = matches!(kind, "insert" | "update" | "replace" | "delete");
        let not_understood =
            if is_of_document && decoded.has_unreadable() { collection_of(schema, event) } else { None };
        let changed = match not_understood {
            Some(collection) => Some(vec![Changed::Collection(collection)]),
            None if is_of_document && !decoded.has_unreadable() => document_changes(schema, event, kind == "update"),
            None => None,
        };
        let changed = changed.unwrap_or_else(|| vec![Changed::Everything]);
        let changes = changed.into_iter().map(|what| Change { at, what }).collect();
        Some(Self { at, changes, not_understood, is_last: kind == "invalidate" })
    }
}

/// The collection of the schema that an event is about.
fn collection_of(schema: &Schema, event: &Document) -> Option<CollectionId> {
    schema.collection_id(event.get_document("ns").ok()?.get_str("coll").ok()?)
}

/// What the event of one document marks; `None` if the event makes no sense.
fn document_changes(schema: &Schema, event: &Document, is_update: bool) -> Option<Vec<Changed>> {
    let collection = collection_of(schema, event)?;
    let key = event.get_document("documentKey").ok()?;
    let fields = if is_update { Some(changed_fields(event)?) } else { None };
    let lookups = schema.lookups().filter(|(_, lookup)| lookup.collection_id == collection);
    // An update of fields that no relation reads changes no fact.
    let lookups: Vec<_> = lookups
        .filter(|(_, lookup)| fields.as_ref().is_none_or(|fields| fields.iter().any(|field| lookup.reads(field))))
        .collect();
    if lookups.is_empty() {
        return Some(Vec::new());
    }
    let mut changed = vec![Changed::Document { collection, id: DocumentId::of(key) }];
    // The document may be gone by now, or newer than the event. Later events then mark the rest.
    if let Ok(document) = event.get_document("fullDocument") {
        for (lookup, found) in lookups.iter().filter(|(_, lookup)| !lookup.is_by_id()).copied() {
            document_keys(found, document, &mut |id| changed.push(Changed::Key(FactKey::whole(lookup, id))));
        }
    }
    Some(changed)
}

/// The fields that an update changed; `None` if its lists of fields make no sense.
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
