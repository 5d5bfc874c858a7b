//! The command line: what can be asked for, and with which exit code it ends.
//!
//! 0: allowed, or all is well. 1: denied, or not all is well. 2: the command or the question is wrong. 3: there is no answer.

#![expect(clippy::print_stderr, reason = "what the command line says is what it is for")]

/// Writes a line to standard output, as `println!` does, but takes no offence if nobody reads to the end.
macro_rules! say {
    ($($what:tt)*) => { crate::cli::text::line(format_args!($($what)*)) };
}

mod ask;
mod config;
mod doctor;
mod health;
mod invalidate;
mod options;
mod questions;
mod remote;
mod schema;
mod schema_test;
mod serve;
mod text;
mod tree;
mod watch;

use std::{error::Error, fmt, io::IsTerminal as _, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{app::AppError, diagnosis::error_chain, source::mongodb::ConnectError};

/// What every help ends with that is about questions.
const EXIT_CODES: &str = "Exit codes: 0 allowed, or all is well; 1 denied, or not all is well; \
                          2 the command or the question is wrong; 3 there is no answer";

/// Permission checks in microseconds, from the permissions that already live in your MongoDB.
#[derive(Debug, Parser)]
#[command(name = "permcached", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer permission checks over gRPC.
    Serve(serve::Serve),
    /// May this subject do this to that resource? Exits with 0 for yes, 1 for no.
    #[command(after_help = EXIT_CODES)]
    Check(ask::Ask),
    /// As check, and show how: each relation that granted or failed, with its documents.
    #[command(after_help = EXIT_CODES)]
    Explain(ask::Ask),
    /// Check a schema, or run its tests.
    Schema(schema::SchemaCommand),
    /// Draw questions from a database, for load tests, or verify the answers to them.
    Questions(questions::QuestionsCommand),
    /// Have a running server read facts again, and print a token for what was written.
    Invalidate(invalidate::Invalidate),
    /// Say what changes, as a running server hears of it: one change a line.
    Watch(watch::Watch),
    /// Show what is configured and where that comes from, without secrets; and all that is wrong with it.
    Config(config::ShowConfig),
    /// Try everything that is configured, as serve would use it, and say what is wrong, each with its remedy.
    #[command(after_help = EXIT_CODES)]
    Doctor(doctor::Doctor),
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
        Command::Questions(questions) => questions.run().await,
        Command::Invalidate(invalidate) => invalidate.run().await,
        Command::Watch(watch) => watch.run().await,
        Command::Config(config) => config.run(),
        Command::Doctor(doctor) => doctor.run().await,
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
    /// The command or the question is wrong.
    fn usage(message: impl fmt::Display) -> Self {
        Self { outcome: Outcome::Usage, message: format!("error: {message}") }
    }

    /// There is no answer.
    fn no_answer(message: impl fmt::Display) -> Self {
        Self { outcome: Outcome::NoAnswer, message: format!("error: {message}") }
    }

    /// As [`Failure::usage`], with the error and its causes as the message.
    fn usage_because(error: impl Error) -> Self {
        Self::usage(error_chain(&error))
    }

    /// As [`Failure::no_answer`], with the error and its causes as the message.
    fn no_answer_because(error: impl Error) -> Self {
        Self::no_answer(error_chain(&error))
    }
}

/// What was given to the application is wrong, or the world around it does not play its part.
impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Schema(mistakes) => {
                Self { outcome: Outcome::Usage, message: mistakes.render(std::io::stderr().is_terminal()) }
            }
            AppError::ReadSchema { .. } | AppError::Documents(_) | AppError::Unsuitable(_) => {
                Self::usage_because(error)
            }
            AppError::Connect(ConnectError::Uri(_)) => {
                Self::usage(format!("MONGODB_URI, MONGO_URI or DB_URI: {error}"))
            }
            AppError::Connect(ConnectError::NoDatabase) => Self::usage_because(error),
            AppError::Connect(_)
            | AppError::Source(_)
            | AppError::Task
            | AppError::Bind { .. }
            | AppError::Serve(_) => Self::no_answer_because(error),
        }
    }
}

type Ended = Result<Outcome, Failure>;
