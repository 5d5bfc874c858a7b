//! Messages as gRPC sends them: a prefix, then protobuf. Large ones are decoded in pieces between which other threads may run.
//!
//! Compresses nothing (`compression` does).

use axum::body::Bytes;
use prost::{
    Message,
    bytes::{Buf, BufMut as _, BytesMut},
};
use tonic::Status;

use super::low_priority::give_way;

/// The length of what precedes each message: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// How much of a message is decoded at once: some 10 microseconds.
const PIECE_BYTES: usize = 2 * 1_024;

/// The length of the message that begins with these bytes; none if they do not contain its whole prefix.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let ([_, length @ ..], _) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
    Some(usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX))
}

/// Writes the prefix of a message, for which there is room before it: whether it is compressed, and its length.
pub(super) fn set_prefix(bytes: &mut [u8], flag: u8) {
    let length = u32::try_from(bytes.len().saturating_sub(PREFIX_BYTES)).unwrap_or(u32::MAX);
    if let Some([first, rest @ ..]) = bytes.first_chunk_mut::<PREFIX_BYTES>() {
        *first = flag;
        *rest = length.to_be_bytes();
    }
}

/// The message of a request that has only one, without its prefix.
///
/// # Errors
/// There is none, it has not arrived whole, or it is compressed.
pub(super) fn only(received: &[u8]) -> Result<&[u8], Status> {
    if received.is_empty() {
        return Err(Status::internal("the request has no message"));
    }
    let broken_off = || Status::internal("the request's message has not arrived whole");
    let ([flag, ..], message) = received.split_first_chunk::<PREFIX_BYTES>().ok_or_else(broken_off)?;
    if *flag != 0 {
        return Err(Status::internal("the request's message begins with another number than 0 or 1"));
    }
    if length(received) == Some(message.len()) { Ok(message) } else { Err(broken_off()) }
}

/// Decodes a message.
///
/// # Errors
/// It is no message of this type.
pub(super) fn decode<T: Message + Default>(message: &[u8]) -> Result<T, Status> {
    let decoded = T::decode(Pieces { bytes: message, left: PIECE_BYTES });
    decoded.map_err(|error| Status::internal(format!("failed to decode the request: {error}")))
}

/// A message with its prefix.
pub(super) fn encode(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    bytes.put_bytes(0, PREFIX_BYTES);
    message.encode_raw(&mut bytes);
    set_prefix(&mut bytes, 0);
    bytes.freeze()
}

/// The bytes of a message. After each piece, other threads may run.
struct Pieces<'a> {
    bytes: &'a [u8],
    /// How many bytes of the present piece are left.
    left: usize,
}

impl Buf for Pieces<'_> {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.left = self.left.saturating_sub(count);
        if self.left == 0 {
            give_way();
            self.left = PIECE_BYTES;
        }
    }
}
