//! The keys of documents, and that reverse lookups lead back from all that documents grant. Asks no database.

use std::sync::LazyLock;

use bson::{Bson, Document, doc, oid::ObjectId};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    fact::{Certainty, Fact, Grantee},
    moment::Moment,
    question::{LookupId, RelationId},
    schema::{Condition, Member, Path, Relation, ResourceType, Schema, Test},
};

#[test]
fn a_document_is_found_by_each_element_of_an_array() {
    let mut keys = Vec::new();
    let document = doc! { "owners": [{ "id": 1 }, { "id": [2, "x"] }, 3] };
    let lookup = Lookup::by("files", Path::parse("owners.id").unwrap());
    document_keys(&lookup, &document, &mut |id| keys.push(id.to_string()));
    assert_eq!(keys, ["1", "2", "x"]);
}

#[test]
fn one_key_stands_for_all_of_a_reverse_lookup_where_there_are_too_many() {
    let (reverse, _) = SCHEMA.lookups().find(|(_, lookup)| lookup.is_reverse).unwrap();
    let (other, _) = SCHEMA.lookups().find(|(_, lookup)| !lookup.is_reverse && !lookup.is_by_id()).unwrap();
    let keys = |count: i64| {
        let keys =
            (0..count).flat_map(|number| [other, reverse].map(|lookup| FactKey::whole(lookup, Id::Integer(number))));
        keys.collect::<Vec<_>>()
    };
    let bounded = |count| {
        let mut keys = keys(count);
        bound_reverse_keys(&SCHEMA, &mut keys);
        keys
    };
    assert_eq!(bounded(10), keys(10));
    let many = bounded(1_000);
    assert_eq!(many.len(), 1_001);
    assert_eq!(many.iter().filter(|key| key.lookup == reverse).collect::<Vec<_>>(), [&FactKey::all_reverse(reverse)]);
}

/// Every relation here has a reverse lookup. All read the same collection.
const REVERSED: &str = r#"
default_subject = "user"

[subject.user]
[subject.number]
id = "integer"
[subject.name]
id = "string"

[resource.team]
id = "integer"
[resource.team.relations]
member = { collection = "c", by = "a", field = "b", subject = ["name", "number", "team.member"], subject_type = "t", subject_relation = "r" }
lead = { collection = "c", by = { field = "a", format = "team:{id}" }, field = "b", format = "to:{id}", subject = ["name", "user", "team.member"], subject_type = "t", wildcard = true }

[resource.box]
id = "string"
collection = "c"
where = { k = { "$ne" = 2 } }
[resource.box.relations]
owner = { field = "b.c", wildcard = true }
named = { each = "b", field = "c", subject = "name", where = { k = 1 }, since = "d" }
parent = { field = "a", resource = "box", where = { k = 1 } }
kept = { collection = "c", by = "b.c", field = "a", subject = "number", where = { "$or" = [{ k = 1 }, { "b.k" = 1 }] }, until = "d" }
banned = { collection = "c", by = "b", field = "a", subject = "name" }
[resource.box.permissions]
read = "owner | named | parent.read | kept & !banned"

[resource.team.permissions]
see = "member | lead"
"#;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::parse("schema.toml", REVERSED).unwrap());

const HEX: &str = "65f0000000000000000000ab";

fn leaves() -> impl Strategy<Value = Bson> {
    prop_oneof![
        4 => prop_oneof![Just("x"), Just("*"), Just("1"), Just("team:1"), Just("to:x"), Just("to:1"), Just("to:*"), Just(""), Just("name"), Just("number"), Just("team"), Just("user"), Just("member")].prop_map(Bson::from),
        1 => Just(Bson::String(format!("to:{HEX}"))),
        1 => Just(Bson::String(format!("to:{}", HEX.to_uppercase()))),
        1 => Just(Bson::Symbol("x".to_owned())),
        1 => Just(Bson::Symbol("team:1".to_owned())),
        3 => (0..3).prop_map(Bson::Int32),
        1 => Just(Bson::Double(1.0)),
        1 => Just(Bson::Double(1.5)),
        1 => Just(Bson::Null),
        1 => Just(Bson::DateTime(bson::DateTime::from_millis(5))),
        1 => Just(Bson::ObjectId(ObjectId::parse_str(HEX).unwrap())),
        1 => Just(Bson::Boolean(true)),
    ]
}

fn values() -> impl Strategy<Value = Bson> {
    leaves().prop_recursive(3, 12, 4, |inner| {
        let field = |name: &'static str, values: BoxedStrategy<Bson>| {
            prop::option::of(values).prop_map(move |value| value.map(|value| (name.to_owned(), value)))
        };
        let part = (
            field("c", inner.clone().boxed()),
            field("k", (0..3).prop_map(Bson::Int32).boxed()),
            field("d", inner.clone().boxed()),
        );
        prop_oneof![
            vec(inner, 0..4).prop_map(Bson::Array),
            part.prop_map(|(c, k, d)| Bson::Document([c, k, d].into_iter().flatten().collect())),
        ]
    })
}

fn documents() -> impl Strategy<Value = Document> {
    let ids = prop_oneof![3 => Just(Bson::from("x")), 1 => Just(Bson::Symbol("x".to_owned())), 1 => leaves()];
    let names = || prop::option::of(leaves());
    (ids, values(), values(), names(), names(), prop::option::of(0..3), prop::option::of(leaves())).prop_map(
        |(id, a, b, t, r, k, d)| {
            let mut document = doc! { "_id": id, "a": a, "b": b };
            let rest = [("t", t), ("r", r), ("k", k.map(Bson::Int32)), ("d", d)];
            document.extend(rest.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
            document
        },
    )
}

/// Every relation of a resource, with its type.
fn relations(schema: &Schema) -> impl Iterator<Item = (&ResourceType, RelationId)> {
    schema.resources().flat_map(|(_, kind)| {
        kind.members.values().filter_map(move |member| match member {
            Member::Relation(id) => Some((kind, *id)),
            Member::Permission(_) => None,
        })
    })
}

fn keys_of(schema: &Schema, lookup: LookupId, document: &Document) -> Vec<Id> {
    let mut keys = Vec::new();
    document_keys(schema.lookup(lookup), document, &mut |id| keys.push(id));
    keys
}

/// The facts that a document is part of, for a lookup.
fn facts(schema: &Schema, lookup: LookupId, document: &Document) -> Vec<Fact> {
    let is_wanted = schema.lookup(lookup).wanted.as_ref().is_none_or(|wanted| wanted.matches(document));
    let keys = if is_wanted { keys_of(schema, lookup, document) } else { Vec::new() };
    let fact = |key| Fact::read(schema, FactKey::whole(lookup, key), Moment::from_count(1), &[document]);
    keys.into_iter().map(fact).collect()
}

/// Whether the facts of a reverse lookup lead from the id to the resource.
fn leads_back(schema: &Schema, relation: &Relation, from: &Id, to: &Id, document: &Document) -> bool {
    relation.reverse.iter().any(|reverse| {
        let facts = facts(schema, reverse.lookup, document);
        let mut of_key = facts.iter().filter(|fact| fact.id() == from);
        of_key.any(|fact| fact.grants(reverse.relation).any(|grant| grant.grantee == Grantee::Id(to.clone())))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reverse_lookup_leads_back_from_all_that_a_document_grants(document in documents()) {
        let schema = &*SCHEMA;
        for (kind, id) in relations(schema) {
            let relation = schema.relation(id);
            prop_assert!(!relation.reverse.is_empty(), "{} has one", relation.name);
            let lookup = relation.lookup().unwrap();
            // Nothing is granted on a resource that is of another type.
            let gate = kind.gate.filter(|_| kind.document == Some(lookup)).and_then(|gate| schema.relation(gate).condition.as_ref());
            if gate.is_some_and(|gate| !gate.matches(&document)) {
                continue;
            }
            // No resource has another id.
            let is_id = |fact: &Fact| Id::parse(&fact.id().to_string(), kind.id, false).as_ref() == Ok(fact.id());
            for fact in facts(schema, lookup, &document).into_iter().filter(is_id) {
                for grant in fact.grants(id).filter(|grant| grant.certainty == Certainty::Sure) {
                    let from = match &grant.grantee {
                        Grantee::Id(id) => id.clone(),
                        Grantee::Everyone => FactKey::id_of_everybody(),
                        Grantee::Flag | Grantee::Unreadable | Grantee::Unknown(_) | Grantee::OverLimit => continue,
                    };
                    let leads = leads_back(schema, relation, &from, fact.id(), &document);
                    prop_assert!(leads, "{}: from {from:?} to {:?} in {document}", relation.name, fact.id());
                }
            }
        }
    }

    #[test]
    fn a_reverse_lookup_searches_for_the_values_of_its_keys(document in documents()) {
        let schema = &*SCHEMA;
        for (id, lookup) in schema.lookups().filter(|(_, lookup)| lookup.is_reverse) {
            for key in keys_of(schema, id, &document) {
                let condition = Condition::Field(lookup.by.clone(), Test::In(key_values(lookup, &key)));
                prop_assert!(condition.matches(&document), "{key:?} by {} in {document}", lookup.by);
            }
        }
    }
}
