//! The protobuf codec of the services: tonic's own, with smaller buffers, and large messages are decoded in pieces between which
//! other threads may run.
//!
//! tonic allocates two buffers for each call, of 8 KiB each by default. Most messages have fewer than 200 bytes, and a response
//! that its client does not take keeps its buffer.

use std::marker::PhantomData;

use axum::body::Bytes;
use prost::{Message, bytes::Buf};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use super::low_priority::give_way;

/// The length of what precedes each message: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// What a buffer has at first. It grows with the message.
const BUFFER_BYTES: usize = 512;

/// How much of a message is decoded at once: some 10 microseconds.
const PIECE_BYTES: usize = 2 * 1_024;

/// How much of a stream is encoded before it is passed on: as tonic does by default.
const YIELD_BYTES: usize = 32 * 1_024;

/// The codec of messages that are encoded and messages that are decoded.
#[derive(Debug)]
pub(crate) struct SmallBuffers<Encoded, Decoded>(PhantomData<(Encoded, Decoded)>);

impl<Encoded, Decoded> Default for SmallBuffers<Encoded, Decoded> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Encoded, Decoded> Codec for SmallBuffers<Encoded, Decoded>
where
    Encoded: Message + Send + 'static,
    Decoded: Message + Default + Send + 'static,
{
    type Encode = Encoded;
    type Decode = Decoded;
    type Encoder = ProstEncoder<Encoded>;
    type Decoder = InPieces<Decoded>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Encoded, Decoded>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        InPieces(ProstCodec::<Encoded, Decoded>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)))
    }
}

/// Decodes as tonic does.
pub(crate) struct InPieces<T>(ProstDecoder<T>);

impl<T: Message + Default> Decoder for InPieces<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        if bytes.remaining() <= PIECE_BYTES {
            return self.0.decode(bytes);
        }
        let decoded = T::decode(Pieces { bytes, left: PIECE_BYTES });
        // As tonic's own decoder.
        decoded.map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// The bytes of a message. After each piece, other threads may run.
struct Pieces<'a, 'b> {
    bytes: &'a mut DecodeBuf<'b>,
    /// How many bytes of the present piece are left.
    left: usize,
}

impl Buf for Pieces<'_, '_> {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.left = self.left.saturating_sub(count);
        if self.left == 0 {
            give_way();
            self.left = PIECE_BYTES;
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}
