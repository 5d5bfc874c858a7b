//! The Redis channel: change batches and hints over pub/sub, and a bounded log of change batches beside it (docs/freshness.md,
//! point 8).
//!
//! It delivers what another instance with the same secret has signed, and counts and drops everything else. It does not judge
//! what a message means.

mod subscriber;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub(super) use subscriber::{Received, Subscriber};
use tokio::sync::{Notify, watch};

use super::codec;
use crate::{
    freshness::{ChangeBatch, Moment},
    link::{Link, LinkError, Namespace, Unauthentic},
    telemetry::Metrics,
};

/// How long a command may take. The leader waits for its commands; of all requests, only `Invalidate` does.
pub const COMMAND_TIME: Duration = Duration::from_millis(250);

/// How long a page of the log may take.
const PAGE_TIME: Duration = Duration::from_secs(1);

/// How many change batches the log keeps at most, of at most 2 KiB each.
const LOG_LENGTH_MAX: usize = 1_000;

/// How long the log is kept after the last append. An instance that starts later begins without a log.
const LOG_LIFE: Duration = Duration::from_mins(5);

/// How many change batches a page of the log has.
const PAGE: usize = 200;

/// How many pages are read at most. The log that instances write has half as many. A client that is not an instance may
/// have made it longer.
const PAGES_MAX: usize = 2 * LOG_LENGTH_MAX / PAGE;

/// Appends a change batch to the log, unless the log already ends at its moment or later, and publishes it in either case. Ids
/// are passed as strings: Lua's numbers cannot represent moments. A full server runs the script too, as the log is bounded. A
/// key of another type in the log's place is replaced.
const PUBLISH: &str = "#!lua flags=allow-oom
redis.call('PUBLISH', ARGV[5], ARGV[3])
local function append()
    return redis.pcall('XADD', KEYS[1], 'MAXLEN', ARGV[1], ARGV[2], 's', ARGV[3])
end
local added = append()
if type(added) == 'table' and added.err and string.find(added.err, 'WRONGTYPE') then
    redis.call('DEL', KEYS[1])
    added = append()
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if type(added) ~= 'table' or not added.err then
    return 1
elseif string.find(added.err, 'equal or smaller') or string.find(added.err, 'exhausted') then
    return 0
end
return added";

/// Reads entries of the log. Whatever an instance cannot have written, by its fields or its length, is returned as an empty
/// value: so the reply is bounded, whoever has written to the log.
const READ: &str = "#!lua flags=no-writes
local read = redis.call(ARGV[1], KEYS[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4])
local entries = {}
for place, entry in ipairs(read) do
    local fields = entry[2]
    local is_ours = #fields == 2 and #fields[2] <= tonumber(ARGV[5])
    entries[place] = {entry[1], is_ours and fields[2] or ''}
end
return entries";

/// Carries change batches and hints between instances.
#[derive(Debug)]
pub struct RedisChannel {
    link: Link,
    namespace: Namespace,
    metrics: Arc<Metrics>,
    /// Whether this instance has a subscription that it believes to work.
    is_subscribed: AtomicBool,
    /// Asks the subscriber to replace its subscription.
    resubscribe: Notify,
    /// Whether the subscriber may deliver what it receives.
    delivers: watch::Sender<bool>,
    /// The `to` of the last change batch, if the log did not accept it.
    refused: Mutex<Option<Moment>>,
}

/// How the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogEnd {
    /// It is empty, and accepts change batches.
    Empty,
    /// With a change batch that ends at this moment.
    At(Moment),
    /// With something that no instance has written, or it refuses change batches that are later than its end: somebody else
    /// has written to it.
    Forged,
}

/// What happened to a published change batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is in the log.
    Logged,
    /// The log already ended at the batch's moment or later: only current subscribers received it.
    AlreadyPast,
}

impl RedisChannel {
    /// A channel without a subscriber.
    #[must_use]
    pub fn new(link: Link, namespace: Namespace, metrics: Arc<Metrics>) -> Self {
        Unauthentic::show_all(&metrics);
        Self {
            link,
            namespace,
            metrics,
            is_subscribed: AtomicBool::new(false),
            resubscribe: Notify::new(),
            delivers: watch::Sender::new(false),
            refused: Mutex::default(),
        }
    }

    /// Whether this instance has a subscription that it believes to work.
    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed.load(Ordering::Acquire)
    }

    /// Waits until the link is up.
    pub(super) async fn until_up(&self) {
        let mut up = self.link.watch();
        drop(up.wait_for(|up| *up).await);
    }

    /// Appends a change batch to the log, and publishes it to all subscribers.
    pub(super) async fn publish(&self, batch: ChangeBatch) -> Result<Published, LinkError> {
        let Namespace { names, codes } = &self.namespace;
        let (mut published, end) = (Published::AlreadyPast, batch.to);
        for (to, bytes) in codec::pieces(batch) {
            let mut command = redis::cmd("EVAL");
            command.arg(PUBLISH).arg(1).arg(&names.log);
            command.arg(LOG_LENGTH_MAX).arg(entry_id(to)).arg(codes.change_batches.sign(b"", &bytes));
            command.arg(u64::try_from(LOG_LIFE.as_millis()).unwrap_or(u64::MAX)).arg(&names.change_batches);
            // A piece of early changes alone ends where the piece before it does, so it is published and not logged.
            if self.link.query::<u8>(&command, COMMAND_TIME).await? == 1 {
                published = Published::Logged;
            }
        }
        *self.refused() = (published == Published::AlreadyPast).then_some(end);
        Ok(published)
    }

    /// Publishes a hint to all subscribers.
    pub(super) async fn publish_hint(&self, hint: &[u8]) -> Result<(), LinkError> {
        let mut command = redis::cmd("PUBLISH");
        let Namespace { names, codes } = &self.namespace;
        command.arg(&names.hints).arg(codes.hints.sign(b"", hint));
        self.link.query::<()>(&command, COMMAND_TIME).await
    }

    /// The whole log.
    pub(super) fn log(&self) -> Pages<'_> {
        self.log_after(Moment::default())
    }

    /// The part of the log that ends later than `after`.
    pub(super) fn log_after(&self, after: Moment) -> Pages<'_> {
        Pages { channel: self, after: Some(entry_id(after)), left: PAGES_MAX }
    }

    /// How the log ends.
    pub(super) async fn log_end(&self) -> Result<LogEnd, LinkError> {
        let last = self.read_log(["XREVRANGE", "+", "-"], 1, COMMAND_TIME).await?;
        // The log only refuses change batches that are not later than its end.
        let refused = *self.refused();
        Ok(match last.first() {
            Some(entry) => match self.open_entry(entry).map(|batch| batch.to) {
                Some(end) if refused.is_none_or(|refused| refused <= end) => LogEnd::At(end),
                Some(_) | None => LogEnd::Forged,
            },
            None if refused.is_none() => LogEnd::Empty,
            None => LogEnd::Forged,
        })
    }

    /// Reads up to `count` entries: `range` is the command, and the ids between which it reads.
    async fn read_log(&self, range: [&str; 3], count: usize, time: Duration) -> Result<Vec<Entry>, LinkError> {
        let mut command = redis::cmd("EVAL");
        command.arg(READ).arg(1).arg(&self.namespace.names.log).arg(&range).arg(count).arg(codec::SIGNED_BYTES_MAX);
        self.link.query(&command, time).await
    }

    /// The change batch of an entry. An entry that no instance has written there is counted.
    fn open_entry(&self, (id, signed): &Entry) -> Option<ChangeBatch> {
        let content = self.namespace.codes.change_batches.open(b"", signed);
        // A change batch that another client has copied to another place is not in the log's order.
        let batch = content.and_then(codec::decode).filter(|batch| entry_id(batch.to) == *id);
        if batch.is_none() {
            Unauthentic::LogEntry.report(&self.metrics);
        }
        batch
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Option<Moment>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the log.
    pub(super) async fn remove_log(&self) -> Result<(), LinkError> {
        self.link.query::<()>(redis::cmd("DEL").arg(&self.namespace.names.log), COMMAND_TIME).await?;
        *self.refused() = None;
        Ok(())
    }

    /// Lets the subscriber deliver what it receives from now on.
    pub(super) fn start_delivery(&self) {
        self.delivers.send_replace(true);
    }

    /// Replaces the subscription, which seems to receive nothing.
    pub(super) fn resubscribe(&self) {
        self.resubscribe.notify_one();
    }

    /// The subscriber of this instance. It replaces a subscription that receives nothing for `silence_max`.
    pub(super) fn subscriber(&self, silence_max: Duration) -> Subscriber<'_> {
        Subscriber::new(self, silence_max)
    }
}

/// An entry of the log: the id, and a signed change batch.
type Entry = (String, Vec<u8>);

/// The log, page by page.
pub(super) struct Pages<'a> {
    channel: &'a RedisChannel,
    /// The id of the last entry that was read; none at the end.
    after: Option<String>,
    /// How many more pages are read at most.
    left: usize,
}

impl Pages<'_> {
    /// The next change batches, in order; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<ChangeBatch>>, LinkError> {
        let Some(after) = self.after.take() else { return Ok(None) };
        let page = self.channel.read_log(["XRANGE", &format!("({after}"), "+"], PAGE, PAGE_TIME).await?;
        self.left = self.left.saturating_sub(1);
        if page.len() == PAGE && self.left > 0 {
            self.after = page.last().map(|(id, _)| id.clone());
        }
        // What no instance has written is as if it were absent: the change batches around it do not follow one another.
        Ok(Some(page.iter().filter_map(|entry| self.channel.open_entry(entry)).collect()))
    }
}

/// The id of the log's entry whose batch ends at `to`.
fn entry_id(to: Moment) -> String {
    format!("{}-{}", to.seconds(), to.increment())
}
