//! One whole fact, read alone: most have few documents, and of one that is over its limit only that matters. The facts that are
//! filtered to the subjects who ask are then read at the same time.
//!
//! Does not know what a fact may contain, nor who asks.

use std::{pin::pin, sync::atomic::Ordering};

use bson::doc;
use futures::future::{Either, join, select};

use super::{
    FILTERED_KEYS_MAX, MongoDb,
    find::{FIRST_DOCUMENTS, Found, Load, filter},
    sizes::KnownSizes,
};
use crate::{
    fact::{DOCUMENTS_MAX, Fact, FactKey},
    moment::Moment,
    question::{Id, LookupId},
    schema::Lookup,
    source::SourceError,
};

impl MongoDb {
    /// Reads a whole fact. Looks at a few documents first: most facts have no more. Then it asks whether there are more than a whole
    /// fact may contain, and reads the others only if not. Meanwhile it reads the filtered facts that are asked for if there are.
    pub(super) async fn find_alone(&self, lookup: LookupId, id: &Id, load: Load<'_>) -> Result<Found, SourceError> {
        // Where this key may well be large, or others were, both are asked at once.
        let expects_more = self.sizes_of(lookup).is_some_and(|sizes| sizes.had_large() || sizes.expects_large(id));
        let found = self.schema.lookup(lookup);
        let ids = std::slice::from_ref(id);
        let first = self.find_documents(found, ids, FIRST_DOCUMENTS, load.at, load.deadline);
        let is_large = || self.is_large(found, ids, load);
        let (first, is_large_now) = if expects_more {
            let (first, is_large) = join(first, is_large()).await;
            (first?, Some(is_large))
        } else {
            (first.await?, None)
        };
        if first.is_complete {
            return Ok(first);
        }
        let if_large = if matches!(is_large_now, Some(Ok(None))) { &[] } else { load.if_large };
        let filtered = self.find_if_large(lookup, id, Load { if_large, ..load });
        let whole = async {
            let is_large = match is_large_now {
                Some(is_large) => is_large?,
                None => is_large().await?,
            };
            match is_large {
                // The key had so many documents at that moment, which may be an earlier one than that of the first look.
                Some(stamp) => Ok(Found { stamp, ..first }),
                None => self.find_documents(found, ids, DOCUMENTS_MAX, load.at, load.deadline).await,
            }
        };
        match select(pin!(whole), pin!(filtered)).await {
            Either::Left((Ok(whole), filtered)) if !whole.is_complete => {
                Ok(Found { filtered: filtered.await, ..whole })
            }
            // Only a fact over its limit waits for the filtered ones.
            Either::Left((whole, _)) => whole,
            Either::Right((filtered, whole)) => Ok(Found { filtered, ..whole.await? }),
        }
    }

    /// The moment at which a key has more documents than a whole fact may contain; none if it has not. Reads one document at most.
    async fn is_large(&self, lookup: &Lookup, keys: &[Id], load: Load<'_>) -> Result<Option<Moment>, SourceError> {
        // An index on the field has what is projected.
        let projection = doc! { "_id": 0, lookup.by.as_str(): 1 };
        self.has_more_than(DOCUMENTS_MAX, lookup, filter(lookup, keys), projection, load.at, load.deadline).await
    }

    /// The filtered facts of a key that are asked for if its whole fact is over its limit, as far as one `find` returns them at little
    /// cost. Without them the whole fact is no worse, so an error brings none.
    async fn find_if_large(&self, lookup: LookupId, id: &Id, load: Load<'_>) -> Vec<(FactKey, Fact)> {
        let keys = load.if_large.iter().filter(|key| key.lookup == lookup && key.id == *id);
        let keys: Vec<FactKey> = keys.take(FILTERED_KEYS_MAX).cloned().collect();
        let is_cheap = self.sizes_of(lookup).is_some_and(KnownSizes::can_expect);
        if keys.is_empty() || !is_cheap || load.byte_budget.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        match self.find_filtered(lookup, &keys, load.at, load.deadline).await {
            Ok(found) if found.is_complete && !self.is_unmatched(lookup, &keys, &found) => {
                self.facts(lookup, keys, &found)
            }
            Ok(_) | Err(_) => Vec::new(),
        }
    }
}
