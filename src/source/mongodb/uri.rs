//! The connection string, as applications have it: the part of it that the driver is given, the options that have no effect
//! here, and what is wrong with it.
//!
//! Connects to nothing and resolves no name. Neither errors nor notes show the password: if a part of it may stand in another
//! place, because it is not percent-encoded, nothing of that place is shown.

mod options;
#[cfg(test)]
mod tests;
mod together;

use std::fmt;

use mongodb::options::{AuthMechanism, ClientOptions, ConnectionString as DriverString, ServerAddress};
use options::read;
pub(super) use together::EXTERNAL;
use together::{PASSWORDLESS, Rest};

use crate::{diagnosis::Diagnosis, schema::listed};

/// Characters that a user's name or password has only percent-encoded.
const RESERVED: [char; 7] = [':', '/', '?', '#', '[', ']', '@'];

/// Characters that the name of a database cannot have.
const NOT_IN_NAMES: [char; 6] = ['/', '\\', ' ', '"', '$', '.'];

/// What to do about a user's name or password that is not percent-encoded.
const ENCODE: &str =
    "percent-encode what is neither a letter nor a digit in the user's name and password, such as %40 for @";

/// A connection string that the driver can use.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    driver: String,
    notes: Vec<Diagnosis>,
    has_source: bool,
}

/// The database in which a user is looked up only because the connection string names it, and has no `authSource`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumedSource {
    /// That database.
    pub source: String,
    /// The database that has the user in most cases.
    pub usual: &'static str,
}

/// Everything that is wrong with a connection string, each with its remedy. Shows no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriErrors(Vec<String>);

impl UriErrors {
    /// Each error.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The error of a connection string that cannot be used for a reason of the driver's own. The driver's message may quote
    /// values, so only the names of the options are shown.
    pub(super) fn of_driver<'a>(options: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = options.collect();
        Self(vec![if names.is_empty() {
            "the driver does not accept it: write mongodb://[user:password@]host[:port][/database]".to_owned()
        } else {
            let remedy = "look them up in MongoDB's manual, and remove those that are not needed";
            format!("the driver does not accept these options, or not together: {}: {remedy}", listed(&names))
        }])
    }

    /// The error of a file that the driver cannot use for TLS. Of a file of authorities, it takes what it can read.
    pub(super) fn of_key() -> Self {
        let remedy = "write the certificate and its key to one file as PEM, the key without a password";
        Self(vec![format!(
            "the file of `tlsCertificateKeyFile` does not have both a certificate and its key: {remedy}"
        )])
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
        let given = read(options, &mut errors);
        let errors_before = errors.len();
        check_hosts(hosts, is_srv, &mut errors);
        let are_hosts_wrong = errors.len() > errors_before;
        check_database(database, &mut errors);
        if given.has_stray_at || is_cut(user, are_hosts_wrong, options) {
            errors = vec![format!("the user's name or password has a `?` that is not percent-encoded: {ENCODE}")];
        } else {
            let rest = Rest { is_srv, hosts: hosts.split(',').count(), user };
            together::check(&given, &rest, &mut errors);
        }
        if let Some(user) = user {
            check_user(user, given.value("authMechanism"), &mut errors);
        }
        if !errors.is_empty() {
            return Err(UriErrors(errors));
        }
        let passed = given.driver();
        let end = if passed.is_empty() { String::new() } else { format!("?{}", passed.join("&")) };
        let user_info = user.map(|user| format!("{user}@")).unwrap_or_default();
        let driver = format!("{scheme}://{user_info}{hosts}/{database}{end}");
        let has_source = given.value("authSource").is_some();
        let parsed = Self { driver, notes: given.notes, has_source };
        match DriverString::parse(&parsed.driver) {
            Ok(_) => Ok(parsed),
            Err(_) => Err(UriErrors::of_driver(parsed.option_names())),
        }
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

    /// The names of the options that the driver is given.
    pub(super) fn option_names(&self) -> impl Iterator<Item = &str> {
        let options = self.driver.split_once('?').map_or("", |(_, options)| options);
        options.split('&').filter_map(|option| option.split_once('=')).map(|(name, _)| name)
    }

    /// The database in which the user is looked up only because the connection string names it. None if it is the one that has the
    /// user in most cases. The driver's options, made of this connection string, decide: a DNS record may name another database.
    pub(super) fn assumed_source(&self, options: &ClientOptions) -> Option<AssumedSource> {
        let credential = options.credential.as_ref().filter(|_| !self.has_source)?;
        let source = credential.source.clone().filter(|source| options.default_database.as_ref() == Some(source))?;
        let usual = if credential.mechanism == Some(AuthMechanism::Plain) { EXTERNAL } else { "admin" };
        (source != usual).then_some(AssumedSource { source, usual })
    }
}

/// Whether a `?` in the user's name or password has ended it, so that the rest of it, the `@` and the hosts stand where the
/// options do.
fn is_cut(user: Option<&str>, are_hosts_wrong: bool, options: &str) -> bool {
    let Some((_, after)) = options.rsplit_once('@').filter(|_| user.is_none()) else { return false };
    let host = after.split(['/', '?', '&', ';', ',']).next().unwrap_or_default();
    after.contains('?') || (are_hosts_wrong && ServerAddress::parse(host).is_ok())
}

/// Checks the user's name and password.
fn check_user(user: &str, mechanism: Option<&str>, errors: &mut Vec<String>) {
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (user, None),
    };
    let is_encoded = |text: &str| {
        let is_escape = |part: &str| {
            part.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        !text.contains(RESERVED) && text.split('%').skip(1).all(is_escape)
    };
    let is_text = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().is_ok();
    if !is_encoded(name) || !password.is_none_or(is_encoded) {
        errors.push(format!("the user's name or password is not percent-encoded: {ENCODE}"));
    } else if !is_text(user) {
        let remedy = "percent-encode the bytes of UTF-8, such as %C3%A9 for é";
        errors
            .push(format!("the user's name or password is percent-encoded from another encoding than UTF-8: {remedy}"));
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

/// Checks the name of the database.
fn check_database(database: &str, errors: &mut Vec<String>) {
    let bytes = percent_encoding::percent_decode_str(database);
    if !bytes.decode_utf8().is_ok_and(|name| !name.contains(NOT_IN_NAMES)) {
        errors.push(
            "the name of the database has a character that names cannot have: write host/DATABASE?option=value"
                .to_owned(),
        );
    }
}
