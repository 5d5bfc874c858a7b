//! The connection string, as applications have it: the part of it that the driver is given, the options that have no effect
//! here, and what is wrong with it.
//!
//! Connects to nothing and resolves no name. Neither errors nor notes show the password: if a part of it may stand in another
//! place, because it is not percent-encoded, nothing of that place is shown.

mod options;
#[cfg(test)]
mod tests;

use std::fmt;

use mongodb::options::{ConnectionString as DriverString, ServerAddress};
use options::{Options, read};

use crate::diagnosis::Diagnosis;

/// Characters that a user's name or password has only percent-encoded.
const RESERVED: [char; 7] = [':', '/', '?', '#', '[', ']', '@'];

/// Characters that the name of a database cannot have.
const NOT_IN_NAMES: [char; 6] = ['/', '\\', ' ', '"', '$', '.'];

/// Ways to log in without a password.
const PASSWORDLESS: [&str; 2] = ["MONGODB-X509", "MONGODB-OIDC"];

/// What to do about a user's name or password that is not percent-encoded.
const ENCODE: &str =
    "percent-encode what is neither a letter nor a digit in the user's name and password, such as %40 for @";

/// A connection string that the driver can use.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    driver: String,
    notes: Vec<Diagnosis>,
    assumed_source: Option<String>,
}

/// Everything that is wrong with a connection string, each with its remedy. Shows no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriErrors(Vec<String>);

impl UriErrors {
    /// Each error.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The error of a connection string that cannot be used for a reason of the driver's own.
    pub(super) fn of_driver() -> Self {
        Self(vec![
            "the driver cannot use its options together: directConnection and loadBalanced need a single host, and \
             loadBalanced and srvMaxHosts exclude replicaSet"
                .to_owned(),
        ])
    }
}

impl fmt::Display for UriErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for UriErrors {}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString").field("notes", &self.notes).finish_non_exhaustive()
    }
}

impl ConnectionString {
    /// Reads a connection string.
    ///
    /// # Errors
    /// [`UriErrors`].
    pub fn parse(text: &str) -> Result<Self, UriErrors> {
        let form = "write mongodb://[user:password@]host[:port][,host…][/database][?option=value&…]";
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(UriErrors(vec![format!("it does not begin with mongodb:// or mongodb+srv://: {form}")]));
        };
        let is_srv = match scheme {
            "mongodb" => false,
            "mongodb+srv" => true,
            _ => {
                return Err(UriErrors(vec![format!("it begins with neither mongodb:// nor mongodb+srv://: {form}")]));
            }
        };
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, place),
        };
        let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
        let mut errors = Vec::new();
        let Options { driver, notes, source, mechanism } = read(options, is_srv, &mut errors);
        check_hosts(hosts, is_srv, &mut errors);
        let name = check_database(database, &mut errors);
        // A `?` in the password ends it here, and the rest stands where the options do.
        let is_cut = user.is_none() && !place.contains('/');
        if options.contains('@') && (is_cut || !errors.is_empty()) {
            errors = vec![format!("the user's name or password has a `?` that is not percent-encoded: {ENCODE}")];
        }
        if let Some(user) = user {
            check_user(user, mechanism.as_deref(), &mut errors);
        }
        if !errors.is_empty() {
            return Err(UriErrors(errors));
        }
        let end = if driver.is_empty() { String::new() } else { format!("?{}", driver.join("&")) };
        let user_info = user.map(|user| format!("{user}@")).unwrap_or_default();
        let driver = format!("{scheme}://{user_info}{hosts}/{database}{end}");
        DriverString::parse(&driver).map_err(|_| UriErrors::of_driver())?;
        let assumed_source = name.filter(|_| user.is_some() && source.is_none() && mechanism.is_none());
        Ok(Self { driver, notes, assumed_source })
    }

    /// What the driver is given.
    pub(super) fn driver(&self) -> &str {
        &self.driver
    }

    /// What has no effect here, or not the one that it has in other drivers: for the log.
    #[must_use]
    pub fn notes(&self) -> &[Diagnosis] {
        &self.notes
    }

    /// The database in which the user is looked up only because the connection string names it and has no `authSource`.
    pub(super) fn assumed_source(&self) -> Option<&str> {
        self.assumed_source.as_deref()
    }
}

/// Checks the user's name and password.
fn check_user(user: &str, mechanism: Option<&str>, errors: &mut Vec<String>) {
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (user, None),
    };
    let is_encoded = |text: &str| {
        let mut parts = text.split('%');
        let plain = parts.next().unwrap_or_default();
        let is_escape = |part: &str| {
            part.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        !plain.contains(RESERVED) && !text.contains(RESERVED) && parts.all(is_escape)
    };
    if !is_encoded(name) || !password.is_none_or(is_encoded) {
        errors.push(format!("the user's name or password is not percent-encoded: {ENCODE}"));
    } else if password.is_some_and(|password| password.starts_with('<') && password.ends_with('>')) {
        errors.push("the password is a placeholder in angle brackets: put the user's password in its place".to_owned());
    } else if name.is_empty() {
        errors.push(
            "there is an `@` and no user's name before it: write user:password@host, or remove the `@`".to_owned(),
        );
    } else if password.is_none_or(str::is_empty) && !mechanism.is_some_and(|name| PASSWORDLESS.contains(&name)) {
        errors.push("it has a user's name and no password: write user:password@host".to_owned());
    }
}

/// Checks the hosts. An error names a host by its place only.
fn check_hosts(hosts: &str, is_srv: bool, errors: &mut Vec<String>) {
    if hosts.is_empty() {
        let socket = "the path of a socket is percent-encoded, as in %2Ftmp%2Fmongodb-27017.sock";
        errors.push(format!("it names no host: write mongodb://host[:port]/database; {socket}"));
        return;
    }
    let hosts: Vec<&str> = hosts.split(',').collect();
    for (place, host) in (1..).zip(&hosts) {
        let is_text = !host.chars().any(|character| character.is_whitespace() || character.is_control());
        match ServerAddress::parse(host).ok().filter(|_| is_text) {
            Some(ServerAddress::Tcp { port, .. }) if is_srv && port.is_some() => {
                errors.push("mongodb+srv:// has a port: remove it, as the DNS record has the ports".to_owned());
            }
            Some(ServerAddress::Unix { .. }) if is_srv => {
                errors.push("mongodb+srv:// leads to a socket: write mongodb://".to_owned());
            }
            Some(_) => {}
            None => {
                let wanted = "a name or address, then `:` and a port from 1 to 65535; an IPv6 address is in brackets";
                errors.push(format!("host {place} is not a host: write {wanted}"));
            }
        }
    }
    if is_srv && hosts.len() > 1 {
        errors.push("mongodb+srv:// has several hosts: name one, or write mongodb://".to_owned());
    }
}

/// Checks the name of the database, and returns it if there is one.
fn check_database(database: &str, errors: &mut Vec<String>) -> Option<String> {
    let bytes = percent_encoding::percent_decode_str(database);
    match bytes.decode_utf8() {
        Ok(name) if !name.contains(NOT_IN_NAMES) => (!name.is_empty()).then(|| name.into_owned()),
        _ => {
            errors.push(
                "the name of the database has a character that names cannot have: write host/DATABASE?option=value"
                    .to_owned(),
            );
            None
        }
    }
}
