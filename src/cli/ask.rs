//! `permcached check` and `permcached explain`: one question to a running server or, over a directory of documents, to the
//! same service in process.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use tonic::{Code, Request, Status, transport::{Channel, Endpoint}};

use super::{Ended, Failure, Outcome, text, tree};
use crate::{
    app::{App, read_schema},
    config::{Config, Overrides, ProcessEnvironment, local_server},
    transport::{
        PermissionApi,
        proto::{
            Answer, CheckRequest, Consistency, ExplainRequest, Freshness, Resource, Subject, consistency::Requirement,
            freshness, permission_service_client::PermissionServiceClient,
            permission_service_server::PermissionService,
        },
    },
};

/// How long a question may take.
const TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Ask {
    /// Who asks: type:id, such as user:65f000000000000000000001, or `anonymous`
    subject: String,
    /// What for: a permission, such as read
    permission: String,
    /// What it is about: type:id, such as file:65f000000000000000000101
    resource: String,
    /// The server [default: this machine, at PORT or 50051]
    #[arg(long, value_name = "URL", conflicts_with = "documents")]
    server: Option<String>,
    /// Answer without a server, from this directory of <collection>.jsonl
    #[arg(long, value_name = "DIR", requires = "schema")]
    documents: Option<PathBuf>,
    /// The schema, with --documents
    #[arg(long, value_name = "FILE", requires = "documents")]
    schema: Option<PathBuf>,
    /// See everything that was written before the question
    #[arg(long, conflicts_with = "token")]
    fully_consistent: bool,
    /// See everything up to a moment: the `as_of` of an earlier answer
    #[arg(long)]
    token: Option<String>,
    /// Print the whole response as JSON
    #[arg(long)]
    json: bool,
}

/// Who answers.
enum Service {
    Server(PermissionServiceClient<Channel>),
    InProcess(PermissionApi),
}

/// A question, taken apart.
struct Parts {
    subject: Subject,
    permission: String,
    resource: Resource,
    consistency: Option<Consistency>,
}

impl Ask {
    pub(super) async fn check(self) -> Ended {
        let Parts { subject, permission, resource, consistency } = self.parts()?;
        let subject = Some(subject);
        let request = CheckRequest { subject, permission, resource: Some(resource), consistency };
        let request = timed(request);
        let response = match self.service().await? {
            Service::Server(mut client) => client.check(request).await,
            Service::InProcess(api) => api.check(request).await,
        };
        let response = response.map_err(|status| failure(&status))?.into_inner();
        if self.json {
            say!("{}", text::json("CheckResponse", &response)?);
        } else if let Some(answer) = &response.answer {
            say!("{}", self.sentence(answer));
        }
        outcome(response.answer.as_ref())
    }

    pub(super) async fn explain(self) -> Ended {
        let Parts { subject, permission, resource, consistency } = self.parts()?;
        let subject = Some(subject);
        let request = ExplainRequest { subject, permission, resource: Some(resource), consistency };
        let request = timed(request);
        let response = match self.service().await? {
            Service::Server(client) => client.max_decoding_message_size(64 * 1_024 * 1_024).explain(request).await,
            Service::InProcess(api) => api.explain(request).await,
        };
        let response = response.map_err(|status| failure(&status))?.into_inner();
        if self.json {
            say!("{}", text::json("ExplainResponse", &response)?);
        } else if let Some(answer) = &response.answer {
            say!("{}\n\n{}", self.sentence(answer), tree::draw(&response));
        }
        outcome(response.answer.as_ref())
    }

    fn parts(&self) -> Result<Parts, Failure> {
        let object = |what: &str, text: &str| {
            let (kind, id) = text.split_once(':').ok_or_else(|| {
                Failure::usage(format!("the {what} `{text}` has no type: write type:id, such as {what}:65f000000000000000000001"))
            })?;
            Ok((kind.to_owned(), id.to_owned()))
        };
        let subject = if self.subject == "anonymous" {
            Subject { anonymous: true, ..Subject::default() }
        } else {
            let (kind, id) = object("user", &self.subject)?;
            Subject { r#type: kind, id, anonymous: false }
        };
        let (kind, id) = object("resource", &self.resource)?;
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
        if self.documents.is_none() {
            let server = self.server.clone().unwrap_or_else(|| local_server(&ProcessEnvironment));
            let endpoint = Endpoint::from_shared(server).map_err(Failure::usage)?.connect_timeout(TIME_MAX);
            return Ok(Service::Server(PermissionServiceClient::new(endpoint.connect_lazy())));
        }
        let overrides =
            Overrides { schema: self.schema.clone(), documents: self.documents.clone(), ..Overrides::default() };
        let config = Config::read(&overrides, &ProcessEnvironment).map_err(Failure::usage)?;
        let schema = read_schema(&config.schema).map_err(Failure::usage)?;
        let app = App::open(schema, &config.source).await.map_err(Failure::usage)?;
        Ok(Service::InProcess(app.api()))
    }

    /// The answer in a sentence.
    fn sentence(&self, answer: &Answer) -> String {
        let Self { subject, permission, resource, .. } = self;
        if !answer.allowed {
            return format!("{}: {subject} may not {permission} {resource}: {}", text::red("denied"), answer.reason().as_str_name());
        }
        let by = if answer.granted_by.is_empty() { String::new() } else { format!(", by {}", answer.granted_by) };
        let until = answer.valid_until.as_ref().map(|until| format!(", until {}", text::time(until))).unwrap_or_default();
        format!("{}: {subject} may {permission} {resource}{by}{until}", text::green("allowed"))
    }
}

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

fn failure(status: &Status) -> Failure {
    match status.code() {
        Code::InvalidArgument => Failure::usage(status.message()),
        code => Failure::no_answer(format!("{code}: {}", status.message())),
    }
}
