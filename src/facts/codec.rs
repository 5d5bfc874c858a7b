//! A fact as bytes, for Redis, and back: as few as there can be, as they are kept there by the million.
//!
//! The stamp comes first, then how many parts there are, and then those, each in [postcard](https://postcard.jamesmunns.com/wire-format)'s format,
//! up to the end. The key is not among them: Redis finds the fact by it. Nothing that is read is trusted: what no fact could
//! say is none. Whether it still counts is not known here.

use serde::{Deserialize, Serialize};

use crate::{
    fact::{Certainty, DocumentId, Fact, FactKey, Grant, Grantee, Part, UNBOUNDED, Window},
    freshness::Moment,
    link::EncodedId,
    question::{Id, Millis, RelationId},
    schema::Schema,
};

/// How long the bytes of a fact are at most.
pub const BYTES_MAX: usize = 64 * 1_024;

/// What comes first.
#[derive(Serialize, Deserialize)]
struct Head {
    /// The stamp's seconds, in the four bytes that they take.
    seconds: [u8; 4],
    increment: u32,
    /// How many parts follow: a part that is missing might be the one that denies.
    parts: u32,
}

/// A part of a fact. A relation is its place among those of the lookup.
#[derive(Serialize, Deserialize)]
enum Piece<'a> {
    /// What most grants are like: by the first document, which is sure of it, without an end, to an `ObjectId` of the first
    /// target.
    Plain {
        relation: u16,
        id: [u8; 12],
    },
    Grant {
        relation: u16,
        document: u16,
        certainty: Sureness,
        #[serde(borrow)]
        grantee: Leads<'a>,
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

#[derive(Serialize, Deserialize)]
enum Sureness {
    Sure,
    Doubtful,
    Suspect,
}

#[derive(Serialize, Deserialize)]
enum Leads<'a> {
    #[serde(borrow)]
    To(EncodedId<'a>),
    Flag,
    Everyone,
    Unreadable,
}

/// A fact as bytes; none if those are too many, or it is not of this schema.
#[must_use]
pub fn encode(schema: &Schema, fact: &Fact) -> Option<Vec<u8>> {
    let relations = &schema.lookup(fact.lookup()).relations;
    let (stamp, parts) = (fact.stamp(), u32::try_from(fact.parts().len()).ok()?);
    let head = Head { seconds: stamp.seconds().to_be_bytes(), increment: stamp.increment(), parts };
    let mut bytes = postcard::to_extend(&head, Vec::with_capacity(40)).ok()?;
    for part in fact.parts() {
        bytes = postcard::to_extend(&Piece::of(part, relations)?, bytes).ok()?;
        if bytes.len() > BYTES_MAX {
            return None;
        }
    }
    Some(bytes)
}

/// The fact of a key that these are the bytes of, if they are of any.
#[must_use]
pub fn decode(schema: &Schema, key: FactKey, bytes: &[u8]) -> Option<Fact> {
    if bytes.len() > BYTES_MAX {
        return None;
    }
    let relations = &schema.lookup(key.lookup).relations;
    let (head, mut rest) = postcard::take_from_bytes::<Head>(bytes).ok()?;
    // No part is of less than a byte: that bounds what is made of those.
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (piece, after) = postcard::take_from_bytes::<Piece<'_>>(rest).ok()?;
        parts.push(piece.into_part(relations)?);
        rest = after;
    }
    let stamp = Moment::new(u32::from_be_bytes(head.seconds), head.increment);
    let is_whole = u32::try_from(parts.len()) == Ok(head.parts);
    if is_whole { Fact::checked(schema, key, stamp, &parts) } else { None }
}

impl<'a> Piece<'a> {
    fn of(part: &'a Part, relations: &[RelationId]) -> Option<Self> {
        Some(match part {
            Part::OverLimit => Self::OverLimit,
            Part::Silent => Self::Silent,
            Part::Document(DocumentId::Id(id)) => Self::Document(EncodedId::of(id)),
            Part::Document(DocumentId::Other(text)) => Self::OtherDocument(text),
            Part::Window(Window { since, until }) => Self::Window {
                since: Some(*since).filter(|since| *since != Window::default().since),
                until: Some(*until).filter(|until| *until != Window::default().until),
            },
            Part::Grant(grant) => {
                let place = relations.iter().position(|relation| *relation == grant.relation)?;
                Self::of_grant(grant, u16::try_from(place).ok()?)
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
                    Certainty::Sure => Sureness::Sure,
                    Certainty::Doubtful => Sureness::Doubtful,
                    Certainty::Suspect => Sureness::Suspect,
                },
                grantee: match grantee {
                    Grantee::Id(id) => Leads::To(EncodedId::of(id)),
                    Grantee::Flag => Leads::Flag,
                    Grantee::Everyone => Leads::Everyone,
                    Grantee::Unreadable => Leads::Unreadable,
                },
                target: *target,
                window: Some(window).filter(|window| *window != UNBOUNDED),
            },
        }
    }

    fn into_part(self, relations: &[RelationId]) -> Option<Part> {
        let relation_at = |place: u16| relations.get(usize::from(place)).copied();
        Some(match self {
            Self::OverLimit => Part::OverLimit,
            Self::Silent => Part::Silent,
            Self::Document(name) => Part::Document(DocumentId::Id(name.into_id())),
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
                    Sureness::Sure => Certainty::Sure,
                    Sureness::Doubtful => Certainty::Doubtful,
                    Sureness::Suspect => Certainty::Suspect,
                },
                grantee: match grantee {
                    Leads::To(name) => Grantee::Id(name.into_id()),
                    Leads::Flag => Grantee::Flag,
                    Leads::Everyone => Grantee::Everyone,
                    Leads::Unreadable => Grantee::Unreadable,
                },
                target,
                window: window.unwrap_or(UNBOUNDED),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use bson::{Bson, Document, doc, oid::ObjectId};
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::fact::DOCUMENTS_MAX;

    const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
collection = "users"
where = { active = true }

[subject.link]
id = "string"
secret = true

[subject.bot]
id = "integer"

[resource.team]
id = "uuid"
collection = "teams"

[resource.team.relations]
member = { each = "members", field = "user", where = { level = 1 }, document_where = { open = true }, until = "until" }

[resource.team.permissions]
view = "member"

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner" }
folder = { field = "folder", resource = "file" }
deleted = { where = { deleted = true }, since = "since" }
reader = { field = "readers", wildcard = true }
reviewer = { field = "team", subject = "team.member" }
guest = { collection = "shares", by = "file", field = "user", where = { level = 1 }, since = "since", until = "until" }
opener = { collection = "shares", by = "file", field = "token", subject = "link", until = "until", required = true }
holder = { collection = "tuples", by = "object", field = "id", subject = ["user", "bot", "team.member"], subject_type = "kind", subject_relation = "role" }

[resource.file.permissions]
read = "!deleted & (owner | folder.read | reader | reviewer | guest | opener | holder)"
"#;

    fn schema() -> &'static Schema {
        static COMPILED: LazyLock<Schema> =
            LazyLock::new(|| Schema::parse("schema.toml", SCHEMA).unwrap_or_else(|errors| panic!("{errors}")));
        &COMPILED
    }

    fn at() -> Moment {
        Moment::new(1_790_000_000, 100)
    }

    fn key(schema: &Schema, collection: &str) -> FactKey {
        let lookup = schema.lookups().find(|(_, lookup)| &*lookup.collection == collection).unwrap().0;
        FactKey { lookup, id: Id::ObjectId([7; 12]) }
    }

    /// What stands in documents: of every type that some relation reads, and of others.
    fn value() -> impl Strategy<Value = Bson> {
        let one = prop_oneof![
            8 => (0_u8..4).prop_map(|byte| Bson::ObjectId(ObjectId::from_bytes([byte; 12]))),
            3 => (0_i64..3).prop_map(|millis| Bson::DateTime(bson::DateTime::from_millis(millis))),
            2 => Just(Bson::Boolean(true)),
            3 => Just(Bson::Int32(1)),
            2 => any::<i64>().prop_map(Bson::Int64),
            2 => Just(Bson::Double(2.5)),
            3 => "user|bot|team|member|\\*|[a-z]{0,3}".prop_map(Bson::String),
            2 => any::<[u8; 16]>().prop_map(|bytes| Bson::from(bson::Uuid::from_bytes(bytes))),
            1 => Just(Bson::Null),
            1 => Just(Bson::Document(doc! { "a": 1 })),
        ];
        prop_oneof![4 => one.clone(), 1 => vec(one, 0..4).prop_map(Bson::Array)]
    }

    fn fields(names: &'static [&'static str]) -> impl Strategy<Value = Document> {
        vec((select(names), value()), 0..10)
            .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Plain values under the names that relations read, but for some, and some elements.
    fn document() -> impl Strategy<Value = Document> {
        const NAMES: [&str; 17] = [
            "_id", "active", "owner", "folder", "deleted", "readers", "team", "since", "until", "user", "level",
            "token", "id", "kind", "role", "members", "open",
        ];
        let member = fields(&["user", "level", "until"]).prop_map(|fields| {
            let mut member = doc! { "level": 1 };
            member.extend(fields);
            member
        });
        (fields(&NAMES), vec(member, 0..4), any::<u8>()).prop_map(|(fields, members, number)| {
            let id = ObjectId::from_bytes([number; 12]);
            let mut document = doc! { "_id": id, "active": true, "level": 1, "open": true, "members": members };
            document.extend(fields);
            document
        })
    }

    fn fact() -> impl Strategy<Value = Fact> {
        let collection = select(&["users", "teams", "files", "shares", "tuples"]);
        (collection, vec(document(), 0..5), any::<u64>()).prop_map(|(collection, documents, stamp)| {
            let schema = schema();
            let key = key(schema, collection);
            let found_max = if schema.lookup(key.lookup).is_by_id() { 1 } else { DOCUMENTS_MAX };
            let documents: Vec<&Document> = documents.iter().take(found_max).collect();
            Fact::read(schema, key, Moment::from_count(stamp), &documents)
        })
    }

    fn key_of(fact: &Fact) -> FactKey {
        FactKey { lookup: fact.lookup(), id: fact.id().clone() }
    }

    /// What is true of a fact that was read, in other words than the check has.
    fn assert_valid(schema: &Schema, fact: &Fact) {
        let (lookup, parts) = (schema.lookup(fact.lookup()), fact.parts());
        let grants = lookup.relations.iter().map(|relation| fact.grants(*relation).count()).sum::<usize>();
        let documents = fact.documents_beside_key().count();
        let windows = parts.iter().filter(|part| matches!(part, Part::Window(_))).count();
        let alone = parts.iter().filter(|part| matches!(part, Part::OverLimit | Part::Silent)).count();
        assert_eq!(documents + windows + grants + alone, parts.len(), "each in its place: {fact:?}");
        assert!(alone == 0 || parts.len() == 1, "{fact:?}");
        for relation in &lookup.relations {
            for grant in fact.grants(*relation) {
                assert!(fact.documents().contains(&fact.document_of(grant)), "{fact:?}");
                assert_eq!(fact.window(grant) == Window::default(), grant.window == UNBOUNDED, "{fact:?}");
                let targets = schema.relation(*relation).ids.as_ref().map_or(1, |ids| ids.targets.len());
                assert!(usize::from(grant.target) < targets, "{fact:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

        #[test]
        fn a_fact_that_was_read_comes_back_as_it_was(fact in fact()) {
            let schema = schema();
            let bytes = encode(schema, &fact).unwrap();
            let decoded = decode(schema, key_of(&fact), &bytes);
            prop_assert!(
                decoded.as_ref().is_some_and(|decoded| decoded.has_same_content(&fact) && decoded.stamp() == fact.stamp()),
                "{fact:?} {decoded:?}"
            );
            assert_valid(schema, &fact);
        }

        #[test]
        fn whatever_the_bytes_are_they_are_a_sound_fact_or_none(
            fact in fact(),
            changes in vec((any::<u16>(), any::<u8>(), 0_u8..4), 1..4),
        ) {
            let schema = schema();
            let mut bytes = encode(schema, &fact).unwrap();
            for (place, byte, kind) in changes {
                let place = usize::from(place) % (bytes.len() + 1);
                match kind {
                    0 => bytes.truncate(place),
                    1 => bytes.insert(place, byte),
                    2 if place < bytes.len() => drop(bytes.remove(place)),
                    _ => bytes.iter_mut().skip(place).take(1).for_each(|there| *there = byte),
                }
            }
            if let Some(decoded) = decode(schema, key_of(&fact), &bytes) {
                assert_valid(schema, &decoded);
                let again = decode(schema, key_of(&fact), &encode(schema, &decoded).unwrap());
                prop_assert!(again.is_some_and(|again| again.has_same_content(&decoded)));
            }
        }

        #[test]
        fn any_bytes_at_all_are_a_sound_fact_or_none(bytes in vec(0_u8..16, 0..40), collection in select(&["files", "shares"])) {
            let schema = schema();
            if let Some(decoded) = decode(schema, key(schema, collection), &bytes) {
                assert_valid(schema, &decoded);
            }
        }
    }

    #[test]
    fn an_ordinary_file_takes_36_bytes_at_most() {
        let schema = schema();
        let id = |number| ObjectId::from_bytes([number; 12]);
        let file = doc! { "_id": id(7), "owner": id(1), "folder": id(2), "name": "a" };
        for increment in [1, 100, 10_000, 1_000_000] {
            let fact = Fact::read(schema, key(schema, "files"), Moment::new(1_790_000_000, increment), &[&file]);
            let bytes = encode(schema, &fact).unwrap();
            assert!(bytes.len() <= 36, "{}", bytes.len());
        }
    }

    fn bytes(pieces: &[Piece<'_>]) -> Vec<u8> {
        let parts = u32::try_from(pieces.len()).unwrap();
        let head = Head { seconds: at().seconds().to_be_bytes(), increment: at().increment(), parts };
        let mut bytes = postcard::to_stdvec(&head).unwrap();
        for piece in pieces {
            bytes = postcard::to_extend(piece, bytes).unwrap();
        }
        bytes
    }

    fn plain(relation: u16, number: u8) -> Piece<'static> {
        Piece::Plain { relation, id: [number; 12] }
    }

    fn document_of(number: u8) -> Piece<'static> {
        Piece::Document(EncodedId::ObjectId([number; 12]))
    }

    fn until(millis: Millis) -> Piece<'static> {
        Piece::Window { since: None, until: Some(millis) }
    }

    /// A grant to nobody that can be read.
    fn odd(relation: u16, document: u16, target: u8, window: Option<u16>) -> Piece<'static> {
        let (certainty, grantee) = (Sureness::Doubtful, Leads::Unreadable);
        Piece::Grant { relation, document, certainty, grantee, target, window }
    }

    fn to(relation: u16, document: u16, certainty: Sureness, grantee: Leads<'_>) -> Piece<'_> {
        Piece::Grant { relation, document, certainty, grantee, target: 0, window: None }
    }

    #[test]
    fn what_no_fact_could_say_is_none() {
        use Piece::{OverLimit, Silent};
        let schema = schema();
        let place = |collection: &str, name: &str| {
            let relations = &schema.lookup(key(schema, collection).lookup).relations;
            let place = relations.iter().position(|id| *schema.relation(*id).name == *name).unwrap();
            u16::try_from(place).unwrap()
        };
        let of_file = |name| place("files", name);
        let (owner, deleted, reader) = (of_file("owner"), of_file("deleted"), of_file("reader"));
        let (guest, opener, holder) = (place("shares", "guest"), place("shares", "opener"), place("tuples", "holder"));
        let is_fact = |collection: &str, pieces: &[Piece<'_>]| {
            let fact = decode(schema, key(schema, collection), &bytes(pieces));
            fact.inspect(|fact| assert_valid(schema, fact)).is_some()
        };
        let text = "x".repeat(1_025);
        let string = |text| Leads::To(EncodedId::String(text));
        let sure = |relation, grantee| to(relation, 0, Sureness::Sure, grantee);
        let no = Window::default();
        let (unbounded, empty) = (Piece::Window { since: None, until: None }, EncodedId::String(""));
        let cases: Vec<(bool, &str, Vec<Piece<'_>>)> = vec![
            (true, "files", vec![]),
            (true, "files", vec![Silent]),
            (true, "files", vec![OverLimit]),
            (false, "files", vec![Silent, Silent]),
            (false, "files", vec![OverLimit, OverLimit]),
            (false, "files", vec![plain(owner, 1), OverLimit]),
            (false, "files", vec![Silent, plain(owner, 1)]),
            (false, "shares", vec![Silent]),
            // Documents.
            (true, "shares", vec![document_of(1), document_of(2)]),
            (true, "shares", vec![document_of(1), Piece::OtherDocument("1")]),
            (false, "shares", vec![Piece::OtherDocument("1"), document_of(1)]),
            (false, "shares", vec![document_of(2), document_of(1)]),
            (false, "shares", vec![Piece::Document(EncodedId::String(&text))]),
            (false, "shares", vec![Piece::Document(EncodedId::Digest([1; 16]))]),
            (false, "shares", vec![plain(guest, 1)]),
            (false, "files", vec![document_of(7), plain(owner, 1)]),
            (false, "shares", vec![document_of(1), plain(guest, 1), document_of(2)]),
            // Grants.
            (
                true,
                "shares",
                vec![document_of(1), plain(guest, 1), to(guest, 0, Sureness::Doubtful, Leads::Unreadable)],
            ),
            (false, "shares", vec![document_of(1), to(guest, 1, Sureness::Sure, Leads::Unreadable)]),
            (true, "files", vec![plain(owner, 1), plain(owner, 2)]),
            (false, "files", vec![plain(owner, 2), plain(owner, 1)]),
            (false, "files", vec![plain(owner, 1), plain(owner, 1)]),
            (false, "files", vec![plain(99, 1)]),
            (true, "files", vec![to(deleted, 0, Sureness::Suspect, Leads::Flag)]),
            (false, "files", vec![to(owner, 0, Sureness::Suspect, Leads::Unreadable)]),
            (false, "files", vec![plain(deleted, 1)]),
            (false, "files", vec![sure(owner, Leads::Flag)]),
            (true, "files", vec![sure(reader, Leads::Everyone)]),
            (false, "files", vec![sure(owner, Leads::Everyone)]),
            (false, "files", vec![sure(owner, Leads::To(EncodedId::Integer(1)))]),
            (false, "files", vec![sure(owner, Leads::To(EncodedId::Uuid([1; 16])))]),
            (false, "files", vec![sure(owner, string("x"))]),
            (true, "files", vec![odd(owner, 0, 0, None)]),
            (false, "files", vec![odd(owner, 0, 1, None)]),
            (false, "files", vec![odd(deleted, 0, 1, None)]),
            (true, "tuples", vec![document_of(1), odd(holder, 0, 2, None)]),
            (false, "tuples", vec![document_of(1), odd(holder, 0, 3, None)]),
            (true, "shares", vec![document_of(1), sure(opener, Leads::To(EncodedId::Digest([1; 16])))]),
            (false, "shares", vec![document_of(1), sure(opener, string("secret"))]),
            (false, "shares", vec![document_of(1), sure(opener, Leads::To(empty))]),
            // Times.
            (true, "shares", vec![document_of(1), until(1), odd(guest, 0, 0, Some(1))]),
            (
                true,
                "shares",
                vec![document_of(1), until(2), until(1), odd(guest, 0, 0, Some(1)), odd(opener, 0, 0, Some(2))],
            ),
            (
                false,
                "shares",
                vec![document_of(1), until(1), until(1), odd(guest, 0, 0, Some(1)), odd(opener, 0, 0, Some(2))],
            ),
            (
                false,
                "shares",
                vec![document_of(1), until(2), until(1), odd(guest, 0, 0, Some(2)), odd(opener, 0, 0, Some(1))],
            ),
            (false, "shares", vec![document_of(1), until(1), odd(guest, 0, 0, None)]),
            (false, "shares", vec![document_of(1), until(1)]),
            (false, "shares", vec![document_of(1), until(1), odd(guest, 0, 0, Some(0))]),
            (false, "shares", vec![document_of(1), until(1), odd(guest, 0, 0, Some(2))]),
            (false, "shares", vec![document_of(1), unbounded, odd(guest, 0, 0, Some(1))]),
            (false, "shares", vec![document_of(1), until(no.until), odd(guest, 0, 0, Some(1))]),
            (false, "files", vec![until(1), odd(owner, 0, 0, Some(0))]),
            (false, "shares", vec![until(1), document_of(1), odd(guest, 0, 0, Some(1))]),
        ];
        for (number, (expected, collection, pieces)) in cases.iter().enumerate() {
            assert_eq!(is_fact(collection, pieces), *expected, "case {number} of {collection}");
        }
    }

    #[test]
    fn a_fact_holds_no_more_than_one_that_was_read() {
        let schema = schema();
        let key = key(schema, "shares");
        let documents = |count: u16| -> Vec<Piece<'_>> {
            (0..count).map(|number| Piece::Document(EncodedId::Integer(number.into()))).collect()
        };
        assert!(decode(schema, key.clone(), &bytes(&documents(1_000))).is_some());
        assert!(decode(schema, key.clone(), &bytes(&documents(1_001))).is_none());
        let other = "x".repeat(BYTES_MAX - 100);
        assert!(decode(schema, key.clone(), &bytes(&[Piece::OtherDocument(&other)])).is_some());
        let other = "x".repeat(BYTES_MAX);
        assert!(decode(schema, key.clone(), &bytes(&[Piece::OtherDocument(&other)])).is_none());
        // A text that says to be longer than all that there is.
        let mut long = bytes(&[Piece::OtherDocument("")]);
        long.pop();
        long.extend([0xff, 0xff, 0xff, 0xff, 0x0f, b'x']);
        assert!(decode(schema, key.clone(), &long).is_none());
        // A part less than it says, and one more.
        let whole = bytes(&documents(2));
        assert!(decode(schema, key.clone(), &whole).is_some());
        assert!(decode(schema, key.clone(), &whole[..whole.len() - 3]).is_none());
        assert!(decode(schema, key, &[&*whole, &bytes(&documents(3))[whole.len()..]].concat()).is_none());
    }
}
