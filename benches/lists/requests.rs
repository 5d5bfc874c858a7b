//! The calls for lists, and the checks of a batch.

use bson::oid::ObjectId;
use permcached::transport::proto::{
    BatchCheckRequest, BatchCheckResponse, ListResourcesRequest, ListResourcesResponse, ListSubjectsRequest,
    ListSubjectsResponse, PlanFilterRequest, PlanFilterResponse, Question, Resource, Subject,
    batch_check_response::result::Outcome, plan_filter_response::Kind,
};
use prost::Message as _;

use super::{
    client::{Calls, Connections, grpc},
    world::Asker,
};

const BATCH_CHECK: &str = "permcached.v1.PermissionService/BatchCheck";
const LIST_RESOURCES: &str = "permcached.v1.PermissionService/ListResources";
const LIST_SUBJECTS: &str = "permcached.v1.PermissionService/ListSubjects";
const PLAN_FILTER: &str = "permcached.v1.PermissionService/PlanFilter";

/// How many files a page has at most.
pub(crate) const PAGE: u32 = 100;

/// How many pages of one subject are asked for.
const PAGES: usize = 10;

fn subject(user: ObjectId) -> Subject {
    Subject { id: user.to_hex(), ..Subject::default() }
}

fn resource(file: ObjectId) -> Resource {
    Resource { r#type: "file".to_owned(), id: file.to_hex() }
}

/// The query for the files that the subject may read.
pub(crate) fn plan(asker: Asker) -> Calls {
    let request = PlanFilterRequest {
        subject: Some(subject(asker.user())),
        permission: "read".to_owned(),
        resource_type: "file".to_owned(),
        max_ids: 10_000,
        ..PlanFilterRequest::default()
    };
    Calls::new(PLAN_FILTER, [grpc(&request)], move |_, message| {
        let plan = PlanFilterResponse::decode(message).expect("a response");
        assert_eq!((plan.kind(), plan.ids), (Kind::Exact, asker.ids()), "{asker}");
    })
}

/// The query that the response to [`plan`] contains, as Extended JSON.
pub(crate) fn filter(message: &[u8]) -> String {
    PlanFilterResponse::decode(message).expect("a response").filter
}

fn page(asker: Asker, page_token: String) -> Calls {
    let request = ListResourcesRequest {
        subject: Some(subject(asker.user())),
        permission: "read".to_owned(),
        resource_type: "file".to_owned(),
        page_size: PAGE,
        page_token,
        ..ListResourcesRequest::default()
    };
    Calls::new(LIST_RESOURCES, [grpc(&request)], |_, message| {
        let page = ListResourcesResponse::decode(message).expect("a response");
        assert!(!page.resources.is_empty(), "a page without resources");
    })
}

/// The first pages of the files that the subject may read, as long as they are full. Asks for each of them once.
pub(crate) async fn pages(connections: &Connections, asker: Asker) -> Calls {
    let first = page(asker, String::new());
    let mut all = vec![first.clone()];
    while all.len() < PAGES {
        let response = connections.until_answered(all.last().unwrap_or(&first)).await;
        let ListResourcesResponse { resources, next_page_token, .. } =
            ListResourcesResponse::decode(&*response).expect("a response");
        if next_page_token.is_empty() || resources.len() < usize::try_from(PAGE).expect("it is small") {
            break;
        }
        all.push(page(asker, next_page_token));
    }
    first.and(&all[1..])
}

/// The users who may read a file.
pub(crate) fn readers(file: ObjectId, count: u32) -> Calls {
    let request = ListSubjectsRequest {
        permission: "read".to_owned(),
        resource: Some(resource(file)),
        page_size: 1_000,
        ..ListSubjectsRequest::default()
    };
    Calls::new(LIST_SUBJECTS, [grpc(&request)], move |_, message| {
        let list = ListSubjectsResponse::decode(message).expect("a response");
        // With the file's owner.
        let expected = count.saturating_add(1).min(1_000);
        assert_eq!(u32::try_from(list.subjects.len()).ok(), Some(expected), "{file}");
    })
}

/// A check of each of these files.
pub(crate) fn checks(asker: Asker, files: impl Iterator<Item = ObjectId>) -> Calls {
    let question = |file| Question {
        subject: Some(subject(asker.user())),
        permission: "read".to_owned(),
        resource: Some(resource(file)),
    };
    let batch = BatchCheckRequest { questions: files.map(question).collect(), consistency: None, dependencies: false };
    Calls::new(BATCH_CHECK, [grpc(&batch)], |_, _| {})
}

/// Whether each of the files of [`checks`] is allowed.
pub(crate) fn are_allowed(message: &[u8]) -> Vec<bool> {
    let response = BatchCheckResponse::decode(message).expect("a response");
    let is_allowed = |outcome: Option<Outcome>| match outcome {
        Some(Outcome::Answer(answer)) => answer.allowed,
        other => panic!("no answer: {other:?}"),
    };
    response.results.into_iter().map(|result| is_allowed(result.outcome)).collect()
}
