//! `permcached questions`: draws questions from a live database, writes them with their expected answers, and verifies that a
//! running server gives those answers. Load tests send the questions of these files.
//!
//! Generates no load.

mod files;
mod verify;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, Subcommand};

use self::files::{Expected, Files};
use super::{
    Ended, Failure, Outcome,
    text::{self, Progress},
};
use crate::{
    app::{AppError, Parts, assemble, read_schema},
    check::{Checker, Consistency},
    config::{Config, Overrides, ProcessEnvironment, SourceConfig, variable::SCHEMA_FILE},
    question::Question,
    sample::{Sample, draw},
    source::{Deadline, mongodb::MongoDb},
};

/// The most questions in one request, here and in `batch.json`.
const BATCH: usize = 1_000;

/// The deadline of a batch that is answered in this process, where no fact is cached yet.
const BATCH_TIME: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub(super) struct QuestionsCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Draw questions from the database that `MONGODB_URI` names, and write them with the expected answers.
    Write(Write),
    /// Ask a running server all questions of a directory, and compare the answers with the expected ones.
    Verify(verify::Verify),
}

#[derive(Debug, Args)]
struct Write {
    /// The schema [`SCHEMA_FILE`]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// The number of questions
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// The same seed over the same documents draws the same questions
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The directory for check.json, batch.json (both for ghz) and expected.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl QuestionsCommand {
    pub(super) async fn run(self) -> Ended {
        match self.command {
            Command::Write(write) => write.run().await,
            Command::Verify(verify) => verify.run().await,
        }
    }
}

impl Write {
    async fn run(self) -> Ended {
        text::start_warnings()?;
        let overrides = Overrides::default().with(&SCHEMA_FILE, self.schema.as_ref());
        let config = Config::read(&overrides, &ProcessEnvironment).map_err(Failure::usage_because)?;
        let SourceConfig::MongoDb { uri, database } = &config.source else {
            return Err(Failure::usage(
                "questions are drawn from a database: unset DOCUMENTS_DIR, and set MONGODB_URI",
            ));
        };
        let schema = Arc::new(read_schema(&config.schema)?);
        // What takes minutes is not done for files that cannot be written.
        files::make_directory(&self.out)?;
        let mongodb = MongoDb::connect(Arc::clone(&schema), uri.reveal(), database.as_deref()).await;
        let mongodb = mongodb.map_err(AppError::Connect)?;
        let count = usize::try_from(self.count).map_err(Failure::usage_because)?;
        let progress = Progress::start("drawing questions …");
        let show = |drawn: usize| progress.show(&format!("drawing questions: {drawn} of {count} …"));
        let Sample { questions, missing } =
            draw(&schema, &mongodb, count, self.seed, &show).await.map_err(Failure::no_answer_because)?;
        progress.clear();
        if questions.is_empty() {
            let remedy = "check the name of the database, in MONGODB_URI or MONGODB_DATABASE, and the schema";
            return Err(Failure::usage(format!("the database has none of the schema's resources: {remedy}")));
        }
        for kind in missing {
            text::warn(&format!("no question is about `{}`: the database has none", schema.resource(kind).name));
        }
        for (_, subject) in schema.subjects().filter(|(_, subject)| subject.secret) {
            text::warn(&format!(
                "no question is from `{}`: its ids are secret, and a file would show them",
                subject.name
            ));
        }
        let app = assemble(Parts::over_mongodb(Arc::clone(&schema), mongodb));
        let expected = answers(&app.checker, &questions, &progress).await?;
        drop(progress);
        let allowed = expected.iter().filter(|expected| expected.allowed).count();
        let asked = questions.iter().map(|question| files::asked(&schema, question)).collect();
        Files { asked, expected }.write(&self.out)?;
        print_line!(
            "{}: {} questions: {allowed} allowed, {} denied",
            self.out.display(),
            questions.len(),
            questions.len() - allowed
        );
        Ok(Outcome::Yes)
    }
}

/// The answer to each question from the current state of the database.
async fn answers(checker: &Checker, questions: &[Question], progress: &Progress) -> Result<Vec<Expected>, Failure> {
    let mut expected = Vec::with_capacity(questions.len());
    for batch in questions.chunks(BATCH) {
        progress.show(&format!("answering questions: {} of {} …", expected.len(), questions.len()));
        for checked in checker.check(batch, Consistency::FullyConsistent, Deadline::after(BATCH_TIME)).await {
            expected.push(Expected::of(&checked.map_err(Failure::no_answer_because)?.answer));
        }
    }
    Ok(expected)
}
