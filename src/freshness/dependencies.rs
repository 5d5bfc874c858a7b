//! Dependencies: the names by which callers that keep answers learn which changes concern them (docs/freshness.md, "Kept answers").
//!
//! A name is a 64-bit hash of what has a mark: a document, a lookup key or a subject. It is the same on every instance of a release. Two
//! things may share a name; then a change of one looks like a change of the other, which costs a check.
//!
//! Keeps no answers: callers do.

use super::{Changed, state::DOCUMENTS_TESTED_MAX};
use crate::{
    fact::{DocumentId, Fact, FactKey},
    question::{Id, LookupId, Subject},
    schema::{Finds, Schema},
};

/// The most dependencies of an answer that may be kept.
pub const DEPENDENCIES_MAX: usize = 64;

/// The domain of answers, names and moments: an answer of one domain is no answer in another, as schemas and releases may answer
/// differently, and as the moments of two sources cannot be compared. `source` is the hash of the source's identity. Never 0.
#[must_use]
pub fn domain(schema: &Schema, source: [u8; 32]) -> u64 {
    let mut hash = Hash::default();
    hash.part(&schema.fingerprint_of_answers());
    hash.part(&source);
    hash.finish()
}

/// The name of what changed; none if callers must treat it as a change of everything.
#[must_use]
pub fn name_of_change(schema: &Schema, what: &Changed) -> Option<u64> {
    match what {
        Changed::Everything | Changed::Collection(_) => None,
        Changed::Document { collection, id } => Some(document(schema.collection_name(*collection), id)),
        // A document in which the field has other documents may name any resource.
        Changed::Key(key) if schema.lookup(key.lookup).finds == Finds::Structures => None,
        Changed::Key(FactKey { lookup, id, subject: _ }) => Some(name_of_key(schema, *lookup, id)),
        Changed::Subject(subject) => Some(name_of_subject(schema, subject)),
    }
}

/// The name of a subject.
#[must_use]
pub fn name_of_subject(schema: &Schema, subject: &Subject) -> u64 {
    let mut hash = Hash::default();
    match subject {
        Subject::Known { kind, id } => {
            hash.part(b"subject");
            hash.part(schema.subject(*kind).name.as_bytes());
            hash.id(id);
        }
        Subject::Anonymous => hash.part(b"anonymous"),
    }
    hash.finish()
}

/// Adds the names of everything whose change outdates a fact. Returns false if something has no name: then an answer that uses the
/// fact must not be kept. The names stand for the same marks as those by which [`Freshness`](super::Freshness) tests a fact.
pub fn add_names_of_fact(schema: &Schema, fact: &Fact, add: &mut impl FnMut(u64)) -> bool {
    let lookup = schema.lookup(fact.lookup());
    add(name_of_key(schema, fact.lookup(), fact.id()));
    // A fact that is found by `_id` is of one document, whose name is that of the key.
    if lookup.is_by_id() {
        return true;
    }
    // Such a fact only leads to the one that is filtered to the subject.
    if fact.is_over_limit() && fact.subject().is_none() {
        return true;
    }
    // Only lists read these, and `Watch` does not report their keys.
    if lookup.is_reverse {
        return false;
    }
    let documents = fact.documents_beside_key();
    // Such a fact is tested by the mark of its collection.
    if fact.is_partial() || documents.clone().nth(DOCUMENTS_TESTED_MAX).is_some() {
        return false;
    }
    let collection = schema.collection_name(lookup.collection_id);
    documents.for_each(|id| add(document(collection, id)));
    true
}

/// The name of what a lookup finds for an id.
fn name_of_key(schema: &Schema, lookup: LookupId, id: &Id) -> u64 {
    let lookup = schema.lookup(lookup);
    let collection = schema.collection_name(lookup.collection_id);
    if lookup.is_by_id() {
        return document_by_id(collection, id);
    }
    let mut hash = Hash::default();
    hash.part(b"key");
    hash.part(collection.as_bytes());
    hash.part(lookup.by.as_str().as_bytes());
    hash.id(id);
    hash.finish()
}

fn document(collection: &str, id: &DocumentId) -> u64 {
    match id {
        DocumentId::Id(id) => document_by_id(collection, id),
        DocumentId::Other(text) => {
            let mut hash = Hash::default();
            hash.part(b"document");
            hash.part(collection.as_bytes());
            hash.part(b"other");
            hash.part(text.as_bytes());
            hash.finish()
        }
    }
}

fn document_by_id(collection: &str, id: &Id) -> u64 {
    let mut hash = Hash::default();
    hash.part(b"document");
    hash.part(collection.as_bytes());
    hash.id(id);
    hash.finish()
}

/// FNV-1a with 64 bits (RFC 9923) over the parts of a name, each after its length in bytes as 4 bytes, the least significant first.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn part(&mut self, bytes: &[u8]) {
        self.bytes(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes(bytes);
    }

    /// The form of an id, then its bytes. Those of a number are 8, the least significant first.
    fn id(&mut self, id: &Id) {
        let (form, bytes): (&[u8], &[u8]) = match id {
            Id::ObjectId(bytes) => (b"objectid", bytes),
            Id::Integer(number) => (b"integer", &number.to_le_bytes()),
            Id::Uuid(bytes) => (b"uuid", bytes),
            Id::String(text) => (b"string", text.as_bytes()),
            Id::Digest(bytes) => (b"sha256", bytes),
        };
        self.part(form);
        self.part(bytes);
    }

    /// The hash. 0 stands for everything.
    fn finish(self) -> u64 {
        self.0.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_every_release() {
        let mut hash = Hash::default();
        hash.bytes(b"foobar");
        assert_eq!(hash.finish(), 0x8594_4171_f739_67e8, "the test vector of RFC 9923");
        assert_eq!(document_by_id("files", &Id::ObjectId([7; 12])), 0xdb0e_e956_c6c2_6b4e);
        assert_eq!(document_by_id("files", &Id::Integer(-7)), 0xcd32_17b9_4c95_06c5);
        assert_eq!(document("files", &DocumentId::Other("{}".into())), 0xe05b_b317_d6b5_ac7f);
    }

    #[test]
    fn parts_and_forms_keep_names_apart() {
        let names = [
            document_by_id("files", &Id::String("7".into())),
            document_by_id("file", &Id::String("s7".into())),
            document_by_id("files", &Id::Integer(7)),
            document_by_id("files", &Id::Uuid([7; 16])),
            document_by_id("files", &Id::Digest([7; 16])),
            document("files", &DocumentId::Other("7".into())),
        ];
        let distinct: std::collections::BTreeSet<u64> = names.into_iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
