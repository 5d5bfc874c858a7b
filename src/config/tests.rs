//! Each variable with valid and invalid values, and what is shown of them. Whether the service follows the configuration is
//! tested elsewhere.

use std::{collections::BTreeMap, ffi::OsString, fs, os::unix::ffi::OsStringExt, path::Path};

use super::{variable::all, *};

#[derive(Clone, Default)]
struct TestEnvironment(BTreeMap<String, OsString>);

impl TestEnvironment {
    fn of(variables: &[(&str, &str)]) -> Self {
        let set = variables.iter().filter(|(_, value)| !value.is_empty());
        Self(set.map(|(name, value)| ((*name).to_owned(), (*value).into())).collect())
    }

    /// The variables that are required, and these.
    fn valid(variables: &[(&str, &str)]) -> Self {
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

impl Environment for TestEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        self.0.get(name).cloned()
    }
}

/// Invalid values of variables, each with its error.
const INVALID: &[(&str, &str, &str)] = &[
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
    ("AUTH_TOKENS", "a:b:c:d", "AUTH_TOKENS: token 1 has too many colons"),
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
fn all_errors_are_listed_at_once() {
    let mut variables: Vec<_> = INVALID.iter().map(|(name, value, _)| (*name, *value)).collect();
    variables.push(("MONGODB_URI", "mongodb://h/db"));
    let errors = TestEnvironment::of(&variables).errors();
    for (name, _, wanted) in INVALID {
        assert!(errors.contains(wanted), "{name}: {errors}");
    }
    let wanted = INVALID.iter().filter(|(_, _, wanted)| !wanted.is_empty()).count();
    assert_eq!(errors.lines().count(), wanted + 1, "{errors}");
}

/// A file of variables keeps quotes, and a file of one secret ends with a line end.
#[test]
fn white_space_and_quotes_around_a_value_are_left_out_everywhere_with_a_warning() {
    let base = [("SCHEMA_FILE", "s.toml"), ("MONGODB_URI", "mongodb://u:pw@h/db"), ("REDIS_HOST", "cache")];
    let with = |name: &str, value: &str| {
        let others: Vec<_> = base.into_iter().filter(|(other, _)| *other != name).collect();
        TestEnvironment::of(&[&others[..], &[(name, value)]].concat())
    };
    for (name, value) in [
        ("MONGODB_URI", "mongodb://u:s3cret@h/db?replicaSet=rs0"),
        ("REDIS_URL", "redis://:s3cret@r:1"),
        ("REDIS_PASSWORD", "s3cret"),
        ("REDIS_SECRET", "s3cret-0123456789-0123456789-0123456789"),
        ("AUTH_TOKENS", "backend:s3cret-0123456789"),
        ("AUTH_ADMIN_TOKENS", "operator:s3cret-0123456789"),
        ("METRICS_TOKEN", "s3cret-0123456789"),
        ("REDIS_HOST", "redis"),
        ("PORT", "4242"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
    ] {
        let plain = Config { notes: Vec::new(), ..with(name, value).config() };
        for (written, warnings) in [
            (format!("{value}\n"), 1),
            (format!(" \t{value}\r\n"), 1),
            (format!("\u{feff}{value}"), 1),
            (format!("\"{value}\""), 1),
            (format!("'{value}'"), 1),
            (format!("\"{value}\"\n"), 2),
            (format!("' {value}\n'"), 1),
            (value.to_owned(), 0),
        ] {
            // Inside of quotes a password keeps white space: another test has that.
            if name == "REDIS_PASSWORD" && written.starts_with("' ") {
                continue;
            }
            let config = with(name, &written).config();
            let of_variable =
                config.notes.iter().filter(|note| note.message.starts_with(&format!("{name} has "))).count();
            assert_eq!(of_variable, warnings, "{written:?}: {:?}", config.notes);
            assert!(!format!("{:?}", config.notes).contains("s3cret"), "{:?}", config.notes);
            let shown = |config: &Config| {
                let secret = value.rsplit(':').next().unwrap_or(value);
                format!("{:?} {:?}", Config { notes: Vec::new(), ..config.clone() }, secrets_of(config, secret))
            };
            assert_eq!(shown(&config), shown(&plain), "{name} {written:?}");
            let hashed = match name {
                "AUTH_TOKENS" | "AUTH_ADMIN_TOKENS" => "true false",
                "METRICS_TOKEN" => "false true",
                _ => "false false",
            };
            assert!(shown(&config).trim_end_matches('"').ends_with(hashed), "{name} {written:?}");
        }
    }
    let token = ClientConfig::read(&TestEnvironment::of(&[("AUTH_TOKEN", "\"s3cret\"\n")])).unwrap();
    assert_eq!((token.token.unwrap().reveal(), token.notes.len()), ("s3cret", 2));
    // Quotes that belong to a value are put into quotes of the other kind.
    let quoted = with("MONGODB_URI", "'\"mongodb://h/db\"'").errors();
    assert!(quoted.contains("MONGODB_URI: it begins with neither"), "{quoted}");
}

/// What `Debug` hides. Of secrets of which there are only hashes, whether this is one of them.
fn secrets_of(config: &Config, secret: &str) -> String {
    let uri = match &config.source {
        SourceConfig::MongoDb { uri, .. } => uri.reveal().to_owned(),
        SourceConfig::Documents(_) => String::new(),
    };
    let redis = config.redis.as_ref().map(|redis| redis.server.secret_for_tests());
    let shared: Vec<&[u8]> =
        config.redis.iter().flat_map(|redis| redis.secrets.iter().flat_map(Secrets::reveal)).collect();
    let is_token = config.callers.has_secret_for_tests(secret);
    let is_metrics_token = config.metrics_tokens.as_ref().is_some_and(|tokens| tokens.has_secret_for_tests(secret));
    format!("{uri} {redis:?} {shared:?} {is_token} {is_metrics_token}")
}

#[test]
fn a_quote_at_the_end_of_a_secret_is_refused_and_a_password_may_be_put_into_quotes() {
    let secret = "s3cret-0123456789-0123456789-0123456789";
    let with = |name: &str, value: &str| {
        let set = [("SCHEMA_FILE", "s.toml"), ("DOCUMENTS_DIR", "d"), ("REDIS_HOST", "cache"), (name, value)];
        TestEnvironment::of(&set)
    };
    for name in ["METRICS_TOKEN", "REDIS_SECRET"] {
        for value in [
            format!("'{secret},\"{secret}x\"'"),
            format!("{secret},\"{secret}x\""),
            format!("\"{secret}"),
            format!("{secret}'"),
        ] {
            let errors = with(name, &value).errors();
            assert!(errors.contains(name) && errors.contains("a quote"), "{value}: {errors}");
            assert!(!errors.contains("s3cret"), "{errors}");
        }
    }
    assert!(with("REDIS_PASSWORD", "\"s3cret").errors().contains("quotes of the other kind"));
    let token = ClientConfig::read(&TestEnvironment::of(&[("AUTH_TOKEN", "s3cret'")])).unwrap_err().to_string();
    assert!(token.contains("AUTH_TOKEN begins or ends with a quote") && !token.contains("s3cret"), "{token}");
    for (written, password) in [("'\"s3cret'", "\"s3cret"), ("' s3cret '", " s3cret "), ("\"'s3cret\"\n", "'s3cret")] {
        let config = with("REDIS_PASSWORD", written).config();
        let found = config.redis.as_ref().and_then(|redis| redis.server.secret_for_tests());
        assert_eq!(found.as_deref(), Some(password), "{written}");
        assert!(!config.notes.iter().any(|note| note.message.contains("quotes")), "{:?}", config.notes);
    }
}

#[test]
fn errors_and_notes_of_a_connection_string_name_its_variable() {
    let of = |uri: &str| TestEnvironment::of(&[("SCHEMA_FILE", "s.toml"), ("MONGO_URI", uri)]);
    let config = of("mongodb://u:s3cret@h/db?socketTimeoutMS=45000&useUnifiedTopology=true").config();
    let notes: Vec<&str> = config.notes.iter().map(|note| note.message.as_str()).collect();
    assert_eq!(
        notes,
        ["MONGO_URI: without effect: `socketTimeoutMS` and `useUnifiedTopology`, because they are for other drivers"]
    );
    let errors = of("mongodb://u:s3cret@h:x/db?tls=on").errors();
    assert_eq!(errors.matches("MONGO_URI: ").count(), 2, "{errors}");
    assert!(!errors.contains("s3cret") && !errors.contains("percent-encode"), "{errors}");
}

/// Variables that are invalid only beside others, or that show no value.
#[test]
fn variables_that_do_not_fit_together_are_errors() {
    for (name, value, wanted) in [
        ("TLS_KEY_FILE", "k.pem", "TLS_KEY_FILE is set without TLS_CERT_FILE"),
        ("TLS_CERT_FILE", "c.pem", "TLS_CERT_FILE is set without TLS_KEY_FILE"),
        ("TLS_CLIENT_CA_FILE", "ca.pem", "TLS_CLIENT_CA_FILE is set, but the port does not use TLS"),
        ("TLS_CLIENT_CRL_FILE", "crl.pem", "TLS_CLIENT_CRL_FILE is set, but clients present no certificate"),
        ("TLS_CLIENT_NAMES", "backend", "TLS_CLIENT_NAMES is set, but clients present no certificate"),
        ("REDIS_URL", "http://:s3cret@redis", "REDIS_URL is not the URL of a Redis"),
        (
            "REDIS_HOST",
            "redis://:s3cret@cache",
            "REDIS_HOST is not the name of a host: set it to the name or address of a host",
        ),
        ("REDIS_PORT", "6379", "REDIS_PORT is set without REDIS_URL or REDIS_HOST"),
        ("REDIS_PASSWORD", "s3cret", "REDIS_PASSWORD is set without REDIS_URL or REDIS_HOST"),
        ("REDIS_CA_FILE", "ca.pem", "REDIS_CA_FILE is set without REDIS_URL or REDIS_HOST"),
        (
            "REDIS_SECRET",
            "s3cret-0123456789-0123456789-0123456789",
            "REDIS_SECRET is set without REDIS_URL or REDIS_HOST",
        ),
        ("PROBE_PORT", "50051", "PROBE_PORT and PORT are both 50051"),
        ("MAX_CALLER_REQUESTS", "1025", "MAX_CALLER_REQUESTS is `1025`: set it to a number from 1 to 1024"),
        ("AUTH_TOKENS", " ", "AUTH_TOKENS has only white space or quotes"),
        ("AUTH_TOKENS", "a:s3cret-0123456789,", "AUTH_TOKENS: token 2 is empty"),
        ("METRICS_TOKEN", "''", "METRICS_TOKEN has only white space or quotes"),
        (
            "AUTH_TOKENS",
            "\"a:s3cret-0123456789\",\"b:s3cret-9876543210\"",
            "begins and ends with \", and has more of them",
        ),
        ("AUTH_TOKENS", "a:s3cret-0123456789,b:s3cret-0123456789", "AUTH_TOKENS: token 2 has the secret of another"),
        ("BIND_ADDRESS", "0.0.0.0", "BIND_ADDRESS is 0.0.0.0, and callers are not authenticated"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "u:s3cret@c", "OTEL_EXPORTER_OTLP_ENDPOINT is `(hidden)`: set it to a URL"),
    ] {
        let errors = TestEnvironment::valid(&[(name, value)]).errors();
        assert!(
            errors.contains(wanted) && errors.lines().count() == 2 && !errors.contains("s3cret"),
            "{name}: {errors}"
        );
    }
    let all_wrong = [("REDIS_URL", "redis://r"), ("REDIS_SECRET", "s3cret,"), ("REDIS_PORT", "x")];
    let errors = TestEnvironment::valid(&all_wrong).errors();
    for wanted in ["REDIS_SECRET: secret 1 has fewer than 32 characters", "REDIS_SECRET: secret 2 is empty"] {
        assert!(errors.contains(wanted) && !errors.contains("s3cret"), "{errors}");
    }
    let errors = TestEnvironment::valid(&[("REDIS_URL", "rediss://r"), ("REDIS_CA_FILE", "/nowhere/ca.pem")]).errors();
    assert!(errors.contains("REDIS_CA_FILE is `/nowhere/ca.pem`, which cannot be read"), "{errors}");
    let files = [
        ("TLS_CERT_FILE", "/nowhere/c"),
        ("TLS_KEY_FILE", "/nowhere/k"),
        ("TLS_CLIENT_CA_FILE", "/nowhere/ca"),
        ("TLS_CLIENT_CRL_FILE", "/nowhere/crl"),
    ];
    let errors = TestEnvironment::valid(&files).errors();
    assert!(
        files.iter().all(|(name, path)| errors.contains(&format!("{name} is `{path}`, which cannot be read"))),
        "{errors}"
    );
    let both = [("AUTH_TOKENS", "a:s3cret-0123456789"), ("AUTH_ADMIN_TOKENS", "b:s3cret-0123456789")];
    assert!(TestEnvironment::valid(&both).errors().contains("AUTH_ADMIN_TOKENS: token 1 has the secret of another"));
    // This error is reported beside any others.
    let errors = TestEnvironment::of(&[("BIND_ADDRESS", "0.0.0.0")]).errors();
    assert!(
        errors.contains("no schema is named") && errors.contains("BIND_ADDRESS is 0.0.0.0, and callers"),
        "{errors}"
    );
    let errors = TestEnvironment::of(&[("SCHEMA_FILE", "s")]).errors();
    assert!(errors.contains("no source of facts is named: set MONGODB_URI"), "{errors}");
}

#[test]
fn every_invalid_name_of_a_client_is_named_by_its_place() {
    let names = "backend.internal, spiffe://example.org/worker,,*.internal,a b,b\u{fc}ro,CN=backend,a..b,ok-1.x_y";
    let errors = TestEnvironment::valid(&[("TLS_CLIENT_CA_FILE", "ca.pem"), ("TLS_CLIENT_NAMES", names)]).errors();
    for wanted in
        ["3 is empty", "4 has a `*`", "5 has a character", "6 has a character", "7 is neither", "8 is neither"]
    {
        assert!(errors.contains(&format!("TLS_CLIENT_NAMES: name {wanted}")), "{wanted}: {errors}");
    }
    assert_eq!(errors.matches("TLS_CLIENT_NAMES").count(), 6, "{errors}");
}

#[test]
fn the_client_configuration_lists_all_errors() {
    let wrong = [
        ("PORT", "many", "PORT is `many`"),
        ("SERVER_CA_FILE", "/nowhere/ca.pem", "SERVER_CA_FILE is `/nowhere/ca.pem`, which cannot be read"),
        ("CLIENT_CERT_FILE", "/nowhere/c.pem", "CLIENT_CERT_FILE is `/nowhere/c.pem`, which cannot be read"),
        ("CLIENT_KEY_FILE", "/nowhere/k.pem", "CLIENT_KEY_FILE is `/nowhere/k.pem`, which cannot be read"),
    ];
    let errors =
        ClientConfig::read(&TestEnvironment::of(&wrong.map(|(name, value, _)| (name, value)))).unwrap_err().to_string();
    assert!(wrong.iter().all(|(_, _, wanted)| errors.contains(wanted)), "{errors}");
    let certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let errors =
        ClientConfig::read(&TestEnvironment::of(&[("CLIENT_CERT_FILE", certificate)])).unwrap_err().to_string();
    assert!(errors.contains("CLIENT_CERT_FILE and CLIENT_KEY_FILE belong together"), "{errors}");
}

#[test]
fn the_client_configuration_has_the_addresses_of_the_local_service() {
    let client = ClientConfig::read(&TestEnvironment::of(&[])).unwrap();
    assert_eq!((&*client.local, &*client.local_probes), ("http://127.0.0.1:50051", "http://127.0.0.1:50051"));
    let set = [("PORT", "1"), ("PROBE_PORT", "2"), ("TLS_CERT_FILE", "c"), ("AUTH_TOKEN", "s3cret")];
    let client = ClientConfig::read(&TestEnvironment::of(&set)).unwrap();
    assert_eq!((&*client.local, &*client.local_probes), ("https://127.0.0.1:1", "http://127.0.0.1:2"));
    assert_eq!(client.token.as_ref().unwrap().reveal(), "s3cret");
    assert!(!format!("{client:?}").contains("s3cret"));
}

#[test]
fn every_variable_has_an_effect() {
    let changed = |name: &str, value: &str| {
        let plain = format!("{:?}", TestEnvironment::valid(&[]).config());
        let set = format!("{:?}", TestEnvironment::valid(&[(name, value)]).config());
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
        ("AUTH_TOKENS", "backend:s3cret-0123456789", "backend:(hidden):check"),
        ("AUTH_ADMIN_TOKENS", "operator:s3cret-0123456789", "operator:(hidden):admin"),
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
        let set = TestEnvironment::of(&[
            ("SCHEMA_FILE", "s.toml"),
            (name, "mongodb://u:pw@h/db"),
            ("MONGODB_DATABASE", "shop"),
        ]);
        let config = set.config();
        let SourceConfig::MongoDb { uri, database } = &config.source else { panic!("{config:?}") };
        assert_eq!((uri.reveal(), database.as_deref()), ("mongodb://u:pw@h/db", Some("shop")));
        assert!(!format!("{config:?}").contains("pw"));
    }
    let redis =
        TestEnvironment::valid(&[("REDIS_HOST", "cache"), ("REDIS_PORT", "7"), ("REDIS_PASSWORD", "s3cret")]).config();
    assert!(format!("{redis:?}").contains("cache:7") && !format!("{redis:?}").contains("s3cret"), "{redis:?}");
    let both = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t")];
    assert_eq!(TestEnvironment::valid(&both).config().traces.as_deref(), Some("http://t"));
}

#[test]
fn the_environment_takes_precedence_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("permcached.toml");
    let write = |text: &str| fs::write(&path, text).unwrap();
    let read = |variables: &[(&str, &str)]| {
        let path = path.display().to_string();
        Config::read(
            &Overrides::default(),
            &TestEnvironment::of(&[variables, &[("CONFIG_FILE", path.as_str())]].concat()),
        )
    };
    write(
        "schema_file = 's.toml'\ndocuments_dir = 'd'\nport = 1\nlog_decisions = 0.5\nreflection = false\nmax_requests = 9\n\
         auth_tokens = ['a:s3cret-0123456789', 'b:s3cret-9876543210']",
    );
    let config = read(&[("PORT", "2")]).unwrap();
    assert_eq!((config.listen.port(), config.limits.requests_max, config.reflection), (2, 9, false));
    assert!(format!("{:?}", config.callers).contains("b:(hidden)"), "{:?}", config.callers);

    write(
        "prot = 1\nport = { a = 1 }\nschema_file = 's'\ndocuments_dir = 'd'\nconfig_file = 'c'\nreflection = 'no'\n\
         auth_tokens = ['a:s3cret-0123456789,b:s3cret-9876543210']",
    );
    let errors = read(&[]).unwrap_err().to_string();
    for wanted in [
        "`prot` is not the name of a variable in lower case: did you mean `port`?",
        "`port` is not a text, a number, true, false or a list of texts",
        "`config_file` is not the name of a variable",
        "`auth_tokens` is a list with a comma inside a text",
        "REFLECTION is `no`",
    ] {
        assert!(errors.contains(wanted), "{wanted}: {errors}");
    }
    write("schema_file = 's.toml'\nredis_password = s3cret");
    let errors = read(&[]).unwrap_err().to_string();
    assert!(errors.contains("permcached.toml, line 2: ") && !errors.contains("s3cret"), "{errors}");
}

#[test]
fn an_option_takes_precedence_over_the_environment() {
    let path = |text: &str| Some(Path::new(text).to_owned());
    let overrides = Overrides::default()
        .with(&SCHEMA_FILE, path("o.toml"))
        .with(&DOCUMENTS_DIR, path("o"))
        .with(&PORT, Some("3"))
        .with(&BIND_ADDRESS, None::<String>);
    let set = TestEnvironment::of(&[("SCHEMA_FILE", "e.toml"), ("MONGODB_URI", "mongodb://h/db"), ("PORT", "many")]);
    let config = Config::read(&overrides, &set).unwrap();
    assert_eq!(config.schema, Path::new("o.toml"));
    assert!(matches!(&config.source, SourceConfig::Documents(directory) if directory == Path::new("o")), "{config:?}");
    assert_eq!(config.listen.to_string(), "127.0.0.1:3");
}

#[test]
fn a_value_that_is_not_utf_8_does_not_count_as_unset() {
    let mut set = TestEnvironment::valid(&[]);
    set.0.insert("AUTH_TOKENS".to_owned(), OsString::from_vec(vec![b'a', 0xff]));
    assert!(set.errors().contains("AUTH_TOKENS is not valid UTF-8"), "{}", set.errors());
    // It is read several times, and has one error.
    for name in ["MAX_CALLER_REQUESTS", "REDIS_PORT"] {
        let mut set = TestEnvironment::valid(&[("REDIS_HOST", "cache")]);
        set.0.insert(name.to_owned(), OsString::from_vec(vec![b'1', 0xff]));
        assert_eq!(set.errors().matches("is not valid UTF-8").count(), 1, "{}", set.errors());
    }
}

#[test]
fn without_tokens_the_default_address_is_local() {
    let set = TestEnvironment::valid(&[]);
    assert_eq!(set.config().listen.to_string(), "127.0.0.1:50051");
    let everywhere = Overrides::default().with(&BIND_ADDRESS, Some("0.0.0.0")).with(&PORT, Some("1"));
    let error = Config::read(&everywhere, &set).unwrap_err().to_string();
    assert!(error.contains("AUTH_TOKENS") && error.contains("ALLOW_ANONYMOUS"), "{error}");
    for (name, value) in [
        ("AUTH_TOKENS", "backend:s3cret-0123456789"),
        ("AUTH_ADMIN_TOKENS", "operator:s3cret-0123456789"),
        ("ALLOW_ANONYMOUS", "true"),
    ] {
        let set = TestEnvironment::valid(&[(name, value)]);
        assert_eq!(Config::read(&everywhere, &set).unwrap().listen.to_string(), "0.0.0.0:1");
        assert_eq!(set.config().listen.to_string(), "0.0.0.0:50051");
    }
}

/// Invalid tokens, each with the start of its error. All secrets contain `s3cret`, in any case.
const INVALID_TOKENS: &[(&str, &str)] = &[
    // A secret without a name, with a scope or without.
    ("S3cret", "lacks a name or a secret"),
    ("s3cret-0123456789", "lacks a name or a secret"),
    ("s3cret-0123456789:", "lacks a name or a secret"),
    (":s3cret-0123456789", "lacks a name or a secret"),
    ("::admin", "lacks a name or a secret"),
    ("S3cret:admin", "has a scope where its secret should be"),
    ("s3cret-0123456789:admin", "has a scope where its secret should be"),
    ("s3cret-0123456789:check", "has a scope where its secret should be"),
    // The parts in another order.
    ("s3cret-0123456789:backend", "has a name of 16 characters or more"),
    ("s3cret-0123456789:backend:admin", "has a name of 16 characters or more"),
    ("s3cret-0123456789:notification-service", "has a name of 16 characters or more"),
    ("admin:s3cret-0123456789", "has a scope where its name should be"),
    ("admin:backend:s3cret-0123456789", "has a scope that is none of"),
    // The secret.
    ("backend:s3cret", "has a secret of fewer than 16"),
    ("backend:s3cret-12345678", "has a secret of fewer than 16"),
    ("backend:s3cret:admin", "has a secret of fewer than 16"),
    ("backend:================", "has a secret with other"),
    ("backend:s3cret 0123456789", "has a secret with other"),
    ("backend: s3cret-0123456789", "has a secret with other"),
    ("backend:\"s3cret-0123456789\"", "has a secret with other"),
    ("backend:'s3cret-0123456789'", "has a secret with other"),
    ("backend:${S3CRET_OF_BACKEND}", "has a secret with other"),
    ("backend:s3cret=0123456789", "has a secret with other"),
    ("backend:s3cr\u{e9}t-s3cret-0123", "has a secret with other"),
    ("backend:s3cret-0123456789\r\nworker", "has a secret with other"),
    ("backend:s3cret-0123456789\noperator:s3cret-9876543210", "has a scope that is none of"),
    // The name.
    ("\"backend:s3cret-0123456789\"", "has a name with other"),
    ("back end:s3cret-0123456789", "has a name with other"),
    ("\u{feff}b:s3cret-0123456789", "has a name with other"),
    ("anonymous:s3cret-0123456789", "has the name anonymous or other"),
    ("other:s3cret-0123456789:admin", "has the name anonymous or other"),
    // The scope.
    ("backend:s3cret-0123456789:root", "has a scope that is none of"),
    ("backend:s3cret-0123456789:Admin", "has a scope that is none of"),
    ("backend:s3cret-0123456789:", "has a scope that is none of"),
    ("backend:s3cret-0123456789:check:more", "has too many colons"),
    ("https://u:s3cret-0123456789@host", "has a scope that is none of"),
    ("", "is empty"),
];

#[test]
fn every_invalid_token_is_named_by_its_place_and_none_is_shown() {
    for (variable, other) in [("AUTH_TOKENS", "admin"), ("AUTH_ADMIN_TOKENS", "check")] {
        let valid = "good:s3cret-of-good-caller";
        let given: Vec<String> = INVALID_TOKENS.iter().map(|(token, _)| (*token).to_owned()).collect();
        let tokens = [&[valid.to_owned()], &given[..]]
            .concat()
            .join(",")
            .replace("admin:s3cret-0", &format!("{other}:s3cret-0"));
        let errors = TestEnvironment::valid(&[(variable, &tokens)]).errors();
        let errors: Vec<&str> = errors.lines().skip(1).collect();
        assert_eq!(errors.len(), INVALID_TOKENS.len(), "{errors:?}");
        for ((place, (token, wanted)), error) in (2..).zip(INVALID_TOKENS).zip(errors) {
            assert!(error.contains(&format!("{variable}: token {place} {wanted}")), "{token}: {error}");
            let has_remedy = ["write name:secret", "choose another name", "generate one with"]
                .iter()
                .any(|remedy| error.contains(remedy));
            assert!(has_remedy, "{error}");
            assert!(!error.to_lowercase().contains("s3cr") && !error.contains("0123"), "{error}");
        }
    }
    let both = TestEnvironment::valid(&[("AUTH_TOKENS", "a:s3cret-0123456789"), ("ALLOW_ANONYMOUS", "true")]).errors();
    assert!(both.contains("both ALLOW_ANONYMOUS=true and tokens are set"), "{both}");
}

#[test]
fn a_token_has_the_name_and_scope_in_its_text() {
    for (variable, token, wanted) in [
        ("AUTH_TOKENS", "backend:s3cret-0123456789", "backend:(hidden):check"),
        ("AUTH_TOKENS", " backend:s3cret-0123456789\r\n", "backend:(hidden):check"),
        ("AUTH_TOKENS", "backend:s3cret-0123456789:admin", "backend:(hidden):admin"),
        ("AUTH_TOKENS", "check:s3cret-0123456789", "check:(hidden):check"),
        ("AUTH_TOKENS", "admin:s3cret-0123456789:admin", "admin:(hidden):admin"),
        ("AUTH_ADMIN_TOKENS", "admin:s3cret-0123456789", "admin:(hidden):admin"),
        ("AUTH_ADMIN_TOKENS", "on-call_2.eu-w:s3cret.~+/-_AZaz09==", "on-call_2.eu-w:(hidden):admin"),
        ("AUTH_ADMIN_TOKENS", "backend:s3cret-0123456789:check", "backend:(hidden):check"),
    ] {
        let config = format!("{:?}", TestEnvironment::valid(&[(variable, token)]).config().callers);
        assert!(config.contains(wanted) && !config.contains("s3cret"), "{token}: {config}");
    }
}

#[test]
fn values_are_shown_without_secrets() {
    let set = TestEnvironment::valid(&[
        ("MONGODB_URI", "mongodb://u:s3cret@h/db"),
        ("AUTH_TOKENS", "backend:s3cret-0123456789"),
        ("REDIS_PASSWORD", "s3cret"),
        ("PORT", "4242"),
    ]);
    let shown = effective(&Overrides::default().with(&SCHEMA_FILE, Some("o.toml")), &set);
    let line = |name: &str| shown.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_default();
    assert!(line("SCHEMA_FILE").ends_with("o.toml  (option)"), "{shown}");
    assert!(line("PORT").ends_with("4242  (environment)"), "{shown}");
    assert!(line("MAX_STALENESS").ends_with("2s  (default)"), "{shown}");
    // That two sources are set is an error elsewhere, and does not matter here.
    assert!(line("BIND_ADDRESS").ends_with("0.0.0.0  (default)"), "{shown}");
    // Defaults that depend on invalid variables are left out.
    let wrong =
        effective(&Overrides::default(), &TestEnvironment::valid(&[("AUTH_TOKENS", "a:b:c:d"), ("MAX_REQUESTS", "0")]));
    assert!(!wrong.contains("BIND_ADDRESS") && !wrong.contains("MAX_CALLER_REQUESTS"), "{wrong}");
    let blank = effective(&Overrides::default(), &TestEnvironment::valid(&[("MAX_REQUESTS", " ")]));
    assert!(!blank.contains("MAX_CALLER_REQUESTS"), "{blank}");
    for name in ["MONGODB_URI", "AUTH_TOKENS", "REDIS_PASSWORD"] {
        assert!(line(name).ends_with("(hidden)  (environment)"), "{shown}");
    }
    assert!(!shown.contains("s3cret"), "{shown}");
}

/// A default that is set explicitly changes nothing, and each name is in the manual once.
#[test]
fn defaults_are_those_of_the_manual() {
    let plain = format!("{:?}", TestEnvironment::valid(&[]).config());
    for variable in all() {
        assert_eq!(all().filter(|other| other.name == variable.name).count(), 1, "{}", variable.name);
        // It requires REDIS_HOST.
        if let Some(default) = variable.default
            && *variable != REDIS_PORT
        {
            assert_eq!(
                format!("{:?}", TestEnvironment::valid(&[(variable.name, default)]).config()),
                plain,
                "{}",
                variable.name
            );
        }
        assert!(manual().contains(&format!("| `{}` |", variable.name)));
    }
}
