//! The recipes of docs/schema.md, "Roles, teams and tenants": each is a schema in `schemas/recipes` with sample documents and
//! tests, which pass over documents and over a real replica set. The documentation shows the same text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::{
    rules::{documents_in, questions_of, schema_test, warnings_of_the_database},
    support::{
        both::{fill, schema},
        servers::mongo,
    },
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The name and the test file of each recipe.
fn recipes() -> BTreeMap<String, PathBuf> {
    let files = fs::read_dir(root().join("schemas/recipes")).unwrap().map(|entry| entry.unwrap().path());
    let named =
        files.filter_map(|path| Some((path.file_name()?.to_str()?.strip_suffix(".test.toml")?.to_owned(), path)));
    let all: BTreeMap<String, PathBuf> = named.collect();
    assert!(all.len() >= 8, "{all:?}");
    all
}

fn text_of(recipe: &str) -> String {
    fs::read_to_string(root().join(format!("schemas/recipes/{recipe}.toml"))).unwrap()
}

fn tests_of(path: &Path) -> Vec<toml::Value> {
    let tests: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
    tests["test"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_tests_of_every_recipe_pass_over_documents_and_over_a_real_replica_set() {
    for (name, path) in recipes() {
        let schema = schema(&name, &text_of(&name));
        let database = mongo().database().await;
        fill(&database, &schema, &documents_in(&root().join("examples/recipes").join(&name), &schema)).await;
        let questions: usize = tests_of(&path).iter().map(questions_of).sum();
        for output in [schema_test(&path, None), schema_test(&path, Some(database.name()))] {
            let (shown, logs) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.status.code(), Some(0), "{name}: {shown}{logs}");
            assert!(
                shown.ends_with(&format!("{questions} passed, 0 failed\n"))
                    && warnings_of_the_database(&logs).is_empty(),
                "{shown}{logs}"
            );
        }
        database.drop().await.unwrap();
    }
}

#[test]
fn every_permission_of_a_recipe_is_tested_both_ways() {
    for (name, path) in recipes() {
        let schema = schema(&name, &text_of(&name));
        let tests: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        let kind_of = |test: &toml::Value| {
            let resource = test["resource"].as_str().unwrap();
            let meant = tests["names"].get(resource).and_then(toml::Value::as_str).unwrap_or(resource);
            meant.split(':').next().unwrap().to_owned()
        };
        let mut tested = BTreeSet::new();
        for test in tests["test"].as_array().unwrap() {
            for side in ["allowed", "denied"] {
                let permissions = test.get(side).and_then(toml::Value::as_table).into_iter().flatten();
                tested.extend(permissions.map(|(permission, _)| (side, kind_of(test), permission.clone())));
            }
        }
        for (kind, resource) in schema.resources() {
            for permission in schema.public_permissions(kind) {
                let permission = schema.permission(permission).name.to_string();
                for side in ["allowed", "denied"] {
                    let wanted = (side, resource.name.to_string(), permission.clone());
                    assert!(tested.contains(&wanted), "{name}: never {wanted:?}");
                }
            }
        }
    }
}

#[test]
fn the_documentation_shows_the_lines_of_each_recipe() {
    let manual = fs::read_to_string(root().join("docs/schema.md")).unwrap();
    let section = manual.split("\n## ").find(|section| section.starts_with("Roles, teams and tenants")).unwrap();
    for name in recipes().keys() {
        let place = format!("schemas/recipes/{name}.toml");
        let (_, after) = section.split_once(&place).unwrap_or_else(|| panic!("{place} is not in the section"));
        let (_, block) = after.split_once("```toml\n").unwrap();
        let (block, _) = block.split_once("```").unwrap();
        let recipe = text_of(name);
        for line in block.lines().filter(|line| !line.trim().is_empty()) {
            assert!(recipe.lines().any(|other| other == line), "{place} has no line\n{line}");
        }
    }
}
