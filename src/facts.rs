//! Facts that are remembered, and how others are fetched: memory, then one flight per fact however many wait for it, which
//! asks Redis, where there is one, and the source for what Redis lacks (design section 4).
//!
//! Nothing that is remembered is trusted, here or in Redis: each time it is read, `freshness` says whether it still counts,
//! and for what is found in Redis again for each who waits for it.

pub mod codec;
mod flight;
mod memory;
mod observer;
mod redis;

use std::{collections::HashMap, sync::Arc};

use flight::{Fare, Flights, Landed, Seat};
pub use memory::Memory;
pub use redis::{ANSWER_TIME, Filling, SharedFacts};
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
pub struct Need {
    /// It must be true as of this moment, or later.
    pub as_of: Moment,
    /// It must have been read at this moment or later: the mark of the subject that asks.
    pub stamp: Moment,
}

/// A fact, and what is known about it.
#[derive(Clone, Debug)]
pub struct Held {
    /// The fact.
    pub fact: Fact,
    /// The moment that it is known to be true as of.
    pub as_of: Moment,
    /// Who answered for it.
    pub tier: Tier,
}

/// As it was just read: the truth of its stamp, whatever was marked meanwhile.
impl From<Fact> for Held {
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
    flights: Arc<Flights>,
    shared: Option<Arc<SharedFacts>>,
    metrics: Arc<Metrics>,
}

impl Facts {
    /// Facts of a source, remembered in `memory`.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, freshness: Arc<Freshness>, memory: Arc<Memory>, metrics: Arc<Metrics>) -> Self {
        Self { source, freshness, memory, flights: Arc::default(), shared: None, metrics }
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
    pub fn remembered(&self, lookup: LookupId, id: &Id, need: Need) -> Option<Held> {
        // Before the fact: what is found once another history has begun must not be taken for a part of it.
        let epoch = self.freshness.epoch();
        let fact = self.memory.get(lookup, id)?;
        let as_of = self.freshness.as_of(&fact, need.stamp, epoch)?;
        (as_of >= need.as_of).then_some(Held { fact, as_of, tier: Tier::Memory })
    }

    /// Fetches facts, all at once, each once however many wait for it. One result for each key, in any order.
    pub async fn load(
        &self,
        keys: Vec<FactKey>,
        need: Need,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Held, SourceError>)> {
        let mut results = Vec::with_capacity(keys.len());
        let mut wanted = keys;
        for attempt in 0..ATTEMPTS_MAX {
            let boarded = self.board(std::mem::take(&mut wanted), need, deadline, attempt > 0, &mut results);
            for Wait { mut landing, keys, is_joined } in boarded.waits {
                let began = Instant::now();
                let landed = match timeout_at(deadline.instant(), landing.wait_for(Option::is_some)).await {
                    Ok(landed) => landed.ok().and_then(|landed| landed.clone()),
                    Err(_) => {
                        results.extend(keys.into_iter().map(|key| (key, Err(SourceError::TimedOut))));
                        continue;
                    }
                };
                if is_joined {
                    self.metrics.waited(began.elapsed());
                }
                for key in keys {
                    match landed.as_ref().and_then(|landed| landed.get(&key)) {
                        // Its time was another's.
                        Some(Err(SourceError::TimedOut)) if !deadline.is_all_but_over() => wanted.push(key),
                        Some(Err(error)) => results.push((key, Err(error.clone()))),
                        Some(Ok(held)) => match self.claim(held, need, boarded.epoch, boarded.known) {
                            Some(held) => results.push((key, Ok(held))),
                            None => wanted.push(key),
                        },
                        // It broke off, or the fact turned out to be remembered.
                        None => wanted.push(key),
                    }
                }
            }
            wanted.retain(|key| match self.remembered(key.lookup, &key.id, need) {
                Some(held) => {
                    results.push((key.clone(), Ok(held)));
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
    fn claim(&self, held: &Held, need: Need, epoch: Epoch, known: Moment) -> Option<Held> {
        let Held { fact, tier, .. } = held;
        match tier {
            Tier::Source => {
                let is_outdated = epoch != self.freshness.epoch() || self.freshness.is_outdated(fact, known);
                (!is_outdated).then(|| held.clone())
            }
            Tier::Redis | Tier::Memory => {
                let as_of = self.freshness.as_of(fact, need.stamp, epoch).filter(|as_of| *as_of >= need.as_of)?;
                Some(Held { fact: fact.clone(), as_of, tier: *tier })
            }
        }
    }

    /// Joins the flights that will bring what is wanted, and starts one for the rest. Who comes `again` was let down by what
    /// it joined: it joins nothing that could do so again. What turns out to be remembered goes to `results`.
    fn board(
        &self,
        wanted: Vec<FactKey>,
        need: Need,
        deadline: Deadline,
        again: bool,
        results: &mut Vec<(FactKey, Result<Held, SourceError>)>,
    ) -> Boarded {
        let epoch = self.freshness.epoch();
        // The newest moment known covers every mark and what is needed: it is read before any of the seats is taken.
        let known = self.freshness.newest();
        let at = known.max(need.as_of).max(need.stamp);
        let mut own = self.flights.prepare(at, epoch, deadline, need);
        let mut waits: HashMap<u64, Wait> = HashMap::new();
        let mut mine = Vec::new();
        for key in wanted {
            // A flight that reads an earlier moment than what is needed or known by now would bring what is outdated.
            let least = need.as_of.max(need.stamp).max(self.freshness.floor());
            let least = least.max(self.freshness.key_mark(key.lookup, &key.id));
            let fare = if again {
                // What is found in Redis may be older than what the flight would read.
                let need = self.shared.is_some().then_some(need);
                Fare { at: known.max(least), deadline: Some(deadline), need }
            } else {
                Fare { at: least, deadline: None, need: None }
            };
            match own.take_seat(&key, fare) {
                Seat::Own => mine.push(key),
                Seat::Joined { number, landing } => {
                    self.metrics.joined();
                    let wait = waits.entry(number);
                    wait.or_insert_with(|| Wait { landing, keys: Vec::new(), is_joined: true }).keys.push(key);
                }
            }
        }
        // A flight may have landed between the look into memory and the taking of the seat.
        mine.retain(|key| match self.remembered(key.lookup, &key.id, need) {
            Some(held) => {
                own.leave_seat(key);
                results.push((key.clone(), Ok(held)));
                false
            }
            None => true,
        });
        let mut waits: Vec<Wait> = waits.into_values().collect();
        if !mine.is_empty() {
            waits.push(Wait { landing: own.landing(), keys: mine.clone(), is_joined: false });
            let this = self.clone();
            // Neither who started it nor a panic keeps it from others: they see that it broke off, and ask again.
            let flight = async move {
                let landed = this.fetch(mine, at, need, epoch, deadline).await;
                own.land(landed);
            };
            tokio::spawn(flight.in_current_span());
        }
        Boarded { epoch, known, waits }
    }

    /// Brings facts: from Redis what is there and will do, the rest from the source, read as of `at`. All of it is remembered
    /// afterwards.
    async fn fetch(&self, keys: Vec<FactKey>, at: Moment, need: Need, epoch: Epoch, deadline: Deadline) -> Landed {
        let is_current = || epoch == self.freshness.epoch();
        let mut landed = Landed::with_capacity(keys.len());
        let mut wanted = keys;
        if let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_up()) {
            for held in self.fetch_shared(shared, &wanted, need, epoch, deadline).await {
                self.memory.insert(&held.fact, is_current);
                landed.insert(FactKey { lookup: held.fact.lookup(), id: held.fact.id().clone() }, Ok(held));
            }
            wanted.retain(|key| !landed.contains_key(key));
            if wanted.is_empty() {
                return landed;
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
                    shared.fill(fact);
                }
            }
            landed.insert(key, result.map(Held::from));
        }
        landed
    }

    /// Those of the facts that Redis has and that are what is needed.
    async fn fetch_shared(
        &self,
        shared: &Arc<SharedFacts>,
        keys: &[FactKey],
        need: Need,
        epoch: Epoch,
        deadline: Deadline,
    ) -> Vec<Held> {
        let asking = {
            let (shared, keys) = (Arc::clone(shared), keys.to_vec());
            async move { shared.get(&keys).await }
        };
        let asking = tokio::spawn(asking.in_current_span());
        // Half of the time is the source's. Whether Redis answers at all is found out also when there is less than that takes.
        let patience = deadline.at_most(deadline.left() / 2).instant();
        let found = timeout_at(patience, asking).await.ok().and_then(Result::ok).unwrap_or_default();
        // What is later may be of another history, or no fact of this source at all.
        let newest = self.freshness.newest();
        let believed = found.into_iter().filter(|fact| fact.stamp() <= newest).filter_map(|fact| {
            let as_of = self.freshness.as_of(&fact, need.stamp, epoch).filter(|as_of| *as_of >= need.as_of)?;
            Some(Held { fact, as_of, tier: Tier::Redis })
        });
        let believed: Vec<Held> = believed.collect();
        self.metrics.asked_redis(keys.len(), believed.len());
        believed
    }
}

/// What is waited for, and what was known when the waiting began.
struct Boarded {
    epoch: Epoch,
    /// The newest moment.
    known: Moment,
    waits: Vec<Wait>,
}

/// A flight that is waited for, and what it is to bring.
struct Wait {
    landing: watch::Receiver<Option<Arc<Landed>>>,
    keys: Vec<FactKey>,
    /// Whether another request started it.
    is_joined: bool,
}
