//! Encodes facts for Redis and decodes them: in as few bytes as possible, as Redis holds millions of them.
//!
//! The stamp comes first, then the number of parts, then the parts up to the end of the value, all in the format of
//! [postcard](https://postcard.jamesmunns.com/wire-format). The key is not part of the value, and neither is
//! the code, which is tested before. Even so, a value is decoded only if some documents could have made the fact. Whether a
//! decoded fact still counts is not known here.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::{
    fact::{Certainty, DocumentId, Fact, FactKey, Grant, Grantee, Part, UNBOUNDED, Window},
    freshness::Moment,
    link::EncodedId,
    question::{Id, Millis, RelationId},
    schema::Schema,
};

/// The most bytes of an encoded fact.
pub const BYTES_MAX: usize = 64 * 1_024;

/// The first bytes of a value.
#[derive(Serialize, Deserialize)]
struct Head {
    /// The seconds of the stamp, big-endian: as a varint they would take five bytes.
    seconds: [u8; 4],
    /// The increment of the stamp.
    increment: u32,
    /// How many parts follow. Without this count, a truncated value could lack the part that denies.
    parts: u32,
}

/// An encoded [`Part`]. A relation is its index among those of the lookup. The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
enum EncodedPart<'a> {
    /// The most common grant in few bytes: of the first document, sure, not limited in time, to an `ObjectId` of the
    /// first target.
    Plain {
        relation: u16,
        id: [u8; 12],
    },
    Grant {
        relation: u16,
        document: u16,
        certainty: EncodedCertainty,
        #[serde(borrow)]
        grantee: EncodedGrantee<'a>,
        target: u8,
        window: Option<u16>,
    },
    #[serde(borrow)]
    Document(EncodedId<'a>),
    OtherDocument(&'a str),
    Window {
        since: Option<Millis>,
        until: Option<Millis>,
    },
    Silent,
    OverLimit,
}

/// An encoded [`Certainty`].
#[derive(Serialize, Deserialize)]
enum EncodedCertainty {
    Sure,
    Doubtful,
    Suspect,
}

/// An encoded [`Grantee`].
#[derive(Serialize, Deserialize)]
enum EncodedGrantee<'a> {
    #[serde(borrow)]
    Id(EncodedId<'a>),
    Flag,
    Everyone,
    Unreadable,
    Unknown(&'a str),
    OverLimit,
}

/// Encodes a fact. None if it takes more than [`BYTES_MAX`], or is not of this schema.
#[must_use]
pub fn encode(schema: &Schema, fact: &Fact) -> Option<Vec<u8>> {
    let relations = &schema.lookup(fact.lookup()).relations;
    let (stamp, parts) = (fact.stamp(), u32::try_from(fact.parts().len()).ok()?);
    let head = Head { seconds: stamp.seconds().to_be_bytes(), increment: stamp.increment(), parts };
    let mut bytes = postcard::to_extend(&head, Vec::with_capacity(40)).ok()?;
    for part in fact.parts() {
        bytes = postcard::to_extend(&EncodedPart::of(part, relations)?, bytes).ok()?;
        if bytes.len() > BYTES_MAX {
            return None;
        }
    }
    Some(bytes)
}

/// Decodes the fact of a key. None if the bytes are not those of a fact that documents could have made for this key.
#[must_use]
pub fn decode(schema: &Schema, key: FactKey, bytes: &[u8]) -> Option<Fact> {
    if bytes.len() > BYTES_MAX {
        return None;
    }
    let relations = &schema.lookup(key.lookup).relations;
    let (head, mut rest) = postcard::take_from_bytes::<Head>(bytes).ok()?;
    // Each part takes at least one byte, so the length of the value bounds their number.
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (part, after) = postcard::take_from_bytes::<EncodedPart<'_>>(rest).ok()?;
        parts.push(part.into_part(relations)?);
        rest = after;
    }
    let stamp = Moment::new(u32::from_be_bytes(head.seconds), head.increment);
    let is_whole = u32::try_from(parts.len()) == Ok(head.parts);
    if is_whole { Fact::checked(schema, key, stamp, &parts) } else { None }
}

impl<'a> EncodedPart<'a> {
    fn of(part: &'a Part, relations: &[RelationId]) -> Option<Self> {
        Some(match part {
            Part::OverLimit => Self::OverLimit,
            // The subject is part of the key.
            Part::FilteredTo(_) => return None,
            Part::Silent => Self::Silent,
            Part::Document(DocumentId::Id(id)) => Self::Document(EncodedId::of(id)),
            Part::Document(DocumentId::Other(text)) => Self::OtherDocument(text),
            Part::Window(Window { since, until }) => Self::Window {
                since: Some(*since).filter(|since| *since != Window::default().since),
                until: Some(*until).filter(|until| *until != Window::default().until),
            },
            Part::Grant(grant) => {
                let index = relations.iter().position(|relation| *relation == grant.relation)?;
                Self::of_grant(grant, u16::try_from(index).ok()?)
            }
        })
    }

    fn of_grant(grant: &'a Grant, relation: u16) -> Self {
        let Grant { relation: _, document, certainty, grantee, target, window } = grant;
        match (document, certainty, grantee, target, *window) {
            (0, Certainty::Sure, Grantee::Id(Id::ObjectId(id)), 0, UNBOUNDED) => Self::Plain { relation, id: *id },
            (document, certainty, grantee, target, window) => Self::Grant {
                relation,
                document: *document,
                certainty: match certainty {
                    Certainty::Sure => EncodedCertainty::Sure,
                    Certainty::Doubtful => EncodedCertainty::Doubtful,
                    Certainty::Suspect => EncodedCertainty::Suspect,
                },
                grantee: match grantee {
                    Grantee::Id(id) => EncodedGrantee::Id(EncodedId::of(id)),
                    Grantee::Flag => EncodedGrantee::Flag,
                    Grantee::Everyone => EncodedGrantee::Everyone,
                    Grantee::Unreadable => EncodedGrantee::Unreadable,
                    Grantee::Unknown(text) => EncodedGrantee::Unknown(text),
                    Grantee::OverLimit => EncodedGrantee::OverLimit,
                },
                target: *target,
                window: Some(window).filter(|window| *window != UNBOUNDED),
            },
        }
    }

    fn into_part(self, relations: &[RelationId]) -> Option<Part> {
        let relation_at = |index: u16| relations.get(usize::from(index)).copied();
        Some(match self {
            Self::OverLimit => Part::OverLimit,
            Self::Silent => Part::Silent,
            Self::Document(id) => Part::Document(DocumentId::Id(id.into_id())),
            Self::OtherDocument(text) => Part::Document(DocumentId::Other(text.into())),
            Self::Window { since, until } => Part::Window(Window {
                since: since.unwrap_or(Window::default().since),
                until: until.unwrap_or(Window::default().until),
            }),
            Self::Plain { relation, id } => Part::Grant(Grant {
                relation: relation_at(relation)?,
                document: 0,
                certainty: Certainty::Sure,
                grantee: Grantee::Id(Id::ObjectId(id)),
                target: 0,
                window: UNBOUNDED,
            }),
            Self::Grant { relation, document, certainty, grantee, target, window } => Part::Grant(Grant {
                relation: relation_at(relation)?,
                document,
                certainty: match certainty {
                    EncodedCertainty::Sure => Certainty::Sure,
                    EncodedCertainty::Doubtful => Certainty::Doubtful,
                    EncodedCertainty::Suspect => Certainty::Suspect,
                },
                grantee: match grantee {
                    EncodedGrantee::Id(id) => Grantee::Id(id.into_id()),
                    EncodedGrantee::Flag => Grantee::Flag,
                    EncodedGrantee::Everyone => Grantee::Everyone,
                    EncodedGrantee::Unreadable => Grantee::Unreadable,
                    EncodedGrantee::Unknown(text) => Grantee::Unknown(text.into()),
                    EncodedGrantee::OverLimit => Grantee::OverLimit,
                },
                target,
                window: window.unwrap_or(UNBOUNDED),
            }),
        })
    }
}
