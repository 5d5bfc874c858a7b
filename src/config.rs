//! The configuration: options, environment variables and a file. No other module reads the environment. All errors are found
//! before anything starts, and are listed at once.
//!
//! Connects to nothing, and shows no secret.

mod client;
mod manual;
mod reader;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
pub mod variable;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

pub use client::ClientConfig;
pub use manual::{effective, manual};
use reader::Reader;
pub use reader::{Environment, Overrides, ProcessEnvironment};
use variable::{
    BIND_ADDRESS, CACHE_MAX_BYTES, DB_URI, DOCUMENTS_DIR, LOG_DECISIONS, MAX_CALLER_REQUESTS, MAX_CONNECTIONS,
    MAX_REQUESTS, MAX_STALENESS, METRICS_TOKEN, MONGO_URI, MONGODB_DATABASE, MONGODB_URI, OBSERVED_FACTS,
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, PORT, PROBE_PORT, REDIS_CA_FILE, REDIS_HOST,
    REDIS_PASSWORD, REDIS_PORT, REDIS_SECRET, REDIS_URL, REFLECTION, RUST_LOG, SCHEMA_FILE, STARTUP_GRACE, Variable,
};

use crate::{
    check::Settings,
    diagnosis::Diagnosis,
    link::{Secrets, Server},
    source::mongodb::ConnectionString,
    telemetry::is_filter,
    transport::{Callers, Limits, MetricsTokens, Tls},
};

/// The range of `MAX_STALENESS`. Within less than 500 ms, an idle replica set might not confirm that nothing has changed: its
/// change stream passes a probe only with the next one. For more than a minute, probes are not sure to be kept.
const STALENESS: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_mins(1);

/// The range of `STARTUP_GRACE`.
const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(10);

/// The shortest secret of `METRICS_TOKEN`.
const METRICS_TOKEN_BYTES_MIN: usize = 16;

/// The default of `PORT`.
pub const DEFAULT_PORT: u16 = 50_051;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file of the schema.
    pub schema: PathBuf,
    /// Where facts come from.
    pub source: SourceConfig,
    /// The Redis that instances share, if there is one.
    pub redis: Option<RedisConfig>,
    /// The address of the port.
    pub listen: SocketAddr,
    /// The address of the second port, without TLS, for health checks and metrics only.
    pub probes: Option<SocketAddr>,
    /// The certificate and key of the port, if it uses TLS.
    pub tls: Option<Tls>,
    /// The callers that are let in.
    pub callers: Callers,
    /// Whether the port offers gRPC reflection.
    pub reflection: bool,
    /// The limits of the port.
    pub limits: Limits,
    /// The tokens of which one is required for `/metrics`, if one is.
    pub metrics_tokens: Option<MetricsTokens>,
    /// How long the port stays closed at the start while the source cannot be reached.
    pub startup_grace: Duration,
    /// The greatest age of a fact, and the size of the cache.
    pub settings: Settings,
    /// How many cached facts are compared with the source per second.
    pub observed_facts: u32,
    /// The share of the answers that is logged, from 0 to 1.
    pub logged_decisions: f64,
    /// The URL to which traces are sent, if they are recorded.
    pub traces: Option<String>,
    /// The filter of the log, in the syntax of `RUST_LOG`.
    pub log_filter: String,
    /// The values that were read otherwise than they are written: quotes that are left out, options of the connection string without effect.
    pub notes: Vec<Diagnosis>,
}

/// Where facts come from.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// A directory of `<collection>.jsonl` files.
    Documents(PathBuf),
    /// A MongoDB database.
    MongoDb {
        /// The connection string.
        uri: Secret,
        /// The database. None: the one that the connection string names.
        database: Option<String>,
    },
}

/// The Redis that instances share.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// Where it is.
    pub server: Server,
    /// The secrets by which instances recognise what the others have written there. Without any, Redis is not used.
    pub secrets: Option<Secrets>,
}

/// A text that `Debug` does not show.
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

/// All errors in a configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has errors:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  - {error}"))
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// Each error, with its remedy.
    #[must_use]
    pub fn errors(&self) -> &[String] {
        &self.0
    }
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// All errors in it, each with its remedy.
    pub fn read(overrides: &Overrides, environment: &impl Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(overrides, environment);
        let config = Self::read_all(&mut reader);
        config.filter(|_| reader.is_valid()).ok_or_else(|| ConfigError(reader.into_errors()))
    }

    /// Reads every variable, even after an error. Returns none only after `reader` has an error.
    fn read_all(reader: &mut Reader<'_>) -> Option<Self> {
        let schema = reader.path(&SCHEMA_FILE);
        if schema.is_none() {
            reader.add_error("no schema is named: set SCHEMA_FILE, or give --schema FILE".to_owned());
        }
        let source = source(reader);
        let port = port(reader, &PORT);
        let bind: Option<IpAddr> =
            reader.parse(&BIND_ADDRESS, "an address, such as 127.0.0.1 or 0.0.0.0", |text| text.parse().ok());
        let errors_before = reader.error_count();
        let tokens = tokens::read(reader);
        let bind = bind.unwrap_or(IpAddr::V4(tokens.default_bind));
        // If AUTH_TOKENS has errors, it is not known whether callers are authenticated, so this is not reported.
        if tokens.default_bind.is_loopback() && !bind.is_loopback() && reader.error_count() == errors_before {
            let remedy = "set AUTH_TOKENS, or ALLOW_ANONYMOUS=true if only trusted clients reach that address";
            reader.add_error(format!("BIND_ADDRESS is {bind}, and callers are not authenticated: {remedy}"));
        }
        let probes = self::port(reader, &PROBE_PORT);
        if let (Some(port @ 1..), Some(probes)) = (port, probes)
            && port == probes
        {
            reader.add_error(format!("PROBE_PORT and PORT are both {probes}: set one of them to another number"));
        }
        let tls = tls::read(reader);
        let reflection = reader.flag(&REFLECTION);
        let limits = limits(reader);
        let metrics_tokens = metrics_tokens(reader);
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
            metrics_tokens,
            startup_grace: startup_grace?,
            settings: settings?,
            observed_facts: observed_facts?,
            logged_decisions: logged_decisions?,
            traces,
            log_filter: log_filter?,
            notes: reader.take_notes(),
        })
    }
}

/// Reads a duration within a range. An error shows the range as `wanted`.
fn duration(
    reader: &mut Reader<'_>,
    variable: &Variable,
    range: RangeInclusive<Duration>,
    wanted: &str,
) -> Option<Duration> {
    let wanted = format!("a duration from {wanted}");
    reader.parse(variable, &wanted, |text| humantime::parse_duration(text).ok().filter(|time| range.contains(time)))
}

/// The bounds of cached facts.
fn settings(reader: &mut Reader<'_>) -> Option<Settings> {
    let staleness_max = duration(reader, &MAX_STALENESS, STALENESS, "500ms to 1m, such as 2s");
    let memory_bytes_max =
        reader.parse(&CACHE_MAX_BYTES, "a number of bytes, such as 67108864", |text| text.parse().ok());
    Some(Settings { staleness_max: staleness_max?, memory_bytes_max: memory_bytes_max? })
}

/// The limits of the port, of which some have variables.
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

/// The tokens for `/metrics`.
fn metrics_tokens(reader: &mut Reader<'_>) -> Option<MetricsTokens> {
    let text = reader.text(&METRICS_TOKEN)?;
    let secrets: Vec<&str> = text.split(',').map(str::trim).collect();
    if secrets.iter().any(|secret| reader::has_quote(secret)) {
        let remedy = "write the list without quotes";
        reader.add_error(format!("METRICS_TOKEN has a secret that begins or ends with a quote: {remedy}"));
        return None;
    }
    let is_valid =
        |secret: &&str| secret.len() >= METRICS_TOKEN_BYTES_MIN && secret.bytes().all(|byte| byte.is_ascii_graphic());
    if !secrets.iter().all(is_valid) {
        let wanted = format!(
            "at least {METRICS_TOKEN_BYTES_MIN} visible ASCII characters each, as `openssl rand -hex 32` prints them"
        );
        reader.add_error(format!("METRICS_TOKEN has a secret that cannot be used: it must have {wanted}"));
        return None;
    }
    Some(MetricsTokens::new(secrets))
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
            let error = format!("both DOCUMENTS_DIR and {name} are set: unset one of them");
            reader.add_error(error);
            None
        }
        (Some((documents, _)), None) => Some(SourceConfig::Documents(documents.into())),
        (None, Some((name, uri))) => match ConnectionString::parse(&uri) {
            Ok(parsed) => {
                for note in parsed.notes() {
                    reader.add_note(Diagnosis { message: format!("{name}: {}", note.message), ..note.clone() });
                }
                Some(SourceConfig::MongoDb { uri: Secret(uri), database })
            }
            Err(errors) => {
                errors.iter().for_each(|error| reader.add_error(format!("{name}: {error}")));
                None
            }
        },
        (None, None) => {
            let remedy = "set MONGODB_URI (or MONGO_URI, or DB_URI) for a database, or DOCUMENTS_DIR for files";
            reader.add_error(format!("no source of facts is named: {remedy}"));
            None
        }
    }
}

/// The URL to which traces are sent.
fn traces(reader: &mut Reader<'_>) -> Option<String> {
    let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    let mut endpoint = |variable| {
        reader.parse(variable, "a URL, such as http://127.0.0.1:4317", |text| is_url(text).then(|| text.to_owned()))
    };
    let (specific, general) = (endpoint(&OTEL_EXPORTER_OTLP_TRACES_ENDPOINT), endpoint(&OTEL_EXPORTER_OTLP_ENDPOINT));
    specific.or(general)
}

fn redis(reader: &mut Reader<'_>) -> Option<RedisConfig> {
    let text = reader.text(&REDIS_SECRET);
    let is_secret = text.is_some();
    let secrets = text.and_then(|text| match Secrets::parse(&text) {
        Ok(secrets) => Some(secrets),
        Err(errors) => {
            for error in errors {
                reader.add_error(format!("REDIS_SECRET: {error}"));
            }
            None
        }
    });
    Some(RedisConfig { server: redis_server(reader, is_secret)?, secrets })
}

/// The server. `is_secret` tells whether there is a secret, which has no effect without a server.
fn redis_server(reader: &mut Reader<'_>, is_secret: bool) -> Option<Server> {
    let host = reader.text(&REDIS_HOST);
    let port = reader.text(&REDIS_PORT).is_some();
    let password = reader.text(&REDIS_PASSWORD);
    let authority = reader.text(&REDIS_CA_FILE);
    let server = if let Some(urls) = reader.text(&REDIS_URL) {
        // The error must not show the URL, which may contain a password.
        Server::parse(&urls).map_err(|error| reader.add_error(format!("REDIS_URL {error}"))).ok()?
    } else if let Some(host) = host {
        let port = reader.number(&REDIS_PORT, 1..=u16::MAX);
        let server = Server::at(&host, port?, password.as_deref());
        // A URL here would be resolved as a host name, again and again.
        let Some(server) = server.ok().filter(|_| !host.contains(['/', '@', ' '])) else {
            let wanted = "the name or address of a host, without redis:// and without a port";
            // The error must not show the value: a URL that was pasted here may contain a password.
            reader.add_error(format!("REDIS_HOST is not the name of a host: set it to {wanted}"));
            return None;
        };
        server
    } else {
        for (variable, is_set) in [
            (&REDIS_PORT, port),
            (&REDIS_PASSWORD, password.is_some()),
            (&REDIS_CA_FILE, authority.is_some()),
            (&REDIS_SECRET, is_secret),
        ] {
            if is_set {
                let name = variable.name;
                let error = "is set without REDIS_URL or REDIS_HOST: set one of them, or unset";
                reader.add_error(format!("{name} {error} {name}"));
            }
        }
        return None;
    };
    let Some(path) = authority else { return Some(server) };
    let read = std::fs::read(&path).map_err(|error| format!("cannot be read: {error}"));
    let server = read.and_then(|pem| server.with_authority(pem).map_err(|error| error.to_string()));
    server.map_err(|error| reader.add_error(format!("REDIS_CA_FILE is `{path}`, which {error}"))).ok()
}

fn port(reader: &mut Reader<'_>, variable: &Variable) -> Option<u16> {
    reader.parse(variable, "a number from 0 to 65535 (0 takes a free one)", |text| text.parse().ok())
}
