//! `permcached doctor` on set-ups that are broken in one way each: it names the problem, the remedy helps, the exit code is for
//! scripts, and no password is shown. Whether the service works on these set-ups is tested elsewhere.

mod mongodb;
mod redis;
mod survey;

use std::{fs, net::TcpListener};

use serde_json::Value;

use crate::support::{
    command::{Ended, run_with},
    service::{DOCUMENTS, SCHEMA},
};

/// The password of each set-up that has one, whether it is right or wrong.
const SECRET: &str = "s3cret";

/// The findings, and the exit code.
#[derive(Debug)]
struct Found {
    code: i32,
    findings: Vec<Finding>,
}

#[derive(Debug)]
struct Finding {
    subject: String,
    verdict: String,
    message: String,
    remedy: String,
}

impl Found {
    /// The only finding whose message contains this.
    #[track_caller]
    fn finding(&self, words: &str) -> &Finding {
        let mut matching = self.findings.iter().filter(|finding| finding.message.contains(words));
        let finding = matching.next().unwrap_or_else(|| panic!("no finding has `{words}`: {self:#?}"));
        assert!(matching.next().is_none(), "several findings have `{words}`: {self:#?}");
        finding
    }

    /// The remedy of the only finding whose message contains this. The finding must have this verdict.
    #[track_caller]
    fn remedy(&self, verdict: &str, words: &str) -> &str {
        let finding = self.finding(words);
        assert_eq!(finding.verdict, verdict, "{self:#?}");
        &finding.remedy
    }

    /// Asserts that there is no problem.
    #[track_caller]
    fn assert_no_problem(&self) {
        assert_eq!(self.code, 0, "{self:#?}");
        assert!(self.findings.iter().all(|finding| finding.verdict != "wrong"), "{self:#?}");
    }

    /// Asserts that this is the only problem, and returns its remedy.
    #[track_caller]
    fn assert_only_problem(&self, words: &str) -> &str {
        assert_eq!(self.code, 1, "{self:#?}");
        assert_eq!(self.findings.iter().filter(|finding| finding.verdict == "wrong").count(), 1, "{self:#?}");
        self.remedy("wrong", words)
    }
}

/// Runs the doctor with these arguments and variables. Asserts that it shows no password, and a remedy for every problem and
/// warning.
#[track_caller]
fn doctor_with(arguments: &[&str], variables: &[(&str, &str)]) -> Found {
    let Ended { code, stdout, stderr } = run_with(&[&["doctor", "--json"], arguments].concat(), variables);
    assert_eq!(stderr, "", "{stdout}");
    assert!(!stdout.contains(SECRET), "{stdout}");
    let json: Value = serde_json::from_str(&stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let finding = |finding: &Value| Finding {
        subject: text(&finding["subject"]),
        verdict: text(&finding["verdict"]),
        message: text(&finding["message"]),
        remedy: text(&finding["remedy"]),
    };
    let findings: Vec<Finding> = json["findings"].as_array().unwrap().iter().map(finding).collect();
    for Finding { verdict, remedy, .. } in &findings {
        assert_eq!(remedy.is_empty(), matches!(verdict.as_str(), "ok" | "skipped"), "{findings:#?}");
    }
    Found { code, findings }
}

/// As [`doctor_with`], with the shipped schema.
#[track_caller]
fn doctor(variables: &[(&str, &str)]) -> Found {
    doctor_with(&["--schema", SCHEMA], variables)
}

#[test]
fn one_line_is_printed_per_finding() {
    let arguments = ["doctor", "--schema", SCHEMA, "--documents", DOCUMENTS];
    let tokens = ("AUTH_TOKENS", "backend:s3cret-0123456789,operator:s3cret-9876543210:admin");
    let ended = run_with(&arguments, &[tokens]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines[0].starts_with("ok      configuration: "), "{ended:?}");
    assert!(
        lines[1].starts_with(&format!("ok      schema: `{SCHEMA}`: 4 types of resources, 8 lookups in 7 ")),
        "{ended:?}"
    );
    assert_eq!(lines[2], "ok      callers: 2 tokens are accepted, 1 of them with the scope admin");
    assert!(lines[3].starts_with("ok      documents: ") && lines[3].ends_with(DOCUMENTS), "{ended:?}");
    // Two documents of the sample do not fit on purpose.
    assert!(lines[4].starts_with("warning documents: `files.owner_id`: 13 ObjectId, 1 string"), "{ended:?}");
    assert!(
        lines[6]
            .starts_with("warning documents: `files.folder_id`: 2 of 14 edges, in 14 documents looked at, lead to no"),
        "{ended:?}"
    );
    assert_eq!(lines[8..], ["", "no problems, 2 warnings"]);
    assert!(!ended.output().contains(SECRET), "{ended:?}");

    // Missing tokens are a warning, which does not change the exit code.
    let open = run_with(&arguments, &[("ALLOW_ANONYMOUS", "true"), ("REDIS_HOST", "cache")]);
    assert_eq!(open.code, 0, "{open:?}");
    let warned = "warning callers: callers are not authenticated: every client that reaches 0.0.0.0:50051 may ask about every \
                  subject\n    remedy: AUTH_TOKENS=";
    assert!(
        open.stdout.contains(warned) && open.stdout.contains("warning Redis: Redis is configured but not used"),
        "{open:?}"
    );
    assert!(open.stdout.ends_with("\nno problems, 4 warnings\n"), "{open:?}");
}

#[test]
fn documents_that_are_broken_or_missing_are_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("files.jsonl"), "{").unwrap();
    let documents = directory.path().to_str().unwrap();
    let arguments = ["--schema", SCHEMA, "--documents", documents];
    let found = doctor_with(&arguments, &[]);
    assert!(found.assert_only_problem("files.jsonl").contains("mongoexport"), "{found:#?}");
    fs::write(directory.path().join("files.jsonl"), "").unwrap();
    let found = doctor_with(&arguments, &[]);
    found.assert_no_problem();
    assert!(found.remedy("warning", "`files` is empty").contains("mongoexport --collection=files"));
    assert!(found.remedy("warning", "`notes` has no file").contains("notes.jsonl"));
}

#[test]
fn every_error_of_the_configuration_is_a_finding() {
    let found = doctor_with(&[], &[("PORT", "many"), ("REDIS_URL", "http://:s3cret@cache")]);
    assert_eq!(found.code, 2, "{found:#?}");
    for words in ["no schema is named: set SCHEMA_FILE", "PORT is `many`", "REDIS_URL is not", "no source of facts"] {
        assert_eq!(found.finding(words).subject, "configuration");
        assert!(found.remedy("wrong", words).starts_with("permcached config"));
    }
    assert_eq!(found.findings.len(), 4, "{found:#?}");
}

#[test]
fn a_broken_schema_does_not_hide_what_else_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broken.toml");
    fs::write(&file, "default_subject = \"user\"\n[subject.usr]\ncollection = \"users\"\n").unwrap();
    let file = file.to_str().unwrap();
    // A process listens there and never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let uri = format!("mongodb://u:s3cret@{}/app", silent.local_addr().unwrap());
    let found = doctor_with(&["--schema", file], &[("MONGODB_URI", &uri)]);
    assert_eq!(found.code, 1, "{found:#?}");
    assert_eq!(found.remedy("wrong", "did you mean `usr`?"), format!("permcached schema check {file}"));
    assert_eq!(found.finding("did you mean").subject, "schema");
    assert!(found.remedy("wrong", "it does not answer").contains("Network Access"), "{found:#?}");
}
