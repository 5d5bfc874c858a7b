//! Lists over documents with `_id`s that are no ids of the type: they are never listed, and no page hangs on them.

use mongodb::bson::{
    Binary, Bson, DateTime, Decimal128, Document, Regex, Timestamp, doc, oid::ObjectId, spec::BinarySubtype,
};
use permcached::{
    list::{PlanKind, PlanOptions},
    question::{Id, IdForm},
};

use super::{Listing, both, collections};
use crate::support::both::Collections;

/// Values of every type that an `_id` may have, some of which are ids of some form.
fn values() -> Vec<Bson> {
    let binary = |subtype, bytes: &[u8]| Bson::Binary(Binary { subtype, bytes: bytes.to_vec() });
    let mut values = vec![
        Bson::Null,
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Boolean(false),
        Bson::Boolean(true),
        Bson::Double(f64::NAN),
        Bson::Double(f64::INFINITY),
        Bson::Double(f64::NEG_INFINITY),
        Bson::Double(1.5),
        Bson::Double(7.0),
        Bson::Double(9_223_372_036_854_775_808.0),
        Bson::Int32(1),
        Bson::Int64(i64::MIN),
        Bson::Int64(i64::MAX),
        Bson::Decimal128("8".parse::<Decimal128>().unwrap()),
        Bson::Decimal128("9.5".parse::<Decimal128>().unwrap()),
        "".into(),
        "*".into(),
        "a".into(),
        "a\0b".into(),
        "$a".into(),
        "é".into(),
        "\u{10ffff}".into(),
        "65f000000000000000000001".into(),
        "1".into(),
        "x".repeat(1_024).into(),
        "x".repeat(1_025).into(),
        "y".repeat(5_000).into(),
        doc! {}.into(),
        doc! { "_id": "a" }.into(),
        binary(BinarySubtype::Uuid, &[0; 16]),
        binary(BinarySubtype::Uuid, &[0xff; 16]),
        binary(BinarySubtype::Uuid, &[1; 15]),
        binary(BinarySubtype::UuidOld, &[2; 16]),
        binary(BinarySubtype::Generic, &[3; 16]),
        binary(BinarySubtype::Generic, b""),
        Bson::ObjectId(ObjectId::from_bytes([0; 12])),
        Bson::ObjectId(ObjectId::from_bytes([0xff; 12])),
        DateTime::from_millis(0).into(),
        Bson::Timestamp(Timestamp { time: 1, increment: 1 }),
        Bson::Symbol("s".into()),
        Bson::JavaScriptCode("c".into()),
    ];
    // More than one batch of values that are no ids, between those that are.
    values.extend((0..150).map(|number| Bson::from(doc! { "number": number })));
    values.retain(|value| !matches!(value, Bson::RegularExpression(Regex { .. })));
    values
}

fn schema(form: &str) -> String {
    format!(
        r#"
default_subject = "user"
[subject.user]
id = "string"
[resource.file]
id = "{form}"
collection = "files"
[resource.file.relations]
owner = {{ field = "owner" }}
guest = {{ collection = "shares", by = "file", field = "user" }}
public = {{ where = {{ public = true }} }}
[resource.file.permissions]
read = "owner | guest"
see = "public"
any = "owner | guest | !owner"
[resource.thing]
id = "{form}"
[resource.thing.relations]
guest = {{ collection = "shares", by = "file", field = "user" }}
[resource.thing.permissions]
read = "guest"
"#
    )
}

fn documents() -> Collections {
    let file = |(place, id): (usize, Bson)| {
        let mut file = Document::new();
        file.insert("_id", id);
        file.insert("owner", if place.is_multiple_of(2) { "ann" } else { "bob" });
        file.insert("public", true);
        file
    };
    // MongoDB has no other array or regular expression as an `_id`, but as the field of a share.
    let mut of_shares = values();
    of_shares.push(Bson::Array(vec!["a".into(), 1.into(), Bson::Array(vec!["b".into()])]));
    of_shares.push(Bson::Array(Vec::new()));
    of_shares
        .push(Bson::RegularExpression(Regex { pattern: "a".try_into().unwrap(), options: "".try_into().unwrap() }));
    let share = |(place, id): (usize, Bson)| doc! { "_id": i64::try_from(place).unwrap(), "file": id, "user": "cat" };
    collections([
        ("files", values().into_iter().enumerate().map(file).collect()),
        ("shares", of_shares.into_iter().enumerate().map(share).collect()),
    ])
}

/// The values that are ids of a form, sorted.
fn ids(form: IdForm) -> Vec<Id> {
    let text = |value: &Bson| match (form, value) {
        (IdForm::ObjectId, Bson::ObjectId(id)) => Some(id.to_hex()),
        // In MongoDB a symbol equals a text.
        (IdForm::String, Bson::String(text) | Bson::Symbol(text)) => Some(text.clone()),
        (IdForm::Integer, Bson::Int32(number)) => Some(number.to_string()),
        (IdForm::Integer, Bson::Int64(number)) => Some(number.to_string()),
        (IdForm::Integer, Bson::Double(number)) if number.fract() == 0.0 && number.abs() < 100.0 => {
            Some(format!("{number}"))
        }
        (IdForm::Integer, Bson::Decimal128(number)) => Some(number.to_string()),
        (IdForm::Uuid, Bson::Binary(binary)) if binary.subtype == BinarySubtype::Uuid => {
            mongodb::bson::Uuid::from_bytes(binary.bytes.clone().try_into().ok()?).to_string().into()
        }
        _ => None,
    };
    let parsed = |value: &Bson| Id::parse(&text(value)?, form, false).ok();
    let mut ids: Vec<Id> = values().iter().filter_map(parsed).collect();
    ids.sort_unstable();
    ids
}

async fn assert_listed(listing: &Listing, form: IdForm) {
    let ids = ids(form);
    for size in [1, 7, 1_000] {
        for (subject, permission, kind) in
            [("user:cat", "read", "file"), ("user:cat", "read", "thing"), ("anonymous", "see", "file")]
        {
            let question = listing.question(subject, permission, kind);
            let listed = listing.pages(&question, size, None).await.unwrap();
            let expected = listing.allowed(&question, ids.clone()).await;
            assert_eq!(listed, expected, "{form:?} {subject} {permission} {kind}");
            assert!(listed.len() + 1 >= ids.len(), "{form:?} {subject} {kind}: {listed:?}");
        }
        for owner in ["user:ann", "user:bob"] {
            let question = listing.question(owner, "read", "file");
            let expected = listing.allowed(&question, ids.clone()).await;
            assert_eq!(listing.pages(&question, size, None).await.unwrap(), expected, "{form:?} {owner}");
            assert!(2 * expected.len() + 2 >= ids.len(), "{form:?} {owner}: {expected:?}");
        }
    }
    let plan = listing.plan(&listing.question("user:cat", "read", "file"), PlanOptions::default()).await.unwrap();
    assert_eq!(plan.kind, PlanKind::Exact);
}

#[tokio::test]
async fn ids_of_other_forms_are_passed_over() {
    for form in IdForm::ALL {
        for listing in both(&schema(form.as_str()), &documents()).await {
            assert_listed(&listing, form).await;
        }
    }
}

/// A query names the spelling of an id in lower case and the one in upper case. A check takes no other for the id.
#[tokio::test]
async fn ids_as_text_are_found_in_both_spellings() {
    const TEXTS: &str = r#"
default_subject = "user"
[subject.user]
[resource.file]
collection = "files"
[resource.file.relations]
owner = { field = "owner" }
member = { field = "members", format = "user:{id}" }
guest = { collection = "shares", by = { field = "file", format = "{id}" }, field = "user", format = "{id}" }
folder = { field = "folder", format = "{id}", resource = "file" }
[resource.file.permissions]
read = "member"
visit = "guest"
inside = "folder.read"
free = "owner & !member"
"#;
    let id = |number: u8| ObjectId::from_bytes([0xa0 + number; 12]);
    let (user, other) = (id(0).to_hex(), id(1).to_hex());
    let texts = |hex: &str| [hex.to_owned(), hex.to_uppercase(), hex.replacen('a', "A", 1)];
    let file = |(number, text): (u8, String)| {
        let folder = texts(&id(2).to_hex())[usize::from(number) % 3].clone();
        doc! { "_id": id(2 + number), "owner": id(0), "members": format!("user:{text}"), "folder": folder }
    };
    let files = (0..).zip(texts(&user)).chain((3..).zip(texts(&other))).map(file);
    let share = |(number, text): (u8, String)| {
        let file = texts(&id(2 + number).to_hex())[usize::from(number) % 3].clone();
        doc! { "file": file, "user": text }
    };
    let shares = (0..).zip(texts(&user)).map(share);
    let documents = collections([("files", files.collect()), ("shares", shares.collect())]);
    for listing in both(TEXTS, &documents).await {
        for (permission, expected) in [
            ("read", vec![2, 3]),
            ("visit", vec![2, 3]),
            ("inside", vec![2, 3, 5, 6]),
            // Of an id in mixed case nobody knows whom it means.
            ("free", vec![5, 6]),
        ] {
            let question = listing.question(&format!("user:{user}"), permission, "file");
            let listed = listing.pages(&question, 100, None).await.unwrap();
            let expected: Vec<Id> = expected.into_iter().map(|number| Id::ObjectId(id(number).bytes())).collect();
            assert_eq!(listed, expected, "{permission}");
            assert_eq!(listing.allowed(&question, (2..8).map(|number| Id::ObjectId(id(number).bytes()))).await, listed);
            let plan = listing.plan(&question, PlanOptions::default()).await.unwrap();
            assert_eq!(plan.kind == PlanKind::Exact, permission != "free", "{permission}: {plan:?}");
        }
    }
}
