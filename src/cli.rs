//! The command line: the commands, how their options are read, and the exit code of each outcome.
//!
//! 0: allowed, or no problems. 1: denied, or problems. 2: the command or the question is wrong. 3: there is no
//! answer.
//!
//! Decides no permission. A command is a client of a server, or of the same services in this process.

/// Writes a line to standard output, as `println!` does. It neither fails nor panics if the reader has gone, as behind
/// `| head`.
macro_rules! print_line {
    ($($format:tt)*) => {{ crate::cli::text::print_line(format_args!($($format)*)); }};
}

mod ask;
mod brief;
mod completions;
mod config;
mod doctor;
mod health;
mod invalidate;
mod list;
mod man;
mod mongosh;
mod options;
mod questions;
mod remote;
mod schema;
mod schema_test;
mod serve;
mod target;
mod text;
mod tree;
mod watch;

use std::{error::Error, fmt, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{app::AppError, diagnosis::error_chain, source::mongodb::ConnectError};

/// The last line of the help of each command that gives a verdict.
const EXIT_CODES: &str = "Exit codes: 0 allowed, or no problems; 1 denied, or problems; \
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
    /// Like check, and show why: each relation that granted or failed, with its documents.
    #[command(after_help = EXIT_CODES)]
    Explain(ask::Explain),
    /// Which resources of a type may this subject access? Exits with 1 if there is none.
    #[command(after_help = EXIT_CODES)]
    List(list::List),
    /// Which subjects may access this resource? Exits with 1 if nobody may.
    #[command(after_help = EXIT_CODES)]
    Who(list::Who),
    /// The query that finds what this subject may access, ready for mongosh. Exits with 1 if nothing is allowed.
    #[command(after_help = EXIT_CODES)]
    Filter(list::Filter),
    /// Check a schema, or run its tests.
    Schema(schema::SchemaCommand),
    /// Draw questions from a database for load tests, or verify a server's answers to them.
    Questions(questions::QuestionsCommand),
    /// Make a running server read facts again, and print a token for what was written before.
    Invalidate(invalidate::Invalidate),
    /// Print each change that a running server learns of, one per line.
    Watch(watch::Watch),
    /// Show the configuration, where each value comes from, and every error, but no secret.
    Config(config::ShowConfig),
    /// Try everything that is configured, and print each problem with its remedy.
    #[command(after_help = EXIT_CODES)]
    Doctor(doctor::Doctor),
    /// Ask a running server whether it is serving: for container health checks.
    Health(health::Health),
    /// Print the completion script of a shell.
    Completions(completions::Completions),
    /// Print the manual page, or write the pages of all commands.
    Man(man::Man),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Allowed, or no problems.
    Yes,
    /// Denied, or problems.
    No,
    /// The command or the question is wrong.
    Usage,
    /// There is no answer.
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

/// Runs the command that the arguments name. Returns the exit code.
pub async fn run(cli: Cli) -> ExitCode {
    let ended = match cli.command {
        // Its future is large.
        Command::Serve(serve) => Box::pin(serve.run()).await,
        Command::Check(ask) => ask.check().await,
        Command::Explain(explain) => explain.run().await,
        Command::List(list) => list.run().await,
        Command::Who(who) => who.run().await,
        Command::Filter(filter) => filter.run().await,
        Command::Schema(schema) => schema.run().await,
        Command::Questions(questions) => questions.run().await,
        Command::Invalidate(invalidate) => invalidate.run().await,
        Command::Watch(watch) => watch.run().await,
        Command::Config(config) => config.run(),
        Command::Doctor(doctor) => doctor.run().await,
        Command::Health(health) => health.run().await,
        Command::Completions(completions) => Ok(completions.run(Cli::command())),
        Command::Man(man) => man.run(Cli::command()),
    };
    match ended {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            text::print_error_line(&failure.message);
            failure.outcome.into()
        }
    }
}

/// Why a command could not do its work.
struct Failure {
    outcome: Outcome,
    /// What is printed to standard error.
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

/// Errors in what the user wrote are [`Outcome::Usage`]. Errors of the database, the port or the program are
/// [`Outcome::NoAnswer`].
impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Schema(errors) => Self { outcome: Outcome::Usage, message: errors.render(true) },
            AppError::Connect(ConnectError::Uri(_)) => {
                Self::usage(format!("MONGODB_URI, MONGO_URI or DB_URI: {}", error_chain(&error)))
            }
            AppError::ReadSchema { .. }
            | AppError::Documents(_)
            | AppError::Unsuitable(_)
            | AppError::Connect(ConnectError::NoDatabase) => Self::usage_because(error),
            AppError::Connect(
                ConnectError::NotInitiated
                | ConnectError::TooOld
                | ConnectError::AssumedSource(_)
                | ConnectError::Unreachable(_),
            )
            | AppError::Source(_)
            | AppError::Task
            | AppError::Bind { .. }
            | AppError::PortInUse { .. }
            | AppError::Serve(_) => Self::no_answer_because(error),
        }
    }
}

/// How a command ended, or why it could not do its work.
type Ended = Result<Outcome, Failure>;
