//! Makes the primary write its journal while a probe waits for that (docs/freshness.md, point 5).
//!
//! In a replica set in which every majority includes the primary, a linearizable read waits for the primary's journal, which
//! mongod writes every 100 ms. It writes the journal at once when a transaction is committed with `j: true`, even if that
//! has only read.
//!
//! Proves nothing: a probe is answered by its linearizable read alone, whatever becomes of these transactions.

use std::{pin::pin, time::Duration};

use bson::{Document, RawDocumentBuf};
use mongodb::{
    Database,
    options::{Acknowledgment, ReadConcern, WriteConcern},
};
use tokio::time::timeout;

use super::{DriverError, MongoDb, primary};

/// How many milliseconds a probe waits before each transaction. The first one may come before the read has added its entry to the oplog. After
/// the last one, mongod's own interval is over.
const WAITS_MS: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// How long one transaction may take.
const TIME_MAX: Duration = Duration::from_secs(1);

/// The collection that the transactions read. There should be none of this name: an open transaction would delay a drop of the
/// collection or a new index.
const NO_COLLECTION: &str = "permcached.no_collection";

/// Whether linearizable reads wait for the journal of the primary, by its reply to `hello`: at most two members have data, so every
/// majority includes it. Hidden members are not shown. Decides only how long probes take.
pub(super) fn is_waited_for(hello: &Document) -> bool {
    let members = |name| hello.get_array(name).map_or(0, Vec::len);
    (1..=2).contains(&(members("hosts") + members("passives")))
}

impl MongoDb {
    /// Returns what a linearizable read returns. While that is not answered, the primary writes its journal again and again, if the
    /// read may wait for it.
    pub(super) async fn with_journal<T>(&self, read: impl Future<Output = T>) -> T {
        let mut read = pin!(read);
        for wait in WAITS_MS.map(Duration::from_millis).into_iter().filter(|_| self.waits_for_journal) {
            if let Ok(result) = timeout(wait, &mut read).await {
                return result;
            }
            // A task, because the driver closes the connection of a command that is given up. It is no part of the probe's span,
            // as it may end later.
            let written = tokio::spawn(write_journal(self.client.database()));
            tokio::select! {
                result = &mut read => return result,
                _ = written => {}
            }
        }
        read.await
    }
}

/// Waits until everything that the primary has written so far is in its journal, or for [`TIME_MAX`].
async fn write_journal(database: Database) {
    match timeout(TIME_MAX, commit_nothing(database)).await {
        Ok(Ok(())) => {}
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
    none.distinct("_id", Document::new()).session(&mut session).await?;
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
