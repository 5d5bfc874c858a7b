//! Tests of the codec: facts survive it, and nothing that no documents could make is decoded.

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
    FactKey::whole(lookup, Id::ObjectId([7; 12]))
}

/// A value of a document: of any type that some relation reads, or of another type.
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

/// A document with ordinary values in the fields that relations read, of which some are replaced, and with some members.
fn document() -> impl Strategy<Value = Document> {
    const NAMES: [&str; 17] = [
        "_id", "active", "owner", "folder", "deleted", "readers", "team", "since", "until", "user", "level", "token",
        "id", "kind", "role", "members", "open",
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
    FactKey::whole(fact.lookup(), fact.id().clone())
}

/// Asserts what is true of every fact that was read from documents, independently of the validation in `fact`.
fn assert_valid(schema: &Schema, fact: &Fact) {
    let (lookup, parts) = (schema.lookup(fact.lookup()), fact.parts());
    let grants = lookup.relations.iter().map(|relation| fact.grants(*relation).count()).sum::<usize>();
    let documents = fact.documents_beside_key().count();
    let windows = parts.iter().filter(|part| matches!(part, Part::Window(_))).count();
    let alone = parts.iter().filter(|part| matches!(part, Part::OverLimit | Part::Silent)).count();
    assert_eq!(documents + windows + grants + alone, parts.len(), "each part is of one kind, in its place: {fact:?}");
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
    fn a_fact_survives_encoding_and_decoding(fact in fact()) {
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
    fn a_changed_value_decodes_to_a_valid_fact_or_none(
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
    fn any_bytes_decode_to_a_valid_fact_or_none(bytes in vec(0_u8..16, 0..40), collection in select(&["files", "shares"])) {
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

fn bytes(parts: &[EncodedPart<'_>]) -> Vec<u8> {
    let count = u32::try_from(parts.len()).unwrap();
    let head = Head { seconds: at().seconds().to_be_bytes(), increment: at().increment(), parts: count };
    let mut bytes = postcard::to_stdvec(&head).unwrap();
    for part in parts {
        bytes = postcard::to_extend(part, bytes).unwrap();
    }
    bytes
}

fn plain(relation: u16, number: u8) -> EncodedPart<'static> {
    EncodedPart::Plain { relation, id: [number; 12] }
}

fn document_of(number: u8) -> EncodedPart<'static> {
    EncodedPart::Document(EncodedId::ObjectId([number; 12]))
}

fn until(millis: Millis) -> EncodedPart<'static> {
    EncodedPart::Window { since: None, until: Some(millis) }
}

/// A grant whose grantee is unreadable.
fn unreadable(relation: u16, document: u16, target: u8, window: Option<u16>) -> EncodedPart<'static> {
    let (certainty, grantee) = (EncodedCertainty::Doubtful, EncodedGrantee::Unreadable);
    EncodedPart::Grant { relation, document, certainty, grantee, target, window }
}

fn to(relation: u16, document: u16, certainty: EncodedCertainty, grantee: EncodedGrantee<'_>) -> EncodedPart<'_> {
    EncodedPart::Grant { relation, document, certainty, grantee, target: 0, window: None }
}

/// The index of a relation among those of its lookup.
fn index(collection: &str, name: &str) -> u16 {
    let schema = schema();
    let relations = &schema.lookup(key(schema, collection).lookup).relations;
    let index = relations.iter().position(|id| *schema.relation(*id).name == *name).unwrap();
    u16::try_from(index).unwrap()
}

/// Whether these parts are decoded to a fact, which is then valid.
fn is_fact(collection: &str, parts: &[EncodedPart<'_>]) -> bool {
    let schema = schema();
    let fact = decode(schema, key(schema, collection), &bytes(parts));
    fact.inspect(|fact| assert_valid(schema, fact)).is_some()
}

#[test]
fn parts_that_no_documents_could_make_are_not_decoded() {
    use EncodedPart::{OverLimit, Silent};
    let of_file = |name| index("files", name);
    let (owner, deleted, reader) = (of_file("owner"), of_file("deleted"), of_file("reader"));
    let (guest, opener, holder) = (index("shares", "guest"), index("shares", "opener"), index("tuples", "holder"));
    let text = "x".repeat(1_025);
    let string = |text| EncodedGrantee::Id(EncodedId::String(text));
    let sure = |relation, grantee| to(relation, 0, EncodedCertainty::Sure, grantee);
    let no = Window::default();
    let (unbounded, empty) = (EncodedPart::Window { since: None, until: None }, EncodedId::String(""));
    let cases: Vec<(bool, &str, Vec<EncodedPart<'_>>)> = vec![
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
        (true, "shares", vec![document_of(1), EncodedPart::OtherDocument("1")]),
        (false, "shares", vec![EncodedPart::OtherDocument("1"), document_of(1)]),
        (false, "shares", vec![document_of(2), document_of(1)]),
        (false, "shares", vec![EncodedPart::Document(EncodedId::String(&text))]),
        (false, "shares", vec![EncodedPart::Document(EncodedId::Digest([1; 16]))]),
        (false, "shares", vec![plain(guest, 1)]),
        (false, "files", vec![document_of(7), plain(owner, 1)]),
        (false, "shares", vec![document_of(1), plain(guest, 1), document_of(2)]),
        // Grants.
        (
            true,
            "shares",
            vec![document_of(1), plain(guest, 1), to(guest, 0, EncodedCertainty::Doubtful, EncodedGrantee::Unreadable)],
        ),
        (false, "shares", vec![document_of(1), to(guest, 1, EncodedCertainty::Sure, EncodedGrantee::Unreadable)]),
        (true, "files", vec![plain(owner, 1), plain(owner, 2)]),
        (false, "files", vec![plain(owner, 2), plain(owner, 1)]),
        (false, "files", vec![plain(owner, 1), plain(owner, 1)]),
        (false, "files", vec![plain(99, 1)]),
        (true, "files", vec![to(deleted, 0, EncodedCertainty::Suspect, EncodedGrantee::Flag)]),
        (false, "files", vec![to(owner, 0, EncodedCertainty::Suspect, EncodedGrantee::Unreadable)]),
        (false, "files", vec![plain(deleted, 1)]),
        (false, "files", vec![sure(owner, EncodedGrantee::Flag)]),
        (true, "files", vec![sure(reader, EncodedGrantee::Everyone)]),
        (false, "files", vec![sure(owner, EncodedGrantee::Everyone)]),
        (false, "files", vec![sure(owner, EncodedGrantee::Id(EncodedId::Integer(1)))]),
        (false, "files", vec![sure(owner, EncodedGrantee::Id(EncodedId::Uuid([1; 16])))]),
        (false, "files", vec![sure(owner, string("x"))]),
        (true, "files", vec![unreadable(owner, 0, 0, None)]),
        (false, "files", vec![unreadable(owner, 0, 1, None)]),
        (false, "files", vec![unreadable(deleted, 0, 1, None)]),
        (true, "tuples", vec![document_of(1), unreadable(holder, 0, 2, None)]),
        (false, "tuples", vec![document_of(1), unreadable(holder, 0, 3, None)]),
        (true, "shares", vec![document_of(1), sure(opener, EncodedGrantee::Id(EncodedId::Digest([1; 16])))]),
        (false, "shares", vec![document_of(1), sure(opener, string("secret"))]),
        (false, "shares", vec![document_of(1), sure(opener, EncodedGrantee::Id(empty))]),
        // Times.
        (true, "shares", vec![document_of(1), until(1), unreadable(guest, 0, 0, Some(1))]),
        (
            true,
            "shares",
            vec![
                document_of(1),
                until(2),
                until(1),
                unreadable(guest, 0, 0, Some(1)),
                unreadable(opener, 0, 0, Some(2)),
            ],
        ),
        (
            false,
            "shares",
            vec![
                document_of(1),
                until(1),
                until(1),
                unreadable(guest, 0, 0, Some(1)),
                unreadable(opener, 0, 0, Some(2)),
            ],
        ),
        (
            false,
            "shares",
            vec![
                document_of(1),
                until(2),
                until(1),
                unreadable(guest, 0, 0, Some(2)),
                unreadable(opener, 0, 0, Some(1)),
            ],
        ),
        (false, "shares", vec![document_of(1), until(1), unreadable(guest, 0, 0, None)]),
        (false, "shares", vec![document_of(1), until(1)]),
        (false, "shares", vec![document_of(1), until(1), unreadable(guest, 0, 0, Some(0))]),
        (false, "shares", vec![document_of(1), until(1), unreadable(guest, 0, 0, Some(2))]),
        (false, "shares", vec![document_of(1), unbounded, unreadable(guest, 0, 0, Some(1))]),
        (false, "shares", vec![document_of(1), until(no.until), unreadable(guest, 0, 0, Some(1))]),
        (false, "files", vec![until(1), unreadable(owner, 0, 0, Some(0))]),
        (false, "shares", vec![until(1), document_of(1), unreadable(guest, 0, 0, Some(1))]),
    ];
    for (number, (expected, collection, parts)) in cases.iter().enumerate() {
        assert_eq!(is_fact(collection, parts), *expected, "case {number} of {collection}");
    }
}

#[test]
fn a_value_beyond_the_limits_of_a_fact_is_not_decoded() {
    let schema = schema();
    let key = key(schema, "shares");
    let documents = |count: u16| -> Vec<EncodedPart<'_>> {
        (0..count).map(|number| EncodedPart::Document(EncodedId::Integer(number.into()))).collect()
    };
    assert!(decode(schema, key.clone(), &bytes(&documents(1_000))).is_some());
    assert!(decode(schema, key.clone(), &bytes(&documents(1_001))).is_none());
    let other = "x".repeat(BYTES_MAX - 100);
    assert!(decode(schema, key.clone(), &bytes(&[EncodedPart::OtherDocument(&other)])).is_some());
    let other = "x".repeat(BYTES_MAX);
    assert!(decode(schema, key.clone(), &bytes(&[EncodedPart::OtherDocument(&other)])).is_none());
    // A text whose length prefix exceeds the value.
    let mut long = bytes(&[EncodedPart::OtherDocument("")]);
    long.pop();
    long.extend([0xff, 0xff, 0xff, 0xff, 0x0f, b'x']);
    assert!(decode(schema, key.clone(), &long).is_none());
    // One part fewer than the head announces, and one more.
    let whole = bytes(&documents(2));
    assert!(decode(schema, key.clone(), &whole).is_some());
    assert!(decode(schema, key.clone(), &whole[..whole.len() - 3]).is_none());
    assert!(decode(schema, key, &[&*whole, &bytes(&documents(3))[whole.len()..]].concat()).is_none());
}
