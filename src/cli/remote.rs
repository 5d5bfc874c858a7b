//! A server that a command asks: its address, the connection, and the message when it does not answer. Sends no request by
//! itself, and retries none.

use std::{error::Error, time::Duration};

use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{Failure, text::note};
use crate::config::{ClientConfig, ProcessEnvironment};

/// A connection that adds the caller's token to every request.
pub(super) type AuthenticatedChannel = InterceptedService<Channel, Bearer>;

/// Adds the caller's token to a request, if there is one.
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

/// A server that can be called.
pub(super) struct Server {
    /// Its URL.
    pub(super) address: String,
    /// Connects to it.
    pub(super) endpoint: Endpoint,
    bearer: Bearer,
}

impl Server {
    /// The server of this name, a URL or host:port, or else the one on this machine. Does not connect yet.
    pub(super) fn named(name: Option<&str>, time_max: Duration) -> Result<Self, Failure> {
        let config = ClientConfig::read(&ProcessEnvironment).map_err(Failure::usage_because)?;
        Self::at(name.unwrap_or(&config.local), &config, time_max)
    }

    /// As [`Server::named`], but without a name the probe port of the server on this machine.
    pub(super) fn probed(name: Option<&str>, time_max: Duration) -> Result<Self, Failure> {
        let config = ClientConfig::read(&ProcessEnvironment).map_err(Failure::usage_because)?;
        Self::at(name.unwrap_or(&config.local_probes), &config, time_max)
    }

    fn at(name: &str, config: &ClientConfig, time_max: Duration) -> Result<Self, Failure> {
        let address = if name.contains("://") { name.to_owned() } else { format!("http://{name}") };
        let wrong = || {
            let remedy = "write http://host:port, https://host:port or host:port";
            Failure::usage(format!("--server `{address}` is not an address: {remedy}"))
        };
        if !["http://", "https://"].iter().any(|scheme| address.starts_with(scheme)) {
            return Err(wrong());
        }
        config.notes.iter().for_each(note);
        let mut endpoint = Endpoint::from_shared(address.clone()).map_err(|_| wrong())?.connect_timeout(time_max);
        if address.starts_with("https://") {
            endpoint = endpoint.tls_config(tls(config)).map_err(|error| {
                Failure::usage(format!("SERVER_CA_FILE, CLIENT_CERT_FILE or CLIENT_KEY_FILE: {}", innermost(&error)))
            })?;
        }
        let token = config.token.as_ref().map(|token| format!("Bearer {}", token.reveal()).parse());
        let token = token
            .transpose()
            .map_err(|_| Failure::usage("AUTH_TOKEN contains a character that is not allowed in a header"))?;
        Ok(Self { address, endpoint, bearer: Bearer(token) })
    }

    /// A connection that is opened with the first request.
    pub(super) fn connect(&self) -> AuthenticatedChannel {
        InterceptedService::new(self.endpoint.connect_lazy(), self.bearer.clone())
    }

    /// The message about a request that failed with this status.
    pub(super) fn describe(&self, status: &Status) -> String {
        let Self { address, .. } = self;
        match status.code() {
            // A status of this client has a source. One that the server sent has none.
            _ if let Some(source) = status.source() => self.unreached(&innermost(source)),
            Code::Unauthenticated => {
                format!("{address}: {}: set AUTH_TOKEN to one of the server's tokens", status.message())
            }
            Code::Unimplemented => {
                format!("{address}: {}: is this the port for probes, or an older server?", status.message())
            }
            _ => format!("{address}: {}", status.message()),
        }
    }

    /// The message when no answer came, with the remedy for common causes.
    fn unreached(&self, why: &str) -> String {
        let Self { address, .. } = self;
        let causes = [
            ("UnknownIssuer", "set SERVER_CA_FILE to its certificate authority"),
            ("CaUsedAsEndEntity", "its certificate is an authority's: have it sign another one, for the server"),
            ("CertificateRequired", "set CLIENT_CERT_FILE and CLIENT_KEY_FILE"),
            ("http2 error", "if it speaks TLS, write https://"),
        ];
        match causes.iter().find(|(sign, _)| why.contains(sign)) {
            Some((_, remedy)) => format!("no answer from {address}: {why}: {remedy}"),
            None => format!("no answer from {address}: {why}"),
        }
    }
}

/// The certificate authority that is trusted, and the caller's certificate.
fn tls(config: &ClientConfig) -> ClientTlsConfig {
    let tls = match &config.authority {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    match &config.identity {
        Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key.reveal())),
        None => tls,
    }
}

/// The innermost cause: "Connection refused" rather than "transport error".
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
