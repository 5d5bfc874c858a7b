//! `Invalidate`: probe, mark, publish a hint (docs/freshness.md, point 11). For changes that no change stream shows, and for
//! callers that want a token.
//!
//! Removes no facts: later checks find the marks, and read again.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use tokio::time::timeout_at;

use crate::{
    bus::{Bus, Hint},
    fact::{DocumentId, FactKey, bound_reverse_keys},
    freshness::{Change, Changed, Epoch, Freshness, LocalTime, Moment, Token},
    question::{CollectionId, Id, IdForm, Resource, Subject},
    schema::Schema,
    source::{Deadline, Prober, Source, SourceError},
    telemetry::{ChangeMetrics, Via},
};

/// What a caller declares outdated; its facts are read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outdated {
    /// Everything.
    All,
    /// Only the listed items.
    These {
        /// Resources: every fact that is looked up by one of their ids is outdated, and for lists every fact of a reverse lookup that may lead
        /// to them.
        resources: Vec<Resource>,
        /// Documents, which are marked as their own change events would mark them.
        documents: Vec<OutdatedDocument>,
        /// Subjects: every fact is outdated for the requests of one of these, and for no others.
        subjects: Vec<Subject>,
    },
}

/// A document that a caller names as outdated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutdatedDocument {
    /// Its collection.
    pub collection: CollectionId,
    /// Every id that its `_id` may be.
    pub ids: Vec<Id>,
}

impl OutdatedDocument {
    /// The document whose `_id` has this text, in each form of ids that the text fits.
    #[must_use]
    pub fn new(collection: CollectionId, id: &str) -> Self {
        let ids = IdForm::ALL.into_iter().filter_map(|form| Id::parse(id, form, false).ok()).collect();
        Self { collection, ids }
    }
}

/// The result of an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidated {
    /// Covers every write that was acknowledged before the call.
    pub token: Token,
    /// Whether Redis took the hint for the other instances.
    pub is_published: bool,
}

/// Marks what callers name as outdated.
#[derive(Clone)]
pub struct Invalidator {
    /// The schema, which determines by which keys a resource is looked up.
    pub schema: Arc<Schema>,
    /// The source, which is asked for the keys of documents.
    pub source: Arc<dyn Source>,
    /// The freshness of this instance. Only its epoch is read here: the bus sets the marks.
    pub freshness: Arc<Freshness>,
    /// Asks the source for its time.
    pub prober: Prober,
    /// Carries the hints.
    pub bus: Arc<Bus>,
    /// Times each call.
    pub change_metrics: ChangeMetrics,
}

impl Invalidator {
    /// Marks what is outdated, and publishes a hint to the other instances. No later check on this instance sees it as it was
    /// before the call.
    ///
    /// # Errors
    /// The source could not be asked, or not in time. Nothing is marked then.
    pub async fn invalidate(&self, outdated: &Outdated, deadline: Deadline) -> Result<Invalidated, SourceError> {
        let began = Instant::now();
        let epoch = self.freshness.epoch();
        let at = self.prober.probe_since(LocalTime::now(), deadline).await?.moment;
        let mut hint = Hint::empty(at);
        let changed = match outdated {
            Outdated::All => {
                hint = Hint::all(at);
                vec![Changed::Everything]
            }
            Outdated::These { resources, documents, subjects } => {
                let mut changed: Vec<Changed> = subjects.iter().cloned().map(Changed::Subject).collect();
                changed.extend(self.keys_of_resources(resources).into_iter().map(Changed::Key));
                changed.extend(self.changes_of_documents(documents, at, deadline, &mut hint).await?);
                for resource in resources {
                    hint.add_resource(&self.schema, resource);
                }
                for subject in subjects {
                    hint.add_subject(&self.schema, subject);
                }
                changed
            }
        };
        let changes = changed.into_iter().map(|what| Change { at, what }).collect();
        self.bus.apply_hint(changes, epoch);
        let published = timeout_at(deadline.for_loading().instant(), self.bus.publish_hint(&hint)).await;
        let is_published = published.unwrap_or(false);
        self.change_metrics.took(Via::Call, began.elapsed());
        Ok(Invalidated { token: Token { clock: self.source.clock(), moment: at }, is_published })
    }

    /// Marks the key of a fact that differs from the source, though no change says so, as of a moment of this epoch. Watch clients and the
    /// other instances learn of it as of an invalidation.
    pub async fn correct(&self, key: FactKey, at: Moment, epoch: Epoch) {
        let mut hint = Hint::empty(at);
        hint.add_documents(&self.schema, self.schema.lookup(key.lookup).collection_id, &[], std::slice::from_ref(&key));
        self.bus.apply_hint(vec![Change { at, what: Changed::Key(key) }], epoch);
        if epoch == self.freshness.epoch() {
            self.bus.publish_hint(&hint).await;
        }
    }

    /// Every key by which the resources' relations are looked up, and what stands for those by which lists find the resources.
    fn keys_of_resources(&self, resources: &[Resource]) -> BTreeSet<FactKey> {
        resources.iter().flat_map(|resource| FactKey::outdated_with(&self.schema, resource)).collect()
    }

    /// The documents and the keys under which they are found now. Adds both to the hint.
    async fn changes_of_documents(
        &self,
        documents: &[OutdatedDocument],
        at: Moment,
        deadline: Deadline,
        hint: &mut Hint,
    ) -> Result<Vec<Changed>, SourceError> {
        let mut changed = Vec::new();
        let collections: BTreeSet<CollectionId> = documents.iter().map(|document| document.collection).collect();
        for collection in collections {
            let of_collection = documents.iter().filter(|document| document.collection == collection);
            let ids: Vec<Id> = of_collection.flat_map(|document| document.ids.iter().cloned()).collect();
            changed.extend(ids.iter().map(|id| {
                let id = DocumentId::Id(id.clone());
                Changed::Document { collection, id }
            }));
            let mut keys = self.source.keys_of(collection, ids.clone(), at, deadline).await?;
            bound_reverse_keys(&self.schema, &mut keys);
            hint.add_documents(&self.schema, collection, &ids, &keys);
            changed.extend(keys.into_iter().map(Changed::Key));
        }
        Ok(changed)
    }
}
