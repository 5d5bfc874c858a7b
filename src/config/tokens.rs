//! Reads the callers and their tokens from `AUTH_TOKENS` and `AUTH_ADMIN_TOKENS`: `name:secret[:scope],…`. A name is shorter
//! than every secret, so a secret in the place of a name is an error: names are shown in logs and metrics.
//!
//! Authenticates nobody: `transport` does.

use std::net::Ipv4Addr;

use super::{
    reader::Reader,
    variable::{ALLOW_ANONYMOUS, AUTH_ADMIN_TOKENS, AUTH_TOKENS},
};
use crate::transport::{Caller, Callers, Scope};

/// The length of the shortest secret. A name is shorter.
const SECRET_LENGTH_MIN: usize = 16;

/// Names that metrics use for callers without a token, and for all callers beyond a number of names.
const RESERVED_NAMES: [&str; 2] = ["anonymous", "other"];

/// The callers, and the default that follows for `BIND_ADDRESS`.
pub(super) struct Tokens {
    pub(super) callers: Callers,
    pub(super) default_bind: Ipv4Addr,
}

/// Reads the tokens. An error names a token by its place, and does not show it.
pub(super) fn read(reader: &mut Reader<'_>) -> Tokens {
    let mut callers = Vec::new();
    let mut secrets: Vec<String> = Vec::new();
    for (variable, default_scope) in [(&AUTH_TOKENS, Scope::Check), (&AUTH_ADMIN_TOKENS, Scope::Admin)] {
        let Some(text) = reader.text(variable) else { continue };
        for (place, token) in (1..).zip(text.split(',').map(str::trim)) {
            let parsed = parse(token, default_scope).and_then(|(name, secret, scope)| {
                let is_another = secrets.iter().any(|other| *other == secret);
                secrets.push(secret.to_owned());
                if is_another {
                    Err("has the secret of another token: give each its own")
                } else {
                    Ok(Caller::new(name, secret, scope))
                }
            });
            match parsed {
                Ok(caller) => callers.push(caller),
                Err(what) => reader.add_error(format!("{}: token {place} {what}", variable.name)),
            }
        }
    }
    let is_open = reader.flag(&ALLOW_ANONYMOUS).unwrap_or(false);
    match (callers.is_empty(), is_open) {
        (false, true) => {
            let error = "both ALLOW_ANONYMOUS=true and tokens are set: unset ALLOW_ANONYMOUS, or the tokens";
            reader.add_error(error.to_owned());
            Tokens { callers: Callers::Anyone, default_bind: Ipv4Addr::LOCALHOST }
        }
        (false, false) => Tokens { callers: Callers::Known(callers.into()), default_bind: Ipv4Addr::UNSPECIFIED },
        (true, true) => Tokens { callers: Callers::Anyone, default_bind: Ipv4Addr::UNSPECIFIED },
        (true, false) => Tokens { callers: Callers::Anyone, default_bind: Ipv4Addr::LOCALHOST },
    }
}

/// The name, the secret and the scope of a token. An error shows no part of it, as any part may be a secret.
fn parse(token: &str, default_scope: Scope) -> Result<(&str, &str, Scope), &'static str> {
    let parts: Vec<&str> = token.split(':').collect();
    let (name, secret, scope) = match *parts.as_slice() {
        [""] => return Err("is empty: write name:secret, or remove a comma"),
        [_] => return Err("lacks a name or a secret: write name:secret"),
        [_, second] if scope_of(second).is_some() => {
            return Err("has a scope where its secret should be: write name:secret, or name:secret:scope");
        }
        [first, _] if scope_of(first).is_some_and(|scope| scope != default_scope) => {
            return Err(
                "has a scope where its name should be: write name:secret:scope, with the name of the caller first",
            );
        }
        [name, secret] => (name, secret, default_scope),
        [name, secret, scope] => {
            let unknown = "has a scope that is none of check, watch and admin: write name:secret:scope";
            (name, secret, scope_of(scope).ok_or(unknown)?)
        }
        _ => return Err("has too many colons: write name:secret:scope, with no colon in any of them"),
    };
    if name.is_empty() || secret.is_empty() {
        return Err("lacks a name or a secret: write name:secret");
    }
    if name.len() >= SECRET_LENGTH_MIN {
        return Err(
            "has a name of 16 characters or more, which could be a secret: write name:secret, with a shorter name first",
        );
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(
            "has a name with other characters than ASCII letters, digits, -, _ and .: write name:secret, without quotes",
        );
    }
    if RESERVED_NAMES.contains(&name) {
        return Err(
            "has the name anonymous or other, which metrics use for callers without a name: choose another name",
        );
    }
    if secret.len() < SECRET_LENGTH_MIN {
        return Err(
            "has a secret of fewer than 16 characters: write name:secret, with a secret from `openssl rand -hex 32`",
        );
    }
    if !is_bearer_token(secret) {
        return Err(
            "has a secret with other characters than ASCII letters, digits, -, ., _, ~, +, / and = at the end: \
                    generate one with `openssl rand -hex 32`",
        );
    }
    Ok((name, secret, scope))
}

/// The scope of this name.
fn scope_of(name: &str) -> Option<Scope> {
    Scope::ALL.into_iter().find(|scope| scope.as_str() == name)
}

/// Whether a text is a token as RFC 6750, section 2.1, allows it in a header.
fn is_bearer_token(text: &str) -> bool {
    let text = text.trim_end_matches('=');
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}
