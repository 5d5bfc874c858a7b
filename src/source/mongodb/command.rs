//! Commands to MongoDB's primary, within a deadline, and what their errors mean.
//!
//! Does not know what a command is for.

use std::{sync::Arc, time::Instant};

use bson::Document;
use mongodb::{
    error::ErrorKind,
    options::{ReadPreference, SelectionCriteria},
};
use tokio::time::timeout_at;

use super::MongoDb;
use crate::source::{Deadline, SourceError};

/// The error code of a node that does not know the moment yet at which it should read.
const UNKNOWN_MOMENT: i32 = 72;

/// Error codes after which another attempt may succeed: the node is not the primary, or no longer, or is shutting down; the
/// command was interrupted; there is no snapshot just now.
const TRANSIENT: [i32; 10] = [91, 189, 246, 10_107, 11_600, 11_601, 11_602, 13_435, 13_436, 10_058];

/// Error codes of a command that took longer than its `maxTimeMS`.
const TIMED_OUT: [i32; 2] = [50, 262];

/// An error of the driver.
pub(super) type DriverError = Arc<dyn std::error::Error + Send + Sync>;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// The deadline is over.
    #[error("the command did not finish in time")]
    TimedOut,
    /// Another node may answer, or the same node on another connection.
    #[error("{0}")]
    Transient(DriverError),
    /// The node does not know the moment yet at which it should read.
    #[error("{0}")]
    UnknownMoment(DriverError),
    /// Another attempt would fail, too.
    #[error("{0}")]
    Permanent(DriverError),
}

impl CommandError {
    fn of(error: mongodb::error::Error) -> Self {
        let code = match &*error.kind {
            ErrorKind::Command(command) => Some(command.code),
            _ => None,
        };
        let is_network = matches!(*error.kind, ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. });
        let error: DriverError = Arc::new(error);
        match code {
            Some(UNKNOWN_MOMENT) => Self::UnknownMoment(error),
            Some(code) if TIMED_OUT.contains(&code) => Self::TimedOut,
            Some(code) if TRANSIENT.contains(&code) => Self::Transient(error),
            None if is_network => Self::Transient(error),
            _ => Self::Permanent(error),
        }
    }

    /// Returns this as an error of the source. `failed` makes one of an error of the driver.
    pub(super) fn into_source_error(self, failed: impl FnOnce(DriverError) -> SourceError) -> SourceError {
        match self {
            Self::TimedOut => SourceError::TimedOut,
            Self::Transient(error) | Self::UnknownMoment(error) | Self::Permanent(error) => failed(error),
        }
    }
}

/// Selects the primary.
pub(super) fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}

impl MongoDb {
    /// Runs a command that only reads on the primary, within the deadline.
    pub(super) async fn command(&self, mut command: Document, deadline: Deadline) -> Result<Document, CommandError> {
        let run = async {
            let left = deadline.left().as_millis();
            if left == 0 {
                return Err(CommandError::TimedOut);
            }
            command.insert("maxTimeMS", i64::try_from(left).unwrap_or(i64::MAX).min(i64::from(i32::MAX)));
            self.client.read(command).await.map_err(CommandError::of)
        };
        timeout_at(deadline.instant(), run).await.unwrap_or(Err(CommandError::TimedOut))
    }

    /// Runs a command that only reads. After a transient error it runs once more.
    pub(super) async fn read(&self, command: Document, deadline: Deadline) -> Result<Document, CommandError> {
        match self.command(command.clone(), deadline).await {
            Err(CommandError::Transient(_)) => self.command(command, deadline).await,
            result => result,
        }
    }

    /// Like [`MongoDb::read`], but waits while `COMMANDS_MAX` of them are running.
    pub(super) async fn read_limited(&self, command: Document, deadline: Deadline) -> Result<Document, CommandError> {
        let permit = timeout_at(deadline.instant(), self.permits.acquire()).await;
        let _permit = permit.map_err(|_| CommandError::TimedOut)?;
        let (_present, began) = (self.commands.begin(), Instant::now());
        let reply = self.read(command, deadline).await;
        self.commands.took("find", began.elapsed());
        reply
    }
}
