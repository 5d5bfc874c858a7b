//! Who asks for a list, and what for.
//!
//! Parses nothing: callers validate names and ids first.

use std::fmt;

use crate::{
    question::{PermissionId, ResourceTypeId, Subject},
    schema::Schema,
};

/// The subject of a list, with its secret if its type has bearer secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The subject. The id of a bearer secret is a digest.
    pub subject: Subject,
    /// The bearer secret itself, which a query must contain: documents contain no digests.
    pub secret: Option<Secret>,
}

/// A bearer secret as it arrived. It appears in no log, trace or error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// A list of the resources of one type that a subject may access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuestion {
    /// Who asks.
    pub asker: Asker,
    /// The permission, which belongs to the type.
    pub permission: PermissionId,
    /// The type of the resources.
    pub kind: ResourceTypeId,
}

impl Asker {
    /// A subject whose type has no secrets, or who is anonymous.
    #[must_use]
    pub fn new(subject: Subject) -> Self {
        Self { subject, secret: None }
    }
}

impl ListQuestion {
    /// The name of the permission in messages: `type#permission`.
    pub(super) fn name(&self, schema: &Schema) -> String {
        format!("{}#{}", schema.resource(self.kind).name, schema.permission(self.permission).name)
    }
}

impl Secret {
    /// Takes a secret from a request.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, for a query.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let asker = Asker { subject: Subject::Anonymous, secret: Some(Secret::new("s3cret-token")) };
        assert!(!format!("{asker:?}").contains("s3cret"));
    }
}
