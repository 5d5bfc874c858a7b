//! Change events, and the marks that follow from one (docs/freshness.md, point 6): the document's `_id`, and every key under
//! which the document is found afterwards. The keys it had before are not required, as each fact names its documents.
//!
//! Runs no command: `change_stream` does that.

use std::collections::BTreeMap;

use bson::{Bson, Document, RawDocument, doc};

use crate::{
    fact::{DocumentId, FactKey, bound_reverse_keys, changed_keys},
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

/// Bounds what the keys of reverse lookups take of a change batch: of those that changed at one moment.
pub(super) fn bound_reverse_changes(schema: &Schema, changes: &mut Vec<Change>) {
    let is_reverse = |change: &mut Change| match &change.what {
        Changed::Key(key) => schema.lookup(key.lookup).is_reverse,
        Changed::Everything | Changed::Collection(_) | Changed::Document { .. } | Changed::Subject(_) => false,
    };
    let mut by_moment: BTreeMap<Moment, Vec<FactKey>> = BTreeMap::new();
    for Change { at, what } in changes.extract_if(.., is_reverse) {
        if let Changed::Key(key) = what {
            by_moment.entry(at).or_default().push(key);
        }
    }
    for (at, mut keys) in by_moment {
        bound_reverse_keys(schema, &mut keys);
        changes.extend(keys.into_iter().map(|key| Change { at, what: Changed::Key(key) }));
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
            changed.extend(changed_keys(lookup, found, document).into_iter().map(Changed::Key));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{Id, LookupId};

    const SCHEMA: &str = r#"
default_subject = "user"
[subject.user]
id = "integer"
[resource.file]
id = "integer"
collection = "files"
[resource.file.relations]
guest = { collection = "shares", by = "file", field = "user" }
other = { collection = "shares", by = "file", field = "other" }
[resource.file.permissions]
read = "guest | other"
"#;

    /// What the insertion of a share marks.
    fn inserted(schema: &Schema, increment: u32, share: Document) -> Vec<Change> {
        let event = doc! {
            "operationType": "insert",
            "clusterTime": bson::Timestamp { time: 1, increment },
            "ns": { "db": "app", "coll": "shares" },
            "documentKey": { "_id": share.get("_id").cloned() },
            "fullDocument": share,
        };
        Event::read(schema, &bson::RawDocumentBuf::try_from(&event).unwrap()).unwrap().changes
    }

    fn keys(changes: &[Change], wanted: LookupId) -> Vec<Id> {
        let key = |change: &Change| match &change.what {
            Changed::Key(key) if key.lookup == wanted => Some(key.id.clone()),
            _ => None,
        };
        changes.iter().filter_map(key).collect()
    }

    #[test]
    fn an_event_marks_few_keys_of_a_reverse_lookup_one_by_one_and_many_as_one() {
        let schema = Schema::parse("schema.toml", SCHEMA).unwrap();
        let lookups: Vec<LookupId> = schema.lookups().map(|(id, _)| id).collect();
        let [_, by_file, by_user, by_other] = lookups[..] else { panic!("{lookups:?}") };
        let users = |count: i32| (0..count).chain(0..count).collect::<Vec<_>>();
        for (count, expected) in [(0, 0), (1, 1), (64, 64), (65, 1), (10_000, 1)] {
            let changes = inserted(&schema, 1, doc! { "_id": 1, "file": [7, 8], "user": users(count), "other": 5 });
            let users = keys(&changes, by_user);
            assert_eq!(users.len(), expected, "{count}");
            assert_eq!(users.contains(&FactKey::id_of_all_reverse()), count > 64);
            assert_eq!(keys(&changes, by_file), [Id::Integer(7), Id::Integer(8)]);
            assert_eq!(keys(&changes, by_other), [Id::Integer(5)]);
        }
    }

    #[test]
    fn the_keys_of_reverse_lookups_that_change_at_one_moment_are_bounded() {
        let schema = Schema::parse("schema.toml", SCHEMA).unwrap();
        let mut changes = Vec::new();
        for number in 0..100 {
            let share = doc! { "_id": number, "file": 1_000 + number, "user": 2_000 + number, "other": 3_000 + number };
            changes.extend(inserted(&schema, 1, share));
        }
        changes.extend(inserted(&schema, 2, doc! { "_id": 7, "file": 1, "user": 2, "other": 3 }));
        bound_reverse_changes(&schema, &mut changes);
        let reverse = |change: &&Change| match &change.what {
            Changed::Key(key) => schema.lookup(key.lookup).is_reverse,
            _ => false,
        };
        let reverse: Vec<&Change> = changes.iter().filter(reverse).collect();
        assert_eq!(reverse.len(), 2 + 2, "one for each lookup, and the other moment's");
        assert_eq!(changes.len(), 2 * 101 + 4, "all others stay");
    }
}
