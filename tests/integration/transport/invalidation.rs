//! Invalidation over a real socket: what a request may name, and the violations of an invalid one.
//!
//! Does not show that facts are read again: the tests with a database do.

use permcached::transport::proto::{
    Document, InvalidateRequest, Tier, invalidation_service_client::InvalidationServiceClient,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{ALICE, ROADMAP, ask, check, subject};
use crate::support::service::{Service, resource};

#[tokio::test]
async fn every_form_of_invalidation_returns_a_token() {
    let service = Service::start().await;
    let (client, mut invalidation) = (service.client(), InvalidationServiceClient::new(service.channel()));
    let document = Document { collection: "files".to_owned(), id: ROADMAP.trim_start_matches("file:").to_owned() };
    let requests = [
        InvalidateRequest { resources: resource(ROADMAP).into_iter().collect(), ..InvalidateRequest::default() },
        InvalidateRequest { documents: vec![document], ..InvalidateRequest::default() },
        InvalidateRequest { subjects: subject(ALICE).into_iter().collect(), ..InvalidateRequest::default() },
        InvalidateRequest { all: true, ..InvalidateRequest::default() },
    ];
    for request in requests {
        ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap();
        let cached = ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap();
        assert_eq!(cached.tier(), Tier::Memory);
        let response = invalidation.invalidate(request.clone()).await.unwrap().into_inner();
        assert!(!response.published, "there are no other instances");
        assert_eq!(response.token, cached.as_of, "unchanged documents keep their revision");
        let answer = ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap();
        assert!(answer.allowed, "{request:?}");
    }
}

#[tokio::test]
async fn every_violation_of_an_invalidation_is_reported() {
    let service = Service::start().await;
    let mut invalidation = InvalidationServiceClient::new(service.channel());
    let unknown = Document { collection: "flies".to_owned(), id: String::new() };
    let nameless = Document { collection: "files".to_owned(), id: String::new() };
    let cases = [
        (InvalidateRequest::default(), vec!["resources"]),
        (
            InvalidateRequest { all: true, subjects: subject(ALICE).into_iter().collect(), ..Default::default() },
            vec!["all"],
        ),
        (
            InvalidateRequest {
                resources: resource("flie:1").into_iter().collect(),
                documents: vec![unknown, nameless],
                subjects: subject("anonymous").into_iter().chain(subject("user:x")).collect(),
                all: false,
            },
            vec![
                "resources[0].type",
                "subjects[0].anonymous",
                "subjects[1].id",
                "documents[0].collection",
                "documents[1].id",
            ],
        ),
    ];
    for (request, fields) in cases {
        let status = invalidation.invalidate(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        let named: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(named, fields, "{status:?}");
    }
}
