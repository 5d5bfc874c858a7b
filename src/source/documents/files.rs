//! The files that documents are read from, and whether they have changed.
//!
//! Makes no facts: `documents` does that.

mod unrepeated;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bson::Document;
use tokio::sync::Mutex;
use unrepeated::Unrepeated;

use super::{Collections, DocumentsError};
use crate::{fact::DocumentId, schema::Schema};

/// A file that was written less than this ago may be written again without a change of its modification time.
const UNSETTLED_TIME: Duration = Duration::from_secs(1);

/// A directory of documents.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    /// What was found when they were last read. A check of the files has the lock.
    last: Arc<Mutex<Last>>,
}

/// What was found when the files were last read.
#[derive(Debug)]
struct Last {
    /// Their state at the last attempt, even if that failed.
    seen: Seen,
    /// The files that existed when all could last be read. If one of them is gone, that is an error, not an empty collection.
    existing: BTreeSet<PathBuf>,
}

/// What distinguishes one state of the files from another.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    files: BTreeMap<PathBuf, Option<FileSeen>>,
    /// Whether one of them may be written again without any visible difference.
    is_unsettled: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct FileSeen {
    modified: SystemTime,
    length: u64,
    /// The inode: another file under the same name has another one.
    #[cfg(unix)]
    inode: u64,
}

/// What a check of the files has found.
#[derive(Debug)]
pub(super) enum FilesState {
    /// The files have not changed.
    Same,
    /// The files have changed, and hold these documents.
    Changed(Collections),
    /// The files have changed and cannot be read.
    Broken(Vec<DocumentsError>),
}

impl Files {
    /// Reads them for the first time.
    pub(super) fn open(directory: PathBuf, schema: &Schema) -> Result<(Self, Collections), Vec<DocumentsError>> {
        let mut last = Last { seen: Seen::now(&directory, schema), existing: BTreeSet::new() };
        let collections = last.read(&directory, schema)?;
        Ok((Self { directory, last: Arc::new(Mutex::new(last)) }, collections))
    }

    /// Reads them again if they have changed.
    pub(super) async fn check(&self, schema: &Arc<Schema>) -> FilesState {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        let (directory, schema) = (self.directory.clone(), Arc::clone(schema));
        let checked = tokio::task::spawn_blocking(move || {
            let seen = Seen::now(&directory, &schema);
            if seen == last.seen && !seen.is_unsettled {
                return FilesState::Same;
            }
            last.seen = seen;
            match last.read(&directory, &schema) {
                Ok(collections) => FilesState::Changed(collections),
                Err(errors) => FilesState::Broken(errors),
            }
        });
        checked.await.unwrap_or(FilesState::Same)
    }
}

impl Last {
    /// Reads the files. A file that is written meanwhile differs from what was seen, and is read again at the next check.
    fn read(&mut self, directory: &Path, schema: &Schema) -> Result<Collections, Vec<DocumentsError>> {
        let collections = read(directory, schema, &self.existing)?;
        self.existing = collections.keys().map(|name| path_of(directory, name)).collect();
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
        let is_unsettled = files
            .values()
            .flatten()
            .any(|file| now.duration_since(file.modified).map_or(true, |age| age < UNSETTLED_TIME));
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
            inode: std::os::unix::fs::MetadataExt::ino(&metadata),
        })
    }
}

fn path_of(directory: &Path, collection: &str) -> PathBuf {
    directory.join(format!("{collection}.jsonl"))
}

fn read(directory: &Path, schema: &Schema, existing: &BTreeSet<PathBuf>) -> Result<Collections, Vec<DocumentsError>> {
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
                if existing.contains(&path) {
                    errors.push(DocumentsError::Gone { path });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData && is_utf_16(&path) => {
                let what = "UTF-16, not UTF-8: write it with mongoexport --out, not with `>` in PowerShell, or convert it with \
                            `iconv -f UTF-16 -t UTF-8`";
                errors.push(DocumentsError::Line { path, line: 1, what: what.to_owned() });
            }
            Err(error) => errors.push(unreadable(&path, error)),
        }
    }
    if errors.is_empty() { Ok(collections) } else { Err(errors) }
}

/// Whether a file begins with the mark of UTF-16.
fn is_utf_16(path: &Path) -> bool {
    let mut mark = [0; 2];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut mark));
    read.is_ok() && matches!(mark, [0xff, 0xfe] | [0xfe, 0xff])
}

fn read_lines(path: &Path, text: &str, errors: &mut Vec<DocumentsError>) -> Vec<Document> {
    let mut ids = HashSet::new();
    let mut documents = Vec::new();
    // Some editors and shells begin a file with this mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some((line, what)) = another_form(text) {
        errors.push(DocumentsError::Line { path: path.to_owned(), line, what });
        return documents;
    }
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() {
            continue;
        }
        match read_line(text) {
            Ok(document) if !ids.insert(DocumentId::of(&document)) => {
                let what = format!("another document has the same _id {}", DocumentId::of(&document));
                errors.push(DocumentsError::Line { path: path.to_owned(), line, what });
            }
            Ok(document) => documents.push(document),
            Err(what) => errors.push(DocumentsError::Line { path: path.to_owned(), line, what }),
        }
    }
    documents
}

/// What is wrong with a file that is JSON, but not one document per line, and in which line that shows. One error says it for all
/// lines.
fn another_form(text: &str) -> Option<(usize, String)> {
    let (line, first) = (1..).zip(text.lines()).find(|(_, line)| !line.trim().is_empty())?;
    let what = if first.trim_start().starts_with('[') {
        "a JSON array, not one document per line: export without --jsonArray, or convert it with `jq -c '.[]'`"
    } else if first.trim() == "{" {
        "a document that is spread over several lines, not one document per line: export without --pretty, or convert it with \
         `jq -c .`"
    } else {
        return None;
    };
    Some((line, what.to_owned()))
}

fn read_line(text: &str) -> Result<Document, String> {
    let wrong = |error| {
        let hint = if text.trim_start().starts_with('[') { "; export without --jsonArray" } else { "" };
        format!("not a document in Extended JSON: {error}{hint}")
    };
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(wrong)?;
    // The map has kept one value of each name.
    let _unrepeated: Unrepeated = serde_json::from_str(text).map_err(wrong)?;
    let document = Document::try_from(json).map_err(|error| format!("not a document in Extended JSON: {error}"))?;
    if document.contains_key("_id") { Ok(document) } else { Err("the document has no _id".to_owned()) }
}
