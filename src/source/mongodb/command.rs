//! Commands to MongoDB's primary, within a deadline, and what their errors mean.
//!
//! Does not know what a command is for.

use std::{sync::Arc, time::Instant};

use bson::Document;
use mongodb::{
    options::{ReadPreference, SelectionCriteria},
    raw_batch_cursor::RawBatch,
};
use tokio::time::timeout_at;

use super::{MongoDb, error::DriverError};
use crate::source::{Deadline, SourceError};

/// The error code of a node that does not know the moment yet at which it should read.
const UNKNOWN_MOMENT: i32 = 72;

/// Error codes after which another attempt may succeed: the node is not the primary, or no longer, or is shutting down; the
/// command was interrupted; there is no snapshot just now.
pub(super) const TRANSIENT: [i32; 10] = [91, 189, 246, 10_107, 11_600, 11_601, 11_602, 13_435, 13_436, 10_058];

/// Error codes of a command that took longer than its `maxTimeMS`.
const TIMED_OUT: [i32; 2] = [50, 262];

/// A cause, as [`SourceError`] holds it.
type SharedError = Arc<dyn std::error::Error + Send + Sync>;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// The deadline is over.
    #[error("the command did not finish in time")]
    TimedOut,
    /// Another node may answer, or the same node on another connection.
    #[error(transparent)]
    Transient(DriverError),
    /// The node does not know the moment yet at which it should read.
    #[error(transparent)]
    UnknownMoment(DriverError),
    /// Another attempt would fail, too.
    #[error(transparent)]
    Permanent(DriverError),
}

impl CommandError {
    fn of(error: DriverError) -> Self {
        match (error.code(), &error) {
            (Some(UNKNOWN_MOMENT), _) => Self::UnknownMoment(error),
            (Some(code), _) if TIMED_OUT.contains(&code) => Self::TimedOut,
            (Some(code), _) if TRANSIENT.contains(&code) => Self::Transient(error),
            (None, DriverError::Connection(_)) => Self::Transient(error),
            _ => Self::Permanent(error),
        }
    }

    /// Returns this as an error of the source. `failed` makes one of an error of the driver.
    pub(super) fn into_source_error(self, failed: impl FnOnce(SharedError) -> SourceError) -> SourceError {
        match self {
            Self::TimedOut => SourceError::TimedOut,
            Self::Transient(error) | Self::UnknownMoment(error) | Self::Permanent(error) => failed(Arc::new(error)),
        }
    }
}

/// Selects the primary.
pub(super) fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}

impl MongoDb {
    /// Runs a command that only reads on the primary whose reply is a cursor, within the deadline. Returns the whole reply, undecoded. A
    /// cursor that is still open is closed in the background.
    pub(super) async fn command(&self, mut command: Document, deadline: Deadline) -> Result<RawBatch, CommandError> {
        let run = async {
            let left = deadline.left().as_millis();
            if left == 0 {
                return Err(CommandError::TimedOut);
            }
            command.insert("maxTimeMS", i64::try_from(left).unwrap_or(i64::MAX).min(i64::from(i32::MAX)));
            self.client.read(command).await.map_err(|error| CommandError::of(error.into()))
        };
        timeout_at(deadline.instant(), run).await.unwrap_or(Err(CommandError::TimedOut))
    }

    /// Runs a command that only reads. After a transient error it runs once more.
    pub(super) async fn read(&self, command: Document, deadline: Deadline) -> Result<RawBatch, CommandError> {
        match self.command(command.clone(), deadline).await {
            Err(CommandError::Transient(_)) => self.command(command, deadline).await,
            result => result,
        }
    }

    /// Like [`MongoDb::read`], but waits while `COMMANDS_MAX` of them are running.
    pub(super) async fn read_limited(&self, command: Document, deadline: Deadline) -> Result<RawBatch, CommandError> {
        let permit = timeout_at(deadline.instant(), self.permits.acquire()).await;
        let _permit = permit.map_err(|_| CommandError::TimedOut)?;
        let (_present, began) = (self.commands.begin(), Instant::now());
        let reply = self.read(command, deadline).await;
        self.commands.took("find", began.elapsed());
        reply
    }
}
