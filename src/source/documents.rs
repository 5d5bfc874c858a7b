//! Documents in memory, from a directory of `<collection>.jsonl` as `mongoexport` writes it: one document a line, in
//! canonical or relaxed Extended JSON.
//!
//! The same facts come out as MongoDB would give: conditions are applied as they are pushed down there.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bson::Document;

use super::{Deadline, Loaded, Source, SourceError};
use crate::{
    fact::{DocumentId, Fact, FactKey, document_keys},
    freshness::{Clock, Moment},
    question::Id,
    schema::Schema,
};

/// The facts of a set of documents.
#[derive(Debug)]
pub struct Documents {
    facts: Vec<HashMap<Id, Arc<Fact>>>,
    absent: Arc<Fact>,
    revision: Moment,
    /// How many documents each collection of the schema has; none where its file is missing.
    counts: BTreeMap<String, Option<usize>>,
}

/// What is wrong with a directory of documents.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// It cannot be read.
    #[error("cannot read the documents in `{}`: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
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
    /// Reads the files of the schema's collections. A file that is missing is an empty collection.
    ///
    /// # Errors
    /// Everything that is wrong, each with its line.
    pub fn read(schema: &Schema, directory: &Path) -> Result<Self, Vec<DocumentsError>> {
        let unreadable = |path: &Path, source| DocumentsError::Read { path: path.to_owned(), source };
        if let Err(error) = fs::read_dir(directory) {
            return Err(vec![unreadable(directory, error)]);
        }
        let mut collections = BTreeMap::new();
        let mut errors = Vec::new();
        for name in schema.collections() {
            let path = directory.join(format!("{name}.jsonl"));
            match fs::read_to_string(&path) {
                Ok(text) => {
                    collections.insert(name.to_owned(), read_lines(&path, &text, &mut errors));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => errors.push(unreadable(&path, error)),
            }
        }
        if errors.is_empty() { Ok(Self::new(schema, &collections)) } else { Err(errors) }
    }

    /// The facts of documents by collection.
    #[must_use]
    pub fn new(schema: &Schema, collections: &BTreeMap<String, Vec<Document>>) -> Self {
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
            let read = |(key, documents): (Id, Vec<&Document>)| (key, Arc::new(Fact::read(schema, id, &documents)));
            facts.push(found.into_iter().map(read).collect());
        }
        let count = |name: &str| (name.to_owned(), collections.get(name).map(Vec::len));
        let counts = schema.collections().map(count).collect();
        let absent = Arc::new(Fact::absent());
        Self { facts, absent, revision: Moment::from_count(1), counts }
    }

    /// How many documents each collection of the schema has; none where its file is missing.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<String, Option<usize>> {
        &self.counts
    }
}

fn read_lines(path: &Path, text: &str, errors: &mut Vec<DocumentsError>) -> Vec<Document> {
    let mut ids = HashSet::new();
    let mut documents = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() {
            continue;
        }
        match read_line(text) {
            Ok(document) if !ids.insert(DocumentId::of(&document)) => {
                let what = format!("a document with the _id {} is there already", DocumentId::of(&document));
                errors.push(DocumentsError::Line { path: path.to_owned(), line, what });
            }
            Ok(document) => documents.push(document),
            Err(what) => errors.push(DocumentsError::Line { path: path.to_owned(), line, what }),
        }
    }
    documents
}

fn read_line(text: &str) -> Result<Document, String> {
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(|error| {
        let hint = if text.trim_start().starts_with('[') { "; export without --jsonArray" } else { "" };
        format!("not a document in Extended JSON: {error}{hint}")
    })?;
    let document = Document::try_from(json).map_err(|error| format!("not a document in Extended JSON: {error}"))?;
    if document.contains_key("_id") { Ok(document) } else { Err("the document has no _id".to_owned()) }
}

#[async_trait]
impl Source for Documents {
    fn clock(&self) -> Clock {
        Clock::Revision
    }

    async fn probe(&self, _: Deadline) -> Result<Moment, SourceError> {
        Ok(self.revision)
    }

    async fn load(&self, keys: Vec<FactKey>, _: Moment, _: Deadline) -> Vec<(FactKey, Result<Loaded, SourceError>)> {
        let load = |key: FactKey| {
            let found = self.facts.get(key.lookup.index()).and_then(|facts| facts.get(&key.id));
            let fact = Arc::clone(found.unwrap_or(&self.absent));
            (key, Ok(Loaded { fact, stamp: self.revision }))
        };
        keys.into_iter().map(load).collect()
    }
}
