//! Documents read by key with `find`, and made into facts (docs/freshness.md, point 1).
//!
//! Each `find` reads at a snapshot, so that a fact is exactly the state at its stamp. Caches no fact.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use bson::{Bson, Document, RawArray, RawBsonRef, RawDocument, doc};
use futures::future::join_all;
use tracing::{Instrument as _, Span, trace_span};

use super::{
    Mode, MongoDb,
    command::CommandError,
    decode::{Decoded, NO_FIELD},
    filtered::FilteredQuery,
    keys::has_key,
    moment_of,
    sizes::KnownSizes,
    timestamp_of,
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

/// How many documents the first look at a whole fact returns at most.
pub(super) const FIRST_DOCUMENTS: usize = 100;

/// How many keys are each read alone if the first look at all of them shows that one may be large.
const FEW_KEYS_MAX: usize = 8;

/// How many bytes a command may have; the limit of MongoDB is 16 MiB. More keys are asked for in halves.
pub(super) const COMMAND_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// How many documents one `find` for several filtered facts returns at most.
const FILTERED_DOCUMENTS_MAX: usize = 4_000;

/// Limits log lines about documents that cannot be read, as whoever may write documents can cause them.
static UNREADABLE: RateLimitedLog = RateLimitedLog::per_second(1);

/// What one load asks for, besides its keys.
#[derive(Clone, Copy)]
pub(super) struct Load<'a> {
    /// The filtered facts that will be asked for next if the whole facts of the same keys are over their limit.
    pub(super) if_large: &'a [FactKey],
    /// The moment that the load reads as of, or later.
    pub(super) at: Moment,
    pub(super) deadline: Deadline,
    /// How many bytes of facts the load may still return.
    pub(super) byte_budget: &'a AtomicUsize,
}

impl Load<'_> {
    fn take_bytes<'f>(&self, facts: impl Iterator<Item = &'f Fact>) {
        let bytes = facts.map(Fact::memory).sum();
        self.byte_budget.update(Ordering::Relaxed, Ordering::Relaxed, |left| left.saturating_sub(bytes));
    }
}

/// What one `find` returned.
pub(super) struct Found {
    pub(super) documents: Vec<Decoded>,
    pub(super) stamp: Moment,
    /// Whether these are all. If not, they are some of them.
    pub(super) is_complete: bool,
    /// If not, the filtered facts that were read at the same time.
    pub(super) filtered: Vec<(FactKey, Fact)>,
}

/// The snapshot that a `find` reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Snapshot {
    /// One of this moment or later.
    After(Moment),
    /// The one of this moment.
    Of(Moment),
}

/// What is kept of the documents that a `find` returns if there are more than it should return.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    One,
    All,
}

impl Snapshot {
    fn moment(self) -> Moment {
        match self {
            Self::After(moment) | Self::Of(moment) => moment,
        }
    }
}

impl MongoDb {
    /// Reads the facts of these keys, which are all whole or all filtered, in as few commands as possible.
    pub(super) async fn find(
        &self,
        lookup: LookupId,
        keys: Vec<FactKey>,
        load: Load<'_>,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let found = self.schema.lookup(lookup);
        if found.is_reverse
            && let Err(error) = self.require_index_of(found, load.deadline).await
        {
            return keys.into_iter().map(|key| (key, Err(error.clone()))).collect();
        }
        let results = self.find_each(lookup, keys, load).await;
        for (key, fact) in results.iter().filter_map(|(key, result)| Some((key, result.as_ref().ok()?))) {
            self.notice_size(key, fact);
        }
        results
    }

    /// As [`MongoDb::find`], without notice of large facts.
    async fn find_each(
        &self,
        lookup: LookupId,
        keys: Vec<FactKey>,
        load: Load<'_>,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let mut results = Vec::with_capacity(keys.len());
        let mut remaining = vec![keys];
        while let Some(mut keys) = remaining.pop() {
            let found = match load.byte_budget.load(Ordering::Relaxed) {
                0 => Err(SourceError::TooMuch),
                _ => {
                    let found = self.schema.lookup(lookup);
                    let span = find_span(found, keys.len());
                    self.find_facts(lookup, &keys, load).instrument(span).await
                }
            };
            match found {
                // Nobody knows which of several keys has found the document.
                Ok(found) if found.is_complete && keys.len() > 1 && self.is_unmatched(lookup, &keys, &found) => {
                    remaining.push(keys.split_off(keys.len() / 2));
                    remaining.push(keys);
                }
                Ok(found) if found.is_complete => {
                    let facts = self.facts(lookup, keys, &found);
                    load.take_bytes(facts.iter().map(|(_, fact)| fact));
                    results.extend(facts.into_iter().map(|(key, fact)| (key, Ok(fact))));
                }
                Ok(_) if self.has_first_look(lookup, &keys) => {
                    let find = |key| Box::pin(self.find_each(lookup, vec![key], load));
                    results.extend(join_all(keys.into_iter().map(find)).await.into_iter().flatten());
                }
                Ok(found) if keys.len() > 1 => {
                    let large = self.large_keys(lookup, &keys, &found);
                    if large.is_empty() {
                        remaining.push(keys.split_off(keys.len() / 2));
                    }
                    keys.retain(|key| !large.contains(key));
                    remaining.extend((!keys.is_empty()).then_some(keys));
                    results.extend(large.into_iter().map(|key| (key.clone(), Ok(Fact::over_limit(key, found.stamp)))));
                }
                Ok(found) => {
                    for key in keys {
                        let fact = match key.subject() {
                            None => Ok(Fact::over_limit(key.clone(), found.stamp)),
                            Some(_) => self.find_by_relation(&key, found.stamp, load.deadline).await,
                        };
                        results.push((key, fact));
                    }
                    load.take_bytes(found.filtered.iter().map(|(_, fact)| fact));
                    results.extend(found.filtered.into_iter().map(|(key, fact)| (key, Ok(fact))));
                }
                Err(error) => {
                    results.extend(keys.into_iter().map(|key| (key, Err(error.clone()))));
                }
            }
        }
        results
    }

    /// The keys of whole facts that have more documents than a fact may contain among those that were found.
    fn large_keys(&self, lookup: LookupId, keys: &[FactKey], found: &Found) -> HashSet<FactKey> {
        let mut counts: HashMap<Id, usize> = HashMap::new();
        for decoded in &found.documents {
            document_keys(self.schema.lookup(lookup), decoded.as_matched(), &mut |id| {
                *counts.entry(id).or_default() += 1;
            });
        }
        let is_large =
            |key: &&FactKey| key.subject.is_none() && counts.get(&key.id).is_some_and(|count| *count > DOCUMENTS_MAX);
        keys.iter().filter(is_large).cloned().collect()
    }

    /// Runs one `find` for facts that are all whole or all filtered; a few for a whole fact that may be large.
    async fn find_facts(&self, lookup: LookupId, keys: &[FactKey], load: Load<'_>) -> Result<Found, SourceError> {
        let Load { at, deadline, .. } = load;
        match keys {
            [FactKey { id, subject: None, .. }] => self.find_alone(lookup, id, load).await,
            keys if keys.iter().all(|key| key.subject.is_none()) => {
                let ids: Vec<Id> = keys.iter().map(|key| key.id.clone()).collect();
                let documents_max = if self.has_first_look(lookup, keys) {
                    keys.len() * FIRST_DOCUMENTS
                } else {
                    // If there are more, one of the keys has more than a fact may contain.
                    (keys.len() * DOCUMENTS_MAX).min(BATCH_DOCUMENTS_MAX)
                };
                self.find_documents(self.schema.lookup(lookup), &ids, documents_max, at, deadline).await
            }
            keys => self.find_filtered(lookup, keys, at, deadline).await,
        }
    }

    /// Whether a look at a few documents comes first: for a few whole facts, if other keys of the lookup are large. If there are more
    /// documents, each fact is read alone.
    fn has_first_look(&self, lookup: LookupId, keys: &[FactKey]) -> bool {
        let is_whole = keys.iter().all(|key| key.subject.is_none());
        is_whole && (2..=FEW_KEYS_MAX).contains(&keys.len()) && self.sizes_of(lookup).is_some_and(KnownSizes::had_large)
    }

    /// Runs one `find` for filtered facts.
    pub(super) async fn find_filtered(
        &self,
        lookup: LookupId,
        keys: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Result<Found, SourceError> {
        let lookup = self.schema.lookup(lookup);
        let query = FilteredQuery::new(&self.schema, lookup, keys);
        // More than a fact may contain, as the query may return documents that turn out not to matter.
        let documents_max = if keys.len() == 1 { BATCH_DOCUMENTS_MAX } else { FILTERED_DOCUMENTS_MAX };
        let command = find_command(lookup, query.filter(), query.projection(), documents_max);
        if query.may_be_large() && command.to_vec().is_ok_and(|bytes| bytes.len() > COMMAND_BYTES_MAX) {
            return Ok(Found { documents: Vec::new(), stamp: at, is_complete: false, filtered: Vec::new() });
        }
        let _turn = if query.is_selective() { None } else { Some(self.turn(deadline).await?) };
        self.run_filtered(lookup, command, Snapshot::After(at), Kept::One, deadline).await
    }

    /// Sends a `find` for filtered facts.
    pub(super) async fn run_filtered(
        &self,
        lookup: &Lookup,
        command: Document,
        snapshot: Snapshot,
        kept: Kept,
        deadline: Deadline,
    ) -> Result<Found, SourceError> {
        let decode = |document: &RawDocument| self.report(lookup, Decoded::filtered(document, &lookup.projection));
        self.run_find(lookup, command, snapshot, kept, deadline, decode).await
    }

    /// Runs one `find` for whole facts.
    pub(super) async fn find_once(
        &self,
        lookup: &Lookup,
        keys: &[Id],
        at: Moment,
        deadline: Deadline,
    ) -> Result<Found, SourceError> {
        let documents_max = match keys.len() {
            0 | 1 => DOCUMENTS_MAX,
            _ => BATCH_DOCUMENTS_MAX,
        };
        self.find_documents(lookup, keys, documents_max, at, deadline).await
    }

    /// Runs one `find` for whole facts, for this many documents at most.
    pub(super) async fn find_documents(
        &self,
        lookup: &Lookup,
        keys: &[Id],
        documents_max: usize,
        at: Moment,
        deadline: Deadline,
    ) -> Result<Found, SourceError> {
        let fields = lookup.projection.iter().map(|field| &**field).chain([NO_FIELD]);
        let projection: Document = fields.map(|field| (field.to_owned(), Bson::Int32(1))).collect();
        let command = find_command(lookup, filter(lookup, keys), projection, documents_max);
        let kept = if keys.len() == 1 { Kept::One } else { Kept::All };
        let decode = |document: &RawDocument| self.decode(lookup, document);
        self.run_find(lookup, command, Snapshot::After(at), kept, deadline, decode).await
    }

    /// The moment at which more than so many documents match a filter; none if no more do. Reads one document at most.
    pub(super) async fn has_more_than(
        &self,
        max: usize,
        lookup: &Lookup,
        filter: Document,
        projection: Document,
        at: Moment,
        deadline: Deadline,
    ) -> Result<Option<Moment>, SourceError> {
        let mut command = find_command(lookup, filter, projection, 0);
        command.insert("skip", i64::try_from(max).unwrap_or(i64::MAX));
        let found = self.run_find(lookup, command, Snapshot::After(at), Kept::One, deadline, Decoded::of).await?;
        Ok((!found.is_complete).then_some(found.stamp))
    }

    /// Sends a `find`, and decodes the documents that it returns.
    pub(super) async fn run_find(
        &self,
        lookup: &Lookup,
        mut command: Document,
        snapshot: Snapshot,
        kept: Kept,
        deadline: Deadline,
        decode: impl Fn(&RawDocument) -> Decoded,
    ) -> Result<Found, SourceError> {
        let at = snapshot.moment();
        let documents_max = command.get_i64("limit").ok().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(1);
        let read_concern = match (self.mode, snapshot) {
            (Mode::ReplicaSet, Snapshot::After(at)) => {
                doc! { "level": "snapshot", "afterClusterTime": timestamp_of(at) }
            }
            (Mode::ReplicaSet, Snapshot::Of(at)) => doc! { "level": "snapshot", "atClusterTime": timestamp_of(at) },
            (Mode::Standalone | Mode::Sharded, _) => doc! { "level": "local" },
        };
        command.insert("readConcern", read_concern);
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
        let (batch, is_complete) = first_batch(cursor, documents_max).map_err(nonsense)?;
        let mut documents = Vec::new();
        let kept_max = match kept {
            Kept::One if !is_complete => 1,
            Kept::One | Kept::All => usize::MAX,
        };
        for item in batch.into_iter().take(kept_max) {
            let Ok(RawBsonRef::Document(document)) = item else { return Err(nonsense("an item is no document")) };
            documents.push(decode(document));
        }
        Ok(Found { documents, stamp, is_complete, filtered: Vec::new() })
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
    pub(super) fn is_unmatched(&self, lookup: LookupId, keys: &[FactKey], found: &Found) -> bool {
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
    pub(super) fn facts(&self, lookup: LookupId, keys: Vec<FactKey>, found: &Found) -> Vec<(FactKey, Fact)> {
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

/// The documents that have one of the keys and can be of use.
pub(super) fn filter(lookup: &Lookup, keys: &[Id]) -> Document {
    let has_key = has_key(lookup, keys);
    match &lookup.wanted {
        Some(wanted) => doc! { "$and": [has_key, wanted.query()] },
        None => has_key,
    }
}

/// The documents that a `find` has returned, and whether these are all. If not, there is at least one. `documents_max` is the limit
/// of the `find`, which is one more than wanted.
fn first_batch(cursor: &RawDocument, documents_max: usize) -> Result<(&RawArray, bool), &'static str> {
    let batch = cursor.get_array("firstBatch").map_err(|_| "no batch")?;
    let is_complete = cursor.get_i64("id").is_ok_and(|id| id == 0) && batch.into_iter().count() < documents_max;
    if !is_complete && batch.is_empty() {
        return Err("no document, but a cursor for more");
    }
    Ok((batch, is_complete))
}

/// The span of a `find`. It does not contain the keys.
pub(super) fn find_span(lookup: &Lookup, keys: usize) -> Span {
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

pub(super) fn find_command(lookup: &Lookup, filter: Document, projection: Document, documents_max: usize) -> Document {
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

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, doc, rawdoc};

    use super::first_batch;

    #[test]
    fn an_empty_batch_of_an_open_cursor_is_no_reply() {
        let of = |id: i64, documents: &[i32], documents_max| {
            let documents = documents.iter().map(|number| doc! { "_id": number }).collect::<Vec<_>>();
            let cursor = RawDocumentBuf::try_from(&doc! { "id": id, "firstBatch": documents }).unwrap();
            first_batch(&cursor, documents_max).map(|(batch, is_complete)| (batch.into_iter().count(), is_complete))
        };
        assert_eq!(of(0, &[], 1), Ok((0, true)));
        assert_eq!(of(0, &[1], 2), Ok((1, true)));
        assert_eq!(of(0, &[1], 1), Ok((1, false)));
        assert_eq!(of(7, &[1], 2), Ok((1, false)));
        assert_eq!(of(7, &[], 2), Err("no document, but a cursor for more"));
        assert_eq!(first_batch(&rawdoc! { "id": 0_i64 }, 1).map(|(_, is_complete)| is_complete), Err("no batch"));
    }
}
