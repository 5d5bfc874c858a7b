//! The subscriber: receives from the Redis channel for ever, and replaces a subscription that is lost or receives nothing.
//!
//! Reads no log: after each new subscription it reports [`Received::Subscribed`], and the caller reads what it has missed.

use std::{
    collections::VecDeque,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::time::{sleep, sleep_until, timeout_at};

use super::{RedisChannel, codec};
use crate::{
    bus::hint,
    diagnosis::error_chain,
    freshness::ChangeBatch,
    link::{Authenticator, CODE_BYTES, LinkError, Subscription, Unauthentic},
};

/// How long to wait before the next attempt to subscribe: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// How long a subscription must have lasted for the next attempt to be made at once.
const STABLE: Duration = Duration::from_secs(1);

/// When a subscription is replaced: how long messages still on their way to it are awaited, and how many are taken.
const REST_TIME: Duration = Duration::from_millis(50);
const REST_MAX: usize = 1_000;

/// The longest message that an instance publishes.
const MESSAGE_BYTES_MAX: usize = hint::BYTES_MAX + CODE_BYTES;

/// What the subscriber receives.
pub(in crate::bus) enum Received {
    /// A new subscription has begun: earlier messages may have been missed.
    Subscribed,
    /// A change batch.
    ChangeBatch(ChangeBatch),
    /// A hint, encoded.
    Hint(Vec<u8>),
}

/// Receives for ever, whatever happens to the subscription.
pub(in crate::bus) struct Subscriber<'a> {
    channel: &'a RedisChannel,
    /// How long a subscription may receive nothing before it is replaced.
    silence_max: Duration,
    subscription: Option<Subscription>,
    /// When the current subscription began.
    since: Instant,
    /// When something was received last that an instance has signed, or else when the current subscription began.
    received: tokio::time::Instant,
    /// Messages that the previous subscription received last, and that were not delivered yet.
    rest: VecDeque<(String, Vec<u8>)>,
    /// How long to wait before the next attempt to subscribe.
    pause: Duration,
    /// Whether a refusal was logged since the last subscription.
    is_refusal_logged: bool,
}

impl<'a> Subscriber<'a> {
    pub(super) fn new(channel: &'a RedisChannel, silence_max: Duration) -> Self {
        Self {
            channel,
            silence_max,
            subscription: None,
            since: Instant::now(),
            received: tokio::time::Instant::now(),
            rest: VecDeque::new(),
            pause: Duration::ZERO,
            is_refusal_logged: false,
        }
    }

    /// Waits for the next message or subscription.
    pub(in crate::bus) async fn next(&mut self) -> Received {
        loop {
            if let Some(message) = self.rest.pop_front() {
                match self.open(message) {
                    Some(received) => return received,
                    None => continue,
                }
            }
            let silence_ends = self.received + self.silence_max;
            let Some(subscription) = &mut self.subscription else {
                self.subscribe_again().await;
                return Received::Subscribed;
            };
            let (message, is_over) = tokio::select! {
                message = subscription.next() => {
                    let is_over = message.is_none();
                    (message, is_over)
                }
                () = self.channel.resubscribe.notified() => (None, false),
                () = sleep_until(silence_ends) => (None, false),
            };
            match message {
                Some(message) => {
                    if let Some(received) = self.open(message) {
                        self.received = tokio::time::Instant::now();
                        return received;
                    }
                }
                None if is_over => self.lose(),
                // It receives nothing, or there is nothing to receive. The next subscription begins before this one ends, and
                // the rest of this one's messages is delivered: so none is missed in between.
                None => match self.subscribe().await {
                    Ok(next) => {
                        self.received = tokio::time::Instant::now();
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

    /// What a message holds. A message that no instance has signed is counted.
    fn open(&self, (channel, signed): (String, Vec<u8>)) -> Option<Received> {
        let RedisChannel { namespace, metrics, .. } = self.channel;
        // A longer message was not published by an instance, so its code is not computed.
        let content_of = |authenticator: &Authenticator, bytes_max, what: Unauthentic| {
            let content = (signed.len() <= bytes_max).then(|| authenticator.open(b"", &signed)).flatten();
            if content.is_none() {
                what.report(metrics);
            }
            content
        };
        let codes = &namespace.codes;
        if channel == namespace.names.hints {
            let content = content_of(&codes.hints, MESSAGE_BYTES_MAX, Unauthentic::Hint);
            return content.map(|content| Received::Hint(content.to_owned()));
        }
        let content = content_of(&codes.change_batches, codec::SIGNED_BYTES_MAX, Unauthentic::ChangeBatch);
        content.and_then(codec::decode).map(Received::ChangeBatch)
    }

    fn lose(&mut self) {
        tracing::debug!("the subscription is lost");
        self.channel.is_subscribed.store(false, Ordering::Release);
        self.subscription = None;
        self.pause = if self.since.elapsed() > STABLE { Duration::ZERO } else { PAUSES[0].max(self.pause) };
    }

    /// Attempts to subscribe until it succeeds, and waits until messages may be delivered.
    async fn subscribe_again(&mut self) {
        let [shortest, longest] = PAUSES;
        loop {
            sleep(self.pause).await;
            match self.subscribe().await {
                Ok(subscription) => {
                    let mut delivers = self.channel.delivers.subscribe();
                    drop(delivers.wait_for(|delivers| *delivers).await);
                    self.subscription = Some(subscription);
                    self.since = Instant::now();
                    self.received = tokio::time::Instant::now();
                    self.channel.is_subscribed.store(true, Ordering::Release);
                    self.is_refusal_logged = false;
                    return;
                }
                Err(error) => {
                    if matches!(error, LinkError::Refused(_)) && !self.is_refusal_logged {
                        tracing::warn!(
                            error = %error_chain(&error),
                            remedy = "grant the user the channels `&pc:*`",
                            "Redis refuses the subscription, so this instance follows MongoDB itself"
                        );
                        self.is_refusal_logged = true;
                    }
                }
            }
            self.pause = longest.min(self.pause.max(shortest) * 2);
        }
    }

    async fn subscribe(&self) -> Result<Subscription, LinkError> {
        let channels = [&*self.channel.namespace.names.change_batches, &*self.channel.namespace.names.hints];
        let subscribed = self.channel.link.subscribe(&channels, MESSAGE_BYTES_MAX).await;
        subscribed.inspect_err(|error| tracing::debug!(error = %error_chain(error), "cannot subscribe"))
    }
}
