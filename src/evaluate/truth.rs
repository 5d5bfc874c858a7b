//! The values of an evaluation: Kleene's three truth values and a fourth for a missing fact. Defines how `!`, `&` and `|`
//! combine them, and which reason a denial has (docs/schema.md, "Indeterminate values" and "Reasons").
//!
//! Reads no fact and no schema.

use std::mem::discriminant;

use super::Verdict;
use crate::{
    fact::{Certainty, Window},
    question::{Answer, Millis, Reason, RelationId},
};

/// The `until` of a value that the clock never changes.
pub(super) const NEVER: Millis = Millis::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    /// It holds, with a relation that grants it, if one does.
    True(Option<RelationId>),
    /// It does not hold: nothing grants it, it is excluded or expired, the resource is not found or the subject is inactive.
    False(Reason),
    /// It is indeterminate: a value is malformed, a limit is exceeded, or it depends on itself through a `!`.
    Unsure(Reason),
    /// A fact is missing.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) truth: Truth,
    /// The time at which the clock alone may change the value, or [`NEVER`].
    pub(super) until: Millis,
}

impl Value {
    pub(super) const TRUE: Self = Self::of(Truth::True(None));
    pub(super) const FALSE: Self = Self::of(Truth::False(Reason::NoGrant));
    pub(super) const MISSING: Self = Self::of(Truth::Missing);
    pub(super) const MALFORMED: Self = Self::of(Truth::Unsure(Reason::Malformed));
    pub(super) const LIMIT: Self = Self::of(Truth::Unsure(Reason::Limit));
    /// It depends on itself through a `!`.
    pub(super) const CYCLE: Self = Self::of(Truth::Unsure(Reason::Cycle));

    const fn of(truth: Truth) -> Self {
        Self { truth, until: NEVER }
    }

    pub(super) const fn granted(by: RelationId) -> Self {
        Self::of(Truth::True(Some(by)))
    }

    pub(super) const fn denied(reason: Reason) -> Self {
        Self::of(Truth::False(reason))
    }

    /// Whether both values are true, both false, both indeterminate, or both missing.
    pub(super) fn is_alike(self, other: Self) -> bool {
        discriminant(&self.truth) == discriminant(&other.truth)
    }

    /// The same value for both reasons, of which the first counts, and until the earlier time.
    pub(super) fn joined(self, other: Self) -> Self {
        let truth = match (self.truth, other.truth) {
            (Truth::False(l), Truth::False(r)) => Truth::False(l.min(r)),
            (Truth::Unsure(l), Truth::Unsure(r)) => Truth::Unsure(l.min(r)),
            (truth, _) => truth,
        };
        join(truth, self, other)
    }

    /// The same, granted by this relation.
    pub(super) fn named(self, by: RelationId) -> Self {
        match self.truth {
            Truth::True(_) => Self { truth: Truth::True(Some(by)), ..self },
            Truth::False(_) | Truth::Unsure(_) | Truth::Missing => self,
        }
    }

    /// The same, without the relation that grants it.
    pub(super) fn unnamed(self) -> Self {
        match self.truth {
            Truth::True(_) => Self { truth: Truth::True(None), ..self },
            Truth::False(_) | Truth::Unsure(_) | Truth::Missing => self,
        }
    }

    pub(super) fn negated(self) -> Self {
        let truth = match self.truth {
            Truth::True(_) => Truth::False(Reason::Excluded),
            Truth::False(_) => Truth::True(None),
            same @ (Truth::Unsure(_) | Truth::Missing) => same,
        };
        Self { truth, ..self }
    }

    /// The value of a grant: this value, limited by the grant's window and certainty.
    pub(super) fn during(self, window: Window, certainty: Certainty, now: Millis) -> Self {
        let (is_early, is_late) = (now < window.since, now >= window.until);
        match self.truth {
            Truth::True(_) | Truth::Unsure(_) if is_early || is_late => {
                let until = if is_early && !is_late { window.since } else { NEVER };
                Self { truth: Truth::False(Reason::Expired), until: until.min(self.until) }
            }
            Truth::True(_) if certainty != Certainty::Sure => Self::MALFORMED,
            Truth::True(_) => Self { until: self.until.min(window.until), ..self },
            Truth::False(_) | Truth::Unsure(_) | Truth::Missing => self,
        }
    }

    pub(super) fn verdict(self) -> Verdict {
        Verdict::Decided(match self.truth {
            Truth::True(by) => Answer::Allowed { by, valid_until: Some(self.until).filter(|until| *until != NEVER) },
            Truth::False(reason) | Truth::Unsure(reason) => Answer::Denied(reason),
            Truth::Missing => return Verdict::Missing,
        })
    }
}

/// The value of an `|`. Sides are added one by one. The first true side gives the relation.
pub(super) struct Any(Value);

impl Default for Any {
    fn default() -> Self {
        Self(Value::FALSE)
    }
}

impl Any {
    pub(super) fn add(&mut self, side: Value) {
        self.0 = match (self.0.truth, side.truth) {
            (Truth::True(_), _) => return,
            (_, Truth::True(_)) => side,
            (left, right) => {
                let truth = match (left, right) {
                    (Truth::Missing, _) | (_, Truth::Missing) => Truth::Missing,
                    (Truth::Unsure(l), Truth::Unsure(r)) => Truth::Unsure(l.min(r)),
                    (Truth::Unsure(reason), _) | (_, Truth::Unsure(reason)) => Truth::Unsure(reason),
                    (Truth::False(l), Truth::False(r)) => Truth::False(l.min(r)),
                    (Truth::True(_), _) | (_, Truth::True(_)) => left,
                };
                join(truth, self.0, side)
            }
        };
    }

    /// Whether no further side can change the value.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.0.truth, Truth::True(_))
    }

    pub(super) fn value(&self) -> Value {
        self.0
    }
}

/// The value of an `&`. Sides are added from left to right.
pub(super) struct All {
    value: Value,
    is_settled: bool,
}

impl Default for All {
    fn default() -> Self {
        Self { value: Value::TRUE, is_settled: false }
    }
}

impl All {
    pub(super) fn add(&mut self, side: Value) {
        if self.is_settled {
            return;
        }
        let left = self.value;
        self.value = match (left.truth, side.truth) {
            (Truth::False(_), _) => return,
            (Truth::True(_) | Truth::Unsure(_), Truth::False(_)) => side,
            (Truth::Missing, _) | (_, Truth::Missing) => join(Truth::Missing, left, side),
            (Truth::Unsure(l), Truth::Unsure(r)) => join(Truth::Unsure(l.min(r)), left, side),
            (Truth::Unsure(reason), _) | (_, Truth::Unsure(reason)) => join(Truth::Unsure(reason), left, side),
            (Truth::True(l), Truth::True(r)) => join(Truth::True(l.or(r)), left, side),
        };
        // A false side decides. If a side before it is missing, only the reason is still open: the leftmost false side gives
        // it, and that may turn out to be the missing one.
        self.is_settled = matches!(side.truth, Truth::False(_));
    }

    /// Whether no further side can change the value.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    pub(super) fn value(&self) -> Value {
        self.value
    }
}

fn join(truth: Truth, left: Value, right: Value) -> Value {
    Value { truth, until: left.until.min(right.until) }
}
