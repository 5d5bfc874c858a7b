//! The Redis channel: change batches and hints over pub/sub, and a bounded log of change batches beside it (docs/freshness.md,
//! point 8).
//!
//! Judges no message: it delivers whatever can be decoded.

mod subscriber;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

pub(super) use subscriber::{Received, Subscriber};
use tokio::sync::{Notify, watch};

use super::codec;
use crate::{
    freshness::{ChangeBatch, Moment},
    link::{Link, LinkError, Names},
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

/// Appends a change batch to the log, unless the log already ends at its moment or later, and publishes it in either case. Ids
/// are passed as strings: Lua's numbers cannot represent moments. A full server runs the script too, as the log is bounded.
const PUBLISH: &str = "#!lua flags=allow-oom
local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', ARGV[1], ARGV[2], 's', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[3])
if type(added) ~= 'table' or not added.err then
    return 1
elseif string.find(added.err, 'equal or smaller') then
    return 0
end
return added";

/// Carries change batches and hints between instances.
#[derive(Debug)]
pub struct RedisChannel {
    link: Link,
    names: Names,
    /// Whether this instance has a subscription that it believes to work.
    is_subscribed: AtomicBool,
    /// Asks the subscriber to replace its subscription.
    resubscribe: Notify,
    /// Whether the subscriber may deliver what it receives.
    delivers: watch::Sender<bool>,
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
    pub fn new(link: Link, names: Names) -> Self {
        Self {
            link,
            names,
            is_subscribed: AtomicBool::new(false),
            resubscribe: Notify::new(),
            delivers: watch::Sender::new(false),
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
        let mut published = Published::AlreadyPast;
        for (to, bytes) in codec::pieces(batch) {
            let mut command = redis::cmd("EVAL");
            command.arg(PUBLISH).arg(1).arg(&self.names.log);
            command.arg(LOG_LENGTH_MAX).arg(entry_id(to)).arg(bytes);
            command.arg(u64::try_from(LOG_LIFE.as_millis()).unwrap_or(u64::MAX)).arg(&self.names.change_batches);
            // A piece of early changes alone ends where the piece before it does, so it is published and not logged.
            if self.link.query::<u8>(&command, COMMAND_TIME).await? == 1 {
                published = Published::Logged;
            }
        }
        Ok(published)
    }

    /// Publishes a hint to all subscribers.
    pub(super) async fn publish_hint(&self, hint: Vec<u8>) -> Result<(), LinkError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.names.hints).arg(hint);
        self.link.query::<()>(&command, COMMAND_TIME).await
    }

    /// The whole log.
    pub(super) fn log(&self) -> Pages<'_> {
        self.log_after(Moment::default())
    }

    /// The part of the log that ends later than `after`.
    pub(super) fn log_after(&self, after: Moment) -> Pages<'_> {
        Pages { channel: self, after: Some(entry_id(after)) }
    }

    /// The moment at which the log ends; none if it is empty.
    pub(super) async fn log_end(&self) -> Result<Option<Moment>, LinkError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&self.names.log).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Entries = self.link.query(&command, COMMAND_TIME).await?;
        Ok(last.first().and_then(|(_, (_, bytes))| codec::decode(bytes)).map(|batch| batch.to))
    }

    /// Removes the log.
    pub(super) async fn remove_log(&self) -> Result<(), LinkError> {
        self.link.query::<()>(redis::cmd("DEL").arg(&self.names.log), COMMAND_TIME).await
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

/// Entries of the log: the id, the name of the only field, and a change batch.
type Entries = Vec<(String, (String, Vec<u8>))>;

/// The log, page by page.
pub(super) struct Pages<'a> {
    channel: &'a RedisChannel,
    /// The id of the last entry that was read; none at the end.
    after: Option<String>,
}

impl Pages<'_> {
    /// The next change batches, in order; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<ChangeBatch>>, LinkError> {
        let Some(after) = self.after.take() else { return Ok(None) };
        let mut command = redis::cmd("XRANGE");
        command.arg(&self.channel.names.log).arg(format!("({after}")).arg("+").arg("COUNT").arg(PAGE);
        let page: Entries = self.channel.link.query(&command, PAGE_TIME).await?;
        if page.len() == PAGE {
            self.after = page.last().map(|(id, _)| id.clone());
        }
        Ok(Some(page.iter().filter_map(|(_, (_, bytes))| codec::decode(bytes)).collect()))
    }
}

/// The id of the log's entry whose batch ends at `to`.
fn entry_id(to: Moment) -> String {
    format!("{}-{}", to.seconds(), to.increment())
}
