//! The field by which a lookup finds documents (`by`) holds the id in another form: as text, as a legacy UUID, in a document,
//! in a nested array. Under a `!` that never allows, and a relation that only grants does not find the document.
//!
//! Every case has a resource type and collections of its own, as a document that may name any resource concerns all of a
//! type. The forms are those that docs/schema.md lists.

use std::fmt::Write as _;

use mongodb::bson::{Binary, Bson, Document, doc, oid::ObjectId, spec::BinarySubtype};

use crate::{
    rules::rule::NOW,
    support::both::{Both, Collections, question, schema},
};

/// One way in which a document names a resource.
struct Case {
    /// The resource's id, in the form of a schema and in that of a request.
    form: &'static str,
    id: &'static str,
    /// What the document has in place of it.
    value: Bson,
    /// Whether the document may name the resource.
    is_noticed: bool,
}

const OID: &str = "abcdefabcdefabcdefabcdef";
const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";
const CSHARP: [u8; 16] = [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
const JAVA: [u8; 16] = [0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88];

fn oid(text: &str) -> Bson {
    ObjectId::parse_str(text).unwrap().into()
}

fn binary(subtype: BinarySubtype, bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype, bytes: bytes.to_vec() })
}

fn uuid_bytes() -> Vec<u8> {
    mongodb::bson::Uuid::parse_str(UUID).unwrap().bytes().to_vec()
}

fn pointer(id: &str) -> Bson {
    let json = serde_json::json!({ "$dbPointer": { "$ref": "c", "$id": { "$oid": id } } });
    match Bson::try_from(json) {
        Ok(pointer @ Bson::DbPointer(_)) => pointer,
        other => panic!("{other:?}"),
    }
}

/// Values that mean the id itself, and values that do not, for each form of ids.
fn forms() -> Vec<Case> {
    let case = |form, id, is_noticed| move |value: Bson| Case { form, id, value, is_noticed };
    let mut cases = Vec::new();
    cases.extend(
        [
            OID.into(),
            OID.to_uppercase().into(),
            binary(BinarySubtype::Generic, &ObjectId::parse_str(OID).unwrap().bytes()),
            Bson::Array(vec![OID.into()]),
            Bson::Array(vec![1.into(), OID.to_uppercase().into()]),
            Bson::Symbol(OID.into()),
        ]
        .map(case("objectid", OID, true)),
    );
    cases.extend(
        [
            "abcdefabcdefabcdefabcdee".into(),
            "abcdef".into(),
            oid("abcdefabcdefabcdefabcdee"),
            true.into(),
            Bson::Null,
            Bson::Array(vec![]),
        ]
        .map(case("objectid", OID, false)),
    );
    let digits = UUID.replace('-', "");
    cases.extend(
        [
            UUID.into(),
            UUID.to_uppercase().into(),
            digits.to_uppercase().into(),
            digits.into(),
            binary(BinarySubtype::UuidOld, &uuid_bytes()),
            binary(BinarySubtype::UuidOld, &CSHARP),
            binary(BinarySubtype::UuidOld, &JAVA),
            binary(BinarySubtype::Uuid, &CSHARP),
            binary(BinarySubtype::Uuid, &JAVA),
            binary(BinarySubtype::Generic, &uuid_bytes()),
        ]
        .map(case("uuid", UUID, true)),
    );
    cases.extend([binary(BinarySubtype::UuidOld, &[1; 16]), 5.into()].map(case("uuid", UUID, false)));
    cases.extend(["5".into(), Bson::Array(vec!["4".into(), "5".into()])].map(case("integer", "5", true)));
    cases.extend(["05".into(), "6".into(), 6.into(), 5.5.into()].map(case("integer", "5", false)));
    let five = |text: &str| Bson::Decimal128(text.parse().unwrap());
    cases.extend([5.into(), 5.0.into(), five("5.00"), Bson::Int64(5)].map(case("string", "5", true)));
    cases.extend(["6".into(), 6.into()].map(case("string", "5", false)));
    cases.extend([oid(OID), OID.to_uppercase().into()].map(case("string", OID, true)));
    cases.extend(
        [binary(BinarySubtype::Uuid, &uuid_bytes()), binary(BinarySubtype::UuidOld, &JAVA), UUID.to_uppercase().into()]
            .map(case("string", UUID, true)),
    );
    cases.extend([oid(OID), "Eng".into(), 5.into()].map(case("string", "eng", false)));
    cases
}

/// Values that contain ids. They may name any resource.
fn structures() -> Vec<Case> {
    let of = |value: Bson| Case { form: "objectid", id: OID, value, is_noticed: true };
    let populated = doc! { "_id": oid(OID), "name": "plan" };
    [
        doc! { "$ref": "c", "$id": oid(OID) }.into(),
        populated.clone().into(),
        Bson::Document(doc! { "of": OID }),
        Bson::Document(Document::new()),
        Bson::Array(vec![Bson::Array(vec![oid(OID)])]),
        Bson::Array(vec!["other".into(), Bson::Array(vec![Bson::Array(vec![OID.into()])])]),
        Bson::Array(vec![Bson::Array(vec![Bson::MaxKey, oid(OID)])]),
        Bson::Array(vec![Bson::Array(vec![])]),
        Bson::Array(vec![Bson::Null, Bson::Array(vec![Bson::Null])]),
        Bson::Array(vec![populated.into()]),
        pointer(OID),
    ]
    .map(of)
    .into()
}

/// The value of an id of a form in a document.
fn declared(form: &str, id: &str) -> Bson {
    match form {
        "objectid" => oid(id),
        "integer" => Bson::Int64(id.parse().unwrap()),
        "uuid" => binary(BinarySubtype::Uuid, &uuid_bytes()),
        _ => id.into(),
    }
}

/// The shapes of a relation under a `!`. Each reads the documents of the collection `kN`, where the case's value is in
/// `BY`.
const SHAPES: [(&str, &str); 5] = [
    ("banned", "banned = { collection = \"kN\", by = \"BY\", field = \"user\" }"),
    (
        "listed",
        "listed = { collection = \"kN\", by = \"BY\", each = \"people\", field = \"id\", where = { bad = true } }",
    ),
    ("held", "held = { collection = \"kN\", by = \"BY\" }"),
    (
        "until",
        "until = { collection = \"kN\", by = \"BY\", field = \"user\", where = { state = \"on\" }, until = \"end\" }",
    ),
    ("team", "team = { collection = \"kN\", by = \"BY\", field = \"teams\", subject = \"team.member\" }"),
];

/// A schema with a type for each case: a ban for each shape, and an owner.
fn schema_of(cases: &[Case], by: &str) -> String {
    let mut text = r#"
default_subject = "user"
[subject.user]
id = "string"
[resource.team]
id = "string"
collection = "teams"
[resource.team.relations]
member = { field = "members" }
[resource.team.permissions]
join = "member"
"#
    .to_owned();
    for (number, Case { form, .. }) in cases.iter().enumerate() {
        writeln!(text, "[resource.c{number}]\nid = \"{form}\"\ncollection = \"c{number}\"").unwrap();
        writeln!(text, "[resource.c{number}.relations]\nowner = {{ field = \"owners\" }}").unwrap();
        let relation = |text: &str| text.replace('N', &number.to_string()).replace("BY", by);
        for (_, shape) in SHAPES {
            writeln!(text, "{}", relation(shape)).unwrap();
        }
        writeln!(text, "guest = {}", relation("{ collection = \"gN\", by = \"BY\", field = \"user\" }")).unwrap();
        writeln!(text, "[resource.c{number}.permissions]\nvisit = \"guest\"\nappeal = \"banned\"").unwrap();
        for (name, _) in SHAPES {
            writeln!(text, "not_{name} = \"!{name} & owner\"").unwrap();
        }
    }
    text
}

/// `{ by: value }`, where `by` may be a path.
fn at(by: &str, value: &Bson) -> Document {
    match by.split_once('.') {
        Some((first, rest)) => doc! { first: { rest: value } },
        None => doc! { by: value },
    }
}

async fn ask_each(cases: &[Case], by: &str) {
    let schema = schema("keys.toml", &schema_of(cases, by));
    let mut collections = Collections::new();
    collections.insert("teams".to_owned(), vec![doc! { "_id": "red", "members": "alice" }]);
    for (number, Case { form, id, value, .. }) in cases.iter().enumerate() {
        let own = doc! { "_id": declared(form, id), "owners": ["alice", "bob"] };
        let mut ban = at(by, value);
        let people = vec![doc! { "id": "alice", "bad": true }, doc! { "id": "bob", "bad": false }];
        ban.extend(doc! { "user": "alice", "people": people, "state": "on", "teams": ["red"] });
        collections.insert(format!("c{number}"), vec![own]);
        collections.insert(format!("g{number}"), vec![ban.clone()]);
        collections.insert(format!("k{number}"), vec![ban]);
    }
    let both = Both::new(schema, &collections).await;
    let mut asked = Vec::new();
    for (number, Case { id, value, is_noticed, .. }) in cases.iter().enumerate() {
        let mut ask = |subject: &str, permission: &str, expected: &'static str| {
            let question = question(&both.schema, &format!("user:{subject}"), permission, &format!("c{number}:{id}"));
            asked.push((question, format!("{by}: {value}: {subject} {permission} {id}"), expected));
        };
        let owner = "allowed by";
        for (name, _) in SHAPES {
            let permission = format!("not_{name}");
            ask("alice", &permission, if *is_noticed { "denied MALFORMED" } else { owner });
            // A flag is indeterminate for everybody, another relation for the subjects that it names.
            ask("bob", &permission, if *is_noticed && name == "held" { "denied MALFORMED" } else { owner });
        }
        ask("alice", "appeal", if *is_noticed { "denied MALFORMED" } else { "denied NO_GRANT" });
        ask("bob", "appeal", "denied NO_GRANT");
        ask("alice", "visit", "denied NO_GRANT");
    }
    let questions: Vec<_> = asked.iter().map(|(question, ..)| question.clone()).collect();
    let mut wrong = Vec::new();
    for (answers, (_, name, expected)) in both.ask(&questions, NOW).await.into_iter().zip(&asked) {
        let objection = both.objection(answers, |text| text.starts_with(expected));
        wrong.extend(objection.map(|got| format!("{name}\n    expected {expected}\n    got      {got}")));
    }
    assert!(wrong.is_empty(), "{} of {} answers are wrong:\n{}", wrong.len(), asked.len(), wrong.join("\n"));
}

#[tokio::test]
async fn an_id_in_another_form_never_lifts_a_ban() {
    ask_each(&forms(), "of").await;
}

#[tokio::test]
async fn an_id_in_another_form_in_a_nested_document_never_lifts_a_ban() {
    ask_each(&forms(), "ref.of").await;
}

#[tokio::test]
async fn an_id_inside_a_document_or_a_nested_array_never_lifts_a_ban() {
    ask_each(&structures(), "of").await;
    ask_each(&structures(), "ref.of").await;
}

/// An `_id` is never an array.
#[tokio::test]
async fn an_id_in_another_form_as_the_id_of_the_document_never_lifts_a_ban() {
    let cases = forms().into_iter().chain(structures());
    let cases: Vec<Case> = cases.filter(|case| case.value.as_array().is_none()).collect();
    ask_each(&cases, "_id").await;
}
