//! L2: facts that all instances share, in Redis. A plain store: one `MGET` for all that a round lacks, and a `SET` with a
//! life for each fact that was read from the source (design section 5, point 10).
//!
//! Nothing here knows whether a fact still counts, and nothing that Redis says is believed further than that it could be a
//! fact. No request waits for a write; and where Redis is down, slow or full, this does nothing at all.

mod writer;
mod write_budget;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument as _;
pub use writer::RedisWriter;
use writer::Waiting;

use super::codec;
use crate::{
    diagnosis::error_chain,
    fact::{Fact, FactKey},
    link::{Link, LinkError, Names},
    schema::Schema,
    telemetry::{Metrics, SPANS},
};

/// What a request loses at most when Redis stops to answer. From then on the link is down, and nobody waits for it.
pub const ANSWER_TIME: Duration = Duration::from_millis(50);

/// How many keys one `MGET` has at most.
const KEYS_MAX: usize = 20_000;

/// How many bytes of facts wait to be written at most, as they are in memory.
const QUEUE_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// Facts in Redis.
#[derive(Debug)]
pub struct SharedFacts {
    link: Link,
    names: Names,
    schema: Arc<Schema>,
    metrics: Arc<Metrics>,
    /// Bounded by the bytes that may wait, each of which takes a permit of `write_budget`.
    queue: mpsc::UnboundedSender<Waiting>,
    write_budget: Arc<Semaphore>,
    is_refusal_told: AtomicBool,
}

/// Why a fact was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unwritten {
    /// Too many others waited.
    QueueFull,
    /// It takes more than [`codec::BYTES_MAX`].
    TooLarge,
    /// The link is down.
    Down,
    /// Redis is three quarters full.
    OverBudget,
    /// Redis has just refused others.
    Paused,
    /// Redis has no memory left.
    OutOfMemory,
    /// Redis refuses otherwise: mostly, as the user lacks a right.
    Refused,
    /// Redis failed.
    Failed,
}

impl Unwritten {
    /// Each of them.
    const ALL: [Self; 8] = [
        Self::QueueFull,
        Self::TooLarge,
        Self::Down,
        Self::OverBudget,
        Self::Paused,
        Self::OutOfMemory,
        Self::Refused,
        Self::Failed,
    ];

    /// The name in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::Down => "down",
            Self::OverBudget => "over_budget",
            Self::Paused => "paused",
            Self::OutOfMemory => "out_of_memory",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl SharedFacts {
    /// Facts of a schema, over a link, under these names; and what writes them, which has to be run.
    #[must_use]
    pub fn new(link: Link, names: Names, schema: Arc<Schema>, metrics: Arc<Metrics>) -> (Arc<Self>, RedisWriter) {
        for reason in Unwritten::ALL {
            metrics.may_leave_unwritten(reason.as_str());
        }
        let (queue, waiting) = mpsc::unbounded_channel();
        let write_budget = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        let is_refusal_told = AtomicBool::new(false);
        let shared = Arc::new(Self { link, names, schema, metrics, queue, write_budget, is_refusal_told });
        let writer = RedisWriter::new(&shared, waiting);
        (shared, writer)
    }

    /// Whether there is any use in asking.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Those of the facts that Redis has, within [`ANSWER_TIME`]: none where it does not answer. Whether they count is not
    /// known.
    pub async fn get(&self, keys: &[FactKey]) -> Vec<Fact> {
        join_all(keys.chunks(KEYS_MAX).map(|keys| self.get_some(keys))).await.into_iter().flatten().collect()
    }

    async fn get_some(&self, keys: &[FactKey]) -> Vec<Fact> {
        let span = tracing::trace_span!(target: SPANS, "redis MGET", otel.kind = "client", db.system = "redis", facts = keys.len());
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(self.names.fact(key));
        }
        match self.link.query::<Vec<Option<Vec<u8>>>>(&command, ANSWER_TIME).instrument(span).await {
            Ok(values) => {
                let found = keys.iter().zip(values).filter_map(|(key, value)| Some((key, value?)));
                found.filter_map(|(key, value)| codec::decode(&self.schema, key.clone(), &value)).collect()
            }
            Err(error) => {
                if matches!(error, LinkError::Refused(_)) && !self.is_refusal_told.swap(true, Ordering::Relaxed) {
                    let remedy = "grant its user `+mget +set +info ~pc:*`";
                    tracing::warn!(error = %error_chain(&error), remedy, "no facts can be read from Redis");
                }
                Vec::new()
            }
        }
    }

    /// Has a fact that was read from the source be written, if there is room among those that wait.
    pub fn put(&self, fact: &Fact) {
        let permits = u32::try_from(fact.memory()).unwrap_or(u32::MAX);
        match Arc::clone(&self.write_budget).try_acquire_many_owned(permits) {
            Ok(write_budget) => {
                let _nobody_writes = self.queue.send(Waiting { fact: fact.clone(), _room: write_budget });
            }
            Err(_) => self.metrics.unwritten(Unwritten::QueueFull.as_str()),
        }
    }
}
