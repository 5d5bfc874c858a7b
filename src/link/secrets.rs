//! The secrets that instances over one Redis share (`REDIS_SECRET`).
//!
//! Shows none of them, and computes nothing with them: `codes` does.

use std::{fmt, sync::Arc};

use subtle::ConstantTimeEq as _;

/// How many characters a secret has at least: 32 hexadecimal digits hold 128 bits.
const CHARACTERS_MIN: usize = 32;

/// How many secrets are accepted at once. A rotation has two.
const SECRETS_MAX: usize = 4;

/// What a file of variables may leave around a text.
const QUOTES: [char; 2] = ['"', '\''];

/// The secrets by which instances recognise what other instances have written to Redis. The first one signs, all are accepted.
#[derive(Clone)]
pub struct Secrets(Arc<[String]>);

/// What is wrong with a list of secrets. The messages do not quote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// A secret is empty.
    #[error("secret {0} is empty: write secrets from `openssl rand -hex 32`, separated by single commas")]
    Empty(usize),
    /// A secret is too short to be unguessable.
    #[error("secret {0} has fewer than {CHARACTERS_MIN} characters: use one from `openssl rand -hex 32`")]
    Short(usize),
    /// A secret has a quote that another instance may not have.
    #[error("secret {0} begins or ends with a quote: write the list without quotes")]
    Quoted(usize),
    /// A secret is listed twice.
    #[error("secret {0} is the same as secret {1}: leave one of them out")]
    Repeated(usize, usize),
    /// There are too many.
    #[error(
        "it lists {0} secrets, and at most {SECRETS_MAX} are accepted: leave out those that no instance signs with any more"
    )]
    TooMany(usize),
}

impl Secrets {
    /// Parses secrets that are separated by commas.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn parse(text: &str) -> Result<Self, Vec<SecretsError>> {
        let secrets: Vec<&str> = text.split(',').map(str::trim).collect();
        let mut errors = Vec::new();
        for (place, secret) in (1..).zip(&secrets) {
            let is_same = |other: &&str| bool::from(other.as_bytes().ct_eq(secret.as_bytes()));
            let first = secrets.iter().position(is_same).map_or(place, |index| index + 1);
            match secret.chars().count() {
                0 => errors.push(SecretsError::Empty(place)),
                _ if secret.starts_with(QUOTES) || secret.ends_with(QUOTES) => errors.push(SecretsError::Quoted(place)),
                _ if first < place => errors.push(SecretsError::Repeated(place, first)),
                1..CHARACTERS_MIN => errors.push(SecretsError::Short(place)),
                _ => {}
            }
        }
        if secrets.len() > SECRETS_MAX {
            errors.push(SecretsError::TooMany(secrets.len()));
        }
        if errors.is_empty() { Ok(Self(secrets.into_iter().map(str::to_owned).collect())) } else { Err(errors) }
    }

    /// The bytes of each secret. The first one signs.
    pub(crate) fn reveal(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(String::as_bytes)
    }
}

/// Shows how many secrets there are, and none of them.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} hidden)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(number: u8) -> String {
        format!("{number:02x}").repeat(16)
    }

    fn errors(secrets: &[&str]) -> Vec<SecretsError> {
        Secrets::parse(&secrets.join(",")).expect_err("it is wrong")
    }

    #[test]
    fn one_to_four_different_long_secrets_are_accepted() {
        let all = [1, 2, 3, 4, 5].map(secret);
        for count in 1..=4 {
            let list = &all[..count];
            let secrets = Secrets::parse(&list.join(", ")).expect("they are valid");
            assert!(secrets.reveal().eq(list.iter().map(String::as_bytes)));
            assert_eq!(format!("{secrets:?}"), format!("({count} hidden)"));
        }
        assert_eq!(errors(&all.each_ref().map(String::as_str)), [SecretsError::TooMany(5)]);
    }

    #[test]
    fn everything_that_is_wrong_with_the_secrets_is_reported_at_once_and_no_secret_is_shown() {
        let (good, short) = (secret(1), "s3cret".repeat(5));
        let wrong = errors(&[&good, &short, "", &good, " "]);
        let wanted = [
            SecretsError::Short(2),
            SecretsError::Empty(3),
            SecretsError::Repeated(4, 1),
            SecretsError::Empty(5),
            SecretsError::TooMany(5),
        ];
        assert_eq!(wrong, wanted);
        let shown: String = wrong.iter().map(ToString::to_string).collect();
        assert!(!shown.contains("s3cret") && !shown.contains(&good), "{shown}");
        assert_eq!(errors(&[""]), [SecretsError::Empty(1)]);
        for quoted in [format!("\"{good}\""), format!("\"{good}"), format!("{good}'")] {
            assert_eq!(errors(&[&secret(2), &quoted]), [SecretsError::Quoted(2)]);
        }
    }
}
