//! The command line: what can be asked for, and with which exit code it ends.
//!
//! 0: allowed, or all is well. 1: denied, or not all is well. 2: the command or the question is wrong. 3: there is no answer.

#![expect(clippy::print_stderr, reason = "what the command line says is what it is for")]

/// Writes a line to standard output, as `println!` does, but takes no offence if nobody reads to the end.
macro_rules! say {
    ($($what:tt)*) => { crate::cli::text::line(format_args!($($what)*)) };
}

mod ask;
mod health;
mod schema;
mod schema_test;
mod serve;
mod text;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Permission checks in microseconds, from the permissions that already live in your MongoDB.
#[derive(Debug, Parser)]
#[command(name = "permcached", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer permission checks over gRPC.
    Serve(serve::Serve),
    /// May this subject do this to that resource? Exits with 0 for yes, 1 for no.
    Check(ask::Ask),
    /// As check, and show how: each relation that granted or failed, with its documents.
    Explain(ask::Ask),
    /// Check a schema, or run its tests.
    Schema(schema::SchemaCommand),
    /// Ask a running server whether it serves: for container health checks.
    Health(health::Health),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Yes,
    No,
    Usage,
    NoAnswer,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Yes => 0,
            Outcome::No => 1,
            Outcome::Usage => 2,
            Outcome::NoAnswer => 3,
        })
    }
}

/// Runs the command that was asked for.
pub async fn run(cli: Cli) -> ExitCode {
    let ended = match cli.command {
        Command::Serve(serve) => serve.run().await,
        Command::Check(ask) => ask.check().await,
        Command::Explain(ask) => ask.explain().await,
        Command::Schema(schema) => schema.run().await,
        Command::Health(health) => health.run().await,
    };
    match ended {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            eprintln!("{}", failure.message);
            failure.outcome.into()
        }
    }
}

/// Why a command could not do its work.
struct Failure {
    outcome: Outcome,
    message: String,
}

impl Failure {
    fn usage(error: impl std::fmt::Display) -> Self {
        Self { outcome: Outcome::Usage, message: format!("error: {error}") }
    }

    fn no_answer(error: impl std::fmt::Display) -> Self {
        Self { outcome: Outcome::NoAnswer, message: format!("error: {error}") }
    }
}

type Ended = Result<Outcome, Failure>;
