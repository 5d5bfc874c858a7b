//! Values as applications write them: several types in one collection, edges to what is gone, ids as text, names of types,
//! dates in other units, `DBRef`s. Over documents in memory, over a real mongod, and over its change stream.
//!
//! Random schemas are tested in `evaluator`.

mod dates;
mod formats;
mod names;
mod resources;
mod type_values;
mod unlisted_types;

use mongodb::bson::{Document, doc, oid::ObjectId};

use crate::{
    rules::rule::NOW,
    support::{
        both::{Both, Collections, question, schema},
        live::Two,
    },
};

const ALLOWED: &str = "allowed";
const EXCLUDED: &str = "denied EXCLUDED";
const MALFORMED: &str = "denied MALFORMED";
const NOT_FOUND: &str = "denied NOT_FOUND";
const NO_GRANT: &str = "denied NO_GRANT";

/// A question and its answer: `user:1`, `read`, `file:3`, `denied NO_GRANT`. An answer that begins with `allowed` may name
/// the relation that grants it.
type Asked<'a> = (&'a str, &'a str, &'a str, &'a str);

/// The ObjectId whose hex digits are this number.
fn oid(number: u32) -> ObjectId {
    hex(number).parse().unwrap()
}

/// The hex digits of an ObjectId. They contain letters.
fn hex(number: u32) -> String {
    format!("65f0ab{number:018x}")
}

/// Replaces `@1` by the hex digits of the ObjectId 1.
fn with_ids(text: &str) -> String {
    match text.split_once('@') {
        Some((before, number)) => format!("{before}{}", hex(number.parse().unwrap())),
        None => text.to_owned(),
    }
}

fn collections(all: &[(&str, Vec<Document>)]) -> Collections {
    all.iter().map(|(name, documents)| ((*name).to_owned(), documents.clone())).collect()
}

/// Asserts the answers over documents and over mongod. In subjects and resources, `@1` is the ObjectId 1.
async fn assert_answers(text: &str, all: &[(&str, Vec<Document>)], asked: &[Asked<'_>]) {
    let both = Both::new(schema("values.toml", text), &collections(all)).await;
    let questions: Vec<_> = asked
        .iter()
        .map(|(subject, permission, resource, _)| {
            question(&both.schema, &with_ids(subject), permission, &with_ids(resource))
        })
        .collect();
    let answers = both.ask(&questions, NOW).await;
    let wrong: Vec<String> = asked
        .iter()
        .zip(answers)
        .filter_map(|((subject, permission, resource, expected), answers)| {
            let is_expected = |text: &str| text == *expected || *expected == ALLOWED && text.starts_with(ALLOWED);
            let got = both.objection(answers, is_expected)?;
            Some(format!("{subject} {permission} {resource}: expected {expected}, got {got}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} answers are wrong:\n{}", wrong.len(), asked.len(), wrong.join("\n"));
}
