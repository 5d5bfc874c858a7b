//! Questions, answers and ids: the types that all other modules share. Ids are typed and compared as a whole.
//!
//! It contains no names: types, relations and permissions are numbers, which are assigned when the schema is compiled. It
//! knows no protocol.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use sha2::{Digest, Sha256};

/// The longest id that is accepted, in bytes.
pub const ID_BYTES_MAX: usize = 1_024;

/// Milliseconds since the Unix epoch, as MongoDB's dates count.
pub type Millis = i64;

macro_rules! number {
    ($(#[$doc:meta] $name:ident),+ $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u16);

        impl $name {
            /// The index in the schema's table of its kind.
            #[must_use]
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    )+};
}

number! {
    /// A subject type: a `[subject.…]` of the schema.
    SubjectTypeId,
    /// A resource type: a `[resource.…]` of the schema.
    ResourceTypeId,
    /// A relation of a resource type, or the gate of a type: what the own document of a subject or resource must fulfil.
    RelationId,
    /// A permission of a resource type.
    PermissionId,
    /// A lookup: a collection and the field by which documents are found.
    LookupId,
    /// A collection that at least one lookup reads.
    CollectionId,
}

/// The form in which documents and requests write the ids of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdForm {
    /// 24 hex digits, in either case.
    ObjectId,
    /// Any text of at most [`ID_BYTES_MAX`] bytes, except the empty text and `*`.
    String,
    /// A 64-bit whole number, in decimal without leading zeros.
    Integer,
    /// 32 hex digits in either case, grouped 8-4-4-4-12 (binary subtype 4 in MongoDB).
    Uuid,
}

impl IdForm {
    /// All forms, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::ObjectId, Self::String, Self::Integer, Self::Uuid];

    /// The name of the form in a schema.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ObjectId => "objectid",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Uuid => "uuid",
        }
    }

    /// What a caller must send, for error messages.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::ObjectId => "an ObjectId: 24 hex digits",
            Self::String => "a text of 1 to 1,024 bytes that is not `*`",
            Self::Integer => "a 64-bit whole number in decimal",
            Self::Uuid => "a UUID: 32 hex digits grouped 8-4-4-4-12",
        }
    }
}

/// The id of a subject or a resource. Ids of different forms are never equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    /// A MongoDB `ObjectId`.
    ObjectId([u8; 12]),
    /// A whole number. The numeric types of BSON are alike, as in MongoDB's equality.
    Integer(i64),
    /// A UUID.
    Uuid([u8; 16]),
    /// A text.
    String(Box<str>),
    /// A bearer secret, kept as the first 128 bits of its SHA-256. That is enough that nobody can find another text with the
    /// same digest.
    Digest([u8; 16]),
}

/// Why a text is not an id of the form that its type requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("is empty")]
    Empty,
    /// The text is `*`. In documents `*` stands for everybody, but a question is about one subject and one resource.
    #[error("`*` is not an id: name one subject or resource")]
    Wildcard,
    /// The text is longer than [`ID_BYTES_MAX`].
    #[error("is longer than 1,024 bytes")]
    TooLong,
    /// The text has another form.
    #[error("is not {}", .0.describe())]
    Form(IdForm),
}

impl Id {
    /// Parses an id. The hex digits of ObjectIds and UUIDs may be in either case; apart from that, every id has exactly one
    /// spelling in a form. If `secret` is set, returns the digest of the text.
    ///
    /// # Errors
    /// [`IdError`] states why the text is not such an id.
    pub fn parse(text: &str, form: IdForm, secret: bool) -> Result<Self, IdError> {
        match text {
            "" => return Err(IdError::Empty),
            "*" => return Err(IdError::Wildcard),
            _ if text.len() > ID_BYTES_MAX => return Err(IdError::TooLong),
            _ => {}
        }
        if secret {
            return Ok(Self::digest(text));
        }
        let id = match form {
            IdForm::ObjectId => hex(text).map(Self::ObjectId),
            IdForm::Uuid => parse_uuid(text).map(Self::Uuid),
            IdForm::Integer => text.parse().ok().filter(|n: &i64| n.to_string() == text).map(Self::Integer),
            IdForm::String => Some(Self::String(text.into())),
        };
        id.ok_or(IdError::Form(form))
    }

    /// The id that stands for a secret.
    #[must_use]
    pub fn digest(secret: &str) -> Self {
        let whole: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let mut half = [0; 16];
        half.copy_from_slice(whole.split_at(16).0);
        Self::Digest(half)
    }

    /// The digest with these 32 hex digits.
    #[must_use]
    pub fn parse_digest(digits: &str) -> Option<Self> {
        hex(digits).map(Self::Digest)
    }

    /// The length of the id in bytes, as it counts towards the bound on a fact's size.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::ObjectId(_) => 12,
            Self::Integer(_) => 8,
            Self::Uuid(_) | Self::Digest(_) => 16,
            Self::String(text) => text.len(),
        }
    }

    /// The text, if the id is one that allocates.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::ObjectId(_) | Self::Integer(_) | Self::Uuid(_) | Self::Digest(_) => None,
        }
    }
}

/// Hashes as few words as possible: it leaves out the form, because all ids of one lookup have the same form.
impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::ObjectId(bytes) => {
                let mut words = [0; 16];
                words.split_at_mut(12).0.copy_from_slice(bytes);
                state.write_u128(u128::from_le_bytes(words));
            }
            Self::Integer(number) => state.write_i64(*number),
            Self::Uuid(bytes) | Self::Digest(bytes) => state.write_u128(u128::from_le_bytes(*bytes)),
            Self::String(text) => text.hash(state),
        }
    }
}

/// Parses exactly `N` bytes from hex digits in either case.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let mut value = 0;
        for digit in pair {
            value = value << 4
                | match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    b'A'..=b'F' => digit - b'A' + 10,
                    _ => return None,
                };
        }
        *byte = value;
    }
    Some(bytes)
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let hyphens_at =
        |at: &[usize]| text.char_indices().filter(|(_, c)| *c == '-').map(|(i, _)| i).eq(at.iter().copied());
    if !hyphens_at(&[8, 13, 18, 23]) {
        return None;
    }
    hex(&text.replace('-', ""))
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write_hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| bytes.iter().try_for_each(|b| write!(f, "{b:02x}"));
        match self {
            Self::ObjectId(bytes) => write_hex(f, bytes),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Uuid(bytes) => {
                for (at, byte) in bytes.iter().enumerate() {
                    let hyphen = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{hyphen}{byte:02x}")?;
                }
                Ok(())
            }
            Self::String(text) => f.write_str(text),
            Self::Digest(bytes) => {
                f.write_str("sha256:")?;
                write_hex(f, bytes)
            }
        }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The subject of a question: who asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An anonymous subject. Only a flag in a document can allow it anything.
    Anonymous,
    /// One subject of a type.
    Known {
        /// Its type.
        kind: SubjectTypeId,
        /// Its id, in the type's form.
        id: Id,
    },
}

/// The resource of a question: what the subject wants to access.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    /// Its type.
    pub kind: ResourceTypeId,
    /// Its id, in the type's form.
    pub id: Id,
}

/// May this subject do this to that resource? A question is valid by construction: [`crate::schema::Schema::question`]
/// creates it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Who asks.
    pub subject: Subject,
    /// The permission in question, which belongs to the resource's type.
    pub permission: PermissionId,
    /// What the subject wants to access.
    pub resource: Resource,
}

/// The answer to a question. An error is not an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The subject may.
    Allowed {
        /// A relation that grants it; none if it holds only because something does not (`!`).
        by: Option<RelationId>,
        /// The time at which the answer may change although no document does; none if there is no such time.
        valid_until: Option<Millis>,
    },
    /// The subject may not.
    Denied(Reason),
}

/// Why an answer is a denial (docs/schema.md, "Reasons").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The subject has no document, or its document fails the condition of its type.
    SubjectInactive,
    /// The resource has no document.
    NotFound,
    /// The answer depends on a document that has a value of the wrong type, or on an edge to an absent resource that must
    /// exist.
    Malformed,
    /// The answer depends on a fact, a tree or a check that exceeds its limit.
    Limit,
    /// The answer depends on itself through a `!`.
    Cycle,
    /// An expression under a `!` holds.
    Excluded,
    /// There is a grant for this subject, but it has not begun yet or is over.
    Expired,
    /// There is no grant for this subject.
    NoGrant,
}

impl Reason {
    /// All reasons, in order of precedence.
    pub const ALL: [Self; 8] = [
        Self::SubjectInactive,
        Self::NotFound,
        Self::Malformed,
        Self::Limit,
        Self::Cycle,
        Self::Excluded,
        Self::Expired,
        Self::NoGrant,
    ];

    /// The name in the protocol, in logs and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SubjectInactive => "SUBJECT_INACTIVE",
            Self::NotFound => "NOT_FOUND",
            Self::Malformed => "MALFORMED",
            Self::Limit => "LIMIT",
            Self::Cycle => "CYCLE",
            Self::Excluded => "EXCLUDED",
            Self::Expired => "EXPIRED",
            Self::NoGrant => "NO_GRANT",
        }
    }
}

/// The layer that served a fact. The fastest one comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// This process's memory (L1).
    Memory,
    /// The shared Redis (L2).
    Redis,
    /// MongoDB, or documents in memory.
    Source,
}

impl Tier {
    /// The name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Source => "source",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling_except_for_the_case_of_hex_digits() {
        let cases = [
            (IdForm::ObjectId, "65f000000000000000000001", true),
            (IdForm::ObjectId, "65F000000000000000000001", true),
            (IdForm::ObjectId, "65f00000000000000000AbCd", true),
            (IdForm::ObjectId, "65g000000000000000000001", false),
            (IdForm::ObjectId, "65G000000000000000000001", false),
            (IdForm::ObjectId, "65f00000000000000000001", false),
            (IdForm::ObjectId, "twelve chars", false),
            (IdForm::ObjectId, "+5f000000000000000000001", false),
            (IdForm::ObjectId, "65f0000000000000000000é", false),
            (IdForm::Integer, "-12", true),
            (IdForm::Integer, "012", false),
            (IdForm::Integer, "+12", false),
            (IdForm::Integer, "9223372036854775808", false),
            (IdForm::Uuid, "123e4567-e89b-12d3-a456-426614174000", true),
            (IdForm::Uuid, "123e4567e89b12d3a456426614174000", false),
            (IdForm::Uuid, "123E4567-e89b-12d3-a456-426614174000", true),
            (IdForm::Uuid, "{123e4567-e89b-12d3-a456-426614174000}", false),
            (IdForm::String, "any thing", true),
            (IdForm::String, "Any Thing", true),
        ];
        for (form, text, ok) in cases {
            let id = Id::parse(text, form, false);
            assert_eq!(id.is_ok(), ok, "{form:?} {text}");
            if let Ok(id) = id {
                let is_hex = matches!(form, IdForm::ObjectId | IdForm::Uuid);
                assert_eq!(id.to_string(), if is_hex { text.to_lowercase() } else { text.to_owned() });
            }
        }
    }

    #[test]
    fn no_form_takes_an_empty_id_or_a_wildcard() {
        for form in IdForm::ALL {
            assert_eq!(Id::parse("", form, false), Err(IdError::Empty));
            assert_eq!(Id::parse("*", form, false), Err(IdError::Wildcard));
        }
    }

    #[test]
    fn a_secret_is_shown_only_as_a_digest() {
        let id = Id::parse("s3cret-token", IdForm::String, true).unwrap();
        assert!(!format!("{id} {id:?}").contains("s3cret"));
        assert_eq!(id, Id::digest("s3cret-token"));
        assert_ne!(id, Id::digest("s3cret-tokem"));
    }
}
