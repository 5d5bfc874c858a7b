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
    filtered::FilteredQuery,
    keys::has_key,
    moment_of, timestamp_of,
};
use crate::{
    fact::{DOCUMENTS_MAX, DocumentId, Fact, FactKey, document_keys},
    moment::Moment,
    question::{Id, LookupId},
    schema::Lookup,
    source::{Deadline, Source as _, SourceError},
    telemetry::{RateLimitedLog, SPANS},
};

/// How many documents one `find` for several keys returns at most. If there are more, the keys are asked for in halves.
pub(super) const BATCH_DOCUMENTS_MAX: usize = 40_000;

/// How many documents one `find` for several filtered facts returns at most.
const FILTERED_DOCUMENTS_MAX: usize = 4_000;

/// Limits log lines about facts over their limit, as whoever may write documents can cause them.
static OVER_LIMIT: RateLimitedLog = RateLimitedLog::per_second(1);

/// Limits log lines about documents that cannot be read, as whoever may write documents can cause them.
static UNREADABLE: RateLimitedLog = RateLimitedLog::per_second(1);

/// What one `find` returned.
pub(super) struct Found {
    pub(super) documents: Vec<Decoded>,
    stamp: Moment,
}

impl MongoDb {
    /// Reads the facts of these keys, which are all whole or all filtered, in as few commands as possible. `byte_budget` is how
    /// many bytes of facts the whole load may still return.
    pub(super) async fn find(
        &self,
        lookup: LookupId,
        keys: Vec<FactKey>,
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
                    self.find_facts(found, &keys, at, deadline).instrument(span).await
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
                    let bytes = facts.iter().map(|(_, fact)| fact.memory()).sum();
                    byte_budget.update(Ordering::Relaxed, Ordering::Relaxed, |left| left.saturating_sub(bytes));
                    results.extend(facts.into_iter().map(|(key, fact)| (key, Ok(fact))));
                }
                Ok(None) if keys.len() > 1 => {
                    remaining.push(keys.split_off(keys.len() / 2));
                    remaining.push(keys);
                }
                Ok(None) => {
                    results.extend(keys.into_iter().map(|key| (key.clone(), Ok(Fact::over_limit(key, at)))));
                }
                Err(error) => {
                    results.extend(keys.into_iter().map(|key| (key, Err(error.clone()))));
                }
            }
        }
        let beyond = results.iter().filter_map(|(key, result)| Some((key, result.as_ref().ok()?)));
        for (key, _) in beyond.filter(|(key, fact)| key.subject.is_some() && fact.is_over_limit()) {
            self.warn_of_limit(key);
        }
        results
    }

    /// Logs that a filtered fact is over its limit.
    fn warn_of_limit(&self, key: &FactKey) {
        if let Some(suppressed) = OVER_LIMIT.admit() {
            let lookup = self.schema.lookup(key.lookup);
            tracing::warn!(
                collection = &*lookup.collection,
                field = lookup.by.as_str(),
                key = %key.id,
                suppressed,
                "more documents or ids than a fact may contain, even for one subject: the relations that are read from them are LIMIT"
            );
        }
    }

    /// Runs one `find` for facts that are all whole or all filtered. Returns `None` if there are more documents than one reply
    /// holds.
    async fn find_facts(
        &self,
        lookup: &Lookup,
        keys: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Result<Option<Found>, SourceError> {
        if keys.iter().all(|key| key.subject.is_none()) {
            let ids: Vec<Id> = keys.iter().map(|key| key.id.clone()).collect();
            return self.find_once(lookup, &ids, at, deadline).await;
        }
        let query = FilteredQuery::new(&self.schema, lookup, keys);
        // More than a fact may contain, as the query may return documents that turn out not to matter.
        let documents_max = if keys.len() == 1 { BATCH_DOCUMENTS_MAX } else { FILTERED_DOCUMENTS_MAX };
        let command = find_command(lookup, query.filter(), query.projection(), documents_max);
        let decode = |document: &RawDocument| self.report(lookup, Decoded::filtered(document, &lookup.projection));
        self.run_find(lookup, command, documents_max, at, deadline, decode).await
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
        let mut filter = has_key(lookup, keys);
        if let Some(pushed) = &lookup.pushed {
            filter = doc! { "$and": [filter, pushed.to_query()] };
        }
        let fields = lookup.projection.iter().map(|field| &**field).chain([NO_FIELD]);
        let projection: Document = fields.map(|field| (field.to_owned(), Bson::Int32(1))).collect();
        let command = find_command(lookup, filter, projection, documents_max);
        self.run_find(lookup, command, documents_max, at, deadline, |document| self.decode(lookup, document)).await
    }

    /// Sends a `find`, and decodes the documents that it returns.
    async fn run_find(
        &self,
        lookup: &Lookup,
        mut command: Document,
        documents_max: usize,
        at: Moment,
        deadline: Deadline,
        decode: impl Fn(&RawDocument) -> Decoded,
    ) -> Result<Option<Found>, SourceError> {
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
        if batch.into_iter().count() > documents_max {
            return Ok(None);
        }
        let mut documents = Vec::new();
        for item in batch {
            let Ok(RawBsonRef::Document(document)) = item else { return Err(nonsense("an item is no document")) };
            documents.push(decode(document));
        }
        Ok(Some(Found { documents, stamp }))
    }

    /// Decodes a document. Logs and counts it if something in it cannot be read.
    pub(super) fn decode(&self, lookup: &Lookup, document: &RawDocument) -> Decoded {
        self.report(lookup, Decoded::projected(document, &lookup.projection))
    }

    fn report(&self, lookup: &Lookup, decoded: Decoded) -> Decoded {
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
    fn is_unmatched(&self, lookup: LookupId, keys: &[FactKey], found: &Found) -> bool {
        let mut unreadable = found.documents.iter().filter(|decoded| decoded.has_unreadable()).peekable();
        if unreadable.peek().is_none() {
            return false;
        }
        let keys: HashSet<&Id> = keys.iter().map(|key| &key.id).collect();
        unreadable.any(|decoded| {
            let mut is_matched = false;
            document_keys(self.schema.lookup(lookup), decoded.as_matched(), &mut |key| {
                is_matched |= keys.contains(&key);
            });
            !is_matched
        })
    }

    /// Sorts documents by key and makes a fact for each key. A key that no document has gets a fact, too.
    fn facts(&self, lookup: LookupId, keys: Vec<FactKey>, found: &Found) -> Vec<(FactKey, Fact)> {
        let mut by_key: HashMap<Id, Vec<&Document>> = keys.iter().map(|key| (key.id.clone(), Vec::new())).collect();
        let is_only_key = keys.len() == 1;
        for decoded in &found.documents {
            let document = &decoded.document;
            if is_only_key && decoded.has_unreadable() {
                // It was found by this key, even if its key cannot be read.
                if let Some(documents) = by_key.values_mut().next() {
                    documents.push(document);
                }
                continue;
            }
            document_keys(self.schema.lookup(lookup), decoded.as_matched(), &mut |key| {
                if let Some(documents) = by_key.get_mut(&key)
                    && documents.last().is_none_or(|last| !std::ptr::eq(*last, document))
                {
                    documents.push(document);
                }
            });
        }
        let fact = |key: FactKey| {
            let documents = by_key.get(&key.id).map(Vec::as_slice).unwrap_or_default();
            (key.clone(), Fact::read(&self.schema, key, found.stamp, documents))
        };
        keys.into_iter().map(fact).collect()
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

fn find_command(lookup: &Lookup, filter: Document, projection: Document, documents_max: usize) -> Document {
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
