//! Change events and documents of MongoDB from any bytes, for the fuzzer.

use std::collections::HashSet;

use bson::{Bson, Document, RawBsonRef, RawDocument};

use super::{
    decode::{DEPTH_MAX, Decoded},
    event::Event,
};
use crate::{
    freshness::Changed,
    schema::{Schema, unreadable},
};

/// Reads an event of the change stream. An event of a document marks something, except an update of other fields. An event in
/// which something cannot be read marks a collection or everything.
pub(crate) fn event(schema: &Schema, bytes: &[u8]) {
    let Ok(raw) = RawDocument::from_bytes(bytes) else { return };
    let decoded = decode(raw);
    let Some(event) = Event::read(schema, raw) else { return };
    let is_update = decoded.document.get_str("operationType").is_ok_and(|kind| kind == "update");
    assert!(is_update || !event.changes.is_empty(), "{raw:?} marks something");
    assert!(event.changes.iter().all(|change| change.at == event.at), "each change is of the event's moment");
    if decoded.has_unreadable() {
        let is_whole = |changed: &Changed| match changed {
            Changed::Everything | Changed::Collection(_) => true,
            Changed::Document { .. } | Changed::Key(_) | Changed::Subject(_) => false,
        };
        assert!(event.changes.iter().any(|change| is_whole(&change.what)), "{raw:?} cannot be understood");
    }
}

/// Decodes a document as those that are found. None if the bytes do not even have its length.
pub(crate) fn document(bytes: &[u8]) -> Option<Document> {
    RawDocument::from_bytes(bytes).ok().map(|raw| decode(raw).document)
}

/// Decodes a document field by field. If the library reads and writes the very same bytes, the result is the same. If a name
/// occurs twice, something cannot be read.
fn decode(raw: &RawDocument) -> Decoded {
    let decoded = Decoded::of(raw);
    assert!(decoded.has_unreadable() || !has_name_twice(raw, true), "{raw:?} has a name twice");
    if let Ok(whole) = Document::from_reader(raw.as_bytes())
        && let Ok(written) = whole.to_vec()
        && written == raw.as_bytes()
    {
        let whole = Bson::Document(whole);
        if decoded.has_unreadable() {
            assert!(has(&whole, DEPTH_MAX), "{raw:?} can be read");
        } else {
            assert_eq!(decoded.document.to_vec().ok(), Some(written), "{raw:?} is read as it is");
        }
    }
    decoded
}

/// Whether a name occurs twice in the same document, at any depth, as far as the library gets. The names in an array do not
/// matter.
fn has_name_twice(raw: &RawDocument, are_names: bool) -> bool {
    let mut names = HashSet::new();
    raw.iter().map_while(Result::ok).any(|(name, value)| {
        let is_twice = are_names && !names.insert(name.as_str().to_owned());
        is_twice
            || match value {
                RawBsonRef::Document(inner) => has_name_twice(inner, true),
                RawBsonRef::Array(items) => {
                    RawDocument::from_bytes(items.as_bytes()).is_ok_and(|items| has_name_twice(items, false))
                }
                _ => false,
            }
    })
}

/// Whether a value has more than so many levels, or contains the one that stands for what cannot be read.
fn has(value: &Bson, levels: usize) -> bool {
    let inner = |value: &Bson| levels == 0 || has(value, levels - 1);
    match value {
        Bson::Document(document) => document.values().any(inner),
        Bson::Array(items) => items.iter().any(inner),
        value => *value == unreadable(),
    }
}
