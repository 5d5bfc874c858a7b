//! A subscription to channels of Redis. Messages that arrive faster than they are handled wait in a bounded queue.
//!
//! The client library's own queue has no bound, so a task empties it at once. Does not know what the messages mean.

use std::sync::Arc;

use futures::StreamExt as _;
use redis::aio::PubSubStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::telemetry::RateLimitedLog;

/// The most bytes of messages that wait to be handled.
const QUEUE_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// The bytes of a message besides its content.
const MESSAGE_BYTES: usize = 256;

/// Limits log lines about messages that arrive too fast.
static OVERFLOWED: RateLimitedLog = RateLimitedLog::per_second(1);

/// A subscription to some channels. Dropping it ends it.
pub struct Subscription {
    /// Bounded by permits: a queued message has one for each of its bytes.
    messages: mpsc::UnboundedReceiver<Message>,
    _receives: AbortOnDropHandle<()>,
}

struct Message {
    channel: String,
    content: Vec<u8>,
    _bytes: OwnedSemaphorePermit,
}

impl Subscription {
    /// Queues the messages of a stream. Of a longer message only `message_bytes_max` and one byte are kept.
    pub(super) fn new(stream: PubSubStream, message_bytes_max: usize) -> Self {
        let (queue, messages) = mpsc::unbounded_channel();
        let receives = tokio::spawn(receive(stream, message_bytes_max, queue));
        Self { messages, _receives: AbortOnDropHandle::new(receives) }
    }

    /// The next message's channel and content. None once the connection is lost, or messages were: those that arrived when
    /// as many bytes as the queue takes were waiting.
    pub async fn next(&mut self) -> Option<(String, Vec<u8>)> {
        let Message { channel, content, .. } = self.messages.recv().await?;
        Some((channel, content))
    }
}

/// Queues messages until the connection is lost or the queue is full.
async fn receive(mut stream: PubSubStream, message_bytes_max: usize, queue: mpsc::UnboundedSender<Message>) {
    let free_bytes = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
    while let Some(message) = stream.next().await {
        let content = message.get_payload_bytes();
        let content = content.get(..=message_bytes_max).unwrap_or(content).to_vec();
        let channel = message.get_channel_name().to_owned();
        let permits = u32::try_from(content.len() + channel.len() + MESSAGE_BYTES).unwrap_or(u32::MAX);
        let Ok(bytes) = Arc::clone(&free_bytes).try_acquire_many_owned(permits) else {
            if let Some(suppressed) = OVERFLOWED.admit() {
                tracing::warn!(
                    suppressed,
                    "messages from Redis arrive faster than they are handled: it is subscribed to anew"
                );
            }
            return;
        };
        if queue.send(Message { channel, content, _bytes: bytes }).is_err() {
            return;
        }
    }
}
