//! Keys drawn from a collection at random, for questions about existing documents.
//!
//! Reads only the keys, from their index if there is one, and never whole documents.

use std::{collections::HashSet, sync::Arc};

use bson::{RawDocumentBuf, doc};
use fastrand::Rng;
use futures::TryStreamExt;
use mongodb::options::Collation;

use super::{DriverError, MongoDb, decode::Decoded, primary};
use crate::{
    fact::document_keys,
    question::{Id, LookupId},
    schema::Condition,
    source::SourceError,
};

/// How many documents are read at most, in the order of their keys.
const DOCUMENTS_MAX: i64 = 1_000_000;

impl MongoDb {
    /// Draws at most `count` different keys by which a lookup finds documents that fulfil the condition. Every key of the
    /// first million documents has the same chance. The same documents and the same state of `random` give the same keys in the same order.
    ///
    /// # Errors
    /// [`SourceError::Find`].
    pub async fn sample(
        &self,
        lookup: LookupId,
        condition: Option<&Condition>,
        count: usize,
        random: &mut Rng,
    ) -> Result<Vec<Id>, SourceError> {
        let lookup = self.schema.lookup(lookup);
        let failed = |error: DriverError| SourceError::Find {
            collection: lookup.collection.to_string(),
            source: Arc::new(error),
        };
        let mut keys_only = doc! { lookup.by.as_str(): 1 };
        if !lookup.is_by_id() {
            keys_only.insert("_id", 0);
        }
        let collection = self.client.database().collection::<RawDocumentBuf>(&lookup.collection);
        let filter = condition.map(Condition::to_query).unwrap_or_default();
        let find =
            collection.find(filter).sort(doc! { lookup.by.as_str(): 1 }).projection(keys_only).limit(DOCUMENTS_MAX);
        let find = find.collation(Collation::builder().locale("simple").build());
        let mut documents = find.selection_criteria(primary()).await.map_err(|error| failed(error.into()))?;
        // Reservoir sampling: the n-th key is kept with a probability of count / n.
        let (mut drawn, mut known) = (Vec::new(), HashSet::new());
        while let Some(document) = documents.try_next().await.map_err(|error| failed(error.into()))? {
            let mut keys = Vec::new();
            document_keys(lookup, Decoded::of(&document).as_matched(), &mut |key| keys.push(key));
            for key in keys {
                if !known.insert(key.clone()) {
                    continue;
                }
                if drawn.len() < count {
                    drawn.push(key);
                } else if let Some(place) = drawn.get_mut(random.usize(..known.len())) {
                    *place = key;
                }
            }
        }
        random.shuffle(&mut drawn);
        Ok(drawn)
    }
}
