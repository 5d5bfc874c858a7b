//! The handlers of `PlanFilter`, `ListResources` and `ListSubjects`: each reads the request, asks the lister and writes the response.
//!
//! Finds nothing and decides no permission. What is secret stays in the question and in the filter: no message names it.

mod extended_json;
mod page_token;
mod requests;

use std::sync::Arc;

use tokio::{sync::Semaphore, time::timeout_at};
use tonic::Status;

use super::{
    admitted::{Admitted, valid},
    call_context::CallContext,
    convert,
    proto::{
        self, ListResourcesRequest, ListResourcesResponse, ListSubjectsRequest, ListSubjectsResponse,
        PlanFilterRequest, PlanFilterResponse, list_subjects_response, plan_filter_response,
    },
    record::{Record, RecordOfRequest},
    status,
};
use crate::{
    check::CheckError,
    list::{Everybody, ListError, Lister, Note, Plan, PlanKind, ResourceList, SubjectList},
    schema::Schema,
};
use extended_json::{TooLong, canonical};
use page_token::Paged;
#[cfg(any(test, fuzzing))]
pub(crate) use page_token::test_page_token;
use requests::SubjectsQuestion;

/// The longest filter, in bytes of its text. Clients accept messages of 4 MiB.
const FILTER_BYTES_MAX: usize = 3 * 1_024 * 1_024;

/// The handlers, as the port and, in process, the command line call them.
#[derive(Clone)]
pub struct ListApi {
    schema: Arc<Schema>,
    lister: Lister,
    permits: Arc<Semaphore>,
    record: Record,
}

impl ListApi {
    /// Handlers that take one of `permits` for each request, and refuse a request if none is free.
    pub(super) fn new(lister: Lister, permits: Arc<Semaphore>, record: Record) -> Self {
        Self { schema: Arc::clone(&lister.checker.schema), lister, permits, record }
    }

    fn admit(
        &self,
        context: &CallContext,
        consistency: Option<&proto::Consistency>,
        violations: &mut Vec<status::Violation>,
    ) -> Result<Admitted<'_>, Status> {
        Admitted::read(&self.permits, self.lister.checker.clock, context, consistency, violations)
    }
}

/// The methods.
///
/// Their errors are gRPC statuses, with details (docs/lists.md).
impl ListApi {
    /// `PlanFilter`.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn plan_filter(
        &self,
        request: PlanFilterRequest,
        context: &CallContext,
    ) -> Result<PlanFilterResponse, Status> {
        let mut violations = Vec::new();
        let admitted = self.admit(context, request.consistency.as_ref(), &mut violations)?;
        let (question, options) = valid(requests::plan(&self.schema, &request), violations)?;
        let planned = self.lister.plan_filter(&question, admitted.consistency, options, admitted.deadline);
        let record = self.record.of(context);
        let plan = in_time(&admitted, &record, planned).await?;
        let filter = canonical(&plan.filter, FILTER_BYTES_MAX).map_err(|TooLong(bytes)| {
            record.filter_too_large();
            status::filter_too_large(bytes, FILTER_BYTES_MAX)
        })?;
        record.planned(&question, &plan);
        Ok(plan_response(&plan, filter))
    }

    /// `ListResources`.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn list_resources(
        &self,
        request: ListResourcesRequest,
        context: &CallContext,
    ) -> Result<ListResourcesResponse, Status> {
        let mut violations = Vec::new();
        let admitted = self.admit(context, request.consistency.as_ref(), &mut violations)?;
        let (question, page, paged) = valid(requests::resources(&self.schema, &request), violations)?;
        let listed = self.lister.list_resources(&question, admitted.consistency, page, admitted.deadline);
        let record = self.record.of(context);
        let list = in_time(&admitted, &record, listed).await?;
        record.listed_resources(&question, &list);
        Ok(self.resources_response(&list, &paged))
    }

    /// `ListSubjects`.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn list_subjects(
        &self,
        request: ListSubjectsRequest,
        context: &CallContext,
    ) -> Result<ListSubjectsResponse, Status> {
        let mut violations = Vec::new();
        let admitted = self.admit(context, request.consistency.as_ref(), &mut violations)?;
        let (question, page, paged) = valid(requests::subjects(&self.schema, &request), violations)?;
        let SubjectsQuestion { permission, resource, subject_type } = question;
        let listed = self.lister.list_subjects(
            permission,
            &resource,
            subject_type,
            admitted.consistency,
            page,
            admitted.deadline,
        );
        let record = self.record.of(context);
        let list = in_time(&admitted, &record, listed).await?;
        record.listed_subjects((permission, &resource, subject_type), &list);
        Ok(self.subjects_response(&list, &paged))
    }

    fn resources_response(&self, list: &ResourceList, paged: &Paged) -> ListResourcesResponse {
        let ResourceList { resources, next, as_of, age, examined } = list;
        let resources = resources.iter().map(|listed| proto::ListedResource {
            id: listed.id.to_string(),
            granted_by: listed.granted_by.map(|relation| self.schema.relation_name(relation)).unwrap_or_default(),
            valid_until: listed.valid_until.map(convert::timestamp),
        });
        ListResourcesResponse {
            resources: resources.collect(),
            next_page_token: next.as_ref().map(|after| paged.token(after)).unwrap_or_default(),
            as_of: as_of.to_string(),
            age: prost_types::Duration::try_from(*age).ok(),
            examined: *examined,
        }
    }

    fn subjects_response(&self, list: &SubjectList, paged: &Paged) -> ListSubjectsResponse {
        let SubjectList { subjects, everybody, sets, next, as_of, age, examined: _ } = list;
        let subjects = subjects.iter().map(|listed| proto::ListedSubject {
            id: listed.id.to_string(),
            granted_by: listed.granted_by.map(|relation| self.schema.relation_name(relation)).unwrap_or_default(),
            valid_until: listed.valid_until.map(convert::timestamp),
        });
        let sets = sets.iter().map(|(kind, id, member)| {
            format!("{}:{id}#{}", self.schema.resource(*kind).name, self.schema.member_name(*member))
        });
        ListSubjectsResponse {
            subjects: subjects.collect(),
            everybody: self::everybody(*everybody).into(),
            sets: sets.collect(),
            next_page_token: next.as_ref().map(|after| paged.token(after)).unwrap_or_default(),
            as_of: as_of.to_string(),
            age: prost_types::Duration::try_from(*age).ok(),
        }
    }
}

/// Waits for a list until the deadline. The lister ends in time by itself, unless something that it waits for does not.
async fn in_time<T>(
    admitted: &Admitted<'_>,
    record: &RecordOfRequest<'_>,
    list: impl Future<Output = Result<T, ListError>>,
) -> Result<T, Status> {
    let listed = timeout_at(admitted.deadline.instant(), list).await;
    let listed = listed.unwrap_or(Err(ListError::Check(CheckError::DeadlineExceeded)));
    listed.map_err(|error| {
        record.list_failed(&error);
        admitted.list_status(&error)
    })
}

fn plan_response(plan: &Plan, filter: String) -> PlanFilterResponse {
    let Plan { kind, filter: _, now, valid_until, as_of, age, ids, notes } = plan;
    PlanFilterResponse {
        kind: plan_kind(*kind).into(),
        filter,
        now: Some(convert::timestamp(*now)),
        valid_until: valid_until.map(convert::timestamp),
        as_of: as_of.to_string(),
        age: prost_types::Duration::try_from(*age).ok(),
        ids: u32::try_from(*ids).unwrap_or(u32::MAX),
        notes: notes.iter().map(note).collect(),
    }
}

fn plan_kind(kind: PlanKind) -> plan_filter_response::Kind {
    match kind {
        PlanKind::None => plan_filter_response::Kind::None,
        PlanKind::Exact => plan_filter_response::Kind::Exact,
        PlanKind::Superset => plan_filter_response::Kind::Superset,
        PlanKind::All => plan_filter_response::Kind::All,
    }
}

fn note(note: &Note) -> plan_filter_response::Note {
    use plan_filter_response::note::Code;
    match note {
        Note::SubjectInactive => plan_filter_response::Note {
            code: Code::SubjectInactive.into(),
            message: "the subject has no document, or one that does not match its type's `where`".to_owned(),
            ..plan_filter_response::Note::default()
        },
        Note::ManyValues { branch, count } => plan_filter_response::Note {
            code: Code::ManyValues.into(),
            message: format!("`{branch}` has {count} ids: beyond 200, MongoDB sorts what it finds in memory"),
            branch: branch.clone(),
            count: u32::try_from(*count).unwrap_or(u32::MAX),
        },
    }
}

fn everybody(everybody: Everybody) -> list_subjects_response::Everybody {
    match everybody {
        Everybody::No => list_subjects_response::Everybody::No,
        Everybody::Yes => list_subjects_response::Everybody::Yes,
        Everybody::WithExclusions => list_subjects_response::Everybody::WithExclusions,
    }
}
