//! Lists: which resources a subject may access, as ids or as a query for the application's own use, and which subjects may
//! access a resource (docs/lists.md).
//!
//! Reverse lookups bring candidates only. What holds is always decided by the evaluator, from the facts of the same request. Knows neither
//! gRPC nor a driver.

mod answers;
mod asker;
mod candidates;
pub mod filter;
mod listings;
mod plan;
mod request;
mod resources;
mod subjects;
mod ways;

use std::sync::Arc;

pub use answers::{
    Everybody, ListError, ListedResource, ListedSubject, Note, Plan, PlanKind, PlanOptions, ResourceList, ResourcePage,
    SubjectList, SubjectPage,
};
pub use asker::{Asker, ListQuestion, Secret};
use request::ListRequest;
use subjects::SubjectQuestion;

use crate::{
    check::{Checker, Consistency},
    question::{Millis, PermissionId, Resource, SubjectTypeId},
    source::{Deadline, Source},
};

/// How many candidates one list may have: those of an id set, and those that are read at once.
pub const CANDIDATES_MAX: usize = 10_000;

/// How many ids a filter has at most if a request names no other bound.
pub const IDS_MAX_DEFAULT: usize = 1_000;

/// Answers lists. Clones share all parts.
#[derive(Clone)]
pub struct Lister {
    /// Answers the questions about candidates, and knows how fresh facts must be.
    pub checker: Checker,
    /// Where ids are listed that no fact contains.
    pub source: Arc<dyn Source>,
    /// The time that dates are compared with, for tests of schemas, whose documents have fixed dates; none for the present.
    pub fixed_now: Option<Millis>,
}

impl Lister {
    /// A query that finds the resources that the subject may access.
    ///
    /// # Errors
    /// [`ListError`]. Never a query that finds less or more than the kind of the plan promises.
    pub async fn plan_filter(
        &self,
        question: &ListQuestion,
        consistency: Consistency,
        options: PlanOptions,
        deadline: Deadline,
    ) -> Result<Plan, ListError> {
        let mut request = ListRequest::begin(self, &question.asker, consistency, deadline).await?;
        plan::plan(&mut request, question, &options).await
    }

    /// The resources that the subject may access, sorted by id, from one id on.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn list_resources(
        &self,
        question: &ListQuestion,
        consistency: Consistency,
        page: ResourcePage,
        deadline: Deadline,
    ) -> Result<ResourceList, ListError> {
        let mut request = ListRequest::begin(self, &question.asker, consistency, deadline).await?;
        resources::page(&mut request, question, page).await
    }

    /// The subjects of a type that may access the resource, sorted by id, from one id on.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn list_subjects(
        &self,
        permission: PermissionId,
        resource: &Resource,
        subject_type: SubjectTypeId,
        consistency: Consistency,
        page: SubjectPage,
        deadline: Deadline,
    ) -> Result<SubjectList, ListError> {
        let asked = SubjectQuestion { permission, resource, kind: subject_type };
        subjects::page(self, asked, consistency, page, deadline).await
    }
}

/// The earlier of two times, of which there may be none.
fn earliest(one: Option<Millis>, other: Option<Millis>) -> Option<Millis> {
    [one, other].into_iter().flatten().min()
}
