//! Sources that wrap another one: a test replaces some of the methods of a [`Wrapper`], and [`Wrapped`] is the source.
//!
//! Methods that are not replaced ask the other source.

use std::ops::Deref;

use async_trait::async_trait;
use permcached::{
    fact::{Fact, FactKey},
    freshness::{Clock, Moment},
    question::{CollectionId, Id, LookupId},
    source::{Deadline, Listed, Listing, Source, SourceError},
};

/// The methods in which a source differs from the one inside it.
#[async_trait]
pub trait Wrapper: Send + Sync {
    /// The source that is asked for facts and keys.
    fn inner(&self) -> &dyn Source;

    /// The source that is asked for the time.
    fn time(&self) -> &dyn Source {
        self.inner()
    }

    async fn probe(&self, deadline: Deadline) -> Result<Moment, SourceError> {
        self.time().probe(deadline).await
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        if_large: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        self.inner().load(keys, if_large, at, deadline).await
    }

    async fn list(&self, listing: Listing, at: Moment, deadline: Deadline) -> Result<Listed, SourceError> {
        self.inner().list(listing, at, deadline).await
    }

    fn expects_large(&self, key: &FactKey, was_large: bool) -> bool {
        self.inner().expects_large(key, was_large)
    }

    fn may_stand_for_whole(&self, lookup: LookupId) -> bool {
        self.inner().may_stand_for_whole(lookup)
    }

    fn learn_size(&self, key: &FactKey, is_large: bool) {
        self.inner().learn_size(key, is_large);
    }
}

/// The source of a wrapper.
pub struct Wrapped<W>(pub W);

impl<W> Deref for Wrapped<W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.0
    }
}

#[async_trait]
impl<W: Wrapper> Source for Wrapped<W> {
    fn clock(&self) -> Clock {
        self.0.time().clock()
    }

    async fn probe(&self, deadline: Deadline) -> Result<Moment, SourceError> {
        self.0.probe(deadline).await
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        if_large: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        self.0.load(keys, if_large, at, deadline).await
    }

    async fn list(&self, listing: Listing, at: Moment, deadline: Deadline) -> Result<Listed, SourceError> {
        self.0.list(listing, at, deadline).await
    }

    fn expects_large(&self, key: &FactKey, was_large: bool) -> bool {
        self.0.expects_large(key, was_large)
    }

    fn may_stand_for_whole(&self, lookup: LookupId) -> bool {
        self.0.may_stand_for_whole(lookup)
    }

    fn learn_size(&self, key: &FactKey, is_large: bool) {
        self.0.learn_size(key, is_large);
    }

    async fn keys_of(
        &self,
        collection: CollectionId,
        ids: Vec<Id>,
        at: Moment,
        deadline: Deadline,
    ) -> Result<Vec<FactKey>, SourceError> {
        self.0.inner().keys_of(collection, ids, at, deadline).await
    }
}
