//! The documents that lists are measured over: files in folders that are 0 to 16 deep, their shares, and the subjects that ask.

use std::{fmt, ops::Range};

use bson::{DateTime, Document, doc, oid::ObjectId};
use futures::{StreamExt as _, stream};
use mongodb::{
    Database,
    options::{Acknowledgment, CollectionOptions, WriteConcern},
};
use permcached::schema::Schema;

/// The schema: that of `schemas/fylora.toml` with shares of folders, which also apply to what the folders contain.
pub(crate) const SCHEMA: &str = include_str!("../../schemas/fylora-sharing.toml");

/// The most folders above another one.
pub(crate) const DEPTH_MAX: u32 = 16;

/// How many ids the subjects have.
const IDS: [u32; 4] = [10, 100, 1_000, 10_000];

/// How many shares files have whose subjects are listed. A whole fact has at most 1,000 documents.
pub(crate) const READERS: [u32; 3] = [10, 100, 1_000];

/// How many files are in each folder. The last of them is deleted.
const FILES_IN_FOLDER: u32 = 20;

/// How many folders are in each folder of a tree.
const FOLDERS_IN_FOLDER: u32 = 10;

/// The users who own files, each of them as many.
const OWNERS: Range<u32> = 1_000..2_000;

/// Other users, with whom some files are shared.
const OTHERS: Range<u32> = 100_000..110_000;

/// How many documents are inserted at once, and by how many inserts at a time.
const INSERTED: u32 = 10_000;
const INSERTS: usize = 4;

/// The type of the files that the application's own query asks for.
pub(crate) const MIME: &str = "application/pdf";

const MIMES: [&str; 5] = [MIME, "image/png", "image/jpeg", "text/plain", "application/zip"];

pub(crate) fn user(number: u32) -> ObjectId {
    id(1, number)
}

pub(crate) fn file(number: u32) -> ObjectId {
    id(2, number)
}

fn folder(number: u32) -> ObjectId {
    id(3, number)
}

fn id(kind: u8, number: u32) -> ObjectId {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// Somebody who asks for lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Has shares of so many files.
    Files(u32),
    /// Has a share of a folder with so many folders in its tree, itself included.
    Folders(u32),
    /// Has a share of a folder at the top of a chain: so many folders are below it, each in the one before.
    Depth(u32),
    /// Owns a thousandth of the files.
    Owner,
}

impl Asker {
    /// How many folders are above each other below what is shared with the subject.
    pub(crate) fn depth(self) -> u32 {
        match self {
            Self::Depth(depth) => depth,
            Self::Folders(ids) => depth_of_tree(ids),
            Self::Files(_) | Self::Owner => 0,
        }
    }

    pub(crate) fn user(self) -> ObjectId {
        user(match self {
            Self::Files(ids) => 100 + ids.ilog10(),
            Self::Folders(ids) => 200 + ids.ilog10(),
            Self::Depth(depth) => 300 + depth,
            Self::Owner => OWNERS.start,
        })
    }

    /// How many ids the query for this subject has.
    pub(crate) fn ids(self) -> u32 {
        match self {
            Self::Files(ids) | Self::Folders(ids) => ids,
            Self::Depth(depth) => depth + 1,
            Self::Owner => 0,
        }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(ids) => write!(f, "shares of {ids} files"),
            Self::Folders(ids) => write!(f, "a share of a tree of {ids} folders"),
            Self::Depth(depth) => write!(f, "a share of a folder, {depth} deep below"),
            Self::Owner => write!(f, "owns a thousandth of the files"),
        }
    }
}

/// The files and folders, by their numbers.
pub(crate) struct World {
    files: u32,
    /// The folder that each folder is in.
    parents: Vec<Option<u32>>,
    /// The shared folders, with the subjects that have them.
    shared: Vec<(Asker, u32)>,
}

impl World {
    /// A world with so many files: at least 1,000, and the more ids a subject has, the more.
    pub(crate) fn new(files: u32) -> Self {
        let mut world = Self { files, parents: Vec::new(), shared: Vec::new() };
        let folders = files / FILES_IN_FOLDER;
        for ids in world.sizes() {
            let first = world.next_folder();
            world.shared.push((Asker::Folders(ids), first));
            let parent = |number: u32| number.checked_sub(1).map(|before| first + before / FOLDERS_IN_FOLDER);
            world.parents.extend((0..ids).map(parent));
        }
        for depth in 0..=DEPTH_MAX {
            let first = world.next_folder();
            world.shared.push((Asker::Depth(depth), first));
            world.add_chain(depth);
        }
        while world.next_folder() < folders {
            world.add_chain(DEPTH_MAX);
        }
        world
    }

    /// The numbers of ids of subjects for which this world is large enough.
    pub(crate) fn sizes(&self) -> Vec<u32> {
        // No more than a quarter of the folders is in one tree.
        IDS.into_iter().filter(|ids| ids * 4 * FILES_IN_FOLDER <= self.files).collect()
    }

    pub(crate) fn files(&self) -> u32 {
        self.files
    }

    /// A file with so many shares.
    pub(crate) fn shared_file(&self, readers: u32) -> ObjectId {
        file(self.shared_file_number(readers))
    }

    /// A file that is shared with one user, by the folder that is so many folders above its own.
    pub(crate) fn deep_file(&self, depth: u32) -> ObjectId {
        let top = self.shared.iter().find(|(asker, _)| *asker == Asker::Depth(depth)).expect("each depth is there").1;
        file((top + depth) * FILES_IN_FOLDER)
    }

    fn shared_file_number(&self, readers: u32) -> u32 {
        self.files - FILES_IN_FOLDER * readers.ilog10() + FILES_IN_FOLDER / 2
    }

    fn next_folder(&self) -> u32 {
        u32::try_from(self.parents.len()).expect("there are fewer than files")
    }

    fn add_chain(&mut self, depth: u32) {
        let first = self.next_folder();
        self.parents.extend((0..=depth).map(|number| number.checked_sub(1).map(|before| first + before)));
    }

    /// Stores all documents, and creates the indexes that checks, lists and the application's own query want.
    pub(crate) async fn store(&self, database: &Database, schema: &Schema) {
        let users = (0..OWNERS.end).chain(OTHERS).map(|number| doc! { "_id": user(number), "is_active": true });
        insert(database, "users", users).await;
        let folders = (0..).zip(&self.parents).map(|(number, parent)| {
            let owner = user(OWNERS.start + number % 1_000);
            doc! { "_id": folder(number), "owner_id": owner, "parent_id": parent.map(folder), "is_deleted": false }
        });
        insert(database, "folders", folders).await;
        insert(database, "files", (0..self.files).map(document_of_file)).await;
        insert(database, "shares", self.shares()).await;
        for (_, lookup) in schema.lookups().filter(|(_, lookup)| lookup.by.as_str() != "_id") {
            create_index(database, &lookup.collection, doc! { lookup.by.as_str(): 1 }).await;
        }
        for fields in [doc! { "owner_id": 1 }, doc! { "folder_id": 1 }, doc! { "mime": 1, "created_at": -1, "_id": 1 }]
        {
            create_index(database, "files", fields).await;
        }
    }

    fn shares(&self) -> impl Iterator<Item = Document> {
        let of_guests = self.sizes().into_iter().flat_map(|ids| {
            let distance = self.files / ids / FILES_IN_FOLDER * FILES_IN_FOLDER;
            (0..ids).map(move |number| (number * distance + ids.ilog10(), Asker::Files(ids).user()))
        });
        let of_readers = READERS.into_iter().flat_map(|readers| {
            let file = self.shared_file_number(readers);
            OTHERS.take(usize::try_from(readers).expect("it is small")).map(move |reader| (file, user(reader)))
        });
        let others = OTHERS.end - OTHERS.start;
        let of_others = (0..self.files / 10).map(move |number| (number * 10 + 5, user(OTHERS.start + number % others)));
        let of_files =
            of_guests.chain(of_readers).chain(of_others).map(|(number, user)| ("file_id", file(number), user));
        let of_folders = self.shared.iter().map(|(asker, number)| ("folder_id", folder(*number), asker.user()));
        (0..).zip(of_files.chain(of_folders)).map(|(number, (field, target, user))| {
            doc! { "_id": id(4, number), field: target, "shared_with_user_id": user, "share_type": "internal", "is_active": true }
        })
    }
}

/// How many folders are above the deepest folder of a tree.
fn depth_of_tree(ids: u32) -> u32 {
    let mut number = ids - 1;
    let mut depth = 0;
    while let Some(before) = number.checked_sub(1) {
        number = before / FOLDERS_IN_FOLDER;
        depth += 1;
    }
    depth
}

fn document_of_file(number: u32) -> Document {
    // The same for the same file each time.
    let mut random = fastrand::Rng::with_seed(u64::from(number));
    let created = DateTime::from_millis(1_700_000_000_000 + i64::from(random.u32(..)));
    doc! {
        "_id": file(number),
        "owner_id": user(OWNERS.start + number % 1_000),
        "folder_id": folder(number / FILES_IN_FOLDER),
        "is_deleted": number % FILES_IN_FOLDER == FILES_IN_FOLDER - 1,
        "name": format!("file {number:08}"),
        "mime": random.choice(MIMES),
        "size": random.i32(1..10_000_000),
        "created_at": created,
    }
}

/// Inserts documents without waiting for the journal.
async fn insert(database: &Database, collection: &str, documents: impl Iterator<Item = Document>) {
    let concern = WriteConcern::builder().w(Acknowledgment::Nodes(1)).journal(false).build();
    let options = CollectionOptions::builder().write_concern(concern).build();
    let collection = database.collection_with_options::<Document>(collection, options);
    let mut documents = documents.peekable();
    let batches = std::iter::from_fn(|| {
        documents.peek()?;
        Some(documents.by_ref().take(usize::try_from(INSERTED).expect("it is small")).collect::<Vec<_>>())
    });
    let inserts = stream::iter(batches).map(|batch| {
        let collection = collection.clone();
        async move { collection.insert_many(batch).ordered(false).await.expect("mongod accepts them") }
    });
    inserts.buffer_unordered(INSERTS).for_each(|_| async {}).await;
}

/// Creates an index, unless it exists.
async fn create_index(database: &Database, collection: &str, fields: Document) {
    let name = fields.keys().cloned().collect::<Vec<_>>().join("_");
    let index = doc! { "key": fields, "name": name };
    database.run_command(doc! { "createIndexes": collection, "indexes": [index] }).await.expect("an index");
}
