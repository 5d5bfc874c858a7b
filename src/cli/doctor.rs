//! `permcached doctor`: tries everything that is configured, and says what is wrong with a remedy to paste.

use std::sync::{Mutex, PoisonError};

use clap::Args;
use serde_json::json;

use super::{Ended, Outcome, options::Options, text};
use crate::{
    app::doctor,
    config::{Config, ProcessEnvironment},
    diagnosis::{Diagnosis, Subject, Verdict},
};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    options: Options,
    /// Print what was found as JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) async fn run(self) -> Ended {
        let found = Mutex::new(Vec::new());
        let tell = |diagnoses: Vec<Diagnosis>| {
            if !self.json {
                diagnoses.iter().for_each(show);
            }
            found.lock().unwrap_or_else(PoisonError::into_inner).extend(diagnoses);
        };
        let is_usable = match Config::read(&self.options.overrides(), &ProcessEnvironment) {
            Ok(config) => {
                tell(vec![Diagnosis::fine(Subject::Configuration, "each variable that is set can be read")]);
                doctor::examine(&config, tell).await;
                true
            }
            Err(error) => {
                let remedy = "permcached config shows what counts, and where it comes from";
                let wrong = |error: &String| Diagnosis::wrong(Subject::Configuration, error, remedy);
                tell(error.errors().iter().map(wrong).collect());
                false
            }
        };
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let worst = found.iter().map(|diagnosis| diagnosis.verdict).max().unwrap_or(Verdict::Fine);
        if self.json {
            say!("{:#}", as_json(&found, worst));
        } else {
            say!("\n{}", summary(&found));
        }
        Ok(match worst {
            _ if !is_usable => Outcome::Usage,
            Verdict::Wrong => Outcome::No,
            Verdict::Fine | Verdict::Skipped | Verdict::Warning => Outcome::Yes,
        })
    }
}

/// One line, and the remedy under it.
fn show(Diagnosis { subject, verdict, message, remedy }: &Diagnosis) {
    let (sign, color): (_, fn(&str) -> String) = match verdict {
        Verdict::Fine => ("✓", text::green),
        Verdict::Skipped => ("–", text::faint),
        Verdict::Warning => ("!", text::yellow),
        Verdict::Wrong => ("✗", text::red),
    };
    let sign = if text::is_terminal() { color(sign) } else { format!("{:7}", verdict.as_str()) };
    let message = message.replace('\n', "\n    ");
    say!("{sign} {}: {message}", subject.as_str());
    if let Some(remedy) = remedy {
        say!("    remedy: {remedy}");
    }
}

/// How many there are of what is not well.
fn summary(found: &[Diagnosis]) -> String {
    let count = |verdict| found.iter().filter(|diagnosis| diagnosis.verdict == verdict).count();
    let warnings = match count(Verdict::Warning) {
        0 => "no warnings".to_owned(),
        1 => "1 warning".to_owned(),
        many => format!("{many} warnings"),
    };
    match count(Verdict::Wrong) {
        0 => format!("all is well, {warnings}"),
        wrong => format!("{wrong} wrong, {warnings}"),
    }
}

fn as_json(found: &[Diagnosis], worst: Verdict) -> serde_json::Value {
    let findings: Vec<_> = found
        .iter()
        .map(|Diagnosis { subject, verdict, message, remedy }| {
            json!({ "subject": subject.as_str(), "verdict": verdict.as_str(), "message": message, "remedy": remedy })
        })
        .collect();
    json!({ "verdict": worst.as_str(), "findings": findings })
}
