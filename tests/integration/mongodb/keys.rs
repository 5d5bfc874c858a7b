//! Ids of every form as keys of lookups. MongoDB and documents in memory find the same documents as mongod's own equality.
//!
//! Conditions on other fields are tested in `conditions`.

use std::collections::BTreeSet;

use mongodb::bson::{Binary, Bson, Decimal128, Document, Uuid, doc, oid::ObjectId, spec::BinarySubtype};
use permcached::question::Question;

use super::oid;
use crate::{
    rules::rule::NOW,
    support::both::{Both, Collections, question, schema},
};

/// Resources whose ids have different forms, all looked up by the same fields of the same collection.
const KEYS: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "integer"

    [resource.by_number]
    id = "integer"
    [resource.by_number.relations]
    flat   = { collection = "grants", by = "of", field = "user" }
    nested = { collection = "grants", by = "refs.of", field = "user" }
    [resource.by_number.permissions]
    read = "flat | nested"

    [resource.by_text]
    id = "string"
    [resource.by_text.relations]
    flat   = { collection = "grants", by = "of", field = "user" }
    nested = { collection = "grants", by = "refs.of", field = "user" }
    [resource.by_text.permissions]
    read = "flat | nested"

    [resource.by_uuid]
    id = "uuid"
    [resource.by_uuid.relations]
    flat   = { collection = "grants", by = "of", field = "user" }
    nested = { collection = "grants", by = "refs.of", field = "user" }
    [resource.by_uuid.permissions]
    read = "flat | nested"

    [resource.by_oid]
    [resource.by_oid.relations]
    flat   = { collection = "grants", by = "of", field = "user" }
    nested = { collection = "grants", by = "refs.of", field = "user" }
    [resource.by_oid.permissions]
    read = "flat | nested"

    [resource.numbered]
    id = "integer"
    collection = "numbered"
    [resource.numbered.relations]
    owner = { field = "owner" }
    [resource.numbered.permissions]
    read = "owner"
"#;

/// Values that are ids or look like ids.
pub fn key_values() -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().unwrap());
    let uuid = Uuid::parse_str("00112233-4455-6677-8899-aabbccddeeff").unwrap();
    let bytes = uuid.bytes().to_vec();
    let binary = |subtype| Bson::Binary(Binary { subtype, bytes: bytes.clone() });
    let mut values = vec![
        Bson::Int32(5),
        Bson::Int64(5),
        Bson::Double(5.0),
        decimal("5"),
        decimal("5.00"),
        decimal("0.5E1"),
        decimal("50E-1"),
        Bson::Double(5.5),
        decimal("5.5"),
        Bson::Double(f64::NAN),
        decimal("NaN"),
        decimal("Infinity"),
        Bson::Double(-0.0),
        decimal("-0"),
        Bson::Int32(0),
        Bson::Int64(9_007_199_254_740_993),
        Bson::Double(9_007_199_254_740_992.0),
        decimal("9007199254740993"),
        Bson::Int64(i64::MAX),
        Bson::Int64(i64::MIN),
        Bson::Double(-9_223_372_036_854_775_808.0),
        Bson::Double(9_223_372_036_854_775_808.0),
        decimal("9223372036854775807"),
        decimal("9223372036854775808"),
        decimal("1E+6000"),
        decimal("1E-6000"),
        decimal("5E+1"),
        Bson::Int32(50),
        "5".into(),
        "".into(),
        "*".into(),
        "050505050505050505050505".into(),
        "00112233-4455-6677-8899-aabbccddeeff".into(),
        "é".into(),
        "e\u{301}".into(),
        Bson::Symbol("5".into()),
        oid(5).into(),
        oid(6).into(),
        Bson::Binary(uuid.into()),
        binary(BinarySubtype::UuidOld),
        binary(BinarySubtype::Generic),
        Bson::Boolean(true),
        Bson::Null,
        doc! { "of": 5 }.into(),
        Bson::MinKey,
    ];
    values.extend(
        [
            vec![Bson::Int32(5), "5".into()],
            vec![Bson::Double(5.0), Bson::Int32(5)],
            vec![],
            vec![Bson::Array(vec![5.into()])],
            vec![oid(5).into(), Bson::Binary(uuid.into())],
            vec![Bson::Null, decimal("5.0")],
        ]
        .map(Bson::Array),
    );
    values
}

/// Every id that could find one of these values.
const IDS: [(&str, &[&str]); 4] = [
    (
        "by_number",
        &["5", "0", "50", "6", "9007199254740993", "9007199254740992", "9223372036854775807", "-9223372036854775808"],
    ),
    ("by_text", &["5", "050505050505050505050505", "00112233-4455-6677-8899-aabbccddeeff", "é", "e\u{301}"]),
    ("by_uuid", &["00112233-4455-6677-8899-aabbccddeeff"]),
    ("by_oid", &["050505050505050505050505", "060606060606060606060606"]),
];

/// The value of a question's id in a query.
fn key_of(kind: &str, id: &str) -> Bson {
    match kind {
        "by_text" => id.into(),
        "by_uuid" => Bson::Binary(Uuid::parse_str(id).unwrap().into()),
        "by_oid" => ObjectId::parse_str(id).unwrap().into(),
        _ => Bson::Int64(id.parse().unwrap()),
    }
}

#[tokio::test]
async fn ids_of_every_form_are_found_as_mongod_finds_them() {
    let mut documents = Vec::new();
    for (number, value) in (0..).zip(key_values()) {
        documents.push(doc! { "_id": 4 * number, "user": 4 * number, "of": value.clone() });
        documents.push(doc! { "_id": 4 * number + 1, "user": 4 * number + 1, "refs": { "of": value.clone() } });
        let among_others = [doc! { "of": "other" }.into(), doc! { "of": value.clone() }.into(), Bson::Int32(5)];
        documents.push(doc! { "_id": 4 * number + 2, "user": 4 * number + 2, "refs": among_others.to_vec() });
        documents.push(doc! { "_id": 4 * number + 3, "user": 4 * number + 3, "refs": [[{ "of": value }]] });
    }
    let count = i32::try_from(documents.len()).unwrap();
    // An `_id` is one of these and never an array. Equal numbers cannot be in one collection.
    let own = [
        Bson::Int32(1),
        Bson::Int64(2),
        Bson::Double(3.0),
        Bson::Decimal128("4.0".parse().unwrap()),
        Bson::Double(5.5),
        "6".into(),
    ];
    let numbered = (0..).zip(own).map(|(owner, id)| doc! { "_id": id, "owner": owner }).collect();
    let collections = Collections::from([("grants".to_owned(), documents), ("numbered".to_owned(), numbered)]);
    let both = Both::new(schema("keys.toml", KEYS), &collections).await;
    let oracle = both.database.collection::<Document>("grants");
    for (kind, ids) in IDS {
        for id in ids {
            let key = key_of(kind, id);
            let mut found = BTreeSet::new();
            let mut cursor = oracle.find(doc! { "$or": [{ "of": key.clone() }, { "refs.of": key }] }).await.unwrap();
            while cursor.advance().await.unwrap() {
                found.insert(cursor.current().get_i32("user").unwrap());
            }
            assert!(!found.is_empty() || *id == "6", "{kind} {id}");
            let questions: Vec<Question> = (0..count)
                .map(|user| question(&both.schema, &format!("user:{user}"), "read", &format!("{kind}:{id}")))
                .collect();
            for (user, answers) in (0..).zip(both.ask(&questions, NOW).await) {
                let expected = if found.contains(&user) { "allowed" } else { "denied NO_GRANT" };
                let objection = both.objection(answers, |text| text.starts_with(expected));
                assert_eq!(
                    objection,
                    None,
                    "{kind}:{id} by {}, for mongod: {expected}",
                    collections["grants"][usize::try_from(user).unwrap()]
                );
            }
        }
    }
    for (owner, id) in [(0, "1"), (1, "2"), (2, "3"), (3, "4")] {
        let asked = [question(&both.schema, &format!("user:{owner}"), "read", &format!("numbered:{id}"))];
        let answers = both.ask(&asked, NOW).await[0];
        assert_eq!(both.objection(answers, |text| text == "allowed by numbered#owner"), None, "{id}");
    }
    for id in ["5", "6"] {
        let answers = both.ask(&[question(&both.schema, "user:4", "read", &format!("numbered:{id}"))], NOW).await[0];
        assert_eq!(both.objection(answers, |text| text == "denied NOT_FOUND"), None, "{id}");
    }
}
