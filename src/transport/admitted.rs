//! What every handler of `PermissionService` reads from a call before it answers: a permit, the consistency and the deadline.
//!
//! Admits no caller (`callers` does).

use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

use super::{
    call_context::CallContext,
    convert, proto,
    status::{self, Violation},
};
use crate::{
    check::{CheckError, Consistency},
    freshness::Clock,
    list::ListError,
    source::Deadline,
};

/// What a handler has read from a request before it answers. Holds the request's permit.
pub(super) struct Admitted<'a> {
    pub(super) consistency: Consistency,
    moment_field: &'static str,
    pub(super) deadline: Deadline,
    _permit: SemaphorePermit<'a>,
}

impl<'a> Admitted<'a> {
    /// Takes a permit for a request, and reads its consistency. Adds what is wrong with it to `violations`.
    ///
    /// # Errors
    /// No permit is free.
    pub(super) fn read(
        permits: &'a Semaphore,
        clock: Clock,
        context: &CallContext,
        consistency: Option<&proto::Consistency>,
        violations: &mut Vec<Violation>,
    ) -> Result<Self, Status> {
        let permit = permits.try_acquire().map_err(|_| status::overloaded())?;
        let required = convert::consistency(consistency, clock).unwrap_or_else(|violation| {
            violations.push(violation);
            Consistency::FullyConsistent
        });
        let moment_field = convert::moment_field(consistency);
        Ok(Self { consistency: required, moment_field, deadline: context.deadline, _permit: permit })
    }

    /// The status of a request whose check failed.
    pub(super) fn status(&self, error: &CheckError) -> Status {
        status::of(error, self.moment_field)
    }

    /// The status of a request whose list failed.
    pub(super) fn list_status(&self, error: &ListError) -> Status {
        status::of_list(error, self.moment_field)
    }
}

/// What was read from a request, or the status that names everything wrong with its fields.
pub(super) fn valid<T>(read: Result<T, Vec<Violation>>, mut violations: Vec<Violation>) -> Result<T, Status> {
    match read {
        Ok(read) if violations.is_empty() => Ok(read),
        Ok(_) => Err(status::invalid(&violations)),
        Err(wrong) => {
            violations.splice(0..0, wrong);
            Err(status::invalid(&violations))
        }
    }
}
