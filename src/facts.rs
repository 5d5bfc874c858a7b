//! Facts that are remembered, and how others are fetched: memory, then one flight per fact however many wait for it, which
//! asks Redis, where there is one, and the source for what Redis lacks (design section 4).
//!
//! Nothing that is remembered is trusted, here or in Redis: each time it is read, `freshness` says whether it still counts,
//! and for what is found in Redis again for each who waits for it.

pub mod codec;
mod singleflight;
mod memory;
mod observer;
mod redis;

use std::{collections::HashMap, sync::Arc};

pub use memory::Memory;
pub use redis::{ANSWER_TIME, RedisWriter, SharedFacts};
use singleflight::{InFlightLoads, JoinCondition, LoadResults, Role};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::Instrument as _;

use crate::{
    fact::{Fact, FactKey},
    freshness::{Epoch, Freshness, Moment},
    question::{Id, LookupId, Tier},
    source::{Deadline, Source, SourceError},
    telemetry::Metrics,
};

/// How often a fact is asked for again when the load that was to bring it broke off.
const ATTEMPTS_MAX: u32 = 8;

/// What a request needs of each fact.
#[derive(Clone, Copy, Debug, Default)]
pub struct FreshnessRequirement {
    /// It must be true as of this moment, or later.
    pub as_of: Moment,
    /// It must have been read at this moment or later: the mark of the subject that asks.
    pub stamp: Moment,
}

/// A fact, and what is known about it.
#[derive(Clone, Debug)]
pub struct CachedFact {
    /// The fact.
    pub fact: Fact,
    /// The moment that it is known to be true as of.
    pub as_of: Moment,
    /// Who answered for it.
    pub tier: Tier,
}

/// As it was just read: the truth of its stamp, whatever was marked meanwhile.
impl From<Fact> for CachedFact {
    fn from(fact: Fact) -> Self {
        Self { as_of: fact.stamp(), fact, tier: Tier::Source }
    }
}

/// Remembers facts and fetches others. Clones share everything.
#[derive(Clone)]
pub struct Facts {
    source: Arc<dyn Source>,
    freshness: Arc<Freshness>,
    memory: Arc<Memory>,
    in_flight: Arc<InFlightLoads>,
    shared: Option<Arc<SharedFacts>>,
    metrics: Arc<Metrics>,
}

impl Facts {
    /// Facts of a source, remembered in `memory`.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, freshness: Arc<Freshness>, memory: Arc<Memory>, metrics: Arc<Metrics>) -> Self {
        Self { source, freshness, memory, in_flight: Arc::default(), shared: None, metrics }
    }

    /// With facts that others have read, in Redis, asked before the source is. Their stamps must mean the same to all.
    #[must_use]
    pub fn sharing(self, shared: Arc<SharedFacts>) -> Self {
        Self { shared: Some(shared), ..self }
    }

    /// What is remembered, as far as it is known.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The fact, if it is remembered and will do. Allocates nothing.
    #[must_use]
    pub fn cached(&self, lookup: LookupId, id: &Id, requirement: FreshnessRequirement) -> Option<CachedFact> {
        // Before the fact: what is found once another history has begun must not be taken for a part of it.
        let epoch = self.freshness.epoch();
        let fact = self.memory.get(lookup, id)?;
        let as_of = self.freshness.as_of(&fact, requirement.stamp, epoch)?;
        (as_of >= requirement.as_of).then_some(CachedFact { fact, as_of, tier: Tier::Memory })
    }

    /// Fetches facts, all at once, each once however many wait for it. One result for each key, in any order.
    pub async fn load(
        &self,
        keys: Vec<FactKey>,
        requirement: FreshnessRequirement,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<CachedFact, SourceError>)> {
        let mut results = Vec::with_capacity(keys.len());
        let mut wanted = keys;
        for attempt in 0..ATTEMPTS_MAX {
            let pending =
                self.join_or_start(std::mem::take(&mut wanted), requirement, deadline, attempt > 0, &mut results);
            for Wait { mut result_receiver, keys, is_joined } in pending.waits {
                let began = Instant::now();
                let loaded_facts = match timeout_at(deadline.instant(), result_receiver.wait_for(Option::is_some)).await
                {
                    Ok(loaded_facts) => loaded_facts.ok().and_then(|loaded_facts| loaded_facts.clone()),
                    Err(_) => {
                        results.extend(keys.into_iter().map(|key| (key, Err(SourceError::TimedOut))));
                        continue;
                    }
                };
                if is_joined {
                    self.metrics.waited(began.elapsed());
                }
                for key in keys {
                    match loaded_facts.as_ref().and_then(|loaded_facts| loaded_facts.get(&key)) {
                        // Its time was another's.
                        Some(Err(SourceError::TimedOut)) if !deadline.is_all_but_over() => wanted.push(key),
                        Some(Err(error)) => results.push((key, Err(error.clone()))),
                        Some(Ok(cached)) => match self.accept(cached, requirement, pending.epoch, pending.known) {
                            Some(cached) => results.push((key, Ok(cached))),
                            None => wanted.push(key),
                        },
                        // It broke off, or the fact turned out to be remembered.
                        None => wanted.push(key),
                    }
                }
            }
            wanted.retain(|key| match self.cached(key.lookup, &key.id, requirement) {
                Some(cached) => {
                    results.push((key.clone(), Ok(cached)));
                    false
                }
                None => true,
            });
            if wanted.is_empty() {
                return results;
            }
        }
        results.extend(wanted.into_iter().map(|key| (key, Err(SourceError::BrokenOff))));
        results
    }

    /// What a flight brought, for one who has waited for it since `known` was the newest moment, in `epoch`: nothing, if
    /// another history has begun or it does not cover what was known then. Who started the flight may have needed less.
    fn accept(
        &self,
        cached: &CachedFact,
        requirement: FreshnessRequirement,
        epoch: Epoch,
        known: Moment,
    ) -> Option<CachedFact> {
        let CachedFact { fact, tier, .. } = cached;
        match tier {
            Tier::Source => {
                let is_outdated = epoch != self.freshness.epoch() || self.freshness.is_outdated(fact, known);
                (!is_outdated).then(|| cached.clone())
            }
            Tier::Redis | Tier::Memory => {
                let as_of =
                    self.freshness.as_of(fact, requirement.stamp, epoch).filter(|as_of| *as_of >= requirement.as_of)?;
                Some(CachedFact { fact: fact.clone(), as_of, tier: *tier })
            }
        }
    }

    /// Joins the flights that will bring what is wanted, and starts one for the rest. Who comes `again` was let down by what
    /// it joined: it joins nothing that could do so again. What turns out to be remembered goes to `results`.
    fn join_or_start(
        &self,
        wanted: Vec<FactKey>,
        requirement: FreshnessRequirement,
        deadline: Deadline,
        again: bool,
        results: &mut Vec<(FactKey, Result<CachedFact, SourceError>)>,
    ) -> PendingLoads {
        let epoch = self.freshness.epoch();
        // The newest moment known covers every mark and what is needed: it is read before any of the seats is taken.
        let known = self.freshness.newest_moment();
        let at = known.max(requirement.as_of).max(requirement.stamp);
        let mut own = self.in_flight.prepare(at, epoch, deadline, requirement);
        let mut waits: HashMap<u64, Wait> = HashMap::new();
        let mut mine = Vec::new();
        for key in wanted {
            // A flight that reads an earlier moment than what is needed or known by now would bring what is outdated.
            let least = requirement.as_of.max(requirement.stamp).max(self.freshness.floor());
            let least = least.max(self.freshness.key_mark(key.lookup, &key.id));
            let condition = if again {
                // What is found in Redis may be older than what the flight would read.
                let requirement = self.shared.is_some().then_some(requirement);
                JoinCondition { at: known.max(least), deadline: Some(deadline), requirement }
            } else {
                JoinCondition { at: least, deadline: None, requirement: None }
            };
            match own.claim(&key, condition) {
                Role::Own => mine.push(key),
                Role::Joined { number, result_receiver } => {
                    self.metrics.joined();
                    let wait = waits.entry(number);
                    wait.or_insert_with(|| Wait { result_receiver, keys: Vec::new(), is_joined: true }).keys.push(key);
                }
            }
        }
        // A flight may have landed between the look into memory and the taking of the seat.
        mine.retain(|key| match self.cached(key.lookup, &key.id, requirement) {
            Some(cached) => {
                own.release(key);
                results.push((key.clone(), Ok(cached)));
                false
            }
            None => true,
        });
        let mut waits: Vec<Wait> = waits.into_values().collect();
        if !mine.is_empty() {
            waits.push(Wait { result_receiver: own.result_receiver(), keys: mine.clone(), is_joined: false });
            let this = self.clone();
            // Neither who started it nor a panic keeps it from others: they see that it broke off, and ask again.
            let singleflight = async move {
                let loaded_facts = this.fetch(mine, at, requirement, epoch, deadline).await;
                own.complete(loaded_facts);
            };
            tokio::spawn(singleflight.in_current_span());
        }
        PendingLoads { epoch, known, waits }
    }

    /// Brings facts: from Redis what is there and will do, the rest from the source, read as of `at`. All of it is remembered
    /// afterwards.
    async fn fetch(
        &self,
        keys: Vec<FactKey>,
        at: Moment,
        requirement: FreshnessRequirement,
        epoch: Epoch,
        deadline: Deadline,
    ) -> LoadResults {
        let is_current = || epoch == self.freshness.epoch();
        let mut loaded_facts = LoadResults::with_capacity(keys.len());
        let mut wanted = keys;
        if let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_up()) {
            for cached in self.fetch_shared(shared, &wanted, requirement, epoch, deadline).await {
                self.memory.insert(&cached.fact, is_current);
                loaded_facts.insert(FactKey { lookup: cached.fact.lookup(), id: cached.fact.id().clone() }, Ok(cached));
            }
            wanted.retain(|key| !loaded_facts.contains_key(key));
            if wanted.is_empty() {
                return loaded_facts;
            }
        }
        // Who has more time than this asks again, also where the source does not heed its deadline.
        let asked = wanted.len();
        let load = self.source.load(wanted, at, deadline.for_loading());
        let loaded = timeout_at(deadline.instant(), load).await.unwrap_or_default();
        self.metrics.asked_source(asked, loaded.iter().filter(|(_, result)| result.is_ok()).count());
        for (key, result) in loaded {
            if let Ok(fact) = &result {
                self.memory.insert(fact, is_current);
                if let Some(shared) = self.shared.as_ref().filter(|_| is_current()) {
                    shared.put(fact);
                }
            }
            loaded_facts.insert(key, result.map(CachedFact::from));
        }
        loaded_facts
    }

    /// Those of the facts that Redis has and that are what is needed.
    async fn fetch_shared(
        &self,
        shared: &Arc<SharedFacts>,
        keys: &[FactKey],
        requirement: FreshnessRequirement,
        epoch: Epoch,
        deadline: Deadline,
    ) -> Vec<CachedFact> {
        let asking = {
            let (shared, keys) = (Arc::clone(shared), keys.to_vec());
            async move { shared.get(&keys).await }
        };
        let asking = tokio::spawn(asking.in_current_span());
        // Half of the time is the source's. Whether Redis answers at all is found out also when there is less than that takes.
        let patience = deadline.at_most(deadline.left() / 2).instant();
        let found = timeout_at(patience, asking).await.ok().and_then(Result::ok).unwrap_or_default();
        // What is later may be of another history, or no fact of this source at all.
        let newest = self.freshness.newest_moment();
        let believed = found.into_iter().filter(|fact| fact.stamp() <= newest).filter_map(|fact| {
            let as_of =
                self.freshness.as_of(&fact, requirement.stamp, epoch).filter(|as_of| *as_of >= requirement.as_of)?;
            Some(CachedFact { fact, as_of, tier: Tier::Redis })
        });
        let believed: Vec<CachedFact> = believed.collect();
        self.metrics.asked_redis(keys.len(), believed.len());
        believed
    }
}

/// What is waited for, and what was known when the waiting began.
struct PendingLoads {
    epoch: Epoch,
    /// The newest moment.
    known: Moment,
    waits: Vec<Wait>,
}

/// A flight that is waited for, and what it is to bring.
struct Wait {
    result_receiver: watch::Receiver<Option<Arc<LoadResults>>>,
    keys: Vec<FactKey>,
    /// Whether another request started it.
    is_joined: bool,
}
