//! A bound of an expression: a query that finds at least the documents on which the expression has one truth value.
//!
//! Does not know which documents these are.

use super::simplify::{EVERYTHING, NOTHING, all, any};
use crate::schema::Condition;

/// A query that finds at least the documents that are meant, and whether it finds others.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    /// The query.
    pub(super) condition: Condition,
    /// Why it may find other documents, too; none if it finds exactly those that are meant.
    pub(super) cause: Option<Cause>,
}

/// Why no query finds exactly the documents that are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// The part of the permission.
    pub(super) part: String,
    /// What the author of the schema can do.
    pub(super) remedy: &'static str,
}

impl Bound {
    /// Finds every document, and every document is meant.
    pub(super) fn everything() -> Self {
        Self::exactly(EVERYTHING)
    }

    /// Finds no document, because none is meant.
    pub(super) fn nothing() -> Self {
        Self::exactly(NOTHING)
    }

    /// Finds exactly the documents that are meant.
    pub(super) fn exactly(condition: Condition) -> Self {
        Self { condition, cause: None }
    }

    /// Finds all documents that are meant, and may find others. A query that finds nothing is exact.
    pub(super) fn at_least(condition: Condition, cause: Cause) -> Self {
        let cause = (condition != NOTHING).then_some(cause);
        Self { condition, cause }
    }

    /// As [`Bound::exactly`] or [`Bound::at_least`].
    pub(super) fn of(condition: Condition, is_exact: bool, cause: impl FnOnce() -> Cause) -> Self {
        if is_exact { Self::exactly(condition) } else { Self::at_least(condition, cause()) }
    }

    /// Either everything or nothing.
    pub(super) fn constant(value: bool) -> Self {
        if value { Self::everything() } else { Self::nothing() }
    }

    /// The documents that all bounds mean.
    pub(super) fn all(bounds: impl IntoIterator<Item = Self>) -> Self {
        let bounds: Vec<Self> = bounds.into_iter().collect();
        let cause = bounds.iter().find_map(|bound| bound.cause.clone());
        let condition = all(bounds.into_iter().map(|bound| bound.condition));
        Self { cause: cause.filter(|_| condition != NOTHING), condition }
    }

    /// The documents that at least one bound means.
    pub(super) fn any(bounds: impl IntoIterator<Item = Self>) -> Self {
        let bounds: Vec<Self> = bounds.into_iter().collect();
        if bounds.iter().any(|bound| bound.is_everything() && bound.cause.is_none()) {
            return Self::everything();
        }
        // The part without which the bound would not find everything is named first.
        let widest = bounds.iter().find(|bound| bound.is_everything());
        let cause = widest.into_iter().chain(&bounds).find_map(|bound| bound.cause.clone());
        Self { condition: any(bounds.into_iter().map(|bound| bound.condition)), cause }
    }

    /// Whether it finds no document.
    pub(super) fn is_nothing(&self) -> bool {
        self.condition == NOTHING
    }

    /// Whether it finds every document.
    pub(super) fn is_everything(&self) -> bool {
        self.condition == EVERYTHING
    }
}
