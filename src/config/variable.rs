//! Every variable that is read: its name, its default, and what it is for. The manual's tables are made of these.

/// A variable of the environment, or a key of the configuration's file: its name in lower case.
#[derive(Debug, PartialEq, Eq)]
pub struct Variable {
    /// The name.
    pub name: &'static str,
    /// The option of the commands that goes before it.
    pub option: Option<&'static str>,
    /// What counts where it is not set.
    pub default: Option<&'static str>,
    /// Whether its value is shown to nobody.
    pub is_secret: bool,
    /// What it is for, as Markdown.
    pub what: &'static str,
}

impl Variable {
    /// Its key in the configuration's file.
    #[must_use]
    pub fn key(&self) -> String {
        self.name.to_ascii_lowercase()
    }
}

/// Some variables about one thing.
#[derive(Debug)]
pub struct Group {
    /// What they are about.
    pub title: &'static str,
    /// They.
    pub variables: &'static [&'static Variable],
}

/// Declares variables in groups: a constant for each, and all of them in order.
macro_rules! variables {
    ($($title:literal { $($name:ident $([$option:literal])? $(= $default:literal)? $($secret:ident)?: $what:literal;)+ })+) => {
        $($(
            #[doc = $what]
            pub const $name: Variable = Variable {
                name: stringify!($name),
                option: variables!(@option $($option)?),
                default: variables!(@option $($default)?),
                is_secret: variables!(@secret $($secret)?),
                what: $what,
            };
        )+)+

        /// All variables, in the order of the manual.
        pub const GROUPS: &[Group] = &[$(Group { title: $title, variables: &[$(&$name),+] }),+];
    };
    (@option) => { None };
    (@option $value:literal) => { Some($value) };
    (@secret) => { false };
    (@secret secret) => { true };
}

variables! {
    "What is answered, and from what" {
        SCHEMA_FILE ["--schema"]: "the schema";
        MONGODB_URI secret: "the connection string of the database";
        MONGO_URI secret: "the same, where `MONGODB_URI` is not set";
        DB_URI secret: "the same, where neither is set";
        MONGODB_DATABASE: "the database, where the connection string names none, or another";
        DOCUMENTS_DIR ["--documents"]: "a directory of `<collection>.jsonl`, as `mongoexport` writes it, instead of a database; the option goes before the connection strings";
        CONFIG_FILE ["--config"]: "a TOML file with any of these, by their names in lower case; the environment goes before it";
    }
    "Freshness and memory" {
        MAX_STALENESS = "2s": "how old what an answer rests on may be, from `500ms` to `1m`";
        CACHE_MAX_BYTES = "67108864": "how many bytes of memory remembered facts take at most, with their tables";
        OBSERVED_FACTS = "1": "how many remembered facts are compared with MongoDB in a second, from `0` to `100`, where a change stream is followed: what is found wrong is counted as `permcached_stale_facts_total`";
    }
    "The port" {
        PORT ["--port"] = "50051": "the port; `0` takes a free one";
        BIND_ADDRESS ["--bind"]: "the address to listen on: `0.0.0.0` where callers are authenticated, else `127.0.0.1`";
        PROBE_PORT: "a second port without TLS and without calls: health over gRPC, `/healthz`, `/readyz` and `/metrics`";
        TLS_CERT_FILE: "the certificate chain of the port, as PEM: with it, the port speaks TLS alone. Read again within a minute of a change";
        TLS_KEY_FILE: "its private key, as PEM";
        TLS_CLIENT_CA_FILE: "the authorities, as PEM, of whose clients' certificates one is asked for (mutual TLS); tokens are needed all the same";
        REFLECTION = "true": "whether the port describes its services: `true` or `false`";
        STARTUP_GRACE = "20s": "how long the port stays closed while MongoDB cannot be reached at the start, from `0s` to `10m`; then it opens and is not ready";
    }
    "Callers" {
        AUTH_TOKENS secret: "who may call: `name:secret[:scope],…`, the scope being `check` or `admin`; a bare secret is a caller with the scope `check`";
        AUTH_ADMIN_TOKENS secret: "the same with the scope `admin`: `Explain`, `Invalidate` and `Watch`";
        ALLOW_ANONYMOUS = "false": "`true` lets anybody call from anywhere who reaches the port";
    }
    "Limits" {
        MAX_REQUESTS = "1024": "how many requests are handled at once, from `1` to `100000`; more are refused as `RESOURCE_EXHAUSTED`";
        MAX_CALLER_REQUESTS: "how many of them one caller has, so that others have room: three quarters where it is not set";
        MAX_CONNECTIONS = "10000": "how many connections are open at once, from `1` to `1000000`; more are closed at once";
    }
    "Several instances" {
        REDIS_URL secret: "the Redis that instances share: `redis://` or `rediss://`, several with commas for a cluster";
        REDIS_HOST: "its host, where `REDIS_URL` is not set";
        REDIS_PORT = "6379": "its port, with `REDIS_HOST`";
        REDIS_PASSWORD secret: "its password, with `REDIS_HOST`";
        REDIS_CA_FILE: "the certificate authority of a `rediss://` server that has its own, as PEM";
    }
    "What is recorded" {
        RUST_LOG = "info": "what is logged: a level, or [directives](https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/struct.EnvFilter.html#directives)";
        LOG_DECISIONS = "0": "which share of the answers is logged, from `0` to `1`";
        OTEL_EXPORTER_OTLP_ENDPOINT: "where traces are sent by OTLP over gRPC, such as `http://127.0.0.1:4317`; none are recorded without";
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "the same, before that";
    }
    "Commands that call a server" {
        AUTH_TOKEN secret: "the token that they send";
        SERVER_CA_FILE: "the certificate authority of an `https://` server that has its own, as PEM; else those of the system count";
        CLIENT_CERT_FILE: "the certificate chain with which they answer to mutual TLS, as PEM";
        CLIENT_KEY_FILE: "its private key, as PEM";
    }
}

/// Each variable.
pub fn all() -> impl Iterator<Item = &'static Variable> {
    GROUPS.iter().flat_map(|group| group.variables.iter().copied())
}
