//! One MongoDB change stream, read batch by batch (docs/freshness.md, point 7).
//!
//! Reads the raw batches of a cursor instead of using the driver's change stream, for three reasons: each batch comes with
//! its resume token, nothing is resumed without the caller's knowledge, and an event that cannot be decoded does not spoil
//! its batch. Does not open a stream again after it has ended.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bson::{RawBsonRef, RawDocument, doc};
use futures::StreamExt as _;
use mongodb::{
    Database,
    raw_batch_cursor::{RawBatch, RawBatchCursor},
};
use tokio::{sync::watch, time::timeout};

use super::{
    DriverError, MongoDb,
    event::{Event, bound_reverse_changes, pipeline},
    primary, timestamp_of,
};
use crate::{
    moment::Moment,
    schema::Schema,
    source::{ChangeSource, ChangeStream, StreamBatch, StreamError},
    telemetry::{Commands, RateLimitedLog},
};

/// How long the server waits for an event before it returns an empty batch.
const AWAIT: Duration = Duration::from_millis(100);

/// How many events one batch contains at most: few enough for the server to look their documents up well within the time that
/// the feed allows for an answer (`patience`, at least a second).
const EVENTS_MAX: u32 = 1_000;

/// Error codes after which changes may be missing: the oplog history is lost (286), an event is too large to deliver (10334),
/// or the stream cannot be resumed (280).
const LOST: [i32; 3] = [286, 10_334, 280];

/// Limits log lines about events that cannot be understood, as whoever may write documents can cause them.
static NOT_UNDERSTOOD: RateLimitedLog = RateLimitedLog::per_second(1);

/// An open stream: a cursor on the primary. When it is dropped, the driver closes the cursor in the background.
struct MongoDbStream {
    schema: Arc<Schema>,
    cursor: RawBatchCursor,
    /// Changes when the client is replaced: then nothing has been answered for a while, and a new stream is opened sooner than
    /// this one gives up.
    replaced: watch::Receiver<u64>,
    /// Counts events that could not be understood.
    commands: Commands,
}

#[async_trait]
impl ChangeSource for MongoDb {
    async fn open_stream(&self, from: Moment, patience: Duration) -> Result<Box<dyn ChangeStream>, StreamError> {
        let mut replaced = self.client.replaced();
        let database = self.client.database();
        let opening = open(&self.schema, &database, from, patience);
        let cursor = unless_replaced(&mut replaced, opening).await?;
        let (schema, commands) = (Arc::clone(&self.schema), self.commands.clone());
        Ok(Box::new(MongoDbStream { schema, cursor, replaced, commands }))
    }
}

async fn open(
    schema: &Schema,
    database: &Database,
    from: Moment,
    patience: Duration,
) -> Result<RawBatchCursor, StreamError> {
    let mut stages = vec![doc! { "$changeStream": {
        "fullDocument": "updateLookup",
        "startAtOperationTime": timestamp_of(from),
    } }];
    stages.extend(pipeline(schema));
    let command = doc! {
        "aggregate": 1,
        "pipeline": stages,
        "cursor": { "batchSize": EVENTS_MAX },
        "readConcern": { "level": "majority" },
        "collation": { "locale": "simple" },
        // The server ends the command when the reply is no longer waited for, so that no cursor is left behind.
        "maxTimeMS": millis(patience),
    };
    let opening = database
        .run_cursor_command(command)
        .selection_criteria(primary())
        .batch_size(EVENTS_MAX)
        .max_time(AWAIT)
        .batch();
    in_time(patience, async { opening.await.map_err(|error| error_of(&error.into())) }).await
}

impl MongoDbStream {
    /// Reads a reply.
    fn read(&self, reply: &RawBatch) -> Result<StreamBatch, StreamError> {
        let nonsense = |what: &str| StreamError::Lost(format!("the change stream's reply makes no sense: {what}"));
        let cursor = reply.as_raw_document().get_document("cursor").map_err(|_| nonsense("no cursor"))?;
        let token = cursor.get_document("postBatchResumeToken").ok().and_then(token_moment);
        let token = token.ok_or_else(|| nonsense("no readable resume token"))?;
        let mut batch = StreamBatch { has_events: false, changes: Vec::new(), token, invalidated: None };
        for event in reply.doc_slices().map_err(|_| nonsense("no batch"))? {
            let Ok(RawBsonRef::Document(event)) = event else { return Err(nonsense("an event is not a document")) };
            let event = Event::read(&self.schema, event).ok_or_else(|| nonsense("an event has no time"))?;
            if let Some(collection) = event.not_understood {
                self.report(self.schema.collection_name(collection));
            }
            if event.is_last {
                batch.invalidated = Some(event.at);
            }
            batch.has_events = true;
            batch.changes.extend(event.changes);
        }
        bound_reverse_changes(&self.schema, &mut batch.changes);
        Ok(batch)
    }

    /// Counts and logs an event that could not be understood.
    fn report(&self, collection: &str) {
        self.commands.did_not_understand(collection);
        if let Some(suppressed) = NOT_UNDERSTOOD.admit() {
            tracing::warn!(
                collection,
                suppressed,
                "a change event has a name or a value that cannot be read: every fact of its collection is read again"
            );
        }
    }
}

#[async_trait]
impl ChangeStream for MongoDbStream {
    async fn next(&mut self, patience: Duration) -> Result<StreamBatch, StreamError> {
        let next = async {
            match self.cursor.next().await {
                Some(reply) => reply.map_err(|error| error_of(&error.into())),
                None => Err(StreamError::Lost("the server closed the change stream without a reason".to_owned())),
            }
        };
        let reply = unless_replaced(&mut self.replaced, in_time(patience, next)).await?;
        self.read(&reply)
    }
}

/// What an error of the driver means for the stream.
fn error_of(error: &DriverError) -> StreamError {
    match error.code() {
        Some(code) if LOST.contains(&code) => StreamError::Lost(error.to_string()),
        _ => StreamError::Failed(error.to_string()),
    }
}

/// The moment of a resume token.
fn token_moment(token: &RawDocument) -> Option<Moment> {
    moment_of_data(token.get_str("_data").ok()?)
}

/// The moment that the data of a resume token begins with: a type byte, then seconds and increment, all in hexadecimal
/// digits. `None` if the text begins with anything else.
fn moment_of_data(data: &str) -> Option<Moment> {
    let digits = data.strip_prefix("82")?;
    let half = |from: usize| u32::from_str_radix(digits.get(from..from.checked_add(8)?)?, 16).ok();
    Some(Moment::new(half(0)?, half(8)?))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Does the work, and fails as soon as the client is replaced.
async fn unless_replaced<T>(
    replaced: &mut watch::Receiver<u64>,
    work: impl Future<Output = Result<T, StreamError>>,
) -> Result<T, StreamError> {
    tokio::select! {
        result = work => result,
        Ok(()) = replaced.changed() => Err(StreamError::Failed("MongoDB did not answer, and is connected anew".to_owned())),
    }
}

async fn in_time<T>(patience: Duration, work: impl Future<Output = Result<T, StreamError>>) -> Result<T, StreamError> {
    timeout(patience, work)
        .await
        .unwrap_or_else(|_| Err(StreamError::Failed("MongoDB does not answer in time".to_owned())))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn what_waits_for_a_client_that_is_replaced_fails_at_once() {
        let (client, mut replaced) = watch::channel(0);
        let mut waiting = Box::pin(unless_replaced(&mut replaced, pending::<Result<(), StreamError>>()));
        assert!(waiting.as_mut().now_or_never().is_none());
        client.send_replace(1);
        assert!(matches!(waiting.now_or_never(), Some(Err(StreamError::Failed(_)))));
        // What does not wait is not affected.
        assert!(matches!(unless_replaced(&mut replaced, async { Ok(7) }).now_or_never(), Some(Ok(7))));
    }

    #[test]
    fn a_resume_token_begins_with_its_moment() {
        let token = "8266A1B2C30000000F2B042C0100296E5A1004";
        assert_eq!(moment_of_data(token), Some(Moment::new(0x66a1_b2c3, 15)));
        for text in ["", "82", "8266A1B2C3", "8166A1B2C30000000F", "8266A1B2C30000000", "82é6A1B2C30000000F"] {
            assert_eq!(moment_of_data(text), None, "{text}");
        }
    }
}
