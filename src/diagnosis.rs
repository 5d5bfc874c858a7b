//! A diagnosis: what an examination found and how to mend it, in words for people. `permcached doctor` prints diagnoses. Also
//! [`error_chain`], which shows an error with its causes.
//!
//! Examines nothing. A diagnosis holds no secret: the code that makes one keeps passwords out of it.

use std::{error::Error, fmt};

/// How an examination ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// No problem.
    Fine,
    /// Not examined, because of an earlier problem.
    Skipped,
    /// Answers are right, but could be faster, or a setting is probably not what was meant.
    Warning,
    /// A problem: answers are wrong or missing, or something that is configured has no effect.
    Wrong,
}

impl Verdict {
    /// The name in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

/// The part that was examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Options, environment variables and the configuration file.
    Configuration,
    /// The schema.
    Schema,
    /// The callers and their tokens.
    Callers,
    /// TLS on the port.
    Tls,
    /// Documents on disk.
    Documents,
    /// The database.
    MongoDb,
    /// The Redis that instances share.
    Redis,
}

impl Subject {
    /// The name in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Schema => "schema",
            Self::Callers => "callers",
            Self::Tls => "TLS",
            Self::Documents => "documents",
            Self::MongoDb => "MongoDB",
            Self::Redis => "Redis",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The part that was examined.
    pub subject: Subject,
    /// How the examination ended.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do about it: a command or setting to paste, if possible.
    pub remedy: Option<String>,
}

impl Diagnosis {
    /// No problem.
    #[must_use]
    pub fn fine(subject: Subject, message: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Fine, message: message.into(), remedy: None }
    }

    /// Not examined, and why.
    #[must_use]
    pub fn skipped(subject: Subject, message: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Skipped, message: message.into(), remedy: None }
    }

    /// A warning.
    #[must_use]
    pub fn warning(subject: Subject, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    /// A problem.
    #[must_use]
    pub fn wrong(subject: Subject, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Wrong, message: message.into(), remedy: Some(remedy.into()) }
    }
}

/// Displays an error and its causes, outermost first, separated by `: `. Wherever an error is printed, logged or sent, its
/// causes are lost otherwise: an error of this crate does not repeat in its `Display` what its `source()` returns.
///
/// ```text
/// tracing::warn!(error = %error_chain(&error), "facts could not be read");
/// ```
#[must_use]
pub fn error_chain(error: &dyn Error) -> ErrorChain<'_> {
    ErrorChain(error)
}

/// See [`error_chain`].
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(&'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        f.write_str(&text)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            // Errors of other crates may repeat their cause, and it is then shown once.
            if !text.contains(&cause_text) {
                write!(f, ": {cause_text}")?;
            }
            text = cause_text;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the file cannot be read")]
    struct Terse(#[source] io::Error);

    /// As errors of other crates do.
    #[derive(Debug, thiserror::Error)]
    #[error("the service cannot start: {cause}", cause = .0)]
    struct Repeating(#[source] Terse);

    #[test]
    fn an_error_chain_shows_each_cause_once() {
        let terse = || Terse(io::Error::other("permission denied"));
        assert_eq!(error_chain(&terse()).to_string(), "the file cannot be read: permission denied");
        let repeating = Repeating(terse());
        let expected = "the service cannot start: the file cannot be read: permission denied";
        assert_eq!(error_chain(&repeating).to_string(), expected);
    }
}
