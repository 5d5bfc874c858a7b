//! A request that asks in several steps, such as a list. Each step uses the facts of the steps before it, and all of them have
//! the same freshness requirement and the same time.
//!
//! An answer is never older than the request asks for, and an error is never replaced by a stale answer.

use std::time::{Duration, Instant};

use super::{
    CheckError, CheckResult, Checked, Checker, Consistency, Slice,
    request::{Missing, Request},
    tracked_facts::TrackedFacts,
    wall_clock,
};
use crate::{
    evaluate::{AvailableFacts as _, OfSubject, SubjectValue, evaluate_subject},
    fact::{Fact, FactKey},
    freshness::{Epoch, LocalTime, Moment, Token},
    question::{Millis, Question, Subject},
    schema::Schema,
    source::Deadline,
};

/// How many facts are looked up before other tasks may run.
const FACTS_AT_ONCE: usize = 64;

/// A request that asks in several steps.
pub struct Inquiry<'c> {
    checker: &'c Checker,
    request: Request,
    /// The epoch in which it began.
    epoch: Epoch,
    now: Millis,
    started: Instant,
    /// The newest moment that what was read is true as of.
    newest: Option<Moment>,
    /// The greatest age of what was read.
    age: Duration,
}

impl<'c> Inquiry<'c> {
    /// Begins a request for these subjects, which has arrived just now. `now` is the time that dates are compared with if it is not
    /// the present: for tests of schemas, whose documents have fixed dates.
    ///
    /// # Errors
    /// [`CheckError`], of the token or of the probe.
    pub async fn begin(
        checker: &'c Checker,
        subjects: &[Subject],
        (consistency, deadline): (Consistency, Deadline),
        now: Option<Millis>,
    ) -> Result<Self, CheckError> {
        let started = Instant::now();
        let request = checker.begin(subjects, consistency, LocalTime::now(), deadline).await?;
        Ok(Self::of(checker, request, started, now))
    }

    /// Begins a request that may turn out to concern any subject, as [`Inquiry::begin`] does for some.
    ///
    /// # Errors
    /// [`CheckError`], of the token or of the probe.
    pub async fn begin_for_all_subjects(
        checker: &'c Checker,
        (consistency, deadline): (Consistency, Deadline),
        now: Option<Millis>,
    ) -> Result<Self, CheckError> {
        let started = Instant::now();
        let request = checker.begin_for_all_subjects(consistency, LocalTime::now(), deadline).await?;
        Ok(Self::of(checker, request, started, now))
    }

    fn of(checker: &'c Checker, request: Request, started: Instant, now: Option<Millis>) -> Self {
        let now = now.unwrap_or_else(wall_clock);
        let epoch = checker.freshness.epoch();
        Self { checker, request, epoch, now, started, newest: None, age: Duration::ZERO }
    }

    /// The schema that answers follow.
    #[must_use]
    pub fn schema(&self) -> &'c Schema {
        &self.checker.schema
    }

    /// The time that dates in documents are compared with.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.now
    }

    /// When the time of the request ends.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.request.deadline
    }

    /// Whether the request may use no more facts.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.request.facts.is_full()
    }

    /// The moment that what is read from the source now must be as of.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let requirement = self.request.requirement;
        self.checker.freshness.newest_moment().max(requirement.as_of).max(requirement.stamp)
    }

    /// Whether the source is still in the epoch in which the request began. Facts and listings of different epochs do not fit together.
    #[must_use]
    pub fn is_in_its_epoch(&self) -> bool {
        self.epoch == self.checker.freshness.epoch()
    }

    /// Counts what was read from the source at this moment among what the request is based on.
    pub fn add_read_at(&mut self, stamp: Moment) {
        self.add(stamp, self.request.age(&self.checker.freshness, stamp));
    }

    /// A token that covers everything that was read.
    #[must_use]
    pub fn as_of(&self) -> Token {
        let moment = self.newest.unwrap_or(self.request.requirement.as_of);
        Token { clock: self.checker.clock, moment }
    }

    /// An upper bound on the age of the oldest of what was read.
    #[must_use]
    pub fn age(&self) -> Duration {
        match self.newest {
            Some(_) => self.age,
            None => self.request.age(&self.checker.freshness, self.request.requirement.as_of),
        }
    }

    /// Answers questions, as [`Checker::check`] does, but never with stale answers. Their subjects are those of the request.
    pub async fn check(&mut self, questions: &[Question]) -> Vec<Result<Checked, CheckError>> {
        let mut results: Vec<CheckResult> = questions.iter().map(|_| None).collect();
        let now = self.now;
        self.checker.answer_all(questions, &mut results, &mut self.request, &|| now).await;
        let results: Vec<Result<Checked, CheckError>> =
            results.into_iter().map(|result| result.unwrap_or(Err(CheckError::DeadlineExceeded))).collect();
        for checked in results.iter().flatten() {
            self.add(checked.as_of.moment, checked.age);
        }
        results
    }

    /// The whole facts of these keys, in their order.
    ///
    /// # Errors
    /// [`CheckError`] if one of them cannot be loaded.
    pub async fn facts(&mut self, keys: &[FactKey]) -> Result<Vec<Fact>, CheckError> {
        loop {
            let (mut found, mut missing) = (Vec::with_capacity(keys.len()), Vec::new());
            let mut slice = Slice::begin();
            for keys in keys.chunks(FACTS_AT_ONCE) {
                self.find(keys, &mut found, &mut missing);
                slice.pause_if_over_after(u32::try_from(keys.len()).unwrap_or(u32::MAX)).await;
            }
            if missing.is_empty() {
                return Ok(found);
            }
            self.load(missing).await?;
        }
    }

    /// Adds the facts that are available, and the keys of those that are missing.
    fn find(&mut self, keys: &[FactKey], found: &mut Vec<Fact>, missing: &mut Vec<FactKey>) {
        let seen = {
            let tracked = TrackedFacts::new(&self.request.facts, &self.checker.facts, self.request.requirement);
            for key in keys {
                match tracked.get(key.lookup, &key.id, key.subject()) {
                    Some(fact) => found.push(fact.clone()),
                    None => missing.push(key.clone()),
                }
            }
            tracked.used()
        };
        if let Some(seen) = seen {
            self.add(seen.newest, self.request.age(&self.checker.freshness, seen.oldest));
        }
    }

    /// Answers what is asked about one subject alone.
    ///
    /// # Errors
    /// [`CheckError`] if a fact of the subject cannot be loaded.
    pub async fn ask_of_subject(
        &mut self,
        subject: &Subject,
        asked: OfSubject<'_>,
    ) -> Result<SubjectValue, CheckError> {
        loop {
            let mut missing = Vec::new();
            let (value, seen) = {
                let tracked = TrackedFacts::new(&self.request.facts, &self.checker.facts, self.request.requirement);
                let value = evaluate_subject(&self.checker.schema, subject, asked, &tracked, self.now, &mut missing);
                (value, tracked.used())
            };
            if let Some(value) = value {
                if let Some(seen) = seen {
                    self.add(seen.newest, self.request.age(&self.checker.freshness, seen.oldest));
                }
                return Ok(value);
            }
            self.load(missing).await?;
        }
    }

    /// Loads missing facts, all at once.
    async fn load(&mut self, mut missing: Vec<FactKey>) -> Result<(), CheckError> {
        match self.request.next(&mut missing) {
            Some(Ok(())) => {
                self.request.load(&self.checker.facts, Missing::from(missing)).await;
                Ok(())
            }
            Some(Err(error)) => Err(error),
            None => Err(CheckError::DeadlineExceeded),
        }
    }

    fn add(&mut self, newest: Moment, age: Duration) {
        self.newest = Some(self.newest.map_or(newest, |before| before.max(newest)));
        self.age = self.age.max(age);
    }
}

/// Counts and times the request, however it ends.
impl Drop for Inquiry<'_> {
    fn drop(&mut self) {
        self.checker.metrics.worked(self.request.work(), self.started.elapsed());
    }
}
