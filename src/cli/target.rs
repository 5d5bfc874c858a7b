//! Whom a command asks: a running server, or the same services in this process; and how fresh the answer must be.
//!
//! Asks nothing itself.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tonic::{Code, Request, Status};

use super::{
    Failure,
    remote::{AuthenticatedChannel, Server},
    text,
};
use crate::{
    app::{self, assemble, open, read_schema},
    config::{
        Config, Overrides, ProcessEnvironment,
        variable::{DOCUMENTS_DIR, SCHEMA_FILE},
    },
    source::Source,
    transport::{
        Apis,
        proto::{
            Consistency, Freshness, Subject, consistency::Requirement, freshness,
            permission_service_client::PermissionServiceClient,
        },
    },
};

/// The deadline of a request.
pub(super) const TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Target {
    /// The server [default: this machine, at PORT or 50051]
    #[arg(long, value_name = "URL", conflicts_with = "documents")]
    server: Option<String>,
    /// Answer without a server, from the <collection>.jsonl files in DIR
    #[arg(long, value_name = "DIR", group = "in_process")]
    documents: Option<PathBuf>,
    /// Answer without a server, from the database that `MONGODB_URI` names
    #[arg(long, conflicts_with = "server", group = "in_process")]
    live: bool,
    /// The schema, with --documents or --live [`SCHEMA_FILE`]
    #[arg(long, value_name = "FILE", requires = "in_process")]
    schema: Option<PathBuf>,
    /// Reflect everything that was written before the question
    #[arg(long, conflicts_with = "token")]
    fully_consistent: bool,
    /// Reflect everything up to a token: the `as_of` of an earlier answer
    #[arg(long)]
    token: Option<String>,
}

/// The service that answers.
pub(super) enum Service {
    /// A server.
    Server(Box<Server>),
    /// The services in this process.
    InProcess { apis: Box<Apis>, source: Arc<dyn Source> },
}

impl Target {
    pub(super) async fn service(&self) -> Result<Service, Failure> {
        if self.documents.is_none() && !self.live {
            return Ok(Service::Server(Box::new(Server::named(self.server.as_deref(), TIME_MAX)?)));
        }
        let overrides =
            Overrides::default().with(&SCHEMA_FILE, self.schema.as_ref()).with(&DOCUMENTS_DIR, self.documents.as_ref());
        let config = Config::read(&overrides, &ProcessEnvironment).map_err(Failure::usage_because)?;
        text::start_warnings()?;
        let parts = open(read_schema(&config.schema)?, &config.source, None, config.settings).await?;
        let source = Arc::clone(&parts.source);
        let app = assemble(app::Parts { requests_max: config.limits.requests_max, ..parts });
        Ok(Service::InProcess { apis: Box::new(app.apis), source })
    }

    pub(super) fn consistency(&self) -> Option<Consistency> {
        let requirement = match &self.token {
            Some(token) => {
                let moment = Some(freshness::Moment::Token(token.clone()));
                Some(Requirement::AtLeastAsFresh(Freshness { moment }))
            }
            None => self.fully_consistent.then_some(Requirement::FullyConsistent(true)),
        };
        requirement.map(|requirement| Consistency { requirement: Some(requirement) })
    }

    /// The options of another command that make it ask the same service for an answer that is as fresh.
    pub(super) fn as_options(&self) -> String {
        let quoted = |path: &PathBuf| text::shell_quoted(&path.display().to_string());
        let mut options = String::new();
        if let Some(server) = &self.server {
            options += &format!(" --server {}", text::shell_quoted(server));
        }
        if let Some(documents) = &self.documents {
            options += &format!(" --documents {}", quoted(documents));
        }
        if self.live {
            options += " --live";
        }
        if let Some(schema) = &self.schema {
            options += &format!(" --schema {}", quoted(schema));
        }
        if self.fully_consistent {
            options += " --fully-consistent";
        }
        if let Some(token) = &self.token {
            options += &format!(" --token {}", text::shell_quoted(token));
        }
        options
    }
}

impl Service {
    /// The failure that a status means.
    pub(super) fn failure(&self, status: &Status) -> Failure {
        match (status.code(), self) {
            (Code::InvalidArgument, _) => Failure::usage(status.message()),
            (_, Self::Server(server)) => Failure::no_answer(server.describe(status)),
            (code, Self::InProcess { .. }) => Failure::no_answer(format!("{code}: {}", status.message())),
        }
    }
}

/// A client of a server.
pub(super) fn client(server: &Server) -> PermissionServiceClient<AuthenticatedChannel> {
    PermissionServiceClient::new(server.connect())
}

/// A request with the deadline of a question.
pub(super) fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIME_MAX);
    request
}

/// The type and the id of `type:id`. `role` names the argument, and `example` a type.
pub(super) fn object(role: &str, text: &str, example: &str) -> Result<(String, String), Failure> {
    let (kind, id) = text.split_once(':').ok_or_else(|| {
        let remedy = format!("write type:id, such as {example}:65f000000000000000000001");
        Failure::usage(format!("the {role} `{text}` has no type: {remedy}"))
    })?;
    Ok((kind.to_owned(), id.to_owned()))
}

/// The subject of `type:id` or `anonymous`.
pub(super) fn subject(text: &str) -> Result<Subject, Failure> {
    if text == "anonymous" {
        return Ok(Subject { anonymous: true, ..Subject::default() });
    }
    let (kind, id) = object("subject", text, "user")?;
    Ok(Subject { r#type: kind, id, anonymous: false })
}
