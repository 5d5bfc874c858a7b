//! `permcached schema check` and `permcached schema test`. The compiler is in `schema`, the tests in `schema_test`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Ended, Failure, Outcome, schema_test, text};
use crate::{
    app::{AppError, read_schema},
    schema::{Lookup, Schema, SchemaErrors},
};

#[derive(Debug, Args)]
pub(super) struct SchemaCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compile a schema, and show every error with its place and remedy.
    Check {
        /// The schema
        file: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a schema's tests: questions with their expected answers and reasons.
    Test(schema_test::SchemaTest),
}

impl SchemaCommand {
    pub(super) async fn run(self) -> Ended {
        match self.command {
            Command::Check { file, json } => check(&file, json),
            Command::Test(test) => test.run().await,
        }
    }
}

fn check(file: &Path, json: bool) -> Ended {
    let (schema, errors) = match read_schema(file) {
        Ok(schema) => (Some(schema), None),
        Err(AppError::Schema(errors)) => (None, Some(errors)),
        Err(error) => return Err(Failure::usage_because(error)),
    };
    match (&schema, &errors) {
        _ if json => print_line!("{:#}", as_json(schema.as_ref(), errors.as_ref())),
        (Some(schema), _) => {
            let (types, lookups) = (schema.resources().count(), schema.declared_lookups().count());
            print_line!("{}: well formed: {types} resource types, {lookups} lookups", file.display());
            for lookup in schema.declared_lookups() {
                print_line!("  {} by {}: {}", lookup.collection, lookup.by, relations(schema, lookup).join(", "));
            }
        }
        (_, Some(errors)) => text::print_error_line(&errors.render(true)),
        (None, None) => {}
    }
    if let Some(warnings) = schema.as_ref().and_then(Schema::warnings).filter(|_| !json) {
        text::print_error_line(&warnings.render(true));
    }
    Ok(if schema.is_some() { Outcome::Yes } else { Outcome::No })
}

/// The names of the relations that a lookup's documents are read for. A gate is `type#active` or `type#exists`.
fn relations(schema: &Schema, lookup: &Lookup) -> Vec<String> {
    schema.relations_by(lookup).into_iter().map(|relation| schema.relation_name(relation)).collect()
}

fn as_json(schema: Option<&Schema>, errors: Option<&SchemaErrors>) -> Value {
    let lookups: Vec<Value> = schema
        .iter()
        .flat_map(|schema| schema.declared_lookups().map(move |lookup| (schema, lookup)))
        .map(|(schema, lookup)| {
            let relations = relations(schema, lookup);
            json!({ "collection": lookup.collection, "by": lookup.by.as_str(), "relations": relations })
        })
        .collect();
    let warnings = schema.and_then(Schema::warnings);
    json!({ "wellFormed": schema.is_some(), "lookups": lookups, "errors": each(errors), "warnings": each(warnings) })
}

fn each(errors: Option<&SchemaErrors>) -> Vec<Value> {
    let errors = errors.iter().flat_map(|errors| errors.iter().map(|error| (errors.place(error), error)));
    let as_json = errors.map(|(place, error)| {
        let (line, column) = place.unzip();
        json!({ "line": line, "column": column, "message": error.message, "help": error.help })
    });
    as_json.collect()
}
