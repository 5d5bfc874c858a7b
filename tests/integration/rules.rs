//! Tests every rule of the shipped schemas both ways: it allows, and it denies with the right reason if one condition is not
//! fulfilled. Each question goes to documents in memory and to the same documents in a real replica set.
//!
//! The tables of rules are in `rules/`, and in `librechat` the changes of documents. This file tests what a table cannot express:
//! invalid names, and the command line.

pub mod items;
mod librechat;
mod notes;
pub mod rule;
mod sharing;
mod teams;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use mongodb::bson::Document;
use permcached::{
    question::RelationId,
    schema::{Member, Schema, SubjectText, Target},
};
use rule::{Case, NOW, Rule, Schemas};

use crate::support::{
    both::{Both, Collections, fill, shipped_schema, subject_text},
    servers::mongo,
};

fn all_rules() -> Vec<Rule> {
    let all = items::rules().into_iter().chain(sharing::rules()).chain(notes::rules()).chain(teams::rules());
    all.map(Rule::complete).collect()
}

#[tokio::test]
async fn fylora_answers_every_rule_both_ways() {
    let schema = shipped_schema("fylora.toml");
    // This schema does not grant what only the other schema grants. It does not even have some types of subjects.
    let has_subject = |rule: &Rule| {
        let kind = rule.subject.split(':').next().unwrap_or_default();
        kind == "anonymous" || schema.subjects().any(|(_, subject)| &*subject.name == kind)
    };
    let rules = all_rules().into_iter().filter(|rule| rule.schemas == Schemas::Both || has_subject(rule));
    let rules = rules.map(|rule| if rule.schemas == Schemas::Both { rule } else { rule.absent() }).collect();
    walk(schema, rules).await;
}

#[tokio::test]
async fn fylora_sharing_answers_every_rule_both_ways() {
    walk(shipped_schema("fylora-sharing.toml"), all_rules()).await;
}

/// Asks for every permission in every case, and panics with all unexpected answers.
async fn walk(schema: Schema, rules: Vec<Rule>) {
    assert_complete(&schema, &rules);
    let mut collections = Collections::new();
    let mut cases: Vec<Case> = Vec::new();
    for rule in &rules {
        cases.extend(rule.cases(u32::try_from(cases.len()).unwrap(), &mut collections));
    }
    let both = Both::new(schema, &collections).await;
    let mut questions = Vec::new();
    let mut asked = Vec::new();
    for case in &cases {
        let (kind, id) = case.resource.split_once(':').unwrap();
        let of_case = both.schema.questions_for_all(subject_text(&case.subject), kind, id).expect("a valid question");
        asked.extend(of_case.iter().map(|question| (case, both.schema.permission(question.permission).name.clone())));
        questions.extend(of_case);
    }
    let answers = both.ask(&questions, NOW).await;
    let mut wrong = Vec::new();
    for ((case, permission), answers) in asked.iter().zip(answers) {
        let expected = case.expected.of(permission);
        if let Some(objection) = both
            .objection(answers, |text| expected.as_ref().map_or(text.starts_with("denied"), |wanted| text == wanted))
        {
            let expected = expected.as_deref().unwrap_or("denied");
            wrong.push(format!("{}: {permission}\n    expected {expected}\n    got      {objection}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} answers are wrong:\n{}", wrong.len(), questions.len(), wrong.join("\n"));
    println!("{} rules, {} cases, {} questions to each source", rules.len(), cases.len(), questions.len());
}

/// Panics unless the tables cover the schema: for each public permission there is a rule that grants it, and for each
/// relation to subjects there is a rule in which that relation grants.
fn assert_complete(schema: &Schema, rules: &[Rule]) {
    let granted = |rule: &Rule| {
        let of_changes = rule.variants.iter().map(|variant| &variant.expected);
        let all = [&rule.expected].into_iter().chain(of_changes).flat_map(|expected| expected.granted.clone());
        let kind = rule.resource.split(':').next().unwrap_or_default().to_owned();
        all.flat_map(|(permission, by)| [format!("{kind}.{permission}"), by]).collect::<Vec<_>>()
    };
    let granted: BTreeSet<String> = rules.iter().flat_map(granted).collect();
    for (kind, resource) in schema.resources() {
        let permissions =
            schema.public_permissions(kind).map(|id| format!("{}.{}", resource.name, schema.permission(id).name));
        let relations = resource.members.values().filter_map(|member| match member {
            Member::Relation(id) if leads_to_subjects(schema, *id) => Some(schema.relation_name(*id)),
            _ => None,
        });
        for name in permissions.chain(relations) {
            assert!(granted.contains(&name), "no rule of the tables grants {name}");
        }
    }
}

fn leads_to_subjects(schema: &Schema, id: RelationId) -> bool {
    let targets = schema.relation(id).ids.iter().flat_map(|ids| &ids.targets);
    targets.into_iter().any(|target| matches!(target, Target::Subject(_)))
}

#[test]
fn a_name_that_the_schema_does_not_define_is_an_error_with_the_nearest_name() {
    const ID: &str = "65f000000000000000000001";
    let cases = [
        // A permission of another type, a misspelt one, a building block, a relation.
        ("user", ID, "publish", "file", ID, "permission", "unknown permission of `file` `publish`"),
        ("user", ID, "raed", "file", ID, "permission", "did you mean `read`?"),
        ("user", ID, "READ", "file", ID, "permission", "unknown permission"),
        ("user", ID, "", "file", ID, "permission", "unknown permission"),
        ("user", ID, "read", "team", ID, "permission", "unknown permission of `team` `read`"),
        ("user", ID, "restore", "team", ID, "permission", "unknown permission of `team` `restore`"),
        ("user", ID, "view", "file", ID, "permission", "unknown permission of `file` `view`"),
        ("user", ID, "owned", "file", ID, "permission", "`owned` is private to the schema"),
        ("user", ID, "owner", "file", ID, "permission", "`owner` is a relation of `file`, not a permission"),
        ("user", ID, "deleted", "note", ID, "permission", "`deleted` is a relation"),
        // Types.
        ("user", ID, "read", "files", ID, "resource.type", "did you mean `file`?"),
        ("admin", ID, "read", "file", ID, "subject.type", "unknown subject type `admin`"),
        // Ids: 24 hex digits, nothing else; secrets are any text.
        ("user", "twelve chars", "read", "file", ID, "subject.id", "is not an ObjectId"),
        ("user", "65G000000000000000000001", "read", "file", ID, "subject.id", "is not an ObjectId"),
        ("user", "", "read", "file", ID, "subject.id", "is empty"),
        ("user", "*", "read", "file", ID, "subject.id", "`*` is not an id"),
        ("link", "", "read", "file", ID, "subject.id", "is empty"),
        ("link", "*", "read", "file", ID, "subject.id", "`*` is not an id"),
        ("user", ID, "read", "file", "twelve chars", "resource.id", "is not an ObjectId"),
        ("user", ID, "read", "file", "*", "resource.id", "`*` is not an id"),
    ];
    for name in ["fylora.toml", "fylora-sharing.toml"] {
        let schema = shipped_schema(name);
        for (subject, subject_id, permission, kind, id, field, message) in cases {
            let subject = SubjectText::Known { kind: subject, id: subject_id };
            let errors = schema.question(subject, permission, kind, id).expect_err(message);
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert_eq!(errors[0].field, field, "{errors:?}");
            assert!(errors[0].message.contains(message), "{errors:?}: {message}");
        }
    }
}

#[test]
fn only_the_sharing_schema_has_codes_and_checked_passwords() {
    for subject in ["code:C0DE", "verified_link:token"] {
        for resource in ["file", "folder", "note"] {
            let asked =
                |schema: Schema| schema.question(subject_text(subject), "read", resource, "65f000000000000000000001");
            assert!(asked(shipped_schema("fylora-sharing.toml")).is_ok());
            let errors = asked(shipped_schema("fylora.toml")).expect_err(subject);
            assert_eq!(errors[0].field, "subject.type", "{errors:?}");
        }
    }
}

/// The files of tests, each with the directory of its sample documents.
const TESTS: [(&str, &str); 3] =
    [("fylora.test.toml", "fylora"), ("fylora-sharing.test.toml", "fylora"), ("librechat.test.toml", "librechat")];

#[tokio::test]
async fn the_shipped_tests_pass_over_documents() {
    for (name, _) in TESTS {
        let output = schema_test(&schemas().join(name), None);
        assert_passed(name, &output);
    }
}

#[tokio::test]
async fn the_shipped_tests_pass_over_a_real_replica_set() {
    for (name, samples) in TESTS {
        let database = mongo().database().await;
        let schema = shipped_schema(&name.replace(".test", ""));
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(samples);
        fill(&database, &schema, &documents_in(&samples, &schema)).await;
        let output = schema_test(&schemas().join(name), Some(database.name()));
        assert_passed(name, &output);
        // All indexes and collections exist, so there is no warning about the database.
        let logs = String::from_utf8_lossy(&output.stderr);
        assert!(warnings_of_the_database(&logs).is_empty(), "{logs}");
        database.drop().await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_expectation_of_a_schema_test_fails_and_names_its_question() {
    let directory = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(schemas().join("fylora.test.toml")).unwrap();
    let text = text
        .replace("\"fylora.toml\"", &format!("'{}'", schemas().join("fylora.toml").display()))
        .replace("\"../examples/fylora\"", &format!("'{}'", examples().display()));
    let wrong = r#"
        [[test]]
        name     = "an outsider reads"
        subject  = "zoe"
        resource = "roadmap"
        allowed  = { read = "file#owner" }
        denied   = { write = "EXPIRED" }
    "#;
    let file = directory.path().join("wrong.test.toml");
    fs::write(&file, text + wrong).unwrap();
    let output = schema_test(&file, None);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains(
            "an outsider reads: zoe read roadmap\n    expected allowed by file#owner\n    got      denied NO_GRANT"
        ),
        "{shown}"
    );
    assert!(
        shown.contains(
            "an outsider reads: zoe write roadmap\n    expected denied EXPIRED\n    got      denied NO_GRANT"
        ),
        "{shown}"
    );
    assert!(shown.contains(", 2 failed"), "{shown}");
}

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fylora")
}

/// The sample documents, read in the format of `mongoimport`.
pub fn sample(schema: &Schema) -> Collections {
    documents_in(&examples(), schema)
}

/// The documents of a directory, of every collection that the schema reads.
pub fn documents_in(directory: &Path, schema: &Schema) -> Collections {
    let read_line = |line: &str| -> Document {
        let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        json.try_into().unwrap()
    };
    let read = |name: &str| fs::read_to_string(directory.join(format!("{name}.jsonl"))).unwrap();
    schema.collections().map(|name| (name.to_owned(), read(name).lines().map(read_line).collect())).collect()
}

/// The warnings in these logs, except those about documents: the samples have values of wrong types on purpose.
pub fn warnings_of_the_database(logs: &str) -> Vec<&str> {
    logs.lines().filter(|line| line.contains("WARN") && !line.contains(" looked at")).collect()
}

/// Runs `schema test`: over the documents that the file names, or over a database of the replica set.
pub fn schema_test(file: &Path, database: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_permcached"));
    command.args(["schema", "test"]).arg(file).env_clear().env("RUST_LOG", "warn");
    if let Some(database) = database {
        command.arg("--live").env("MONGODB_URI", mongo().uri()).env("MONGODB_DATABASE", database);
    }
    command.output().unwrap()
}

/// Panics unless the command succeeded and asked as many questions as the file contains.
fn assert_passed(name: &str, output: &Output) {
    let (shown, logs) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{shown}{logs}");
    let text = fs::read_to_string(schemas().join(name)).unwrap();
    let tests: toml::Table = text.parse().unwrap();
    let questions: usize = tests["test"].as_array().unwrap().iter().map(questions_of).sum();
    assert!(questions > 100, "{questions}");
    assert!(shown.ends_with(&format!("{name}: {questions} passed, 0 failed\n")), "{questions}: {shown}");
}

/// The number of questions of a test in a file of tests.
pub fn questions_of(test: &toml::Value) -> usize {
    let count =
        |value: &toml::Value| value.as_array().map(Vec::len).or(value.as_table().map(toml::Table::len)).unwrap();
    ["allowed", "denied"].into_iter().filter_map(|side| test.get(side)).map(count).sum()
}
