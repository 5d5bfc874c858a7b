//! A server that a command asks: where it is, and what is said when it does not answer.

use std::{error::Error as _, time::Duration};

use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::Failure;
use crate::config::{ProcessEnvironment, local_server, own_token};

/// A connection on which every request bears the caller's token.
pub(super) type Line = InterceptedService<Channel, Bearer>;

/// The token of this caller, if it has one.
#[derive(Clone)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A server.
pub(super) struct Server {
    /// As the command names it: a URL.
    pub(super) address: String,
    /// How to reach it.
    pub(super) endpoint: Endpoint,
    bearer: Bearer,
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
        let token = own_token(&ProcessEnvironment).map(|token| format!("Bearer {}", token.reveal()).parse());
        let token =
            token.transpose().map_err(|_| Failure::usage("AUTH_TOKEN holds a character that no header can carry"))?;
        Ok(Self { address, endpoint, bearer: Bearer(token) })
    }

    /// A connection, which is made when it is first used.
    pub(super) fn connect(&self) -> Line {
        InterceptedService::new(self.endpoint.connect_lazy(), self.bearer.clone())
    }

    /// What is said of a request that was not answered as it should be.
    pub(super) fn complaint(&self, status: &Status) -> String {
        let Self { address, .. } = self;
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled => {
                format!("no answer from {address}: {}", innermost(status))
            }
            Code::Unauthenticated => {
                format!("{address}: {}: set AUTH_TOKEN to a token of the server's", status.message())
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
