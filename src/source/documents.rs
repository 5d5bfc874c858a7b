//! Documents in memory, from a directory of `<collection>.jsonl` as `mongoexport` writes it: one document a line, in
//! canonical or relaxed Extended JSON.
//!
//! The same facts come out as MongoDB would give: conditions are applied as they are pushed down there. Files that change are
//! read again, as a whole; that is a revision, and revisions are the moments of this source.

mod files;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use async_trait::async_trait;
use bson::Document;
use files::{Files, Look};
use tokio::sync::{mpsc, watch};

use super::{Deadline, Source, SourceError};
use crate::{
    diagnosis::error_chain,
    fact::{DocumentId, Fact, FactKey, document_keys},
    freshness::{Change, ChangeBatch, Changed, Clock, Moment},
    question::{CollectionId, Id, LookupId},
    schema::Schema,
};

/// Documents by collection.
pub type Collections = BTreeMap<String, Vec<Document>>;

/// How many statements wait to be heard.
const UNHEARD_MAX: usize = 16;

/// The facts of a directory of documents, or of documents that never change.
#[derive(Debug)]
pub struct Documents {
    schema: Arc<Schema>,
    current: RwLock<Arc<Snapshot>>,
    /// Where they are read from, and what was found there last.
    files: Option<Files>,
    /// What reading them again has changed.
    changes: mpsc::Sender<ChangeBatch>,
    /// Who hears it.
    listener: Mutex<Option<mpsc::Receiver<ChangeBatch>>>,
    /// Why the files are not what is answered from.
    trouble: watch::Sender<Option<String>>,
}

/// The facts of one revision.
#[derive(Debug)]
struct Snapshot {
    facts: Vec<HashMap<Id, Fact>>,
    revision: Moment,
    /// How many documents each collection of the schema has; none where its file is missing.
    counts: BTreeMap<String, Option<usize>>,
}

/// What is wrong with a directory of documents.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// It cannot be read.
    #[error("cannot read the documents in `{}`", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was there before.
    #[error("{} is gone: put it back, or start again without it", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// A line is not a document.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

impl Documents {
    /// Reads the files of the schema's collections, and looks at them again at each probe. A file that is missing is an empty
    /// collection.
    ///
    /// # Errors
    /// Everything that is wrong, each with its line.
    pub fn read(schema: &Arc<Schema>, directory: &Path) -> Result<Self, Vec<DocumentsError>> {
        let (files, collections) = Files::open(directory.to_owned(), schema)?;
        Ok(Self { files: Some(files), ..Self::new(schema, &collections) })
    }

    /// The facts of documents by collection. They never change.
    #[must_use]
    pub fn new(schema: &Arc<Schema>, collections: &Collections) -> Self {
        let (changes, listener) = mpsc::channel(UNHEARD_MAX);
        let first = Snapshot::new(schema, collections, Moment::from_count(1));
        Self {
            schema: Arc::clone(schema),
            current: RwLock::new(Arc::new(first)),
            files: None,
            changes,
            listener: Mutex::new(Some(listener)),
            trouble: watch::Sender::new(None),
        }
    }

    /// How many documents each collection of the schema has; none where its file is missing.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, Option<usize>> {
        self.current().counts.clone()
    }

    /// The moment of what is read now.
    #[must_use]
    pub fn revision(&self) -> Moment {
        self.current().revision
    }

    /// What changes from now on. For one listener; a second one gets nothing.
    #[must_use]
    pub fn changes(&self) -> Option<mpsc::Receiver<ChangeBatch>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Why the files are not what is answered from, while that is so: they cannot be read as they are.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what was read instead of what there is, and says what that changes.
    fn replace(&self, collections: &Collections) {
        let before = self.current();
        let after = Arc::new(Snapshot::new(&self.schema, collections, before.revision.next()));
        let changes = before.changes(&after);
        if changes.is_empty() && before.counts == after.counts {
            return;
        }
        tracing::info!(facts = changes.len(), "documents have changed on disk, and were read again");
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&after);
        let batch = ChangeBatch { from: before.revision, to: after.revision, changes };
        // What is not heard shows as a gap in what is.
        let _not_heard = self.changes.try_send(batch);
    }

    /// Looks at the files, and reads them if they have changed. Files that are broken change nothing but that they are said
    /// to be.
    async fn look(&self, files: &Files) {
        match files.look(&self.schema).await {
            Look::Same => {}
            Look::Changed(collections) => {
                self.replace(&collections);
                self.trouble.send_replace(None);
            }
            Look::Broken(errors) => {
                let all =
                    Some(errors.iter().map(|error| error_chain(error).to_string()).collect::<Vec<_>>().join("; "));
                if *self.trouble.borrow() == all {
                    return;
                }
                for error in &errors {
                    tracing::error!("{}: the documents that were read before it are kept", error_chain(error));
                }
                self.trouble.send_replace(all);
            }
        }
    }
}

impl Snapshot {
    fn new(schema: &Schema, collections: &Collections, revision: Moment) -> Self {
        let mut facts = Vec::new();
        for (id, lookup) in schema.lookups() {
            let mut found: HashMap<Id, Vec<&Document>> = HashMap::new();
            for document in collections.get(&*lookup.collection).into_iter().flatten() {
                if lookup.pushed.as_ref().is_none_or(|condition| condition.matches(document)) {
                    let mut keys = HashSet::new();
                    document_keys(&lookup.by, document, &mut |key| {
                        keys.insert(key);
                    });
                    for key in keys {
                        found.entry(key).or_default().push(document);
                    }
                }
            }
            let read = |(key, documents): (Id, Vec<&Document>)| {
                let name = FactKey { lookup: id, id: key.clone() };
                (key, Fact::read(schema, name, revision, &documents))
            };
            facts.push(found.into_iter().map(read).collect());
        }
        let count = |name: &str| (name.to_owned(), collections.get(name).map(Vec::len));
        Self { facts, revision, counts: schema.collections().map(count).collect() }
    }

    /// The keys under which another fact is found in `after`.
    fn changes(&self, after: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (lookup, (before, now)) in (0..).map(LookupId).zip(self.facts.iter().zip(&after.facts)) {
            let gone = before.keys().filter(|id| !now.contains_key(id));
            let is_new = |id, fact: &Fact| before.get(id).is_none_or(|before| !fact.has_same_content(before));
            let changed = now.iter().filter(|(id, fact)| is_new(*id, fact)).map(|(id, _)| id);
            changes.extend(gone.chain(changed).map(|id| {
                let key = FactKey { lookup, id: id.clone() };
                Change { at: after.revision, what: Changed::Key(key) }
            }));
        }
        changes
    }
}

#[async_trait]
impl Source for Documents {
    fn clock(&self) -> Clock {
        Clock::Revision
    }

    async fn probe(&self, _: Deadline) -> Result<Moment, SourceError> {
        if let Some(files) = &self.files {
            self.look(files).await;
        }
        Ok(self.revision())
    }

    async fn load(&self, keys: Vec<FactKey>, _: Moment, _: Deadline) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let snapshot = self.current();
        let load = |key: FactKey| {
            let found = snapshot.facts.get(key.lookup.index()).and_then(|facts| facts.get(&key.id));
            let absent = || Fact::absent(key.clone(), snapshot.revision);
            (key.clone(), Ok(found.cloned().unwrap_or_else(absent)))
        };
        keys.into_iter().map(load).collect()
    }

    async fn keys_of(
        &self,
        collection: CollectionId,
        ids: Vec<Id>,
        _: Moment,
        _: Deadline,
    ) -> Result<Vec<FactKey>, SourceError> {
        let ids: HashSet<DocumentId> = ids.into_iter().map(DocumentId::Id).collect();
        let snapshot = self.current();
        let mut keys = Vec::new();
        for (lookup, _) in self.schema.lookups().filter(|(_, lookup)| lookup.collection_id == collection) {
            let facts = snapshot.facts.get(lookup.index()).into_iter().flatten();
            let made_of = facts.filter(|(_, fact)| fact.documents().iter().any(|id| ids.contains(id)));
            keys.extend(made_of.map(|(id, _)| FactKey { lookup, id: id.clone() }));
        }
        Ok(keys)
    }
}
