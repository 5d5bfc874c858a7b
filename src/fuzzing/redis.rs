//! Facts and messages from Redis: any bytes decode to something that an instance could have written, or to nothing.

use std::sync::LazyLock;

use super::SCHEMA;
use crate::{
    bus::{self, Hint},
    fact::FactKey,
    facts::codec,
    freshness::{Change, Freshness},
    question::Id,
};

/// Decodes bytes as a fact, as a change batch and as a hint.
pub fn redis(data: &[u8]) {
    let Some((first, content)) = data.split_first() else { return };
    match first % 3 {
        0 => facts(content),
        1 => change_batch(content),
        _ => hint(content),
    }
}

fn facts(content: &[u8]) {
    for (lookup, _) in SCHEMA.lookups() {
        for id in [Id::ObjectId([7; 12]), Id::String("f1".into())] {
            let key = FactKey { lookup, id };
            let Some(fact) = codec::decode(&SCHEMA, key.clone(), content) else { continue };
            let again = codec::encode(&SCHEMA, &fact).and_then(|bytes| codec::decode(&SCHEMA, key, &bytes));
            assert!(again.is_some_and(|again| again.has_same_content(&fact)), "{fact:?} survives its encoding");
        }
    }
}

fn change_batch(content: &[u8]) {
    let Some(batch) = bus::fuzzing::decode(content) else { return };
    let pieces = bus::fuzzing::pieces(batch.clone());
    assert!(!pieces.is_empty() || batch.changes.is_empty(), "no change is lost");
    apply(&batch.changes);
}

fn hint(content: &[u8]) {
    let Some(hint) = Hint::decode(content) else { return };
    let changed = hint.changed(&SCHEMA);
    assert_eq!(Hint::decode(&hint.encode()).map(|hint| hint.at()), Some(hint.at()), "a hint survives its encoding");
    apply(&changed.into_iter().map(|what| Change { at: hint.at(), what }).collect::<Vec<_>>());
}

/// Marks what a message names.
fn apply(changes: &[Change]) {
    static FRESHNESS: LazyLock<Freshness> = LazyLock::new(|| Freshness::new(&SCHEMA));
    FRESHNESS.mark(changes, FRESHNESS.epoch());
    let latest = changes.iter().map(|change| change.at).max().unwrap_or_default();
    assert!(FRESHNESS.newest_moment() >= latest, "a mark is not later than the newest moment");
}
