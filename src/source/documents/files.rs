//! The files that documents are read from, and whether they have changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bson::Document;
use tokio::sync::Mutex;

use super::{Collections, DocumentsError};
use crate::{fact::DocumentId, schema::Schema};

/// A file that was written less than this ago may be written again without its times telling.
const UNSETTLED: Duration = Duration::from_secs(1);

/// A directory of documents.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    /// What was found when they were read last. Who looks at them holds the lock.
    last: Arc<Mutex<Last>>,
}

/// What was found at one time and another.
#[derive(Debug)]
struct Last {
    /// When they were read last, for better or worse.
    seen: Seen,
    /// The files there were when all of them could be read. One that is gone is no empty one.
    there: BTreeSet<PathBuf>,
}

/// What tells one state of the files from another.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    files: BTreeMap<PathBuf, Option<FileSeen>>,
    /// Whether one of them may be written again without being told from what it is now.
    is_unsettled: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct FileSeen {
    modified: SystemTime,
    length: u64,
    /// Another file of the same name has another one.
    #[cfg(unix)]
    number: u64,
}

/// What a look at the files has found.
#[derive(Debug)]
pub(super) enum Look {
    /// What was read last.
    Same,
    /// Something else.
    Changed(Collections),
    /// Something that cannot be read.
    Broken(Vec<DocumentsError>),
}

impl Files {
    /// Reads them for the first time.
    pub(super) fn open(directory: PathBuf, schema: &Schema) -> Result<(Self, Collections), Vec<DocumentsError>> {
        let mut last = Last { seen: Seen::now(&directory, schema), there: BTreeSet::new() };
        let collections = last.read(&directory, schema)?;
        Ok((Self { directory, last: Arc::new(Mutex::new(last)) }, collections))
    }

    /// Reads them again if they are not what they were.
    pub(super) async fn look(&self, schema: &Arc<Schema>) -> Look {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        let (directory, schema) = (self.directory.clone(), Arc::clone(schema));
        let look = tokio::task::spawn_blocking(move || {
            let seen = Seen::now(&directory, &schema);
            if seen == last.seen && !seen.is_unsettled {
                return Look::Same;
            }
            last.seen = seen;
            match last.read(&directory, &schema) {
                Ok(collections) => Look::Changed(collections),
                Err(errors) => Look::Broken(errors),
            }
        });
        look.await.unwrap_or(Look::Same)
    }
}

impl Last {
    /// Reads the files. One that is written meanwhile is read again at the next look, as it is not what was seen before.
    fn read(&mut self, directory: &Path, schema: &Schema) -> Result<Collections, Vec<DocumentsError>> {
        let collections = read(directory, schema, &self.there)?;
        self.there = collections.keys().map(|name| path_of(directory, name)).collect();
        Ok(collections)
    }
}

impl Seen {
    fn now(directory: &Path, schema: &Schema) -> Self {
        let now = SystemTime::now();
        let files: BTreeMap<_, _> = schema
            .collections()
            .map(|name| {
                let path = path_of(directory, name);
                let seen = FileSeen::of(&path);
                (path, seen)
            })
            .collect();
        let is_unsettled =
            files.values().flatten().any(|file| now.duration_since(file.modified).map_or(true, |age| age < UNSETTLED));
        Self { files, is_unsettled }
    }
}

impl FileSeen {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            length: metadata.len(),
            #[cfg(unix)]
            number: std::os::unix::fs::MetadataExt::ino(&metadata),
        })
    }
}

fn path_of(directory: &Path, collection: &str) -> PathBuf {
    directory.join(format!("{collection}.jsonl"))
}

fn read(directory: &Path, schema: &Schema, there: &BTreeSet<PathBuf>) -> Result<Collections, Vec<DocumentsError>> {
    let unreadable = |path: &Path, source| DocumentsError::Read { path: path.to_owned(), source };
    if let Err(error) = fs::read_dir(directory) {
        return Err(vec![unreadable(directory, error)]);
    }
    let mut collections = BTreeMap::new();
    let mut errors = Vec::new();
    for name in schema.collections() {
        let path = path_of(directory, name);
        match fs::read_to_string(&path) {
            Ok(text) => {
                collections.insert(name.to_owned(), read_lines(&path, &text, &mut errors));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if there.contains(&path) {
                    errors.push(DocumentsError::Gone { path });
                }
            }
            Err(error) => errors.push(unreadable(&path, error)),
        }
    }
    if errors.is_empty() { Ok(collections) } else { Err(errors) }
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
