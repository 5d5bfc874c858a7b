//! Secrets that clients send as `authorization: Bearer <secret>`, and how they are compared.
//!
//! Does not know what a secret allows: `callers` and `http` do.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 hash of a secret. The secret itself is not kept.
#[derive(Clone)]
pub(super) struct HashedSecret([u8; 32]);

impl HashedSecret {
    /// Hashes a secret.
    pub(super) fn of(secret: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// The secret in an `authorization` header; none if the header is of another scheme.
    pub(super) fn sent(authorization: &[u8]) -> Option<Self> {
        let secret = authorization.strip_prefix(b"Bearer ").or_else(|| authorization.strip_prefix(b"bearer "));
        secret.map(Self::of)
    }

    /// Whether both are of the same secret. It takes the same time whatever they are, so the time reveals nothing: to find one
    /// of several, compare all of them.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Shows no hash.
impl fmt::Debug for HashedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
