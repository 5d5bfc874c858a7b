//! Documents in memory of which some whole facts are over their limit, so that the facts that are filtered to the subject are read in
//! their place. The documents themselves are few.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use async_trait::async_trait;
use permcached::{
    fact::{Fact, FactKey},
    freshness::{Clock, Moment},
    question::{CollectionId, Id},
    source::{Deadline, Source, SourceError, documents::Documents},
};

/// Documents with some whole facts over their limit.
pub struct Oversized {
    documents: Arc<Documents>,
    /// Which whole facts are over their limit: those for whose hash the byte is at least 100. If there are none, all are.
    chosen: Vec<u8>,
}

impl Oversized {
    pub fn new(documents: Arc<Documents>, chosen: &[u8]) -> Self {
        Self { documents, chosen: chosen.to_vec() }
    }

    fn is_over_limit(&self, key: &FactKey) -> bool {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() >> 1).expect("64 bits") % self.chosen.len().max(1);
        key.subject.is_none() && self.chosen.get(place).is_none_or(|byte| *byte >= 100)
    }
}

#[async_trait]
impl Source for Oversized {
    fn clock(&self) -> Clock {
        self.documents.clock()
    }

    async fn probe(&self, deadline: Deadline) -> Result<Moment, SourceError> {
        self.documents.probe(deadline).await
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let loaded = self.documents.load(keys, at, deadline).await;
        let replaced = loaded.into_iter().map(|(key, result)| match result {
            Ok(fact) if self.is_over_limit(&key) => (key.clone(), Ok(Fact::over_limit(key, fact.stamp()))),
            result => (key, result),
        });
        replaced.collect()
    }

    async fn keys_of(
        &self,
        collection: CollectionId,
        ids: Vec<Id>,
        at: Moment,
        deadline: Deadline,
    ) -> Result<Vec<FactKey>, SourceError> {
        self.documents.keys_of(collection, ids, at, deadline).await
    }
}
