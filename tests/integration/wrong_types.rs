//! Tests every field that the relations of `fylora-sharing.toml` read with values of every BSON type. A value of a wrong
//! type never allows, not even through a `!`. The answer is the same over documents and over mongod. It is `MALFORMED` if
//! the value mattered. Nothing panics. Another grant still counts.
//!
//! Out of scope are strings that are not UTF-8, and BSON's `undefined`, which servers interpret in two ways.

pub mod expected;
mod fields;
mod keys;
mod operators;
mod shared_array;

use expected::{expected, values};
use fields::{Field, fields};
use mongodb::bson::Bson;
use permcached::{
    question::{Answer, Reason},
    schema::Schema,
};

use crate::{
    rules::rule::NOW,
    support::both::{Both, Collections, question, shipped_schema},
};

#[tokio::test]
async fn a_value_of_the_wrong_type_never_allows() {
    let schema = shipped_schema("fylora-sharing.toml");
    let mut collections = Collections::new();
    let mut questions = Vec::new();
    let mut expectations = Vec::new();
    let mut number = 0;
    for field in fields() {
        let values = values(&field.right);
        let mut outcomes = vec!["allowed"];
        let mut rule = values.iter().fold(field.grants.clone(), |rule, value| {
            outcomes.push(expected(&field, value));
            rule.but(field.at, (field.put)(value.clone()))
        });
        if let Some((at, document)) = &field.also_granted_by {
            for value in &values {
                // The other grant allows it, for any value.
                outcomes.push("allowed");
                rule = rule.but(field.at, (field.put)(value.clone())).and(at, document.clone());
            }
        }
        let cases = rule.cases(number, &mut collections);
        number += u32::try_from(cases.len()).unwrap();
        for (case, outcome) in cases.into_iter().zip(outcomes) {
            questions.push(question(&schema, &case.subject, field.permission, &case.resource));
            expectations.push((format!("{}: {}{}", field.name, field.permission, case.name), outcome));
        }
    }
    let both = Both::new(schema, &collections).await;
    let answers = both.ask(&questions, NOW).await;
    let mut wrong = Vec::new();
    for ((name, outcome), answers) in expectations.iter().zip(&answers) {
        let meets = |text: &str| {
            text == format!("denied {outcome}") || *outcome == "allowed" && text.starts_with("allowed by ")
        };
        wrong.extend(
            both.objection(*answers, meets).map(|got| format!("{name}\n    expected {outcome}\n    got      {got}")),
        );
    }
    assert!(wrong.is_empty(), "{} of {} answers are wrong:\n{}", wrong.len(), questions.len(), wrong.join("\n"));

    let malformed = answers.iter().filter(|[answer, _]| *answer == Answer::Denied(Reason::Malformed)).count() as u64;
    assert!(malformed > 1_000, "{malformed}");
}

/// A field that is not in the table would never be tested with a wrong value.
#[test]
fn every_field_that_relations_read_is_in_the_table() {
    let schema = shipped_schema("fylora-sharing.toml");
    let put = |field: &Field| {
        (field.put)(Bson::Null)
            .into_iter()
            .map(|(name, _)| format!("{}.{name}", collection(field.at)))
            .collect::<Vec<_>>()
    };
    let tested: Vec<String> = fields().iter().flat_map(put).collect();
    for name in read_by(&schema) {
        assert!(tested.contains(&name), "{name} is read but never has a wrong type here");
    }
}

fn collection(at: &str) -> &str {
    at.split('/').next().unwrap_or_default()
}

/// Every field that is fetched for a relation, as `collection.field`. An `_id` is left out: with a value of another type it
/// would be another document's `_id`.
fn read_by(schema: &Schema) -> Vec<String> {
    let fields = schema.lookups().flat_map(|(_, lookup)| {
        let fields = lookup.projection.iter().filter(|field| &***field != "_id");
        fields.map(|field| format!("{}.{field}", lookup.collection))
    });
    fields.collect()
}
