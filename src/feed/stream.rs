//! One change stream on MongoDB, batch by batch, by commands of its own: so that each batch comes with its token, and nothing
//! is resumed behind our back.

use std::{sync::Arc, time::Duration};

use bson::{Bson, Document, doc};
use mongodb::{
    ClientSession, Database,
    error::{Error, ErrorKind},
};
use tokio::time::timeout;

use super::event::{Event, pipeline};
use crate::{
    freshness::{Change, Moment},
    schema::Schema,
    source::mongodb::{primary, timestamp_of},
};

/// How long the server waits for something to happen before it answers that nothing has.
const AWAIT: Duration = Duration::from_millis(100);

/// How many events come at once: so few that the server looks their documents up well within the patience of who waits.
const EVENTS_MAX: i32 = 1_000;

/// How long the server may take to forget a stream: a frozen one will not, and is not waited for.
const CLOSE_TIME: Duration = Duration::from_millis(250);

/// Errors after which what was between is not known: the history is gone, an event is too large to be delivered, or the
/// stream says that it cannot go on.
const LOST: [i32; 3] = [286, 10_334, 280];

/// A stream that is open.
pub(super) struct Stream {
    schema: Arc<Schema>,
    database: Database,
    session: ClientSession,
    cursor: i64,
    /// What came with the opening.
    first: Option<Batch>,
}

/// What a stream showed at once.
#[derive(Debug)]
pub(super) struct Batch {
    /// Whether anything has happened.
    pub(super) has_events: bool,
    /// What changed.
    pub(super) changes: Vec<Change>,
    /// The moment of the batch's token: whatever is earlier has been shown.
    pub(super) token: Moment,
    /// Where the stream ends by what happened.
    pub(super) invalidated: Option<Moment>,
}

/// Why a stream ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By what happened at this moment.
    Invalidated(Moment),
    /// What was between is not known.
    Lost(String),
    /// It failed, or did not answer in time. It can be opened again where it was.
    Failed(String),
    /// It answers, but from too long ago.
    Lagging,
    /// Others tell all that changes, or this instance is to tell them.
    Relieved,
}

impl Ended {
    fn of(error: &Error) -> Self {
        let code = match &*error.kind {
            ErrorKind::Command(command) => Some(command.code),
            _ => None,
        };
        match code {
            Some(code) if LOST.contains(&code) => Self::Lost(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl Stream {
    /// Opens a stream on the primary that shows what happens at `from` and later.
    pub(super) async fn open(
        schema: &Arc<Schema>,
        database: &Database,
        from: Moment,
        patience: Duration,
    ) -> Result<Self, Ended> {
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
            // Whom nobody waits for any more leaves no cursor behind.
            "maxTimeMS": millis(patience),
        };
        let opening = async {
            let session = database.client().start_session().causal_consistency(false).await;
            let mut session = session.map_err(|error| Ended::of(&error))?;
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

    /// What is shown next, which may be nothing.
    pub(super) async fn next(&mut self, patience: Duration) -> Result<Batch, Ended> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        if self.cursor == 0 {
            return Err(Ended::Lost("the stream ended, and did not say why".to_owned()));
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

    /// Lets the server forget the stream, where it is still there.
    pub(super) async fn close(self) {
        if self.cursor != 0 {
            let command = doc! { "killCursors": "$cmd.aggregate", "cursors": [self.cursor] };
            // The driver refuses it a session.
            let closing = async {
                let reply = self.database.run_command(command).selection_criteria(primary()).await;
                reply.map_err(|error| Ended::of(&error))
            };
            if let Err(ended) = in_time(CLOSE_TIME, closing).await {
                tracing::debug!(?ended, "a change stream could not be closed");
            }
        }
    }

    fn batch(&mut self, mut cursor: Document, name: &str) -> Result<Batch, Ended> {
        let nonsense = |what: &str| Ended::Lost(format!("a change stream without {what}"));
        self.cursor = cursor.get_i64("id").map_err(|_| nonsense("an id"))?;
        let Some(Bson::Array(events)) = cursor.remove(name) else { return Err(nonsense("a batch")) };
        let token = cursor.get_document("postBatchResumeToken").ok().and_then(moment_of);
        let has_events = !events.is_empty();
        let mut batch = Batch { has_events, changes: Vec::new(), token: Moment::default(), invalidated: None };
        for event in events {
            let Bson::Document(event) = event else { return Err(nonsense("documents")) };
            let event = Event::read(&self.schema, &event).ok_or_else(|| nonsense("moments"))?;
            if event.is_last {
                batch.invalidated = Some(event.at);
            }
            batch.token = batch.token.max(event.at);
            batch.changes.extend(event.changes);
        }
        batch.token = token.ok_or_else(|| nonsense("a token that can be read"))?;
        Ok(batch)
    }
}

/// The moment that a resume token begins with: a type byte, then seconds and increment in hex.
fn moment_of(token: &Document) -> Option<Moment> {
    let text = token.get_str("_data").ok()?.strip_prefix("82")?;
    let half = |from: usize| u32::from_str_radix(text.get(from..from.checked_add(8)?)?, 16).ok();
    Some(Moment::new(half(0)?, half(8)?))
}

fn cursor_of(reply: &mut Document) -> Result<Document, Ended> {
    match reply.remove("cursor") {
        Some(Bson::Document(cursor)) => Ok(cursor),
        _ => Err(Ended::Lost("a change stream without a cursor".to_owned())),
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

async fn run(database: &Database, command: Document, session: &mut ClientSession) -> Result<Document, Ended> {
    let reply = database.run_command(command).selection_criteria(primary()).session(session).await;
    reply.map_err(|error| Ended::of(&error))
}

async fn in_time<T>(patience: Duration, work: impl Future<Output = Result<T, Ended>>) -> Result<T, Ended> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(Ended::Failed("MongoDB does not answer in time".to_owned())))
}
