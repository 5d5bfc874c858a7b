//! Facts and messages from Redis: any bytes decode to something that an instance could have written, or to nothing.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _, sync::LazyLock};

use super::SCHEMA;
use crate::{
    bus::{self, Hint},
    fact::FactKey,
    facts::codec,
    freshness::{Change, Freshness},
    link::{Codes, FORMAT, Namespace, Secrets},
    question::Id,
    source::Identity,
};

/// Decodes bytes as a fact, as a change batch and as a hint.
pub fn redis(data: &[u8]) {
    let Some((first, content)) = data.split_first() else { return };
    has_no_valid_code(data);
    match first % 3 {
        0 => facts(content),
        1 => change_batch(content),
        _ => hint(content),
    }
}

/// Codes with a secret that no input can know.
static CODES: LazyLock<Option<Codes>> = LazyLock::new(|| {
    let random = |part: u8| RandomState::new().hash_one(part);
    let secret = format!("{:016x}{:016x}{:016x}{:016x}", random(0), random(1), random(2), random(3));
    let secrets = Secrets::parse(&secret).ok()?;
    let identity = Identity { set: Some("rs0".to_owned()), database: "app".to_owned(), collections: Vec::new() };
    Some(Namespace::new(&identity, SCHEMA.fingerprint(), FORMAT, &secrets).codes)
});

/// Nothing that an input holds is believed, as whatever and in whatever context.
fn has_no_valid_code(data: &[u8]) {
    assert!(CODES.is_some(), "the secret is accepted");
    for codes in CODES.iter() {
        for authenticator in [&codes.facts, &codes.change_batches, &codes.hints] {
            let (context, rest) = data.split_at(data.len() / 2);
            for (context, signed) in [([].as_slice(), data), (context, rest)] {
                assert_eq!(authenticator.open(context, signed), None, "there is no valid code");
            }
        }
    }
}

fn facts(content: &[u8]) {
    for (lookup, _) in SCHEMA.lookups() {
        for id in [Id::ObjectId([7; 12]), Id::String("f1".into())] {
            let key = FactKey::whole(lookup, id);
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
