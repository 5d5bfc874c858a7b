//! The loop that answers questions: evaluate, load all that is missing at once, evaluate again (design section 4). A whole
//! batch goes through it as one.
//!
//! Knows no wire format and no database: questions come in, answers go out, facts come from a [`Source`].

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::time::timeout_at;

use crate::{
    evaluate::{FactsAtHand, Tree, Verdict, evaluate, explain},
    fact::{Fact, FactKey},
    freshness::{Clock, Moment, Token},
    question::{Answer, Id, LookupId, Millis, Question, Tier},
    schema::Schema,
    source::{Deadline, Loaded, Source, SourceError},
    telemetry::Metrics,
};

/// How many facts one request holds at most.
const FACTS_MAX: usize = 100_000;

/// How many bytes of facts one request holds at most, in memory.
const FACT_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// For how long questions are still evaluated in a round that begins when the time is up.
const LAST_TURN: Duration = Duration::from_millis(5);

/// For how long questions are evaluated before the runtime's other tasks get their turn.
const TURN_MAX: Duration = Duration::from_millis(1);

/// What a request demands of the freshness of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// What is known, within the bound of staleness.
    MinimizeLatency,
    /// Everything up to a moment.
    AtLeastAsFresh(Token),
    /// Everything up to now.
    FullyConsistent,
    /// Nothing older than this.
    MaxAge(Duration),
}

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
}

/// An answer with all that led to it.
#[derive(Debug)]
pub struct Explained {
    /// The answer, as a check gives it.
    pub checked: Checked,
    /// The whole evaluation.
    pub tree: Tree,
    /// The facts that it looked at.
    pub facts: AtHand,
}

/// Why a question has no answer. Never a denial.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckError {
    /// A fact could not be read.
    #[error("the permission could not be checked: {0}")]
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

/// Answers questions from a source.
#[derive(Clone)]
pub struct Checker {
    schema: Arc<Schema>,
    source: Arc<dyn Source>,
    metrics: Arc<Metrics>,
    now: fn() -> Millis,
}

impl Checker {
    /// A checker that goes by the wall clock.
    #[must_use]
    pub fn new(schema: Arc<Schema>, source: Arc<dyn Source>, metrics: Arc<Metrics>) -> Self {
        Self { schema, source, metrics, now: wall_clock }
    }

    /// The schema that it answers by.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Whose time the tokens are that it gives and takes.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.source.clock()
    }

    /// Answers questions, in order. An error is one question's own.
    pub async fn check(
        &self,
        questions: &[Question],
        demand: Demand,
        deadline: Deadline,
    ) -> Vec<Result<Checked, CheckError>> {
        self.check_at(questions, demand, deadline, self.now).await
    }

    /// As [`Checker::check`], by another clock: for tests of schemas, whose documents have dates.
    pub async fn check_at(
        &self,
        questions: &[Question],
        demand: Demand,
        deadline: Deadline,
        now: impl Fn() -> Millis + Send + Sync,
    ) -> Vec<Result<Checked, CheckError>> {
        let started = Instant::now();
        let mut request = match self.begin(demand, deadline).await {
            Ok(request) => request,
            Err(error) => {
                return questions.iter().map(|_| Err(error.clone())).inspect(|result| self.count(result)).collect();
            }
        };
        let mut results: Vec<Option<Result<Checked, CheckError>>> = questions.iter().map(|_| None).collect();
        loop {
            let now = now();
            let mut missing = Missing::default();
            let round = Instant::now();
            let mut turn = round;
            for (question, result) in questions.iter().zip(&mut results).filter(|(_, result)| result.is_none()) {
                if turn.elapsed() > TURN_MAX {
                    tokio::task::yield_now().await;
                    turn = Instant::now();
                }
                // What has just been read may still decide: a moment is left for that.
                if deadline.is_over() && round.elapsed() > LAST_TURN {
                    *result = Some(Err(CheckError::DeadlineExceeded));
                } else if missing.keys.len() < FACTS_MAX {
                    *result = self.try_answer(question, &request, now, &mut missing);
                }
            }
            if results.iter().all(Option::is_some) {
                break;
            }
            request.load(&*self.source, missing).await;
        }
        self.metrics.worked(request.rounds, request.at_hand.count(), started.elapsed());
        let checked = results.into_iter().map(|result| result.unwrap_or(Err(CheckError::DeadlineExceeded)));
        checked.inspect(|result| self.count(result)).collect()
    }

    /// Answers one question, and shows how.
    ///
    /// # Errors
    /// As of a check.
    pub async fn explain(
        &self,
        question: &Question,
        demand: Demand,
        deadline: Deadline,
    ) -> Result<Explained, CheckError> {
        let mut request = self.begin(demand, deadline).await?;
        loop {
            let now = (self.now)();
            let mut missing = Vec::new();
            let tree = explain(&self.schema, question, &request.at_hand, now, &mut missing);
            match request.next(&mut missing) {
                Some(Err(error)) => return Err(error),
                Some(Ok(())) => request.load(&*self.source, missing.into()).await,
                None => {
                    let answer = self.try_answer(question, &request, now, &mut Missing::default());
                    let checked = answer.unwrap_or(Err(CheckError::DeadlineExceeded))?;
                    return Ok(Explained { checked, tree, facts: request.at_hand });
                }
            }
        }
    }

    /// Accepts the demand: finds the moment that all facts must cover.
    async fn begin(&self, demand: Demand, deadline: Deadline) -> Result<Request, CheckError> {
        let clock = self.source.clock();
        if let Demand::AtLeastAsFresh(token) = demand
            && token.clock != clock
        {
            return Err(CheckError::ForeignToken { of: token.clock.as_str(), source_clock: clock.as_str() });
        }
        let since = Instant::now();
        // Nothing is remembered yet, so every answer is fully consistent, whatever is demanded.
        let probe = timeout_at(deadline.instant(), self.source.probe(deadline)).await;
        let at = probe.unwrap_or(Err(SourceError::TimedOut));
        let at =
            at.inspect_err(|error| tracing::warn!(%error, "the source cannot be read")).map_err(
                |error| match error {
                    SourceError::TimedOut if deadline.is_over() => CheckError::DeadlineExceeded,
                    error => CheckError::Unavailable(error),
                },
            )?;
        match demand {
            Demand::AtLeastAsFresh(token) if token.moment > at => Err(CheckError::FutureToken),
            _ => Ok(Request {
                at: Token { clock, moment: at },
                since,
                deadline,
                rounds: 0,
                at_hand: AtHand::new(self.schema.lookup_count()),
                failed: HashMap::new(),
            }),
        }
    }

    /// The answer, if the facts at hand decide it or what is missing cannot be had. Adds what is missing otherwise.
    fn try_answer(
        &self,
        question: &Question,
        request: &Request,
        now: Millis,
        missing: &mut Missing,
    ) -> Option<Result<Checked, CheckError>> {
        let watched =
            Watched { facts: &request.at_hand, newest: Cell::new(request.at.moment), tier: Cell::new(Tier::Memory) };
        let mut wanted = Vec::new();
        match evaluate(&self.schema, question, &watched, now, &mut wanted) {
            Verdict::Decided(answer) => Some(Ok(Checked {
                answer,
                tier: watched.tier.get(),
                as_of: Token { moment: watched.newest.get(), ..request.at },
                age: request.since.elapsed(),
            })),
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

    fn count(&self, result: &Result<Checked, CheckError>) {
        match result {
            Ok(checked) => self.metrics.answered(&checked.answer),
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
    at: Token,
    since: Instant,
    deadline: Deadline,
    rounds: u32,
    at_hand: AtHand,
    failed: HashMap<FactKey, SourceError>,
}

impl Request {
    /// Whether the missing facts are worth a round. Leaves in `wanted` those that can still be had; none of them and no
    /// error: nothing is missing.
    fn next(&self, wanted: &mut Vec<FactKey>) -> Option<Result<(), CheckError>> {
        let first_failure = wanted.iter().find_map(|key| self.failed.get(key)).cloned();
        wanted.retain(|key| !self.failed.contains_key(key));
        if !wanted.is_empty() {
            return Some(match (self.deadline.is_over(), self.at_hand.is_full()) {
                (true, _) => Err(CheckError::DeadlineExceeded),
                (_, true) => Err(CheckError::TooLarge),
                _ => Ok(()),
            });
        }
        first_failure.map(|error| match error {
            SourceError::TimedOut if self.deadline.is_over() => Err(CheckError::DeadlineExceeded),
            SourceError::TooMuch => Err(CheckError::TooLarge),
            error => Err(CheckError::Unavailable(error)),
        })
    }

    async fn load(&mut self, source: &dyn Source, missing: Missing) {
        self.rounds += 1;
        let room = FACTS_MAX.saturating_sub(self.at_hand.facts);
        let mut keys = missing.keys;
        keys.truncate(room);
        tracing::debug!(round = self.rounds, facts = keys.len(), "loading facts");
        let had_failed = !self.failed.is_empty();
        let loaded = timeout_at(self.deadline.instant(), source.load(keys, self.at.moment, self.deadline)).await;
        // Where the time is up, what is still missing fails by that.
        for (key, result) in loaded.unwrap_or_default() {
            match result {
                Ok(loaded) => self.at_hand.insert(key, loaded),
                Err(error) => {
                    self.failed.insert(key, error);
                }
            }
        }
        // Once for each request, however many questions it has.
        if let Some(error) = self.failed.values().next().filter(|_| !had_failed) {
            tracing::warn!(%error, facts = self.failed.len(), "facts could not be read");
        }
    }
}

/// The facts of one request.
#[derive(Debug)]
pub struct AtHand {
    by_lookup: Vec<HashMap<Id, Held, foldhash::fast::RandomState>>,
    facts: usize,
    bytes: usize,
}

/// A fact, and where it came from.
#[derive(Clone, Debug)]
pub struct Held {
    /// The fact.
    pub fact: Arc<Fact>,
    /// The moment that it is true as of.
    pub stamp: Moment,
    /// Who answered for it.
    pub tier: Tier,
}

impl AtHand {
    /// No facts yet, of a schema with so many lookups.
    #[must_use]
    pub fn new(lookups: usize) -> Self {
        Self { by_lookup: (0..lookups).map(|_| HashMap::default()).collect(), facts: 0, bytes: 0 }
    }

    /// A fact, and where it came from.
    #[must_use]
    pub fn held(&self, lookup: LookupId, id: &Id) -> Option<&Held> {
        self.by_lookup.get(lookup.index())?.get(id)
    }

    /// Keeps a fact that was read from the source.
    pub fn insert(&mut self, key: FactKey, loaded: Loaded) {
        let Some(facts) = self.by_lookup.get_mut(key.lookup.index()) else { return };
        self.facts += 1;
        self.bytes += loaded.fact.memory() + size_of::<Held>() + key.id.size();
        facts.insert(key.id, Held { fact: loaded.fact, stamp: loaded.stamp, tier: Tier::Source });
    }

    fn is_full(&self) -> bool {
        self.facts >= FACTS_MAX || self.bytes >= FACT_BYTES_MAX
    }

    fn count(&self) -> u64 {
        u64::try_from(self.facts).unwrap_or(u64::MAX)
    }
}

impl FactsAtHand for AtHand {
    fn get(&self, lookup: LookupId, id: &Id) -> Option<&Fact> {
        self.held(lookup, id).map(|held| &*held.fact)
    }
}

/// The facts of one request, and which of them one evaluation has looked at.
struct Watched<'a> {
    facts: &'a AtHand,
    newest: Cell<Moment>,
    tier: Cell<Tier>,
}

impl FactsAtHand for Watched<'_> {
    fn get(&self, lookup: LookupId, id: &Id) -> Option<&Fact> {
        let held = self.facts.held(lookup, id)?;
        self.newest.set(self.newest.get().max(held.stamp));
        self.tier.set(self.tier.get().max(held.tier));
        Some(&held.fact)
    }
}
