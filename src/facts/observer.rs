//! The observer: compares remembered facts with the source, a few a second, and counts those that are believed and wrong.
//!
//! Freshness rests on a protocol that was checked in a model and by faults; this looks whether it holds where it runs. A
//! fact that was changed a moment ago is no mistake: it is one only if it still counts, as of a moment at which the source
//! says otherwise. Whatever the cause, such a fact is believed no more.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Facts, SharedFacts};
use crate::{
    fact::{Fact, FactKey},
    freshness::{Change, Changed, Epoch, Moment},
    question::Tier,
    schema::Schema,
    source::Deadline,
    telemetry::RateLimitedLog,
};

/// How long the source may take to say what the truth is.
const READ_TIME: Duration = Duration::from_secs(2);

/// How long it may take until everything has been heard that was before the truth was read: longer than a quiet MongoDB
/// waits before it writes a moment down, which is ten seconds.
const HEARING_TIME: Duration = Duration::from_secs(15);

/// Keeps what is wrong everywhere from flooding the log.
static WRONG: RateLimitedLog = RateLimitedLog::per_second(1);

/// How often it is looked whether that is so.
const LOOK: Duration = Duration::from_millis(50);

impl Facts {
    /// Compares so many facts a second with the source, for ever. One that is not plainly right may take longer.
    pub async fn observe_all(self, schema: Arc<Schema>, per_second: u32) {
        let mut ticks = interval(Duration::from_secs(1) / per_second.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.observe(&schema).await;
        }
    }

    /// Compares a remembered fact, and what Redis has of it, with the source.
    async fn observe(&self, schema: &Schema) {
        // Before the facts: what is found once another history has begun is not a part of this one.
        let epoch = self.freshness.epoch();
        let Some(remembered) = self.memory.any() else { return };
        let key = FactKey { lookup: remembered.lookup(), id: remembered.id().clone() };
        // No earlier than what is compared with it.
        let at = self.freshness.newest_moment().max(remembered.stamp());
        let mut found = vec![(Tier::Memory, remembered)];
        if let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_up()) {
            found.extend(in_redis(shared, &key, at).await.map(|fact| (Tier::Redis, fact)));
        }
        let read = self.source.load(vec![key.clone()], at, Deadline::after(READ_TIME)).await;
        let Some((_, Ok(truth))) = read.into_iter().next() else { return };
        self.metrics.observed();
        let mut is_wrong = false;
        for (tier, fact) in found {
            if !fact.says_the_same(&truth) && self.still_counts(&fact, truth.stamp(), epoch).await {
                is_wrong = true;
                self.metrics.found_stale(tier);
                if let Some(suppressed) = WRONG.admit() {
                    let lookup = schema.lookup(key.lookup);
                    let (collection, field) = (&*lookup.collection, lookup.by.as_str());
                    tracing::error!(
                        tier = tier.as_str(),
                        collection,
                        field,
                        suppressed,
                        "A FACT IS BELIEVED THAT IS NOT WHAT MONGODB SAYS: it is read again; see docs/metrics.md, PermcachedStaleFacts"
                    );
                }
            }
        }
        if is_wrong {
            // Whatever was read before is outdated from now on; and others find the truth where they found something else.
            self.freshness.mark(&[Change { at: truth.stamp(), what: Changed::Key(key) }], epoch);
            self.memory.insert(&truth, || epoch == self.freshness.epoch());
            if let Some(shared) = self.shared.as_ref().filter(|_| epoch == self.freshness.epoch()) {
                shared.put(&truth);
            }
        }
    }

    /// Whether a fact is taken to be true as of a moment, once everything before that has been heard.
    async fn still_counts(&self, fact: &Fact, moment: Moment, epoch: Epoch) -> bool {
        let until = Instant::now() + HEARING_TIME;
        while self.freshness.watermark() < moment {
            if Instant::now() > until {
                return false;
            }
            sleep(LOOK).await;
        }
        self.freshness.as_of(fact, Moment::default(), epoch).is_some_and(|as_of| as_of >= moment)
    }
}

/// What Redis has of a fact, if it is not of the future: that is not believed.
async fn in_redis(shared: &Arc<SharedFacts>, key: &FactKey, newest: Moment) -> Option<Fact> {
    shared.get(std::slice::from_ref(key)).await.into_iter().find(|fact| fact.stamp() <= newest)
}
