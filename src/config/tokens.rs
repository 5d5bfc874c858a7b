//! Reads the callers and their tokens from `AUTH_TOKENS` and `AUTH_ADMIN_TOKENS`. Authenticates nobody: `transport` does.

use std::net::Ipv4Addr;

use super::{
    reader::Reader,
    variable::{ALLOW_ANONYMOUS, AUTH_ADMIN_TOKENS, AUTH_TOKENS},
};
use crate::transport::{Caller, Callers, Scope};

/// The callers, and the default that follows for `BIND_ADDRESS`.
pub(super) struct Tokens {
    pub(super) callers: Callers,
    pub(super) default_bind: Ipv4Addr,
}

/// Reads the tokens. An error names a token by its place, and does not show it.
pub(super) fn read(reader: &mut Reader<'_>) -> Tokens {
    let mut callers = Vec::new();
    let mut secrets: Vec<String> = Vec::new();
    let unnamed = [(&AUTH_TOKENS, "caller", Scope::Check), (&AUTH_ADMIN_TOKENS, "admin", Scope::Admin)];
    for (variable, name, scope) in unnamed {
        let Some(text) = reader.text(variable) else { continue };
        let tokens: Vec<&str> = text.split(',').map(str::trim).filter(|token| !token.is_empty()).collect();
        if tokens.is_empty() {
            reader.add_error(format!("{} has no token: write name:secret, or unset it", variable.name));
        }
        for (place, token) in (1..).zip(tokens) {
            let parsed = parse(token, name, scope).and_then(|(name, secret, scope)| {
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

/// The name, the secret and the scope of a token. `name` and `scope` are the defaults.
fn parse<'a>(token: &'a str, name: &'a str, scope: Scope) -> Result<(&'a str, &'a str, Scope), &'static str> {
    let parts: Vec<&str> = token.split(':').collect();
    let (name, secret, scope) = match *parts.as_slice() {
        [secret] => (name, secret, scope),
        [name, secret] => (name, secret, scope),
        [name, secret, "check"] => (name, secret, Scope::Check),
        [name, secret, "admin"] => (name, secret, Scope::Admin),
        [_, _, _] => return Err("has a scope that is neither check nor admin: write name:secret:scope"),
        _ => return Err("has too many parts: write name:secret:scope, with no colon in any of them"),
    };
    if name.is_empty() || secret.is_empty() {
        Err("lacks a name or a secret: write name:secret, or name:secret:scope")
    } else if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("contains a character that is not allowed in a header: use ASCII letters, digits and punctuation")
    } else {
        Ok((name, secret, scope))
    }
}
