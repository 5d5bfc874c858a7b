//! The files of a directory of questions. `check.json` is a list of `CheckRequest`, `batch.json` the same questions as a list
//! of `BatchCheckRequest`, both in the form that ghz reads. `expected.json` has the answers, in the order of the questions.
//!
//! Draws no questions and asks none.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::BATCH;
use crate::{
    cli::Failure,
    question::{Answer, Question, Subject},
    schema::Schema,
};

const CHECK: &str = "check.json";
const BATCHES: &str = "batch.json";
const EXPECTED: &str = "expected.json";

/// The content of a directory: as many answers as questions.
pub(super) struct Files {
    pub(super) asked: Vec<Asked>,
    pub(super) expected: Vec<Expected>,
}

/// A question, as the JSON of a `CheckRequest`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Asked {
    pub(super) subject: Asker,
    pub(super) permission: String,
    pub(super) resource: Object,
}

/// The subject of a question.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Asker {
    Known(Object),
    Anonymous { anonymous: bool },
}

/// A subject or a resource.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Object {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) id: String,
}

/// The expected answer. It names no relation: if several grant, the server may name any of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Expected {
    pub(super) allowed: bool,
    /// The reason of a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// A question with the names of its schema.
pub(super) fn asked(schema: &Schema, question: &Question) -> Asked {
    let subject = match &question.subject {
        Subject::Anonymous => Asker::Anonymous { anonymous: true },
        Subject::Known { kind, id } => {
            Asker::Known(Object { kind: schema.subject(*kind).name.to_string(), id: id.to_string() })
        }
    };
    let resource =
        Object { kind: schema.resource(question.resource.kind).name.to_string(), id: question.resource.id.to_string() };
    Asked { subject, permission: schema.permission(question.permission).name.to_string(), resource }
}

impl Expected {
    /// An answer without the parts that vary.
    pub(super) fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Allowed { .. } => Self { allowed: true, reason: None },
            Answer::Denied(reason) => Self { allowed: false, reason: Some(reason.as_str().to_owned()) },
        }
    }
}

/// Makes the directory if it is missing.
pub(super) fn make_directory(directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory)
        .map_err(|error| Failure::usage(format!("cannot make the directory `{}`: {error}", directory.display())))
}

impl Files {
    /// Writes the files.
    pub(super) fn write(&self, directory: &Path) -> Result<(), Failure> {
        let batches: Vec<_> = self.asked.chunks(BATCH).map(|questions| json!({ "questions": questions })).collect();
        write(directory, CHECK, &self.asked)?;
        write(directory, BATCHES, &batches)?;
        write(directory, EXPECTED, &self.expected)
    }

    /// Reads the files, without `batch.json`.
    pub(super) fn read(directory: &Path) -> Result<Self, Failure> {
        let asked: Vec<Asked> = read(directory, CHECK)?;
        let expected: Vec<Expected> = read(directory, EXPECTED)?;
        if asked.len() != expected.len() {
            let (questions, answers) = (asked.len(), expected.len());
            let what = format!("{questions} questions and {answers} answers: write the files again");
            return Err(Failure::usage(format!("{}: {what}", directory.display())));
        }
        Ok(Self { asked, expected })
    }
}

fn write(directory: &Path, name: &str, content: &impl Serialize) -> Result<(), Failure> {
    let path = directory.join(name);
    let text = serde_json::to_string(content).map_err(Failure::no_answer_because)?;
    fs::write(&path, text).map_err(|error| Failure::usage(format!("cannot write `{}`: {error}", path.display())))
}

fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<T, Failure> {
    let path = directory.join(name);
    let wrong = |error: &dyn std::fmt::Display| {
        let remedy = "`permcached questions write --out DIR` writes these files";
        Failure::usage(format!("cannot read `{}`: {error}: {remedy}", path.display()))
    };
    let text = fs::read_to_string(&path).map_err(|error| wrong(&error))?;
    serde_json::from_str(&text).map_err(|error| wrong(&error))
}
