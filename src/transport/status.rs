//! Maps errors to gRPC statuses, with details that clients can act on. No other file decides which error is which status.
//!
//! Logs nothing.

use std::time::Duration;

use axum::http::{Response, StatusCode};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _, pb};

use crate::check::CheckError;

/// After what time a caller should retry.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The most fields that one status names.
const VIOLATIONS_MAX: usize = 16;

/// What is wrong with a field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// The path of the field from the request down, with dots.
    pub(super) field: String,
    pub(super) message: String,
}

impl Violation {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same violation, with the field's path extended by an outer one.
    pub(super) fn inside(self, outer: &str) -> Self {
        Self { field: format!("{outer}.{}", self.field), ..self }
    }
}

/// `INVALID_ARGUMENT`: names the fields in the message and in the details, the first [`VIOLATIONS_MAX`] of them. A status is
/// sent as headers, of which many clients accept no more than 8 KiB.
pub(super) fn invalid(violations: &[Violation]) -> Status {
    let named = violations.get(..VIOLATIONS_MAX).unwrap_or(violations);
    let mut all: Vec<String> =
        named.iter().map(|violation| format!("{}: {}", violation.field, violation.message)).collect();
    if violations.len() > named.len() {
        all.push(format!("and {} more", violations.len() - named.len()));
    }
    let details =
        named.iter().map(|violation| FieldViolation::new(&violation.field, &violation.message)).collect::<Vec<_>>();
    Status::with_error_details(Code::InvalidArgument, all.join("; "), ErrorDetails::with_bad_request(details))
}

/// `RESOURCE_EXHAUSTED`: more requests are open than the service handles at once.
pub(super) fn overloaded() -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::ResourceExhausted, "too many requests at once", details)
}

/// `RESOURCE_EXHAUSTED`: the requests under way and the responses that wait to be read have too many bytes.
pub(super) fn over_budget() -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    let message = "too many bytes at once: send fewer large requests at a time, and read their responses";
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// `UNAVAILABLE`, with the time after which to retry.
pub(super) fn unavailable(message: &str) -> Status {
    Status::with_error_details(Code::Unavailable, message, ErrorDetails::with_retry_info(Some(RETRY_AFTER)))
}

/// The status of a check that failed. `moment_field` is the field in which the request names the moment that its answer
/// must cover. The source's own error message is for the log only.
pub(super) fn of(error: &CheckError, moment_field: &'static str) -> Status {
    let message = error.to_string();
    match error {
        CheckError::Unavailable(_) => unavailable("the permission could not be checked: the source cannot be read"),
        CheckError::DeadlineExceeded => Status::deadline_exceeded(message),
        CheckError::ForeignToken { .. } | CheckError::FutureToken => invalid(&[Violation::new(moment_field, message)]),
        CheckError::TooLarge => Status::resource_exhausted(message),
    }
}

/// Whether a response is one to a caller who may call: the answer of a handler, and not a refusal of its token, of its method
/// or for lack of capacity. A response of plain HTTP other than 200 is never one.
pub(super) fn is_of_a_caller<B>(response: &Response<B>) -> bool {
    if response.status() != StatusCode::OK {
        return false;
    }
    let code = response.headers().get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()));
    !matches!(
        code,
        Some(
            Code::Unauthenticated
                | Code::PermissionDenied
                | Code::Unimplemented
                | Code::ResourceExhausted
                | Code::Unknown
        )
    )
}

/// A short status with the same code.
pub(super) fn shortened(status: &Status) -> Status {
    Status::new(status.code(), "the response cannot hold the details of all errors: send smaller batches to see them")
}

/// A status as a protobuf message.
pub(super) fn to_message(status: &Status) -> pb::Status {
    pb::Status::decode(status.details()).ok().filter(|inner| inner.code != 0).unwrap_or_else(|| pb::Status {
        code: i32::from(status.code()),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}
