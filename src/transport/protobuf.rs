//! The fields of protobuf messages as they stand in their bytes.
//!
//! Knows no message.

use prost::encoding::decode_varint;

/// The bytes are no protobuf message, or have groups, which the API does not use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    /// Four or eight bytes.
    Fixed,
    /// A text, a message, bytes, or packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The message.
    pub(super) fn message(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed => Err(Malformed),
        }
    }

    /// The text.
    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.message()?).map_err(|_| Malformed)
    }

    /// The flag.
    pub(super) fn flag(self) -> Result<bool, Malformed> {
        match self {
            Self::Varint(value) => Ok(value != 0),
            Self::Fixed | Self::Bytes(_) => Err(Malformed),
        }
    }
}

/// The fields of a message, each with its number. Ends after the first error.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.take_field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn take_field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let tag = self.take_varint()?;
        let (number, kind) = (tag >> 3, tag & 7);
        if number == 0 || u32::try_from(tag).is_err() {
            return Err(Malformed);
        }
        let value = match kind {
            0 => Value::Varint(self.take_varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.take_varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }

    fn take_varint(&mut self) -> Result<u64, Malformed> {
        decode_varint(&mut self.0).map_err(|_| Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (value, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(value)
    }
}
