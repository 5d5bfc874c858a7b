//! The configuration: options, environment variables and a file. The only reader of the environment.
//!
//! Every mistake is found before anything starts, and all of them are listed at once. Secrets are never shown.

mod manual;
mod reader;
#[cfg(test)]
mod tests;
mod tokens;
pub mod variable;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

pub use manual::{effective, manual};
use reader::Reader;
pub use reader::{Environment, Overrides, ProcessEnvironment};
use variable::{
    AUTH_TOKEN, BIND_ADDRESS, CACHE_MAX_BYTES, CLIENT_CERT_FILE, CLIENT_KEY_FILE, DB_URI, DOCUMENTS_DIR, LOG_DECISIONS,
    MAX_CALLER_REQUESTS, MAX_CONNECTIONS, MAX_REQUESTS, MAX_STALENESS, MONGO_URI, MONGODB_DATABASE, MONGODB_URI,
    OBSERVED_FACTS, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, PORT, PROBE_PORT, REDIS_CA_FILE,
    REDIS_HOST, REDIS_PASSWORD, REDIS_PORT, REDIS_URL, REFLECTION, RUST_LOG, SCHEMA_FILE, SERVER_CA_FILE,
    STARTUP_GRACE, TLS_CERT_FILE, TLS_CLIENT_CA_FILE, TLS_KEY_FILE, Variable,
};

use crate::{
    check::Settings,
    link::Server,
    telemetry::is_filter,
    transport::{Callers, Limits, Tls, TlsError, TlsFile, TlsFiles},
};

/// What a bound on staleness may be: no less than what a quiet database needs to confirm that nothing has changed, and no
/// more than what probes are kept for.
const STALENESS: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_mins(1);

/// What the grace at the start may be.
const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(10);

/// The port that is served where none is named.
pub const DEFAULT_PORT: u16 = 50_051;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file of the schema.
    pub schema: PathBuf,
    /// Where facts come from.
    pub source: SourceConfig,
    /// What instances share, if anything.
    pub redis: Option<Server>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where to listen for probes alone, without TLS.
    pub probes: Option<SocketAddr>,
    /// What the port proves who it is with, if it speaks TLS.
    pub tls: Option<Tls>,
    /// Who may call.
    pub callers: Callers,
    /// Whether the port describes its services.
    pub reflection: bool,
    /// The bounds of the port.
    pub limits: Limits,
    /// How long the port stays closed at the start while the source cannot be reached.
    pub startup_grace: Duration,
    /// How old a fact may be, and how much is remembered.
    pub settings: Settings,
    /// How many remembered facts are compared with the source in a second.
    pub observed_facts: u32,
    /// Which share of the answers is logged.
    pub logged_decisions: f64,
    /// Where traces are sent, if they are.
    pub traces: Option<String>,
    /// What is logged: the syntax of `RUST_LOG`.
    pub log_filter: String,
}

/// Where facts come from.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// A directory of documents.
    Documents(PathBuf),
    /// A MongoDB.
    MongoDb {
        /// The connection string.
        uri: Secret,
        /// The database, where the connection string does not name it.
        database: Option<String>,
    },
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is wrong:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  - {error}"))
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// Each mistake, with its remedy.
    #[must_use]
    pub fn errors(&self) -> &[String] {
        &self.0
    }

    /// One more mistake, found elsewhere.
    #[must_use]
    pub fn and(mut self, error: String) -> Self {
        self.0.push(error);
        self
    }
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its remedy.
    pub fn read(overrides: &Overrides, environment: &impl Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(overrides, environment);
        let read = Self::read_all(&mut reader);
        read.filter(|_| reader.is_right()).ok_or_else(|| ConfigError(reader.into_errors()))
    }

    /// None only where a mistake is noted.
    fn read_all(reader: &mut Reader<'_>) -> Option<Self> {
        let schema = reader.path(&SCHEMA_FILE);
        if schema.is_none() {
            reader.refuse("no schema is named: set SCHEMA_FILE, or give --schema FILE".to_owned());
        }
        let source = source(reader);
        let port = port(reader, &PORT);
        let bind: Option<IpAddr> =
            reader.parse(&BIND_ADDRESS, "an address, such as 127.0.0.1 or 0.0.0.0", |text| text.parse().ok());
        let before = reader.errors();
        let tokens = tokens::read(reader);
        let bind = bind.unwrap_or(IpAddr::V4(tokens.bind));
        // Where something is wrong with the tokens, it is not known that there are none.
        if tokens.bind.is_loopback() && !bind.is_loopback() && reader.errors() == before {
            let remedy = "set AUTH_TOKENS; or ALLOW_ANONYMOUS=true, where nobody else reaches that address";
            reader.refuse(format!("{bind} is to be listened on, and callers are not authenticated: {remedy}"));
        }
        let probes = self::port(reader, &PROBE_PORT);
        if let (Some(port @ 1..), Some(probes)) = (port, probes)
            && port == probes
        {
            reader.refuse(format!("PROBE_PORT is {probes}, and so is PORT: set it to another number"));
        }
        let tls = tls(reader);
        let reflection = reader.flag(&REFLECTION);
        let limits = limits(reader);
        let startup_grace = duration(reader, &STARTUP_GRACE, GRACE, "0s to 10m, such as 20s");
        let settings = settings(reader);
        let observed_facts = reader.number(&OBSERVED_FACTS, 0..=100);
        let logged_decisions = reader.number(&LOG_DECISIONS, 0.0..=1.0);
        let traces = traces(reader);
        let redis = redis(reader);
        let log_filter =
            reader.parse(&RUST_LOG, "a level, such as info, or directives, such as permcached=debug", |text| {
                is_filter(text).then(|| text.to_owned())
            });
        Some(Self {
            schema: schema?,
            source: source?,
            redis,
            listen: SocketAddr::new(bind, port?),
            probes: probes.map(|port| SocketAddr::new(bind, port)),
            tls,
            callers: tokens.callers,
            reflection: reflection?,
            limits: limits?,
            startup_grace: startup_grace?,
            settings: settings?,
            observed_facts: observed_facts?,
            logged_decisions: logged_decisions?,
            traces,
            log_filter: log_filter?,
        })
    }
}

/// Reads a duration of a range, which is told as `wanted`.
fn duration(
    reader: &mut Reader<'_>,
    variable: &Variable,
    range: RangeInclusive<Duration>,
    wanted: &str,
) -> Option<Duration> {
    let wanted = format!("a duration from {wanted}");
    reader.parse(variable, &wanted, |text| humantime::parse_duration(text).ok().filter(|time| range.contains(time)))
}

/// The bounds of what is remembered.
fn settings(reader: &mut Reader<'_>) -> Option<Settings> {
    let staleness_max = duration(reader, &MAX_STALENESS, STALENESS, "500ms to 1m, such as 2s");
    let memory_bytes_max =
        reader.parse(&CACHE_MAX_BYTES, "a number of bytes, such as 67108864", |text| text.parse().ok());
    Some(Settings { staleness_max: staleness_max?, memory_bytes_max: memory_bytes_max? })
}

/// The bounds of the port that may be set.
fn limits(reader: &mut Reader<'_>) -> Option<Limits> {
    let requests_max = reader.number(&MAX_REQUESTS, 1..=100_000);
    let connections_max = reader.number(&MAX_CONNECTIONS, 1..=1_000_000);
    let caller_requests_max = match reader.text(&MAX_CALLER_REQUESTS) {
        None => requests_max.map(|all| (all - all / 4).max(1)),
        Some(_) => reader.number(&MAX_CALLER_REQUESTS, 1..=requests_max.unwrap_or(100_000)),
    };
    Some(Limits {
        requests_max: requests_max?,
        caller_requests_max: caller_requests_max?,
        connections_max: connections_max?,
        ..Limits::default()
    })
}

fn source(reader: &mut Reader<'_>) -> Option<SourceConfig> {
    let documents = reader.find(&DOCUMENTS_DIR);
    if let Some((documents, reader::Origin::Option)) = documents {
        return Some(SourceConfig::Documents(documents.into()));
    }
    let uris = [&MONGODB_URI, &MONGO_URI, &DB_URI];
    let uri = uris.into_iter().find_map(|variable| reader.text(variable).map(|uri| (variable.name, uri)));
    let database = reader.text(&MONGODB_DATABASE);
    match (documents, uri) {
        (Some(_), Some((name, _))) => {
            let error = format!("both DOCUMENTS_DIR and {name} are set: facts come from one of them, unset the other");
            reader.refuse(error);
            None
        }
        (Some((documents, _)), None) => Some(SourceConfig::Documents(documents.into())),
        (None, Some((_, uri))) => Some(SourceConfig::MongoDb { uri: Secret(uri), database }),
        (None, None) => {
            let remedy = "set MONGODB_URI (or MONGO_URI, or DB_URI) for a database, or DOCUMENTS_DIR for files";
            reader.refuse(format!("no source of facts is named: {remedy}"));
            None
        }
    }
}

/// What the port proves who it is with.
fn tls(reader: &mut Reader<'_>) -> Option<Tls> {
    let (cert, key) = (reader.path(&TLS_CERT_FILE), reader.path(&TLS_KEY_FILE));
    let client_ca = reader.path(&TLS_CLIENT_CA_FILE);
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => {
            if client_ca.is_some() {
                let remedy = "set TLS_CERT_FILE and TLS_KEY_FILE, or unset it";
                reader.refuse(format!("TLS_CLIENT_CA_FILE is set, and the port speaks no TLS: {remedy}"));
            }
            return None;
        }
        (cert, _) => {
            let (set, lacking) =
                if cert.is_some() { (&TLS_CERT_FILE, &TLS_KEY_FILE) } else { (&TLS_KEY_FILE, &TLS_CERT_FILE) };
            reader.refuse(format!("{} is set without {}: set both, or neither", set.name, lacking.name));
            return None;
        }
    };
    let loaded = Tls::load(TlsFiles { cert, key, client_ca });
    let refuse = |errors: Vec<TlsError>| {
        for error in errors {
            let variable = match error.file {
                TlsFile::Cert => &TLS_CERT_FILE,
                TlsFile::Key => &TLS_KEY_FILE,
                TlsFile::ClientCa => &TLS_CLIENT_CA_FILE,
            };
            reader.refuse(format!("{} is {error}", variable.name));
        }
    };
    loaded.map_err(refuse).ok()
}

/// Where traces are sent.
fn traces(reader: &mut Reader<'_>) -> Option<String> {
    let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    let mut endpoint = |variable| {
        reader.parse(variable, "a URL, such as http://127.0.0.1:4317", |text| is_url(text).then(|| text.to_owned()))
    };
    let (own, general) = (endpoint(&OTEL_EXPORTER_OTLP_TRACES_ENDPOINT), endpoint(&OTEL_EXPORTER_OTLP_ENDPOINT));
    own.or(general)
}

fn redis(reader: &mut Reader<'_>) -> Option<Server> {
    let host = reader.text(&REDIS_HOST);
    let port = reader.text(&REDIS_PORT).is_some();
    let password = reader.text(&REDIS_PASSWORD);
    let authority = reader.text(&REDIS_CA_FILE);
    let server = if let Some(urls) = reader.text(&REDIS_URL) {
        // What is said of it must not show it, as there may be a password in it.
        Server::parse(&urls).map_err(|error| reader.refuse(format!("REDIS_URL {error}"))).ok()?
    } else if let Some(host) = host {
        let port = reader.number(&REDIS_PORT, 1..=u16::MAX);
        let server = Server::at(&host, port?, password.as_deref());
        // A URL would be looked up as a name, for ever.
        let Some(server) = server.ok().filter(|_| !host.contains(['/', '@', ' '])) else {
            let wanted = "the name or address of a host, without redis:// and without a port";
            // Whoever pastes a URL there pastes a password.
            reader.refuse(format!("REDIS_HOST is not the name of a host: set it to {wanted}"));
            return None;
        };
        server
    } else {
        for (variable, is_set) in
            [(&REDIS_PORT, port), (&REDIS_PASSWORD, password.is_some()), (&REDIS_CA_FILE, authority.is_some())]
        {
            if is_set {
                let name = variable.name;
                let error = "is set, but neither REDIS_URL nor REDIS_HOST: set one of them, or unset";
                reader.refuse(format!("{name} {error} {name}"));
            }
        }
        return None;
    };
    let Some(path) = authority else { return Some(server) };
    let read = std::fs::read(&path).map_err(|error| format!("cannot be read: {error}"));
    let server = read.and_then(|pem| server.with_authority(pem).map_err(|error| error.to_string()));
    server.map_err(|error| reader.refuse(format!("REDIS_CA_FILE is `{path}`, which {error}"))).ok()
}

fn port(reader: &mut Reader<'_>, variable: &Variable) -> Option<u16> {
    reader.parse(variable, "a number from 0 to 65535 (0 takes a free one)", |text| text.parse().ok())
}

/// What a command needs to call a server.
#[derive(Clone, Debug)]
pub struct Calling {
    /// The service on this machine, as a URL.
    pub local: String,
    /// Where the service on this machine answers probes, as a URL.
    pub local_probes: String,
    /// The token to send.
    pub token: Option<Secret>,
    /// The authority of a server that has its own, as PEM.
    pub authority: Option<Vec<u8>>,
    /// The certificate and the key of who calls, as PEM.
    pub identity: Option<(Vec<u8>, Secret)>,
}

impl Calling {
    /// Reads it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(environment: &impl Environment) -> Result<Self, ConfigError> {
        let overrides = Overrides::default();
        let mut reader = Reader::new(&overrides, environment);
        let port = port(&mut reader, &PORT).unwrap_or(DEFAULT_PORT);
        let is_tls = reader.text(&TLS_CERT_FILE).is_some();
        let local = format!("{}://{}:{port}", if is_tls { "https" } else { "http" }, Ipv4Addr::LOCALHOST);
        let local_probes = match self::port(&mut reader, &PROBE_PORT) {
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
                reader.refuse("CLIENT_CERT_FILE and CLIENT_KEY_FILE belong together: set both, or neither".to_owned());
                None
            }
        };
        let calling = Self { local, local_probes, token, authority, identity };
        if reader.is_right() { Ok(calling) } else { Err(ConfigError(reader.into_errors())) }
    }
}

/// The content of a file.
fn file(reader: &mut Reader<'_>, variable: &Variable) -> Option<Vec<u8>> {
    let path = reader.text(variable)?;
    let read = std::fs::read(&path);
    read.map_err(|error| reader.refuse(format!("{} is `{path}`, which cannot be read: {error}", variable.name))).ok()
}
