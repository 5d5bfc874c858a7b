//! Declares every variable: its name, option, default and meaning. The tables of docs/configuration.md are made of these.
//!
//! Reads and validates no value.

/// An environment variable. Its name in lower case is a key of the configuration file.
#[derive(Debug, PartialEq, Eq)]
pub struct Variable {
    /// The name.
    pub name: &'static str,
    /// The command-line option that takes precedence over it.
    pub option: Option<&'static str>,
    /// The value if it is not set.
    pub default: Option<&'static str>,
    /// Whether its value is hidden.
    pub is_secret: bool,
    /// The meaning, as Markdown.
    pub what: &'static str,
}

impl Variable {
    /// Its key in the configuration file.
    #[must_use]
    pub fn key(&self) -> String {
        self.name.to_ascii_lowercase()
    }
}

/// A section of docs/configuration.md.
#[derive(Debug)]
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// The variables, in order.
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

        /// All variables, in the order of docs/configuration.md.
        pub const GROUPS: &[Group] = &[$(Group { title: $title, variables: &[$(&$name),+] }),+];
    };
    (@option) => { None };
    (@option $value:literal) => { Some($value) };
    (@secret) => { false };
    (@secret secret) => { true };
}

variables! {
    "Schema and data" {
        SCHEMA_FILE ["--schema"]: "the schema";
        MONGODB_URI secret: "the connection string of the database, such as the application's own";
        MONGO_URI secret: "the same, if `MONGODB_URI` is not set";
        DB_URI secret: "the same, if neither is set";
        MONGODB_DATABASE: "the name of the database; takes precedence over the one in the connection string";
        DOCUMENTS_DIR ["--documents"]: "a directory of `<collection>.jsonl` files, as `mongoexport` writes them, instead of a database; the option takes precedence over the connection strings";
        CONFIG_FILE ["--config"]: "a TOML file with any of these variables, by their names in lower case; the environment takes precedence over it";
    }
    "Freshness and memory" {
        MAX_STALENESS = "2s": "the greatest age of the facts that an answer is based on, from `500ms` to `1m`";
        CACHE_MAX_BYTES = "67108864": "the memory limit of cached facts and their tables, in bytes";
        OBSERVED_FACTS = "1": "how many cached facts are compared with MongoDB per second, from `0` to `100`, if an instance follows a change stream; `permcached_stale_facts_total` counts the wrong ones";
    }
    "The port" {
        PORT ["--port"] = "50051": "the port; `0` takes a free one";
        BIND_ADDRESS ["--bind"]: "the address to listen on; if unset, it is `0.0.0.0` if callers are authenticated or `ALLOW_ANONYMOUS` is `true`, else `127.0.0.1`";
        PROBE_PORT: "a second port, without TLS, that only serves gRPC health, `/healthz`, `/readyz` and `/metrics`";
        TLS_CERT_FILE: "the certificate chain of the port, as PEM; if set, the port accepts TLS only. A changed file is read again within ten seconds";
        TLS_KEY_FILE: "its private key, as PEM";
        TLS_CLIENT_CA_FILE: "the authorities of client certificates, as PEM: each client must present a certificate (mutual TLS), and a token as before";
        TLS_CLIENT_CRL_FILE: "the revocation lists of these authorities, as PEM: a revoked client is refused. Without a readable, current list of its authority, every client is refused. A changed file is read again within ten seconds";
        TLS_CLIENT_NAMES: "the host names and URIs, separated by commas, of which a client's certificate must have one in its subjectAltName, exactly as written; the common name does not count. If unset, every name is accepted";
        REFLECTION = "true": "whether the port offers gRPC reflection: `true` or `false`";
        STARTUP_GRACE = "20s": "how long the port stays closed at the start while MongoDB cannot be reached, from `0s` to `10m`; then the port opens, and reports not ready. A port in use is tried again for as long; then the start fails";
    }
    "Callers" {
        AUTH_TOKENS secret: "the callers: `name:secret[:scope],…`. A name has 1 to 15 ASCII letters, digits, `-`, `_` and `.`, and is shown in logs and metrics. A secret has 16 characters or more, of those that a bearer token may have. The scope is `check` (the default), `watch`, which also allows `Watch`, or `admin`";
        AUTH_ADMIN_TOKENS secret: "the same with the default scope `admin`, which allows every call: also `Explain`, `Invalidate` and `Watch`";
        METRICS_TOKEN secret: "if set, `/metrics` requires `authorization: Bearer` with this secret, on both ports; several secrets are separated by commas";
        ALLOW_ANONYMOUS = "false": "`true` lets in every client that reaches the port, from every address, without a token";
    }
    "Limits" {
        MAX_REQUESTS = "1024": "how many requests are handled at once, from `1` to `100000`; further ones get `RESOURCE_EXHAUSTED`";
        MAX_CALLER_REQUESTS: "how many of them may be one caller's, so that others are still served; if unset, it is three quarters";
        MAX_CONNECTIONS = "1024": "how many connections are open at once, from `1` to `1000000`; then idle connections give way to new ones, first those of clients that have not called yet. It is lowered at the start to what the limit of file descriptors (`ulimit -n`) allows";
    }
    "Several instances" {
        REDIS_URL secret: "the Redis that the instances share: a `redis://` or `rediss://` URL; for a cluster, several URLs separated by commas";
        REDIS_HOST: "its host, if `REDIS_URL` is not set";
        REDIS_PORT = "6379": "its port, with `REDIS_HOST`";
        REDIS_PASSWORD secret: "its password, with `REDIS_HOST`";
        REDIS_SECRET secret: "the secret by which the instances recognise what the others have written to Redis, from `openssl rand -hex 32`; the same on all instances, and known to nobody else. Without it, Redis is not used. For a rotation, up to four separated by commas: the first signs, all are accepted";
        REDIS_CA_FILE: "the certificate authority of the `rediss://` server, if it has its own, as PEM; a self-signed certificate is its own authority, and must not be marked as one (`CA:FALSE`)";
    }
    "Logs and traces" {
        RUST_LOG = "info": "the filter of the log: a level, or [directives](https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/struct.EnvFilter.html#directives)";
        LOG_DECISIONS = "0": "the share of the answers that is logged, from `0` to `1`";
        OTEL_EXPORTER_OTLP_ENDPOINT: "the URL to which traces are sent, by OTLP over gRPC, such as `http://127.0.0.1:4317`; if unset, no traces are recorded";
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "the same, with precedence over it";
    }
    "Commands that call a server" {
        AUTH_TOKEN secret: "the token to send";
        SERVER_CA_FILE: "the certificate authority of the `https://` server, if it has its own, as PEM; if unset, the system's authorities are trusted";
        CLIENT_CERT_FILE: "the client certificate chain for mutual TLS, as PEM";
        CLIENT_KEY_FILE: "its private key, as PEM";
    }
}

/// Each variable.
pub fn all() -> impl Iterator<Item = &'static Variable> {
    GROUPS.iter().flat_map(|group| group.variables.iter().copied())
}
