//! The Redis writer: writes facts to Redis in the background, as many as the write budget allows.
//!
//! No request waits for it. It reads nothing back, and does not know whether a fact still counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use redis::{Cmd, Value};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    SharedFacts, Unwritten,
    write_budget::{ALLOWANCE_BYTES_MAX, Denial, WriteBudget},
};
use crate::{
    diagnosis::error_chain,
    fact::Fact,
    facts::codec,
    link::{Link, LinkError, Namespace},
    schema::Schema,
    telemetry::Metrics,
};

/// How long Redis keeps a fact, in seconds.
const LIFE_SECONDS: u64 = 3_600;

/// How long Redis keeps a fact without documents, in seconds. Callers can ask for any number of ids that do not exist.
const ABSENT_LIFE_SECONDS: u64 = 60;

/// How many facts are taken from the queue at once.
const BATCH_MAX: usize = 256;

/// How long Redis may take for a command. No request waits for it.
const WRITE_TIME: Duration = Duration::from_secs(1);

/// What Redis uses for a fact besides its key and its value, in bytes: a generous estimate.
const OVERHEAD_BYTES: u64 = 150;

/// A fact in the queue of those to be written. It keeps its part of the queue's bytes until it is dropped.
#[derive(Debug)]
pub(super) struct QueuedFact {
    pub(super) fact: Fact,
    pub(super) _bytes: OwnedSemaphorePermit,
}

/// Writes the queued facts of a [`SharedFacts`].
#[derive(Debug)]
pub struct RedisWriter {
    link: Link,
    namespace: Namespace,
    schema: Arc<Schema>,
    metrics: Arc<Metrics>,
    queue: mpsc::UnboundedReceiver<QueuedFact>,
    budget: WriteBudget,
    /// The messages that have been logged: each is logged once.
    logged: Vec<&'static str>,
}

/// A `SET` command, and how many bytes of Redis's memory the fact will take.
struct Write {
    command: Cmd,
    bytes: u64,
}

impl RedisWriter {
    pub(super) fn new(shared: &SharedFacts, queue: mpsc::UnboundedReceiver<QueuedFact>) -> Self {
        let SharedFacts { link, namespace, schema, metrics, .. } = shared;
        Self {
            link: link.clone(),
            namespace: namespace.clone(),
            schema: Arc::clone(schema),
            metrics: Arc::clone(metrics),
            queue,
            budget: WriteBudget::default(),
            logged: Vec::new(),
        }
    }

    /// Writes queued facts until the [`SharedFacts`] is dropped.
    pub async fn run(mut self) {
        let mut queued = Vec::with_capacity(BATCH_MAX);
        while self.queue.recv_many(&mut queued, BATCH_MAX).await > 0 {
            let mut writes = Vec::new();
            let mut bytes = 0;
            for QueuedFact { fact, .. } in queued.drain(..) {
                let Some(write) = self.prepare(&fact) else {
                    self.metrics.unwritten(Unwritten::TooLarge.as_str());
                    continue;
                };
                if bytes + write.bytes > ALLOWANCE_BYTES_MAX {
                    self.write(std::mem::take(&mut writes), bytes).await;
                    bytes = 0;
                }
                bytes += write.bytes;
                writes.push(write);
            }
            self.write(writes, bytes).await;
        }
    }

    /// The command that writes a fact; none if the fact takes too many bytes.
    fn prepare(&self, fact: &Fact) -> Option<Write> {
        let Namespace { names, codes } = &self.namespace;
        let key = names.fact(&fact.key());
        let value = codes.facts.sign(&key, &codec::encode(&self.schema, fact)?);
        let bytes = u64::try_from(key.len() + value.len()).ok()? + OVERHEAD_BYTES;
        let life = if fact.is_absent() { ABSENT_LIFE_SECONDS } else { LIFE_SECONDS };
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("EX").arg(life);
        Some(Write { command, bytes })
    }

    /// Writes as many facts as the budget allows. Each is a command of its own, as in a cluster they belong to different
    /// nodes.
    async fn write(&mut self, mut writes: Vec<Write>, bytes: u64) {
        let reason = match self.refresh_budget(bytes).await {
            Ok(()) => Unwritten::OverBudget,
            Err(reason) => reason,
        };
        let all = writes.len();
        writes.retain(|write| self.budget.try_take(write.bytes));
        for _ in writes.len()..all {
            self.record_unwritten(reason);
        }
        let sets = writes.iter().map(|write| self.link.query::<()>(&write.command, WRITE_TIME));
        for result in join_all(sets).await {
            match result {
                Ok(()) => self.metrics.written(),
                Err(error) => {
                    let reason = self.record_error(&error);
                    self.record_unwritten(reason);
                }
            }
        }
    }

    /// Asks the server for a report of its memory, if the budget does not cover this many bytes without one.
    async fn refresh_budget(&mut self, bytes: u64) -> Result<(), Unwritten> {
        let now = Instant::now();
        if self.budget.is_paused(now) {
            return Err(Unwritten::Paused);
        }
        if !self.link.is_up() {
            self.budget.clear();
            return Err(Unwritten::Down);
        }
        if self.budget.must_ask(bytes, now) {
            let mut command = redis::cmd("INFO");
            command.arg("memory");
            match self.link.query::<Value>(&command, WRITE_TIME).await {
                Ok(value) => self.budget.record_report(texts(&value), Instant::now()),
                Err(error) => {
                    self.budget.clear();
                    return Err(self.record_error(&error));
                }
            }
        }
        Ok(())
    }

    /// Pauses if Redis has refused a command, and logs that the first time. Returns the reason that the error amounts to.
    fn record_error(&mut self, error: &LinkError) -> Unwritten {
        let reason = Unwritten::of(error);
        let (message, remedy) = match reason {
            Unwritten::OutOfMemory => (
                "Redis is full: no facts are written for a while",
                "raise its `maxmemory`, or give the facts a Redis of their own",
            ),
            Unwritten::Refused => ("Redis refuses commands: no facts are written for a while", super::REFUSED_REMEDY),
            Unwritten::QueueFull
            | Unwritten::TooLarge
            | Unwritten::Down
            | Unwritten::OverBudget
            | Unwritten::Paused
            | Unwritten::Failed => return reason,
        };
        self.budget.pause(Instant::now());
        // A server that accepts no writes is no longer a master. A new connection finds the current one.
        if error.is_read_only() {
            self.link.renew();
        }
        if self.is_first(message) {
            tracing::warn!(error = %error_chain(error), remedy, "{message}");
        }
        reason
    }

    /// Counts a fact that was not written. Logs the first time that this is because a report allowed nothing. A report whose
    /// allowance is used up or too small is not logged: the next one follows at once.
    fn record_unwritten(&mut self, reason: Unwritten) {
        self.metrics.unwritten(reason.as_str());
        if reason != Unwritten::OverBudget {
            return;
        }
        let (message, remedy) = match self.budget.denial() {
            Some(Denial::Full) => (
                "Redis is three quarters full: no facts are written until memory is free again",
                "raise its `maxmemory`, or give the facts a Redis of their own",
            ),
            Some(Denial::Unreported) => (
                "Redis does not report its memory: no facts are written",
                "let `INFO memory` report `used_memory` and `maxmemory`",
            ),
            None => return,
        };
        if self.is_first(message) {
            tracing::warn!(remedy, "{message}");
        }
    }

    /// Whether this message has not been logged yet. From then on it counts as logged.
    fn is_first(&mut self, message: &'static str) -> bool {
        let is_first = !self.logged.contains(&message);
        if is_first {
            self.logged.push(message);
        }
        is_first
    }
}

impl Unwritten {
    fn of(error: &LinkError) -> Self {
        match error {
            LinkError::Down => Self::Down,
            LinkError::Refused(_) if error.is_out_of_memory() => Self::OutOfMemory,
            LinkError::Refused(_) => Self::Refused,
            LinkError::TimedOut | LinkError::Failed(_) => Self::Failed,
        }
    }
}

/// The texts of a reply: one from a single server, one for each node from a cluster.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).into_iter().collect(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => vec![text],
        Value::Map(nodes) => nodes.iter().flat_map(|(_, text)| texts(text)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_replies_with_one_text_and_a_cluster_with_one_for_each_node() {
        let text = |text: &str| Value::BulkString(text.into());
        assert_eq!(texts(&text("a")), ["a"]);
        assert_eq!(texts(&Value::Map(vec![(text("n1"), text("a")), (text("n2"), text("b"))])), ["a", "b"]);
        assert!(texts(&Value::Nil).is_empty());
    }
}
