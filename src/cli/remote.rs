//! A server that a command asks: where it is, and what is said when it does not answer.

use std::{error::Error as _, time::Duration};

use tonic::{Code, Status, transport::Endpoint};

use super::Failure;
use crate::config::{ProcessEnvironment, local_server};

/// A server.
pub(super) struct Server {
    /// As the command names it: a URL.
    pub(super) address: String,
    /// How to reach it.
    pub(super) endpoint: Endpoint,
}

impl Server {
    /// The server that was named, as a URL or host:port, or else the one on this machine. Connects to nothing yet.
    pub(super) fn named(name: Option<&str>, time_max: Duration) -> Result<Self, Failure> {
        let address = match name {
            None => local_server(&ProcessEnvironment).map_err(Failure::usage)?,
            Some(url) if url.contains("://") => url.to_owned(),
            Some(address) => format!("http://{address}"),
        };
        if !address.starts_with("http://") {
            return Err(Failure::usage(format!("--server `{address}`: only http:// is spoken, not TLS")));
        }
        let wrong =
            |_| Failure::usage(format!("--server `{address}` is no address: write http://host:port, or host:port"));
        let endpoint = Endpoint::from_shared(address.clone()).map_err(wrong)?.connect_timeout(time_max);
        Ok(Self { address, endpoint })
    }

    /// What is said of a request that was not answered as it should be.
    pub(super) fn complaint(&self, status: &Status) -> String {
        let Self { address, .. } = self;
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled => {
                format!("no answer from {address}: {}", innermost(status))
            }
            code => format!("{address}: {code}: {}", status.message()),
        }
    }
}

/// What went wrong first: "Connection refused" rather than "transport error".
fn innermost(status: &Status) -> String {
    let Some(mut error) = status.source() else { return status.message().to_owned() };
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
