//! Documents in memory, read from a directory of `<collection>.jsonl` files as `mongoexport` writes them: one document a line,
//! in canonical or relaxed Extended JSON.
//!
//! Returns the same facts as MongoDB would, as it applies the conditions that are pushed down there. When a file changes, all
//! files are read again. Each such revision is a moment of this source. Writes no file, and does not watch the directory:
//! each probe checks the files.

mod files;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use files::{Files, FilesState};
use tokio::sync::{mpsc, watch};

use super::{Deadline, Listed, Listing, Source, SourceError, survey::Survey};
use crate::{
    diagnosis::{Diagnosis, Subject, error_chain},
    fact::{DocumentId, Fact, FactKey, document_keys},
    freshness::{Change, ChangeBatch, Changed, Clock, Moment},
    question::{CollectionId, Id, LookupId},
    schema::Schema,
};

/// Documents by collection.
pub type Collections = BTreeMap<String, Vec<Document>>;

/// How many change batches wait to be received.
const WAITING_MAX: usize = 16;

/// The facts of a directory of documents, or of documents that never change.
#[derive(Debug)]
pub struct Documents {
    schema: Arc<Schema>,
    current: RwLock<Arc<Snapshot>>,
    /// The files; `None` for documents that never change.
    files: Option<Files>,
    /// Sends what changed whenever the files were read again.
    changes: mpsc::Sender<ChangeBatch>,
    /// The receiver, until it is taken.
    receiver: Mutex<Option<mpsc::Receiver<ChangeBatch>>>,
    /// Why the current facts are not those of the files.
    trouble: watch::Sender<Option<String>>,
    /// What a look at the documents has found, when they were read first: all of it, and the fields that none has.
    survey: [Vec<Diagnosis>; 2],
}

/// The facts of one revision.
#[derive(Debug)]
struct Snapshot {
    facts: Vec<HashMap<Id, Found>>,
    /// The documents of the schema's collections, for listings.
    documents: Collections,
    revision: Moment,
    /// How many documents each collection of the schema has; `None` if its file is missing.
    counts: BTreeMap<String, Option<usize>>,
}

/// What a lookup finds for one key.
#[derive(Debug)]
struct Found {
    /// The whole fact.
    fact: Fact,
    /// The documents, if they are more than a fact may contain: filtered facts are made of them.
    documents: Vec<Document>,
}

impl Found {
    /// The fact of a key, whole or filtered to a subject.
    fn fact(&self, schema: &Schema, key: FactKey) -> Fact {
        match key.subject() {
            None => self.fact.clone(),
            Some(subject) if !self.fact.is_over_limit() => self.fact.filtered_to(schema, subject),
            Some(_) => Fact::read(schema, key, self.fact.stamp(), &self.documents.iter().collect::<Vec<_>>()),
        }
    }

    /// Whether one of these documents is among those that were found.
    fn is_made_of(&self, ids: &HashSet<DocumentId>) -> bool {
        self.fact.documents().iter().any(|id| ids.contains(id))
            || self.documents.iter().any(|document| ids.contains(&DocumentId::of(document)))
    }

    /// Whether facts of this key may be others than before.
    fn may_differ(&self, before: &Self) -> bool {
        self.fact.is_over_limit() || before.fact.is_over_limit() || !self.fact.has_same_content(&before.fact)
    }
}

/// How many documents of a collection are looked at for what does not fit the schema.
const SURVEYED_MAX: usize = 1_000;

/// Looks at the first, the last and some other documents of each collection. Returns everything that does not fit the schema, and
/// the fields alone that no document has.
fn survey(schema: &Schema, collections: &Collections) -> [Vec<Diagnosis>; 2] {
    let of_collection = |name: &str| collections.get(name).map_or(&[][..], Vec::as_slice);
    let (mut all, mut missing_fields) = (Vec::new(), Vec::new());
    for name in schema.collections() {
        let documents = of_collection(name);
        let mut survey = Survey::new(schema, name, Subject::Documents);
        let third = SURVEYED_MAX / 3;
        let step = (documents.len() / third).max(1);
        let (first, last) = (documents.iter().take(third), documents.iter().rev().take(third));
        for document in first.chain(last).chain(documents.iter().step_by(step)).take(SURVEYED_MAX) {
            survey.add(document, document.keys().cloned());
        }
        for edge in survey.edges() {
            let (target, ids) = edge.targets();
            let existing: HashSet<DocumentId> = of_collection(target).iter().map(DocumentId::of).collect();
            let exists = |id: &Bson| existing.contains(&DocumentId::of(&doc! { "_id": id.clone() }));
            edge.set_existing(ids.into_iter().filter(exists));
        }
        all.extend(survey.diagnoses());
        missing_fields.extend(survey.missing_fields());
    }
    [all, missing_fields]
}

/// What is wrong with a directory of documents.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// A file or the directory cannot be read.
    #[error("cannot read the documents in `{}`", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that existed before does not exist any more.
    #[error("{} is gone: put it back, or start again without it", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// A line of a file is not a valid document.
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
    /// Reads the files of the schema's collections. Each probe checks them for changes. A missing file is an empty collection.
    ///
    /// # Errors
    /// Everything that is wrong, each error with its line.
    pub fn read(schema: &Arc<Schema>, directory: &Path) -> Result<Self, Vec<DocumentsError>> {
        let (files, collections) = Files::open(directory.to_owned(), schema)?;
        let survey = survey(schema, &collections);
        Ok(Self { files: Some(files), survey, ..Self::new(schema, &collections) })
    }

    /// The facts of documents by collection. They never change.
    #[must_use]
    pub fn new(schema: &Arc<Schema>, collections: &Collections) -> Self {
        let (changes, receiver) = mpsc::channel(WAITING_MAX);
        let first = Snapshot::new(schema, collections, Moment::from_count(1));
        Self {
            schema: Arc::clone(schema),
            current: RwLock::new(Arc::new(first)),
            files: None,
            changes,
            receiver: Mutex::new(Some(receiver)),
            trouble: watch::Sender::new(None),
            survey: [Vec::new(), Vec::new()],
        }
    }

    /// How many documents each collection of the schema has; `None` if its file is missing.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, Option<usize>> {
        self.current().counts.clone()
    }

    /// What does not fit the schema in the documents that were read first.
    #[must_use]
    pub fn findings(&self) -> &[Diagnosis] {
        let [all, _] = &self.survey;
        all
    }

    /// The moment of the current facts.
    #[must_use]
    pub fn revision(&self) -> Moment {
        self.current().revision
    }

    /// Receives what changes from now on. There is one receiver: a second call returns `None`.
    #[must_use]
    pub fn changes(&self) -> Option<mpsc::Receiver<ChangeBatch>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Why the files cannot be read; `None` while the current facts are those of the files.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the current facts, and sends what that changes.
    fn replace(&self, collections: &Collections) {
        let before = self.current();
        let after = Arc::new(Snapshot::new(&self.schema, collections, before.revision.next()));
        let changes = before.changes(&after);
        // Listings may look at fields that no fact shows.
        if changes.is_empty() && before.documents == after.documents && before.counts == after.counts {
            return;
        }
        let is_of_checks = |change: &&Change| match &change.what {
            Changed::Key(key) => !self.schema.lookup(key.lookup).is_reverse,
            Changed::Everything | Changed::Collection(_) | Changed::Document { .. } | Changed::Subject(_) => true,
        };
        let facts = changes.iter().filter(is_of_checks).count();
        tracing::info!(facts, "documents have changed on disk, and were read again");
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&after);
        let change_batch = ChangeBatch { from: before.revision, to: after.revision, changes };
        // A change batch that does not fit in the queue shows as a gap before the next one.
        let _not_sent = self.changes.try_send(change_batch);
    }

    /// Reads the files if they have changed. If one of them is broken, the current facts stay, and the errors are reported.
    async fn refresh(&self, files: &Files) {
        match files.check(&self.schema).await {
            FilesState::Same => {}
            FilesState::Changed(collections) => {
                self.replace(&collections);
                self.trouble.send_replace(None);
            }
            FilesState::Broken(errors) => {
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
                if lookup.wanted.as_ref().is_none_or(|wanted| wanted.matches(document)) {
                    let mut keys = HashSet::new();
                    document_keys(lookup, document, &mut |key| {
                        keys.insert(key);
                    });
                    for key in keys {
                        found.entry(key).or_default().push(document);
                    }
                }
            }
            let read = |(key, documents): (Id, Vec<&Document>)| {
                let name = FactKey::whole(id, key.clone());
                let fact = Fact::read(schema, name, revision, &documents);
                let kept = documents.into_iter().filter(|_| fact.is_over_limit()).cloned().collect();
                (key, Found { fact, documents: kept })
            };
            facts.push(found.into_iter().map(read).collect());
        }
        let count = |name: &str| (name.to_owned(), collections.get(name).map(Vec::len));
        let kept = |name: &str| Some((name.to_owned(), collections.get(name)?.clone()));
        let documents = schema.collections().filter_map(kept).collect();
        Self { facts, documents, revision, counts: schema.collections().map(count).collect() }
    }

    /// The keys whose facts are different in `after`.
    fn changes(&self, after: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (lookup, (before, now)) in (0..).map(LookupId).zip(self.facts.iter().zip(&after.facts)) {
            let gone = before.keys().filter(|id| !now.contains_key(id));
            let is_new = |id, found: &Found| before.get(id).is_none_or(|before| found.may_differ(before));
            let changed = now.iter().filter(|(id, found)| is_new(*id, found)).map(|(id, _)| id);
            changes.extend(gone.chain(changed).map(|id| {
                let key = FactKey::whole(lookup, id.clone());
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
            self.refresh(files).await;
        }
        Ok(self.revision())
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        _: &[FactKey],
        _: Moment,
        _: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let snapshot = self.current();
        let load = |key: FactKey| {
            let found = snapshot.facts.get(key.lookup.index()).and_then(|facts| facts.get(&key.id));
            let fact = match found {
                Some(found) => found.fact(&self.schema, key.clone()),
                None => Fact::absent(key.clone(), snapshot.revision),
            };
            (key, Ok(fact))
        };
        keys.into_iter().map(load).collect()
    }

    /// Only the fields that no document has: documents for tests have values of wrong types on purpose.
    async fn survey(&self) -> Vec<Diagnosis> {
        let [_, missing_fields] = &self.survey;
        missing_fields.clone()
    }

    async fn list(&self, listing: Listing, _: Moment, _: Deadline) -> Result<Listed, SourceError> {
        let snapshot = self.current();
        let documents = snapshot.documents.get(self.schema.collection_name(listing.collection)).into_iter().flatten();
        Ok(listing.of_documents(documents, snapshot.revision))
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
            let made_of = facts.filter(|(_, found)| found.is_made_of(&ids));
            keys.extend(made_of.map(|(id, _)| FactKey::whole(lookup, id.clone())));
        }
        Ok(keys)
    }
}
