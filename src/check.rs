//! The loop that answers questions: evaluate, load every missing fact at once, evaluate again (ARCHITECTURE.md, "A check").
//! A whole batch goes through the loop as one unit.
//!
//! Knows neither gRPC nor a database: questions come in, answers go out, and facts come from [`Facts`].

mod consistency;
mod dependencies;
mod explain;
mod inquiry;
mod request;
mod request_facts;
mod round;
mod slice;
mod stale;
mod tracked_facts;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use consistency::Consistency;
pub use dependencies::Dependencies;
pub use explain::Explained;
pub use inquiry::Inquiry;
pub use request_facts::RequestFacts;
pub use slice::Slice;

use crate::{
    facts::Facts,
    freshness::{Clock, Freshness, LocalTime, Token},
    question::{Answer, Millis, Question, Tier},
    schema::Schema,
    source::{Deadline, Prober, SourceError},
    telemetry::{Metrics, Work},
};

/// An answer, and what it is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The answer.
    pub answer: Answer,
    /// The time at which the answer may change although no document does, also that of a denial; none if there is no such time.
    pub may_change_at: Option<Millis>,
    /// The slowest tier that a fact of the answer came from.
    pub tier: Tier,
    /// A token that covers everything the answer is based on: the newest as-of moment among its facts.
    pub as_of: Token,
    /// An upper bound on the age of the answer's oldest fact.
    pub age: Duration,
    /// Whether the answer is older than the request asked for. That happens only while the source does not answer, and only
    /// if the permission has `stale_if_error`.
    pub is_stale: bool,
}

/// Why a question has no answer. Never a denial.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckError {
    /// The source could not be read.
    #[error("the permission could not be checked")]
    Unavailable(#[from] SourceError),
    /// The deadline of the request has passed.
    #[error("the permission could not be checked in time")]
    DeadlineExceeded,
    /// The token belongs to a different kind of source.
    #[error("the token is of a {of} clock, and this source has a {source_clock} clock")]
    ForeignToken {
        /// The token's clock.
        of: &'static str,
        /// The source's clock.
        source_clock: &'static str,
    },
    /// The token's moment lies in the future.
    #[error("the token's moment has not come yet: it is not from this database")]
    FutureToken,
    /// The request needs more facts than one request may use.
    #[error("the request needs more than 100,000 facts or 64 MiB of them: ask in smaller batches")]
    TooLarge,
}

impl CheckError {
    /// The name in logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ForeignToken { .. } => "foreign_token",
            Self::FutureToken => "future_token",
            Self::TooLarge => "too_large",
        }
    }
}

/// The result of a question, once there is one.
type CheckResult = Option<Result<Checked, CheckError>>;

/// The bounds of an instance.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How old a fact may be if a request asks for nothing stricter: `MAX_STALENESS`.
    pub staleness_max: Duration,
    /// How many bytes of memory cached facts may take: `CACHE_MAX_BYTES`.
    pub memory_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { staleness_max: Duration::from_secs(2), memory_bytes_max: 64 * 1_024 * 1_024 }
    }
}

/// Answers questions. Clones share all parts, the cached facts included.
#[derive(Clone)]
pub struct Checker {
    /// The schema that answers follow.
    pub schema: Arc<Schema>,
    /// Which clock the source's moments belong to.
    pub clock: Clock,
    /// Loads facts through the tiers.
    pub facts: Facts,
    /// Decides whether a fact is fresh enough.
    pub freshness: Arc<Freshness>,
    /// Asks the source for its time.
    pub prober: Prober,
    /// Counts and times each request.
    pub metrics: Arc<Metrics>,
    /// How old a fact may be if a request asks for nothing stricter.
    pub staleness_max: Duration,
}

impl Checker {
    /// Answers questions that have arrived just now, in their order. An error of a fact concerns only the questions that
    /// depend on it; an error of the token or of the probe concerns all.
    pub async fn check(
        &self,
        questions: &[Question],
        consistency: Consistency,
        deadline: Deadline,
    ) -> Vec<Result<Checked, CheckError>> {
        self.check_at(questions, consistency, deadline, wall_clock).await
    }

    /// Answers one question as [`Checker::check`] does. Allocates nothing if a few facts in memory decide it.
    ///
    /// # Errors
    /// [`CheckError`].
    pub async fn check_one(
        &self,
        question: &Question,
        consistency: Consistency,
        deadline: Deadline,
    ) -> Result<Checked, CheckError> {
        let mut results = [None];
        self.answer(std::slice::from_ref(question), &mut results, None, (consistency, deadline), wall_clock).await;
        let [result] = results;
        result.unwrap_or(Err(CheckError::DeadlineExceeded))
    }

    /// As [`Checker::check`], with what each answer depends on, in the same order: none for an answer that must not be kept, and none
    /// where the second list ends.
    pub async fn check_with_dependencies(
        &self,
        questions: &[Question],
        consistency: Consistency,
        deadline: Deadline,
    ) -> (Vec<Result<Checked, CheckError>>, Vec<Option<Dependencies>>) {
        let mut dependencies = Vec::new();
        let results = self.answer_each(questions, Some(&mut dependencies), (consistency, deadline), wall_clock).await;
        (results, dependencies)
    }

    /// As [`Checker::check`], with the dates in documents compared to another clock: for tests of schemas, whose documents
    /// have fixed dates.
    pub async fn check_at(
        &self,
        questions: &[Question],
        consistency: Consistency,
        deadline: Deadline,
        now: impl Fn() -> Millis + Send + Sync,
    ) -> Vec<Result<Checked, CheckError>> {
        self.answer_each(questions, None, (consistency, deadline), now).await
    }

    /// The result of each question, in their order. See [`Checker::answer`].
    async fn answer_each(
        &self,
        questions: &[Question],
        dependencies: Option<&mut Vec<Option<Dependencies>>>,
        limits: (Consistency, Deadline),
        now: impl Fn() -> Millis + Send + Sync,
    ) -> Vec<Result<Checked, CheckError>> {
        let mut results: Vec<_> = questions.iter().map(|_| None).collect();
        self.answer(questions, &mut results, dependencies, limits, now).await;
        results.into_iter().map(|result| result.unwrap_or(Err(CheckError::DeadlineExceeded))).collect()
    }

    /// Puts the result of each question in its place, and what the answers depend on in `dependencies`, if that is given.
    async fn answer(
        &self,
        questions: &[Question],
        results: &mut [CheckResult],
        dependencies: Option<&mut Vec<Option<Dependencies>>>,
        (consistency, deadline): (Consistency, Deadline),
        now: impl Fn() -> Millis + Send + Sync,
    ) {
        let arrived = LocalTime::now();
        let mut work = Work::default();
        // Most batches have one subject, or name each several times in a row.
        let runs = questions.chunk_by(|left, right| left.subject == right.subject);
        let subjects = runs.filter_map(<[_]>::first).map(|question| &question.subject);
        match self.begin(subjects, consistency, arrived, deadline).await {
            Ok(mut request) => {
                self.answer_all(questions, results, &mut request, &now).await;
                work = request.work();
                if let Some(dependencies) = dependencies {
                    *dependencies = Box::pin(self.find_dependencies(questions, results, &mut request, &now)).await;
                }
            }
            Err(error) => results.fill_with(|| Some(Err(error.clone()))),
        }
        self.metrics.worked(work, LocalTime::now().since(arrived));
        let mut has_errors = false;
        for result in &mut *results {
            has_errors |= result.get_or_insert(Err(CheckError::DeadlineExceeded)).is_err();
        }
        if has_errors {
            // Boxed, as most requests do not need it and it takes much space.
            Box::pin(self.answer_stale(questions, results, (consistency, arrived, deadline), &now)).await;
        }
        self.record(results);
    }

    /// Counts the results: at once those that follow each other and are alike. Most answers of a request have the same age.
    fn record(&self, results: &[CheckResult]) {
        let are_alike = |left: &CheckResult, right: &CheckResult| match (left, right) {
            (Some(Ok(left)), Some(Ok(right))) => left.age == right.age,
            (Some(Err(left)), Some(Err(right))) => left.as_str() == right.as_str(),
            (Some(Ok(_) | Err(_)) | None, _) => false,
        };
        for alike in results.chunk_by(are_alike) {
            match alike.first() {
                Some(Some(Ok(checked))) => self.metrics.aged(checked.age, alike.len()),
                Some(Some(Err(error))) => self.metrics.failed(error.as_str(), alike.len()),
                Some(None) | None => {}
            }
        }
    }
}

/// Milliseconds since the Unix epoch.
fn wall_clock() -> Millis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since_epoch.as_millis()).unwrap_or(Millis::MAX)
}
