//! What lists are asked with, and what they answer.
//!
//! Decides nothing.

use std::{fmt, time::Duration};

use bson::Document;

use super::IDS_MAX_DEFAULT;
use crate::{
    check::CheckError,
    freshness::Token,
    question::{Id, Millis, RelationId, ResourceTypeId},
    schema::{Condition, Member, Path},
    source::SourceError,
};

/// The bounds and the form of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// How many ids each id set of the filter may have: 1 to [`CANDIDATES_MAX`](super::CANDIDATES_MAX).
    pub ids_max: usize,
    /// The field of another collection that refers to the resource. If it is set, the filter is for that collection.
    pub reference: Option<Path>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { ids_max: IDS_MAX_DEFAULT, reference: None }
    }
}

/// How the documents that a filter finds relate to those that a check allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlanKind {
    /// Nothing is allowed, and the filter finds nothing.
    None,
    /// The filter finds exactly what a check allows, if it is run with the simple collation. It may also find documents with a value that
    /// cannot be read: text that is not UTF-8, or a name that occurs twice. MongoDB compares these, and a check denies.
    Exact,
    /// The filter finds at least what a check allows: what it finds must be checked.
    Superset,
    /// Everything is allowed, and the filter is empty.
    All,
}

impl PlanKind {
    /// The name in the protocol, in logs and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Exact => "EXACT",
            Self::Superset => "SUPERSET",
            Self::All => "ALL",
        }
    }
}

/// A query for the application's own use.
#[derive(Clone, PartialEq)]
pub struct Plan {
    /// What the filter finds.
    pub kind: PlanKind,
    /// The query. It is empty only if the kind is [`PlanKind::All`].
    pub filter: Document,
    /// The time that dates were compared with.
    pub now: Millis,
    /// The time at which the plan may change although no document does; none if there is no such time.
    pub valid_until: Option<Millis>,
    /// A token that covers everything that the ids of the filter are based on.
    pub as_of: Token,
    /// An upper bound on the age of the oldest fact that the ids of the filter are based on.
    pub age: Duration,
    /// How many ids the filter has.
    pub ids: usize,
    /// What the caller should know.
    pub notes: Vec<Note>,
}

/// Shows no query: it may contain a bearer secret.
impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, filter: _, now, valid_until, as_of, age, ids, notes } = self;
        let mut shown = f.debug_struct("Plan");
        shown.field("kind", kind).field("now", now).field("valid_until", valid_until).field("as_of", as_of);
        shown.field("age", age).field("ids", ids).field("notes", notes).finish_non_exhaustive()
    }
}

/// What the caller of a plan should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Nothing is allowed because the subject has no document, or its document fails the condition of its type.
    SubjectInactive,
    /// A part of the filter has so many ids that MongoDB sorts its results slowly.
    ManyValues {
        /// The part: the name of a relation or a permission.
        branch: String,
        /// How many ids it has.
        count: usize,
    },
}

impl Note {
    /// The name in the protocol, in logs and in metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::SubjectInactive => "SUBJECT_INACTIVE",
            Self::ManyValues { .. } => "MANY_VALUES",
        }
    }
}

/// Which resources a list returns.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourcePage {
    /// How many at most: 1 to 1,000.
    pub size: usize,
    /// Only those with a greater id.
    pub after: Option<Id>,
    /// Only those whose own document fulfils this condition of the caller.
    pub within: Option<Condition>,
}

/// A page of resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceList {
    /// The resources, sorted by id. Each was checked.
    pub resources: Vec<ListedResource>,
    /// The id after which the next page begins; none if there are no more candidates.
    pub next: Option<Id>,
    /// A token that covers everything that the list is based on.
    pub as_of: Token,
    /// An upper bound on the age of the oldest fact that the list is based on.
    pub age: Duration,
    /// How many candidates were looked at.
    pub examined: u64,
}

/// A resource that the subject may access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedResource {
    /// Its id.
    pub id: Id,
    /// A relation that grants it; none if it holds only because something does not.
    pub granted_by: Option<RelationId>,
    /// The time at which the answer may change although no document does; none if there is no such time.
    pub valid_until: Option<Millis>,
}

/// Which subjects a list returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPage {
    /// How many at most: 1 to 1,000.
    pub size: usize,
    /// Only those with a greater id.
    pub after: Option<Id>,
}

/// A page of subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectList {
    /// The subjects, sorted by id. Each was checked.
    pub subjects: Vec<ListedSubject>,
    /// Whether others than the named subjects may, too.
    pub everybody: Everybody,
    /// The sets that are too large to be expanded: members of resources, with all their subjects. Those who belong to one may have the
    /// permission or not, if it requires more than that: a check decides for each.
    pub sets: Vec<(ResourceTypeId, Id, Member)>,
    /// The id after which the next page begins; none if there are no more candidates.
    pub next: Option<Id>,
    /// A token that covers everything that the list is based on.
    pub as_of: Token,
    /// An upper bound on the age of the oldest fact that the list is based on.
    pub age: Duration,
    /// How many subjects were checked for it.
    pub examined: u64,
}

/// A subject that may access the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedSubject {
    /// Its id. Of a bearer secret only the digest, as facts contain nothing else.
    pub id: Id,
    /// A relation that grants it; none if it holds only because something does not.
    pub granted_by: Option<RelationId>,
    /// The time at which the answer may change although no document does; none if there is no such time.
    pub valid_until: Option<Millis>,
}

/// Whether subjects of the type may that the list does not name, because a wildcard, a flag or a `!` lets them. No subject may that the
/// gate of its type refuses, such as an inactive one, whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Everybody {
    /// No: only the subjects of all pages may, and subjects who belong to one of the sets.
    No,
    /// Every subject of the type that passes its gate may. Nothing in the documents excludes one of them, and none of them has a value of
    /// a wrong type that makes a check indeterminate.
    Yes,
    /// Other subjects may, but some may be excluded, or nothing shows that none is. They are not enumerated: a check decides for each.
    /// Also if more subjects have a flag of their own than a list may have.
    WithExclusions,
}

impl Everybody {
    /// The name in the protocol, in logs and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "NO",
            Self::Yes => "YES",
            Self::WithExclusions => "WITH_EXCLUSIONS",
        }
    }
}

/// Why there is no list. Never an empty one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ListError {
    /// The source could not be read, the deadline is over, or the request is not acceptable: as for a check.
    #[error(transparent)]
    Check(CheckError),
    /// No query narrows the permission down.
    #[error("no query finds the resources: {part}. {remedy}")]
    NotNarrowable {
        /// The part of the permission.
        part: String,
        /// What to do.
        remedy: String,
    },
    /// A reverse lookup has no index.
    #[error("`{collection}` has no index for this list: create it with {command}")]
    NoIndex {
        /// The collection.
        collection: String,
        /// The command that creates the index.
        command: String,
    },
    /// An id set is too large.
    #[error("`{relation}` has more ids than the {max} that are allowed: {count} or more")]
    TooManyIds {
        /// The relation or permission.
        relation: String,
        /// How many ids there are at least.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
    /// The resource type has no collection that a query could search.
    #[error("the resources of this type have no documents of their own, so no query finds them")]
    NoCollection(ResourceTypeId),
}

impl From<CheckError> for ListError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Unavailable(SourceError::NoIndex { collection, command }) => {
                Self::NoIndex { collection, command }
            }
            error @ (CheckError::Unavailable(
                SourceError::TimedOut
                | SourceError::Probe(_)
                | SourceError::Find { .. }
                | SourceError::BrokenOff
                | SourceError::TooMuch
                | SourceError::Answer { .. },
            )
            | CheckError::DeadlineExceeded
            | CheckError::ForeignToken { .. }
            | CheckError::FutureToken
            | CheckError::TooLarge) => Self::Check(error),
        }
    }
}

impl ListError {
    /// The name in logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Check(error) => error.as_str(),
            Self::NotNarrowable { .. } => "not_narrowable",
            Self::NoIndex { .. } => "no_index",
            Self::TooManyIds { .. } => "too_many_ids",
            Self::NoCollection(_) => "no_collection",
        }
    }
}
