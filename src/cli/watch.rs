//! `permcached watch`: prints each change that a running server learns of. Ends when the stream does: it does not reconnect.

use std::time::Duration;

use clap::Args;
use tonic::Code;

use super::{Ended, Failure, remote::Server, text};
use crate::transport::proto::{
    Change, Freshness, WatchRequest, change::What, freshness, watch_service_client::WatchServiceClient,
};

/// The time to connect.
const TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Start after this token instead of now: each line starts with one
    #[arg(long, value_name = "TOKEN")]
    since: Option<String>,
    /// The server [default: this machine, at PORT or 50051]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

impl Watch {
    pub(super) async fn run(self) -> Ended {
        let server = Server::named(self.server.as_deref(), TIME_MAX)?;
        let failure = |status: &tonic::Status| match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition => Failure::usage(status.message()),
            _ => Failure::no_answer(server.describe(status)),
        };
        let since = self.since.map(|token| Freshness { moment: Some(freshness::Moment::Token(token)) });
        let response = WatchServiceClient::new(server.connect()).watch(WatchRequest { since }).await;
        let mut responses = response.map_err(|status| failure(&status))?.into_inner();
        loop {
            match responses.message().await {
                Ok(Some(response)) => response.changes.iter().for_each(|change| print_line!("{}", line(change))),
                Ok(None) => return Err(Failure::no_answer("the server ended the stream")),
                Err(status) => return Err(failure(&status)),
            }
        }
    }
}

/// A change as a line: its token, and what changed.
fn line(Change { what, token, hash: _, moment: _ }: &Change) -> String {
    text::visible(&match what {
        Some(What::Document(document)) => format!("{token} document {}:{}", document.collection, document.id),
        Some(What::Key(key)) => format!("{token} key {}.{}:{}", key.collection, key.field, key.id),
        Some(What::Subject(subject)) => format!("{token} subject {}:{}", subject.r#type, subject.id),
        Some(What::Everything(_)) | None => format!("{token} everything"),
    })
}
