//! What went wrong in the client library of Redis, without what it was about. Its own errors may quote replies, commands and
//! keys, so none of their texts is kept: only kinds, and codes of the server.
//!
//! No other file shows an error of the client library.

use std::{error::Error, fmt, io, sync::Arc};

use redis::{ErrorKind, RedisError};

use crate::diagnosis::CertificateFault;

/// An error of the client library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server answered with an error.
    #[error("the server refused the command with error {0}")]
    Refused(Code),
    /// The server refused the login.
    #[error("the login is refused")]
    Login,
    /// The server's certificate is not accepted.
    #[error("{0}")]
    Certificate(CertificateFault),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Connection(io::ErrorKind),
    /// No node of the cluster can be used.
    #[error("no server can be used")]
    NoServer,
    /// The reply cannot be decoded, or is not what the command replies.
    #[error("the reply cannot be decoded")]
    Reply,
    /// The client library cannot use the address or the options.
    #[error("the client cannot use the address or its options")]
    Options,
    /// Any other error.
    #[error("the client failed")]
    Other,
}

/// The code that an error of the server begins with; `unknown` if it does not look like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code(String);

impl Code {
    /// The longest code that is shown, in bytes. The longest that Redis has are about fifteen.
    const BYTES_MAX: usize = 32;

    fn of(code: &str) -> Self {
        let is_code = (1..=Self::BYTES_MAX).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_uppercase());
        Self(if is_code { code } else { "unknown" }.to_owned())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClientError {
    /// The kind of an error of the client library.
    pub(super) fn of(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) => Self::Login,
            (_, Some(code)) => Self::Refused(Code::of(code)),
            (ErrorKind::Parse | ErrorKind::UnexpectedReturnType | ErrorKind::RESP3NotSupported, None) => Self::Reply,
            (ErrorKind::InvalidClientConfig, None) => Self::Options,
            (ErrorKind::ClusterConnectionNotFound, None) => Self::NoServer,
            (ErrorKind::Io, None) => match io_error(error) {
                Some(error) => match CertificateFault::of(&error.to_string()) {
                    Some(fault) => Self::Certificate(fault),
                    None => Self::Connection(error.kind()),
                },
                None => Self::NoServer,
            },
            _ => Self::Other,
        }
    }

    /// The code, if the server answered with an error.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(Code(code)) => Some(code),
            Self::Login
            | Self::Certificate(_)
            | Self::Connection(_)
            | Self::NoServer
            | Self::Reply
            | Self::Options
            | Self::Other => None,
        }
    }

    /// Whether the server refused the login, or asks for one.
    pub(super) fn is_login(&self) -> bool {
        *self == Self::Login || matches!(self.code(), Some("NOAUTH" | "WRONGPASS"))
    }
}

/// The error of the connection that the error stems from. The client library shares it.
fn io_error(error: &RedisError) -> Option<&io::Error> {
    let source = error.source()?;
    let shared = source.downcast_ref::<Arc<dyn Error + Send + Sync>>();
    shared.map_or_else(|| source.downcast_ref(), |shared| shared.downcast_ref())
}

impl From<RedisError> for ClientError {
    fn from(error: RedisError) -> Self {
        Self::of(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3t";

    #[test]
    fn an_error_shows_its_kind_and_nothing_that_it_quotes() {
        let errors = [
            (
                io::Error::new(io::ErrorKind::ConnectionRefused, SECRET).into(),
                "the connection failed: connection refused",
            ),
            (io::Error::other(format!("invalid peer certificate: {SECRET}")).into(), "its certificate is not accepted"),
            ((ErrorKind::Parse, "wrong", SECRET.to_owned()).into(), "the reply cannot be decoded"),
            ((ErrorKind::UnexpectedReturnType, "wrong", SECRET.to_owned()).into(), "the reply cannot be decoded"),
            ((ErrorKind::AuthenticationFailed, "wrong", SECRET.to_owned()).into(), "the login is refused"),
            ((ErrorKind::Io, "wrong", SECRET.to_owned()).into(), "no server can be used"),
            ((ErrorKind::Client, "wrong", SECRET.to_owned()).into(), "the client failed"),
        ];
        let errors: [(RedisError, &str); 7] = errors;
        for (error, shown) in errors {
            let kind = ClientError::of(&error);
            assert_eq!(kind.to_string(), shown);
            assert!(!format!("{kind:?}").contains(SECRET), "{kind:?}");
        }
        for (code, shown) in [("OOM", "OOM"), ("s3cr3t", "unknown"), ("", "unknown"), (&*"X".repeat(33), "unknown")] {
            assert_eq!(Code::of(code).to_string(), shown);
        }
    }
}
