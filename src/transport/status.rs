//! Errors into gRPC statuses, with the details that clients can act on. The one place where that is decided.

use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _, pb};

use crate::check::CheckError;

/// When a caller should try again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What is wrong with a field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// The field, dotted, from the request down.
    pub(super) field: String,
    pub(super) message: String,
}

impl Violation {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same field, seen from further out.
    pub(super) fn inside(self, outer: &str) -> Self {
        Self { field: format!("{outer}.{}", self.field), ..self }
    }
}

/// Bad input: every field is named, in the message and in the details.
pub(super) fn invalid(violations: &[Violation]) -> Status {
    let all: Vec<String> = violations.iter().map(|wrong| format!("{}: {}", wrong.field, wrong.message)).collect();
    let details = violations.iter().map(|wrong| FieldViolation::new(&wrong.field, &wrong.message)).collect::<Vec<_>>();
    Status::with_error_details(Code::InvalidArgument, all.join("; "), ErrorDetails::with_bad_request(details))
}

/// More requests at once than are served.
pub(super) fn overloaded() -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::ResourceExhausted, "too many requests at once", details)
}

/// The source cannot be read.
pub(super) fn unavailable(message: &str) -> Status {
    Status::with_error_details(Code::Unavailable, message, ErrorDetails::with_retry_info(Some(RETRY_AFTER)))
}

/// Why a question has no answer. `moment_field` is where the request says which moment its answer must cover. What the
/// source says of itself is for the log alone.
pub(super) fn of(error: &CheckError, moment_field: &'static str) -> Status {
    let message = error.to_string();
    match error {
        CheckError::Unavailable(_) => unavailable("the permission could not be checked: the source cannot be read"),
        CheckError::DeadlineExceeded => Status::deadline_exceeded(message),
        CheckError::ForeignToken { .. } | CheckError::FutureToken => invalid(&[Violation::new(moment_field, message)]),
        CheckError::TooLarge => Status::resource_exhausted(message),
    }
}

/// The same kind of error with next to nothing about it.
pub(super) fn shortened(status: &Status) -> Status {
    Status::new(
        status.code(),
        "one of more errors than a response has room for: ask in smaller batches to see what is wrong",
    )
}

/// A status inside a message.
pub(super) fn to_message(status: &Status) -> pb::Status {
    pb::Status::decode(status.details()).ok().filter(|inner| inner.code != 0).unwrap_or_else(|| pb::Status {
        code: i32::from(status.code()),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}
