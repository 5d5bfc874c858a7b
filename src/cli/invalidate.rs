//! `permcached invalidate`: makes a running server, and with it all instances, read facts again. Changes no document.

use std::time::Duration;

use clap::{ArgGroup, Args};
use tonic::{Code, Request};

use super::{Ended, Failure, Outcome, remote::Server};
use crate::transport::proto::{
    Document, InvalidateRequest, Resource, Subject, invalidation_service_client::InvalidationServiceClient,
};

/// The time to connect, and the deadline of the request.
const TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    override_usage = "permcached invalidate [OPTIONS]",
    group = ArgGroup::new("outdated").args(["all", "resource", "document", "subject"]).required(true).multiple(true),
)]
pub(super) struct Invalidate {
    /// Read everything again, as after a backup was restored
    #[arg(long, conflicts_with_all = ["resource", "document", "subject"])]
    all: bool,
    /// Read again every fact that is looked up by this resource
    #[arg(long, value_name = "TYPE:ID")]
    resource: Vec<String>,
    /// Read this document again
    #[arg(long, value_name = "COLLECTION:ID")]
    document: Vec<String>,
    /// Read again every fact about this subject
    #[arg(long, value_name = "TYPE:ID")]
    subject: Vec<String>,
    /// The server [default: this machine, at PORT or 50051]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

impl Invalidate {
    pub(super) async fn run(self) -> Ended {
        let resource = |(kind, id)| Resource { r#type: kind, id };
        let document = |(collection, id)| Document { collection, id };
        let subject = |(kind, id)| Subject { r#type: kind, id, anonymous: false };
        let request = InvalidateRequest {
            resources: parts("--resource", &self.resource)?.into_iter().map(resource).collect(),
            documents: parts("--document", &self.document)?.into_iter().map(document).collect(),
            subjects: parts("--subject", &self.subject)?.into_iter().map(subject).collect(),
            all: self.all,
        };
        let server = Server::named(self.server.as_deref(), TIME_MAX)?;
        let mut request = Request::new(request);
        request.set_timeout(TIME_MAX);
        let response = InvalidationServiceClient::new(server.connect()).invalidate(request).await;
        let response = response.map_err(|status| match status.code() {
            Code::InvalidArgument => Failure::usage(status.message()),
            _ => Failure::no_answer(server.describe(&status)),
        })?;
        print_line!("{}", response.into_inner().token);
        Ok(Outcome::Yes)
    }
}

/// The texts before and after each colon.
fn parts(option: &str, texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let part = |text: &String| match text.split_once(':') {
        Some((kind, id)) => Ok((kind.to_owned(), id.to_owned())),
        None => Err(Failure::usage(format!("{option} `{text}` has no colon: write NAME:ID"))),
    };
    texts.iter().map(part).collect()
}
