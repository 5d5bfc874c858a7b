//! A namespace: what the instances over one database, with one schema and one format, share in Redis.
//!
//! Reads and writes nothing there.

use super::{Codes, Names, Secrets};
use crate::source::Identity;

/// The names of an instance's keys and channels, and the codes of what it writes there.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// The names.
    pub names: Names,
    /// The codes.
    pub codes: Codes,
}

impl Namespace {
    /// The namespace of a source, by the [fingerprint](crate::schema::Schema::fingerprint) of the schema and the
    /// [format](super::FORMAT), for instances that share these secrets.
    #[must_use]
    pub fn new(source: &Identity, fingerprint: [u8; 32], format: u32, secrets: &Secrets) -> Self {
        Self { names: Names::new(source, fingerprint, format), codes: Codes::new(secrets, source, fingerprint, format) }
    }
}
