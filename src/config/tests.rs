//! What the configuration makes of each variable, right and wrong. Whether the service then does as it says is tested elsewhere.

use std::{collections::BTreeMap, ffi::OsString, fs, os::unix::ffi::OsStringExt, path::Path};

use super::{variable::all, *};

#[derive(Clone, Default)]
struct Fixed(BTreeMap<String, OsString>);

impl Fixed {
    fn of(variables: &[(&str, &str)]) -> Self {
        let set = variables.iter().filter(|(_, value)| !value.is_empty());
        Self(set.map(|(name, value)| ((*name).to_owned(), (*value).into())).collect())
    }

    /// With the least that it takes.
    fn right(variables: &[(&str, &str)]) -> Self {
        Self::of(&[&[("SCHEMA_FILE", "s.toml"), ("DOCUMENTS_DIR", "d")], variables].concat())
    }

    #[track_caller]
    fn config(&self) -> Config {
        Config::read(&Overrides::default(), self).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    fn errors(&self) -> String {
        Config::read(&Overrides::default(), self).unwrap_err().to_string()
    }
}

impl Environment for Fixed {
    fn get(&self, name: &str) -> Option<OsString> {
        self.0.get(name).cloned()
    }
}

/// What a variable is set to, and what is said of that.
const WRONG: &[(&str, &str, &str)] = &[
    ("SCHEMA_FILE", "", "no schema is named: set SCHEMA_FILE, or give --schema FILE"),
    ("DOCUMENTS_DIR", "d", "both DOCUMENTS_DIR and MONGODB_URI are set"),
    ("CONFIG_FILE", "/nowhere/c.toml", "CONFIG_FILE is `/nowhere/c.toml`, which cannot be read"),
    ("MAX_STALENESS", "1h", "MAX_STALENESS is `1h`: set it to a duration from 500ms to 1m"),
    ("CACHE_MAX_BYTES", "64 MiB", "CACHE_MAX_BYTES is `64 MiB`: set it to a number of bytes"),
    ("OBSERVED_FACTS", "101", "OBSERVED_FACTS is `101`: set it to a number from 0 to 100"),
    ("PORT", "many", "PORT is `many`: set it to a number from 0 to 65535"),
    ("BIND_ADDRESS", "everywhere", "BIND_ADDRESS is `everywhere`: set it to an address"),
    ("PROBE_PORT", "65536", "PROBE_PORT is `65536`: set it to a number from 0 to 65535"),
    ("TLS_CERT_FILE", "/nowhere/cert.pem", "TLS_CERT_FILE is `/nowhere/cert.pem`, which cannot be read"),
    ("TLS_CLIENT_CA_FILE", "/nowhere/ca.pem", "TLS_CLIENT_CA_FILE is `/nowhere/ca.pem`, which cannot be read"),
    ("TLS_KEY_FILE", "/nowhere/key.pem", "TLS_KEY_FILE is `/nowhere/key.pem`, which cannot be read"),
    ("REFLECTION", "no", "REFLECTION is `no`: set it to true or false"),
    ("STARTUP_GRACE", "1d", "STARTUP_GRACE is `1d`: set it to a duration from 0s to 10m"),
    ("AUTH_TOKENS", "a:b:c:d", "AUTH_TOKENS: token 1 has too many parts"),
    ("AUTH_ADMIN_TOKENS", "x:", "AUTH_ADMIN_TOKENS: token 1 lacks"),
    ("ALLOW_ANONYMOUS", "yes", "ALLOW_ANONYMOUS is `yes`: set it to true or false"),
    ("MAX_REQUESTS", "0", "MAX_REQUESTS is `0`: set it to a number from 1 to 100000"),
    ("MAX_CALLER_REQUESTS", "-1", "MAX_CALLER_REQUESTS is `-1`: set it to a number from 1 to 100000"),
    ("MAX_CONNECTIONS", "all", "MAX_CONNECTIONS is `all`: set it to a number from 1 to 1000000"),
    ("REDIS_HOST", "redis", ""),
    ("REDIS_PORT", "0", "REDIS_PORT is `0`: set it to a number from 1 to 65535"),
    ("RUST_LOG", "permcached=loud", "RUST_LOG is `permcached=loud`: set it to a level"),
    ("LOG_DECISIONS", "1.5", "LOG_DECISIONS is `1.5`: set it to a number from 0 to 1"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector", "OTEL_EXPORTER_OTLP_ENDPOINT is `collector`: set it to a URL"),
    (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "collector",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is `collector`: set it to a URL",
    ),
];

#[test]
fn all_mistakes_are_listed_at_once() {
    let mut variables: Vec<_> = WRONG.iter().map(|(name, value, _)| (*name, *value)).collect();
    variables.push(("MONGODB_URI", "mongodb://h/db"));
    let said = Fixed::of(&variables).errors();
    for (name, _, wanted) in WRONG {
        assert!(said.contains(wanted), "{name}: {said}");
    }
    let wanted = WRONG.iter().filter(|(_, _, wanted)| !wanted.is_empty()).count();
    assert_eq!(said.lines().count(), wanted + 1, "{said}");
}

/// Those of which each value may be right are exercised by tests of their own; those that belong together, here.
#[test]
fn what_lacks_another_is_told() {
    for (name, value, wanted) in [
        ("TLS_KEY_FILE", "k.pem", "TLS_KEY_FILE is set without TLS_CERT_FILE"),
        ("TLS_CERT_FILE", "c.pem", "TLS_CERT_FILE is set without TLS_KEY_FILE"),
        ("TLS_CLIENT_CA_FILE", "ca.pem", "TLS_CLIENT_CA_FILE is set, and the port speaks no TLS"),
        ("REDIS_URL", "http://:s3cret@redis", "REDIS_URL is not the URL of a Redis"),
        (
            "REDIS_HOST",
            "redis://:s3cret@cache",
            "REDIS_HOST is not the name of a host: set it to the name or address of a host",
        ),
        ("REDIS_PORT", "6379", "REDIS_PORT is set, but neither REDIS_URL nor REDIS_HOST"),
        ("REDIS_PASSWORD", "s3cret", "REDIS_PASSWORD is set, but neither REDIS_URL nor REDIS_HOST"),
        ("REDIS_CA_FILE", "ca.pem", "REDIS_CA_FILE is set, but neither REDIS_URL nor REDIS_HOST"),
        ("PROBE_PORT", "50051", "PROBE_PORT is 50051, and so is PORT"),
        ("MAX_CALLER_REQUESTS", "1025", "MAX_CALLER_REQUESTS is `1025`: set it to a number from 1 to 1024"),
        ("AUTH_TOKENS", " , ", "AUTH_TOKENS names nobody"),
        ("AUTH_TOKENS", "a:s3cret,b:s3cret", "AUTH_TOKENS: token 2 has the secret of another"),
        ("BIND_ADDRESS", "0.0.0.0", "0.0.0.0 is to be listened on, and callers are not authenticated"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "u:s3cret@c", "OTEL_EXPORTER_OTLP_ENDPOINT is `(hidden)`: set it to a URL"),
    ] {
        let said = Fixed::right(&[(name, value)]).errors();
        assert!(said.contains(wanted) && said.lines().count() == 2 && !said.contains("s3cret"), "{name}: {said}");
    }
    let said = Fixed::right(&[("REDIS_URL", "rediss://r"), ("REDIS_CA_FILE", "/nowhere/ca.pem")]).errors();
    assert!(said.contains("REDIS_CA_FILE is `/nowhere/ca.pem`, which cannot be read"), "{said}");
    let files =
        [("TLS_CERT_FILE", "/nowhere/c"), ("TLS_KEY_FILE", "/nowhere/k"), ("TLS_CLIENT_CA_FILE", "/nowhere/ca")];
    let said = Fixed::right(&files).errors();
    assert!(
        files.iter().all(|(name, path)| said.contains(&format!("{name} is `{path}`, which cannot be read"))),
        "{said}"
    );
    let both = [("AUTH_TOKENS", "s3cret"), ("AUTH_ADMIN_TOKENS", "s3cret")];
    assert!(Fixed::right(&both).errors().contains("AUTH_ADMIN_TOKENS: token 1 has the secret of another"));
    // Whatever else is wrong.
    let said = Fixed::of(&[("BIND_ADDRESS", "0.0.0.0")]).errors();
    assert!(said.contains("no schema is named") && said.contains("0.0.0.0 is to be listened on"), "{said}");
    let said = Fixed::of(&[("SCHEMA_FILE", "s")]).errors();
    assert!(said.contains("no source of facts is named: set MONGODB_URI"), "{said}");
}

#[test]
fn what_commands_need_is_checked_as_well() {
    let wrong = [
        ("PORT", "many", "PORT is `many`"),
        ("SERVER_CA_FILE", "/nowhere/ca.pem", "SERVER_CA_FILE is `/nowhere/ca.pem`, which cannot be read"),
        ("CLIENT_CERT_FILE", "/nowhere/c.pem", "CLIENT_CERT_FILE is `/nowhere/c.pem`, which cannot be read"),
        ("CLIENT_KEY_FILE", "/nowhere/k.pem", "CLIENT_KEY_FILE is `/nowhere/k.pem`, which cannot be read"),
    ];
    let said = Calling::read(&Fixed::of(&wrong.map(|(name, value, _)| (name, value)))).unwrap_err().to_string();
    assert!(wrong.iter().all(|(_, _, wanted)| said.contains(wanted)), "{said}");
    let certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let said = Calling::read(&Fixed::of(&[("CLIENT_CERT_FILE", certificate)])).unwrap_err().to_string();
    assert!(said.contains("CLIENT_CERT_FILE and CLIENT_KEY_FILE belong together"), "{said}");
}

#[test]
fn what_commands_need_is_where_the_service_of_this_machine_is() {
    let calling = Calling::read(&Fixed::of(&[])).unwrap();
    assert_eq!((&*calling.local, &*calling.local_probes), ("http://127.0.0.1:50051", "http://127.0.0.1:50051"));
    let set = [("PORT", "1"), ("PROBE_PORT", "2"), ("TLS_CERT_FILE", "c"), ("AUTH_TOKEN", "s3cret")];
    let calling = Calling::read(&Fixed::of(&set)).unwrap();
    assert_eq!((&*calling.local, &*calling.local_probes), ("https://127.0.0.1:1", "http://127.0.0.1:2"));
    assert_eq!(calling.token.as_ref().unwrap().reveal(), "s3cret");
    assert!(!format!("{calling:?}").contains("s3cret"));
}

/// Each variable has an effect when it is right.
#[test]
fn every_value_counts() {
    let changed = |name: &str, value: &str| {
        let plain = format!("{:?}", Fixed::right(&[]).config());
        let set = format!("{:?}", Fixed::right(&[(name, value)]).config());
        assert_ne!(plain, set, "{name}");
        set
    };
    for (name, value, wanted) in [
        ("SCHEMA_FILE", "other.toml", "schema: \"other.toml\""),
        ("DOCUMENTS_DIR", "other", "Documents(\"other\")"),
        ("MAX_STALENESS", "750ms", "staleness_max: 750ms"),
        ("CACHE_MAX_BYTES", "12345", "memory_bytes_max: 12345"),
        ("OBSERVED_FACTS", "7", "observed_facts: 7"),
        ("PORT", "4242", "127.0.0.1:4242"),
        ("BIND_ADDRESS", "127.0.0.9", "127.0.0.9:50051"),
        ("PROBE_PORT", "4243", "probes: Some(127.0.0.1:4243)"),
        ("REFLECTION", "false", "reflection: false"),
        ("STARTUP_GRACE", "0s", "startup_grace: 0ns"),
        ("AUTH_TOKENS", "backend:s3cret", "backend:(hidden):check"),
        ("AUTH_ADMIN_TOKENS", "operator:s3cret", "operator:(hidden):admin"),
        ("ALLOW_ANONYMOUS", "true", "0.0.0.0:50051"),
        ("MAX_REQUESTS", "8", "requests_max: 8, caller_requests_max: 6"),
        ("MAX_CALLER_REQUESTS", "6", "caller_requests_max: 6"),
        ("MAX_CONNECTIONS", "7", "connections_max: 7"),
        ("REDIS_URL", "redis://:s3cret@cache:1", "cache:1"),
        ("REDIS_HOST", "cache", "cache:6379"),
        ("RUST_LOG", "debug", "log_filter: \"debug\""),
        ("LOG_DECISIONS", "0.25", "logged_decisions: 0.25"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317", "traces: Some(\"http://c:4317\")"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4317", "traces: Some(\"http://t:4317\")"),
    ] {
        let config = changed(name, value);
        assert!(config.contains(wanted) && !config.contains("s3cret"), "{name}: {config}");
    }
    for name in ["MONGODB_URI", "MONGO_URI", "DB_URI"] {
        let set = Fixed::of(&[("SCHEMA_FILE", "s.toml"), (name, "mongodb://u:pw@h/db"), ("MONGODB_DATABASE", "shop")]);
        let config = set.config();
        let SourceConfig::MongoDb { uri, database } = &config.source else { panic!("{config:?}") };
        assert_eq!((uri.reveal(), database.as_deref()), ("mongodb://u:pw@h/db", Some("shop")));
        assert!(!format!("{config:?}").contains("pw"));
    }
    let redis = Fixed::right(&[("REDIS_HOST", "cache"), ("REDIS_PORT", "7"), ("REDIS_PASSWORD", "s3cret")]).config();
    assert!(format!("{redis:?}").contains("cache:7") && !format!("{redis:?}").contains("s3cret"), "{redis:?}");
    let both = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t")];
    assert_eq!(Fixed::right(&both).config().traces.as_deref(), Some("http://t"));
}

#[test]
fn a_file_says_what_nothing_else_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("permcached.toml");
    let write = |text: &str| fs::write(&path, text).unwrap();
    let read = |variables: &[(&str, &str)]| {
        let path = path.display().to_string();
        Config::read(&Overrides::default(), &Fixed::of(&[variables, &[("CONFIG_FILE", path.as_str())]].concat()))
    };
    write(
        "schema_file = 's.toml'\ndocuments_dir = 'd'\nport = 1\nlog_decisions = 0.5\nreflection = false\nmax_requests = 9\n\
         auth_tokens = ['a:s3cret', 'b:s3cret2']",
    );
    let config = read(&[("PORT", "2")]).unwrap();
    assert_eq!((config.listen.port(), config.limits.requests_max, config.reflection), (2, 9, false));
    assert!(format!("{:?}", config.callers).contains("b:(hidden)"), "{:?}", config.callers);

    write("prot = 1\nport = { a = 1 }\nschema_file = 's'\ndocuments_dir = 'd'\nconfig_file = 'c'\nreflection = 'no'");
    let said = read(&[]).unwrap_err().to_string();
    for wanted in [
        "`prot` is no variable, by its name in lower case: did you mean `port`?",
        "`port` is neither a text, a number, true, false nor a list of texts",
        "`config_file` is no variable",
        "REFLECTION is `no`",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    write("schema_file = 's.toml'\nredis_password = s3cret");
    let said = read(&[]).unwrap_err().to_string();
    assert!(said.contains("permcached.toml, line 2: ") && !said.contains("s3cret"), "{said}");
}

#[test]
fn an_option_goes_before_the_environment() {
    let path = |text: &str| Some(Path::new(text).to_owned());
    let overrides = Overrides::default()
        .with(&SCHEMA_FILE, path("o.toml"))
        .with(&DOCUMENTS_DIR, path("o"))
        .with(&PORT, Some("3"))
        .with(&BIND_ADDRESS, None::<String>);
    let set = Fixed::of(&[("SCHEMA_FILE", "e.toml"), ("MONGODB_URI", "mongodb://h/db"), ("PORT", "many")]);
    let config = Config::read(&overrides, &set).unwrap();
    assert_eq!(config.schema, Path::new("o.toml"));
    assert!(matches!(&config.source, SourceConfig::Documents(directory) if directory == Path::new("o")), "{config:?}");
    assert_eq!(config.listen.to_string(), "127.0.0.1:3");
}

#[test]
fn what_is_no_text_is_not_taken_for_nothing() {
    let mut set = Fixed::right(&[]);
    set.0.insert("AUTH_TOKENS".to_owned(), OsString::from_vec(vec![b'a', 0xff]));
    assert!(set.errors().contains("AUTH_TOKENS is not in UTF-8"), "{}", set.errors());
}

#[test]
fn listens_on_this_machine_alone_unless_told_otherwise() {
    let set = Fixed::right(&[]);
    assert_eq!(set.config().listen.to_string(), "127.0.0.1:50051");
    let everywhere = Overrides::default().with(&BIND_ADDRESS, Some("0.0.0.0")).with(&PORT, Some("1"));
    let error = Config::read(&everywhere, &set).unwrap_err().to_string();
    assert!(error.contains("AUTH_TOKENS") && error.contains("ALLOW_ANONYMOUS"), "{error}");
    for (name, value) in
        [("AUTH_TOKENS", "backend:s3cret"), ("AUTH_ADMIN_TOKENS", "s3cret"), ("ALLOW_ANONYMOUS", "true")]
    {
        let set = Fixed::right(&[(name, value)]);
        assert_eq!(Config::read(&everywhere, &set).unwrap().listen.to_string(), "0.0.0.0:1");
        assert_eq!(set.config().listen.to_string(), "0.0.0.0:50051");
    }
}

#[test]
fn every_wrong_token_is_named_by_its_place_and_none_is_shown() {
    let said = Fixed::right(&[
        ("AUTH_TOKENS", "good:s3cret, :s3cret,name:,a:s3cret:root,a:s3cret:check:more,s3\u{e9}cret"),
        ("AUTH_ADMIN_TOKENS", "x:"),
    ])
    .errors();
    for wanted in [
        "AUTH_TOKENS: token 2 lacks",
        "AUTH_TOKENS: token 3 lacks",
        "AUTH_TOKENS: token 4 has a scope",
        "AUTH_TOKENS: token 5 has too many",
        "AUTH_TOKENS: token 6 holds",
        "AUTH_ADMIN_TOKENS: token 1 lacks",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert!(!said.contains("s3"), "{said}");
    let both = Fixed::right(&[("AUTH_TOKENS", "s3cret"), ("ALLOW_ANONYMOUS", "true")]).errors();
    assert!(both.contains("both ALLOW_ANONYMOUS=true and tokens are set"), "{both}");
}

#[test]
fn what_counts_is_shown_without_secrets() {
    let set = Fixed::right(&[
        ("MONGODB_URI", "mongodb://u:s3cret@h/db"),
        ("AUTH_TOKENS", "backend:s3cret"),
        ("REDIS_PASSWORD", "s3cret"),
        ("PORT", "4242"),
    ]);
    let shown = effective(&Overrides::default().with(&SCHEMA_FILE, Some("o.toml")), &set);
    let line = |name: &str| shown.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_default();
    assert!(line("SCHEMA_FILE").ends_with("o.toml  (option)"), "{shown}");
    assert!(line("PORT").ends_with("4242  (environment)"), "{shown}");
    assert!(line("MAX_STALENESS").ends_with("2s  (default)"), "{shown}");
    // That two sources are named here is another matter.
    assert!(line("BIND_ADDRESS").ends_with("0.0.0.0  (default)"), "{shown}");
    // Nobody knows what follows from what is wrong.
    let wrong = effective(&Overrides::default(), &Fixed::right(&[("AUTH_TOKENS", "a:b:c:d"), ("MAX_REQUESTS", "0")]));
    assert!(!wrong.contains("BIND_ADDRESS") && !wrong.contains("MAX_CALLER_REQUESTS"), "{wrong}");
    for name in ["MONGODB_URI", "AUTH_TOKENS", "REDIS_PASSWORD"] {
        assert!(line(name).ends_with("(hidden)  (environment)"), "{shown}");
    }
    assert!(!shown.contains("s3cret"), "{shown}");
}

/// What the manual's tables say is what is read: each default counts when it is written out, and each name is there once.
#[test]
fn defaults_are_what_the_manual_says() {
    let plain = format!("{:?}", Fixed::right(&[]).config());
    for variable in all() {
        assert_eq!(all().filter(|other| other.name == variable.name).count(), 1, "{}", variable.name);
        // These say nothing without another.
        if let Some(default) = variable.default
            && *variable != REDIS_PORT
        {
            assert_eq!(format!("{:?}", Fixed::right(&[(variable.name, default)]).config()), plain, "{}", variable.name);
        }
        assert!(manual().contains(&format!("| `{}` |", variable.name)));
    }
}
