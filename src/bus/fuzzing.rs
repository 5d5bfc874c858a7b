//! The encoding of change batches, for the fuzzer.

use super::codec;
use crate::freshness::ChangeBatch;

/// Decodes a change batch.
pub(crate) fn decode(bytes: &[u8]) -> Option<ChangeBatch> {
    codec::decode(bytes)
}

/// Encodes a change batch in pieces, and decodes these.
pub(crate) fn pieces(batch: ChangeBatch) -> Vec<ChangeBatch> {
    let pieces = codec::pieces(batch).into_iter();
    pieces
        .filter_map(|(to, bytes)| {
            assert!(bytes.len() <= 2 * 1_024, "a piece fits into the log");
            let piece = decode(&bytes);
            assert!(piece.as_ref().is_some_and(|piece| piece.to == to), "a piece is a change batch");
            piece
        })
        .collect()
}
