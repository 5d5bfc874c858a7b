//! Loading: each fact that a request lacks comes from a load that is in flight already, or from a new load, which asks
//! Redis and then the source.
//!
//! How loads are shared is in `singleflight`. Whether a loaded fact counts is tested by `freshness`, for each request
//! that waited.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use super::{
    CachedFact, Facts, FreshnessRequirement, SharedFacts,
    singleflight::{JoinCondition, LoadParameters, LoadResults, ResultReceiver, Role},
};
use crate::{
    fact::{Fact, FactKey},
    freshness::{Epoch, Moment},
    question::Tier,
    source::{Deadline, SourceError},
};

/// How often a request tries to load a fact: a load may break off, time out, or bring a fact that is too old for the
/// request.
const ATTEMPTS_MAX: u32 = 8;

/// How long a load may take for which nobody waits.
const AHEAD_TIME: Duration = Duration::from_secs(5);

impl Facts {
    /// Loads facts, all at the same time. Returns one result for each key, in any order. Also returns those filtered facts of
    /// `if_large` that a load brought because the whole facts of the same keys are over their limit.
    pub async fn load(
        &self,
        keys: Vec<FactKey>,
        if_large: Vec<FactKey>,
        requirement: FreshnessRequirement,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<CachedFact, SourceError>)> {
        if keys.is_empty() {
            return Vec::new();
        }
        let results = Vec::with_capacity(keys.len());
        let mut request = LoadRequest { facts: self, if_large, requirement, deadline, results };
        let mut missing = keys;
        for attempt in 0..ATTEMPTS_MAX {
            let PendingLoads { epoch, newest_moment, waits } = request.join_or_start(missing, attempt > 0);
            missing = Vec::new();
            for wait in waits {
                missing.extend(request.receive(wait, epoch, newest_moment).await);
            }
            request.take_cached(&mut missing, |_| ());
            if missing.is_empty() {
                return request.results;
            }
        }
        request.results.extend(missing.into_iter().map(|key| (key, Err(SourceError::BrokenOff))));
        request.results
    }
}

impl Facts {
    /// Starts to load a fact for which the caller does not wait, unless several such loads run already. It is cached when it arrives.
    /// The load has a deadline of its own: that of a request may be so short that no such fact would ever arrive.
    pub fn load_ahead(&self, key: FactKey, requirement: FreshnessRequirement) {
        let Ok(place) = Arc::clone(&self.ahead).try_acquire_owned() else { return };
        let deadline = Deadline::after(AHEAD_TIME);
        let mut request = LoadRequest { facts: self, if_large: Vec::new(), requirement, deadline, results: Vec::new() };
        let loads = request.join_or_start(vec![key], false);
        tokio::spawn(async move {
            for Wait { mut result_receiver, .. } in loads.waits {
                let _over = timeout_at(deadline.instant(), result_receiver.wait_for(Option::is_some)).await;
            }
            drop(place);
        });
    }
}

/// One call of [`Facts::load`]: what it requires, and the results so far.
struct LoadRequest<'a> {
    facts: &'a Facts,
    /// The filtered facts that are required next if the whole facts of the same keys are over their limit.
    if_large: Vec<FactKey>,
    requirement: FreshnessRequirement,
    deadline: Deadline,
    results: Vec<(FactKey, Result<CachedFact, SourceError>)>,
}

/// The loads that a request waits for, and what the instance knew before it began to wait.
struct PendingLoads {
    epoch: Epoch,
    newest_moment: Moment,
    waits: Vec<Wait>,
}

/// A load that a request waits for, and the keys of the facts that it waits for.
struct Wait {
    result_receiver: ResultReceiver,
    keys: Vec<FactKey>,
    /// Whether another request started the load.
    is_joined: bool,
    /// Whether this request has waited for a load of these facts before.
    is_retry: bool,
}

impl LoadRequest<'_> {
    /// Joins the loads in flight that will bring some of the facts, and starts one load for all others. Takes facts that
    /// turn out to be cached.
    fn join_or_start(&mut self, missing: Vec<FactKey>, is_retry: bool) -> PendingLoads {
        let Self { facts, requirement, deadline, .. } = *self;
        let epoch = facts.freshness.epoch();
        // Read before any key is claimed. `freshness` raises it right after it sets a mark. So it is no earlier than any mark
        // that is completely written by now, and a load as of it brings nothing that such a mark outdates.
        let newest_moment = facts.freshness.newest_moment();
        let at = newest_moment.max(requirement.as_of).max(requirement.stamp);
        let load = LoadParameters { at, epoch, deadline, requirement };
        let mut loader = facts.in_flight.prepare(load);
        let mut joined: HashMap<u64, Wait> = HashMap::new();
        let mut claimed = Vec::new();
        for key in missing {
            match loader.claim(&key, self.join_condition(&key, newest_moment, is_retry)) {
                Role::Loader => claimed.push(key),
                Role::Waiter { load_id, result_receiver } => {
                    facts.metrics.joined();
                    let wait = joined.entry(load_id);
                    wait.or_insert_with(|| Wait { result_receiver, keys: Vec::new(), is_joined: true, is_retry })
                        .keys
                        .push(key);
                }
            }
        }
        // A load may have completed after the request looked into memory and before it claimed the key.
        self.take_cached(&mut claimed, |key| loader.release(key));
        let mut waits: Vec<Wait> = joined.into_values().collect();
        if !claimed.is_empty() {
            waits.push(Wait {
                result_receiver: loader.result_receiver(),
                keys: claimed.clone(),
                is_joined: false,
                is_retry,
            });
            let (facts, if_large) = (facts.clone(), self.if_large.clone());
            // In a task of its own: the load goes on if its request is cancelled. If it panics, the waiters notice that
            // it broke off and try again.
            let load = async move {
                let results = facts.fetch(claimed, &if_large, load).await;
                loader.complete(results);
            };
            tokio::spawn(load.in_current_span());
        }
        PendingLoads { epoch, newest_moment, waits }
    }

    /// What a load in flight must offer for this request to join it.
    fn join_condition(&self, key: &FactKey, newest_moment: Moment, is_retry: bool) -> JoinCondition {
        let freshness = &self.facts.freshness;
        // A load that reads an earlier moment would bring a fact that is outdated for this request.
        let required = self.requirement.as_of.max(self.requirement.stamp).max(freshness.floor());
        let required = required.max(freshness.key_mark(key.lookup, &key.id));
        if !is_retry {
            return JoinCondition { at: required, deadline: None, requirement: None };
        }
        // The load that this request joined broke off, timed out, or brought a fact that was too old. A retry joins only a
        // load that reads at the newest moment known and has at least as late a deadline. With a Redis the load must also
        // have been started for at least as strict a requirement, as a fact from Redis may be older than the moment that
        // the load reads as of.
        let requirement = self.facts.shared.is_some().then_some(self.requirement);
        JoinCondition { at: newest_moment.max(required), deadline: Some(self.deadline), requirement }
    }

    /// Waits for a load, and takes the facts and errors that it brings for this request. Returns the keys to try again.
    ///
    /// `epoch` and `newest_moment` are those from before the wait began.
    async fn receive(&mut self, wait: Wait, epoch: Epoch, newest_moment: Moment) -> Vec<FactKey> {
        let Wait { mut result_receiver, keys, is_joined, is_retry } = wait;
        let began = Instant::now();
        let loaded = match timeout_at(self.deadline.instant(), result_receiver.wait_for(Option::is_some)).await {
            Ok(loaded) => loaded.ok().and_then(|loaded| loaded.clone()),
            Err(_) => {
                self.results.extend(keys.into_iter().map(|key| (key, Err(SourceError::TimedOut))));
                return Vec::new();
            }
        };
        if is_joined {
            self.facts.metrics.waited(began.elapsed());
        }
        // Each request takes those of its own subjects, whoever has started the load. One that it cannot use is not required yet.
        for key in &self.if_large {
            let brought = loaded.as_ref().and_then(|loaded| loaded.get(key)?.as_ref().ok());
            let accepted = brought.and_then(|cached| self.accept(cached, epoch, newest_moment));
            self.results.extend(accepted.map(|cached| (key.clone(), Ok(cached))));
        }
        let mut missing = Vec::new();
        for key in keys {
            match loaded.as_ref().and_then(|loaded| loaded.get(&key)) {
                // The load's deadline was earlier than this request's.
                Some(Err(SourceError::TimedOut)) if !self.deadline.is_all_but_over() => missing.push(key),
                // The load had more to read than this request has. Tried once: the request keeps what it has, and loads as much again.
                Some(Err(SourceError::TooMuch)) if is_joined && !is_retry => missing.push(key),
                Some(Err(error)) => self.results.push((key, Err(error.clone()))),
                Some(Ok(cached)) => match self.accept(cached, epoch, newest_moment) {
                    Some(cached) => self.results.push((key, Ok(cached))),
                    None => missing.push(key),
                },
                // The load broke off, or its request found this fact in memory after all.
                None => missing.push(key),
            }
        }
        missing
    }

    /// A loaded fact as this request may use it. None if a new epoch has begun or the fact is too old: the request that
    /// started the load may require less than this one, and may have known of fewer changes.
    fn accept(&self, loaded: &CachedFact, epoch: Epoch, newest_moment: Moment) -> Option<CachedFact> {
        let (freshness, fact) = (&self.facts.freshness, &loaded.fact);
        match loaded.tier {
            Tier::Source => {
                let is_outdated = epoch != freshness.epoch() || freshness.is_outdated(fact, newest_moment);
                (!is_outdated).then(|| loaded.clone())
            }
            Tier::Redis | Tier::Memory => {
                let as_of = freshness.as_of(fact, self.requirement.stamp, epoch)?;
                (as_of >= self.requirement.as_of).then(|| CachedFact { as_of, ..loaded.clone() })
            }
        }
    }

    /// Takes those of the missing facts that are cached by now, and calls `taken` for each of their keys.
    fn take_cached(&mut self, missing: &mut Vec<FactKey>, mut taken: impl FnMut(&FactKey)) {
        missing.retain(|key| match self.facts.cached(key.lookup, &key.id, key.subject(), self.requirement) {
            Some(cached) => {
                taken(key);
                self.results.push((key.clone(), Ok(cached)));
                false
            }
            None => true,
        });
    }
}

impl Facts {
    /// Loads facts and caches them. Takes from Redis those that meet the load's requirement, and reads all others from the
    /// source.
    async fn fetch(&self, keys: Vec<FactKey>, if_large: &[FactKey], load: LoadParameters) -> LoadResults {
        let mut results = LoadResults::with_capacity(keys.len());
        let mut missing = keys;
        if let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_up()) {
            for cached in self.fetch_from_redis(shared, &missing, load).await {
                self.memory.insert(&cached.fact, || load.epoch == self.freshness.epoch());
                results.insert(cached.fact.key(), Ok(cached));
            }
            missing.retain(|key| !results.contains_key(key));
        }
        if !missing.is_empty() {
            self.fetch_from_source(missing, if_large, load, &mut results).await;
        }
        results
    }

    /// The facts that Redis has and that meet the load's requirement.
    async fn fetch_from_redis(
        &self,
        shared: &Arc<SharedFacts>,
        keys: &[FactKey],
        load: LoadParameters,
    ) -> Vec<CachedFact> {
        // In a task of its own, which may take longer than this load waits for it: a Redis that does not answer is
        // noticed even if the deadline is near.
        let get = {
            let (shared, keys) = (Arc::clone(shared), keys.to_vec());
            async move { shared.get(&keys).await }
        };
        let get = tokio::spawn(get.in_current_span());
        // The other half of the time is for the source.
        let patience = load.deadline.at_most(load.deadline.left() / 2).instant();
        let found = timeout_at(patience, get).await.ok().and_then(Result::ok).unwrap_or_default();
        // A later stamp may be of another epoch, or the value may be no fact of this source at all.
        let newest_moment = self.freshness.newest_moment();
        let fresh = found.into_iter().filter(|fact| fact.stamp() <= newest_moment).filter_map(|fact| {
            let as_of = self.freshness.as_of(&fact, load.requirement.stamp, load.epoch)?;
            (as_of >= load.requirement.as_of).then_some(CachedFact { fact, as_of, tier: Tier::Redis })
        });
        let fresh: Vec<CachedFact> = fresh.collect();
        for cached in &fresh {
            self.learn_size(&cached.fact);
        }
        self.metrics.asked_redis(keys.len(), fresh.len());
        fresh
    }

    /// Tells the source how large a whole fact was.
    fn learn_size(&self, fact: &Fact) {
        if fact.subject().is_none() {
            self.source.learn_size(&fact.key(), fact.is_over_limit());
        }
    }

    /// Reads facts from the source and caches them, in memory and in Redis.
    async fn fetch_from_source(
        &self,
        keys: Vec<FactKey>,
        if_large: &[FactKey],
        load: LoadParameters,
        results: &mut LoadResults,
    ) {
        let is_current = || load.epoch == self.freshness.epoch();
        let asked = keys.len();
        let read = self.source.load(keys, if_large, load.at, load.deadline.for_loading());
        // A source that ignores its deadline is cut off. Requests that have more time try again.
        let read = timeout_at(load.deadline.instant(), read).await.unwrap_or_default();
        // It may return more than was asked for.
        let asked = asked.max(read.len());
        self.metrics.asked_source(asked, read.iter().filter(|(_, result)| result.is_ok()).count());
        for (key, result) in read {
            if let Ok(fact) = &result {
                self.learn_size(fact);
                self.memory.insert(fact, is_current);
                if let Some(shared) = self.shared.as_ref().filter(|_| is_current()) {
                    shared.put(fact);
                }
            }
            results.insert(key, result.map(CachedFact::from));
        }
    }
}
