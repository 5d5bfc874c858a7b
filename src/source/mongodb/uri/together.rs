//! Which options, hosts and users of a connection string fit together.
//!
//! The driver checks most of it, too, but does not say which options it means without showing their values.

use percent_encoding::percent_decode_str;

use super::options::Options;

/// Ways to log in that take the user from elsewhere, and no password from the connection string.
pub(super) const PASSWORDLESS: [&str; 2] = ["MONGODB-X509", "MONGODB-OIDC"];

/// The database of users that MongoDB does not authenticate itself.
pub(in crate::source::mongodb) const EXTERNAL: &str = "$external";

/// Properties of a mechanism that a connection string cannot have.
const NOT_IN_TEXT: [&str; 3] = ["ALLOWED_HOSTS", "OIDC_CALLBACK", "OIDC_HUMAN_CALLBACK"];

/// The parts of a connection string beside its options.
pub(super) struct Rest<'a> {
    /// Whether it begins with `mongodb+srv://`.
    pub(super) is_srv: bool,
    /// How many hosts it names.
    pub(super) hosts: usize,
    /// The text before the `@`.
    pub(super) user: Option<&'a str>,
}

/// Checks the options that exclude each other, and those that exclude a part of the rest.
pub(super) fn check(options: &Options, rest: &Rest<'_>, errors: &mut Vec<String>) {
    check_tls(options, errors);
    check_servers(options, rest, errors);
    check_login(options, rest.user, errors);
}

fn check_tls(options: &Options, errors: &mut Vec<String>) {
    let found = &options.found;
    if let Some((written, value)) = found.get("tls")
        && value == "false"
    {
        let tls = found.iter().filter(|(name, _)| name.starts_with("tls") && **name != "tls");
        for (_, (name, _)) in tls {
            errors.push(format!("`{written}=false` contradicts `{name}`: remove one of them"));
        }
    }
    if found.contains_key("tlsInsecure") && found.contains_key("tlsAllowInvalidCertificates") {
        errors.push("`tlsInsecure` and `tlsAllowInvalidCertificates` say the same: remove one of them".to_owned());
    }
}

fn check_servers(options: &Options, rest: &Rest<'_>, errors: &mut Vec<String>) {
    let is_true = |name: &str| options.value(name) == Some("true");
    let is_set = |name: &str| options.value(name).is_some();
    if rest.is_srv && is_true("directConnection") {
        errors.push("`directConnection` excludes mongodb+srv://: remove one of them".to_owned());
    }
    for name in ["directConnection", "loadBalanced"] {
        if rest.hosts > 1 && is_true(name) {
            errors.push(format!("`{name}` needs a single host: remove it, or all hosts but one"));
        }
    }
    let limits_hosts = options.value("srvMaxHosts").is_some_and(|count| count != "0");
    for (name, other, is_wrong) in [
        ("loadBalanced", "replicaSet", is_true("loadBalanced") && is_set("replicaSet")),
        ("loadBalanced", "directConnection", is_true("loadBalanced") && is_true("directConnection")),
        ("srvMaxHosts", "replicaSet", limits_hosts && is_set("replicaSet")),
        ("srvMaxHosts", "loadBalanced", limits_hosts && is_true("loadBalanced")),
    ] {
        if is_wrong {
            errors.push(format!("`{name}` and `{other}` exclude each other: remove one of them"));
        }
    }
    for name in ["srvMaxHosts", "srvServiceName"] {
        if !rest.is_srv && is_set(name) {
            errors.push(format!("`{name}` is only for mongodb+srv://: remove it"));
        }
    }
}

/// Checks what the mechanism of the login requires. No error shows a value other than the mechanism's name.
fn check_login(options: &Options, user: Option<&str>, errors: &mut Vec<String>) {
    if let Some(properties) = options.value("authMechanismProperties") {
        let properties = percent_decode_str(properties).decode_utf8_lossy();
        let names: Vec<Option<&str>> =
            properties.split(',').map(|property| property.split_once(':').map(|(name, _)| name)).collect();
        if names.contains(&None) {
            let wanted = "NAME:value, with commas between several";
            errors.push(format!("`authMechanismProperties` has a property without a value: write {wanted}"));
        }
        for name in NOT_IN_TEXT.iter().filter(|name| names.contains(&Some(**name))) {
            errors.push(format!(
                "`authMechanismProperties` has {name}, which a connection string cannot have: remove it"
            ));
        }
    }
    let Some(mechanism) = options.value("authMechanism") else { return };
    if !PASSWORDLESS.contains(&mechanism) {
        if user.is_none() {
            let remedy = "write user:password@host, or remove it if MongoDB asks for no login";
            errors.push(format!("`authMechanism={mechanism}` needs a user: {remedy}"));
        }
        return;
    }
    if user.is_some_and(|user| user.contains(':')) {
        let remedy = "remove the `:` and what follows it up to the `@`, or the option";
        errors.push(format!("`authMechanism={mechanism}` excludes a password: {remedy}"));
    }
    if options.value("authSource").is_some_and(|source| percent_decode_str(source).decode_utf8_lossy() != EXTERNAL) {
        let remedy = format!("remove `authSource`, or set it to {EXTERNAL}");
        errors.push(format!("`authMechanism={mechanism}` looks users up in {EXTERNAL} only: {remedy}"));
    }
}
