//! The observer: compares cached facts with the source, a few each second, and reports how many are wrong.
//!
//! The freshness protocol was verified by a model and by fault injection; the observer verifies it in operation. A fact
//! that changed a moment ago is merely outdated. It is wrong only if `freshness` still accepts it as of a moment at which
//! the source has something else. A wrong fact is read again, whatever the cause. The observer does not look for the cause.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Facts, SharedFacts};
use crate::{
    fact::{Fact, FactKey},
    freshness::{Epoch, Moment},
    question::{LookupId, Tier},
    schema::Schema,
    source::Deadline,
    telemetry::RateLimitedLog,
};

/// How long the source may take to read a fact.
const READ_TIME: Duration = Duration::from_secs(2);

/// How long the watermark may take to reach the moment at which the source was read. On an idle replica set it takes little
/// more than the interval between probes, since each probe writes a no-op. It takes longer while a stream is opened again.
const CATCH_UP_TIME: Duration = Duration::from_secs(15);

/// Limits the log messages about wrong facts, of which there may be many at once.
static WRONG_FACTS: RateLimitedLog = RateLimitedLog::per_second(1);

/// How often the observer tests whether the watermark has reached the moment at which the source was read.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Facts {
    /// Compares this many facts each second with the source, and never ends. A fact that differs delays the next ones, as
    /// the observer waits for the watermark.
    ///
    /// `mark` is called with the key of a wrong fact, the moment before which its facts are outdated, and the epoch of that moment. It
    /// must have set the mark once it is done.
    pub async fn observe_all<F: Future<Output = ()> + Send>(
        self,
        schema: Arc<Schema>,
        per_second: u32,
        mark: impl Fn(FactKey, Moment, Epoch) -> F + Send + Sync,
    ) {
        let mut ticks = interval(Duration::from_secs(1) / per_second.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.observe(&schema, &mark).await;
        }
    }

    /// Compares one fact, as it is in memory and in Redis, with the source.
    async fn observe<F: Future<Output = ()> + Send>(
        &self,
        schema: &Schema,
        mark: &(impl Fn(FactKey, Moment, Epoch) -> F + Send + Sync),
    ) {
        // Taken before the facts are looked up: if a new epoch begins in between, the facts are rejected.
        let epoch = self.freshness.epoch();
        let Some(cached) = self.memory.random() else { return };
        // That a whole fact is over its limit only leads to the filtered one, so it may be outdated.
        if cached.is_over_limit() && cached.subject().is_none() {
            return;
        }
        let key = cached.key();
        // The source is read as of this moment, which is no earlier than the stamps of the facts that it is compared with.
        let at = self.freshness.newest_moment().max(cached.stamp());
        let mut found = vec![(Tier::Memory, cached)];
        if let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_up()) {
            found.extend(in_redis(shared, &key, at).await.map(|fact| (Tier::Redis, fact)));
        }
        let read = self.source.load(vec![key.clone()], &[], at, Deadline::after(READ_TIME)).await;
        let Some((_, Ok(truth))) = read.into_iter().next() else { return };
        self.metrics.observed();
        let mut is_wrong = false;
        for (tier, fact) in found {
            if !fact.has_same_content(&truth) && self.still_counts(&fact, truth.stamp(), epoch).await {
                is_wrong = true;
                self.metrics.found_stale(tier);
                log_wrong_fact(schema, key.lookup, tier);
            }
        }
        if is_wrong {
            // The mark makes every earlier fact of this key outdated. The fact from the source replaces the wrong ones.
            mark(key, truth.stamp(), epoch).await;
            self.memory.insert(&truth, || epoch == self.freshness.epoch());
            if let Some(shared) = self.shared.as_ref().filter(|_| epoch == self.freshness.epoch()) {
                shared.put(&truth);
            }
        }
    }

    /// Whether a fact still counts and is true as of `moment`, according to `freshness`, once every change up to that moment
    /// has been applied. False if that takes longer than [`CATCH_UP_TIME`].
    async fn still_counts(&self, fact: &Fact, moment: Moment, epoch: Epoch) -> bool {
        let until = Instant::now() + CATCH_UP_TIME;
        while self.freshness.watermark() < moment {
            if Instant::now() > until {
                return false;
            }
            sleep(POLL_INTERVAL).await;
        }
        self.freshness.as_of(fact, Moment::default(), epoch).is_some_and(|as_of| as_of >= moment)
    }
}

fn log_wrong_fact(schema: &Schema, lookup: LookupId, tier: Tier) {
    if let Some(suppressed) = WRONG_FACTS.admit() {
        let lookup = schema.lookup(lookup);
        tracing::error!(
            tier = tier.as_str(),
            collection = &*lookup.collection,
            field = lookup.by.as_str(),
            suppressed,
            "A CACHED FACT COUNTS AS FRESH BUT DIFFERS FROM MONGODB: it is read again; see docs/metrics.md, PermcachedStaleFacts"
        );
    }
}

/// The fact that Redis has for a key, unless its stamp is later than `newest`: then it is not used anyway.
async fn in_redis(shared: &Arc<SharedFacts>, key: &FactKey, newest: Moment) -> Option<Fact> {
    shared.get(std::slice::from_ref(key)).await.into_iter().find(|fact| fact.stamp() <= newest)
}
