//! `permcached questions verify`: asks a running server every question of a directory, in batches, and compares each answer
//! with the expected one. Load generators only count answers.
//!
//! Measures nothing.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use tonic::{Code, Request};

use super::{
    BATCH,
    files::{Asked, Asker, Expected, Files},
};
use crate::{
    cli::{Ended, Failure, Outcome, remote::Server},
    transport::proto::{
        BatchCheckRequest, Question, Resource, Subject, batch_check_response::result::Outcome as Answered,
        permission_service_client::PermissionServiceClient,
    },
};

/// The time to connect, and the deadline of a batch.
const TIME_MAX: Duration = Duration::from_secs(30);

/// The most wrong answers that are shown.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The directory that `permcached questions write` wrote
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The server [default: this machine, at PORT or 50051]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

impl Verify {
    pub(super) async fn run(self) -> Ended {
        let Files { asked, expected } = Files::read(&self.directory)?;
        let server = Server::named(self.server.as_deref(), TIME_MAX)?;
        let mut client = PermissionServiceClient::new(server.connect());
        let mut wrong = Vec::new();
        for (asked, expected) in asked.chunks(BATCH).zip(expected.chunks(BATCH)) {
            let questions = asked.iter().map(question).collect();
            let mut request = Request::new(BatchCheckRequest { questions, consistency: None, dependencies: false });
            request.set_timeout(TIME_MAX);
            let response = client.batch_check(request).await.map_err(|status| match status.code() {
                Code::InvalidArgument => Failure::usage(status.message()),
                _ => Failure::no_answer(server.describe(&status)),
            })?;
            let results = response.into_inner().results;
            if results.len() != asked.len() {
                let what = format!("{} answers to {} questions", results.len(), asked.len());
                return Err(Failure::no_answer(format!("{}: {what}", server.address)));
            }
            for ((asked, expected), result) in asked.iter().zip(expected).zip(results) {
                let got = shown_outcome(result.outcome);
                if got != shown(expected) {
                    wrong.push(format!("{}: expected {}, got {got}", sentence(asked), shown(expected)));
                }
            }
        }
        for difference in wrong.iter().take(SHOWN_MAX) {
            print_line!("{difference}");
        }
        if wrong.len() > SHOWN_MAX {
            print_line!("and {} more", wrong.len() - SHOWN_MAX);
        }
        print_line!("{}: {} as expected, {} not", server.address, asked.len() - wrong.len(), wrong.len());
        Ok(if wrong.is_empty() { Outcome::Yes } else { Outcome::No })
    }
}

fn question(asked: &Asked) -> Question {
    let subject = match &asked.subject {
        Asker::Known(object) => Subject { r#type: object.kind.clone(), id: object.id.clone(), anonymous: false },
        Asker::Anonymous { anonymous } => Subject { anonymous: *anonymous, ..Subject::default() },
    };
    let resource = Resource { r#type: asked.resource.kind.clone(), id: asked.resource.id.clone() };
    Question { subject: Some(subject), permission: asked.permission.clone(), resource: Some(resource) }
}

/// A question as the arguments of `permcached check`.
fn sentence(asked: &Asked) -> String {
    let subject = match &asked.subject {
        Asker::Known(object) => format!("{}:{}", object.kind, object.id),
        Asker::Anonymous { .. } => "anonymous".to_owned(),
    };
    format!("{subject} {} {}:{}", asked.permission, asked.resource.kind, asked.resource.id)
}

fn shown(expected: &Expected) -> String {
    match &expected.reason {
        None if expected.allowed => "allowed".to_owned(),
        reason => format!("denied {}", reason.as_deref().unwrap_or_default()),
    }
}

fn shown_outcome(outcome: Option<Answered>) -> String {
    match outcome {
        Some(Answered::Answer(answer)) if answer.allowed => "allowed".to_owned(),
        Some(Answered::Answer(answer)) => format!("denied {}", answer.reason().as_str_name()),
        Some(Answered::Error(status)) => format!("an error: {}", status.message),
        None => "nothing".to_owned(),
    }
}
