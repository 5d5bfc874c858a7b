//! The protobuf codec of streams and of clients: tonic's own, with smaller buffers.
//!
//! tonic allocates two buffers for each call, of 8 KiB each by default. Most messages have fewer than 200 bytes, and a response
//! that its client does not take keeps its buffer.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What a buffer has at first. It grows with the message.
const BUFFER_BYTES: usize = 512;

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
    type Decoder = ProstDecoder<Decoded>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Encoded, Decoded>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Encoded, Decoded>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
