//! Ids as they are encoded in Redis, in facts and in change batches alike.
//!
//! Holds no version: [`FORMAT`](super::FORMAT) goes up with every change to this encoding.

use serde::{Deserialize, Serialize};

use crate::question::Id;

/// An id: its own bytes, and one for its form.
#[derive(Serialize, Deserialize)]
pub(crate) enum EncodedId<'a> {
    ObjectId([u8; 12]),
    Integer(i64),
    Uuid([u8; 16]),
    String(&'a str),
    Digest([u8; 16]),
}

impl<'a> EncodedId<'a> {
    pub(crate) fn of(id: &'a Id) -> Self {
        match id {
            Id::ObjectId(bytes) => Self::ObjectId(*bytes),
            Id::Integer(number) => Self::Integer(*number),
            Id::Uuid(bytes) => Self::Uuid(*bytes),
            Id::String(text) => Self::String(text),
            Id::Digest(bytes) => Self::Digest(*bytes),
        }
    }

    pub(crate) fn into_id(self) -> Id {
        match self {
            Self::ObjectId(bytes) => Id::ObjectId(bytes),
            Self::Integer(number) => Id::Integer(number),
            Self::Uuid(bytes) => Id::Uuid(bytes),
            Self::String(text) => Id::String(text.into()),
            Self::Digest(bytes) => Id::Digest(bytes),
        }
    }
}
