//! The handler of `InvalidationService`: reads what is outdated, and passes it to the invalidator.
//!
//! Marks nothing itself.

use std::sync::Arc;

use tokio::{sync::Semaphore, time::timeout_at};
use tonic::Status;

use super::{
    call_context::CallContext,
    convert,
    proto::{InvalidateRequest, InvalidateResponse},
    status::{self, Violation},
};
use crate::{
    diagnosis::error_chain,
    invalidate::{Invalidated, Invalidator, Outdated, OutdatedDocument},
    schema::Schema,
    source::SourceError,
    telemetry::RateLimitedLog,
};

/// Limits log lines about failed invalidations, so that an outage does not flood the log.
static FAILURES: RateLimitedLog = RateLimitedLog::per_second(10);

/// The most resources, documents and subjects that one request may name, together.
const NAMED_MAX: usize = 10_000;

/// The service, as the port calls it.
#[derive(Clone)]
pub struct InvalidationApi {
    schema: Arc<Schema>,
    invalidator: Invalidator,
    permits: Arc<Semaphore>,
}

impl InvalidationApi {
    /// A service that takes one of `permits` for each request, and refuses a request if none is free.
    #[must_use]
    pub fn new(schema: Arc<Schema>, invalidator: Invalidator, permits: Arc<Semaphore>) -> Self {
        Self { schema, invalidator, permits }
    }
}

impl InvalidationApi {
    /// `Invalidate`.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn invalidate(
        &self,
        request: InvalidateRequest,
        context: &CallContext,
    ) -> Result<InvalidateResponse, Status> {
        let deadline = context.deadline;
        let _permit = self.permits.try_acquire().map_err(|_| status::overloaded())?;
        let outdated = outdated(&self.schema, &request).map_err(|wrong| status::invalid(&wrong))?;
        let invalidated = timeout_at(deadline.instant(), self.invalidator.invalidate(&outdated, deadline)).await;
        let invalidated = invalidated.unwrap_or(Err(SourceError::TimedOut)).map_err(|error| match error {
            SourceError::TimedOut if deadline.is_over() => Status::deadline_exceeded("nothing was invalidated in time"),
            error => {
                if let Some(suppressed) = FAILURES.admit() {
                    tracing::warn!(error = %error_chain(&error), suppressed, "nothing was invalidated: the source cannot be read");
                }
                status::unavailable("nothing was invalidated: the source cannot be read")
            }
        })?;
        let Invalidated { token, is_published } = invalidated;
        Ok(InvalidateResponse { token: token.to_string(), published: is_published })
    }
}

/// Reads what a request declares as outdated.
fn outdated(schema: &Schema, request: &InvalidateRequest) -> Result<Outdated, Vec<Violation>> {
    let InvalidateRequest { resources, documents, subjects, all } = request;
    let named = resources.len() + documents.len() + subjects.len();
    let mut violations = Vec::new();
    match (*all, named) {
        (true, 0) => return Ok(Outdated::All),
        (true, _) => violations.push(Violation::new("all", "includes everything: name nothing else beside it")),
        (false, 0) => {
            let message = "is empty: name resources, documents or subjects, or set `all`";
            violations.push(Violation::new("resources", message));
        }
        (false, NAMED_MAX..) if named > NAMED_MAX => {
            violations.push(Violation::new("resources", format!("{named} things are named: 10,000 together at most")));
            return Err(violations);
        }
        _ => {}
    }
    let mut valid_resources = Vec::new();
    for (place, resource) in resources.iter().enumerate() {
        match schema.read_resource(&resource.r#type, &resource.id) {
            Ok(resource) => valid_resources.push(resource),
            Err(wrong) => violations.extend(convert::at_place(&wrong, "resource", &format!("resources[{place}]"))),
        }
    }
    let mut valid_subjects = Vec::new();
    for (place, subject) in subjects.iter().enumerate() {
        if subject.anonymous {
            let field = format!("subjects[{place}].anonymous");
            violations.push(Violation::new(field, "an anonymous subject has no facts: name a subject"));
            continue;
        }
        match schema.read_subject(&subject.r#type, &subject.id) {
            Ok(subject) => valid_subjects.push(subject),
            Err(wrong) => violations.extend(convert::at_place(&wrong, "subject", &format!("subjects[{place}]"))),
        }
    }
    let mut valid_documents = Vec::new();
    for (place, document) in documents.iter().enumerate() {
        let read = schema.collection_id(&document.collection);
        match read.map(|collection| OutdatedDocument::new(collection, &document.id)) {
            None => {
                let message = format!("`{}` is no collection of the schema", document.collection);
                violations.push(Violation::new(format!("documents[{place}].collection"), message));
            }
            Some(document) if document.ids.is_empty() => {
                let message = "is empty, or longer than 1,024 bytes";
                violations.push(Violation::new(format!("documents[{place}].id"), message));
            }
            Some(document) => valid_documents.push(document),
        }
    }
    let outdated = Outdated::These { resources: valid_resources, documents: valid_documents, subjects: valid_subjects };
    if violations.is_empty() { Ok(outdated) } else { Err(violations) }
}
