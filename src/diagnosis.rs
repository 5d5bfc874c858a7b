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

/// Why the certificate of a server, of MongoDB or Redis, is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// A self-signed certificate, as `openssl req -x509` makes it, is that of an authority.
    #[error("its certificate is that of a certificate authority (CA:TRUE), which a server cannot have for itself")]
    Authority,
    /// Its issuer is not trusted.
    #[error("its certificate is of an authority that is not trusted")]
    Issuer,
    /// It is for another host.
    #[error("its certificate is for another host name")]
    Name,
    /// It has expired, or is not valid yet.
    #[error("its certificate has expired, or is not valid yet")]
    Expired,
    /// Anything else.
    #[error("its certificate is not accepted")]
    Other,
}

impl CertificateFault {
    /// The fault that the text of an error of TLS names. None if it is not about a server's certificate.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        const SIGNS: [(&str, CertificateFault); 6] = [
            ("CaUsedAsEndEntity", CertificateFault::Authority),
            ("UnknownIssuer", CertificateFault::Issuer),
            ("not valid for name", CertificateFault::Name),
            ("NotValidForName", CertificateFault::Name),
            ("xpired", CertificateFault::Expired),
            ("not valid yet", CertificateFault::Expired),
        ];
        let (_, why) = text.split_once("invalid peer certificate")?;
        Some(SIGNS.into_iter().find(|(sign, _)| why.contains(sign)).map_or(Self::Other, |(_, fault)| fault))
    }

    /// What to do about it. `setting` is what names the file of the server's authority.
    #[must_use]
    pub fn remedy(self, setting: &str) -> String {
        match self {
            Self::Authority => format!(
                "have an authority sign a certificate for the server: `{NEW_AUTHORITY}`, then, with the server's name for HOST, \
                 `{NEW_CERTIFICATE}`; the server gets server.key and server.pem, and {setting} is ca.pem"
            ),
            Self::Issuer | Self::Other => format!(
                "{setting}=FILE, with the certificate authority of the server as PEM; a self-signed certificate is its own authority"
            ),
            Self::Name => {
                "name the server as its certificate does (`openssl x509 -in server.pem -noout -ext subjectAltName`), or renew the \
                 certificate with this name"
                    .to_owned()
            }
            Self::Expired => {
                "renew the server's certificate (`openssl x509 -in server.pem -noout -dates`), and compare the clocks".to_owned()
            }
        }
    }
}

/// Makes a certificate authority.
const NEW_AUTHORITY: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=own \
                             authority' -keyout ca.key -out ca.pem";

/// Makes a certificate for a server, signed by that authority.
const NEW_CERTIFICATE: &str = "openssl req -x509 -CA ca.pem -CAkey ca.key -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                               -days 825 -subj /CN=HOST -addext subjectAltName=DNS:HOST -addext \
                               basicConstraints=critical,CA:FALSE -keyout server.key -out server.pem";

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
    fn the_fault_of_a_certificate_is_read_from_the_text_of_tls() {
        for (text, fault) in [
            ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", Some(CertificateFault::Authority)),
            ("tls: invalid peer certificate: UnknownIssuer", Some(CertificateFault::Issuer)),
            ("invalid peer certificate: certificate not valid for name \"h\"", Some(CertificateFault::Name)),
            ("invalid peer certificate: certificate expired: verification time", Some(CertificateFault::Expired)),
            ("invalid peer certificate: BadEncoding", Some(CertificateFault::Other)),
            ("UnknownIssuer", None),
        ] {
            assert_eq!(CertificateFault::of(text), fault, "{text}");
        }
        assert!(CertificateFault::Authority.remedy("REDIS_CA_FILE").contains("REDIS_CA_FILE is ca.pem"));
    }

    #[test]
    fn an_error_chain_shows_each_cause_once() {
        let terse = || Terse(io::Error::other("permission denied"));
        assert_eq!(error_chain(&terse()).to_string(), "the file cannot be read: permission denied");
        let repeating = Repeating(terse());
        let expected = "the service cannot start: the file cannot be read: permission denied";
        assert_eq!(error_chain(&repeating).to_string(), expected);
    }
}
