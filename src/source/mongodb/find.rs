//! Documents read by key with `find`, and made into facts (docs/freshness.md, point 1).
//!
//! Each `find` reads at a snapshot, so that a fact is exactly the state at its stamp. Caches no fact.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use bson::{Bson, Document, RawBsonRef, RawDocument, doc};
use tracing::{Instrument as _, Span, trace_span};

use super::{
    Mode, MongoDb,
    command::CommandError,
    decode::{Decoded, NO_FIELD},
    moment_of, timestamp_of,
};
use crate::{
    fact::{DOCUMENTS_MAX, DocumentId, Fact, FactKey, document_keys, id_to_bson},
    moment::Moment,
    question::{Id, LookupId},
    schema::Lookup,
    source::{Deadline, Source as _, SourceError},
    telemetry::{RateLimitedLog, SPANS},
};

/// How many documents one `find` for several keys returns at most. If there are more, the keys are asked for in halves.
pub(super) const BATCH_DOCUMENTS_MAX: usize = 40_000;

/// Limits log lines about documents that cannot be read, as whoever may write documents can cause them.
static UNREADABLE: RateLimitedLog = RateLimitedLog::per_second(1);

/// What one `find` returned.
pub(super) struct Found {
    pub(super) documents: Vec<Decoded>,
    stamp: Moment,
}

impl MongoDb {
    /// Reads the facts of these keys, in as few commands as possible. `byte_budget` is how many bytes of facts the whole load
    /// may still return.
    pub(super) async fn find(
        &self,
        lookup: LookupId,
        keys: Vec<Id>,
        at: Moment,
        deadline: Deadline,
        byte_budget: &AtomicUsize,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let mut results = Vec::with_capacity(keys.len());
        let mut remaining = vec![keys];
        while let Some(mut keys) = remaining.pop() {
            let found = match byte_budget.load(Ordering::Relaxed) {
                0 => Err(SourceError::TooMuch),
                _ => {
                    let found = self.schema.lookup(lookup);
                    let span = find_span(found, keys.len());
                    self.find_once(found, &keys, at, deadline).instrument(span).await
                }
            };
            match found {
                // Nobody knows which of several keys has found the document.
                Ok(Some(found)) if keys.len() > 1 && self.is_unmatched(lookup, &keys, &found) => {
                    remaining.push(keys.split_off(keys.len() / 2));
                    remaining.push(keys);
                }
                Ok(Some(found)) => {
                    let facts = self.facts(lookup, keys, &found);
                    let bytes = facts.iter().filter_map(|(_, result)| result.as_ref().ok()).map(Fact::memory).sum();
                    byte_budget.update(Ordering::Relaxed, Ordering::Relaxed, |left| left.saturating_sub(bytes));
                    results.extend(facts);
                }
                Ok(None) if keys.len() > 1 => {
                    remaining.push(keys.split_off(keys.len() / 2));
                    remaining.push(keys);
                }
                Ok(None) => {
                    let keys = keys.into_iter().map(|id| FactKey { lookup, id });
                    results.extend(keys.map(|key| (key.clone(), Ok(Fact::over_limit(key, at)))));
                }
                Err(error) => {
                    results.extend(keys.into_iter().map(|id| (FactKey { lookup, id }, Err(error.clone()))));
                }
            }
        }
        results
    }

    /// Runs one `find`. Returns `None` if there are more documents than one reply holds.
    pub(super) async fn find_once(
        &self,
        lookup: &Lookup,
        keys: &[Id],
        at: Moment,
        deadline: Deadline,
    ) -> Result<Option<Found>, SourceError> {
        let documents_max = if keys.len() == 1 { DOCUMENTS_MAX } else { BATCH_DOCUMENTS_MAX };
        let mut command = find_command(lookup, keys, documents_max);
        if self.mode == Mode::ReplicaSet {
            command.insert("readConcern", doc! { "level": "snapshot", "afterClusterTime": timestamp_of(at) });
        } else {
            command.insert("readConcern", doc! { "level": "local" });
        }
        let tick = self.tick();
        let mut reply = self.read_limited(command.clone(), deadline).await;
        if matches!(reply, Err(CommandError::UnknownMoment(_))) {
            // The node does not know the moment yet. A probe informs it.
            self.probe(deadline).await?;
            reply = self.read_limited(command, deadline).await;
        }
        let collection = || lookup.collection.to_string();
        let failed = |source| SourceError::Find { collection: collection(), source };
        let reply = reply.map_err(|error| error.into_source_error(failed))?;
        let nonsense = |what| SourceError::Answer { collection: collection(), what };
        let cursor = reply.as_raw_document().get_document("cursor").map_err(|_| nonsense("no cursor"))?;
        let stamp = match (self.mode, cursor.get_timestamp("atClusterTime")) {
            (Mode::Standalone | Mode::Sharded, _) => tick,
            (Mode::ReplicaSet, Ok(stamp)) => moment_of(stamp),
            // A collection that does not exist has no snapshot. At the requested moment it was empty.
            (Mode::ReplicaSet, Err(_)) => at,
        };
        if self.mode == Mode::ReplicaSet && stamp < at {
            return Err(nonsense("a snapshot of an earlier moment than the one asked for"));
        }
        let batch = cursor.get_array("firstBatch").map_err(|_| nonsense("no batch"))?;
        if cursor.get_i64("id").is_ok_and(|id| id != 0) {
            return Ok(None);
        }
        let mut documents = Vec::new();
        for item in batch {
            let Ok(RawBsonRef::Document(document)) = item else { return Err(nonsense("an item is no document")) };
            documents.push(self.decode(lookup, document));
        }
        Ok((documents.len() <= documents_max).then_some(Found { documents, stamp }))
    }

    /// Decodes a document. Logs and counts it if something in it cannot be read.
    pub(super) fn decode(&self, lookup: &Lookup, document: &RawDocument) -> Decoded {
        let decoded = Decoded::projected(document, &lookup.projection);
        if let Some(field) = &decoded.unreadable_field {
            self.commands.found_unreadable(&lookup.collection);
            if let Some(suppressed) = UNREADABLE.admit() {
                tracing::warn!(
                    collection = &*lookup.collection,
                    id = %DocumentId::of(&decoded.document),
                    field,
                    suppressed,
                    "a document has a field that cannot be read: what depends on the field is indeterminate"
                );
            }
        }
        decoded
    }

    /// Whether a document has none of the keys that it was found by, as far as its keys can be read.
    fn is_unmatched(&self, lookup: LookupId, keys: &[Id], found: &Found) -> bool {
        let mut unreadable = found.documents.iter().filter(|decoded| decoded.has_unreadable()).peekable();
        if unreadable.peek().is_none() {
            return false;
        }
        let keys: HashSet<&Id> = keys.iter().collect();
        unreadable.any(|decoded| {
            let mut is_matched = false;
            document_keys(&self.schema.lookup(lookup).by, decoded.as_matched(), &mut |key| {
                is_matched |= keys.contains(&key);
            });
            !is_matched
        })
    }

    /// Sorts documents by key and makes a fact for each key. A key that no document has gets a fact, too.
    fn facts(&self, lookup: LookupId, keys: Vec<Id>, found: &Found) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let mut by_key: HashMap<Id, Vec<&Document>> = keys.into_iter().map(|key| (key, Vec::new())).collect();
        let is_only_key = by_key.len() == 1;
        for decoded in &found.documents {
            let document = &decoded.document;
            if is_only_key && decoded.has_unreadable() {
                // It was found by this key, even if its key cannot be read.
                if let Some(documents) = by_key.values_mut().next() {
                    documents.push(document);
                }
                continue;
            }
            document_keys(&self.schema.lookup(lookup).by, decoded.as_matched(), &mut |key| {
                if let Some(documents) = by_key.get_mut(&key)
                    && documents.last().is_none_or(|last| !std::ptr::eq(*last, document))
                {
                    documents.push(document);
                }
            });
        }
        let fact = |(id, documents): (Id, Vec<&Document>)| {
            let key = FactKey { lookup, id };
            (key.clone(), Ok(Fact::read(&self.schema, key, found.stamp, &documents)))
        };
        by_key.into_iter().map(fact).collect()
    }
}

/// The span of a `find`. It does not contain the keys.
fn find_span(lookup: &Lookup, keys: usize) -> Span {
    trace_span!(
        target: SPANS,
        "mongodb find",
        otel.kind = "client",
        db.system = "mongodb",
        db.operation.name = "find",
        db.collection.name = &*lookup.collection,
        keys,
    )
}

fn find_command(lookup: &Lookup, keys: &[Id], documents_max: usize) -> Document {
    let keys: Vec<Bson> = keys.iter().map(id_to_bson).collect();
    let mut filter = doc! { lookup.by.as_str(): { "$in": keys } };
    if let Some(pushed) = &lookup.pushed {
        filter = doc! { "$and": [filter, pushed.to_query()] };
    }
    let fields = lookup.projection.iter().map(|field| &**field).chain([NO_FIELD]);
    let projection: Document = fields.map(|field| (field.to_owned(), Bson::Int32(1))).collect();
    // One document more than wanted shows that there are more. All come in one batch if they fit in one reply.
    let limit = i64::try_from(documents_max.saturating_add(1)).unwrap_or(i64::MAX);
    doc! {
        "find": &*lookup.collection,
        "filter": filter,
        "projection": projection,
        "limit": limit,
        "batchSize": limit,
        // Conditions compare texts the same way in process, whatever collation the collection has.
        "collation": { "locale": "simple" },
    }
}
