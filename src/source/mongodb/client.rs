//! The client through which MongoDB is reached, and its replacement when nothing answers any more.
//!
//! The driver ends no handshake that stays unanswered and opens two connections at once, so two lost handshakes keep all commands
//! waiting. It gives up a silent connection to a node only after its own timeouts, which the connection string sets. A new client
//! knows nothing of the old connections, and answers as soon as the network does.
//!
//! Does not decide what a silent server means for answers.

use std::{
    io,
    sync::{Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use bson::Document;
use futures::{StreamExt as _, stream::FuturesUnordered};
use mongodb::{
    Client, Database,
    error::{Error, ErrorKind},
    options::ClientOptions,
    raw_batch_cursor::RawBatch,
};
use tokio::sync::watch;

use super::{command::TRANSIENT, error::DriverError, primary};

/// How long no command may be answered until the client is replaced, and how long each new client is given.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// On how many clients one command waits at once at most: the one that it was sent with, and the newest ones.
const ATTEMPTS_MAX: usize = 3;

/// A database, through a client that is replaced when it gets no answers.
#[derive(Debug)]
pub(super) struct ReplacedClient {
    database: RwLock<Database>,
    /// What a new client is made of; none if the client is the caller's own, which stays.
    options: Option<ClientOptions>,
    /// When the first command since the last answer was sent, or the client was replaced since. None if nothing waits.
    silent_since: Mutex<Option<Instant>>,
    /// How often the client was replaced.
    replaced: watch::Sender<u64>,
}

impl ReplacedClient {
    /// Begins with this database. Without options its client is never replaced.
    pub(super) fn new(database: Database, options: Option<ClientOptions>) -> Self {
        let (silent_since, replaced) = (Mutex::default(), watch::Sender::default());
        Self { database: RwLock::new(database), options, silent_since, replaced }
    }

    /// The database, through the present client.
    pub(super) fn database(&self) -> Database {
        self.database.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whenever the client is replaced.
    pub(super) fn replaced(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// Runs a command that only reads on the primary. If the client is replaced meanwhile, the command is sent through the new
    /// one, too, and the first answer counts. The reply is that of a cursor, and is returned undecoded. If the cursor is still
    /// open, the driver closes it in the background.
    pub(super) async fn read(&self, command: Document) -> Result<RawBatch, Error> {
        self.replace_if_silent();
        let mut replaced = self.replaced();
        let run = || {
            let (database, command) = (self.database(), command.clone());
            async move {
                let run = database.run_cursor_command(command).selection_criteria(primary());
                // The first batch has already arrived with the reply.
                let reply = run.batch().await?.next().await;
                reply.unwrap_or_else(|| Err(io::Error::other("no reply").into()))
            }
        };
        let mut attempts = FuturesUnordered::from_iter([run()]);
        loop {
            tokio::select! {
                Some(result) = attempts.next() => {
                    if is_answer(&result) {
                        self.answered();
                        return result;
                    }
                    if attempts.is_empty() {
                        return result;
                    }
                }
                Ok(()) = replaced.changed(), if attempts.len() < ATTEMPTS_MAX => attempts.push(run()),
            }
        }
    }

    /// Something was answered: the client works.
    fn answered(&self) {
        *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Replaces the client if nothing has been answered for too long. Called before each command: there are several a second.
    fn replace_if_silent(&self) {
        let Some(options) = &self.options else { return };
        let now = Instant::now();
        {
            let mut since = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
            if now.duration_since(*since.get_or_insert(now)) < SILENCE_MAX {
                return;
            }
            *since = Some(now);
        }
        let name = self.database().name().to_owned();
        match Client::with_options(options.clone()) {
            Ok(client) => {
                *self.database.write().unwrap_or_else(PoisonError::into_inner) = client.database(&name);
                self.replaced.send_modify(|count| *count = count.wrapping_add(1));
                tracing::debug!("MongoDB has not answered for {SILENCE_MAX:?}: connecting anew");
            }
            // These options made a client before.
            Err(error) => tracing::warn!(error = %DriverError::from(error), "no new client of MongoDB can be made"),
        }
    }
}

/// Whether the primary has answered, if only to refuse. A node that is not the primary does not count: a client whose
/// connections were half open may take it for the primary for longer than a new client does.
fn is_answer(result: &Result<RawBatch, Error>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => match &*error.kind {
            ErrorKind::Command(command) => !TRANSIENT.contains(&command.code),
            ErrorKind::Write(_) | ErrorKind::Authentication { .. } => true,
            _ => false,
        },
    }
}
