//! The calls for lists as their callers see them: what is wrong with a request, the statuses, the pages, and what is never shown.
//!
//! Does not test which resources are found (`lists` does).

mod pages;
mod statuses;

use permcached::transport::proto::{
    Consistency, Freshness, ListResourcesRequest, ListSubjectsRequest, PlanFilterRequest, Resource, Subject,
    consistency::Requirement, freshness,
};
use tonic::{Code, Status};

use super::{ALICE, CONTRACT, assert_names};
use crate::support::service::{Client, Service, resource, subject};

fn plan(who: &str, permission: &str, kind: &str) -> PlanFilterRequest {
    PlanFilterRequest {
        subject: subject(who),
        permission: permission.to_owned(),
        resource_type: kind.to_owned(),
        ..PlanFilterRequest::default()
    }
}

fn resources(who: &str, permission: &str, kind: &str) -> ListResourcesRequest {
    ListResourcesRequest {
        subject: subject(who),
        permission: permission.to_owned(),
        resource_type: kind.to_owned(),
        ..ListResourcesRequest::default()
    }
}

fn subjects(permission: &str, what: &str, kind: &str) -> ListSubjectsRequest {
    ListSubjectsRequest {
        permission: permission.to_owned(),
        resource: resource(what),
        subject_type: kind.to_owned(),
        ..ListSubjectsRequest::default()
    }
}

async fn refused_plan(client: &Client, request: PlanFilterRequest) -> Status {
    client.clone().plan_filter(request).await.unwrap_err()
}

async fn refused_resources(client: &Client, request: ListResourcesRequest) -> Status {
    client.clone().list_resources(request).await.unwrap_err()
}

async fn refused_subjects(client: &Client, request: ListSubjectsRequest) -> Status {
    client.clone().list_subjects(request).await.unwrap_err()
}

#[tokio::test]
async fn every_field_of_a_request_for_a_filter_is_validated_and_all_that_are_wrong_are_named_at_once() {
    let service = Service::start().await;
    let client = service.client();
    let good = plan(ALICE, "read", "file");
    let wrong = PlanFilterRequest {
        subject: subject("user:alice"),
        permission: "raed".to_owned(),
        consistency: Some(Consistency { requirement: Some(Requirement::MinimizeLatency(false)) }),
        max_ids: 10_001,
        reference_field: "a..b".to_owned(),
        ..good.clone()
    };
    let named = [
        ("subject.id", "is not an ObjectId: 24 hex digits"),
        ("permission", "did you mean `read`?"),
        ("max_ids", "is 10001: 1 to 10000 are allowed, and 0 stands for 1000"),
        ("reference_field", "`a..b` has an empty part: name one field, such as `file_id`"),
        ("consistency.minimize_latency", "is false"),
    ];
    assert_names(&refused_plan(&client, wrong).await, &named);
    let cases: [(PlanFilterRequest, &[(&str, &str)]); 9] = [
        (
            PlanFilterRequest::default(),
            &[("subject", "is missing"), ("resource_type", "the choices are `file`, `folder`, `note` and `team`")],
        ),
        (plan(ALICE, "read", "flie"), &[("resource_type", "unknown resource type `flie`: did you mean `file`?")]),
        (plan(ALICE, "owned", "file"), &[("permission", "`owned` is private")]),
        (plan(ALICE, "owner", "file"), &[("permission", "`owner` is a relation of `file`")]),
        (plan("usr:x", "read", "file"), &[("subject.type", "did you mean `user`?")]),
        (plan("user:*", "read", "file"), &[("subject.id", "`*` is not an id")]),
        (
            PlanFilterRequest { reference_field: "$where".to_owned(), ..good.clone() },
            &[("reference_field", "has a part that starts with `$`")],
        ),
        (
            PlanFilterRequest { reference_field: "x".repeat(257), ..good.clone() },
            &[("reference_field", "has more than 256 bytes")],
        ),
        (
            PlanFilterRequest {
                subject: Some(Subject { id: "x".to_owned(), anonymous: true, ..Subject::default() }),
                ..good
            },
            &[("subject.anonymous", "has no type and no id")],
        ),
    ];
    for (request, named) in cases {
        assert_names(&refused_plan(&client, request).await, named);
    }
}

#[tokio::test]
async fn every_field_of_a_request_for_resources_is_validated() {
    let service = Service::start().await;
    let client = service.client();
    let good = resources(ALICE, "read", "file");
    let within = |text: &str| ListResourcesRequest { within: text.to_owned(), ..good.clone() };
    let cases: [(ListResourcesRequest, &[(&str, &str)]); 12] = [
        (
            ListResourcesRequest { page_size: 1_001, ..good.clone() },
            &[("page_size", "is 1001: 1 to 1000 are allowed, and 0 stands for 100")],
        ),
        (
            ListResourcesRequest { page_size: u32::MAX, page_token: "x".to_owned(), ..good.clone() },
            &[
                ("page_size", "is 4294967295"),
                ("page_token", "is not a page token: pass on `next_page_token` unchanged"),
            ],
        ),
        (within("is_deleted"), &[("within", "not Extended JSON")]),
        (within("[]"), &[("within", "a condition must be a table, not a list")]),
        (within("{\"is_deleted\": "), &[("within", "not Extended JSON")]),
        (within("{\"$where\": \"sleep(1000)\"}"), &[("within", "`$where` is not supported in a condition")]),
        (within("{\"name\": {\"$regex\": \"(a+)+$\"}}"), &[("within", "`$regex` is not supported")]),
        (within("{\"size\": {\"$gte\": 1, \"$lle\": 2}}"), &[("within", "did you mean `$lte`?")]),
        (within("{\"a\": 1, \"a\": 2}"), &[("within", "this key is repeated")]),
        (within(&format!("{{\"a\": \"{}\"}}", "x".repeat(16 * 1_024))), &[("within", "has more than 16 KiB")]),
        (within(&"{\"$and\":[".repeat(1_500)), &[("within", "not Extended JSON")]),
        (
            ListResourcesRequest { resource_type: String::new(), subject: None, ..good.clone() },
            &[("subject", "is missing"), ("resource_type", "unknown resource type ``")],
        ),
    ];
    for (request, named) in cases {
        assert_names(&refused_resources(&client, request).await, named);
    }
}

/// Many clients accept headers of no more than 8 KiB, and a status is sent as headers.
#[tokio::test]
async fn what_is_wrong_with_a_long_condition_fits_into_headers() {
    let service = Service::start().await;
    let client = service.client();
    let within = |text: String| ListResourcesRequest { within: text, ..resources(ALICE, "read", "file") };
    let wrong = |name: &str| format!("{{\"${name}\":1}}");
    for condition in [
        wrong(&"x".repeat(15_000)),
        wrong(&"\u{1f600}".repeat(3_500)),
        format!("{{\"$and\":[{}]}}", [wrong(&"é".repeat(1_500)).as_str(); 4].join(",")),
        format!("{{\"a\":{{\"$in\":[{}]}}}}", wrong(&"y".repeat(15_000))),
        wrong(&" ".repeat(15_000)),
        format!("{{\"$and\":[{}]}}", [format!("{{\"a{}\":{{\"b\":1}}}}", "?".repeat(3_000)).as_str(); 4].join(",")),
    ] {
        let status = refused_resources(&client, within(condition)).await;
        assert!(status.message().starts_with("within: "), "{}", status.message());
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#%<>`?{}".contains(&byte);
        let encoded: usize = status.message().bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum();
        let size = encoded + status.details().len() * 4 / 3;
        assert!(size < 7 * 1_024, "{size} bytes: {}", status.message());
    }
}

#[tokio::test]
async fn every_field_of_a_request_for_subjects_is_validated() {
    let service = Service::start().await;
    let client = service.client();
    let good = subjects("read", CONTRACT, "user");
    let cases: [(ListSubjectsRequest, &[(&str, &str)]); 6] = [
        (
            ListSubjectsRequest::default(),
            &[("resource", "is missing: name the resource whose subjects are to be listed")],
        ),
        (
            ListSubjectsRequest { permission: "raed".to_owned(), subject_type: "usr".to_owned(), ..good.clone() },
            &[("permission", "did you mean `read`?"), ("subject_type", "did you mean `user`?")],
        ),
        (
            ListSubjectsRequest {
                resource: Some(Resource { r#type: "file".to_owned(), id: "x".to_owned() }),
                ..good.clone()
            },
            &[("resource.id", "is not an ObjectId: 24 hex digits")],
        ),
        (
            ListSubjectsRequest { resource: resource("flie:x"), ..good.clone() },
            &[("resource.type", "did you mean `file`?")],
        ),
        (ListSubjectsRequest { page_size: 1_001, ..good.clone() }, &[("page_size", "is 1001: 1 to 1000 are allowed")]),
        (ListSubjectsRequest { page_token: "AQ".to_owned(), ..good }, &[("page_token", "is not a page token")]),
    ];
    for (request, named) in cases {
        assert_names(&refused_subjects(&client, request).await, named);
    }
}

#[tokio::test]
async fn a_condition_of_the_caller_on_a_type_without_documents_is_refused() {
    let schema = r#"
        default_subject = "user"
        [subject.user]
        [resource.file]
        [resource.file.relations]
        guest = { collection = "shares", by = "file_id", field = "user_id" }
        [resource.file.permissions]
        read = "guest"
    "#;
    let service = Service::over(schema, std::collections::BTreeMap::new()).await;
    let request = ListResourcesRequest { within: "{\"x\": 1}".to_owned(), ..resources(ALICE, "read", "file") };
    let status = refused_resources(&service.client(), request).await;
    assert_names(&status, &[("within", "`file` has no documents of its own")]);
}

/// With the request's own fields wrong, too, so that both are named.
#[tokio::test]
async fn a_moment_in_the_future_is_named_as_in_a_check() {
    let service = Service::start().await;
    let freshness = Freshness { moment: Some(freshness::Moment::Token("r00000000ffffffff".to_owned())) };
    let consistency = Some(Consistency { requirement: Some(Requirement::AtLeastAsFresh(freshness)) });
    let request = PlanFilterRequest { consistency, ..plan(ALICE, "read", "file") };
    let status = refused_plan(&service.client(), request).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_names(&status, &[("consistency.at_least_as_fresh.token", "has not come yet")]);
}
