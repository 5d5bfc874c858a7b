//! The wire between instances: statements and hints over Redis pub/sub, with a bounded log of statements behind it (design
//! section 5, point 8).
//!
//! Judges nothing: what it hears, it hands on.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout_at},
};

use super::codec;
use crate::{
    diagnosis::error_chain,
    freshness::{ChangeBatch, Moment},
    link::{Link, LinkError, Names, Subscription},
};

/// How long a command may take. Who speaks waits for it, and no request does but an `Invalidate`.
pub const COMMAND_TIME: Duration = Duration::from_millis(250);

/// How long a page of the log may take.
const PAGE_TIME: Duration = Duration::from_secs(1);

/// How many statements the log keeps at most, of at most 2 KiB each.
const LOG_LENGTH_MAX: usize = 1_000;

/// How long the log is kept when nobody speaks. Who starts later begins anew, as if there were none.
const LOG_LIFE: Duration = Duration::from_mins(5);

/// How many statements are read from the log at once.
const PAGE: usize = 200;

/// How long to wait before a subscription is tried again: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// How long a subscription must have lived for the next one to be tried at once.
const STABLE: Duration = Duration::from_secs(1);

/// For how long what is still on its way to a subscription that was replaced is waited for, and how much of it.
const REST_TIME: Duration = Duration::from_millis(50);
const REST_MAX: usize = 1_000;

/// Appends a statement to the log, unless the log has got there already, and publishes it in any case. Ids are handed on as
/// texts: Lua's numbers cannot hold moments. A full server takes it nevertheless, as the log is bounded.
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

/// Carries statements and hints between instances.
#[derive(Debug)]
pub struct RedisChannel {
    link: Link,
    names: Names,
    /// Whether this instance listens, as far as is known.
    is_subscribed: AtomicBool,
    /// Asks for another subscription.
    again: Notify,
    /// Whether there is somebody to hand things on to.
    begun: watch::Sender<bool>,
}

/// What became of a statement that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It stands in the log.
    Logged,
    /// The log had got further already: only those heard it who listened just then.
    AlreadyPast,
}

/// What was heard.
pub(super) enum Received {
    /// This instance listens from now on: what was said before may have been missed.
    Subscribed,
    /// A statement.
    ChangeBatch(ChangeBatch),
    /// A hint.
    Hint(Vec<u8>),
}

impl RedisChannel {
    /// A wire that nobody listens to yet.
    #[must_use]
    pub fn new(link: Link, names: Names) -> Self {
        Self {
            link,
            names,
            is_subscribed: AtomicBool::new(false),
            again: Notify::new(),
            begun: watch::Sender::new(false),
        }
    }

    /// Whether this instance listens, as far as is known.
    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed.load(Ordering::Acquire)
    }

    /// Waits until the link is up.
    pub(super) async fn wait(&self) {
        let mut up = self.link.watch();
        drop(up.wait_for(|up| *up).await);
    }

    /// Says a statement to all instances that listen, and to those that read the log.
    pub(super) async fn publish(&self, batch: ChangeBatch) -> Result<Published, LinkError> {
        let mut published = Published::AlreadyPast;
        for (to, bytes) in codec::pieces(batch) {
            let mut command = redis::cmd("EVAL");
            command.arg(PUBLISH).arg(1).arg(&self.names.log);
            command.arg(LOG_LENGTH_MAX).arg(entry(to)).arg(bytes);
            command.arg(u64::try_from(LOG_LIFE.as_millis()).unwrap_or(u64::MAX)).arg(&self.names.change_batches);
            // Of several pieces those that only say early changes do not get the log any further.
            if self.link.query::<u8>(&command, COMMAND_TIME).await? == 1 {
                published = Published::Logged;
            }
        }
        Ok(published)
    }

    /// Says a hint to all instances that listen.
    pub(super) async fn hint(&self, hint: Vec<u8>) -> Result<(), LinkError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.names.hints).arg(hint);
        self.link.query::<()>(&command, COMMAND_TIME).await
    }

    /// The log from its beginning.
    pub(super) fn log(&self) -> Pages<'_> {
        self.log_after(Moment::default())
    }

    /// The log, but for what reaches no further than `after`.
    pub(super) fn log_after(&self, after: Moment) -> Pages<'_> {
        Pages { channel: self, after: Some(entry(after)) }
    }

    /// Up to where the log reaches; nothing where there is none.
    pub(super) async fn log_end(&self) -> Result<Option<Moment>, LinkError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&self.names.log).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Entries = self.link.query(&command, COMMAND_TIME).await?;
        Ok(last.first().and_then(|(_, (_, bytes))| codec::decode(bytes)).map(|batch| batch.to))
    }

    /// Removes the log, which is of another history.
    pub(super) async fn remove_log(&self) -> Result<(), LinkError> {
        self.link.query::<()>(redis::cmd("DEL").arg(&self.names.log), COMMAND_TIME).await
    }

    /// Lets what is heard be handed on from now on.
    pub(super) fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// Replaces the subscription, which seems to be deaf.
    pub(super) fn resubscribe(&self) {
        self.again.notify_one();
    }

    /// What is heard from now on.
    pub(super) fn subscriber(&self, silence_max: Duration) -> Subscriber<'_> {
        Subscriber {
            channel: self,
            silence_max,
            subscription: None,
            since: Instant::now(),
            rest: VecDeque::new(),
            pause: Duration::ZERO,
            has_complained: false,
        }
    }
}

/// Entries of the log: the id, the name of the only field, and a statement.
type Entries = Vec<(String, (String, Vec<u8>))>;

/// The log, page by page.
pub(super) struct Pages<'a> {
    channel: &'a RedisChannel,
    /// The last entry that was read; nothing at the end.
    after: Option<String>,
}

impl Pages<'_> {
    /// The next statements, in order; nothing at the end.
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

/// Who listens for ever, whatever happens to the subscription.
pub(super) struct Subscriber<'a> {
    channel: &'a RedisChannel,
    /// How long nothing may be heard before another subscription is tried.
    silence_max: Duration,
    subscription: Option<Subscription>,
    /// Since when there is this one.
    since: Instant,
    /// What the one before had not handed on yet.
    rest: VecDeque<(String, Vec<u8>)>,
    /// How long to wait before the next subscription.
    pause: Duration,
    has_complained: bool,
}

impl Subscriber<'_> {
    /// What is heard next.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            if let Some(received) = self.rest.pop_front().and_then(|message| self.read(message)) {
                return received;
            }
            let Some(subscription) = &mut self.subscription else {
                self.listen().await;
                return Received::Subscribed;
            };
            let (message, is_over) = tokio::select! {
                message = subscription.next() => {
                    let is_over = message.is_none();
                    (message, is_over)
                }
                () = self.channel.again.notified() => (None, false),
                () = sleep(self.silence_max) => (None, false),
            };
            match message {
                Some(message) => {
                    if let Some(received) = self.read(message) {
                        return received;
                    }
                }
                None if is_over => self.lose(),
                // It is deaf, or nobody speaks. The next one begins before it ends, and what it still has is heard: so nothing
                // is missed between.
                None => match self.subscribe().await {
                    Ok(next) => {
                        if let Some(mut last) = self.subscription.replace(next) {
                            let until = tokio::time::Instant::now() + REST_TIME;
                            while self.rest.len() < REST_MAX
                                && let Ok(Some(message)) = timeout_at(until, last.next()).await
                            {
                                self.rest.push_back(message);
                            }
                        }
                        return Received::Subscribed;
                    }
                    Err(_) => self.lose(),
                },
            }
        }
    }

    fn read(&self, (channel, bytes): (String, Vec<u8>)) -> Option<Received> {
        if channel == self.channel.names.hints {
            return Some(Received::Hint(bytes));
        }
        codec::decode(&bytes).map(Received::ChangeBatch)
    }

    fn lose(&mut self) {
        tracing::debug!("the subscription is lost");
        self.channel.is_subscribed.store(false, Ordering::Release);
        self.subscription = None;
        self.pause = if self.since.elapsed() > STABLE { Duration::ZERO } else { PAUSES[0].max(self.pause) };
    }

    /// Subscribes, however often it has to be tried.
    async fn listen(&mut self) {
        let [shortest, longest] = PAUSES;
        loop {
            sleep(self.pause).await;
            match self.subscribe().await {
                Ok(subscription) => {
                    let mut begun = self.channel.begun.subscribe();
                    drop(begun.wait_for(|begun| *begun).await);
                    self.subscription = Some(subscription);
                    self.since = Instant::now();
                    self.channel.is_subscribed.store(true, Ordering::Release);
                    self.has_complained = false;
                    return;
                }
                Err(error) => {
                    if matches!(error, LinkError::Refused(_)) && !self.has_complained {
                        tracing::warn!(
                            error = %error_chain(&error),
                            remedy = "grant the user the channels `&pc:*`",
                            "Redis does not let this instance listen: it follows MongoDB by itself"
                        );
                        self.has_complained = true;
                    }
                }
            }
            self.pause = longest.min(self.pause.max(shortest) * 2);
        }
    }

    async fn subscribe(&self) -> Result<Subscription, LinkError> {
        let channels = [self.channel.names.change_batches.as_str(), self.channel.names.hints.as_str()];
        let subscribed = self.channel.link.subscribe(&channels).await;
        subscribed.inspect_err(|error| tracing::debug!(error = %error_chain(error), "there is no subscription"))
    }
}

/// The id of what reaches up to a moment in the log.
fn entry(to: Moment) -> String {
    format!("{}-{}", to.seconds(), to.increment())
}
