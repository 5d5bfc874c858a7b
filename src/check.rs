//! The loop that answers questions: evaluate, load all that is missing at once, evaluate again (design section 4). A whole
//! batch goes through it as one.
//!
//! Knows no wire format and no database: questions come in, answers go out, facts come from [`Facts`].

mod request_facts;
mod consistency;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub use consistency::Consistency;
pub use request_facts::RequestFacts;
use request_facts::TrackedFacts;
use tracing::Instrument as _;

use crate::{
    diagnosis::error_chain,
    evaluate::{Tree, Verdict, evaluate, explain},
    fact::FactKey,
    facts::{Facts, FreshnessRequirement, Memory, SharedFacts},
    freshness::{Clock, Freshness, LocalTime, Moment, Token},
    question::{Answer, Millis, Question, Tier},
    schema::Schema,
    source::{Deadline, Prober, Source, SourceError},
    telemetry::{Metrics, RateLimitedLog, SPANS, Work},
};

/// How many facts one request holds at most.
const FACTS_MAX: usize = 100_000;

/// How many bytes of facts one request holds at most, in memory.
const FACT_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// For how long questions are still evaluated in a round that begins when the time is up.
const LAST_TURN: Duration = Duration::from_millis(5);

/// Keeps an outage from flooding the log.
static FAILURES: RateLimitedLog = RateLimitedLog::per_second(10);

/// For how long questions are evaluated before the runtime's other tasks get their turn.
const TURN_MAX: Duration = Duration::from_millis(1);

/// An answer, and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The answer.
    pub answer: Answer,
    /// The slowest tier that a fact came from.
    pub tier: Tier,
    /// The newest moment that a fact is true as of: a token that covers all that the answer saw.
    pub as_of: Token,
    /// How old the oldest fact may be.
    pub age: Duration,
    /// Whether it is older than what was demanded, because the source could not be asked and the permission's
    /// `stale_if_error` allows that.
    pub is_stale: bool,
}

/// An answer with all that led to it.
#[derive(Debug)]
pub struct Explained {
    /// The answer, as a check gives it.
    pub checked: Checked,
    /// The whole evaluation.
    pub tree: Tree,
    /// The facts that it looked at.
    pub facts: RequestFacts,
}

/// Why a question has no answer. Never a denial.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckError {
    /// A fact could not be read.
    #[error("the permission could not be checked")]
    Unavailable(#[from] SourceError),
    /// The time for the request was up.
    #[error("the permission could not be checked in time")]
    DeadlineExceeded,
    /// The token is of another source.
    #[error("the token is of a {of} clock, and this source has a {source_clock} clock")]
    ForeignToken {
        /// The token's clock.
        of: &'static str,
        /// The source's clock.
        source_clock: &'static str,
    },
    /// The token's moment has not come.
    #[error("the token's moment has not come yet: it is not from this database")]
    FutureToken,
    /// The request needs more facts than one may hold.
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

/// Answers questions. Clones share what they remember.
#[derive(Clone)]
pub struct Checker {
    schema: Arc<Schema>,
    clock: Clock,
    facts: Facts,
    freshness: Arc<Freshness>,
    prober: Prober,
    metrics: Arc<Metrics>,
    staleness_max: Duration,
    now: fn() -> Millis,
}

/// The bounds of a checker.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How old a fact may be where a request demands nothing else: `MAX_STALENESS`.
    pub staleness_max: Duration,
    /// How many bytes of facts are remembered: `CACHE_MAX_BYTES`.
    pub memory_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { staleness_max: Duration::from_secs(2), memory_bytes_max: 64 * 1_024 * 1_024 }
    }
}

impl Checker {
    /// A checker that answers from a source, and goes by the wall clock. It remembers what it read, and believes that for as
    /// long as probes allow; who tells [`Checker::freshness`] what has changed makes that longer.
    #[must_use]
    pub fn new(schema: Arc<Schema>, source: Arc<dyn Source>, metrics: Arc<Metrics>, settings: Settings) -> Self {
        let Settings { staleness_max, memory_bytes_max } = settings;
        let clock = source.clock();
        let freshness = Arc::new(Freshness::new(&schema));
        let memory = Arc::new(Memory::new(memory_bytes_max));
        let facts = Facts::new(Arc::clone(&source), Arc::clone(&freshness), Arc::clone(&memory), Arc::clone(&metrics));
        let prober = Prober::new(source, Arc::clone(&freshness), move || memory.clear());
        Self { schema, clock, facts, freshness, prober, metrics, staleness_max, now: wall_clock }
    }

    /// With facts in Redis, which other instances over the same source have read. For a source whose moments mean the same to
    /// all of them.
    #[must_use]
    pub fn sharing(self, shared: Arc<SharedFacts>) -> Self {
        Self { facts: self.facts.sharing(shared), ..self }
    }

    /// What it knows about freshness.
    #[must_use]
    pub fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    /// Who asks its source for the time.
    #[must_use]
    pub fn prober(&self) -> &Prober {
        &self.prober
    }

    /// What it remembers, and fetches.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What its work is counted in.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The schema that it answers by.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// How old a fact may be where a request demands nothing else.
    #[must_use]
    pub fn staleness_max(&self) -> Duration {
        self.staleness_max
    }

    /// Whose time the tokens are that it gives and takes.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Answers questions that have arrived just now, in order. An error is one question's own.
    pub async fn check(
        &self,
        questions: &[Question],
        consistency: Consistency,
        deadline: Deadline,
    ) -> Vec<Result<Checked, CheckError>> {
        self.check_at(questions, consistency, deadline, self.now).await
    }

    /// As [`Checker::check`], by another clock: for tests of schemas, whose documents have dates.
    pub async fn check_at(
        &self,
        questions: &[Question],
        consistency: Consistency,
        deadline: Deadline,
        now: impl Fn() -> Millis + Send + Sync,
    ) -> Vec<Result<Checked, CheckError>> {
        let started = Instant::now();
        let arrived = LocalTime::now();
        let mut results: Vec<Option<Result<Checked, CheckError>>> = questions.iter().map(|_| None).collect();
        let mut work = Work::default();
        match self.begin(questions, consistency, arrived, deadline).await {
            Ok(mut request) => {
                self.answer_all(questions, &mut results, &mut request, &now).await;
                work = request.work();
            }
            Err(error) => results.fill_with(|| Some(Err(error.clone()))),
        }
        self.metrics.worked(work, started.elapsed());
        let checked = questions.iter().zip(results).map(|(question, result)| match result {
            Some(Ok(checked)) => Ok(checked),
            Some(Err(error)) => self.stale_answer(question, consistency, arrived, now(), &error).ok_or(error),
            None => Err(CheckError::DeadlineExceeded),
        });
        checked.inspect(|result| self.note(result)).collect()
    }

    /// Evaluates and loads in turn until each question has its result.
    async fn answer_all(
        &self,
        questions: &[Question],
        results: &mut [Option<Result<Checked, CheckError>>],
        request: &mut Request,
        now: &(impl Fn() -> Millis + Send + Sync),
    ) {
        loop {
            let now = now();
            let mut missing = Missing::default();
            let round = Instant::now();
            let mut turn = round;
            for (question, result) in questions.iter().zip(&mut *results).filter(|(_, result)| result.is_none()) {
                if turn.elapsed() > TURN_MAX {
                    tokio::task::yield_now().await;
                    turn = Instant::now();
                }
                // What has just been read may still decide: a moment is left for that.
                if request.deadline.is_over() && round.elapsed() > LAST_TURN {
                    *result = Some(Err(CheckError::DeadlineExceeded));
                } else if missing.keys.len() < FACTS_MAX {
                    *result = self.try_answer(question, request, now, &mut missing);
                }
            }
            if results.iter().all(Option::is_some) {
                return;
            }
            request.load(&self.facts, missing).await;
        }
    }

    /// Answers one question, and shows how.
    ///
    /// # Errors
    /// As of a check.
    pub async fn explain(
        &self,
        question: &Question,
        consistency: Consistency,
        deadline: Deadline,
    ) -> Result<Explained, CheckError> {
        let started = Instant::now();
        let mut request = self.begin(std::slice::from_ref(question), consistency, LocalTime::now(), deadline).await?;
        loop {
            let now = (self.now)();
            let mut missing = Vec::new();
            let tree = self.explain_from(question, &request, now, &mut missing);
            match request.next(&mut missing) {
                Some(Err(error)) => return Err(error),
                Some(Ok(())) => request.load(&self.facts, missing.into()).await,
                None => {
                    let answer = self.try_answer(question, &request, now, &mut Missing::default());
                    let checked = answer.unwrap_or(Err(CheckError::DeadlineExceeded))?;
                    self.metrics.worked(request.work(), started.elapsed());
                    return Ok(Explained { checked, tree, facts: request.facts });
                }
            }
        }
    }

    fn explain_from(&self, question: &Question, request: &Request, now: Millis, missing: &mut Vec<FactKey>) -> Tree {
        let tracked = TrackedFacts::new(&request.facts, &self.facts, request.requirement);
        explain(&self.schema, question, &tracked, now, missing)
    }

    /// Accepts the demand: finds the moment as of which each fact must be true.
    async fn begin(
        &self,
        questions: &[Question],
        consistency: Consistency,
        arrived: LocalTime,
        deadline: Deadline,
    ) -> Result<Request, CheckError> {
        let as_of = self.required_moment(consistency, arrived, deadline).await?;
        let marks = questions.iter().map(|question| self.freshness.subject_mark(&question.subject));
        let requirement = FreshnessRequirement { as_of, stamp: marks.max().unwrap_or_default() };
        let facts = RequestFacts::new(self.schema.lookup_count());
        Ok(Request { requirement, arrived, deadline, rounds: 0, fetched: 0, facts, failed: HashMap::new() })
    }

    /// The moment as of which each fact must be true to be no older than demanded.
    async fn required_moment(
        &self,
        consistency: Consistency,
        arrived: LocalTime,
        deadline: Deadline,
    ) -> Result<Moment, CheckError> {
        let since = arrived.minus(consistency.age_max(self.staleness_max));
        let token = match consistency {
            // The ticks of one instance mean nothing to another: whoever has a token sees the source.
            Consistency::AtLeastAsFresh(Token { clock: Clock::Local, .. }) if self.clock == Clock::Local => {
                return self.probe_since(arrived, deadline).await;
            }
            Consistency::AtLeastAsFresh(token) => self.accept(token, arrived, deadline).await?,
            _ => Moment::default(),
        };
        match self.freshness.required_moment(since) {
            Some(moment) => Ok(moment.max(token)),
            None => Ok(self.probe_since(since, deadline).await?.max(token)),
        }
    }

    /// The moment of a token, if it is one of this source that has come before `arrived`.
    ///
    /// # Errors
    /// [`CheckError::ForeignToken`] and [`CheckError::FutureToken`]; or it could not be found out.
    pub async fn accept(&self, token: Token, arrived: LocalTime, deadline: Deadline) -> Result<Moment, CheckError> {
        if token.clock != self.clock {
            let (of, source_clock) = (token.clock.as_str(), self.clock.as_str());
            return Err(CheckError::ForeignToken { of, source_clock });
        }
        if token.moment > self.freshness.newest_moment() {
            // It has come only if a probe that is sent now knows of it.
            self.probe_since(arrived, deadline).await?;
            if token.moment > self.freshness.newest_moment() {
                return Err(CheckError::FutureToken);
            }
        }
        Ok(token.moment)
    }

    /// The moment that is needed to be no older than `since`, by a probe sent since then.
    async fn probe_since(&self, since: LocalTime, deadline: Deadline) -> Result<Moment, CheckError> {
        let probe = self.prober.probe_since(since, deadline).await.map_err(|error| match error {
            SourceError::TimedOut if deadline.is_over() => CheckError::DeadlineExceeded,
            error => CheckError::Unavailable(error),
        })?;
        Ok(self.freshness.required_moment(since).unwrap_or(probe.moment))
    }

    /// The answer, if the facts at hand or remembered decide it or what is missing cannot be had. Adds what is missing
    /// otherwise.
    fn try_answer(
        &self,
        question: &Question,
        request: &Request,
        now: Millis,
        missing: &mut Missing,
    ) -> Option<Result<Checked, CheckError>> {
        let tracked = TrackedFacts::new(&request.facts, &self.facts, request.requirement);
        let mut wanted = Vec::new();
        match evaluate(&self.schema, question, &tracked, now, &mut wanted) {
            Verdict::Decided(answer) => Some(Ok(self.checked(answer, &tracked, request.arrived))),
            Verdict::Missing => match request.next(&mut wanted) {
                Some(Ok(())) => {
                    missing.extend(wanted);
                    None
                }
                Some(Err(error)) => Some(Err(error)),
                None => Some(Err(CheckError::DeadlineExceeded)),
            },
        }
    }

    fn checked(&self, answer: Answer, tracked: &TrackedFacts<'_>, arrived: LocalTime) -> Checked {
        let seen = tracked.seen();
        // What is older than all probes that are kept is as old as can be.
        let age = arrived.since(self.freshness.fresh_since(seen.oldest).unwrap_or_default());
        let as_of = Token { clock: self.clock, moment: seen.newest };
        Checked { answer, tier: seen.tier, as_of, age, is_stale: false }
    }

    /// What is still remembered, where the source cannot be asked and the permission may then be answered from that.
    fn stale_answer(
        &self,
        question: &Question,
        consistency: Consistency,
        arrived: LocalTime,
        now: Millis,
        error: &CheckError,
    ) -> Option<Checked> {
        let age_max = self.schema.permission(question.permission).stale_if_error?;
        let is_outage = match error {
            // That others broke off is none.
            CheckError::Unavailable(error) => !matches!(error, SourceError::BrokenOff),
            // Too little time is no outage, unless there was none either for the probes that are sent all the while.
            CheckError::DeadlineExceeded => self.freshness.required_moment(arrived.minus(self.staleness_max)).is_none(),
            CheckError::ForeignToken { .. } | CheckError::FutureToken | CheckError::TooLarge => false,
        };
        if !is_outage || consistency != Consistency::MinimizeLatency {
            return None;
        }
        let as_of = self.freshness.required_moment(arrived.minus(age_max))?;
        let requirement = FreshnessRequirement { as_of, stamp: self.freshness.subject_mark(&question.subject) };
        let request_facts = RequestFacts::new(self.schema.lookup_count());
        let tracked = TrackedFacts::new(&request_facts, &self.facts, requirement);
        match evaluate(&self.schema, question, &tracked, now, &mut Vec::new()) {
            Verdict::Decided(answer) => Some(Checked { is_stale: true, ..self.checked(answer, &tracked, arrived) }),
            Verdict::Missing => None,
        }
    }

    fn note(&self, result: &Result<Checked, CheckError>) {
        match result {
            Ok(checked) => self.metrics.aged(checked.age),
            Err(error) => self.metrics.failed(error.as_str()),
        }
    }
}

/// Milliseconds since the Unix epoch.
fn wall_clock() -> Millis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since_epoch.as_millis()).unwrap_or(Millis::MAX)
}

/// The facts that a round lacks: once each, in the order in which questions asked for them.
#[derive(Default)]
struct Missing {
    keys: Vec<FactKey>,
    seen: HashSet<FactKey>,
}

impl Missing {
    fn extend(&mut self, keys: Vec<FactKey>) {
        for key in keys {
            if self.seen.insert(key.clone()) {
                self.keys.push(key);
            }
        }
    }
}

impl From<Vec<FactKey>> for Missing {
    fn from(keys: Vec<FactKey>) -> Self {
        let mut missing = Self::default();
        missing.extend(keys);
        missing
    }
}

/// The work on one request.
struct Request {
    requirement: FreshnessRequirement,
    arrived: LocalTime,
    deadline: Deadline,
    rounds: u32,
    fetched: u64,
    facts: RequestFacts,
    failed: HashMap<FactKey, SourceError>,
}

impl Request {
    /// Whether the missing facts are worth a round. Leaves in `wanted` those that can still be had; none of them and no
    /// error: nothing is missing.
    fn next(&self, wanted: &mut Vec<FactKey>) -> Option<Result<(), CheckError>> {
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
            SourceError::TimedOut if self.deadline.is_all_but_over() => Err(CheckError::DeadlineExceeded),
            SourceError::TooMuch => Err(CheckError::TooLarge),
            error => Err(CheckError::Unavailable(error)),
        })
    }

    fn work(&self) -> Work {
        Work { rounds: self.rounds, from_memory: self.facts.remembered(), loaded: self.fetched }
    }

    async fn load(&mut self, facts: &Facts, missing: Missing) {
        self.rounds += 1;
        let mut keys = missing.keys;
        keys.truncate(self.facts.capacity_left());
        self.fetched += u64::try_from(keys.len()).unwrap_or(u64::MAX);
        tracing::debug!(round = self.rounds, facts = keys.len(), "loading facts");
        let span = tracing::trace_span!(target: SPANS, "round", number = self.rounds, facts = keys.len());
        let had_failed = !self.failed.is_empty();
        for (key, result) in facts.load(keys, self.requirement, self.deadline).instrument(span).await {
            match result {
                Ok(cached) => {
                    self.facts.insert(key, cached);
                }
                Err(error) => {
                    self.failed.insert(key, error);
                }
            }
        }
        // Once for each request, however many questions it has.
        if let Some(error) = self.failed.values().next().filter(|_| !had_failed)
            && let Some(suppressed) = FAILURES.admit()
        {
            tracing::warn!(error = %error_chain(error), facts = self.failed.len(), suppressed, "facts could not be read");
        }
    }
}
