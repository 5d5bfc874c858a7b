//! Makes the primary write its journal while a probe waits for that (docs/freshness.md, point 5).
//!
//! In a replica set in which every majority includes the primary, a linearizable read waits for the primary's journal, which
//! mongod writes every 100 ms. It writes the journal at once when a transaction is committed with `j: true`, even if that
//! has only read.
//!
//! Proves nothing: a probe is answered by its linearizable read alone, whatever becomes of these transactions.

use std::{pin::pin, sync::Arc, time::Duration};

use bson::{Document, RawDocumentBuf};
use mongodb::{
    Database,
    options::{Acknowledgment, ReadConcern, WriteConcern},
};
use tokio::{sync::Semaphore, time::timeout};

use super::{DriverError, MongoDb, primary};
use crate::diagnosis::error_chain;

/// How many milliseconds a probe waits before each transaction. The first one may come before the read has added its entry to the oplog. After
/// the last one, the read waits for mongod's own interval.
const WAITS_MS: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// How many transactions run at once, for all probes: one, and another that begins after a probe's entry was added to the oplog.
const TURNS: usize = 2;

/// How long one transaction may take.
const TIME_MAX: Duration = Duration::from_secs(1);

/// The collection that the transactions read. There should be none of this name: an open transaction would delay a drop of the
/// collection or a new index. Until it is committed or has timed out, it also delays a drop of the database.
const NO_COLLECTION: &str = "permcached.no_collection";

/// Error codes of a server that will refuse every such transaction: the user lacks a right, or the server keeps no journal or knows no
/// transactions.
const REFUSED: [i32; 5] = [2, 13, 20, 72, 263];

/// How the journal of one replica set is written for probes.
#[derive(Debug)]
pub(super) struct Journal {
    /// Whether a probe may have to wait for it, by the `hello` of the start.
    is_waited_for: bool,
    /// Bounds the transactions that run at once, and so what they take of connections and of the primary's disk. Closed once the server
    /// has refused one for good.
    turns: Arc<Semaphore>,
}

impl Journal {
    /// The journal that linearizable reads wait for, or not.
    pub(super) fn new(is_waited_for: bool) -> Self {
        Self { is_waited_for, turns: Arc::new(Semaphore::new(TURNS)) }
    }
}

/// Whether linearizable reads wait for the journal of the primary, by its reply to `hello`: at most two members have data, so every
/// majority includes it. Hidden members are not shown. Decides only how long probes take.
pub(super) fn is_waited_for(hello: &Document) -> bool {
    let members = |name| hello.get_array(name).map_or(0, Vec::len);
    (1..=2).contains(&(members("hosts") + members("passives")))
}

impl MongoDb {
    /// Returns what a linearizable read returns. While that is not answered, the primary writes its journal, up to six times, if the read
    /// may wait for it.
    pub(super) async fn with_journal<T>(&self, read: impl Future<Output = T>) -> T {
        let Journal { is_waited_for, turns } = &self.journal;
        let mut read = pin!(read);
        if !is_waited_for {
            return read.await;
        }
        for wait in WAITS_MS.map(Duration::from_millis) {
            if let Ok(result) = timeout(wait, &mut read).await {
                return result;
            }
            let Ok(turn) = Arc::clone(turns).try_acquire_owned() else { continue };
            // A task, because the driver closes the connection of a command that is given up. It is no part of the probe's span,
            // as it may end later.
            let (database, turns) = (self.client.database(), Arc::clone(turns));
            let written = tokio::spawn(async move {
                write_journal(database, &turns).await;
                drop(turn);
            });
            tokio::select! {
                result = &mut read => return result,
                _ = written => {}
            }
        }
        read.await
    }
}

/// Waits until everything that the primary has written so far is in its journal, or for [`TIME_MAX`].
async fn write_journal(database: Database, turns: &Semaphore) {
    match timeout(TIME_MAX, commit_nothing(database)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.code().is_some_and(|code| REFUSED.contains(&code)) => {
            if !turns.is_closed() {
                turns.close();
                let error = error_chain(&error);
                tracing::warn!(%error, "mongod cannot be made to write its journal: until a restart, each probe waits for its interval");
            }
        }
        Ok(Err(error)) => tracing::debug!(%error, "mongod cannot be made to write its journal"),
        Err(_) => tracing::debug!("mongod does not write its journal in time"),
    }
}

/// Commits a transaction that only reads, and reads nothing. The connection string may set other concerns.
async fn commit_nothing(database: Database) -> Result<(), DriverError> {
    let journaled = WriteConcern::builder().w(Acknowledgment::Nodes(1)).journal(true).build();
    let mut session = database.client().start_session().await?;
    let begin = session.start_transaction().read_concern(ReadConcern::local()).selection_criteria(primary());
    begin.write_concern(journaled).max_commit_time(TIME_MAX).await?;
    let none = database.collection::<RawDocumentBuf>(NO_COLLECTION);
    // mongod ends it first, so that the driver learns of it, and ends the transaction.
    none.distinct("_id", Document::new()).max_time(TIME_MAX / 2).session(&mut session).await?;
    Ok(session.commit_transaction().await?)
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn the_primary_is_part_of_every_majority_of_one_or_two_members_with_data() {
        for (hello, expected) in [
            (doc! { "hosts": ["a:1"] }, true),
            (doc! { "hosts": ["a:1", "b:1"] }, true),
            (doc! { "hosts": ["a:1"], "passives": ["b:1"] }, true),
            (doc! { "hosts": ["a:1", "b:1"], "arbiters": ["c:1"] }, true),
            (doc! { "hosts": ["a:1", "b:1", "c:1"] }, false),
            (doc! { "hosts": ["a:1", "b:1"], "passives": ["c:1"] }, false),
            // Not a replica set.
            (doc! {}, false),
        ] {
            assert_eq!(is_waited_for(&hello), expected, "{hello}");
        }
    }
}
