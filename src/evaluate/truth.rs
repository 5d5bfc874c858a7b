//! The values of an evaluation: Kleene's three truth values and a fourth for a missing fact. Defines how `!`, `&` and `|`
//! combine them, and which reason a denial has (docs/schema.md, "Indeterminate values" and "Reasons").
//!
//! A value is false as soon as no missing fact can make it true, even if its reason is still open. `graph` relies on this: there,
//! a value that counted as indeterminate until its reason is known could keep itself indeterminate through a cycle.
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
    /// The reason is none as long as it depends on a missing fact.
    False(Option<Reason>),
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
    pub(super) const FALSE: Self = Self::denied(Reason::NoGrant);
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
        Self::of(Truth::False(Some(reason)))
    }

    /// Whether both values are true, both false, both indeterminate, or both missing.
    pub(super) fn is_alike(self, other: Self) -> bool {
        discriminant(&self.truth) == discriminant(&other.truth)
    }

    /// Whether no missing fact can change the truth, nor the reason.
    pub(super) fn is_decided(self) -> bool {
        match self.truth {
            Truth::True(_) | Truth::False(Some(_)) | Truth::Unsure(_) => true,
            Truth::False(None) | Truth::Missing => false,
        }
    }

    /// The same, but indeterminate if it is missing.
    pub(super) fn or_indeterminate(self) -> Self {
        if self.truth == Truth::Missing { Self::CYCLE } else { self }
    }

    /// The same truth with the first reason of both, and until the earlier time. `other` is the same truth computed from
    /// other reasons, or missing.
    pub(super) fn explained(self, other: Self) -> Self {
        let truth = match (self.truth, other.truth) {
            (Truth::False(l), Truth::False(r)) => Truth::False(first_reason(l, r)),
            (Truth::Unsure(l), Truth::Unsure(r)) => Truth::Unsure(l.min(r)),
            (Truth::Unsure(_), Truth::Missing) => Truth::Missing,
            (truth, _) => truth,
        };
        join(truth, self, other)
    }

    /// The same, denied for this reason if it is denied.
    pub(super) fn because(self, reason: Reason) -> Self {
        match self.truth {
            Truth::False(_) => Self { truth: Truth::False(Some(reason)), ..self },
            Truth::True(_) | Truth::Unsure(_) | Truth::Missing => self,
        }
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
            Truth::True(_) => Truth::False(Some(Reason::Excluded)),
            Truth::False(_) => Truth::True(None),
            same @ (Truth::Unsure(_) | Truth::Missing) => same,
        };
        Self { truth, ..self }
    }

    /// The value of a grant: this value, limited by the grant's window and certainty.
    pub(super) fn during(self, window: Window, certainty: Certainty, now: Millis) -> Self {
        let (is_early, is_late) = (now < window.since, now >= window.until);
        match self.truth {
            Truth::True(_) | Truth::Unsure(_) | Truth::Missing if is_early || is_late => {
                let until = if is_early && !is_late { window.since } else { NEVER };
                // A missing fact may turn out to contain no grant at all.
                let reason = (self.truth != Truth::Missing).then_some(Reason::Expired);
                Self { truth: Truth::False(reason), until: until.min(self.until) }
            }
            Truth::True(_) if certainty != Certainty::Sure => {
                Self { until: self.until.min(window.until), ..Self::MALFORMED }
            }
            Truth::True(_) | Truth::Unsure(_) => Self { until: self.until.min(window.until), ..self },
            Truth::False(_) | Truth::Missing => self,
        }
    }

    /// The time at which the clock alone may change it; none if there is no such time.
    pub(super) fn may_change_at(self) -> Option<Millis> {
        Some(self.until).filter(|until| *until != NEVER)
    }

    pub(super) fn verdict(self) -> Verdict {
        Verdict::Decided(match self.truth {
            Truth::True(by) => Answer::Allowed { by, valid_until: self.may_change_at() },
            Truth::False(Some(reason)) | Truth::Unsure(reason) => Answer::Denied(reason),
            Truth::False(None) | Truth::Missing => return Verdict::Missing,
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
                    (Truth::False(l), Truth::False(r)) => Truth::False(first_reason(l, r)),
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

/// The value of an `&`. Sides are added from left to right. The leftmost false side gives the reason.
pub(super) struct All(Value);

impl Default for All {
    fn default() -> Self {
        Self(Value::TRUE)
    }
}

impl All {
    pub(super) fn add(&mut self, side: Value) {
        let left = self.0;
        self.0 = match (left.truth, side.truth) {
            (Truth::False(_), _) => return,
            (Truth::True(_) | Truth::Unsure(_), Truth::False(_)) => side,
            // The missing side may turn out to be false, and would then give the reason.
            (Truth::Missing, Truth::False(_)) => Value { truth: Truth::False(None), ..side },
            (Truth::Missing, _) | (_, Truth::Missing) => join(Truth::Missing, left, side),
            (Truth::Unsure(l), Truth::Unsure(r)) => join(Truth::Unsure(l.min(r)), left, side),
            (Truth::Unsure(reason), _) | (_, Truth::Unsure(reason)) => join(Truth::Unsure(reason), left, side),
            (Truth::True(l), Truth::True(r)) => join(Truth::True(l.or(r)), left, side),
        };
    }

    /// Whether no further side can change the value.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.0.truth, Truth::False(_))
    }

    pub(super) fn value(&self) -> Value {
        self.0
    }
}

/// The first of two reasons, in their order of precedence. It is unknown if one of them is.
fn first_reason(left: Option<Reason>, right: Option<Reason>) -> Option<Reason> {
    left.zip(right).map(|(left, right)| left.min(right))
}

fn join(truth: Truth, left: Value, right: Value) -> Value {
    Value { truth, until: left.until.min(right.until) }
}
