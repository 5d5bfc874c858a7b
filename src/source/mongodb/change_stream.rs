//! One MongoDB change stream, read batch by batch (docs/freshness.md, point 7).
//!
//! Runs the commands itself instead of using the driver's change stream, for two reasons: each batch comes with its resume
//! token, and nothing is resumed without the caller's knowledge. Does not open a stream again after it has ended.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use mongodb::{
    ClientSession, Database,
    error::{Error, ErrorKind},
};
use tokio::time::timeout;

use super::{
    MongoDb,
    event::{Event, pipeline},
    primary, timestamp_of,
};
use crate::{
    moment::Moment,
    schema::Schema,
    source::{ChangeSource, ChangeStream, StreamBatch, StreamError},
};

/// How long the server waits for an event before it returns an empty batch.
const AWAIT: Duration = Duration::from_millis(100);

/// How many events one batch contains at most: few enough for the server to look their documents up well within the time that
/// the feed allows for an answer (`patience`, at least a second).
const EVENTS_MAX: i32 = 1_000;

/// How long closing a stream may take. A frozen server does not answer, and is not waited for.
const CLOSE_TIME: Duration = Duration::from_millis(250);

/// Error codes after which changes may be missing: the oplog history is lost (286), an event is too large to deliver (10334),
/// or the stream cannot be resumed (280).
const LOST: [i32; 3] = [286, 10_334, 280];

/// An open stream: a cursor on the primary.
struct MongoDbStream {
    schema: Arc<Schema>,
    database: Database,
    session: ClientSession,
    /// The cursor's id; 0 once the server has closed it.
    cursor: i64,
    /// The batch that the opening command returned, until it is taken.
    first: Option<StreamBatch>,
}

#[async_trait]
impl ChangeSource for MongoDb {
    async fn open_stream(&self, from: Moment, patience: Duration) -> Result<Box<dyn ChangeStream>, StreamError> {
        Ok(Box::new(MongoDbStream::open(&self.schema, &self.client.database(), from, patience).await?))
    }
}

impl MongoDbStream {
    async fn open(
        schema: &Arc<Schema>,
        database: &Database,
        from: Moment,
        patience: Duration,
    ) -> Result<Self, StreamError> {
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
        let opening = async {
            let session = database.client().start_session().causal_consistency(false).await;
            let mut session = session.map_err(|error| error_of(&error))?;
            let reply = run(database, command, &mut session).await?;
            Ok((session, reply))
        };
        let (session, mut reply) = in_time(patience, opening).await?;
        let cursor = cursor_of(&mut reply)?;
        let mut stream =
            Self { schema: Arc::clone(schema), database: database.clone(), session, cursor: 0, first: None };
        stream.first = Some(stream.batch(cursor, "firstBatch")?);
        Ok(stream)
    }

    /// Reads the batch named `name` from the `cursor` part of a reply.
    fn batch(&mut self, mut cursor: Document, name: &str) -> Result<StreamBatch, StreamError> {
        let nonsense = |what: &str| StreamError::Lost(format!("the change stream's reply makes no sense: {what}"));
        self.cursor = cursor.get_i64("id").map_err(|_| nonsense("no cursor id"))?;
        let Some(Bson::Array(events)) = cursor.remove(name) else { return Err(nonsense("no batch")) };
        let token = cursor.get_document("postBatchResumeToken").ok().and_then(token_moment);
        let has_events = !events.is_empty();
        let mut batch = StreamBatch { has_events, changes: Vec::new(), token: Moment::default(), invalidated: None };
        for event in events {
            let Bson::Document(event) = event else { return Err(nonsense("an event is not a document")) };
            let event = Event::read(&self.schema, &event).ok_or_else(|| nonsense("an event has no time"))?;
            if event.is_last {
                batch.invalidated = Some(event.at);
            }
            batch.changes.extend(event.changes);
        }
        batch.token = token.ok_or_else(|| nonsense("no readable resume token"))?;
        Ok(batch)
    }
}

#[async_trait]
impl ChangeStream for MongoDbStream {
    async fn next(&mut self, patience: Duration) -> Result<StreamBatch, StreamError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        if self.cursor == 0 {
            return Err(StreamError::Lost("the server closed the change stream without a reason".to_owned()));
        }
        let command = doc! {
            "getMore": self.cursor,
            "collection": "$cmd.aggregate",
            "batchSize": EVENTS_MAX,
            "maxTimeMS": millis(AWAIT),
        };
        let mut reply = in_time(patience, run(&self.database, command, &mut self.session)).await?;
        let cursor = cursor_of(&mut reply)?;
        self.batch(cursor, "nextBatch")
    }

    async fn close(self: Box<Self>) {
        if self.cursor != 0 {
            let command = doc! { "killCursors": "$cmd.aggregate", "cursors": [self.cursor] };
            // No session here: the driver refuses one for this command.
            let closing = async {
                let reply = self.database.run_command(command).selection_criteria(primary()).await;
                reply.map_err(|error| error_of(&error))
            };
            if let Err(error) = in_time(CLOSE_TIME, closing).await {
                tracing::debug!(%error, "a change stream could not be closed");
            }
        }
    }
}

/// What an error of the driver means for the stream.
fn error_of(error: &Error) -> StreamError {
    let code = match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    };
    match code {
        Some(code) if LOST.contains(&code) => StreamError::Lost(error.to_string()),
        _ => StreamError::Failed(error.to_string()),
    }
}

/// The moment of a resume token.
fn token_moment(token: &Document) -> Option<Moment> {
    moment_of_data(token.get_str("_data").ok()?)
}

/// The moment that the data of a resume token begins with: a type byte, then seconds and increment, all in hexadecimal
/// digits. `None` if the text begins with anything else.
fn moment_of_data(data: &str) -> Option<Moment> {
    let digits = data.strip_prefix("82")?;
    let half = |from: usize| u32::from_str_radix(digits.get(from..from.checked_add(8)?)?, 16).ok();
    Some(Moment::new(half(0)?, half(8)?))
}

fn cursor_of(reply: &mut Document) -> Result<Document, StreamError> {
    match reply.remove("cursor") {
        Some(Bson::Document(cursor)) => Ok(cursor),
        _ => Err(StreamError::Lost("the change stream's reply makes no sense: no cursor".to_owned())),
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

async fn run(database: &Database, command: Document, session: &mut ClientSession) -> Result<Document, StreamError> {
    let reply = database.run_command(command).selection_criteria(primary()).session(session).await;
    reply.map_err(|error| error_of(&error))
}

async fn in_time<T>(patience: Duration, work: impl Future<Output = Result<T, StreamError>>) -> Result<T, StreamError> {
    timeout(patience, work)
        .await
        .unwrap_or_else(|_| Err(StreamError::Failed("MongoDB does not answer in time".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_token_begins_with_its_moment() {
        let token = "8266A1B2C30000000F2B042C0100296E5A1004";
        assert_eq!(moment_of_data(token), Some(Moment::new(0x66a1_b2c3, 15)));
        for text in ["", "82", "8266A1B2C3", "8166A1B2C30000000F", "8266A1B2C30000000", "82é6A1B2C30000000F"] {
            assert_eq!(moment_of_data(text), None, "{text}");
        }
    }
}
