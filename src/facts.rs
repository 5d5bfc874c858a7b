//! Facts: the cache in this process's memory, and the loading of facts that it lacks. Requests for the same fact share one
//! load, unless a request requires a more recent fact than the load may bring: it then starts its own. A load asks Redis, if
//! there is one, and then the source for what Redis lacks (ARCHITECTURE.md, "A check").
//!
//! A cached fact is never trusted, in memory or in Redis: each time one is used, `freshness` tests whether it still counts.

pub mod codec;
mod load;
mod memory;
mod observer;
mod redis;
mod singleflight;

use std::sync::Arc;

pub use memory::Memory;
pub use redis::{ANSWER_TIME, RedisWriter, SharedFacts};
use singleflight::InFlightLoads;
use tokio::sync::Semaphore;

use crate::{
    fact::{Fact, FactKey},
    freshness::{Freshness, Moment},
    question::{Id, LookupId, Subject, Tier},
    source::Source,
    telemetry::Metrics,
};

/// What a request requires of each fact.
#[derive(Clone, Copy, Debug, Default)]
pub struct FreshnessRequirement {
    /// The fact must be true as of this moment or later.
    pub as_of: Moment,
    /// The fact must have been read as of this moment or later: the mark of the request's subject.
    pub stamp: Moment,
}

/// A fact with the moment that it is true as of, and its tier.
#[derive(Clone, Debug)]
pub struct CachedFact {
    /// The fact.
    pub fact: Fact,
    /// The moment that it is known to be true as of.
    pub as_of: Moment,
    /// The layer that served it.
    pub tier: Tier,
}

/// A fact that was just read from the source: true as of its stamp, whatever has been marked since.
impl From<Fact> for CachedFact {
    fn from(fact: Fact) -> Self {
        Self { as_of: fact.stamp(), fact, tier: Tier::Source }
    }
}

/// Caches facts and loads those that it lacks. Clones share everything.
#[derive(Clone)]
pub struct Facts {
    source: Arc<dyn Source>,
    freshness: Arc<Freshness>,
    memory: Arc<Memory>,
    in_flight: Arc<InFlightLoads>,
    shared: Option<Arc<SharedFacts>>,
    /// Free places of loads for which nobody waits.
    ahead: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// How many loads for which nobody waits run at once.
const AHEAD_MAX: usize = 4;

impl Facts {
    /// Facts of a source, cached in memory and, if `shared` is given, in Redis. Facts in Redis come from any instance: give
    /// `shared` only if the stamps of the source mean the same to all instances.
    #[must_use]
    pub fn new(
        source: Arc<dyn Source>,
        freshness: Arc<Freshness>,
        memory: Arc<Memory>,
        shared: Option<Arc<SharedFacts>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            source,
            freshness,
            memory,
            in_flight: Arc::default(),
            shared,
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
            metrics,
        }
    }

    /// The fact from memory, whole or filtered to a subject, if it is cached there and meets the requirement. Allocates nothing.
    #[must_use]
    pub fn cached(
        &self,
        lookup: LookupId,
        id: &Id,
        subject: Option<&Subject>,
        requirement: FreshnessRequirement,
    ) -> Option<CachedFact> {
        // Taken before the fact is looked up: if a new epoch begins in between, the fact is rejected.
        let epoch = self.freshness.epoch();
        let fact = self.memory.get(lookup, id, subject)?;
        let as_of = self.freshness.as_of(&fact, requirement.stamp, epoch)?;
        (as_of >= requirement.as_of).then_some(CachedFact { fact, as_of, tier: Tier::Memory })
    }

    /// Whether a whole fact that is not cached is likely to be over its limit: it was when it was last read, or the source expects it.
    #[must_use]
    pub fn expects_large(&self, key: &FactKey) -> bool {
        let was_large = || self.memory.get(key.lookup, &key.id, None).is_some_and(|fact| fact.is_over_limit());
        key.subject.is_none() && self.source.expects_large(key, was_large())
    }

    /// Whether a fact of the lookup that is filtered to a subject may stand for the whole one, if it has no document that cannot be
    /// relied on.
    #[must_use]
    pub fn may_stand_for_whole(&self, lookup: LookupId) -> bool {
        self.source.may_stand_for_whole(lookup)
    }
}
