//! Documents that no driver makes: with text that is not UTF-8, with names twice, with types that are out of use. mongod
//! stores them.
//!
//! Checks nothing: what is written here may be no BSON at all.

use bson::{Document, RawDocument, RawDocumentBuf, doc};
use mongodb::Database;
use permcached::freshness::Moment;

use super::live::operation_time;

/// The elements of a document, as bytes.
#[derive(Clone, Debug, Default)]
pub struct Raw(Vec<u8>);

impl Raw {
    /// The elements of an ordinary document.
    pub fn of(document: &Document) -> Self {
        let bytes = RawDocumentBuf::try_from(document).unwrap().into_bytes();
        Self(bytes[4..bytes.len() - 1].to_vec())
    }

    /// With one more element.
    pub fn element(mut self, kind: u8, name: &[u8], value: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend(name);
        self.0.push(0);
        self.0.extend(value);
        self
    }

    /// With the elements of an ordinary document, which may have names that are there already.
    pub fn and(mut self, document: &Document) -> Self {
        self.0.extend(Self::of(document).0);
        self
    }

    /// With the elements of another document.
    pub fn and_all(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The first element alone.
    pub fn first(&self) -> Self {
        let document = self.bytes();
        let raw = RawDocument::from_bytes(&document).unwrap();
        let element = raw.iter_elements().next().unwrap().unwrap();
        Self(self.0[..element.key().as_str().len() + 2 + element.size()].to_vec())
    }

    /// With one more text, which need not be UTF-8.
    pub fn text(self, name: &[u8], text: &[u8]) -> Self {
        self.element(0x02, name, &text_value(text))
    }

    /// With one more document.
    pub fn document(self, name: &[u8], inner: &Self) -> Self {
        self.element(0x03, name, &inner.bytes())
    }

    /// With one more array. The names of its elements are those of `items`.
    pub fn array(self, name: &[u8], items: &Self) -> Self {
        self.element(0x04, name, &items.bytes())
    }

    /// The whole document.
    pub fn bytes(&self) -> Vec<u8> {
        let length = i32::try_from(self.0.len() + 5).unwrap();
        [&length.to_le_bytes(), &*self.0, &[0]].concat()
    }
}

/// A text as a value: its length, its bytes and a NUL.
pub fn text_value(text: &[u8]) -> Vec<u8> {
    let length = i32::try_from(text.len() + 1).unwrap();
    [&length.to_le_bytes(), text, &[0]].concat()
}

/// Runs a command, and returns the moment of its effect. Every write in it must succeed.
async fn run(database: &Database, command: &Raw) -> Moment {
    let command = RawDocumentBuf::from_bytes(command.bytes()).unwrap();
    let reply = database.run_raw_command(command).await.expect("the command is right");
    assert!(!reply.contains_key("writeErrors"), "{reply}");
    operation_time(&reply)
}

/// Inserts a document, and returns the moment of that.
pub async fn insert(database: &Database, collection: &str, document: &Raw) -> Moment {
    let documents = Raw::default().document(b"0", document);
    run(database, &Raw::of(&doc! { "insert": collection }).array(b"documents", &documents)).await
}

/// Updates the document that matches, and returns the moment of that.
pub async fn update(database: &Database, collection: &str, filter: &Raw, update: &Raw) -> Moment {
    let one = Raw::default().document(b"q", filter).document(b"u", update);
    let updates = Raw::default().document(b"0", &one);
    run(database, &Raw::of(&doc! { "update": collection }).array(b"updates", &updates)).await
}

/// Deletes the document that matches, and returns the moment of that.
pub async fn delete(database: &Database, collection: &str, filter: &Raw) -> Moment {
    let one = Raw::default().document(b"q", filter).and(&doc! { "limit": 1 });
    let deletes = Raw::default().document(b"0", &one);
    run(database, &Raw::of(&doc! { "delete": collection }).array(b"deletes", &deletes)).await
}
