//! `questions write` over a real database, `questions verify` against a server over the same one, and the ghz configurations
//! in `load/`, which read those files. Generates no load.

use std::{collections::BTreeSet, fs, path::Path};

use bson::{doc, oid::ObjectId};
use mongodb::Database;
use permcached::transport::proto::DESCRIPTORS;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tempfile::TempDir;

use super::{BOB, CONTRACT};
use crate::{
    rules::sample,
    support::{
        both::{fill, shipped_schema},
        command::{Ended, Serving, run, run_with},
        servers::mongo,
        service::SCHEMA,
    },
};

const COUNT: usize = 2_000;

/// Users with whom nothing is shared: so many that a random user is almost always one of them.
const OUTSIDERS: usize = 500;

/// A database with the sample documents and the outsiders.
async fn database() -> Database {
    let schema = shipped_schema("fylora-sharing.toml");
    let database = mongo().database().await;
    fill(&database, &schema, &sample(&schema)).await;
    let outsiders = (0..OUTSIDERS).map(|_| doc! { "_id": ObjectId::new() });
    database.collection("users").insert_many(outsiders).await.unwrap();
    database
}

/// Writes questions from a database.
fn write(database: &Database, seed: &str, out: &Path) -> Ended {
    let uri = mongo().uri();
    let out = out.to_str().unwrap();
    let arguments = ["questions", "write", "--count", &COUNT.to_string(), "--seed", seed, "--out", out];
    run_with(&arguments, &[("SCHEMA_FILE", SCHEMA), ("MONGODB_URI", &uri), ("MONGODB_DATABASE", database.name())])
}

fn read(directory: &Path, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(directory.join(name)).unwrap()).unwrap()
}

fn id_of(object: &str) -> &str {
    object.split_once(':').unwrap().1
}

fn texts<'a>(objects: &'a [Value], pointer: &str) -> BTreeSet<&'a str> {
    objects.iter().filter_map(|object| object.pointer(pointer)?.as_str()).collect()
}

#[tokio::test]
async fn a_server_answers_drawn_questions_as_expected() {
    let database = database().await;
    let directory = TempDir::new().unwrap();
    let written = write(&database, "7", directory.path());
    assert_eq!(written.code, 0, "{written:?}");
    let uri = mongo().uri();
    let server = Serving::start_with(
        &["--schema", SCHEMA],
        &[("MONGODB_URI", &uri), ("MONGODB_DATABASE", database.name()), ("BIND_ADDRESS", "127.0.0.1")],
    );
    let (url, path) = (server.url(), directory.path().to_str().unwrap());
    let verify = || run(&["questions", "verify", path, "--server", &url]);
    let verified = verify();
    assert_eq!(verified.code, 0, "{verified:?}");
    assert!(verified.stdout.ends_with(": 2000 as expected, 0 not\n"), "{verified:?}");

    // One wrong expectation of each kind is found, and nothing else.
    let mut expected = read(directory.path(), "expected.json");
    let answers = expected.as_array_mut().unwrap();
    let allowed = answers.iter().position(|answer| answer["allowed"] == true).expect("somebody is allowed");
    let denied = answers.iter().position(|answer| answer["reason"] == "NO_GRANT").expect("somebody is denied");
    answers[allowed] = serde_json::json!({ "allowed": false, "reason": "NO_GRANT" });
    answers[denied]["reason"] = "EXPIRED".into();
    fs::write(directory.path().join("expected.json"), expected.to_string()).unwrap();
    let verified = verify();
    assert_eq!(verified.code, 1, "{verified:?}");
    for words in [
        "expected denied NO_GRANT, got allowed",
        "expected denied EXPIRED, got denied NO_GRANT",
        ": 1998 as expected, 2 not",
    ] {
        assert_eq!(verified.stdout.matches(words).count(), 1, "{words}: {verified:?}");
    }
}

#[tokio::test]
async fn every_permission_is_asked_about_and_no_secret_is_written() {
    let database = database().await;
    let schema = shipped_schema("fylora-sharing.toml");
    let documents = sample(&schema);
    let directory = TempDir::new().unwrap();
    let written = write(&database, "7", directory.path());
    for kind in ["link", "verified_link", "code"] {
        assert_eq!(
            written.stderr.matches(&format!("no question is from `{kind}`: its ids are secret")).count(),
            1,
            "{written:?}"
        );
    }
    let (questions, batches) = (read(directory.path(), "check.json"), read(directory.path(), "batch.json"));
    let questions = questions.as_array().unwrap();
    let batched = batches.as_array().unwrap().iter().flat_map(|batch| batch["questions"].as_array().unwrap());
    assert_eq!(questions.len(), COUNT);
    assert!(batched.eq(questions));

    for (kind, resource) in schema.resources() {
        let asked: Vec<Value> =
            questions.iter().filter(|question| question["resource"]["type"] == *resource.name).cloned().collect();
        let permissions: BTreeSet<&str> =
            schema.public_permissions(kind).map(|permission| &*schema.permission(permission).name).collect();
        assert_eq!(texts(&asked, "/permission"), permissions, "{}", resource.name);
        let collection = &schema.lookup(resource.document.unwrap()).collection;
        let ids: BTreeSet<String> =
            documents[&**collection].iter().map(|document| document.get_object_id("_id").unwrap().to_hex()).collect();
        assert_eq!(texts(&asked, "/resource/id"), ids.iter().map(String::as_str).collect(), "{}", resource.name);
    }
    assert_eq!(texts(questions, "/subject/type"), BTreeSet::from(["user"]));
    assert!(questions.iter().any(|question| question["subject"]["anonymous"] == true));
    // Half of the questions are from a subject that the resource names. Random subjects alone would almost all be denied.
    let expected = read(directory.path(), "expected.json");
    let allowed = expected.as_array().unwrap().iter().filter(|answer| answer["allowed"] == true).count();
    assert!((COUNT / 10..COUNT / 2).contains(&allowed), "{allowed}");
    // A folder three above the contract is shared with him.
    let of_contract: Vec<Value> =
        questions.iter().filter(|question| question["resource"]["id"] == id_of(CONTRACT)).cloned().collect();
    assert!(texts(&of_contract, "/subject/id").contains(id_of(BOB)), "{of_contract:?}");

    let secrets = documents.values().flatten().filter_map(|document| {
        document.get_str("public_token").or_else(|_| document.get_str("access_code")).ok().map(str::to_owned)
    });
    let secrets: Vec<String> = secrets.collect();
    assert!(!secrets.is_empty());
    for name in ["check.json", "batch.json", "expected.json"] {
        let text = fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{name}");
    }
}

#[tokio::test]
async fn a_seed_draws_the_same_questions_again() {
    let database = database().await;
    let drawn = ["7", "7", "8"].map(|seed| {
        let directory = TempDir::new().unwrap();
        assert_eq!(write(&database, seed, directory.path()).code, 0);
        read(directory.path(), "check.json")
    });
    assert_eq!(drawn[0], drawn[1]);
    assert_ne!(drawn[0], drawn[2]);
}

#[tokio::test]
async fn every_error_names_its_remedy() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    let empty = mongo().database().await;
    let ended = write(&empty, "1", directory.path());
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(
        ended.stderr.contains("none of the schema's resources") && ended.stderr.contains("MONGODB_DATABASE"),
        "{ended:?}"
    );
    assert!(!directory.path().join("check.json").exists());

    let over_files = [("DOCUMENTS_DIR", path), ("SCHEMA_FILE", SCHEMA)];
    let ended = run_with(&["questions", "write", "--out", path], &over_files);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("unset DOCUMENTS_DIR") && ended.stderr.contains("MONGODB_URI"), "{ended:?}");

    let ended = run(&["questions", "verify", path, "--server", "127.0.0.1:1"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("check.json") && ended.stderr.contains("permcached questions write"), "{ended:?}");

    fs::write(directory.path().join("check.json"), "[]").unwrap();
    fs::write(directory.path().join("expected.json"), r#"[{"allowed":true}]"#).unwrap();
    let ended = run(&["questions", "verify", path, "--server", "127.0.0.1:1"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("0 questions and 1 answers: write the files again"), "{ended:?}");
}

/// The method that a configuration calls.
fn method(configuration: &Value) -> MethodDescriptor {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let (service, name) = configuration["call"].as_str().unwrap().rsplit_once('.').unwrap();
    let service = pool.get_service_by_name(service).unwrap_or_else(|| panic!("no service {service}"));
    service.methods().find(|method| method.name() == name).unwrap_or_else(|| panic!("no call {name}"))
}

#[tokio::test]
async fn the_configurations_of_ghz_fit_the_protocol() {
    /// The keys that they use, as ghz names them.
    const KEYS: [&str; 10] =
        ["name", "call", "insecure", "metadata", "data-file", "total", "rps", "concurrency", "connections", "timeout"];
    let database = database().await;
    let directory = TempDir::new().unwrap();
    assert_eq!(write(&database, "1", directory.path()).code, 0);
    let load = Path::new(env!("CARGO_MANIFEST_DIR")).join("load");
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(load).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let configuration: Value = serde_json::from_str(&fs::read_to_string(&entry).unwrap()).unwrap();
        let keys = configuration.as_object().unwrap().keys();
        assert_eq!(
            keys.filter(|key| !KEYS.contains(&key.as_str())).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "{entry:?}"
        );
        assert_eq!(entry.file_stem().unwrap().to_str(), configuration["name"].as_str());
        assert_eq!(configuration["metadata"]["authorization"], "Bearer {{env `AUTH_TOKEN`}}", "{entry:?}");
        let input = method(&configuration).input();
        let messages = read(directory.path(), configuration["data-file"].as_str().unwrap());
        let messages = messages.as_array().unwrap();
        assert!(!messages.is_empty());
        for message in messages {
            // A field that the message does not have is an error.
            let read = DynamicMessage::deserialize(input.clone(), message);
            read.unwrap_or_else(|error| panic!("{entry:?}: {error}: {message}"));
        }
        names.insert(entry.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    assert_eq!(names, ["batch", "cold", "fast", "mixed", "restart", "warm"].map(str::to_owned).into());
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_an_error_before_any_question_is_drawn() {
    // An empty database has no question, which would be the error otherwise.
    let database = mongo().database().await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let ended = write(&database, "1", &file);
    assert!(ended.code == 2 && ended.stderr.contains("cannot make the directory"), "{ended:?}");
}
