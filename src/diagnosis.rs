//! What an examination found, in words for people: `permcached doctor` prints it. Each part of the system that can be
//! examined says it in these.
//!
//! Examines nothing, and holds no secret: whoever makes a diagnosis keeps passwords out of it.

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// Not looked at, as something before it is wrong.
    Skipped,
    /// Answers are right, and could be faster, or something is likely not as it was meant.
    Warning,
    /// Answers are wrong or do not come, or something that is configured does nothing.
    Wrong,
}

impl Verdict {
    /// The word for it.
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

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Options, variables and the file.
    Configuration,
    /// The schema.
    Schema,
    /// Who may call.
    Callers,
    /// TLS on the port.
    Tls,
    /// The documents on disk.
    Documents,
    /// The database.
    MongoDb,
    /// What instances share.
    Redis,
}

impl Subject {
    /// The word for it.
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

/// One thing that was looked at, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What was looked at.
    pub subject: Subject,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do about it: ready to paste, where that can be.
    pub remedy: Option<String>,
}

impl Diagnosis {
    /// All is well.
    #[must_use]
    pub fn fine(subject: Subject, message: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Fine, message: message.into(), remedy: None }
    }

    /// Not looked at, and why.
    #[must_use]
    pub fn skipped(subject: Subject, message: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Skipped, message: message.into(), remedy: None }
    }

    /// Something to know.
    #[must_use]
    pub fn warning(subject: Subject, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    /// Something that has to be mended.
    #[must_use]
    pub fn wrong(subject: Subject, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Wrong, message: message.into(), remedy: Some(remedy.into()) }
    }
}
