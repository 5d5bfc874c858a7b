//! Filtered facts with more documents than one reply holds: read relation by relation, so that a relation with too many of them is
//! the only one that is over its limit. For a flag, a few documents decide.
//!
//! All reads are of one snapshot if MongoDB is a replica set. Does not know what a fact may contain.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
};

use bson::doc;
use tokio::{sync::SemaphorePermit, time::timeout_at};

use super::{
    MongoDb,
    decode::Decoded,
    filtered::FilteredQuery,
    find::{BATCH_DOCUMENTS_MAX, Found, Kept, Snapshot, find_command},
};
use crate::{
    fact::{Certainty, DOCUMENTS_MAX, DocumentId, Fact, FactKey, Grant, Grantee, Window},
    moment::Moment,
    question::RelationId,
    source::{Deadline, SourceError},
};

/// How many documents are looked at to find one that decides a flag.
const DECIDING_MAX: usize = 20;

/// The documents of a fact, as far as they were read.
#[derive(Default)]
struct Collected {
    documents: Vec<Decoded>,
    /// The places of the documents, by the hash of their bytes. Their ids are not enough: different ones look the same if they are
    /// not UTF-8, or are ids of several shards.
    places: HashMap<u64, Vec<usize>>,
    hashes: RandomState,
    /// The relations with too many documents, each with one of them.
    beyond: Vec<(RelationId, DocumentId)>,
}

impl Collected {
    /// Adds those documents that are not there yet.
    fn add(&mut self, found: Found) {
        for decoded in found.documents {
            if let Ok(bytes) = decoded.document.to_vec() {
                let places = self.places.entry(self.hashes.hash_one(&bytes)).or_default();
                let mut alike = places.iter().filter_map(|place| self.documents.get(*place));
                if alike.any(|known| known.document.to_vec().is_ok_and(|known| known == bytes)) {
                    continue;
                }
                places.push(self.documents.len());
            }
            self.documents.push(decoded);
        }
    }
}

impl MongoDb {
    /// Reads a filtered fact relation by relation, at this snapshot.
    pub(super) async fn find_by_relation(
        &self,
        key: &FactKey,
        at: Moment,
        deadline: Deadline,
    ) -> Result<Fact, SourceError> {
        let _turn = self.turn(deadline).await?;
        let lookup = self.schema.lookup(key.lookup);
        let query = FilteredQuery::new(&self.schema, lookup, std::slice::from_ref(key));
        let relations: Vec<_> = query.relations().collect();
        let share = (BATCH_DOCUMENTS_MAX / relations.len().max(1)).max(2 * DOCUMENTS_MAX);
        let mut collected = Collected::default();
        for (id, relation) in relations {
            let is_flag = relation.ids.is_none() && relation.each.is_none();
            let snapshot = Snapshot::Of(at);
            if is_flag {
                let command =
                    find_command(lookup, query.setting_filter(relation, false), query.projection(), DECIDING_MAX);
                let mut found = self.run_filtered(lookup, command, snapshot, Kept::All, deadline).await?;
                if let Some(place) = found.documents.iter().position(|decoded| self.sets(key, id, decoded)) {
                    found.documents = vec![found.documents.swap_remove(place)];
                    collected.add(found);
                    continue;
                }
            }
            // Each relation may have its share. Once all documents together are too many, it may have one.
            let documents_max = if collected.documents.len() < BATCH_DOCUMENTS_MAX { share } else { 1 };
            let filter = query.filter_for(std::iter::once(relation));
            let command = find_command(lookup, filter, query.projection(), documents_max);
            let found = self.run_filtered(lookup, command, snapshot, Kept::One, deadline).await?;
            if !found.is_complete {
                let first = found.documents.first().map(|decoded| DocumentId::of(&decoded.document));
                collected.beyond.extend(first.map(|first| (id, first)));
                if let Some(until) = relation.until.as_ref().filter(|_| is_flag) {
                    let filter = query.setting_filter(relation, true);
                    let mut command = find_command(lookup, filter, query.projection(), DECIDING_MAX);
                    command.insert("sort", doc! { until.path.as_str(): -1 });
                    collected.add(self.run_filtered(lookup, command, snapshot, Kept::All, deadline).await?);
                }
            }
            collected.add(found);
        }
        let documents: Vec<_> = collected.documents.iter().map(|decoded| &decoded.document).collect();
        Ok(Fact::read_partly(&self.schema, key.clone(), at, &documents, &collected.beyond))
    }

    /// Whether a document surely sets a flag, at all times.
    fn sets(&self, key: &FactKey, flag: RelationId, decoded: &Decoded) -> bool {
        let fact = Fact::read(&self.schema, key.clone(), Moment::default(), &[&decoded.document]);
        let sets = |grant: &Grant| {
            grant.grantee == Grantee::Flag
                && grant.certainty == Certainty::Sure
                && fact.window(grant) == Window::default()
        };
        fact.grants(flag).any(sets)
    }

    /// Waits for a turn to read many documents of one key.
    pub(super) async fn turn(&self, deadline: Deadline) -> Result<SemaphorePermit<'_>, SourceError> {
        let turn = timeout_at(deadline.instant(), self.turns.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or(SourceError::TimedOut)
    }
}
