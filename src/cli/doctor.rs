//! `permcached doctor`: tries everything that is configured, and prints each problem with a remedy to paste.
//!
//! The examinations are in `app::doctor`.

use std::{
    io::{self, IsTerminal as _},
    sync::{Mutex, PoisonError},
};

use clap::Args;
use serde_json::json;

use super::{
    Ended, Outcome,
    options::Options,
    text::{self, Progress},
};
use crate::{
    app::doctor,
    config::{Config, ProcessEnvironment},
    diagnosis::{Diagnosis, Subject, Verdict},
};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    options: Options,
    /// Print the findings as JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) async fn run(self) -> Ended {
        let findings = Mutex::new(Vec::new());
        let progress = Progress::start("examining …");
        let report = |diagnoses: Vec<Diagnosis>| {
            progress.clear();
            if !self.json {
                diagnoses.iter().for_each(print);
            }
            progress.show("examining …");
            findings.lock().unwrap_or_else(PoisonError::into_inner).extend(diagnoses);
        };
        let is_usable = match Config::read(&self.options.overrides(), &ProcessEnvironment) {
            Ok(config) => {
                report(vec![Diagnosis::fine(Subject::Configuration, "each variable that is set can be read")]);
                report(config.notes.clone());
                doctor::examine(&config, report).await;
                true
            }
            Err(error) => {
                let remedy = "permcached config shows each value and where it comes from";
                let wrong = |error: &String| Diagnosis::wrong(Subject::Configuration, error, remedy);
                report(error.errors().iter().map(wrong).collect());
                false
            }
        };
        drop(progress);
        let findings = findings.into_inner().unwrap_or_else(PoisonError::into_inner);
        let worst = findings.iter().map(|diagnosis| diagnosis.verdict).max().unwrap_or(Verdict::Fine);
        if self.json {
            print_line!("{:#}", as_json(&findings, worst));
        } else {
            print_line!("\n{}", summary(&findings));
        }
        Ok(match worst {
            _ if !is_usable => Outcome::Usage,
            Verdict::Wrong => Outcome::No,
            Verdict::Fine | Verdict::Skipped | Verdict::Warning => Outcome::Yes,
        })
    }
}

/// Prints a diagnosis: its message, and the remedy below.
fn print(Diagnosis { subject, verdict, message, remedy }: &Diagnosis) {
    let (sign, color): (_, fn(&str) -> String) = match verdict {
        Verdict::Fine => ("✓", text::green),
        Verdict::Skipped => ("–", text::faint),
        Verdict::Warning => ("!", text::yellow),
        Verdict::Wrong => ("✗", text::red),
    };
    // A program that reads the output searches for the word.
    let verdict = if io::stdout().is_terminal() { color(sign) } else { color(&format!("{:7}", verdict.as_str())) };
    let lines = |text: &str| text.split('\n').map(text::visible).collect::<Vec<_>>().join("\n    ");
    let message = lines(message);
    print_line!("{verdict} {}: {message}", subject.as_str());
    if let Some(remedy) = remedy {
        print_line!("    remedy: {}", lines(remedy));
    }
}

/// How many problems and warnings there are.
fn summary(findings: &[Diagnosis]) -> String {
    let count = |verdict| findings.iter().filter(|diagnosis| diagnosis.verdict == verdict).count();
    let warnings = match count(Verdict::Warning) {
        0 => "no warnings".to_owned(),
        1 => "1 warning".to_owned(),
        many => format!("{many} warnings"),
    };
    let problems = match count(Verdict::Wrong) {
        0 => "no problems".to_owned(),
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    format!("{problems}, {warnings}")
}

fn as_json(findings: &[Diagnosis], worst: Verdict) -> serde_json::Value {
    let findings: Vec<_> = findings
        .iter()
        .map(|Diagnosis { subject, verdict, message, remedy }| {
            json!({ "subject": subject.as_str(), "verdict": verdict.as_str(), "message": message, "remedy": remedy })
        })
        .collect();
    json!({ "verdict": worst.as_str(), "findings": findings })
}
