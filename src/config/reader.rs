//! Reads variables. The first of these that sets a variable counts: an option, the environment, the configuration file, the
//! default. Collects errors instead of stopping at the first.
//!
//! Does not know what the variables mean.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, str::FromStr};

use super::variable::{AUTH_TOKEN, CONFIG_FILE, METRICS_TOKEN, REDIS_PASSWORD, REDIS_SECRET, Variable, all};
use crate::{
    diagnosis::{Diagnosis, Subject},
    schema::suggestion,
};

/// Secrets of any form. A quote that was left at one end of one would belong to it.
const FORMLESS: [&Variable; 4] = [&AUTH_TOKEN, &METRICS_TOKEN, &REDIS_PASSWORD, &REDIS_SECRET];

/// Where environment variables are read from.
pub trait Environment {
    /// The value of a variable. None if it is unset or empty.
    fn get(&self, name: &str) -> Option<OsString>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name).filter(|value| !value.is_empty())
    }
}

/// The options of the command line, by variable. They take precedence over the environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides(BTreeMap<&'static str, OsString>);

impl Overrides {
    /// Adds the option for this variable, if it is given.
    #[must_use]
    pub fn with(mut self, variable: &Variable, value: Option<impl Into<OsString>>) -> Self {
        if let Some(value) = value {
            self.0.insert(variable.name, value.into());
        }
        self
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An option of the command.
    Option,
    /// A variable of the environment.
    Environment,
    /// The configuration's file.
    File,
    /// The variable is not set.
    Default,
}

impl Origin {
    /// The name in the output of `permcached config`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Option => "option",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        }
    }
}

/// Reads variables, and collects errors.
pub(super) struct Reader<'a> {
    overrides: &'a Overrides,
    environment: &'a dyn Environment,
    file: BTreeMap<String, String>,
    errors: Vec<String>,
    notes: Vec<Diagnosis>,
}

impl<'a> Reader<'a> {
    /// Reads the configuration file first, if one is named.
    pub(super) fn new(overrides: &'a Overrides, environment: &'a dyn Environment) -> Self {
        let mut reader = Self { overrides, environment, file: BTreeMap::new(), errors: Vec::new(), notes: Vec::new() };
        if let Some((path, _)) = reader.find(&CONFIG_FILE) {
            reader.read_file(&path);
        }
        reader
    }

    /// All errors.
    pub(super) fn into_errors(self) -> Vec<String> {
        self.errors
    }

    /// The values that were read otherwise than they are written. Each text names the variable.
    pub(super) fn take_notes(&mut self) -> Vec<Diagnosis> {
        std::mem::take(&mut self.notes)
    }

    /// Adds a note, once.
    pub(super) fn add_note(&mut self, note: Diagnosis) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The number of errors so far.
    pub(super) fn error_count(&self) -> usize {
        self.errors.len()
    }

    /// Whether there is no error so far.
    pub(super) fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    /// Adds an error.
    pub(super) fn add_error(&mut self, error: String) {
        self.errors.push(error);
    }

    /// The text of a variable and where it was set. None if it is not set, or not in UTF-8, which is an error.
    pub(super) fn find(&mut self, variable: &Variable) -> Option<(String, Origin)> {
        let given = self.overrides.0.get(variable.name).cloned().map(|value| (value, Origin::Option));
        let set = || self.environment.get(variable.name).map(|value| (value, Origin::Environment));
        if let Some((value, origin)) = given.or_else(set) {
            let name = if origin == Origin::Option { variable.option.unwrap_or_default() } else { variable.name };
            return match value.into_string() {
                // A shell has removed the quotes of an option.
                Ok(text) if origin == Origin::Option => Some((text, origin)),
                Ok(text) => self.bare(variable, &text).map(|text| (text, origin)),
                Err(_) => {
                    self.add_once(format!("{name} is not valid UTF-8: set it to text"));
                    None
                }
            };
        }
        let text = self.file.get(variable.name).cloned()?;
        self.bare(variable, &text).map(|text| (text, Origin::File))
    }

    /// The text without the white space and the pair of quotes around it, which files of variables and of secrets leave there.
    /// Within quotes, a password keeps its white space.
    fn bare(&mut self, variable: &Variable, text: &str) -> Option<String> {
        let name = variable.name;
        let trimmed = text.trim_matches(is_blank);
        if trimmed.len() < text.len() {
            let note = format!("{name} has white space around its value, which is left out");
            self.add_note(Diagnosis::warning(Subject::Configuration, note, "write it without white space"));
        }
        let unquoted = ['"', '\''].into_iter().find_map(|quote| {
            let inner = trimmed.strip_prefix(quote)?.strip_suffix(quote)?;
            let kept = if *variable == REDIS_PASSWORD { inner } else { inner.trim_matches(is_blank) };
            Some((quote, kept))
        });
        let bare = match unquoted {
            None if FORMLESS.contains(&variable) && has_quote(trimmed) => {
                self.add_once(format!(
                    "{name} begins or ends with a quote without a counterpart: leave it out; if it belongs to the value, put the \
                     value into quotes of the other kind"
                ));
                return None;
            }
            None => trimmed,
            Some((quote, inner)) if inner.contains(quote) => {
                self.add_once(format!(
                    "{name} begins and ends with {quote}, and has more of them: leave out the quotes; if they belong to the \
                     value, put it into quotes of the other kind"
                ));
                return None;
            }
            // It cannot be written without them.
            Some((_, inner)) if has_quote(inner) || inner.trim_matches(is_blank).len() < inner.len() => inner,
            Some((_, inner)) => {
                let note = format!("{name} has quotes around its value, which are left out");
                self.add_note(Diagnosis::warning(Subject::Configuration, note, "write it without quotes"));
                inner
            }
        };
        if bare.is_empty() {
            self.add_once(format!("{name} has only white space or quotes: set it to a value, or unset it"));
            return None;
        }
        Some(bare.to_owned())
    }

    /// Adds an error about a variable that is read several times.
    fn add_once(&mut self, error: String) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// As [`Reader::find`], without the origin.
    pub(super) fn text(&mut self, variable: &Variable) -> Option<String> {
        self.find(variable).map(|(text, _)| text)
    }

    /// As [`Reader::text`], as a path.
    pub(super) fn path(&mut self, variable: &Variable) -> Option<PathBuf> {
        self.text(variable).map(PathBuf::from)
    }

    /// The value of a variable, or its default. None if it has neither, or if the value is invalid. The error then shows `wanted`,
    /// the values that are valid.
    pub(super) fn parse<T>(
        &mut self,
        variable: &Variable,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let Some(text) = self.text(variable) else { return variable.default.and_then(parse) };
        let value = parse(&text);
        if value.is_none() {
            self.add_error(format!("{} is `{}`: set it to {wanted}", variable.name, shown(variable, &text)));
        }
        value
    }

    /// As [`Reader::parse`], for a number within a range.
    pub(super) fn number<T>(&mut self, variable: &Variable, range: std::ops::RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        self.parse(variable, &wanted, |text| text.parse().ok().filter(|number| range.contains(number)))
    }

    /// As [`Reader::parse`], for `true` or `false`.
    pub(super) fn flag(&mut self, variable: &Variable) -> Option<bool> {
        self.parse(variable, "true or false", |text| text.parse().ok())
    }

    /// Reads the configuration file.
    fn read_file(&mut self, path: &str) {
        let name = CONFIG_FILE.name;
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.add_error(format!("{name} is `{path}`, which cannot be read: {error}")),
        };
        let table: toml::Table = match toml::from_str(&text) {
            Ok(table) => table,
            // The parser's own display shows the line, which may contain a secret.
            Err(error) => {
                let line =
                    error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
                return self.add_error(format!("{path}, line {line}: {}", error.message()));
            }
        };
        for (key, value) in table {
            let variable = all().find(|variable| variable.key() == key && **variable != CONFIG_FILE);
            let Some(variable) = variable else {
                let keys: Vec<String> = all().map(Variable::key).collect();
                let remedy = suggestion(&key, keys.iter().map(String::as_str)).unwrap_or_default();
                self.add_error(format!("{path}: `{key}` is not the name of a variable in lower case: {remedy}"));
                continue;
            };
            match as_text(&value) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => {
                    self.file.insert(variable.name.to_owned(), text);
                }
                Err(what) => self.add_error(format!("{path}: `{key}` {what}")),
            }
        }
    }
}

/// White space, or the mark that some editors put at the beginning of a file.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || character == '\u{feff}'
}

/// Whether a text begins or ends with a quote.
pub(super) fn has_quote(text: &str) -> bool {
    text.starts_with(['"', '\'']) || text.ends_with(['"', '\''])
}

/// A value as it may be shown. A value with an `@` is hidden too: it may be a URL with a password, set to the wrong variable.
pub(super) fn shown<'a>(variable: &Variable, text: &'a str) -> &'a str {
    if variable.is_secret || text.contains('@') { "(hidden)" } else { text }
}

/// A value of the file as the text that the environment variable would have.
fn as_text(value: &toml::Value) -> Result<String, &'static str> {
    const OTHER: &str = "is not a text, a number, true, false or a list of texts";
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            let texts = texts.ok_or(OTHER)?;
            // Joined, such an item would become two.
            if texts.iter().any(|text| text.contains(',')) {
                return Err("is a list with a comma inside a text: write each item as a text of its own");
            }
            Ok(texts.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => Err(OTHER),
    }
}
