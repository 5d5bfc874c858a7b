//! Calls of the application's services with any bytes as the message, for the fuzzer: decoded, validated and answered by the
//! same code as on the port.

use std::{future::poll_fn, pin::Pin};

use axum::http::{HeaderMap, Request, Response};
use http_body::Body as _;
use prost::Message;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt as _;
use tower_service::Service;

use super::{
    Apis, Limits,
    proto::{
        BatchCheckRequest, BatchCheckResponse, CheckRequest, CheckResponse, ExplainRequest, ExplainResponse,
        InvalidateRequest, InvalidateResponse, ListPermissionsRequest, ListPermissionsResponse,
        invalidation_service_server::InvalidationServiceServer, permission_service_server::PermissionServiceServer,
    },
};

/// How many bytes of error details a response has at most.
const DETAILS_BYTES_MAX: usize = 64 * 1_024;

/// Calls a method with a message, and tests the response.
pub(crate) async fn call(apis: &Apis, method: u8, message: &[u8]) {
    let bytes_max = Limits::default().message_bytes_max;
    let permissions = PermissionServiceServer::new(apis.permissions.clone()).max_decoding_message_size(bytes_max);
    let invalidation = InvalidationServiceServer::new(apis.invalidation.clone()).max_decoding_message_size(bytes_max);
    match method % 5 {
        0 => method_of::<CheckRequest, CheckResponse>(permissions, "Check", message).await,
        1 => method_of::<BatchCheckRequest, BatchCheckResponse>(permissions, "BatchCheck", message).await,
        2 => {
            method_of::<ListPermissionsRequest, ListPermissionsResponse>(permissions, "ListPermissions", message).await;
        }
        3 => method_of::<ExplainRequest, ExplainResponse>(permissions, "Explain", message).await,
        _ => method_of::<InvalidateRequest, InvalidateResponse>(invalidation, "Invalidate", message).await,
    }
}

async fn method_of<Q: Message + Default, A: Message + Default>(
    mut service: impl Service<Request<Body>, Response = Response<Body>> + tonic::server::NamedService,
    method: &str,
    message: &[u8],
) {
    let path = format!("/{}/{method}", service_name(&service));
    let Ok(length) = u32::try_from(message.len()) else { return };
    let framed = [[0].as_slice(), &length.to_be_bytes(), message].concat();
    let body = Body::new(axum::body::Body::from(framed));
    let request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers").body(body);
    let Ok(request) = request else { return };
    let Ok(response) = service.call(request).await else { return };
    let (status, answer) = read(response).await;
    let decoded = Q::decode(message);
    match status.code() {
        Code::Ok => {
            assert!(decoded.is_ok(), "{method} answers what is no {}", std::any::type_name::<Q>());
            let answer = answer.get(5..).unwrap_or_default();
            assert!(A::decode(answer).is_ok(), "the answer of {method} can be decoded");
        }
        Code::InvalidArgument => {
            assert!(status.details().len() <= DETAILS_BYTES_MAX, "{} bytes of details", status.details().len());
            let details = status.get_error_details();
            let fields = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
            assert!(!fields.is_empty(), "{method}: {status:?} names no field");
            assert!(fields.iter().all(|field| !field.description.is_empty()), "{method}: {status:?} says nothing");
        }
        // What has no source here, or is no message at all.
        Code::Unimplemented | Code::FailedPrecondition | Code::Unavailable | Code::ResourceExhausted => {}
        _ => assert!(decoded.is_err(), "{method}: {status:?}"),
    }
}

fn service_name<S: tonic::server::NamedService>(_: &S) -> &'static str {
    S::NAME
}

/// The status and the bytes of a response.
async fn read(response: Response<Body>) -> (Status, Vec<u8>) {
    let (head, mut body) = response.into_parts();
    let (mut bytes, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match frame.into_data() {
            Ok(data) => bytes.extend(data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    let status = Status::from_header_map(&head.headers).or_else(|| Status::from_header_map(&trailers));
    (status.unwrap_or_else(|| Status::unknown("there is no status")), bytes)
}
