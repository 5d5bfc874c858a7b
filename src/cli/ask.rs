//! `permcached check` and `permcached explain`: ask a running server one question. With a directory of documents they ask the
//! same service in this process instead.
//!
//! The commands decide nothing: they show the service's answer.

use std::collections::BTreeSet;

use clap::Args;
use tokio::time::timeout;
use tonic::Response;

use super::{
    Ended, Failure, Outcome, brief,
    target::{Service, TIME_MAX, Target, client, object, subject, timed},
    text, tree,
};
use crate::{
    source::Source,
    transport::{
        CallContext,
        proto::{
            Answer, CheckRequest, Consistency, ExplainRequest, ExplainResponse, Resource, Subject, explanation::Step,
        },
    },
};

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
    #[command(flatten)]
    target: Target,
    /// Print the whole response as JSON
    #[arg(long)]
    json: bool,
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
        let request = CheckRequest { subject, permission, resource: Some(resource), consistency, dependencies: false };
        let service = self.target.service().await?;
        let response = match &service {
            Service::Server(server) => client(server).check(timed(request)).await.map(Response::into_inner),
            Service::InProcess { apis, .. } => apis.permissions.check_in_process(&request).await,
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
        let service = self.target.service().await?;
        let response = match &service {
            Service::Server(server) => client(server).explain(timed(request)).await.map(Response::into_inner),
            Service::InProcess { apis, .. } => apis.permissions.explain(request, &CallContext::in_process()).await,
        };
        let response = response.map_err(|status| service.failure(&status))?;
        if self.json {
            print_line!("{}", text::json("ExplainResponse", &response)?);
        } else if let Some(answer) = &response.answer {
            let shown = if all { tree::draw(&response) } else { brief::draw(&response) };
            print_line!("{}\n\n{shown}", self.sentence(answer));
            if let (false, Service::InProcess { source, .. }) = (answer.allowed, &service) {
                for message in misread(source.as_ref(), &response).await {
                    print_line!("{} {}", text::yellow("!"), text::visible(&message));
                }
            }
        }
        outcome(response.answer.as_ref())
    }

    fn parts(&self) -> Result<Parts, Failure> {
        let subject = subject(&self.subject)?;
        let (kind, id) = object("resource", &self.resource, "file")?;
        Ok(Parts {
            subject,
            permission: self.permission.clone(),
            resource: Resource { r#type: kind, id },
            consistency: self.target.consistency(),
        })
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

fn outcome(answer: Option<&Answer>) -> Ended {
    match answer {
        Some(answer) if answer.allowed => Ok(Outcome::Yes),
        Some(_) => Ok(Outcome::No),
        None => Err(Failure::no_answer("the response has no answer")),
    }
}
