//! `permcached check` and `permcached explain`: ask a running server one question. With a directory of documents they ask the
//! same service in this process instead.
//!
//! The commands decide nothing: they show the service's answer.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status};

use super::{
    Ended, Failure, Outcome, brief,
    remote::{AuthenticatedChannel, Server},
    text, tree,
};
use crate::{
    app::{self, assemble, open, read_schema},
    config::{
        Config, Overrides, ProcessEnvironment,
        variable::{DOCUMENTS_DIR, SCHEMA_FILE},
    },
    source::Source,
    transport::{
        CallContext, PermissionApi,
        proto::{
            Answer, CheckRequest, Consistency, ExplainRequest, ExplainResponse, Freshness, Resource, Subject,
            consistency::Requirement, explanation::Step, freshness, permission_service_client::PermissionServiceClient,
        },
    },
};

/// The deadline of a question.
const TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    ask: Ask,
    /// Show every step, not only those that decided
    #[arg(long, conflicts_with = "json")]
    all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Ask {
    /// The subject: type:id, such as `user:65f000000000000000000001`, or `anonymous`
    subject: String,
    /// The permission, such as read
    permission: String,
    /// The resource: type:id, such as `file:65f000000000000000000101`
    resource: String,
    /// The server [default: this machine, at PORT or 50051]
    #[arg(long, value_name = "URL", conflicts_with = "documents")]
    server: Option<String>,
    /// Answer without a server, from a directory of <collection>.jsonl files
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
    /// Print the whole response as JSON
    #[arg(long)]
    json: bool,
}

/// The service that answers.
enum Service {
    Server(Box<Server>),
    InProcess { api: Box<PermissionApi>, source: Arc<dyn Source> },
}

/// The parts of a request.
struct Parts {
    subject: Subject,
    permission: String,
    resource: Resource,
    consistency: Option<Consistency>,
}

impl Explain {
    pub(super) async fn run(self) -> Ended {
        self.ask.explain(self.all).await
    }
}

impl Ask {
    pub(super) async fn check(self) -> Ended {
        let Parts { subject, permission, resource, consistency } = self.parts()?;
        let subject = Some(subject);
        let request = CheckRequest { subject, permission, resource: Some(resource), consistency };
        let service = self.service().await?;
        let response = match &service {
            Service::Server(server) => client(server).check(timed(request)).await.map(Response::into_inner),
            Service::InProcess { api, .. } => api.check_in_process(&request).await,
        };
        let response = response.map_err(|status| service.failure(&status))?;
        if self.json {
            print_line!("{}", text::json("CheckResponse", &response)?);
        } else if let Some(answer) = &response.answer {
            print_line!("{}", self.sentence(answer));
        }
        outcome(response.answer.as_ref())
    }

    async fn explain(self, all: bool) -> Ended {
        let Parts { subject, permission, resource, consistency } = self.parts()?;
        let subject = Some(subject);
        let request = ExplainRequest { subject, permission, resource: Some(resource), consistency };
        let service = self.service().await?;
        let response = match &service {
            Service::Server(server) => client(server).explain(timed(request)).await.map(Response::into_inner),
            Service::InProcess { api, .. } => api.explain(request, &CallContext::in_process()).await,
        };
        let response = response.map_err(|status| service.failure(&status))?;
        if self.json {
            print_line!("{}", text::json("ExplainResponse", &response)?);
        } else if let Some(answer) = &response.answer {
            let shown = if all { tree::draw(&response) } else { brief::draw(&response) };
            print_line!("{}\n\n{shown}", self.sentence(answer));
            if let (false, Service::InProcess { source, .. }) = (answer.allowed, &service) {
                for message in misread(source.as_ref(), &response).await {
                    print_line!("{} {message}", text::yellow("!"));
                }
            }
        }
        outcome(response.answer.as_ref())
    }

    fn parts(&self) -> Result<Parts, Failure> {
        let object = |role: &str, text: &str, example: &str| {
            let (kind, id) = text.split_once(':').ok_or_else(|| {
                let remedy = format!("write type:id, such as {example}:65f000000000000000000001");
                Failure::usage(format!("the {role} `{text}` has no type: {remedy}"))
            })?;
            Ok::<_, Failure>((kind.to_owned(), id.to_owned()))
        };
        let subject = if self.subject == "anonymous" {
            Subject { anonymous: true, ..Subject::default() }
        } else {
            let (kind, id) = object("subject", &self.subject, "user")?;
            Subject { r#type: kind, id, anonymous: false }
        };
        let (kind, id) = object("resource", &self.resource, "file")?;
        let requirement = match &self.token {
            Some(token) => {
                let moment = Some(freshness::Moment::Token(token.clone()));
                Some(Requirement::AtLeastAsFresh(Freshness { moment }))
            }
            None => self.fully_consistent.then_some(Requirement::FullyConsistent(true)),
        };
        let consistency = requirement.map(|requirement| Consistency { requirement: Some(requirement) });
        Ok(Parts { subject, permission: self.permission.clone(), resource: Resource { r#type: kind, id }, consistency })
    }

    async fn service(&self) -> Result<Service, Failure> {
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
        Ok(Service::InProcess { api: Box::new(app.apis.permissions), source })
    }

    /// The answer as a sentence.
    fn sentence(&self, answer: &Answer) -> String {
        let Self { subject, permission, resource, .. } = self;
        if !answer.allowed {
            return format!(
                "{}: {subject} may not {permission} {resource}: {}",
                text::red("denied"),
                answer.reason().as_str_name()
            );
        }
        let by = if answer.granted_by.is_empty() { String::new() } else { format!(", by {}", answer.granted_by) };
        let until =
            answer.valid_until.as_ref().map(|until| format!(", until {}", text::time(until))).unwrap_or_default();
        format!("{}: {subject} may {permission} {resource}{by}{until}", text::green("allowed"))
    }
}

/// The fields that relations of a denial read, and that no document has among some that are looked at. Nothing if the look takes too
/// long.
async fn misread(source: &dyn Source, response: &ExplainResponse) -> Vec<String> {
    let relations: BTreeSet<String> = response
        .steps
        .iter()
        .filter(|step| matches!(step.step(), Step::Relation | Step::Edge | Step::Gate))
        .filter_map(|step| {
            let (kind, _) = step.object.split_once(':')?;
            let name = step.name.split('.').next().unwrap_or_default();
            Some(format!("`{kind}#{name}` reads"))
        })
        .collect();
    let survey = timeout(TIME_MAX, source.survey()).await.unwrap_or_default();
    let messages =
        survey.into_iter().map(|diagnosis| diagnosis.message).filter(|message| message.starts_with("no document of"));
    messages.filter(|message| relations.iter().any(|relation| message.contains(relation))).collect()
}

/// A request with the deadline of a question.
fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIME_MAX);
    request
}

fn outcome(answer: Option<&Answer>) -> Ended {
    match answer {
        Some(answer) if answer.allowed => Ok(Outcome::Yes),
        Some(_) => Ok(Outcome::No),
        None => Err(Failure::no_answer("the response has no answer")),
    }
}

impl Service {
    /// The failure that a status means.
    fn failure(&self, status: &Status) -> Failure {
        match (status.code(), self) {
            (Code::InvalidArgument, _) => Failure::usage(status.message()),
            (_, Self::Server(server)) => Failure::no_answer(server.describe(status)),
            (code, Self::InProcess { .. }) => Failure::no_answer(format!("{code}: {}", status.message())),
        }
    }
}

fn client(server: &Server) -> PermissionServiceClient<AuthenticatedChannel> {
    PermissionServiceClient::new(server.connect())
}
