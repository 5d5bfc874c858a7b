//! `permcached list`, `permcached who` and `permcached filter`: which resources a subject may access, page by page or as a query, and
//! which subjects may access a resource. They ask a running server, or the same services in this process.
//!
//! The commands find nothing themselves: they show the service's answer.

use std::collections::HashSet;

use clap::Args;
use tonic::{Response, Status};

use super::{
    Ended, Failure, Outcome, mongosh,
    target::{Service, Target, client, object, subject, timed},
    text,
};
use crate::transport::{
    CallContext,
    proto::{
        ListResourcesRequest, ListResourcesResponse, ListSubjectsRequest, ListSubjectsResponse, PlanFilterRequest,
        PlanFilterResponse, Resource, list_subjects_response::Everybody, plan_filter_response::Kind,
    },
};

/// The size of a page if all pages are wanted.
const PAGE_MAX: u32 = 1_000;

#[derive(Debug, Args)]
pub(super) struct List {
    /// The subject: type:id, such as `user:65f000000000000000000001`, or `anonymous`
    subject: String,
    /// The permission, such as read
    permission: String,
    /// The resource type, such as file
    #[arg(value_name = "TYPE")]
    kind: String,
    /// Only those that fulfil this condition, such as `{"is_deleted": false}`
    #[arg(long, value_name = "JSON")]
    within: Option<String>,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    target: Target,
    /// Print each response as JSON, one after the other
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Who {
    /// The permission, such as read
    permission: String,
    /// The resource: type:id, such as `file:65f000000000000000000101`
    resource: String,
    /// The type of the subjects
    #[arg(long = "type", value_name = "TYPE", default_value = "user")]
    kind: String,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    target: Target,
    /// Print each response as JSON, one after the other
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// The subject: type:id, such as `user:65f000000000000000000001`, or `anonymous`
    subject: String,
    /// The permission, such as read
    permission: String,
    /// The resource type, such as file
    #[arg(value_name = "TYPE")]
    kind: String,
    /// The most ids that the query may have [default: 1000]
    #[arg(long, value_name = "COUNT")]
    max_ids: Option<u32>,
    /// Make a query for another collection, which names the resource in this field
    #[arg(long, value_name = "FIELD")]
    reference_field: Option<String>,
    #[command(flatten)]
    target: Target,
    /// Print the whole response as JSON, with the query as Extended JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Paging {
    /// The most that one page has [default: 100, with --all 1000]
    #[arg(long, value_name = "COUNT")]
    page_size: Option<u32>,
    /// Begin with the page of this token, which the page before has printed
    #[arg(long, value_name = "TOKEN", conflicts_with = "all")]
    page_token: Option<String>,
    /// Print all pages
    #[arg(long)]
    all: bool,
}

impl Paging {
    fn size(&self) -> u32 {
        self.page_size.unwrap_or(if self.all { PAGE_MAX } else { 0 })
    }

    fn token(&self) -> String {
        self.page_token.clone().unwrap_or_default()
    }

    /// The token of the page to print next, if there is one. Says otherwise how to see more. `has_printed` is whether people have seen
    /// something: a page may be empty although others follow.
    fn next(&self, current: &str, next: String, has_printed: bool, json: bool) -> Result<Option<String>, Failure> {
        if next.is_empty() {
            return Ok(None);
        }
        if !self.all && (has_printed || json) {
            if !json {
                hint(&format!("there is more: --page-token {next}, or --all"));
            }
            return Ok(None);
        }
        if next == current {
            return Err(Failure::no_answer("the service returned the same page again"));
        }
        Ok(Some(next))
    }
}

impl List {
    pub(super) async fn run(self) -> Ended {
        let asker = subject(&self.subject)?;
        let service = self.target.service().await?;
        let mut page_token = self.paging.token();
        let (mut first, mut may_be_more) = (None, false);
        loop {
            let request = ListResourcesRequest {
                subject: Some(asker.clone()),
                permission: self.permission.clone(),
                resource_type: self.kind.clone(),
                consistency: self.target.consistency(),
                page_size: self.paging.size(),
                page_token: page_token.clone(),
                within: self.within.clone().unwrap_or_default(),
            };
            let response = resources(&service, request).await.map_err(|status| service.failure(&status))?;
            let mut is_read = true;
            if self.json {
                is_read = text::print_line(format_args!("{}", text::json("ListResourcesResponse", &response)?));
            }
            for listed in &response.resources {
                let object = format!("{}:{}", self.kind, listed.id);
                if !self.json {
                    is_read &= print_listed(&object, &listed.granted_by, listed.valid_until.as_ref());
                }
                first.get_or_insert(object);
            }
            if !is_read {
                break;
            }
            may_be_more = !response.next_page_token.is_empty();
            match self.paging.next(&page_token, response.next_page_token, first.is_some(), self.json)? {
                Some(next) => page_token = next,
                None => break,
            }
        }
        if !self.json {
            self.show_hint(first.as_deref());
        }
        Ok(if first.is_some() || may_be_more { Outcome::Yes } else { Outcome::No })
    }

    fn show_hint(&self, first: Option<&str>) {
        let Self { subject, permission, kind, .. } = self;
        match first {
            Some(object) => hint(&explain(subject, permission, object, &self.target)),
            None => {
                hint(&format!(
                    "{subject} may {permission} no {kind}; to see why: {}",
                    explain(subject, permission, &format!("{kind}:ID"), &self.target)
                ));
            }
        }
    }
}

impl Who {
    pub(super) async fn run(self) -> Ended {
        let (kind, id) = object("resource", &self.resource, "file")?;
        let resource = Resource { r#type: kind, id };
        let service = self.target.service().await?;
        let mut page_token = self.paging.token();
        let (mut first, mut groups, mut may_be_more) = (None, HashSet::new(), false);
        loop {
            let request = ListSubjectsRequest {
                permission: self.permission.clone(),
                resource: Some(resource.clone()),
                subject_type: self.kind.clone(),
                consistency: self.target.consistency(),
                page_size: self.paging.size(),
                page_token: page_token.clone(),
            };
            let response = subjects(&service, request).await.map_err(|status| service.failure(&status))?;
            let mut is_read = true;
            if self.json {
                is_read = text::print_line(format_args!("{}", text::json("ListSubjectsResponse", &response)?));
            }
            // The groups are those of one page: on a later one a set may have become too large.
            for group in self.groups(&response) {
                if groups.insert(group.clone()) && !self.json {
                    is_read &= group.print();
                }
            }
            for listed in &response.subjects {
                let subject = format!("{}:{}", self.kind, listed.id);
                if !self.json {
                    is_read &= print_listed(&subject, &listed.granted_by, listed.valid_until.as_ref());
                }
                first.get_or_insert(subject);
            }
            if !is_read {
                break;
            }
            may_be_more = !response.next_page_token.is_empty();
            let is_anybody = first.is_some() || !groups.is_empty();
            match self.paging.next(&page_token, response.next_page_token, is_anybody, self.json)? {
                Some(next) => page_token = next,
                None => break,
            }
        }
        if let (false, Some(subject)) = (self.json, &first) {
            hint(&explain(subject, &self.permission, &self.resource, &self.target));
        }
        Ok(if first.is_some() || !groups.is_empty() || may_be_more { Outcome::Yes } else { Outcome::No })
    }

    /// Those who may, and who are not listed one by one.
    fn groups(&self, response: &ListSubjectsResponse) -> Vec<Group> {
        let everybody = match response.everybody() {
            Everybody::Yes => Some(Group::Everybody(self.kind.clone())),
            Everybody::WithExclusions => Some(Group::Others(self.kind.clone())),
            Everybody::No | Everybody::Unspecified => None,
        };
        everybody.into_iter().chain(response.sets.iter().cloned().map(Group::Set)).collect()
    }
}

/// Subjects that are not listed one by one.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Group {
    /// All of this type.
    Everybody(String),
    /// Maybe others of this type.
    Others(String),
    /// Members of a resource.
    Set(String),
}

impl Group {
    /// Prints who they are. Returns whether somebody may read it.
    fn print(&self) -> bool {
        let line = |who: &str, what| text::print_line(format_args!("{who}{}", text::faint(what)));
        match self {
            Self::Everybody(kind) => line(&format!("{kind}:*"), "  everybody"),
            Self::Set(set) => {
                line(&text::visible(set), "  a set that is not listed here: permcached check decides for each member")
            }
            Self::Others(kind) => {
                hint(&format!(
                    "others of type {kind} may have it, too, maybe not all: permcached check decides for each"
                ));
                true
            }
        }
    }
}

impl Filter {
    pub(super) async fn run(self) -> Ended {
        let request = PlanFilterRequest {
            subject: Some(subject(&self.subject)?),
            permission: self.permission.clone(),
            resource_type: self.kind.clone(),
            consistency: self.target.consistency(),
            max_ids: self.max_ids.unwrap_or_default(),
            reference_field: self.reference_field.clone().unwrap_or_default(),
        };
        let service = self.target.service().await?;
        let plan = planned(&service, request).await.map_err(|status| service.failure(&status))?;
        if self.json {
            print_line!("{}", text::json("PlanFilterResponse", &plan)?);
        } else {
            let query = mongosh::literal(&plan.filter);
            let query =
                query.ok_or_else(|| Failure::no_answer("the filter cannot be written for mongosh: use --json"))?;
            print_line!("{query}");
            hint(&self.meaning(&plan));
            plan.notes.iter().for_each(|note| hint(&note.message));
        }
        Ok(if plan.kind() == Kind::None { Outcome::No } else { Outcome::Yes })
    }

    /// What the query finds, and for how long it does.
    fn meaning(&self, plan: &PlanFilterResponse) -> String {
        let Self { subject, permission, kind, .. } = self;
        let meaning = match plan.kind() {
            Kind::None => format!("NONE: {subject} may {permission} no {kind}"),
            Kind::Exact => format!("EXACT: finds each {kind} that {subject} may {permission}, and nothing else"),
            Kind::Superset | Kind::Unspecified => {
                format!("SUPERSET: finds each {kind} that {subject} may {permission}, and others: check what it finds")
            }
            Kind::All => format!("ALL: {subject} may {permission} every {kind}"),
        };
        let ids = if plan.ids > 0 { format!("; {} ids", plan.ids) } else { String::new() };
        let until = plan.valid_until.as_ref().map(|until| format!("; until {}", text::time(until))).unwrap_or_default();
        format!("{meaning}{ids}{until}")
    }
}

async fn resources(service: &Service, request: ListResourcesRequest) -> Result<ListResourcesResponse, Status> {
    match service {
        Service::Server(server) => client(server).list_resources(timed(request)).await.map(Response::into_inner),
        Service::InProcess { apis, .. } => apis.lists.list_resources(request, &CallContext::in_process()).await,
    }
}

async fn subjects(service: &Service, request: ListSubjectsRequest) -> Result<ListSubjectsResponse, Status> {
    match service {
        Service::Server(server) => client(server).list_subjects(timed(request)).await.map(Response::into_inner),
        Service::InProcess { apis, .. } => apis.lists.list_subjects(request, &CallContext::in_process()).await,
    }
}

async fn planned(service: &Service, request: PlanFilterRequest) -> Result<PlanFilterResponse, Status> {
    match service {
        Service::Server(server) => client(server).plan_filter(timed(request)).await.map(Response::into_inner),
        Service::InProcess { apis, .. } => apis.lists.plan_filter(request, &CallContext::in_process()).await,
    }
}

/// Prints the line of something that is listed, without anything that ends the line or controls the terminal. Returns whether somebody may
/// read it.
fn print_listed(object: &str, granted_by: &str, valid_until: Option<&prost_types::Timestamp>) -> bool {
    let by = if granted_by.is_empty() { String::new() } else { format!("by {granted_by}") };
    let until = valid_until.map(|until| format!("until {}", text::time(until))).unwrap_or_default();
    let why = [by, until].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let why = if why.is_empty() { why } else { text::faint(&format!("  {why}")) };
    text::print_line(format_args!("{}{why}", text::visible(object)))
}

/// The command that explains one answer.
fn explain(subject: &str, permission: &str, object: &str, target: &Target) -> String {
    let words = [subject, permission, object].map(text::shell_quoted).join(" ");
    format!("permcached explain {words}{}", target.as_options())
}

/// Prints what people may want to know, apart from the answer, to standard error.
fn hint(message: &str) {
    text::print_error_line(&text::faint(message));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_end_when_something_was_printed_or_nothing_follows() {
        let next = |all: bool, next: &str, has_printed: bool, json: bool| {
            let paging = Paging { page_size: None, page_token: None, all };
            paging.next("a", next.to_owned(), has_printed, json).ok().flatten()
        };
        let more = Some("b".to_owned());
        for json in [false, true] {
            assert_eq!(next(false, "b", true, json), None);
            assert_eq!(next(true, "b", true, json), more);
            assert_eq!(next(true, "b", false, json), more);
            assert_eq!(next(false, "", false, json), None);
        }
        // A page may be empty although others follow: people go on, and a program reads the token.
        assert_eq!(next(false, "b", false, false), more);
        assert_eq!(next(false, "b", false, true), None);
        let paging = Paging { page_size: None, page_token: None, all: true };
        assert!(paging.next("b", "b".to_owned(), false, true).is_err());
    }
}
