//! Conditions on arrays, bits and types (`$elemMatch`, `$all`, `$size`, `$bitsAllSet` and its relatives, `$type`), with a value
//! of every BSON type: a value of a wrong type never allows, not through `!` and not through `$not`, over documents and over
//! mongod.

use std::fmt::Write as _;

use mongodb::bson::{Binary, Bson, Decimal128, Document, doc, spec::BinarySubtype};

use super::expected::values;
use crate::{
    rules::rule::NOW,
    support::both::{Both, Collections, question, schema},
};

/// A condition on the field `a`, whether a value matches, and whether it has the right type.
struct Case {
    name: &'static str,
    condition: &'static str,
    matches: fn(&Bson) -> bool,
    is_typed: fn(&Bson) -> bool,
}

const CASES: [Case; 25] = [
    Case { name: "size", condition: r#"{"a": {"$size": 2}}"#, matches: has_two, is_typed: is_array },
    Case {
        name: "not_size",
        condition: r#"{"a": {"$not": {"$size": 2}}}"#,
        matches: |a| !has_two(a),
        is_typed: is_array,
    },
    Case {
        name: "between",
        condition: r#"{"a": {"$elemMatch": {"$gte": 1, "$lt": 5}}}"#,
        matches: has_between,
        is_typed: is_array_of_numbers,
    },
    Case {
        name: "not_between",
        condition: r#"{"a": {"$not": {"$elemMatch": {"$gte": 1, "$lt": 5}}}}"#,
        matches: |a| !has_between(a),
        is_typed: is_array_of_numbers,
    },
    Case {
        name: "document",
        condition: r#"{"a": {"$elemMatch": {"kind": "text", "level": {"$in": [1, 2]}}}}"#,
        matches: has_document,
        is_typed: is_array_of_documents,
    },
    Case {
        name: "other_document",
        condition: r#"{"a": {"$elemMatch": {"kind": {"$ne": "text"}, "level": {"$ne": 3}}}}"#,
        matches: has_other_document,
        is_typed: is_array_of_documents,
    },
    Case {
        name: "all",
        condition: r#"{"a": {"$all": ["text", "true"]}}"#,
        matches: has_all,
        is_typed: |a| each(a, is_text),
    },
    Case {
        name: "all_elements",
        condition: r#"{"a": {"$all": [{"$elemMatch": {"$eq": "text"}}, {"$elemMatch": {"$ne": "text"}}]}}"#,
        matches: |a| items(a).any(|item| is(item, "text")) && items(a).any(|item| !is(item, "text")),
        is_typed: |a| is_array(a) && each(a, is_text),
    },
    Case {
        name: "bits_set",
        condition: r#"{"a": {"$bitsAllSet": 4}}"#,
        matches: |a| any(a, |value| bit_2(value) == Some(true)),
        is_typed: |a| each(a, has_bits),
    },
    Case {
        name: "bits_not_set",
        condition: r#"{"a": {"$not": {"$bitsAnySet": [2]}}}"#,
        matches: |a| !any(a, |value| bit_2(value) == Some(true)),
        is_typed: |a| each(a, has_bits),
    },
    Case {
        name: "bits_clear",
        condition: r#"{"a": {"$bitsAllClear": 4}}"#,
        matches: |a| any(a, |value| bit_2(value) == Some(false)),
        is_typed: |a| each(a, has_bits),
    },
    Case {
        name: "bits_any_clear",
        condition: r#"{"a": {"$bitsAnyClear": {"$binary": {"base64": "BA==", "subType": "00"}}}}"#,
        matches: |a| any(a, |value| bit_2(value) == Some(false)),
        is_typed: |a| each(a, has_bits),
    },
    // Each test inside `$not` expects its own type.
    Case {
        name: "not_bits_and_less",
        condition: r#"{"a": {"$not": {"$bitsAllSet": 4, "$lt": 100}}}"#,
        matches: |a| !(any(a, |value| bit_2(value) == Some(true)) && any(a, |value| number(value) < 100.0)),
        is_typed: |a| each(a, |value| has_bits(value) && is_number_or_nothing(value)),
    },
    Case {
        name: "not_greater_and_other",
        condition: r#"{"a": {"$not": {"$gt": 1, "$ne": "text"}}}"#,
        matches: |a| !any(a, |value| number(value) > 1.0) || any(a, |value| is(value, "text")),
        is_typed: |a| each(a, is_nothing),
    },
    Case {
        name: "not_not",
        condition: r#"{"a": {"$not": {"$not": {"$bitsAnySet": 4, "$gte": 4}}}}"#,
        matches: |a| any(a, |value| bit_2(value) == Some(true)) && any(a, |value| number(value) >= 4.0),
        is_typed: |a| each(a, |value| has_bits(value) && is_number_or_nothing(value)),
    },
    Case {
        name: "not_size_and_all",
        condition: r#"{"a": {"$not": {"$size": 2, "$all": ["text", "true"]}}}"#,
        matches: |a| !(has_two(a) && has_all(a)),
        is_typed: |a| is_array(a) && each(a, is_text),
    },
    Case {
        name: "inner",
        condition: r#"{"a": {"$elemMatch": {"$elemMatch": {"$gte": 4}}}}"#,
        matches: |a| items(a).any(|inner| items(inner).any(|item| number(item) >= 4.0)),
        is_typed: is_array_of_arrays_of_numbers,
    },
    Case {
        name: "not_inner",
        condition: r#"{"a": {"$elemMatch": {"$not": {"$elemMatch": {"$gte": 4}}}}}"#,
        matches: |a| items(a).any(|inner| !items(inner).any(|item| number(item) >= 4.0)),
        is_typed: is_array_of_arrays_of_numbers,
    },
    Case {
        name: "inner_document",
        condition: r#"{"a": {"$elemMatch": {"kind": "text", "names": {"$elemMatch": {"$eq": "text"}}}}}"#,
        matches: |a| {
            let has_name = |item| items(field(item, "names")).any(|name| is(name, "text"));
            items(a).any(|item| is(field(item, "kind"), "text") && has_name(item))
        },
        is_typed: |a| {
            let is_names = |names: &Bson| is_array(names) && each(names, is_text);
            let is_typed = |item: &Bson| {
                let is_document = item.as_document().is_some();
                is_nothing(item) || is_document && is_text(field(item, "kind")) && is_names(field(item, "names"))
            };
            is_array(a) && each(a, is_typed)
        },
    },
    Case {
        name: "null",
        condition: r#"{"a": null}"#,
        matches: |a| any(a, is_nothing),
        is_typed: |a| !any(a, is_undefined),
    },
    Case {
        name: "not_null",
        condition: r#"{"a": {"$ne": null}}"#,
        matches: |a| !any(a, is_nothing),
        is_typed: |a| !any(a, is_undefined),
    },
    Case {
        name: "text_or_null",
        condition: r#"{"a": {"$in": [null, "text"]}}"#,
        matches: |a| any(a, |value| is_nothing(value) || is(value, "text")),
        is_typed: |a| each(a, |value| is_text(value) && !is_undefined(value)),
    },
    // A test of types says itself what follows from each type.
    Case {
        name: "type",
        condition: r#"{"a": {"$type": "string"}}"#,
        matches: |a| any(a, |value| matches!(value, Bson::String(_)) && !is_missing(value)),
        is_typed: |_| true,
    },
    Case {
        name: "types",
        condition: r#"{"a": {"$type": ["number", 4]}}"#,
        matches: |a| a.as_array().is_some() || is_number(a),
        is_typed: |_| true,
    },
    Case {
        name: "not_type",
        condition: r#"{"a": {"$not": {"$type": "date"}}}"#,
        matches: |a| !any(a, |value| matches!(value, Bson::DateTime(_))),
        is_typed: |_| true,
    },
];

fn is_missing(value: &Bson) -> bool {
    is(value, "(missing)")
}

fn is_nothing(value: &Bson) -> bool {
    *value == Bson::Null || is_undefined(value) || is_missing(value)
}

/// Whether the value is `undefined`, which is equal to null only in some versions of mongod.
fn is_undefined(value: &Bson) -> bool {
    *value == Bson::Undefined
}

fn is(value: &Bson, text: &str) -> bool {
    matches!(value, Bson::String(found) | Bson::Symbol(found) if found == text)
}

fn is_text(value: &Bson) -> bool {
    is_nothing(value) || matches!(value, Bson::String(_) | Bson::Symbol(_))
}

fn is_number(value: &Bson) -> bool {
    matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_))
}

fn items(value: &Bson) -> impl Iterator<Item = &Bson> {
    value.as_array().into_iter().flatten()
}

/// Whether the value, or an element of the array, passes.
fn any(value: &Bson, test: impl Fn(&Bson) -> bool) -> bool {
    test(value) || items(value).any(test)
}

/// Whether the value passes; of an array, each element.
fn each(value: &Bson, test: impl Fn(&Bson) -> bool) -> bool {
    match value {
        Bson::Array(items) => items.iter().all(test),
        value => test(value),
    }
}

fn is_array(value: &Bson) -> bool {
    is_nothing(value) || value.as_array().is_some()
}

fn has_two(value: &Bson) -> bool {
    items(value).count() == 2
}

/// The number that the value is. NaN is less and greater than nothing.
fn number(value: &Bson) -> f64 {
    match value {
        Bson::Int32(number) => f64::from(*number),
        Bson::Int64(number) => f64::from(i32::try_from(*number).unwrap()),
        Bson::Double(number) => *number,
        Bson::Decimal128(decimal) => decimal.to_string().parse().unwrap(),
        _ => f64::NAN,
    }
}

fn is_number_or_nothing(value: &Bson) -> bool {
    is_nothing(value) || is_number(value)
}

fn has_between(value: &Bson) -> bool {
    items(value).any(|item| (1.0..5.0).contains(&number(item)))
}

fn is_array_of_numbers(value: &Bson) -> bool {
    is_array(value) && each(value, is_number_or_nothing)
}

fn is_array_of_arrays_of_numbers(value: &Bson) -> bool {
    is_array(value) && each(value, |inner| is_array(inner) && each(inner, is_number_or_nothing))
}

fn field<'a>(item: &'a Bson, name: &str) -> &'a Bson {
    item.as_document().and_then(|document| document.get(name)).unwrap_or(&Bson::Null)
}

fn has_document(value: &Bson) -> bool {
    items(value).any(|item| is(field(item, "kind"), "text") && matches!(field(item, "level"), Bson::Int32(1 | 2)))
}

fn has_other_document(value: &Bson) -> bool {
    let is_container = |item: &Bson| item.as_document().is_some() || item.as_array().is_some();
    items(value)
        .any(|item| is_container(item) && !is(field(item, "kind"), "text") && *field(item, "level") != Bson::Int32(3))
}

fn is_array_of_documents(value: &Bson) -> bool {
    let is_level = |level: &Bson| is_nothing(level) || is_number(level);
    let is_typed = |item: &Bson| {
        is_nothing(item)
            || item.as_document().is_some() && is_text(field(item, "kind")) && is_level(field(item, "level"))
    };
    is_array(value) && each(value, is_typed)
}

fn has_all(value: &Bson) -> bool {
    ["text", "true"].into_iter().all(|text| items(value).any(|item| is(item, text)))
}

/// Whether bit 2 of the value is set, as mongod sees it; none if it tests no bits.
fn bit_2(value: &Bson) -> Option<bool> {
    match value {
        Bson::Int32(number) => Some(number & 4 != 0),
        Bson::Int64(number) => Some(number & 4 != 0),
        Bson::Double(number) if [4.0, 5.0, -4.0].contains(number) => Some(true),
        Bson::Double(number) if number.fract() == 0.0 && number.abs() < 4.0 => Some(false),
        // mongod rounds decimals.
        Bson::Decimal128(decimal) => Some(["5", "4.4", "4"].contains(&&*decimal.to_string())),
        // mongod tests the length of an old-style binary first.
        Bson::Binary(binary) if binary.subtype == BinarySubtype::BinaryOld => Some(binary.bytes.len() & 4 != 0),
        Bson::Binary(binary) => Some(binary.bytes.first().is_some_and(|byte| byte & 4 != 0)),
        _ => None,
    }
}

fn has_bits(value: &Bson) -> bool {
    match value {
        Bson::Int32(_) | Bson::Int64(_) => true,
        Bson::Double(number) => number.is_finite() && number.fract() == 0.0 && number.abs() < 1e18,
        Bson::Decimal128(decimal) => decimal.to_string().bytes().all(|byte| byte.is_ascii_digit()),
        Bson::Binary(binary) => {
            matches!(binary.subtype, BinarySubtype::Generic | BinarySubtype::UserDefined(_))
        }
        value => is_nothing(value),
    }
}

/// Values of every type, and some that the conditions tell apart.
fn all_values() -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().unwrap());
    let binary = |subtype, bytes: &[u8]| Bson::Binary(Binary { subtype, bytes: bytes.to_vec() });
    let bytes = |bytes: &[u8]| binary(BinarySubtype::Generic, bytes);
    let old = |bytes: &[u8]| binary(BinarySubtype::BinaryOld, bytes);
    let element = |kind: &str, level: i32| Bson::Document(doc! { "kind": kind, "level": level });
    let lists = [
        vec![element("text", 1)],
        vec![element("text", 3), element("other", 1)],
        vec![element("other", 1), Bson::Null],
        vec![element("text", 1), 7.into()],
        vec![element("text", 2), Bson::Array(vec![])],
        vec![doc! { "kind": 5, "level": 1 }.into()],
        vec![doc! { "level": "1" }.into(), element("text", 1)],
        vec!["text".into(), "true".into()],
        vec!["text".into(), "true".into(), 1.into()],
        vec![1.into(), 7.into()],
        vec![7.into(), 9.into()],
        vec![2.into(), "2".into()],
        vec![4.into(), 1.into()],
        vec![4.into(), "4".into()],
        vec![Bson::Array(vec![4.into()])],
        vec![Bson::Array(vec![1.into(), 2.into()]), Bson::Array(vec![])],
        vec![Bson::Array(vec![1.into(), 7.into()]), Bson::Null],
        vec![Bson::Array(vec![4.into()]), 4.into()],
        vec![Bson::Array(vec![4.into(), "4".into()])],
        vec![doc! { "kind": "text", "names": ["text", "other"] }.into()],
        vec![doc! { "kind": "text", "names": ["text", 1] }.into()],
        vec![doc! { "kind": "text", "names": "text" }.into()],
        vec![doc! { "kind": "text", "names": ["other"] }.into(), doc! { "kind": "other", "names": ["text"] }.into()],
        vec![4.5.into(), 1.into()],
        vec![old(&[4]), 1.into()],
        vec![Bson::Undefined],
        vec!["text".into(), Bson::Undefined],
    ];
    let scalars = [
        4.into(),
        12_i64.into(),
        (-4_i64).into(),
        4.0.into(),
        (-4.0).into(),
        1e300.into(),
        decimal("4.4"),
        decimal("-Infinity"),
        bytes(&[]),
        bytes(&[4]),
        bytes(&[3, 4]),
        old(&[]),
        old(&[0]),
        old(&[4]),
        old(&[0; 4]),
        binary(BinarySubtype::UserDefined(0x80), &[4]),
        binary(BinarySubtype::UserDefined(0xff), &[3]),
        binary(BinarySubtype::Md5, &[4; 16]),
        binary(BinarySubtype::UuidOld, &[4; 16]),
        4.5.into(),
        Bson::Undefined,
        element("text", 1),
    ];
    values(&"text".into()).into_iter().chain(scalars).chain(lists.into_iter().map(Bson::Array)).collect()
}

fn text_of_schema() -> String {
    let mut relations = String::new();
    let mut permissions = String::new();
    for Case { name, condition, .. } in &CASES {
        writeln!(relations, "{name} = {{ where = '{condition}' }}").unwrap();
        writeln!(relations, "{name}_note = {{ collection = \"notes\", by = \"item\", where = '{condition}' }}")
            .unwrap();
        writeln!(relations, "{name}_ban = {{ collection = \"bans\", by = \"item\", where = '{condition}' }}").unwrap();
        let inner = condition.replacen(r#"{"a""#, r#"{"list.a""#, 1);
        writeln!(relations, "{name}_inner = {{ where = '{inner}' }}").unwrap();
        writeln!(permissions, "in_{name} = \"{name}_inner\"\nnot_in_{name} = \"open & !{name}_inner\"").unwrap();
        writeln!(permissions, "has_{name} = \"{name}_note\"\nis_{name} = \"{name}\"").unwrap();
        writeln!(permissions, "no_{name} = \"open & !{name}\"\nwithout_{name} = \"open & !{name}_ban\"").unwrap();
    }
    format!(
        "default_subject = \"user\"\n[subject.user]\n[resource.item]\nid = \"integer\"\ncollection = \"items\"\n\
         [resource.item.relations]\nopen = {{ where = {{ _id = {{ \"$exists\" = true }} }} }}\n{relations}\n\
         [resource.item.permissions]\n{permissions}"
    )
}

fn with(id: i32, value: &Bson) -> Document {
    let mut document = doc! { "_id": id, "item": id };
    let mut inner = Document::new();
    if !is_missing(value) {
        document.insert("a", value.clone());
        inner.insert("a", value.clone());
    }
    // A path through an array of documents leads to the same value.
    document.insert("list", vec![inner]);
    document
}

#[tokio::test]
async fn a_value_that_a_test_of_arrays_or_bits_cannot_judge_never_allows() {
    let values = all_values();
    let documents: Vec<Document> = (0_i32..).zip(&values).map(|(id, value)| with(id, value)).collect();
    let collections: Collections =
        ["items", "notes", "bans"].into_iter().map(|name| (name.to_owned(), documents.clone())).collect();
    let both = Both::new(schema("operators.toml", &text_of_schema()), &collections).await;
    let mut questions = Vec::new();
    let mut expectations = Vec::new();
    for case in &CASES {
        for (id, value) in values.iter().enumerate() {
            let (matches, is_typed) = ((case.matches)(value), (case.is_typed)(value));
            let granted = match (matches, is_typed) {
                (true, true) => "allowed",
                (true, false) => "denied MALFORMED",
                (false, _) => "denied NO_GRANT",
            };
            let excluded = match (matches, is_typed) {
                (true, true) => "denied EXCLUDED",
                (_, false) => "denied MALFORMED",
                (false, true) => "allowed",
            };
            let granting = ["is", "has", "in"].map(|prefix| (prefix, granted));
            let excluding = ["no", "without", "not_in"].map(|prefix| (prefix, excluded));
            for (prefix, outcome) in granting.into_iter().chain(excluding) {
                let permission = format!("{prefix}_{}", case.name);
                questions.push(question(&both.schema, "anonymous", &permission, &format!("item:{id}")));
                expectations.push((permission, value, outcome));
            }
        }
    }
    let answers = both.ask(&questions, NOW).await;
    let mut wrong = Vec::new();
    for ((permission, value, outcome), answers) in expectations.iter().zip(answers) {
        let got = both.objection(answers, |text| text.starts_with(outcome));
        wrong.extend(got.map(|got| format!("{permission} with {value}\n    expected {outcome}\n    got      {got}")));
    }
    assert!(wrong.is_empty(), "{} of {} answers are wrong:\n{}", wrong.len(), questions.len(), wrong.join("\n"));
    for outcome in ["allowed", "denied MALFORMED", "denied NO_GRANT", "denied EXCLUDED"] {
        assert!(expectations.iter().filter(|(_, _, other)| *other == outcome).count() > 100, "{outcome}");
    }
}
