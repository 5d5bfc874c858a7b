//! Reads variables, each from the first that sets it: an option, the environment, the configuration's file; else its default.
//! Notes what is wrong, and what was read from where.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, str::FromStr};

use super::variable::{CONFIG_FILE, Variable, all};
use crate::schema::suggestion;

/// The variables that are set.
pub trait Environment {
    /// The value of a variable; none where it is unset or empty.
    fn get(&self, name: &str) -> Option<OsString>;
}

/// The variables of this process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name).filter(|value| !value.is_empty())
    }
}

/// What the command line says, by variable. It goes before the environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides(BTreeMap<&'static str, OsString>);

impl Overrides {
    /// With an option that stands for this variable, if it is given.
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
    /// Nothing says it.
    Default,
}

impl Origin {
    /// In a word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Option => "option",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        }
    }
}

/// Reads variables.
pub(super) struct Reader<'a> {
    overrides: &'a Overrides,
    environment: &'a dyn Environment,
    file: BTreeMap<String, String>,
    wrong: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Reads the configuration's file first, if one is named.
    pub(super) fn new(overrides: &'a Overrides, environment: &'a dyn Environment) -> Self {
        let mut reader = Self { overrides, environment, file: BTreeMap::new(), wrong: Vec::new() };
        if let Some((path, _)) = reader.find(&CONFIG_FILE) {
            reader.read_file(&path);
        }
        reader
    }

    /// Everything that is wrong so far.
    pub(super) fn into_errors(self) -> Vec<String> {
        self.wrong
    }

    /// How much is wrong so far.
    pub(super) fn errors(&self) -> usize {
        self.wrong.len()
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_right(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Notes something that is wrong.
    pub(super) fn refuse(&mut self, error: String) {
        self.wrong.push(error);
    }

    /// What is set, and by what.
    pub(super) fn find(&mut self, variable: &Variable) -> Option<(String, Origin)> {
        let given = self.overrides.0.get(variable.name).cloned().map(|value| (value, Origin::Option));
        let set = || self.environment.get(variable.name).map(|value| (value, Origin::Environment));
        if let Some((value, origin)) = given.or_else(set) {
            let name = if origin == Origin::Option { variable.option.unwrap_or_default() } else { variable.name };
            let text = value.into_string();
            return match text {
                Ok(text) => Some((text, origin)),
                Err(_) => {
                    self.refuse(format!("{name} is not in UTF-8: set it to text"));
                    None
                }
            };
        }
        self.file.get(variable.name).map(|text| (text.clone(), Origin::File))
    }

    /// What is set.
    pub(super) fn text(&mut self, variable: &Variable) -> Option<String> {
        self.find(variable).map(|(text, _)| text)
    }

    /// What is set, as a path.
    pub(super) fn path(&mut self, variable: &Variable) -> Option<PathBuf> {
        self.text(variable).map(PathBuf::from)
    }

    /// What is set, or else the default. None if neither is, or what is set is wrong, which is noted: `wanted` says what it
    /// is to be set to.
    pub(super) fn parse<T>(
        &mut self,
        variable: &Variable,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let Some(text) = self.text(variable) else { return variable.default.and_then(parse) };
        let value = parse(&text);
        if value.is_none() {
            self.refuse(format!("{} is `{}`: set it to {wanted}", variable.name, shown(variable, &text)));
        }
        value
    }

    /// As [`Reader::parse`], for a number of a range.
    pub(super) fn number<T>(&mut self, variable: &Variable, range: std::ops::RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        self.parse(variable, &wanted, |text| text.parse().ok().filter(|number| range.contains(number)))
    }

    /// As [`Reader::parse`], for yes or no.
    pub(super) fn flag(&mut self, variable: &Variable) -> Option<bool> {
        self.parse(variable, "true or false", |text| text.parse().ok())
    }

    /// Reads a file of keys and values, in place of one that was read before.
    fn read_file(&mut self, path: &str) {
        let name = CONFIG_FILE.name;
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.refuse(format!("{name} is `{path}`, which cannot be read: {error}")),
        };
        let table: toml::Table = match toml::from_str(&text) {
            Ok(table) => table,
            // What is said of the place would show the line, in which there may be a secret.
            Err(error) => {
                let line =
                    error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
                return self.refuse(format!("{path}, line {line}: {}", error.message()));
            }
        };
        for (key, value) in table {
            let variable = all().find(|variable| variable.key() == key && **variable != CONFIG_FILE);
            let Some(variable) = variable else {
                let keys: Vec<String> = all().map(Variable::key).collect();
                let remedy = suggestion(&key, keys.iter().map(String::as_str)).unwrap_or_default();
                self.refuse(format!("{path}: `{key}` is no variable, by its name in lower case: {remedy}"));
                continue;
            };
            match as_text(&value) {
                Some(text) if text.is_empty() => {}
                Some(text) => {
                    self.file.insert(variable.name.to_owned(), text);
                }
                None => {
                    self.refuse(format!(
                        "{path}: `{key}` is neither a text, a number, true, false nor a list of texts"
                    ));
                }
            }
        }
    }
}

/// A value as it may be shown: what is before an `@` may be a password, wherever it was put.
pub(super) fn shown<'a>(variable: &Variable, text: &'a str) -> &'a str {
    if variable.is_secret || text.contains('@') { "(hidden)" } else { text }
}

/// A value as the environment would have it.
fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}
