//! The configuration: environment variables, and the command line's options over them. The only reader of the environment.
//!
//! Every mistake is found before anything starts, and all of them are listed at once. Secrets are never shown.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use crate::{
    check::Settings,
    link::Server,
    transport::{Caller, Callers, Scope},
};

/// What a bound on staleness may be: no less than what a quiet database needs to confirm that nothing has changed, and no
/// more than what probes are kept for.
const STALENESS: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_mins(1);

/// The port that is served where none is named.
pub const DEFAULT_PORT: u16 = 50_051;

/// The port of a Redis that is named by its host alone.
const DEFAULT_REDIS_PORT: u16 = 6_379;

/// What the command line says. It goes before the environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The schema.
    pub schema: Option<PathBuf>,
    /// The directory of documents.
    pub documents: Option<PathBuf>,
    /// The port.
    pub port: Option<u16>,
    /// The address.
    pub bind: Option<IpAddr>,
}

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
    /// Who may call.
    pub callers: Callers,
    /// How old a fact may be, and how much is remembered.
    pub settings: Settings,
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
        self.0.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// One more mistake, found elsewhere.
    #[must_use]
    pub fn and(mut self, mistake: String) -> Self {
        self.0.push(mistake);
        self
    }
}

/// The variables that are read.
pub trait Environment {
    /// The value of a variable; none where it is unset or empty.
    fn get(&self, name: &str) -> Option<String>;
}

/// The variables of this process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its remedy.
    pub fn read(overrides: &Overrides, environment: &impl Environment) -> Result<Self, ConfigError> {
        let mut wrong = Vec::new();
        let schema = overrides.schema.clone().or_else(|| environment.get("SCHEMA_FILE").map(PathBuf::from));
        if schema.is_none() {
            wrong.push("no schema is named: set SCHEMA_FILE, or give --schema FILE".to_owned());
        }
        let source = source(overrides, environment, &mut wrong);
        let port = overrides.port.or_else(|| port(environment, &mut wrong)).unwrap_or(DEFAULT_PORT);
        let bind = overrides.bind.or_else(|| {
            let text = environment.get("BIND_ADDRESS")?;
            let address = text.parse().ok();
            if address.is_none() {
                wrong.push(format!("BIND_ADDRESS is `{text}`: set it to an address, such as 127.0.0.1 or 0.0.0.0"));
            }
            address
        });
        let (callers, default) = callers(environment, &mut wrong);
        let bind = bind.unwrap_or(IpAddr::V4(default));
        if default.is_loopback() && !bind.is_loopback() && wrong.is_empty() {
            let remedy = "set AUTH_TOKENS; or ALLOW_ANONYMOUS=true, where nobody else reaches that address";
            wrong.push(format!("{bind} is to be listened on, and callers are not authenticated: {remedy}"));
        }
        let listen = SocketAddr::new(bind, port);
        let settings = settings(environment, &mut wrong);
        let redis = redis(environment, &mut wrong);
        match (schema, source) {
            (Some(schema), Some(source)) if wrong.is_empty() => {
                Ok(Self { schema, source, redis, listen, callers, settings })
            }
            _ => Err(ConfigError(wrong)),
        }
    }
}

/// The bounds of what is remembered.
fn settings(environment: &impl Environment, wrong: &mut Vec<String>) -> Settings {
    let mut settings = Settings::default();
    if let Some(text) = environment.get("MAX_STALENESS") {
        match humantime::parse_duration(&text) {
            Ok(time) if STALENESS.contains(&time) => settings.staleness_max = time,
            _ => wrong.push(format!("MAX_STALENESS is `{text}`: set it to a duration from 500ms to 1m, such as 2s")),
        }
    }
    if let Some(text) = environment.get("CACHE_MAX_BYTES") {
        match text.parse() {
            Ok(bytes) => settings.memory_bytes_max = bytes,
            Err(_) => {
                wrong.push(format!("CACHE_MAX_BYTES is `{text}`: set it to a number of bytes, such as 67108864"));
            }
        }
    }
    settings
}

fn source(overrides: &Overrides, environment: &impl Environment, wrong: &mut Vec<String>) -> Option<SourceConfig> {
    if let Some(documents) = &overrides.documents {
        return Some(SourceConfig::Documents(documents.clone()));
    }
    let documents = environment.get("DOCUMENTS_DIR").map(PathBuf::from);
    let uri = ["MONGODB_URI", "MONGO_URI", "DB_URI"]
        .into_iter()
        .find_map(|name| environment.get(name).map(|uri| (name, uri)));
    match (documents, uri) {
        (Some(_), Some((name, _))) => {
            wrong.push(format!("both DOCUMENTS_DIR and {name} are set: facts come from one of them, unset the other"));
            None
        }
        (Some(documents), None) => Some(SourceConfig::Documents(documents)),
        (None, Some((_, uri))) => {
            Some(SourceConfig::MongoDb { uri: Secret(uri), database: environment.get("MONGODB_DATABASE") })
        }
        (None, None) => {
            let remedy = "set MONGODB_URI (or MONGO_URI, or DB_URI) for a database, or DOCUMENTS_DIR for files";
            wrong.push(format!("no source of facts is named: {remedy}"));
            None
        }
    }
}

/// Who may call, and where to listen where that is not said.
fn callers(environment: &impl Environment, wrong: &mut Vec<String>) -> (Callers, Ipv4Addr) {
    let mut callers = Vec::new();
    for (variable, default) in [("AUTH_TOKENS", Scope::Check), ("AUTH_ADMIN_TOKENS", Scope::Admin)] {
        let text = environment.get(variable).unwrap_or_default();
        let tokens = text.split(',').map(str::trim).filter(|token| !token.is_empty());
        for (place, token) in (1..).zip(tokens) {
            // What is said of it must not show it.
            let mut refuse = |what: &str| wrong.push(format!("{variable}: token {place} {what}"));
            let parts: Vec<&str> = token.split(':').collect();
            let (name, secret, scope) = match *parts.as_slice() {
                [secret] => ("caller", secret, default),
                [name, secret] => (name, secret, default),
                [name, secret, "check"] => (name, secret, Scope::Check),
                [name, secret, "admin"] => (name, secret, Scope::Admin),
                [_, _, _] => {
                    refuse("has a scope that is neither check nor admin: write name:secret:scope");
                    continue;
                }
                _ => {
                    refuse("has too many parts: write name:secret:scope, with no colon in any of them");
                    continue;
                }
            };
            if name.is_empty() || secret.is_empty() {
                refuse("lacks its name or its secret: write name:secret, or name:secret:scope");
            } else if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
                refuse("holds a character that no header can carry: take letters, digits and signs of ASCII");
            } else {
                callers.push(Caller::new(name, secret, scope));
            }
        }
    }
    let is_open = match environment.get("ALLOW_ANONYMOUS").as_deref() {
        Some("true") => true,
        None | Some("false") => false,
        Some(other) => {
            wrong.push(format!("ALLOW_ANONYMOUS is `{other}`: set it to true or false"));
            false
        }
    };
    match (callers.is_empty(), is_open) {
        (false, true) => {
            wrong.push("both ALLOW_ANONYMOUS=true and tokens are set: unset ALLOW_ANONYMOUS, or the tokens".to_owned());
            (Callers::Anyone, Ipv4Addr::LOCALHOST)
        }
        (false, false) => (Callers::Known(callers.into()), Ipv4Addr::UNSPECIFIED),
        (true, true) => (Callers::Anyone, Ipv4Addr::UNSPECIFIED),
        (true, false) => (Callers::Anyone, Ipv4Addr::LOCALHOST),
    }
}

/// The token with which the commands call a server.
#[must_use]
pub fn own_token(environment: &impl Environment) -> Option<Secret> {
    environment.get("AUTH_TOKEN").map(Secret)
}

fn redis(environment: &impl Environment, wrong: &mut Vec<String>) -> Option<Server> {
    let host = environment.get("REDIS_HOST");
    let server = if let Some(urls) = environment.get("REDIS_URL") {
        // What is said of it must not show it, as there may be a password in it.
        Server::parse(&urls).map_err(|error| wrong.push(format!("REDIS_URL {error}"))).ok()?
    } else if let Some(host) = host {
        let port = match environment.get("REDIS_PORT").map(|text| (text.parse(), text)) {
            None => Some(DEFAULT_REDIS_PORT),
            Some((Ok(port @ 1..), _)) => Some(port),
            Some((_, text)) => {
                wrong.push(format!("REDIS_PORT is `{text}`: set it to a number from 1 to 65535, such as 6379"));
                None
            }
        };
        let password = environment.get("REDIS_PASSWORD");
        let server = Server::at(&host, port?, password.as_deref());
        server
            .map_err(|_| wrong.push(format!("REDIS_HOST is `{host}`: set it to the name or address of a host")))
            .ok()?
    } else {
        for name in ["REDIS_PORT", "REDIS_PASSWORD", "REDIS_CA_FILE"] {
            if environment.get(name).is_some() {
                wrong.push(format!(
                    "{name} is set, but neither REDIS_URL nor REDIS_HOST: set one of them, or unset {name}"
                ));
            }
        }
        return None;
    };
    let Some(path) = environment.get("REDIS_CA_FILE") else { return Some(server) };
    let read = std::fs::read(&path).map_err(|error| format!("cannot be read: {error}"));
    let server = read.and_then(|pem| server.with_authority(pem).map_err(|error| error.to_string()));
    server.map_err(|error| wrong.push(format!("REDIS_CA_FILE is `{path}`, which {error}"))).ok()
}

fn port(environment: &impl Environment, wrong: &mut Vec<String>) -> Option<u16> {
    let text = environment.get("PORT")?;
    let port = text.parse().ok();
    if port.is_none() {
        wrong.push(format!("PORT is `{text}`: set it to a number from 0 to 65535 (0 takes a free one)"));
    }
    port
}

/// The address of the service on this machine, for the commands that ask it.
///
/// # Errors
/// PORT is no number.
pub fn local_server(environment: &impl Environment) -> Result<String, ConfigError> {
    let mut wrong = Vec::new();
    let port = port(environment, &mut wrong).unwrap_or(DEFAULT_PORT);
    if wrong.is_empty() { Ok(format!("http://127.0.0.1:{port}")) } else { Err(ConfigError(wrong)) }
}

/// What is logged: the syntax of `RUST_LOG`.
#[must_use]
pub fn log_filter(environment: &impl Environment) -> String {
    environment.get("RUST_LOG").unwrap_or_else(|| "info".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(&'static [(&'static str, &'static str)]);

    impl Environment for Fixed {
        fn get(&self, name: &str) -> Option<String> {
            self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn all_mistakes_are_listed_at_once() {
        let environment = Fixed(&[
            ("PORT", "many"),
            ("BIND_ADDRESS", "everywhere"),
            ("MAX_STALENESS", "1h"),
            ("CACHE_MAX_BYTES", "64 MiB"),
        ]);
        let error = Config::read(&Overrides::default(), &environment).unwrap_err().to_string();
        for name in [
            "SCHEMA_FILE",
            "MONGODB_URI",
            "PORT",
            "BIND_ADDRESS",
            "MAX_STALENESS is `1h`",
            "CACHE_MAX_BYTES is `64 MiB`",
        ] {
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn each_name_of_the_connection_string_is_read() {
        for name in ["MONGODB_URI", "MONGO_URI", "DB_URI"] {
            let environment: &[_] = Box::leak(Box::new([("SCHEMA_FILE", "s.toml"), (name, "mongodb://u:pw@h/db")]));
            let config = Config::read(&Overrides::default(), &Fixed(environment)).unwrap();
            let SourceConfig::MongoDb { uri, .. } = &config.source else { panic!("{config:?}") };
            assert_eq!(uri.reveal(), "mongodb://u:pw@h/db");
            assert!(!format!("{config:?}").contains("pw"));
        }
    }

    #[test]
    fn listens_on_this_machine_alone_unless_told_otherwise() {
        let environment = Fixed(&[("SCHEMA_FILE", "s.toml"), ("DOCUMENTS_DIR", "d")]);
        let config = Config::read(&Overrides::default(), &environment).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:50051");
        let everywhere = Overrides { port: Some(1), bind: Some([0, 0, 0, 0].into()), ..Overrides::default() };
        let error = Config::read(&everywhere, &environment).unwrap_err().to_string();
        assert!(error.contains("AUTH_TOKENS") && error.contains("ALLOW_ANONYMOUS"), "{error}");
        for (name, value) in
            [("AUTH_TOKENS", "backend:s3cret"), ("AUTH_ADMIN_TOKENS", "s3cret"), ("ALLOW_ANONYMOUS", "true")]
        {
            let set = Fixed(Box::leak(Box::new([("SCHEMA_FILE", "s.toml"), ("DOCUMENTS_DIR", "d"), (name, value)])));
            assert_eq!(Config::read(&everywhere, &set).unwrap().listen.to_string(), "0.0.0.0:1");
            assert_eq!(Config::read(&Overrides::default(), &set).unwrap().listen.to_string(), "0.0.0.0:50051");
        }
    }

    #[test]
    fn every_wrong_token_is_named_by_its_place_and_none_is_shown() {
        let environment = Fixed(&[
            ("SCHEMA_FILE", "s.toml"),
            ("DOCUMENTS_DIR", "d"),
            ("AUTH_TOKENS", "good:s3cret, :s3cret,name:,a:s3cret:root,a:s3cret:check:more,s3\u{e9}cret"),
            ("AUTH_ADMIN_TOKENS", "x:"),
            ("ALLOW_ANONYMOUS", "yes"),
        ]);
        let error = Config::read(&Overrides::default(), &environment).unwrap_err().to_string();
        let wanted = [
            "AUTH_TOKENS: token 2 lacks",
            "AUTH_TOKENS: token 3 lacks",
            "AUTH_TOKENS: token 4 has a scope",
            "AUTH_TOKENS: token 5 has too many",
            "AUTH_TOKENS: token 6 holds",
            "AUTH_ADMIN_TOKENS: token 1 lacks",
            "ALLOW_ANONYMOUS is `yes`",
        ];
        for words in wanted {
            assert!(error.contains(words), "{words}: {error}");
        }
        assert!(!error.contains("s3"), "{error}");
    }

    #[test]
    fn two_sources_are_one_too_many() {
        let environment = Fixed(&[("SCHEMA_FILE", "s"), ("DOCUMENTS_DIR", "d"), ("DB_URI", "mongodb://h/db")]);
        let error = Config::read(&Overrides::default(), &environment).unwrap_err().to_string();
        assert!(error.contains("DOCUMENTS_DIR and DB_URI"), "{error}");
    }
}
