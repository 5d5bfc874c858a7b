//! The writing of facts to Redis, in the background: as much at once as Redis has room for, and no more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use redis::{Cmd, Value};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    SharedFacts, Unwritten,
    write_budget::{ALLOWANCE_BYTES_MAX, WriteBudget},
};
use crate::{
    diagnosis::error_chain,
    fact::{Fact, FactKey},
    facts::codec,
    link::{Link, LinkError, Names},
    schema::Schema,
    telemetry::Metrics,
};

/// How long a fact is kept, in seconds.
const LIFE_SECONDS: u64 = 3_600;

/// How long it is kept that there is no document, in seconds: anybody can ask for what is not there.
const ABSENT_LIFE_SECONDS: u64 = 60;

/// How many facts are written at once.
const BATCH_MAX: usize = 256;

/// How long Redis may take for a write. Nobody waits for it.
const WRITE_TIME: Duration = Duration::from_secs(1);

/// What a fact takes in Redis besides its key and its value, in bytes: rather too much.
const OVERHEAD_BYTES: u64 = 150;

/// A fact that waits to be written, and its part of the room for such.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) fact: Fact,
    pub(super) _room: OwnedSemaphorePermit,
}

/// Writes facts.
#[derive(Debug)]
pub struct RedisWriter {
    link: Link,
    names: Names,
    schema: Arc<Schema>,
    metrics: Arc<Metrics>,
    queue: mpsc::UnboundedReceiver<Waiting>,
    budget: WriteBudget,
    /// What has been said in the log.
    told: Vec<Unwritten>,
}

/// A fact as Redis takes it.
struct Write {
    command: Cmd,
    bytes: u64,
}

impl RedisWriter {
    pub(super) fn new(shared: &SharedFacts, queue: mpsc::UnboundedReceiver<Waiting>) -> Self {
        let SharedFacts { link, names, schema, metrics, .. } = shared;
        Self {
            link: link.clone(),
            names: names.clone(),
            schema: Arc::clone(schema),
            metrics: Arc::clone(metrics),
            queue,
            budget: WriteBudget::default(),
            told: Vec::new(),
        }
    }

    /// Writes what there is to write for as long as anybody could have something to write.
    pub async fn run(mut self) {
        let mut waiting = Vec::with_capacity(BATCH_MAX);
        while self.queue.recv_many(&mut waiting, BATCH_MAX).await > 0 {
            let mut writes = Vec::new();
            let mut bytes = 0;
            for Waiting { fact, .. } in waiting.drain(..) {
                let Some(write) = self.write_of(&fact) else {
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

    fn write_of(&self, fact: &Fact) -> Option<Write> {
        let key = self.names.fact(&FactKey { lookup: fact.lookup(), id: fact.id().clone() });
        let value = codec::encode(&self.schema, fact)?;
        let bytes = u64::try_from(key.len() + value.len()).ok()? + OVERHEAD_BYTES;
        let life = if fact.is_absent() { ABSENT_LIFE_SECONDS } else { LIFE_SECONDS };
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("EX").arg(life);
        Some(Write { command, bytes })
    }

    /// Writes those for which there is room. Each is a command of its own: in a cluster they go to different nodes.
    async fn write(&mut self, mut writes: Vec<Write>, bytes: u64) {
        let reason = match self.refresh_budget(bytes).await {
            Ok(()) => Unwritten::OverBudget,
            Err(reason) => reason,
        };
        let all = writes.len();
        writes.retain(|write| self.budget.take(write.bytes));
        for _ in writes.len()..all {
            self.unwritten(reason);
        }
        let setting = writes.iter().map(|write| self.link.query::<()>(&write.command, WRITE_TIME));
        for written in join_all(setting).await {
            match written {
                Ok(()) => self.metrics.written(),
                Err(error) => self.failed(&error),
            }
        }
    }

    /// Finds out how much room there is, where that is not known.
    async fn refresh_budget(&mut self, bytes: u64) -> Result<(), Unwritten> {
        let now = Instant::now();
        if self.budget.is_paused(now) {
            return Err(Unwritten::Paused);
        }
        if !self.link.is_up() {
            self.budget.forget();
            return Err(Unwritten::Down);
        }
        if self.budget.has_to_be_asked(bytes, now) {
            let mut command = redis::cmd("INFO");
            command.arg("memory");
            match self.link.query::<Value>(&command, WRITE_TIME).await {
                Ok(value) => self.budget.answer(texts(&value), Instant::now()),
                Err(error) => {
                    self.budget.forget();
                    let reason = Unwritten::of(&error);
                    self.heed(reason, &error);
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, error: &LinkError) {
        let reason = Unwritten::of(error);
        self.heed(reason, error);
        self.unwritten(reason);
    }

    /// Stops for a while where Redis refuses.
    fn heed(&mut self, reason: Unwritten, error: &LinkError) {
        let (what, remedy) = match reason {
            Unwritten::OutOfMemory => (
                "Redis is full: no facts are written for a while",
                "raise its `maxmemory`, or give the facts a Redis of their own",
            ),
            Unwritten::Refused => {
                ("Redis refuses: no facts are written for a while", "grant its user `+mget +set +info ~pc:*`")
            }
            _ => return,
        };
        self.budget.pause(Instant::now());
        // What this instance is connected to is a master no more.
        if error.is_read_only() {
            self.link.renew();
        }
        if self.is_first(reason) {
            tracing::warn!(error = %error_chain(error), remedy, "{what}");
        }
    }

    fn unwritten(&mut self, reason: Unwritten) {
        self.metrics.unwritten(reason.as_str());
        if reason == Unwritten::OverBudget && self.is_first(reason) {
            let remedy = "raise its `maxmemory`, or give the facts a Redis of their own";
            tracing::warn!(remedy, "Redis is three quarters full: no facts are written until there is room");
        }
    }

    /// Whether it was not told yet.
    fn is_first(&mut self, reason: Unwritten) -> bool {
        let is_first = !self.told.contains(&reason);
        if is_first {
            self.told.push(reason);
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

/// What a server says, or each node of a cluster.
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
    fn a_server_says_one_text_and_a_cluster_one_of_each_node() {
        let text = |text: &str| Value::BulkString(text.into());
        assert_eq!(texts(&text("a")), ["a"]);
        assert_eq!(texts(&Value::Map(vec![(text("n1"), text("a")), (text("n2"), text("b"))])), ["a", "b"]);
        assert!(texts(&Value::Nil).is_empty());
    }
}
