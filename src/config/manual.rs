//! docs/configuration.md and the output of `permcached config`, both made of the declared variables. Shows no secret.

use std::fmt::Write as _;

use super::{
    limits,
    reader::{Environment, Origin, Overrides, Reader, shown},
    tokens,
    variable::{BIND_ADDRESS, GROUPS, MAX_CALLER_REQUESTS, REDIS_HOST, REDIS_SECRET, REDIS_URL, Variable, all},
};

/// The text before the tables.
const PREFACE: &str = "\
# Configuration

permcached is configured by environment variables, or by a TOML file that `CONFIG_FILE` or `--config` names. An option takes
precedence over the environment, and the environment over the file. A variable with an empty value is not set. White space and one
pair of quotes around the value of a variable are left out, with a warning, whatever the variable: files of variables keep quotes,
and files of secrets end with a line end. To keep quotes that belong to a value, put it into quotes of the other kind. Quotes keep
the white space inside of them for `REDIS_PASSWORD` only. permcached lists all errors at once, and starts only if there are none.
`permcached config` shows each value and where it comes from, but no secret. `permcached doctor` tries the configuration.

In the file, a key is a variable in lower case. Numbers, `true` and `false` take no quotes, and a list may be a TOML array:

```toml
schema_file = \"/etc/permcached/schema.toml\"
max_staleness = \"2s\"
port = 50051
auth_tokens = [\"backend:…\", \"worker:…\"]
```

The connection string of MongoDB may be the application's own. Options of other official drivers, and those that say how an
application writes or from where it reads, have no effect; `permcached config` and the log name them. An option that would make
the connection less safe if it were left out is an error, such as a revocation list. `tlsAllowInvalidHostnames` has no effect:
host names are verified. `compressors` may list `zstd`, `snappy` and `zlib`; others are left out.

*`permcached config --manual` generates this page.*
";

/// The text after the tables.
const POSTSCRIPT: &str = "
permcached also reads standard variables of OpenTelemetry that are not listed here (`OTEL_SERVICE_NAME`,
`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`, `OTEL_BSP_…`, `OTEL_EXPORTER_OTLP_HEADERS`), from
the environment only. [Their specification](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/)
defines them.
";

/// docs/configuration.md.
#[must_use]
pub fn manual() -> String {
    let mut page = PREFACE.to_owned();
    for group in GROUPS {
        let _infallible =
            write!(page, "\n## {}\n\n| variable | option | default | meaning |\n|---|---|---|---|\n", group.title);
        for Variable { name, option, default, what, .. } in group.variables {
            let quoted = |text: Option<&str>| text.map_or_else(String::new, |text| format!("`{text}`"));
            let _infallible = writeln!(page, "| `{name}` | {} | {} | {what} |", quoted(*option), quoted(*default));
        }
    }
    page + POSTSCRIPT
}

/// One line for each variable that has a value: the value, or `(hidden)`, and where it comes from. A default that depends on other
/// variables is left out if those have errors.
#[must_use]
pub fn effective(overrides: &Overrides, environment: &impl Environment) -> String {
    let mut reader = Reader::new(overrides, environment);
    let width = all().map(|variable| variable.name.len()).max().unwrap_or_default();
    let mut lines = String::new();
    for variable in all() {
        let set = reader.find(variable);
        let default = || variable.default.map(str::to_owned).or_else(|| derived(variable, overrides, environment));
        let Some((value, origin)) = set.or_else(|| default().map(|value| (value, Origin::Default))) else { continue };
        // What is not set has nothing to hide.
        let value = if origin == Origin::Default { value.as_str() } else { shown(variable, &value) };
        let _infallible = writeln!(lines, "{:width$}  {value}  ({})", variable.name, origin.as_str());
    }
    lines
}

/// The default of a variable if it depends on other variables. None if those have errors.
fn derived(variable: &Variable, overrides: &Overrides, environment: &dyn Environment) -> Option<String> {
    // A new reader reports each error of these variables, also those that were seen before.
    let reader = &mut Reader::new(overrides, environment);
    let errors_before = reader.error_count();
    let value = match *variable {
        BIND_ADDRESS => tokens::read(reader).default_bind.to_string(),
        MAX_CALLER_REQUESTS => limits(reader)?.caller_requests_max.to_string(),
        REDIS_SECRET if reader.text(&REDIS_URL).or_else(|| reader.text(&REDIS_HOST)).is_some() => {
            "not set, so Redis is not used".to_owned()
        }
        _ => return None,
    };
    (reader.error_count() == errors_before).then_some(value)
}
