//! Every shape of a relation, with documents of every kind.

use bson::{Binary, Bson, Document, doc, oid::ObjectId, spec::BinarySubtype};

use super::{Shape, no_ids};

const ME: &str = "a11ce0000000000000000001";

const TYPES: &str = r#"
    [subject.robot]
    id = "string"
    [resource.team]
    id = "string"
    [resource.team.relations]
    member = { collection = "members", by = "team", field = "user" }
"#;

fn me() -> Bson {
    ObjectId::parse_str(ME).unwrap().into()
}

fn someone(number: i32) -> Bson {
    let mut bytes = [9; 12];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes).into()
}

/// Each value alone, and with someone else in an array.
fn alone_and_in_arrays(values: impl IntoIterator<Item = Bson>, other: &Bson) -> Vec<Bson> {
    let values = values.into_iter();
    values.flat_map(|value| [value.clone(), Bson::Array(vec![other.clone(), value])]).collect()
}

fn at(path: &str, value: Bson) -> Document {
    match path.split_once('.') {
        Some((first, rest)) => doc! { first: at(rest, value) },
        None => doc! { path: value },
    }
}

fn object_ids() -> Vec<Bson> {
    alone_and_in_arrays([vec![me(), ME.into(), "*".into(), 5.into(), someone(-1)], no_ids()].concat(), &someone(-2))
}

#[tokio::test]
async fn object_ids_in_documents() {
    let documents = object_ids().into_iter().map(|value| doc! { "user": value }).chain([doc! {}]).collect();
    let relation = r#"field = "user""#;
    let subjects = &[&*format!("user:{ME}"), "user:0ddba1100000000000000009"];
    Shape { types: "", id: "objectid", relation, subjects, documents }.assert_filtered_facts_decide().await;
}

#[tokio::test]
async fn ids_behind_a_path() {
    let mut documents: Vec<Document> = object_ids().into_iter().map(|value| at("to.user", value)).collect();
    for value in
        [vec![5.into(), "x".into(), doc! { "user": me() }.into(), doc! { "user": "x" }.into()], no_ids()].concat()
    {
        documents.push(doc! { "to": value.clone() });
        documents.push(doc! { "to": [{ "user": someone(-1) }, value.clone()] });
        documents.push(doc! { "to": [[value]] });
    }
    let relation = r#"field = "to.user""#;
    let subjects = &[&*format!("user:{ME}"), "user:0ddba1100000000000000009"];
    Shape { types: "", id: "objectid", relation, subjects, documents }.assert_filtered_facts_decide().await;
}

/// Where an array is on the path, no condition of MongoDB tells one value that is no id from another value that is one.
#[tokio::test]
async fn numbers_and_texts_behind_a_path() {
    let uuid = |byte| Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: vec![byte; 16] });
    let uuid_text = |digit: &str| [8, 4, 4, 4, 12].map(|length| digit.repeat(length)).join("-");
    let text = |id: &str| Bson::from(format!("user:{id}"));
    let format = r#"field = "to.user", format = "user:{id}""#;
    let forms = [
        ("integer", r#"field = "to.user""#, "7".to_owned(), Bson::from(7), Bson::from(5)),
        ("uuid", r#"field = "to.user""#, uuid_text("7"), uuid(0x77), uuid(0x55)),
        ("integer", format, "7".to_owned(), text("7"), text("5")),
        ("uuid", format, uuid_text("7"), text(&uuid_text("7")), text(&uuid_text("5"))),
        ("objectid", format, ME.to_owned(), text(ME), text(&"5".repeat(24))),
        ("string", format, "me".to_owned(), text("me"), text("you")),
    ];
    for (id, relation, me, own, other) in forms {
        let junk = ["user:junk", "user:", "junk", "user:*"].map(Bson::from);
        let mut documents = Vec::new();
        for value in [vec![own, other.clone()], junk.to_vec(), no_ids()].concat() {
            documents.push(at("to.user", value.clone()));
            documents.push(at("to.user", vec![other.clone(), value.clone()].into()));
            documents.push(doc! { "to": [{ "user": &other }, { "user": &value }] });
            documents.push(doc! { "to": [{ "user": &value }, { "user": &other }] });
            documents.push(doc! { "to": [{ "user": [&other, value] }, { "user": &other }] });
        }
        let nobody =
            if id == "integer" { "user:1".to_owned() } else { format!("user:{}", me.replace(['7', 'a', 'm'], "1")) };
        let subjects = &[&*format!("user:{me}"), &*nobody];
        Shape { types: "", id, relation, subjects, documents }.assert_filtered_facts_decide().await;
    }
}

#[tokio::test]
async fn texts_and_everybody() {
    for relation in [r#"field = "user""#, r#"field = "user", wildcard = true"#] {
        let values =
            [vec!["me".into(), "*".into(), "other".into(), "x".repeat(2_000).into(), 5.into(), me()], no_ids()];
        let values = alone_and_in_arrays(values.concat(), &"someone".into());
        let documents = values.into_iter().map(|value| doc! { "user": value }).collect();
        let subjects = &["user:me", "user:you"];
        Shape { types: "", id: "string", relation, subjects, documents }.assert_filtered_facts_decide().await;
    }
}

#[tokio::test]
async fn whole_numbers() {
    let mut values = vec![7.into(), 7_i64.into(), 7.0.into(), Bson::Decimal128("7.0".parse().unwrap()), 8.into()];
    values.extend([f64::INFINITY.into(), (-9.3e18).into(), 9.3e18.into(), Bson::Decimal128("1E+19".parse().unwrap())]);
    let values = alone_and_in_arrays([values, vec!["7".into(), "*".into()], no_ids()].concat(), &(-4).into());
    let documents = values.into_iter().map(|value| doc! { "user": value }).collect();
    let subjects = &["user:7", "user:9"];
    let relation = r#"field = "user""#;
    Shape { types: "", id: "integer", relation, subjects, documents }.assert_filtered_facts_decide().await;
}

#[tokio::test]
async fn uuids() {
    let binary = |subtype, byte, length| Bson::Binary(Binary { subtype, bytes: vec![byte; length] });
    let mut values = vec![binary(BinarySubtype::Uuid, 7, 16), binary(BinarySubtype::Uuid, 8, 16)];
    values.extend([binary(BinarySubtype::Uuid, 7, 15), binary(BinarySubtype::Md5, 7, 16), "*".into()]);
    values.extend([binary(BinarySubtype::Uuid, 0, 16), binary(BinarySubtype::Uuid, 0xff, 16)]);
    let values = alone_and_in_arrays([values, no_ids()].concat(), &binary(BinarySubtype::Uuid, 9, 16));
    let documents = values.into_iter().map(|value| doc! { "user": value }).collect();
    let subjects = &["user:07070707-0707-0707-0707-070707070707", "user:00000000-0000-0000-0000-00000000000a"];
    let relation = r#"field = "user""#;
    Shape { types: "", id: "uuid", relation, subjects, documents }.assert_filtered_facts_decide().await;
}

#[tokio::test]
async fn secrets_are_compared_by_their_hashes() {
    let values = [vec!["token".into(), "*".into(), 5.into()], no_ids()].concat();
    let documents =
        alone_and_in_arrays(values, &"none".into()).into_iter().map(|value| doc! { "token": value }).collect();
    let types = "[subject.link]\nid = \"string\"\nsecret = true";
    let relation = r#"field = "token", subject = "link""#;
    let subjects = &["link:token", "link:guess", "user:me"];
    Shape { types, id: "string", relation, subjects, documents }.assert_filtered_facts_decide().await;
}

#[tokio::test]
async fn ids_as_text() {
    let forms = [
        ("objectid", "0abc".repeat(6), "0abd".repeat(6)),
        ("uuid", "0a0b0c0d-0a0b-0c0d-0a0b-0c0d0a0b0c0d".to_owned(), "0a0b0c0d-0a0b-0c0d-0a0b-0c0d0a0b0c0e".to_owned()),
        ("integer", "-17".to_owned(), "170".to_owned()),
        ("string", "me.*".to_owned(), "me".to_owned()),
    ];
    for (form, me, other) in &forms {
        for format in ["{id}", "(a.b:{id})$"] {
            let mixed: String =
                me.chars().enumerate().map(|(n, c)| if n % 3 == 0 { c.to_ascii_uppercase() } else { c }).collect();
            let ids = [
                me,
                &me.to_uppercase(),
                &mixed,
                other,
                "",
                "*",
                "x",
                &format!("{me}\n"),
                "9223372036854775807",
                "9223372036854775808",
                "-0",
                &"1".repeat(2_000),
            ];
            let texts = ids.iter().map(|id| format.replace("{id}", id)).chain([me.clone(), format!("axb:{me}")]);
            let values = [texts.map(Bson::from).collect(), no_ids()].concat();
            let someone = format.replace("{id}", other).into();
            let documents =
                alone_and_in_arrays(values, &someone).into_iter().map(|value| doc! { "user": value }).collect();
            let relation = format!(r#"field = "user", format = "{format}""#);
            let subjects = &[&*format!("user:{me}"), &*format!("user:{other}")];
            Shape { types: "", id: form, relation: &relation, subjects, documents }
                .assert_filtered_facts_decide()
                .await;
        }
    }
}

#[tokio::test]
async fn conditions_and_dates() {
    let mut documents = Vec::new();
    let date = |millis| Bson::DateTime(bson::DateTime::from_millis(millis));
    for state in ["open".into(), "shut".into(), 5.into(), Bson::Null] {
        for user in [me(), "x".into(), someone(-1)] {
            for until in [Bson::Null, date(super::NOW + 1), date(super::NOW), "never".into()] {
                documents.push(doc! { "user": user.clone(), "state": state.clone(), "until": until });
            }
        }
    }
    let relation = r#"field = "user", where = { state = "open" }, until = "until""#;
    let subjects = &[&*format!("user:{ME}"), "user:0ddba1100000000000000009"];
    Shape { types: "", id: "objectid", relation, subjects, documents }.assert_filtered_facts_decide().await;
}

#[tokio::test]
async fn several_types_in_one_field() {
    let mut documents = Vec::new();
    let kinds = [
        "user".into(),
        "robot".into(),
        "team".into(),
        "none".into(),
        "".into(),
        Bson::Null,
        5.into(),
        vec!["user"].into(),
        Bson::Symbol("user".into()),
    ];
    for kind in kinds {
        for id in ["me".into(), "r2".into(), "t1".into(), "*".into(), 7.into(), Bson::Null] {
            for relation in
                [Bson::Null, "".into(), "member".into(), "x".into(), 5.into(), Bson::Array(vec![Bson::Null])]
            {
                documents.push(doc! { "kind": kind.clone(), "id": id.clone(), "relation": relation });
            }
        }
    }
    let relation = r#"field = "id", subject = ["user", "robot", "team.member"], subject_type = "kind", subject_relation = "relation""#;
    let subjects = &["user:me", "user:you", "robot:r2"];
    Shape { types: TYPES, id: "string", relation, subjects, documents }.assert_filtered_facts_decide().await;
}

/// The type belongs to all ids of the array: if it is not one of those that the schema lists, every element counts.
#[tokio::test]
async fn arrays_of_ids_with_a_type_of_the_document() {
    let kinds = ["user".into(), "robot".into(), "Team".into(), 5.into(), Bson::Symbol("user".into()), Bson::Null];
    let mut documents = Vec::new();
    for kind in kinds {
        for ids in [vec!["u7", "u8"], vec!["me", "u8"], vec!["r2", "u8"], vec![]] {
            for relation in [Bson::Null, "member".into()] {
                documents.push(doc! { "kind": kind.clone(), "ids": ids.clone(), "relation": relation });
            }
        }
    }
    let relation =
        r#"field = "ids", subject = ["user", "robot"], subject_type = "kind", subject_relation = "relation""#;
    let subjects = &["user:me", "user:you", "robot:r2"];
    Shape { types: TYPES, id: "string", relation, subjects, documents }.assert_filtered_facts_decide().await;
}

#[tokio::test]
async fn flags_are_decided_by_a_document() {
    let date = |millis| Bson::DateTime(bson::DateTime::from_millis(millis));
    let documents = vec![
        doc! { "held": true },
        doc! { "held": "yes" },
        doc! { "held": true, "until": "never" },
        doc! { "held": true, "until": date(super::NOW) },
        doc! { "held": false },
        doc! {},
    ];
    let relation = r#"where = { held = true }, until = "until""#;
    let subjects = &["user:me"];
    Shape { types: "", id: "string", relation, subjects, documents }.assert_filtered_facts_decide().await;
}

#[tokio::test]
async fn arrays_of_documents() {
    let mut documents = Vec::new();
    for value in object_ids() {
        documents.push(doc! { "all": [{ "user": someone(-1), "role": "a" }, { "user": value, "role": "a" }] });
    }
    for value in
        [vec![me(), doc! { "user": me(), "role": "a" }.into(), doc! { "user": me(), "role": 5 }.into()], no_ids()]
            .concat()
    {
        documents.push(doc! { "all": value.clone() });
        documents.push(
            doc! { "all": [value.clone(), { "user": someone(-1), "role": "a" }, { "user": someone(-2), "role": 5 }] },
        );
        documents.push(doc! { "all": [[value]] });
    }
    let relation = r#"each = "all", field = "user", where = { role = "a" }"#;
    let subjects = &[&*format!("user:{ME}"), "user:0ddba1100000000000000009"];
    Shape { types: "", id: "objectid", relation, subjects, documents }.assert_filtered_facts_decide().await;
}

#[tokio::test]
async fn arrays_of_documents_with_paths_and_types() {
    let mut documents = Vec::new();
    for kind in ["user".into(), "robot".into(), "team".into(), "$x".into(), "".into(), Bson::Null, 5.into()] {
        for id in
            ["me".into(), "r2".into(), "t1".into(), "*".into(), "$all".into(), 7.into(), vec!["me"].into(), Bson::Null]
        {
            for to in
                [doc! { "id": id.clone() }.into(), Bson::Array(vec![doc! { "id": id.clone() }.into()]), id.clone()]
            {
                let element = doc! { "kind": kind.clone(), "to": to };
                documents
                    .push(doc! { "in": { "all": [element.clone(), { "kind": "user", "to": { "id": "someone" } }] } });
                documents.push(doc! { "in": [{ "all": [element] }] });
            }
        }
    }
    documents.extend([doc! { "in": 5 }, doc! { "in": { "all": 5 } }, doc! {}, doc! { "in": [5] }]);
    let relation =
        r#"each = "in.all", field = "to.id", subject = ["user", "robot", "team.member"], subject_type = "kind""#;
    let subjects = &["user:me", "user:you", "robot:r2"];
    Shape { types: TYPES, id: "string", relation, subjects, documents }.assert_filtered_facts_decide().await;
}

#[tokio::test]
async fn conditions_on_arrays_bits_and_types() {
    let conditions = [
        r#"bits = { "$bitsAllSet" = 2 }"#,
        r#"bits = { "$not" = { "$bitsAnySet" = [0, 2] } }"#,
        r#"bits = { "$type" = "number" }"#,
        r#"tags = { "$elemMatch" = { kind = "a", level = { "$gt" = 1 } } }"#,
        r#"tags = { "$not" = { "$elemMatch" = { kind = { "$ne" = "a" } } } }"#,
        r#"tags = { "$all" = [{ "$elemMatch" = { kind = "a" } }, { "$elemMatch" = { level = 1 } }] }"#,
        r#"tags = { "$size" = 2 }"#,
        // The array that holds the ids itself, of which a filtered fact must not omit any element then.
        r#"user = { "$size" = 2 }"#,
        r#"user = { "$elemMatch" = { "$in" = ["you", "nobody"] } }"#,
        r#"user = { "$all" = ["me", "you"] }"#,
    ];
    let tag = |kind: &str, level: i32| Bson::Document(doc! { "kind": kind, "level": level });
    let tags = [
        Bson::Array(vec![tag("a", 2)]),
        Bson::Array(vec![tag("a", 1), tag("b", 2)]),
        Bson::Array(vec![tag("a", 2), 7.into()]),
        tag("a", 2),
        "x".into(),
        Bson::Null,
    ];
    let bits =
        [2.into(), 3.into(), 4.into(), 2.5.into(), "2".into(), Bson::Array(vec![2.into(), 5.into()]), Bson::Null];
    let users = [
        "me".into(),
        Bson::Array(vec!["me".into(), "you".into()]),
        Bson::Array(vec!["you".into()]),
        Bson::Array(vec!["you".into(), "me".into(), "nobody".into()]),
        Bson::Array(vec!["me".into(), 5.into()]),
    ];
    let mut documents = Vec::new();
    for user in &users {
        documents.extend(tags.iter().map(|tags| doc! { "user": user, "tags": tags, "bits": 2 }));
        documents.extend(bits.iter().map(|bits| doc! { "user": user, "tags": [], "bits": bits }));
    }
    for condition in conditions {
        let relation = format!(r#"field = "user", where = {{ {condition} }}"#);
        let subjects = &["user:me", "user:nobody"];
        let shape = Shape { types: "", id: "string", relation: &relation, subjects, documents: documents.clone() };
        shape.assert_filtered_facts_decide().await;
        let relation = format!("where = {{ {condition} }}");
        Shape { relation: &relation, ..shape }.assert_filtered_facts_decide().await;
    }
}
