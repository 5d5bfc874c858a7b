//! Compressed messages. A request may be compressed with gzip or zstd; its response then is, too, if the client accepts it.
//!
//! Nothing is decompressed before its size is bounded: gzip ends with it, and zstd may begin with it. What does not end there is
//! refused. Takes no bytes of a budget: `intake` does, before it has a message unpacked.

use std::io::{Read as _, Write as _};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    http::{HeaderMap, HeaderValue},
    response::Response,
};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use futures::{StreamExt as _, stream::try_unfold};
use http_body_util::BodyExt as _;
use tonic::{Status, metadata::MetadataValue};

use super::{
    message::{self, PREFIX_BYTES, set_prefix},
    response_body::WholeBody,
};

/// The header that names how messages are compressed, and the one that lists what the other side accepts.
const ENCODING: &str = "grpc-encoding";
const ACCEPTED: &str = "grpc-accept-encoding";

/// What this side accepts.
const ACCEPTED_HERE: &str = "identity,gzip,zstd";

/// The level of zstd: fast.
const ZSTD_LEVEL: i32 = 1;

/// How much longer a message can be than its gzip form, at most: one bit for each 258 bytes, which come in pairs of codes.
const GZIP_RATIO_MAX: usize = 1_032;

/// How a frame of zstd begins.
const ZSTD_BEGIN: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How messages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Zstd,
}

impl Encoding {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// How the messages of a request are compressed. None if they are not. The header is removed: who reads the request after
    /// this finds it uncompressed.
    ///
    /// # Errors
    /// `UNIMPLEMENTED`, with the encodings that are accepted.
    pub(super) fn take(headers: &mut HeaderMap) -> Result<Option<Self>, Status> {
        let Some(name) = headers.remove(ENCODING) else { return Ok(None) };
        match name.as_bytes() {
            b"identity" => Ok(None),
            b"gzip" => Ok(Some(Self::Gzip)),
            b"zstd" => Ok(Some(Self::Zstd)),
            _ => {
                let mut status = Status::unimplemented("the request is compressed in another way than gzip or zstd");
                let accepted = MetadataValue::from_static(ACCEPTED_HERE);
                status.metadata_mut().insert(ACCEPTED, accepted);
                Err(status)
            }
        }
    }

    /// Whether the client takes responses in this encoding.
    pub(super) fn is_accepted(self, headers: &HeaderMap) -> bool {
        let lists = headers.get_all(ACCEPTED).into_iter().filter_map(|list| list.to_str().ok());
        lists.flat_map(|list| list.split(',')).any(|name| name.trim() == self.as_str())
    }

    fn pack(self, message: &[u8]) -> std::io::Result<Vec<u8>> {
        let prefix = vec![0; PREFIX_BYTES];
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(prefix, Compression::fast());
                encoder.write_all(message)?;
                encoder.finish()
            }
            Self::Zstd => {
                let packed = zstd::bulk::compress(message, ZSTD_LEVEL)?;
                Ok([prefix, packed].concat())
            }
        }
    }
}

/// A compressed message with its prefix.
pub(super) struct Packed {
    encoding: Encoding,
    bytes: Bytes,
    /// The most bytes that it may have when it is unpacked.
    pub(super) length_max: usize,
}

impl Packed {
    /// The message, if these bytes are one that is compressed. Both of its forms together may have `bytes_max`.
    ///
    /// # Errors
    /// It is compressed in no way that the request names, or it is too large.
    pub(super) fn of(bytes: &Bytes, encoding: Option<Encoding>, bytes_max: usize) -> Result<Option<Self>, Status> {
        let Some(([1, ..], message)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let Some(encoding) = encoding else {
            return Err(Status::internal("the request's message is compressed, and no grpc-encoding says how"));
        };
        let left = bytes_max.saturating_sub(message.len());
        let claimed = match encoding {
            Encoding::Gzip => {
                let (_, last) = message.split_last_chunk::<4>().ok_or_else(malformed)?;
                let claimed = usize::try_from(u32::from_le_bytes(*last)).unwrap_or(usize::MAX);
                if claimed > message.len().saturating_mul(GZIP_RATIO_MAX) {
                    return Err(malformed());
                }
                claimed
            }
            // Frames of another kind have no size, and those of older versions are not meant.
            Encoding::Zstd if !message.starts_with(&ZSTD_BEGIN) => return Err(malformed()),
            Encoding::Zstd => match zstd::zstd_safe::get_frame_content_size(message) {
                Ok(Some(claimed)) => usize::try_from(claimed).unwrap_or(usize::MAX),
                Ok(None) => left,
                Err(_) => return Err(malformed()),
            },
        };
        if claimed > left {
            let message = format!(
                "the request has {} bytes, and {claimed} more when it is decompressed: {bytes_max} are the most together",
                message.len()
            );
            return Err(Status::out_of_range(message));
        }
        Ok(Some(Self { encoding, bytes: bytes.clone(), length_max: claimed }))
    }

    /// Whether each of its forms has at most so many bytes.
    pub(super) fn is_small(&self, bytes_max: usize) -> bool {
        self.bytes.len() <= bytes_max && self.length_max <= bytes_max
    }

    /// The number of bytes of the compressed form, with the prefix.
    pub(super) fn packed_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The message uncompressed, with its prefix. It allocates the greatest length, and no more.
    ///
    /// # Errors
    /// It is no message of this encoding, or longer than it says.
    pub(super) fn unpack(&self) -> Result<Bytes, Status> {
        let message = self.bytes.get(PREFIX_BYTES..).unwrap_or_default();
        let mut unpacked = vec![0; PREFIX_BYTES + self.length_max];
        let target = unpacked.get_mut(PREFIX_BYTES..).unwrap_or_default();
        let length = match self.encoding {
            Encoding::Gzip => {
                let mut decoder = GzDecoder::new(message);
                decoder.read_exact(target).map_err(|_| malformed())?;
                // The end, where the checksum is compared.
                let more = decoder.read(&mut [0]).map_err(|_| malformed())?;
                if more > 0 {
                    return Err(malformed());
                }
                target.len()
            }
            Encoding::Zstd => {
                let mut decoder = zstd::bulk::Decompressor::new().map_err(|_| malformed())?;
                decoder.decompress_to_buffer(message, target).map_err(|_| malformed())?
            }
        };
        unpacked.truncate(PREFIX_BYTES + length);
        unpacked.shrink_to_fit();
        set_prefix(&mut unpacked, 0);
        Ok(unpacked.into())
    }
}

/// The body of a request with many messages, each of them uncompressed. Both forms of a message together may have `bytes_max`; one
/// that has not arrived whole takes no more.
pub(super) fn unpacked_messages(body: Body, encoding: Encoding, bytes_max: usize) -> Body {
    let next = move |(mut arriving, mut arrived): (BodyDataStream, Vec<u8>)| async move {
        loop {
            if let Some(end) = end_of_message(&arrived, bytes_max)? {
                let rest = arrived.split_off(end);
                let message = Bytes::from(arrived);
                let message = match Packed::of(&message, Some(encoding), bytes_max)? {
                    Some(packed) => packed.unpack()?,
                    None => message,
                };
                return Ok(Some((message, (arriving, rest))));
            }
            match arriving.next().await {
                Some(data) => arrived.extend_from_slice(&data.map_err(|_| broken_off())?),
                None if arrived.is_empty() => return Ok(None),
                None => return Err(broken_off()),
            }
        }
    };
    Body::from_stream(try_unfold((body.into_data_stream(), Vec::new()), next))
}

/// Where the first message ends, if it has arrived whole.
fn end_of_message(arrived: &[u8], bytes_max: usize) -> Result<Option<usize>, Status> {
    let Some(length) = message::length(arrived) else { return Ok(None) };
    if length > bytes_max {
        return Err(Status::out_of_range(format!("a message has {length} bytes: {bytes_max} are the most")));
    }
    Ok(Some(PREFIX_BYTES + length).filter(|end| *end <= arrived.len()))
}

/// The response with its message compressed. A response without a message stays as it is.
///
/// # Errors
/// The response cannot be encoded.
pub(super) async fn packed_response(response: Response, encoding: Encoding) -> Result<Response, Status> {
    let (mut head, body) = response.into_parts();
    let collected = body.collect().await.map_err(|_| not_encoded())?;
    let trailers = collected.trailers().cloned();
    let bytes = packed(collected.to_bytes(), encoding, &mut head.headers)?;
    Ok(Response::from_parts(head, WholeBody::new(bytes, trailers).into()))
}

/// A message with its prefix, compressed; the headers of its response say so. What is no message stays as it is.
///
/// # Errors
/// It cannot be compressed.
pub(super) fn packed(bytes: Bytes, encoding: Encoding, headers: &mut HeaderMap) -> Result<Bytes, Status> {
    let Some(([0, ..], message)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(bytes) };
    let mut packed = encoding.pack(message).map_err(|_| not_encoded())?;
    set_prefix(&mut packed, 1);
    headers.insert(ENCODING, HeaderValue::from_static(encoding.as_str()));
    Ok(packed.into())
}

fn not_encoded() -> Status {
    Status::internal("the response cannot be encoded")
}

fn broken_off() -> Status {
    Status::cancelled("the request broke off")
}

fn malformed() -> Status {
    Status::internal("failed to decompress the request: it is not what its grpc-encoding says, or longer than it says")
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const BYTES_MAX: usize = 100_000;

    /// A message in this encoding, with its prefix.
    fn message(encoding: Encoding, plain: &[u8]) -> Bytes {
        let mut packed = encoding.pack(plain).expect("a message");
        set_prefix(&mut packed, 1);
        packed.into()
    }

    fn unpacked(encoding: Encoding, bytes: &Bytes) -> Result<Vec<u8>, Code> {
        let packed = Packed::of(bytes, Some(encoding), BYTES_MAX).map_err(|status| status.code())?;
        let unpacked = packed.expect("it is compressed").unpack().map_err(|status| status.code())?;
        Ok(unpacked.to_vec())
    }

    #[test]
    fn a_message_is_unpacked_to_what_was_packed() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            for plain in [&b""[..], b"x", &vec![7; 90_000], &(0..=255).collect::<Vec<u8>>().repeat(40)] {
                let mut expected = [&[0; PREFIX_BYTES][..], plain].concat();
                set_prefix(&mut expected, 0);
                assert_eq!(unpacked(encoding, &message(encoding, plain)), Ok(expected), "{encoding:?} {}", plain.len());
            }
        }
        let plain = Bytes::from_static(&[0, 0, 0, 0, 1, 9]);
        assert!(Packed::of(&plain, Some(Encoding::Gzip), BYTES_MAX).is_ok_and(|packed| packed.is_none()));
    }

    #[test]
    fn a_message_that_is_larger_than_its_header_or_the_limit_is_refused() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            assert_eq!(
                unpacked(encoding, &message(encoding, &vec![7; BYTES_MAX])),
                Err(Code::OutOfRange),
                "{encoding:?}"
            );
        }
        // The size at the end of gzip, less and more than it is.
        let honest = message(Encoding::Gzip, &[7; 5_000]).to_vec();
        for claimed in [0_u32, 4_999, 5_001, 90_000] {
            let mut lying = honest.clone();
            let place = lying.len() - 4;
            lying.splice(place.., claimed.to_le_bytes());
            assert_eq!(unpacked(Encoding::Gzip, &lying.into()), Err(Code::Internal), "{claimed}");
        }
        // Two members, of which the last is small.
        let (first, second) = (message(Encoding::Gzip, &vec![7; 50_000]), message(Encoding::Gzip, b"x"));
        let both = [&first[..], &second[PREFIX_BYTES..]].concat();
        assert_eq!(unpacked(Encoding::Gzip, &both.into()), Err(Code::Internal));
        // A zstd frame that does not say its size, and holds more than may be.
        let mut unsized_frame = zstd::stream::write::Encoder::new(vec![1, 0, 0, 0, 0], 1).expect("an encoder");
        unsized_frame.include_contentsize(false).expect("an option");
        unsized_frame.write_all(&vec![7; 2 * BYTES_MAX]).expect("it fits");
        let unsized_frame: Bytes = unsized_frame.finish().expect("a frame").into();
        assert_eq!(unpacked(Encoding::Zstd, &unsized_frame), Err(Code::Internal));
    }

    #[test]
    fn what_is_not_in_its_encoding_is_refused() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let right = message(encoding, &[7; 300]);
            for length in [0, 1, 4, 10, right.len() - PREFIX_BYTES - 1] {
                let cut = right.slice(..PREFIX_BYTES + length);
                assert_eq!(unpacked(encoding, &cut), Err(Code::Internal), "{encoding:?} {length}");
            }
            let mut noise = right.to_vec();
            for byte in noise.iter_mut().skip(PREFIX_BYTES).take(4) {
                *byte ^= 0x55;
            }
            assert_eq!(unpacked(encoding, &noise.into()), Err(Code::Internal), "{encoding:?}");
        }
        let gzip = message(Encoding::Gzip, b"x");
        assert!(Packed::of(&gzip, None, BYTES_MAX).is_err());
        let mut headers = HeaderMap::new();
        assert!(Encoding::take(&mut headers).is_ok_and(|encoding| encoding.is_none()));
        headers.insert(ENCODING, HeaderValue::from_static("br"));
        let refused = Encoding::take(&mut headers).expect_err("it is unknown");
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.metadata().contains_key(ACCEPTED));
    }
}
