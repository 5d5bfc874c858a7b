//! What went wrong in the driver, without what it was about. The driver's own errors print whole replies, and messages of the
//! server may quote documents, keys and commands, so none of their texts is kept: only kinds, codes, and names of codes.
//!
//! No other file shows an error of the driver.

use std::{fmt, io};

use mongodb::error::{Error, ErrorKind};

use crate::diagnosis::CertificateFault;

/// Error codes for a missing right: on a server of one's own (13), and in Atlas (8000).
const UNAUTHORIZED: [i32; 2] = [13, 8_000];

/// Parts of the driver's description of servers that it cannot use, and what each shows. The first that is there counts.
const REASONS: [(&str, Unusable); 6] = [
    ("RsGhost", Unusable::NotInitiated),
    ("SCRAM failure", Unusable::Login),
    ("Authentication failed", Unusable::Login),
    ("Connection refused", Unusable::Refused),
    ("failed to lookup address", Unusable::Name),
    ("timed out", Unusable::Silent),
];

/// An error of the driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// The server refused the command.
    #[error("the server refused the command with error {code}{name}")]
    Refused {
        /// The error code.
        code: i32,
        /// The name of the code.
        name: CodeName,
    },
    /// No server can be used, or none is the primary.
    #[error("no server can be used: {0}")]
    NoServer(Unusable),
    /// The server refused the login.
    #[error("the login is refused")]
    Login,
    /// The name of a server cannot be resolved.
    #[error("the name of the server cannot be resolved")]
    Name,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Connection(io::ErrorKind),
    /// The reply cannot be decoded.
    #[error("the reply cannot be decoded")]
    Reply,
    /// The driver cannot use the options of the connection string.
    #[error("the driver cannot use the options of the connection string")]
    Options,
    /// Any other error.
    #[error("the driver failed")]
    Other,
}

/// Why no server can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It waits to become a replica set.
    #[error("it waits to become a replica set")]
    NotInitiated,
    /// It refuses the login.
    #[error("it refuses the login")]
    Login,
    /// Its certificate is not accepted.
    #[error("{0}")]
    Certificate(CertificateFault),
    /// It refuses connections.
    #[error("it refuses connections")]
    Refused,
    /// Its name cannot be resolved.
    #[error("its name cannot be resolved")]
    Name,
    /// It does not answer in time.
    #[error("it does not answer in time")]
    Silent,
    /// None of these reasons is known.
    #[error("none is reachable, or none is the primary")]
    Unknown,
}

/// The name of an error code: a space and the name in brackets when shown, nothing if it does not look like one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeName(String);

impl CodeName {
    /// The longest name that is shown, in bytes. The longest in MongoDB's list has about fifty.
    const BYTES_MAX: usize = 64;

    fn of(name: &str) -> Self {
        let is_name = name.len() <= Self::BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        Self(if is_name { name.to_owned() } else { String::new() })
    }
}

impl fmt::Display for CodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

impl DriverError {
    /// The kind of an error of the driver.
    pub(super) fn of(error: &Error) -> Self {
        match &*error.kind {
            ErrorKind::Command(command) => Self::Refused { code: command.code, name: CodeName::of(&command.code_name) },
            ErrorKind::ServerSelection { message, .. } => {
                let by_text = || REASONS.into_iter().find(|(part, _)| message.contains(part)).map(|(_, reason)| reason);
                let reason = CertificateFault::of(message).map(Unusable::Certificate).or_else(by_text);
                Self::NoServer(reason.unwrap_or(Unusable::Unknown))
            }
            ErrorKind::Authentication { .. } => Self::Login,
            ErrorKind::DnsResolve { .. } => Self::Name,
            ErrorKind::Io(error) => Self::Connection(error.kind()),
            ErrorKind::ConnectionPoolCleared { .. } => Self::Connection(io::ErrorKind::ConnectionAborted),
            ErrorKind::Bson(_) | ErrorKind::InvalidResponse { .. } => Self::Reply,
            ErrorKind::InvalidArgument { .. } | ErrorKind::InvalidTlsConfig { .. } => Self::Options,
            _ => Self::Other,
        }
    }

    /// The error code, if the server refused the command.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::NoServer(_)
            | Self::Login
            | Self::Name
            | Self::Connection(_)
            | Self::Reply
            | Self::Options
            | Self::Other => None,
        }
    }

    /// Whether the user lacks a right.
    pub(super) fn is_unauthorized(&self) -> bool {
        self.code().is_some_and(|code| UNAUTHORIZED.contains(&code))
    }
}

impl From<Error> for DriverError {
    fn from(error: Error) -> Self {
        Self::of(&error)
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use mongodb::error::CommandError;

    use super::*;

    const SECRET: &str = "s3cr3t";

    fn refused(code: i32, name: &str) -> Error {
        let reply = doc! { "code": code, "codeName": name, "errmsg": format!("the document is {SECRET}") };
        ErrorKind::Command(bson::deserialize_from_document::<CommandError>(reply).expect("a reply")).into()
    }

    #[test]
    fn an_error_shows_its_kind_and_nothing_that_it_quotes() {
        let quoted = bson::deserialize_from_slice::<bson::Document>(SECRET.as_bytes()).expect_err("it is no document");
        let errors: [(Error, &str); 7] = [
            (refused(13, "Unauthorized"), "the server refused the command with error 13 (Unauthorized)"),
            (refused(13, "s3cr3t document"), "the server refused the command with error 13"),
            (refused(13, &"s3cr3t".repeat(20)), "the server refused the command with error 13"),
            (
                io::Error::new(io::ErrorKind::ConnectionRefused, SECRET).into(),
                "the connection failed: connection refused",
            ),
            (io::Error::other(SECRET).into(), "the connection failed: other error"),
            (ErrorKind::Bson(quoted).into(), "the reply cannot be decoded"),
            (Error::custom(SECRET), "the driver failed"),
        ];
        for (error, shown) in errors {
            let kind = DriverError::of(&error);
            assert_eq!(kind.to_string(), shown);
            assert!(!format!("{kind:?}").contains(SECRET), "{kind:?}");
        }
    }
}
