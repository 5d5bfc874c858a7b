//! One request: what it requires of each fact, the facts it has so far, and those that could not be loaded.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures::future::{OptionFuture, join};
use tracing::Instrument as _;

use super::{CheckError, Checker, Consistency, RequestFacts};
use crate::{
    diagnosis::error_chain,
    fact::{Fact, FactKey},
    facts::{CachedFact, Facts, FreshnessRequirement},
    freshness::{Freshness, LocalTime, Moment},
    question::Subject,
    source::{Deadline, SourceError},
    telemetry::{RateLimitedLog, SPANS, Work},
};

/// Limits the log lines about failed loads during an outage.
static FAILURES: RateLimitedLog = RateLimitedLog::per_second(10);

/// The state of one request.
pub(super) struct Request {
    pub(super) requirement: FreshnessRequirement,
    arrived: LocalTime,
    pub(super) deadline: Deadline,
    pub(super) facts: RequestFacts,
    failed: HashMap<FactKey, SourceError>,
    /// The whole facts that are presumed to be over their limit, as facts that say so. Each counts only for the subject whose filtered
    /// fact was loaded in its place and can be relied on. There are no more of them than loaded facts.
    presumed: HashMap<Subject, RequestFacts>,
    /// The whole facts that are not presumed to be over their limit any more.
    required_whole: HashSet<FactKey>,
    rounds: u32,
    loaded: u64,
    /// The last age that was asked for, and its moment: most answers of a request have the same.
    age: Cell<Option<(Moment, Duration)>>,
}

impl Checker {
    /// Starts a request: turns its consistency into the moment that each of its facts must reach.
    pub(super) async fn begin<'s>(
        &self,
        subjects: impl IntoIterator<Item = &'s Subject>,
        consistency: Consistency,
        arrived: LocalTime,
        deadline: Deadline,
    ) -> Result<Request, CheckError> {
        let mark =
            || subjects.into_iter().map(|subject| self.freshness.subject_mark(subject)).max().unwrap_or_default();
        self.begin_with(mark, consistency, arrived, deadline).await
    }

    /// Starts a request that may turn out to concern any subject.
    pub(super) async fn begin_for_all_subjects(
        &self,
        consistency: Consistency,
        arrived: LocalTime,
        deadline: Deadline,
    ) -> Result<Request, CheckError> {
        self.begin_with(|| self.freshness.newest_subject_mark(), consistency, arrived, deadline).await
    }

    async fn begin_with(
        &self,
        mark: impl FnOnce() -> Moment,
        consistency: Consistency,
        arrived: LocalTime,
        deadline: Deadline,
    ) -> Result<Request, CheckError> {
        let as_of = self.required_moment(consistency, arrived, deadline).await?;
        let requirement = FreshnessRequirement { as_of, stamp: mark() };
        Ok(Request {
            requirement,
            arrived,
            deadline,
            facts: RequestFacts::default(),
            failed: HashMap::new(),
            presumed: HashMap::new(),
            required_whole: HashSet::new(),
            rounds: 0,
            loaded: 0,
            age: Cell::new(None),
        })
    }
}

/// The facts that a round lacks: each once, in the order in which the questions asked for them.
#[derive(Default)]
pub(super) struct Missing {
    keys: Vec<FactKey>,
    seen: HashSet<FactKey>,
    /// The whole facts that are presumed to be over their limit: filtered ones are loaded first.
    presumed: HashSet<FactKey>,
    /// The filtered facts that are loaded because the whole ones are likely to be over their limit.
    guessed: Vec<FactKey>,
    /// The filtered facts that are wanted next if the whole ones turn out to be over their limit.
    if_large: Vec<FactKey>,
}

impl Missing {
    pub(super) fn len(&self) -> usize {
        self.keys.len() + self.guessed.len()
    }

    pub(super) fn extend(&mut self, keys: Vec<FactKey>) {
        for key in keys {
            if self.seen.insert(key.clone()) {
                self.keys.push(key);
            }
        }
    }

    /// The facts to load if the request may use no more than this many: those that are required, those that are guessed to be, and those
    /// that are if others are large.
    fn within(&mut self, facts_max: usize) -> [Vec<FactKey>; 3] {
        let mut required = std::mem::take(&mut self.keys);
        required.truncate(facts_max);
        let mut facts_left = facts_max - required.len();
        let [guessed, if_large] = [&mut self.guessed, &mut self.if_large].map(|keys| {
            let mut keys = std::mem::take(keys);
            keys.retain(|key| self.seen.insert(key.clone()));
            keys.truncate(facts_left);
            facts_left -= keys.len();
            keys
        });
        [required, guessed, if_large]
    }
}

impl From<Vec<FactKey>> for Missing {
    fn from(keys: Vec<FactKey>) -> Self {
        let mut missing = Self::default();
        missing.extend(keys);
        missing
    }
}

impl Request {
    /// Whether another round can help one question. Keeps in `wanted` only the facts whose load has not failed.
    ///
    /// `Some(Ok)` asks for a round. `Some(Err)` is the question's error. `None` means that nothing was missing.
    pub(super) fn next(&self, wanted: &mut Vec<FactKey>) -> Option<Result<(), CheckError>> {
        let first_failure = wanted.iter().find_map(|key| self.failed.get(key)).cloned();
        wanted.retain(|key| !self.failed.contains_key(key));
        if !wanted.is_empty() {
            return Some(match (self.deadline.is_over(), self.facts.is_full()) {
                (true, _) => Err(CheckError::DeadlineExceeded),
                (_, true) => Err(CheckError::TooLarge),
                _ => Ok(()),
            });
        }
        first_failure.map(|error| match error {
            // A load that its deadline has cut off breaks off: who waits for it may learn that before its own timer fires.
            SourceError::TimedOut | SourceError::BrokenOff if self.deadline.is_all_but_over() => {
                Err(CheckError::DeadlineExceeded)
            }
            SourceError::TooMuch => Err(CheckError::TooLarge),
            error @ (SourceError::TimedOut
            | SourceError::Probe(_)
            | SourceError::Find { .. }
            | SourceError::BrokenOff
            | SourceError::NoIndex { .. }
            | SourceError::Answer { .. }) => Err(CheckError::Unavailable(error)),
        })
    }

    /// Asks for the filtered fact of each whole one that is likely to be over its limit. Where it may stand for the whole one, that one
    /// is presumed to be over its limit, and not asked for. If the filtered fact then could not be loaded, or has a document that cannot be
    /// relied on, the whole fact is required after all. So the filtered fact allows the same, whether the presumption is right or not.
    /// Elsewhere, both are loaded at once, and nothing is presumed. If nothing is likely, the source may still read the filtered fact as
    /// soon as it sees that the whole one is over its limit.
    pub(super) fn presume(&self, facts: &Facts, subject: &Subject, wanted: &mut Vec<FactKey>, missing: &mut Missing) {
        wanted.retain(|key| {
            if self.required_whole.contains(key) || key.subject.is_some() {
                return true;
            }
            let filtered = || FactKey::filtered(key.lookup, key.id.clone(), subject.clone());
            let is_there = || self.facts.get(key.lookup, &key.id, Some(subject)).is_some();
            if !facts.expects_large(key) {
                missing.if_large.extend((!is_there()).then(filtered));
                return true;
            }
            let may_stand = facts.may_stand_for_whole(key.lookup);
            if may_stand {
                missing.presumed.insert(key.clone());
            }
            if may_stand || !is_there() {
                missing.guessed.push(filtered());
            }
            !may_stand
        });
    }

    /// The whole facts that count for a subject as over their limit, by presumption.
    pub(super) fn presumed_large(&self, subject: &Subject) -> Option<&RequestFacts> {
        if self.presumed.is_empty() { None } else { self.presumed.get(subject) }
    }

    /// An upper bound on the age of a fact that is true as of a moment.
    pub(super) fn age(&self, freshness: &Freshness, as_of: Moment) -> Duration {
        match self.age.get() {
            Some((moment, age)) if moment == as_of => age,
            Some(_) | None => {
                let age = freshness.age(as_of, self.arrived);
                self.age.set(Some((as_of, age)));
                age
            }
        }
    }

    /// What the request has done so far, for the metrics.
    pub(super) fn work(&self) -> Work {
        Work { rounds: self.rounds, from_memory: self.facts.found_in_memory(), loaded: self.loaded }
    }

    /// Loads the missing facts, all at once.
    pub(super) async fn load(&mut self, facts: &Facts, mut missing: Missing) {
        self.rounds += 1;
        let [required, guessed, if_large] = missing.within(self.facts.capacity_left());
        let count = required.len() + guessed.len();
        self.loaded += u64::try_from(count).unwrap_or(u64::MAX);
        tracing::debug!(round = self.rounds, facts = count, "loading facts");
        let span = tracing::trace_span!(target: SPANS, "round", number = self.rounds, facts = count);
        let had_failed = !self.failed.is_empty();
        let (requirement, deadline) = (self.requirement, self.deadline);
        // By a load of their own, so that what is guessed takes nothing of what a load may read from what is required. The other half of
        // the time is for what is required instead or afterwards. Boxed, as few rounds need it.
        let patience = deadline.at_most(deadline.left() / 2);
        let guessing = (!guessed.is_empty()).then(|| Box::pin(facts.load(guessed, Vec::new(), requirement, patience)));
        let loading = join(facts.load(required, if_large, requirement, deadline), OptionFuture::from(guessing));
        let (loaded, guessed) = loading.instrument(span).await;
        self.take_guessed(facts, guessed.unwrap_or_default(), missing.presumed);
        for (key, result) in loaded {
            match result {
                Ok(cached) => self.facts.insert(cached),
                Err(error) => {
                    self.failed.insert(key, error);
                }
            }
        }
        // One line for each request, however many of its questions fail.
        if let Some(error) = self.failed.values().next().filter(|_| !had_failed)
            && let Some(suppressed) = FAILURES.admit()
        {
            let error = error_chain(error);
            tracing::warn!(%error, facts = self.failed.len(), suppressed, "facts could not be read");
        }
    }

    /// Takes filtered facts that were loaded on a guess, and treats the presumed whole ones as over their limit. One that could not be
    /// loaded is no failure: it may turn out not to be needed, and is required if it is.
    fn take_guessed(
        &mut self,
        facts: &Facts,
        guessed: Vec<(FactKey, Result<CachedFact, SourceError>)>,
        mut presumed: HashSet<FactKey>,
    ) {
        for (key, result) in &guessed {
            let whole = FactKey::whole(key.lookup, key.id.clone());
            if result.as_ref().map_or(true, |cached| cached.fact.is_doubtful()) && presumed.remove(&whole) {
                self.required_whole.insert(whole);
            }
        }
        for (key, cached) in guessed.into_iter().filter_map(|(key, result)| Some((key, result.ok()?))) {
            self.route_by_presumption(&key, &cached, &presumed);
            self.facts.insert(cached);
        }
        // Whether a presumption was right matters to later requests.
        if let Some(key) = presumed.into_iter().next() {
            facts.load_ahead(key, self.requirement);
        }
    }

    /// If a filtered fact was loaded because the whole one is presumed to be over its limit, this request treats the whole one as such
    /// for that subject. Nothing else uses the presumption: the filtered fact of another subject may be one that cannot be relied on.
    fn route_by_presumption(&mut self, filtered: &FactKey, cached: &CachedFact, presumed: &HashSet<FactKey>) {
        let whole = FactKey::whole(filtered.lookup, filtered.id.clone());
        if let Some(subject) = filtered.subject()
            && presumed.contains(&whole)
            && self.facts.get(whole.lookup, &whole.id, None).is_none()
        {
            let fact = Fact::over_limit(whole, cached.fact.stamp());
            let of_subject = self.presumed.entry(subject.clone()).or_default();
            of_subject.insert(CachedFact { fact, ..cached.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{Id, LookupId};

    #[test]
    fn required_facts_come_before_those_that_are_likely_to_be_wanted() {
        let key = |number| FactKey::whole(LookupId(0), Id::Integer(number));
        let missing = || {
            let mut missing = Missing::default();
            for number in [1, 2] {
                missing.guessed.extend([key(10 + number), key(2)]);
                missing.if_large.extend([key(20 + number), key(11), key(1)]);
                missing.extend(vec![key(number)]);
            }
            missing
        };
        for (facts_max, required, guessed, if_large) in [
            (9, &[1, 2][..], &[11, 12][..], &[21, 22][..]),
            (5, &[1, 2], &[11, 12], &[21]),
            (3, &[1, 2], &[11], &[]),
            (2, &[1, 2], &[], &[]),
            (1, &[1], &[], &[]),
        ] {
            let keys = |numbers: &[i64]| numbers.iter().map(|number| key(*number)).collect::<Vec<_>>();
            assert_eq!(missing().within(facts_max), [keys(required), keys(guessed), keys(if_large)]);
        }
    }
}
