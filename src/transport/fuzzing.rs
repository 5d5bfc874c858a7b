//! Calls of the application's services with any bytes as the message, for the fuzzer: decoded, validated and answered by the
//! same code as on the port. And page tokens.

use prost::Message;
use tokio::sync::watch;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    Apis, CallContext,
    message::only,
    method::Method,
    proto::{
        BatchCheckRequest, BatchCheckResponse, CheckRequest, CheckResponse, ExplainRequest, ExplainResponse,
        InvalidateRequest, InvalidateResponse, ListPermissionsRequest, ListPermissionsResponse, ListResourcesRequest,
        ListResourcesResponse, ListSubjectsRequest, ListSubjectsResponse, PlanFilterRequest, PlanFilterResponse,
        plan_filter_response::Kind,
    },
    services::{Answered, Services},
};

/// How many bytes of error details a response has at most.
const DETAILS_BYTES_MAX: usize = 64 * 1_024;

/// Calls a method with a message, and tests the answer.
pub(crate) async fn call(apis: &Apis, method: u8, message: &[u8]) {
    let services = Services::new(apis.clone(), watch::channel(false).1);
    // The kept inputs choose by the remainder.
    match if (5..=7).contains(&method) { method } else { method % 5 } {
        0 => drop(method_of::<CheckRequest, CheckResponse>(&services, Method::Check, message).await),
        1 => drop(method_of::<BatchCheckRequest, BatchCheckResponse>(&services, Method::BatchCheck, message).await),
        2 => {
            drop(
                method_of::<ListPermissionsRequest, ListPermissionsResponse>(
                    &services,
                    Method::ListPermissions,
                    message,
                )
                .await,
            );
        }
        3 => drop(method_of::<ExplainRequest, ExplainResponse>(&services, Method::Explain, message).await),
        5 => {
            if let Some(plan) =
                method_of::<PlanFilterRequest, PlanFilterResponse>(&services, Method::PlanFilter, message).await
            {
                test_plan(&plan);
            }
        }
        6 => {
            drop(
                method_of::<ListResourcesRequest, ListResourcesResponse>(&services, Method::ListResources, message)
                    .await,
            );
        }
        7 => {
            drop(
                method_of::<ListSubjectsRequest, ListSubjectsResponse>(&services, Method::ListSubjects, message).await,
            );
        }
        _ => drop(method_of::<InvalidateRequest, InvalidateResponse>(&services, Method::Invalidate, message).await),
    }
}

pub(crate) use super::lists::test_page_token as page_token;

/// Returns the answer, if there is one that is no stream.
async fn method_of<Q: Message + Default, A: Message + Default>(
    services: &Services,
    method: Method,
    message: &[u8],
) -> Option<A> {
    let status = match services.answer(method, message, &CallContext::in_process()).await {
        Ok(Answered::Message(answer)) => {
            assert!(Q::decode(message).is_ok(), "{method:?} answers what is no {}", std::any::type_name::<Q>());
            let answer = only(&answer).ok().and_then(|answer| A::decode(answer).ok());
            assert!(answer.is_some(), "the answer of {method:?} can be decoded");
            return answer;
        }
        Ok(Answered::Stream(_)) => {
            assert!(method.is_stream(), "{method:?} has one answer");
            return None;
        }
        Err(status) => status,
    };
    test_refusal(&status, method, Q::decode(message).is_err());
    None
}

/// A filter is a query, and finds everything only if everything is allowed.
fn test_plan(plan: &PlanFilterResponse) {
    let query = serde_json::from_str::<serde_json::Value>(&plan.filter);
    let query = query.ok().filter(serde_json::Value::is_object);
    assert!(query.is_some(), "the filter is an object: {}", plan.filter);
    assert_eq!(plan.filter == "{}", plan.kind() == Kind::All, "{plan:?}");
    assert_ne!(plan.kind(), Kind::Unspecified, "{plan:?}");
}

/// Tests a status. `is_malformed` says that the message was none of the method.
fn test_refusal(status: &Status, method: Method, is_malformed: bool) {
    match status.code() {
        Code::InvalidArgument => {
            assert!(status.details().len() <= DETAILS_BYTES_MAX, "{} bytes of details", status.details().len());
            let details = status.get_error_details();
            let fields = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
            assert!(!fields.is_empty(), "{method:?}: {status:?} names no field");
            assert!(fields.iter().all(|field| !field.description.is_empty()), "{method:?}: {status:?} says nothing");
        }
        // What has no source here, or is no message at all.
        Code::Unimplemented | Code::FailedPrecondition | Code::Unavailable | Code::ResourceExhausted => {}
        _ => assert!(is_malformed, "{method:?}: {status:?}"),
    }
}
