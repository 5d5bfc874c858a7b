//! `permcached schema check` and `permcached schema test`.

use std::{io::IsTerminal, path::PathBuf};

use clap::{Args, Subcommand};

use super::{Ended, Failure, Outcome, schema_test};
use crate::app::{AppError, read_schema};

#[derive(Debug, Args)]
pub(super) struct SchemaCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compile a schema: every mistake is shown, with its place and the remedy.
    Check {
        /// The schema
        file: PathBuf,
    },
    /// Run a schema's tests: questions with the answer and the reason that they should have.
    Test(schema_test::SchemaTest),
}

impl SchemaCommand {
    pub(super) async fn run(self) -> Ended {
        match self.command {
            Command::Check { file } => check(&file),
            Command::Test(test) => test.run().await,
        }
    }
}

fn check(file: &std::path::Path) -> Ended {
    match read_schema(file) {
        Ok(schema) => {
            let (types, lookups) = (schema.resources().count(), schema.lookup_count());
            println!("{}: well formed: {types} resource types, {lookups} lookups", file.display());
            for (_, lookup) in schema.lookups() {
                println!("  {} by {}", lookup.collection, lookup.by);
            }
            Ok(Outcome::Yes)
        }
        Err(AppError::Schema(mistakes)) => {
            eprintln!("{}", mistakes.render(std::io::stderr().is_terminal()));
            Ok(Outcome::No)
        }
        Err(error) => Err(Failure::usage(error)),
    }
}
