//! The manual's page about the configuration, and what counts right now: both made of the variables themselves.

use std::fmt::Write as _;

use super::{
    limits,
    reader::{Environment, Origin, Overrides, Reader, shown},
    tokens,
    variable::{BIND_ADDRESS, GROUPS, MAX_CALLER_REQUESTS, Variable, all},
};

/// What the page says before its tables.
const PREFACE: &str = "\
# Configuration

Everything is set by environment variables, or in a TOML file that `CONFIG_FILE` or `--config` names. An option goes before the
environment, the environment before the file; what is set to nothing is not set. All mistakes are listed at once, and with any
of them nothing starts. `permcached config` shows what counts and where it comes from, and no secret;
`permcached doctor` tries it.

In the file, a variable is a key in lower case. Numbers, `true` and `false` need no quotes, and lists may be lists:

```toml
schema_file = \"/etc/permcached/schema.toml\"
max_staleness = \"2s\"
port = 50051
auth_tokens = [\"backend:…\", \"worker:…\"]
```

*This page is made by `permcached config --manual`.*
";

/// What the page says after its tables.
const POSTSCRIPT: &str = "
The standard variables of OpenTelemetry that are not listed here (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
`OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`, `OTEL_BSP_…`, `OTEL_EXPORTER_OTLP_HEADERS`) mean what
[its specification](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/) says, in the environment alone.
";

/// The manual's page, as Markdown.
#[must_use]
pub fn manual() -> String {
    let mut page = PREFACE.to_owned();
    for group in GROUPS {
        let _infallible =
            write!(page, "\n## {}\n\n| variable | option | default | what |\n|---|---|---|---|\n", group.title);
        for Variable { name, option, default, what, .. } in group.variables {
            let quoted = |text: Option<&str>| text.map_or_else(String::new, |text| format!("`{text}`"));
            let _infallible = writeln!(page, "| `{name}` | {} | {} | {what} |", quoted(*option), quoted(*default));
        }
    }
    page + POSTSCRIPT
}

/// What counts for each variable, a line each: its value or that it is hidden, and where that comes from. What follows from
/// other variables is there unless something is wrong with them.
#[must_use]
pub fn effective(overrides: &Overrides, environment: &impl Environment) -> String {
    let mut reader = Reader::new(overrides, environment);
    let width = all().map(|variable| variable.name.len()).max().unwrap_or_default();
    let mut lines = String::new();
    for variable in all() {
        let set = reader.find(variable);
        let mut default = || variable.default.map(str::to_owned).or_else(|| derived(variable, &mut reader));
        let Some((value, origin)) = set.or_else(|| default().map(|value| (value, Origin::Default))) else { continue };
        let value = shown(variable, &value);
        let _infallible = writeln!(lines, "{:width$}  {value}  ({})", variable.name, origin.as_str());
    }
    lines
}

/// The default of a variable that has one by what others are set to.
fn derived(variable: &Variable, reader: &mut Reader<'_>) -> Option<String> {
    let before = reader.errors();
    let value = match *variable {
        BIND_ADDRESS => tokens::read(reader).bind.to_string(),
        MAX_CALLER_REQUESTS => limits(reader)?.caller_requests_max.to_string(),
        _ => return None,
    };
    (reader.errors() == before).then_some(value)
}
