//! The configuration of the commands that call a server. Does not connect.

use std::net::Ipv4Addr;

use super::{
    ConfigError, DEFAULT_PORT, Environment, Overrides, Secret, port,
    reader::Reader,
    variable::{
        AUTH_TOKEN, CLIENT_CERT_FILE, CLIENT_KEY_FILE, PORT, PROBE_PORT, SERVER_CA_FILE, TLS_CERT_FILE, Variable,
    },
};
use crate::diagnosis::Diagnosis;

/// What a command requires to call a server.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The URL of the service on this machine.
    pub local: String,
    /// The URL of the probe port of the service on this machine.
    pub local_probes: String,
    /// The token to send.
    pub token: Option<Secret>,
    /// The certificate authority of the server, as PEM. If `None`, the system's authorities are trusted.
    pub authority: Option<Vec<u8>>,
    /// The caller's certificate and its key, as PEM.
    pub identity: Option<(Vec<u8>, Secret)>,
    /// The values that were read otherwise than they are written.
    pub notes: Vec<Diagnosis>,
}

impl ClientConfig {
    /// Reads the configuration from the environment and the file.
    ///
    /// # Errors
    /// All errors in it.
    pub fn read(environment: &impl Environment) -> Result<Self, ConfigError> {
        let overrides = Overrides::default();
        let mut reader = Reader::new(&overrides, environment);
        let service_port = port(&mut reader, &PORT).unwrap_or(DEFAULT_PORT);
        let is_tls = reader.text(&TLS_CERT_FILE).is_some();
        let local = format!("{}://{}:{service_port}", if is_tls { "https" } else { "http" }, Ipv4Addr::LOCALHOST);
        let local_probes = match port(&mut reader, &PROBE_PORT) {
            Some(port) => format!("http://{}:{port}", Ipv4Addr::LOCALHOST),
            None => local.clone(),
        };
        let token = reader.text(&AUTH_TOKEN).map(Secret);
        let authority = file(&mut reader, &SERVER_CA_FILE);
        let (certificate, key) = (file(&mut reader, &CLIENT_CERT_FILE), file(&mut reader, &CLIENT_KEY_FILE));
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => String::from_utf8(key).ok().map(|key| (certificate, Secret(key))),
            (None, None) => None,
            _ => {
                reader
                    .add_error("CLIENT_CERT_FILE and CLIENT_KEY_FILE belong together: set both, or neither".to_owned());
                None
            }
        };
        let config = Self { local, local_probes, token, authority, identity, notes: reader.take_notes() };
        if reader.is_valid() { Ok(config) } else { Err(ConfigError(reader.into_errors())) }
    }
}

/// The content of the file that a variable names.
fn file(reader: &mut Reader<'_>, variable: &Variable) -> Option<Vec<u8>> {
    let path = reader.text(variable)?;
    let read = std::fs::read(&path);
    read.map_err(|error| reader.add_error(format!("{} is `{path}`, which cannot be read: {error}", variable.name))).ok()
}
