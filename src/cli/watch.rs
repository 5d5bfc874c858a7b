//! `permcached watch`: says what changes, as a running server hears of it.

use std::time::Duration;

use clap::Args;
use tonic::Code;

use super::{Ended, Failure, remote::Server};
use crate::transport::proto::{
    Change, Freshness, WatchRequest, change::What, freshness, watch_service_client::WatchServiceClient,
};

/// How long the connection may take.
const TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Begin after this moment, not now: a token, as each line begins with one
    #[arg(long, value_name = "TOKEN")]
    since: Option<String>,
    /// The server [default: this machine, at PORT or 50051]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

impl Watch {
    pub(super) async fn run(self) -> Ended {
        let server = Server::named(self.server.as_deref(), TIME_MAX)?;
        let complaint = |status: &tonic::Status| match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition => Failure::usage(status.message()),
            _ => Failure::no_answer(server.complaint(status)),
        };
        let since = self.since.map(|token| Freshness { moment: Some(freshness::Moment::Token(token)) });
        let response = WatchServiceClient::new(server.connect()).watch(WatchRequest { since }).await;
        let mut responses = response.map_err(|status| complaint(&status))?.into_inner();
        loop {
            match responses.message().await {
                Ok(Some(response)) => response.changes.iter().for_each(|change| say!("{}", line(change))),
                Ok(None) => return Err(Failure::no_answer("the server ended the stream")),
                Err(status) => return Err(complaint(&status)),
            }
        }
    }
}

/// A change in a line: when, and what.
fn line(Change { what, token }: &Change) -> String {
    match what {
        Some(What::Document(document)) => format!("{token} document {}:{}", document.collection, document.id),
        Some(What::Key(key)) => format!("{token} key {}.{}:{}", key.collection, key.field, key.id),
        Some(What::Subject(subject)) => format!("{token} subject {}:{}", subject.r#type, subject.id),
        Some(What::Everything(_)) | None => format!("{token} everything"),
    }
}
