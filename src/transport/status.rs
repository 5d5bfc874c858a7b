//! Maps errors to gRPC statuses, with details that clients can act on. No other file decides which error is which status.
//!
//! Logs nothing.

use std::{collections::HashMap, time::Duration};

use axum::http::{Response, StatusCode};
use prost::Message as _;
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _, pb};

use crate::{check::CheckError, list::ListError};

/// After what time a caller should retry.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The most fields that one status names.
const VIOLATIONS_MAX: usize = 16;

/// The most ids that a filter may have.
pub(super) const IDS_MAX: usize = 10_000;

/// The domain of the reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "permcached";

/// The most bytes that a value takes in a header. The status has it twice: in the message, and in `google.rpc.ErrorInfo`.
const VALUE_BYTES_MAX: usize = 600;

/// The most bytes that the messages of all violations of one status take in its header `grpc-message`. Its details have them again.
const MESSAGES_BYTES_MAX: usize = 2_800;

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
    let is_long = named.iter().map(|violation| header_bytes(&violation.message)).sum::<usize>() > MESSAGES_BYTES_MAX;
    let bytes_max = if is_long { MESSAGES_BYTES_MAX / named.len().max(1) } else { usize::MAX };
    let shortened = |violation: &Violation| Violation::new(&*violation.field, cut(&violation.message, bytes_max));
    let named: Vec<Violation> = named.iter().map(shortened).collect();
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
        CheckError::TooLarge => never_retried(Status::resource_exhausted(message)),
    }
}

/// The status of a list that failed. `moment_field` is as for [`of`].
pub(super) fn of_list(error: &ListError, moment_field: &'static str) -> Status {
    let refused = Code::FailedPrecondition;
    match error {
        ListError::Check(CheckError::Unavailable(_)) => {
            unavailable("the list could not be made: the source cannot be read")
        }
        ListError::Check(CheckError::DeadlineExceeded) => {
            Status::deadline_exceeded("the list could not be made in time: ask for a smaller page, or narrow it down")
        }
        ListError::Check(error) => of(error, moment_field),
        ListError::NotNarrowable { part, remedy } => {
            with_reason(refused, error, &[("part", part.clone()), ("remedy", remedy.clone())])
        }
        ListError::NoIndex { collection, command } => {
            with_reason(refused, error, &[("collection", collection.clone()), ("command", command.clone())])
        }
        ListError::TooManyIds { relation, count, max } => {
            let counts = [("relation", relation.clone()), ("count", count.to_string()), ("max", max.to_string())];
            let remedy =
                if *max < IDS_MAX { "a larger `max_ids`, up to 10,000, or ListResources" } else { "ListResources" };
            let message =
                format!("{error}: use {remedy}, or let a relation read a field of the resource's own document");
            refusal(Code::ResourceExhausted, &reason(error), &message, &counts)
        }
        ListError::NoCollection(_) => {
            let message = format!("{error}: use ListResources, or `reference_field`");
            refusal(refused, &reason(error), &message, &[])
        }
    }
}

/// A status with the reason of an error, and with what a program can use of its message.
fn with_reason(code: Code, error: &ListError, values: &[(&str, String)]) -> Status {
    refusal(code, &reason(error), &error.to_string(), values)
}

fn reason(error: &ListError) -> String {
    error.as_str().to_uppercase()
}

/// `RESOURCE_EXHAUSTED`: a filter is too large to be sent.
pub(super) fn filter_too_large(bytes: usize, bytes_max: usize) -> Status {
    let message = format!(
        "the filter has {bytes} bytes, and {bytes_max} are the most: use ListResources, or a smaller `max_ids`"
    );
    let values = [("bytes", bytes.to_string()), ("max", bytes_max.to_string())];
    refusal(Code::ResourceExhausted, "FILTER_TOO_LARGE", &message, &values)
}

/// A status that a retry would not change, with a reason and values for programs.
fn refusal(code: Code, reason: &str, message: &str, values: &[(&str, String)]) -> Status {
    let metadata: HashMap<String, String> =
        values.iter().map(|(name, value)| ((*name).to_owned(), cut(value, VALUE_BYTES_MAX))).collect();
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    never_retried(Status::with_error_details(code, cut(message, 2 * VALUE_BYTES_MAX), details))
}

/// The beginning of a text that takes at most so many bytes in the header `grpc-message`.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    let mut bytes = 0;
    let fits = |letter: &char| {
        bytes += header_bytes(letter.encode_utf8(&mut [0; 4]));
        bytes <= bytes_max
    };
    text.chars().take_while(fits).collect()
}

/// How many bytes a text takes in the header `grpc-message`: what tonic encodes there takes three.
fn header_bytes(text: &str) -> usize {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#%<>`?{}".contains(&byte);
    text.bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum()
}

/// The status, with gRPC's sign that a client must not retry the call, whatever its retry policy says about the code.
fn never_retried(mut status: Status) -> Status {
    status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from_static("-1"));
    status
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
