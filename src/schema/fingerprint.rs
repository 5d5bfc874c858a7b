//! The fingerprint of a schema, which keeps the facts of different schemas apart.
//!
//! That of facts does not identify the whole schema: permissions are not part of it. That of answers does.

use sha2::{Digest, Sha256};

use super::Schema;

/// The version of the code that reads facts, and the keys that a change concerns, from documents. Increase it with every
/// change after which the same documents yield other facts: then instances with the old code and instances with the new
/// code do not use each other's facts.
const READER_VERSION: u32 = 4;

impl Schema {
    /// A hash of everything that facts depend on: the lookups, how relations are read, and the numbers that stand for both.
    /// Permissions are not included, because they are computed from facts.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let Self {
            default_subject: _,
            subjects,
            resources,
            relations,
            permissions: _,
            lookups,
            collections,
            hidden: _,
            warnings: _,
        } = self;
        let resources: Vec<_> = resources.iter().map(|kind| (&kind.name, kind.id, kind.document, kind.gate)).collect();
        let text = format!("{:?}", (READER_VERSION, subjects, resources, relations, lookups, collections));
        Sha256::digest(text).into()
    }

    /// A hash of everything that answers depend on besides documents and the time: the schema, and this release. Whoever keeps
    /// answers must not use those of one fingerprint for another.
    #[must_use]
    pub fn fingerprint_of_answers(&self) -> [u8; 32] {
        let Self { default_subject, permissions, .. } = self;
        let text = format!("{:?}", (env!("CARGO_PKG_VERSION"), self.fingerprint(), default_subject, permissions));
        Sha256::digest(text).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner_id" }
hidden = { where = { hidden = true } }

[resource.file.permissions]
read = "owner"
hide = "owner & hidden"
"#;

    fn fingerprint(text: &str) -> [u8; 32] {
        Schema::parse("schema.toml", text).unwrap().fingerprint()
    }

    #[test]
    fn the_fingerprint_covers_exactly_what_facts_depend_on() {
        let own = fingerprint(SCHEMA);
        assert_eq!(own, fingerprint(SCHEMA));
        let permission = SCHEMA.replace("owner & hidden", "hidden & owner");
        assert_eq!(own, fingerprint(&permission), "a permission");
        let of_answers = |text: &str| Schema::parse("schema.toml", text).unwrap().fingerprint_of_answers();
        assert_eq!(of_answers(SCHEMA), of_answers(SCHEMA));
        assert_ne!(of_answers(SCHEMA), of_answers(&permission), "answers depend on permissions");
        assert_ne!(of_answers(SCHEMA), of_answers(&SCHEMA.replace("owner_id", "creator_id")));
        assert_ne!(own, fingerprint(&SCHEMA.replace("owner_id", "creator_id")), "a field");
        assert_ne!(own, fingerprint(&SCHEMA.replace("hidden = true", "hidden = 1")), "a condition");
        assert_ne!(own, fingerprint(&SCHEMA.replace("\"files\"", "\"documents\"")), "a collection");
        assert_ne!(own, fingerprint(&SCHEMA.replace("user]", "user]\nid = \"uuid\"")), "the form of ids");
        assert_ne!(own, fingerprint(&SCHEMA.replace("owner & hidden", "owner & !hidden")), "what stands under a `!`");
    }
}
