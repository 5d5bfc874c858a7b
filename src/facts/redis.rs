//! L2: facts in Redis, which all instances share. A plain store: one script for up to 1,000 facts that a load lacks (in a
//! cluster, one command for each: `cluster`), and one `SET` with an expiry for each fact that was read from the source
//! (docs/freshness.md, point 10).
//!
//! It does not know whether a fact still counts. It trusts no value in Redis: a value is a miss unless its code shows that an
//! instance with the same secret wrote it under this key. No request waits for a write. Where Redis is down, slow or full, this tier is skipped.

mod cluster;
mod write_budget;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use redis::{Cmd, FromRedisValue};
use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument as _;
use writer::QueuedFact;
pub use writer::RedisWriter;

use super::codec;
use crate::{
    diagnosis::error_chain,
    fact::{Fact, FactKey},
    link::{CODE_BYTES, Link, LinkError, Namespace, Unauthentic},
    schema::Schema,
    telemetry::{Metrics, SPANS},
};

/// How long a request waits for Redis at most. When Redis takes longer, the link goes down, and later requests do not wait.
pub const ANSWER_TIME: Duration = Duration::from_millis(50);

/// The most keys of one script: Redis does nothing else while one runs. Then it takes about 0.3 ms.
const KEYS_MAX: usize = 1_000;

/// The most bytes of values that are read at once, unless [`CHUNK_BYTES_MIN`] permits more. Further ones are misses.
const READ_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// The most bytes of values that one script returns, at least: several times as many as a thousand facts usually have.
const CHUNK_BYTES_MIN: usize = 512 * 1_024;

/// Reads the values of some keys. Whatever an instance cannot have written, by its length, is returned as an empty value. After as
/// many bytes as are permitted in all, values are not returned. So the reply is bounded, whoever has written the values.
const READ: &str = "#!lua flags=no-writes
local values, value_max, left = redis.call('MGET', unpack(KEYS)), tonumber(ARGV[1]), tonumber(ARGV[2])
for place, value in ipairs(values) do
    if value and #value > value_max then
        values[place] = ''
    elseif value and #value > left then
        values[place] = false
    elseif value then
        left = left - #value
    end
end
return values";

/// The remedy if Redis refuses what this tier sends to it.
const REFUSED_REMEDY: &str = "grant its user `+eval +mget +getrange +set +info ~pc:*`";

/// The most bytes of a value.
const VALUE_BYTES_MAX: usize = codec::BYTES_MAX + CODE_BYTES;

/// The most bytes of facts in the queue of those to be written, by their size in memory.
const QUEUE_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// The facts in Redis. Facts to be stored go through a queue to a [`RedisWriter`].
#[derive(Debug)]
pub struct SharedFacts {
    link: Link,
    namespace: Namespace,
    schema: Arc<Schema>,
    metrics: Arc<Metrics>,
    /// Bounded by `queue_bytes`: a queued fact has one permit for each of its bytes.
    queue: mpsc::UnboundedSender<QueuedFact>,
    queue_bytes: Arc<Semaphore>,
    is_refusal_logged: AtomicBool,
}

/// Why a fact was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unwritten {
    /// The queue was full.
    QueueFull,
    /// Its value takes more than [`codec::BYTES_MAX`].
    TooLarge,
    /// The link is down.
    Down,
    /// The write budget does not cover the fact. The server's last report allowed nothing, because Redis is three quarters
    /// full or does not report its memory; or what it allowed is used up, or less than the fact takes.
    OverBudget,
    /// Redis has refused a command a short while ago.
    Paused,
    /// Redis has no memory left.
    OutOfMemory,
    /// Redis refused the command for another reason: in most cases, the user lacks a right.
    Refused,
    /// Redis did not answer in time, or the command failed.
    Failed,
}

impl Unwritten {
    /// Every reason.
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
    /// The facts of a schema, reached by a link and stored in this namespace, and their writer, which its caller must run.
    #[must_use]
    pub fn new(
        link: Link,
        namespace: Namespace,
        schema: Arc<Schema>,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, RedisWriter) {
        for reason in Unwritten::ALL {
            metrics.may_leave_unwritten(reason.as_str());
        }
        Unauthentic::show_all(&metrics);
        let (queue, queued) = mpsc::unbounded_channel();
        let queue_bytes = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        let is_refusal_logged = AtomicBool::new(false);
        let shared = Arc::new(Self { link, namespace, schema, metrics, queue, queue_bytes, is_refusal_logged });
        let writer = RedisWriter::new(&shared, queued);
        (shared, writer)
    }

    /// Whether the link to Redis is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// The facts of these keys that Redis has; none if it does not answer within [`ANSWER_TIME`]. A cluster may take that time
    /// twice. They may be outdated.
    pub async fn get(&self, keys: &[FactKey]) -> Vec<Fact> {
        let chunks = keys.chunks(KEYS_MAX);
        let bytes_max = (READ_BYTES_MAX / chunks.len().max(1)).max(CHUNK_BYTES_MIN);
        join_all(chunks.map(|keys| self.get_chunk(keys, bytes_max))).await.into_iter().flatten().collect()
    }

    async fn get_chunk(&self, keys: &[FactKey], bytes_max: usize) -> Vec<Fact> {
        let span = tracing::trace_span!(target: SPANS, "redis read", otel.kind = "client", db.system = "redis", facts = keys.len());
        let names: Vec<Vec<u8>> = keys.iter().map(|key| self.namespace.names.fact(key)).collect();
        // In a cluster a script sees only the keys of one slot.
        let values = if self.link.is_cluster() {
            self.values_of_cluster(&names, bytes_max).instrument(span).await
        } else {
            let mut command = redis::cmd("EVAL");
            command.arg(READ).arg(names.len()).arg(&names).arg(VALUE_BYTES_MAX).arg(bytes_max);
            self.read(&command).instrument(span).await.unwrap_or_default()
        };
        let found = keys.iter().zip(&names).zip(values);
        found.filter_map(|((key, name), value)| self.open(key, name, &value?)).collect()
    }

    /// Runs a command that reads. Returns none if it fails.
    async fn read<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let read = self.link.query(command, ANSWER_TIME).await;
        read.inspect_err(|error| self.report_refusal(error)).ok()
    }

    /// Logs, once, that Redis refuses to be read.
    fn report_refusal(&self, error: &LinkError) {
        if matches!(error, LinkError::Refused(_)) && !self.is_refusal_logged.swap(true, Ordering::Relaxed) {
            let error = error_chain(error);
            tracing::warn!(%error, remedy = REFUSED_REMEDY, "Redis refuses to be read: no facts are read from it");
        }
    }

    /// The fact of a key, from the value under its name. A value that no instance with the same secret has written there is
    /// counted, and is not decoded.
    fn open(&self, key: &FactKey, name: &[u8], value: &[u8]) -> Option<Fact> {
        // A longer value was not written by an instance, whatever its code.
        let signed = Some(value).filter(|value| value.len() <= VALUE_BYTES_MAX);
        let Some(content) = signed.and_then(|signed| self.namespace.codes.facts.open(name, signed)) else {
            Unauthentic::Fact.report(&self.metrics);
            return None;
        };
        codec::decode(&self.schema, key.clone(), content)
    }

    /// Queues a fact that was read from the source to be written, unless the queue is full.
    pub fn put(&self, fact: &Fact) {
        let permits = u32::try_from(fact.memory()).unwrap_or(u32::MAX);
        match Arc::clone(&self.queue_bytes).try_acquire_many_owned(permits) {
            Ok(bytes) => {
                let _writer_is_gone = self.queue.send(QueuedFact { fact: fact.clone(), _bytes: bytes });
            }
            Err(_) => self.metrics.unwritten(Unwritten::QueueFull.as_str()),
        }
    }
}
