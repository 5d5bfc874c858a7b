//! `schema check` and `schema test`: errors with their places, and tests that pass or fail. Every schema error is tested in
//! `broken_schemas`.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    command::run,
    service::{DOCUMENTS, SCHEMA},
};

/// A file with this text, which is deleted with the directory that is returned beside its path.
fn file(name: &str, text: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

/// The absolute path of a file of this package.
fn absolute(path: &str) -> String {
    Path::new(path).canonicalize().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_valid_schema_is_summarized() {
    for schema in [SCHEMA, "schemas/fylora.toml"] {
        let ended = run(&["schema", "check", schema]);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
        assert!(ended.stdout.starts_with(&format!("{schema}: well formed: 4 resource types, ")), "{ended:?}");
        for lookup in ["files by _id", "shares by file_id", "shares by folder_id", "users by _id"] {
            assert!(ended.stdout.contains(lookup), "{ended:?}");
        }
    }
}

#[test]
fn each_lookup_is_shown_with_the_relations_that_are_read_from_it() {
    let ended = run(&["schema", "check", "schemas/recipes/custom-roles.toml"]);
    for line in ["memberships by user_id: user#workspaces, user#roles", "roles by workspace_id: workspace#readers, "] {
        assert!(ended.stdout.contains(line), "{ended:?}");
    }
    let ended = run(&["schema", "check", "--json", "schemas/recipes/suspended-until.toml"]);
    let shown: Value = serde_json::from_str(&ended.stdout).unwrap();
    let users = shown["lookups"].as_array().unwrap().iter().find(|lookup| lookup["collection"] == "users").unwrap();
    assert_eq!(users["relations"], serde_json::json!(["user#known", "user#active"]), "{shown}");
}

#[test]
fn every_error_of_a_schema_is_shown_at_its_place_with_a_remedy() {
    let good = fs::read_to_string("schemas/fylora.toml").unwrap();
    let bad = good.replace("(owner | link)", "(owner | lnik)").replacen("\"$ne\" = false", "\"$nee\" = false", 1);
    let (_directory, path) = file("bad.toml", &bad);
    let ended = run(&["schema", "check", &path]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{ended:?}");
    for (place, marked, help) in
        [("where = { is_active", "\"$nee\"", "did you mean `$ne`?"), ("lnik", "lnik", "did you mean `link`?")]
    {
        let number = bad.lines().position(|line| line.contains(place) && line.contains(marked)).unwrap() + 1;
        assert!(ended.stderr.contains(&format!("{path}:{number}:")), "{place}: {}", ended.stderr);
        let line = ended.stderr.lines().position(|line| line.starts_with(&number.to_string())).unwrap();
        let (text, carets) = (ended.stderr.lines().nth(line).unwrap(), ended.stderr.lines().nth(line + 1).unwrap());
        assert_eq!(text.find(marked), carets.find('^'), "{text}\n{carets}");
        assert_eq!(carets.matches('^').count(), marked.len(), "{text}\n{carets}");
        assert!(ended.stderr.contains(help), "{}", ended.stderr);
    }
    assert!(ended.stderr.ends_with("3 errors\n"), "{}", ended.stderr);

    // Other commands that read a schema print the same, and end with 2.
    for command in [
        &["serve", "--port", "0", "--documents", DOCUMENTS, "--schema", &path][..],
        &["check", "user:x", "read", "file:x", "--documents", DOCUMENTS, "--schema", &path],
    ] {
        let other = run(command);
        assert_eq!((other.code, other.stdout.as_str(), &other.stderr), (2, "", &ended.stderr), "{command:?}");
    }
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_an_error() {
    let (_directory, path) = file("bad.toml", "default_subject = \"user\"\n[subject.user\n");
    let ended = run(&["schema", "check", &path]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains(&format!("{path}:2:")) && ended.stderr.contains('^'), "{ended:?}");
    let ended = run(&["schema", "check", "no/such.toml"]);
    assert_eq!((ended.code, ended.stderr.contains("cannot read the schema `no/such.toml`")), (2, true), "{ended:?}");
}

#[test]
fn the_tests_of_the_shipped_schemas_pass() {
    for tests in ["schemas/fylora.test.toml", "schemas/fylora-sharing.test.toml"] {
        let ended = run(&["schema", "test", tests]);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
        assert!(
            ended.stdout.starts_with(&format!("{tests}: ")) && ended.stdout.ends_with(" passed, 0 failed\n"),
            "{ended:?}"
        );
    }
}

/// A test file of one test, over the sample.
fn one_test(test: &str) -> String {
    let (schema, documents) = (absolute(SCHEMA), absolute(DOCUMENTS));
    format!(
        "schema = \"{schema}\"\ndocuments = \"{documents}\"\nnow = 2026-11-23T12:00:00Z\n[[test]]\nname = \"the one\"\n\
         subject = \"user:b0b000000000000000000002\"\nresource = \"file:f11e00000000000000000002\"\n{test}\n"
    )
}

#[test]
fn a_failed_test_shows_the_expected_and_the_actual_answer() {
    let cases = [
        ("allowed = { read = \"file#guest\" }", "expected allowed by file#guest", "got      allowed by folder#guest"),
        ("allowed = [\"write\"]", "expected allowed", "got      denied NO_GRANT"),
        ("denied = { write = \"EXPIRED\" }", "expected denied EXPIRED", "got      denied NO_GRANT"),
        ("denied = { read = \"NO_GRANT\" }", "expected denied NO_GRANT", "got      allowed by folder#guest"),
    ];
    for (test, expected, got) in cases {
        let (_directory, path) = file("one.test.toml", &one_test(test));
        let ended = run(&["schema", "test", &path]);
        assert_eq!((ended.code, ended.stderr.as_str()), (1, ""), "{test}: {ended:?}");
        for words in ["the one: ", expected, got, "0 passed, 1 failed"] {
            assert!(ended.stdout.contains(words), "{test}: {ended:?}");
        }
        let json = run(&["schema", "test", &path, "--json"]);
        assert_eq!(json.code, 1, "{json:?}");
        let json: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(json[0]["passed"], false, "{json}");
    }
    let (_directory, path) =
        file("one.test.toml", &one_test("allowed = { read = \"folder#guest\" }\ndenied = { write = \"NO_GRANT\" }"));
    let ended = run(&["schema", "test", &path]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, format!("{path}: 2 passed, 0 failed\n").as_str()), "{ended:?}");
}

#[test]
fn an_error_in_the_test_file_is_not_a_failed_test() {
    let cases = [
        ("denied = { write = \"NO_GRNT\" }", "`NO_GRNT` is not a reason: did you mean `NO_GRANT`?"),
        ("allowed = { read = \"folder#gust\" }", "`folder#gust` is not a relation"),
        ("allowed = { read = \"folder#read\" }", "`folder#read` is not a relation"),
        ("allowed = [\"raed\"]", "did you mean `read`?"),
        ("alowed = [\"read\"]", "unknown field `alowed`"),
        ("", "the file has no tests"),
    ];
    for (test, words) in cases {
        let (_directory, path) = file("one.test.toml", &one_test(test));
        let ended = run(&["schema", "test", &path]);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{test}: {ended:?}");
        assert!(ended.stderr.contains(words) && ended.stderr.contains(&path), "{test}: {ended:?}");
    }
    let ended = run(&["schema", "test", "no/such.test.toml"]);
    assert_eq!((ended.code, ended.stderr.contains("no/such.test.toml")), (2, true), "{ended:?}");
}

/// `mongoexport --jsonFormat=canonical` writes every number and date with its type.
#[test]
fn documents_in_canonical_json_are_read_as_those_in_relaxed() {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(DOCUMENTS).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let canonical: String = std::fs::read_to_string(&path)
                .unwrap()
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
                .map(|json| bson::Bson::try_from(json).unwrap().into_canonical_extjson().to_string() + "\n")
                .collect();
            assert!(!canonical.contains("\"$date\":\"") && canonical.contains("{\"$oid\":"));
            std::fs::write(directory.path().join(entry.file_name()), canonical).unwrap();
        }
    }
    let tests = "schemas/fylora-sharing.test.toml";
    let ended = run(&["schema", "test", tests, "--documents", directory.path().to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{ended:?}");
}
