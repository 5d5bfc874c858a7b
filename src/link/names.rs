//! The names of permcached's keys and channels in Redis. Instances with different sources, schemas or formats never read each
//! other's facts or change batches; hints reach every instance over the same database.
//!
//! Every name begins with `pc:`: an ACL need grant nothing else.

use std::fmt::Write as _;

use prost::encoding::encode_varint;
use sha2::{Digest, Sha256};

use crate::{
    fact::FactKey,
    question::{Id, Subject},
    source::Identity,
};

/// The version of the encoding of facts and change batches, codes included. It goes up with every change to that.
pub const FORMAT: u32 = 3;

/// The version of how hints are encoded and signed. Instances with different ones do not receive each other's hints, so it
/// goes up only if they could not understand them.
const HINT_FORMAT: u32 = 2;

/// How many bytes of a hash the keys of facts begin with. These keys are many, so they are short. The chance that two of a
/// thousand different hashes collide is less than one in a hundred million.
const SPACE_BYTES: usize = 6;

/// The names of an instance's keys and channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The prefix of the keys of facts.
    facts: Vec<u8>,
    /// The key of the log.
    pub log: String,
    /// The key of the lease.
    pub lease: String,
    /// The channel of change batches.
    pub change_batches: String,
    /// The channel of hints, which all schemas and formats share.
    pub hints: String,
}

impl Names {
    /// The names for a source, by the [fingerprint](crate::schema::Schema::fingerprint) of the schema and the
    /// [format](FORMAT).
    #[must_use]
    pub fn new(source: &Identity, fingerprint: [u8; 32], format: u32) -> Self {
        let whole = Sha256::digest(space(source, fingerprint, format));
        let (space, place) = (hex(&whole), hex(&Sha256::digest(place(source))));
        let facts = b"pc:".iter().chain(whole.iter().take(SPACE_BYTES)).copied().collect();
        Self {
            facts,
            log: format!("pc:log:{space}"),
            lease: format!("pc:lease:{space}"),
            change_batches: format!("pc:changes:{space}"),
            hints: format!("pc:hints:{place}"),
        }
    }

    /// The key of a fact. Different facts have different keys.
    #[must_use]
    pub fn fact(&self, key: &FactKey) -> Vec<u8> {
        let mut name = self.facts.clone();
        let FactKey { lookup, id, subject } = key;
        // The lookup and what follows, in as few bytes as possible: the form of the id, or a subject.
        let lookup = u32::from(lookup.0) << 3;
        match subject.as_deref() {
            None => encode_varint(u64::from(lookup | form(id)), &mut name),
            Some(Subject::Anonymous) => {
                encode_varint(u64::from(lookup | ANONYMOUS), &mut name);
                encode_varint(u64::from(form(id)), &mut name);
            }
            Some(Subject::Known { kind, id: asker }) => {
                encode_varint(u64::from(lookup | FILTERED), &mut name);
                encode_varint(u64::from(kind.0) << 3 | u64::from(form(asker)), &mut name);
                // The length of a text separates it from the id that follows.
                if let Some(text) = asker.text() {
                    encode_varint(u64::try_from(text.len()).unwrap_or(u64::MAX), &mut name);
                }
                push_id(&mut name, asker);
                encode_varint(u64::from(form(id)), &mut name);
            }
        }
        // Its form gives its length, or the id ends the key.
        push_id(&mut name, id);
        name
    }
}

/// In place of the form of an id: the fact is filtered to a subject, which follows.
const FILTERED: u32 = 5;

/// In place of the form of an id: the fact is filtered to an anonymous subject.
const ANONYMOUS: u32 = 6;

fn form(id: &Id) -> u32 {
    match id {
        Id::ObjectId(_) => 0,
        Id::Integer(_) => 1,
        Id::Uuid(_) => 2,
        Id::String(_) => 3,
        Id::Digest(_) => 4,
    }
}

fn push_id(name: &mut Vec<u8>, id: &Id) {
    match id {
        Id::ObjectId(bytes) => name.extend(bytes),
        Id::Integer(number) => name.extend(number.to_be_bytes()),
        Id::Uuid(bytes) | Id::Digest(bytes) => name.extend(bytes),
        Id::String(text) => name.extend(text.as_bytes()),
    }
}

/// All that facts, change batches and the lease belong to, as a text. Different ones have different texts, as `Debug` quotes
/// names.
pub(super) fn space(source: &Identity, fingerprint: [u8; 32], format: u32) -> String {
    let Identity { set, database, collections } = source;
    format!("{:?}", (format, set, database, collections, fingerprint))
}

/// All that hints belong to, as a text.
pub(super) fn place(source: &Identity) -> String {
    let Identity { set, database, collections: _ } = source;
    format!("{:?}", (HINT_FORMAT, set, database))
}

/// The first 16 bytes, in hex: enough that no two hashes collide.
fn hex(hash: &[u8]) -> String {
    hash.iter().take(16).fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{LookupId, SubjectTypeId};

    fn names(database: &str, uuid: Option<[u8; 16]>, fingerprint: u8, format: u32) -> Names {
        let collections = vec![("files".to_owned(), uuid)];
        let source = Identity { set: Some("rs0".to_owned()), database: database.to_owned(), collections };
        Names::new(&source, [fingerprint; 32], format)
    }

    #[test]
    fn versions_share_only_the_channel_of_hints_and_databases_share_nothing() {
        let own = names("app", Some([1; 16]), 1, 1);
        assert_eq!(own, names("app", Some([1; 16]), 1, 1));
        for other in
            [names("app", Some([2; 16]), 1, 1), names("app", Some([1; 16]), 2, 1), names("app", Some([1; 16]), 1, 2)]
        {
            assert_eq!(own.hints, other.hints);
            assert_ne!(own.facts, other.facts);
            assert_ne!(own.log, other.log);
            assert_ne!(own.lease, other.lease);
            assert_ne!(own.change_batches, other.change_batches);
        }
        assert_ne!(own.hints, names("other", Some([1; 16]), 1, 1).hints);
    }

    #[test]
    fn different_facts_have_different_keys() {
        let names = names("app", None, 1, 1);
        let ids = [
            Id::ObjectId([7; 12]),
            Id::Integer(7),
            Id::Uuid([7; 16]),
            Id::Digest([7; 16]),
            Id::String("\u{7}".repeat(12).into()),
            Id::String("\u{7}".repeat(16).into()),
        ];
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for lookup in [0, 1, 15, 16, 2_000] {
            let lookup = LookupId(lookup);
            keys.extend(ids.iter().map(|id| names.fact(&FactKey::whole(lookup, id.clone()))));
            for id in &ids {
                let filtered = |subject| names.fact(&FactKey::filtered(lookup, id.clone(), subject));
                keys.push(filtered(Subject::Anonymous));
                let subjects = ids.iter().flat_map(|id| [0, 1, 300].map(|kind| (SubjectTypeId(kind), id.clone())));
                keys.extend(subjects.map(|(kind, id)| filtered(Subject::Known { kind, id })));
            }
        }
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert_eq!(names.fact(&FactKey::whole(LookupId(15), Id::ObjectId([7; 12]))).len(), 22);
    }
}
