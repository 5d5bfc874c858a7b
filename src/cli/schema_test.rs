//! `permcached schema test`: asks the questions of a file, over documents or a live database, and compares the answers and
//! reasons with the expected ones (docs/schema.md, "Checking and testing a schema"). Caches nothing between runs, and calls no server.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use bson::DateTime;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Ended, Failure, Outcome,
    text::{self, Progress},
};
use crate::{
    app::{assemble, open, read_schema, report_findings},
    check::{Checked, Consistency, Settings},
    config::{Config, Overrides, ProcessEnvironment, SourceConfig, variable::SCHEMA_FILE},
    question::{Answer, Millis, Question, Reason},
    schema::{Member, Schema, SubjectText, suggestion},
    source::Deadline,
};

/// The deadline of all questions of a file together.
const TIME_MAX: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub(super) struct SchemaTest {
    /// The tests: a TOML file as in docs/schema.md
    file: PathBuf,
    /// Read documents from here, not from the directory that the file names
    #[arg(long, value_name = "DIR", conflicts_with = "live")]
    documents: Option<PathBuf>,
    /// Ask the database that `MONGODB_URI` names
    #[arg(long)]
    live: bool,
    /// Print every result as JSON
    #[arg(long)]
    json: bool,
}

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tests {
    schema: PathBuf,
    documents: Option<PathBuf>,
    now: Option<toml::value::Datetime>,
    #[serde(default)]
    names: BTreeMap<String, String>,
    #[serde(default)]
    test: Vec<Test>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    name: Option<String>,
    subject: String,
    resource: String,
    #[serde(default)]
    allowed: Allowed,
    #[serde(default)]
    denied: BTreeMap<String, String>,
}

/// Permissions that are granted, each with or without the relation that grants it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Allowed {
    Permissions(Vec<String>),
    Granted(BTreeMap<String, String>),
}

impl Default for Allowed {
    fn default() -> Self {
        Self::Permissions(Vec::new())
    }
}

/// One question with the expected answer.
struct Expectation {
    test: String,
    question: Question,
    expected: String,
    /// Whether any relation may grant.
    is_loose: bool,
}

impl SchemaTest {
    pub(super) async fn run(self) -> Ended {
        let wrong = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", self.file.display()));
        let text = std::fs::read_to_string(&self.file).map_err(|error| wrong(&error))?;
        let tests: Tests = toml::from_str(&text).map_err(|error| wrong(&error))?;
        let now = tests.now.map(read_date).transpose().map_err(|error| wrong(&error))?;
        let beside = |path: &Path| self.file.parent().map_or_else(|| path.to_owned(), |parent| parent.join(path));
        text::start_warnings()?;
        let schema = read_schema(&beside(&tests.schema))?;
        let expectations = expectations(&schema, &tests).map_err(|error| wrong(&error))?;
        let source = self.source(&tests, beside)?;
        let progress = Progress::start("reading documents …");
        let parts = open(schema, &source, None, Settings::default()).await?;
        let findings = parts.source.survey().await;
        progress.clear();
        report_findings(&findings);
        progress.show(&format!("asking {} questions …", expectations.len()));
        let app = assemble(parts);

        let questions: Vec<Question> = expectations.iter().map(|expectation| expectation.question.clone()).collect();
        let clock = move || now.unwrap_or_else(|| DateTime::now().timestamp_millis());
        let consistency = Consistency::FullyConsistent;
        let checked = app.checker.check_at(&questions, consistency, Deadline::after(TIME_MAX), clock).await;
        drop(progress);
        let mut results = Vec::new();
        for (expectation, checked) in expectations.iter().zip(checked) {
            let found = checked.map_err(Failure::no_answer_because)?;
            let passed = expectation.is_met(&app.schema, &found);
            results.push((expectation, shown(&app.schema, &found), passed));
        }
        let failed = results.iter().filter(|(.., passed)| !passed).count();
        if self.json {
            print_line!("{:#}", as_json(&results));
        } else {
            for (expectation, got, _) in results.iter().filter(|(.., passed)| !passed) {
                let Expectation { test, expected, .. } = expectation;
                print_line!("{} {test}\n    expected {expected}\n    got      {got}", text::red("✗"));
            }
            print_line!("{}: {} passed, {failed} failed", self.file.display(), results.len() - failed);
        }
        Ok(if failed == 0 { Outcome::Yes } else { Outcome::No })
    }

    fn source(&self, tests: &Tests, beside: impl Fn(&Path) -> PathBuf) -> Result<SourceConfig, Failure> {
        let directory = self.documents.clone().or_else(|| tests.documents.as_deref().map(beside));
        match directory {
            Some(directory) if !self.live => Ok(SourceConfig::Documents(directory)),
            None if !self.live => Err(Failure::usage("the file names no `documents`: give --documents DIR, or --live")),
            _ => {
                let overrides = Overrides::default().with(&SCHEMA_FILE, Some(&tests.schema));
                Ok(Config::read(&overrides, &ProcessEnvironment).map_err(Failure::usage_because)?.source)
            }
        }
    }
}

impl Expectation {
    fn is_met(&self, schema: &Schema, checked: &Checked) -> bool {
        match checked.answer {
            Answer::Allowed { .. } if self.is_loose => true,
            Answer::Allowed { .. } | Answer::Denied(_) => shown(schema, checked) == self.expected,
        }
    }
}

fn as_json(results: &[(&Expectation, String, bool)]) -> Value {
    let each = |(expectation, got, passed): &(&Expectation, String, bool)| json!({ "test": expectation.test, "expected": expectation.expected, "got": got, "passed": passed });
    Value::Array(results.iter().map(each).collect())
}

/// `allowed by file#owner`, or `denied NO_GRANT`.
fn shown(schema: &Schema, checked: &Checked) -> String {
    match checked.answer {
        Answer::Allowed { by: Some(relation), .. } => format!("allowed by {}", schema.relation_name(relation)),
        Answer::Allowed { by: None, .. } => "allowed".to_owned(),
        Answer::Denied(reason) => format!("denied {}", reason.as_str()),
    }
}

/// Every question of every test. An unknown name is an error in the file, not a failed test.
fn expectations(schema: &Schema, tests: &Tests) -> Result<Vec<Expectation>, String> {
    let mut all = Vec::new();
    for (number, test) in (1..).zip(&tests.test) {
        let name = test.name.clone().unwrap_or_else(|| format!("test {number}"));
        let mut add = |permission: &str, expected: String, is_loose: bool| -> Result<(), String> {
            let question = question(schema, tests, test, permission).map_err(|error| format!("{name}: {error}"))?;
            let test = format!("{name}: {} {permission} {}", test.subject, test.resource);
            all.push(Expectation { test, question, expected, is_loose });
            Ok(())
        };
        match &test.allowed {
            Allowed::Permissions(permissions) => {
                permissions.iter().try_for_each(|permission| add(permission, "allowed".to_owned(), true))?;
            }
            Allowed::Granted(granted) => {
                for (permission, by) in granted {
                    let expected = match by.as_str() {
                        "" => "allowed".to_owned(),
                        by if is_relation(schema, by) => format!("allowed by {by}"),
                        by => {
                            return Err(format!(
                                "{name}: `{by}` is not a relation: write type#relation, such as file#owner"
                            ));
                        }
                    };
                    add(permission, expected, false)?;
                }
            }
        }
        for (permission, reason) in &test.denied {
            if !Reason::ALL.iter().any(|known| known.as_str() == reason) {
                let help = suggestion(reason, Reason::ALL.map(Reason::as_str)).unwrap_or_default();
                return Err(format!("{name}: `{reason}` is not a reason: {help}"));
            }
            add(permission, format!("denied {reason}"), false)?;
        }
    }
    if all.is_empty() {
        return Err("the file has no tests: add a [[test]]".to_owned());
    }
    Ok(all)
}

/// Whether the text is a relation of the schema, as `type#relation`.
fn is_relation(schema: &Schema, text: &str) -> bool {
    let Some((kind, name)) = text.split_once('#') else { return false };
    let mut resources = schema.resources().filter(|(_, resource)| &*resource.name == kind);
    let mut subjects = schema.subjects().filter(|(_, subject)| &*subject.name == kind);
    resources.any(|(_, resource)| matches!(resource.members.get(name), Some(Member::Relation(_))))
        || subjects.any(|(_, subject)| subject.relations.contains_key(name))
}

fn question(schema: &Schema, tests: &Tests, test: &Test, permission: &str) -> Result<Question, String> {
    let meant = |text: &str| tests.names.get(text).cloned().unwrap_or_else(|| text.to_owned());
    let (subject, resource) = (meant(&test.subject), meant(&test.resource));
    let split = |text: &str| {
        let parts = text.split_once(':').map(|(kind, id)| (kind.to_owned(), id.to_owned()));
        parts.ok_or_else(|| format!("`{text}` is neither in [names] nor a type:id"))
    };
    let (resource_type, resource_id) = split(&resource)?;
    let question = if subject == "anonymous" {
        schema.question(SubjectText::Anonymous, permission, &resource_type, &resource_id)
    } else {
        let (kind, id) = split(&subject)?;
        schema.question(SubjectText::Known { kind: &kind, id: &id }, permission, &resource_type, &resource_id)
    };
    question.map_err(|errors| {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>().join("; ")
    })
}

fn read_date(date: toml::value::Datetime) -> Result<Millis, String> {
    let read = DateTime::parse_rfc3339_str(date.to_string());
    read.map(DateTime::timestamp_millis)
        .map_err(|_| format!("`now` is {date}: write it with a time zone, as 2026-01-31T12:00:00Z"))
}
