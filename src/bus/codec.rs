//! Change batches as bytes, for instances with the same schema and the same format: only those share a log and a channel.
//!
//! Holds no version: `link::FORMAT` is part of the names, and goes up with every change to this encoding.

use serde::{Deserialize, Serialize};

use crate::{
    fact::{DocumentId, FactKey},
    freshness::{Change, ChangeBatch, Changed, Moment},
    link::{CODE_BYTES, EncodedId},
    question::{CollectionId, LookupId},
};

/// How many bytes a piece of a change batch takes at most, its code included. With the log's maximum length, this bounds the
/// log's size.
pub(super) const SIGNED_BYTES_MAX: usize = 2 * 1_024;

/// The same, without the code.
const PIECE_BYTES_MAX: usize = SIGNED_BYTES_MAX - CODE_BYTES;

#[derive(Serialize, Deserialize)]
struct EncodedBatch<'a> {
    from: u64,
    to: u64,
    #[serde(borrow)]
    changes: Vec<EncodedChange<'a>>,
}

#[derive(Serialize, Deserialize)]
struct EncodedChange<'a> {
    /// How much later than the batch's `from`: a small number takes few bytes.
    after: u64,
    #[serde(borrow)]
    what: EncodedChanged<'a>,
}

#[derive(Serialize, Deserialize)]
enum EncodedChanged<'a> {
    Everything,
    Document {
        collection: u16,
        #[serde(borrow)]
        id: EncodedId<'a>,
    },
    OddDocument {
        collection: u16,
        id: &'a str,
    },
    Key {
        lookup: u16,
        #[serde(borrow)]
        id: EncodedId<'a>,
    },
    Collection {
        collection: u16,
    },
}

/// Cuts a change batch into pieces that fit in the log. Each piece is a change batch: what changed in (from, to] is what changed
/// in (from, between] and in (between, to]. If the changes of a single moment do not fit, they become a change of everything.
/// Returns each piece's `to` and bytes.
pub(super) fn pieces(batch: ChangeBatch) -> Vec<(Moment, Vec<u8>)> {
    let mut pieces = Vec::new();
    let mut todo = vec![batch];
    while let Some(whole) = todo.pop() {
        let bytes = encode(&whole);
        if bytes.len() <= PIECE_BYTES_MAX {
            pieces.push((whole.to, bytes));
            continue;
        }
        let ChangeBatch { from, to, mut changes } = whole;
        changes.sort_by_key(|change| change.at);
        let early = changes.split_off(changes.partition_point(|change| change.at <= to));
        let moment = |place: usize| changes.get(place).map(|change| change.at);
        // The batch that is pushed last is handled first.
        match (moment(0), moment(changes.len() / 2), moment(changes.len().saturating_sub(1))) {
            (Some(first), Some(middle), Some(last)) if first < last => {
                // The cut keeps all changes of a moment together, and both parts have some.
                let cut = if middle > first { middle.previous() } else { first };
                let later = changes.split_off(changes.partition_point(|change| change.at <= cut));
                let cut = cut.max(from);
                todo.extend(in_halves(to, early));
                todo.push(ChangeBatch { from: cut, to, changes: later });
                todo.push(ChangeBatch { from, to: cut, changes });
            }
            (Some(_), _, Some(last)) if early.is_empty() => {
                todo.push(ChangeBatch { from, to, changes: everything(last) });
            }
            _ => {
                todo.extend(in_halves(to, early));
                if !changes.is_empty() || from < to {
                    todo.push(ChangeBatch { from, to, changes });
                }
            }
        }
    }
    pieces
}

/// Halves the changes later than `to`, into change batches that cover no time.
fn in_halves(to: Moment, mut early: Vec<Change>) -> Vec<ChangeBatch> {
    let half = early.split_off(early.len() / 2);
    let changes = match (early.is_empty(), half.as_slice()) {
        // A single change that is too large.
        (true, [change]) => return vec![ChangeBatch { from: to, to, changes: everything(change.at) }],
        _ => [half, early],
    };
    changes
        .into_iter()
        .filter(|changes| !changes.is_empty())
        .map(|changes| ChangeBatch { from: to, to, changes })
        .collect()
}

fn everything(at: Moment) -> Vec<Change> {
    vec![Change { at, what: Changed::Everything }]
}

fn encode(batch: &ChangeBatch) -> Vec<u8> {
    let ChangeBatch { from, to, changes } = batch;
    let changes = changes.iter().map(|change| EncodedChange::of(change, *from)).collect();
    let encoded = EncodedBatch { from: from.as_u64(), to: to.as_u64(), changes };
    // Encoding into memory does not fail. If it did, receivers would drop the empty message and see a gap after it.
    postcard::to_allocvec(&encoded).unwrap_or_default()
}

impl<'a> EncodedChange<'a> {
    fn of(Change { at, what }: &'a Change, from: Moment) -> Self {
        let what = match what {
            // A change stream shows no changes of subjects. If it did, receivers would have to read everything again.
            Changed::Everything | Changed::Subject(_) => EncodedChanged::Everything,
            Changed::Collection(CollectionId(collection)) => EncodedChanged::Collection { collection: *collection },
            Changed::Document { collection: CollectionId(collection), id: DocumentId::Id(id) } => {
                EncodedChanged::Document { collection: *collection, id: EncodedId::of(id) }
            }
            Changed::Document { collection: CollectionId(collection), id: DocumentId::Other(text) } => {
                EncodedChanged::OddDocument { collection: *collection, id: text }
            }
            Changed::Key(FactKey { lookup: LookupId(lookup), id, subject: _ }) => {
                EncodedChanged::Key { lookup: *lookup, id: EncodedId::of(id) }
            }
        };
        Self { after: at.distance_from(from), what }
    }
}

/// Decodes a change batch; none if the bytes are no change batch.
pub(super) fn decode(bytes: &[u8]) -> Option<ChangeBatch> {
    let (EncodedBatch { from, to, changes }, []) = postcard::take_from_bytes(bytes).ok()? else { return None };
    let (from, to) = (Moment::from_count(from), Moment::from_count(to));
    let decoded = |EncodedChange { after, what }| {
        let what = match what {
            EncodedChanged::Everything => Changed::Everything,
            EncodedChanged::Collection { collection } => Changed::Collection(CollectionId(collection)),
            EncodedChanged::Document { collection, id } => {
                Changed::Document { collection: CollectionId(collection), id: DocumentId::Id(id.into_id()) }
            }
            EncodedChanged::OddDocument { collection, id } => {
                Changed::Document { collection: CollectionId(collection), id: DocumentId::Other(id.into()) }
            }
            EncodedChanged::Key { lookup, id } => Changed::Key(FactKey::whole(LookupId(lookup), id.into_id())),
        };
        Change { at: from.at_distance(after), what }
    };
    let changes = changes.into_iter().map(decoded).collect();
    Some(ChangeBatch { from, to, changes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::question::Id;

    fn moments() -> impl Strategy<Value = Moment> {
        (0_u64..40).prop_map(Moment::from_count)
    }

    fn ids() -> impl Strategy<Value = Id> {
        prop_oneof![
            any::<[u8; 12]>().prop_map(Id::ObjectId),
            any::<i64>().prop_map(Id::Integer),
            any::<[u8; 16]>().prop_map(Id::Uuid),
            any::<[u8; 16]>().prop_map(Id::Digest),
            "[a-zé]{1,300}".prop_map(|text| Id::String(text.into())),
        ]
    }

    fn changes() -> impl Strategy<Value = Change> {
        let what = prop_oneof![
            1 => Just(Changed::Everything),
            1 => (0_u16..9).prop_map(|collection| Changed::Collection(CollectionId(collection))),
            20 => (0_u16..9, ids()).prop_map(|(collection, id)| Changed::Document {
                collection: CollectionId(collection),
                id: DocumentId::Id(id),
            }),
            2 => (0_u16..9, "[a-z]{1,6000}").prop_map(|(collection, text)| Changed::Document {
                collection: CollectionId(collection),
                id: DocumentId::Other(text.into()),
            }),
            20 => (0_u16..9, ids()).prop_map(|(lookup, id)| Changed::Key(FactKey::whole(LookupId(lookup), id))),
        ];
        (moments(), what).prop_map(|(at, what)| Change { at, what })
    }

    fn change_batches() -> impl Strategy<Value = ChangeBatch> {
        (moments(), moments(), prop::collection::vec(changes(), 0..200)).prop_map(|(one, other, changes)| ChangeBatch {
            from: one.min(other),
            to: one.max(other),
            changes,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_pieces_of_a_change_batch_hold_its_changes_and_each_is_complete(whole in change_batches()) {
            let pieces: Vec<ChangeBatch> = pieces(whole.clone())
                .into_iter()
                .map(|(to, bytes)| {
                    assert!(bytes.len() <= PIECE_BYTES_MAX);
                    let piece = decode(&bytes).expect("a piece can be decoded");
                    assert_eq!(piece.to, to);
                    piece
                })
                .collect();
            // In this order, the pieces cover what the whole covers, without a gap.
            let covering: Vec<&ChangeBatch> = pieces.iter().filter(|piece| piece.from < piece.to).collect();
            let covered = covering.iter().fold(whole.from, |to, piece| {
                assert_eq!(piece.from, to);
                piece.to
            });
            prop_assert_eq!(covered, whole.to);
            for change in &whole.changes {
                let everything = Change { at: change.at, what: Changed::Everything };
                let has = |piece: &&ChangeBatch| piece.changes.contains(change) || piece.changes.contains(&everything);
                // A receiver of just the piece that covers the change's moment must find the change there.
                let cover = covering.iter().find(|piece| piece.from < change.at && change.at <= piece.to);
                match cover {
                    Some(piece) => prop_assert!(has(piece), "{:?} in {:?}", change, piece),
                    None => prop_assert!(pieces.iter().any(|piece| has(&piece))),
                }
            }
            for change in pieces.iter().flat_map(|piece| &piece.changes) {
                let at_its_moment = |other: &Change| other.at == change.at;
                prop_assert!(whole.changes.contains(change) || whole.changes.iter().any(at_its_moment));
            }
        }

        #[test]
        fn decoding_any_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _none_or_some = decode(&bytes);
        }
    }
}
