//! The targets of the fuzzer, each with the promises that must hold for any input (docs/proof.md, "Fuzzing"). The programs in
//! `fuzz/` call them with generated inputs, and a test calls them with the kept ones.
//!
//! Compiled only for these two.

mod change_events;
mod documents;
mod page_tokens;
mod redis;
mod requests;
mod schemas;

use std::sync::{Arc, LazyLock};

pub use change_events::change_events;
pub use documents::documents;
pub use page_tokens::page_tokens;
pub use redis::redis;
pub use requests::requests;
pub use schemas::schemas;

use crate::schema::Schema;

/// A schema that has each way to read a relation.
#[expect(clippy::panic, reason = "the file is a part of the fuzzer")]
static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let text = include_str!("../fuzz/schema.toml");
    Arc::new(Schema::parse("fuzz/schema.toml", text).unwrap_or_else(|errors| panic!("{}", errors.render(false))))
});

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    type Target = fn(&[u8]);

    /// Inputs that once broke a promise, and those that reach different parts of the code.
    #[test]
    fn every_kept_input_keeps_the_promises_of_its_target() {
        let targets: [(&str, Target); 6] = [
            ("change_events", change_events),
            ("documents", documents),
            ("page_tokens", page_tokens),
            ("redis", redis),
            ("requests", requests),
            ("schemas", schemas),
        ];
        for (name, target) in targets {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let inputs = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
            let mut count = 0;
            for input in inputs {
                let path = input.unwrap().path();
                let kept = std::panic::catch_unwind(|| target(&fs::read(&path).unwrap()));
                assert!(kept.is_ok(), "{} breaks a promise", path.display());
                count += 1;
            }
            assert!(count > 0, "{} is empty", directory.display());
        }
    }
}
