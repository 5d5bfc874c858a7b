//! The filters of both schemas of Fylora: `read` is exact for every user and every public token, over the sample documents and over
//! variants of them with hostile values.
//!
//! Compares `write` and `restore` as well, whose filters may find more.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bson::{Bson, Document, doc, oid::ObjectId};
use permcached::{
    list::{Asker, ListError, ListQuestion, PlanKind, Secret, filter},
    question::{Id, IdForm, Subject},
    schema::{Member, Schema},
};

use super::{
    finds::{Found, compare_with_mongod},
    world::{World, id_of},
};
use crate::support::servers;

const SCHEMAS: [&str; 2] = ["fylora", "fylora-sharing"];
/// The resource types, with the fields of their own documents that decide.
const KINDS: [(&str, &[&str]); 3] = [
    ("file", &["owner_id", "is_deleted", "folder_id"]),
    ("folder", &["owner_id", "is_deleted", "parent_id"]),
    ("note", &["owner_id", "is_deleted", "shared_with.user_id", "shared_with.permission", "is_public", "public_token"]),
];
const PERMISSIONS: [&str; 3] = ["read", "write", "restore"];
/// 2026-11-23, before the shares of the sample documents expire.
const NOW: i64 = 1_795_435_200_000;

#[test]
fn read_is_exact_for_users_and_links() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let database = runtime.block_on(servers::mongo().database());
    let collections = collections();
    for name in SCHEMAS {
        let path = root().join("schemas").join(format!("{name}.toml"));
        let text = std::fs::read_to_string(path).expect("a schema");
        let schema = Arc::new(Schema::parse(name, &text).unwrap_or_else(|errors| panic!("{errors}")));
        let world = World::new(&runtime, Arc::clone(&schema), &collections, NOW);
        let askers = askers(&schema, &collections);
        for (kind, _) in KINDS {
            let (mut found, mut some) = (Vec::new(), 0);
            let collection = format!("{kind}s");
            for asker in &askers {
                for permission in PERMISSIONS {
                    let one = compare(&world, kind, permission, asker);
                    some += usize::from(!one.ids.is_empty());
                    found.push(one);
                }
            }
            assert!(some * 4 > askers.len(), "{name} {kind}: only {some} filters find something");
            let stored = database.collection(&format!("{name}_{collection}"));
            let compared = compare_with_mongod(&stored, &collections[&collection], found);
            runtime.block_on(compared).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

/// Compares a filter with the evaluator.
fn compare(world: &World<'_>, kind: &str, permission: &str, asker: &Asker) -> Found {
    let schema = &world.schema;
    let (id, resource) = schema.resources().find(|(_, resource)| *resource.name == *kind).expect("a type");
    let Some(Member::Permission(number)) = resource.members.get(permission) else { panic!("no {permission}") };
    let question = ListQuestion { asker: asker.clone(), permission: *number, kind: id };
    let of = format!("{permission} of {kind} by {:?}", asker.subject);
    let filter = match filter::compile(schema, &question, &world.known(&question), NOW) {
        Ok(filter) => filter,
        Err(ListError::NotNarrowable { part, .. }) => panic!("{of}: {part}"),
        Err(error) => panic!("{of}: {error}"),
    };
    if permission == "read" {
        assert!(matches!(filter.kind, PlanKind::Exact | PlanKind::None), "{of}: {:?}", filter.kind);
    }
    let query = filter.condition.to_query();
    let mut ids = Vec::new();
    for (place, document) in world.documents(&format!("{kind}s")).iter().enumerate() {
        let is_found = filter.condition.matches(document);
        let is_allowed = world.allows(&question, &id_of(schema, id, &document["_id"]).expect("an id"));
        let is_wrong = if filter.kind == PlanKind::Superset { is_allowed && !is_found } else { is_allowed != is_found };
        assert!(!is_wrong, "{of}: found: {is_found}, allowed: {is_allowed}\n  {document}\n  {query}");
        ids.extend(is_found.then_some(place));
    }
    Found { condition: filter.condition, ids: ids.into_iter().collect(), of }
}

/// The active users, and a bearer of each public token.
fn askers(schema: &Schema, collections: &BTreeMap<String, Vec<Document>>) -> Vec<Asker> {
    let users = collections["users"].iter().filter(|user| user.get("is_active") != Some(&Bson::Boolean(false)));
    let users = users.filter_map(|user| user.get_object_id("_id").ok()).map(|id| {
        let id = Id::ObjectId(id.bytes());
        Asker::new(Subject::Known { kind: schema.default_subject(), id })
    });
    let (link, _) = schema.subjects().find(|(_, kind)| *kind.name == *"link").expect("links");
    let documents = ["shares", "notes"].into_iter().flat_map(|name| &collections[name]);
    let tokens = documents.filter_map(|document| document.get_str("public_token").ok());
    let mut tokens: Vec<&str> = tokens.filter(|token| Id::parse(token, IdForm::String, true).is_ok()).collect();
    tokens.sort_unstable();
    tokens.dedup();
    let links = tokens.iter().step_by(4).map(|token| Asker {
        subject: Subject::Known { kind: link, id: Id::digest(token) },
        secret: Some(Secret::new(token)),
    });
    users.chain(links).collect()
}

/// The sample documents, with variants.
fn collections() -> BTreeMap<String, Vec<Document>> {
    let names = ["files", "folders", "notes", "shares", "teams", "temporaryaccesses", "users"];
    let mut collections: BTreeMap<String, Vec<Document>> =
        names.into_iter().map(|name| (name.to_owned(), samples(name))).collect();
    let values = values();
    for (kind, paths) in KINDS {
        let documents = collections.get_mut(&format!("{kind}s")).expect("a collection");
        let bases: Vec<Document> = documents.iter().take(2).cloned().collect();
        let mut number = 0_u32;
        for base in &bases {
            for path in paths {
                for value in &values {
                    for mut variant in variants(base, path, value) {
                        number += 1;
                        let mut bytes = [0xee; 12];
                        bytes[8..].copy_from_slice(&number.to_be_bytes());
                        variant.remove("_id");
                        let mut whole = doc! { "_id": ObjectId::from_bytes(bytes) };
                        whole.extend(variant);
                        documents.push(whole);
                    }
                }
            }
        }
    }
    collections
}

/// The document with another value at the path, alone, in an array, and beside the valid value.
fn variants(base: &Document, path: &str, value: &Bson) -> Vec<Document> {
    let with = |name: &str, value: Bson| {
        let mut document = base.clone();
        document.insert(name, value);
        document
    };
    let Some((outer, inner)) = path.split_once('.') else {
        let valid = base.get(path).cloned().unwrap_or(Bson::Null);
        return vec![
            with(path, value.clone()),
            with(path, Bson::Array(vec![value.clone()])),
            with(path, Bson::Array(vec![valid, value.clone()])),
        ];
    };
    let items = base.get_array(outer).cloned().unwrap_or_default();
    let mut element = items.first().and_then(Bson::as_document).cloned().unwrap_or_default();
    element.insert(inner, value.clone());
    let element = Bson::Document(element);
    vec![
        with(outer, value.clone()),
        with(outer, element.clone()),
        with(outer, Bson::Array(vec![element.clone()])),
        with(outer, Bson::Array(vec![Bson::Array(vec![element.clone()])])),
        with(outer, Bson::Array(items.iter().cloned().chain([element]).collect())),
        with(outer, Bson::Array(items.iter().cloned().chain([value.clone()]).collect())),
    ]
}

/// Values that mean something in one of the fields, or are easily mistaken for such values.
fn values() -> Vec<Bson> {
    let users = samples("users");
    let mut values: Vec<Bson> = users.iter().take(3).map(|user| user["_id"].clone()).collect();
    let folders = samples("folders");
    values.extend(folders.iter().take(3).map(|folder| folder["_id"].clone()));
    values.extend(users.first().map(|user| user["_id"].as_object_id().expect("an id").to_hex().into()));
    values.extend(["read", "write", "admin", "other", "", "*", "true"].map(Bson::from));
    values.extend([Bson::Symbol("read".into()), Bson::Symbol(String::new()), "x".repeat(1_025).into()]);
    values.extend([true.into(), false.into(), Bson::Null, Bson::Undefined, 0.into(), 1.5.into(), f64::NAN.into()]);
    values.extend([Bson::Array(Vec::new()), Document::new().into(), Bson::Array(vec![Bson::Array(Vec::new())])]);
    values.extend([Bson::DateTime(bson::DateTime::from_millis(NOW)), Bson::MinKey, Bson::MaxKey]);
    let notes = samples("notes");
    let token = notes.iter().find_map(|note| note.get_str("public_token").ok()).expect("a public note");
    values.extend([Bson::from(token), Bson::Symbol(token.to_owned())]);
    values
}

fn samples(name: &str) -> Vec<Document> {
    let path = root().join("examples/fylora").join(format!("{name}.jsonl"));
    let text = std::fs::read_to_string(path).expect("sample documents");
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let parsed = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    parsed
        .map(|json| match Bson::try_from(json).expect("Extended JSON") {
            Bson::Document(document) => document,
            other => panic!("{other} is no document"),
        })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
