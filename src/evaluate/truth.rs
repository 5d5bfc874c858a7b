//! The values of an evaluation: Kleene's three truth values and a fourth for a missing fact. Defines how `!`, `&` and `|`
//! combine them, and which reason a denial has (docs/schema.md, "Indeterminate values" and "Reasons").
//!
//! Values also record cycles. A *frame* is one member of one resource that is being evaluated. The frame of the question has
//! depth 1, and each edge or set leads to a frame one deeper. If an edge or set leads back to a frame that is still open, the
//! cycle is *cut off*: it grants nothing. A value that depends on this is valid only until that frame is left; its `cut` is
//! the depth of the frame.
//!
//! Reads no fact and no schema.

use super::Verdict;
use crate::{
    fact::{Certainty, Window},
    question::{Answer, Millis, Reason, RelationId},
};

/// The `until` of a value that the clock never changes.
pub(super) const NEVER: Millis = Millis::MAX;

/// The `cut` of a value that depends on no cycle that is still open.
pub(super) const NEVER_CUT: usize = usize::MAX;

/// The `cut` of a value that depends on where in the tree it was computed.
const HERE_ONLY: usize = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    /// It holds, with a relation that grants it, if one does.
    True(Option<RelationId>),
    /// It does not hold: nothing grants it, it is excluded or expired, the resource is not found or the subject is inactive.
    False(Reason),
    /// It is indeterminate: a value is malformed, or a limit is exceeded.
    Unsure(Reason),
    /// A fact is missing.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) truth: Truth,
    /// The time at which the clock alone may change the value, or [`NEVER`].
    pub(super) until: Millis,
    /// The depth of the outermost frame at which a cycle was cut off: the value is valid only beneath that frame.
    pub(super) cut: usize,
}

impl Value {
    pub(super) const TRUE: Self = Self::of(Truth::True(None));
    pub(super) const FALSE: Self = Self::of(Truth::False(Reason::NoGrant));
    pub(super) const MISSING: Self = Self::of(Truth::Missing);
    pub(super) const MALFORMED: Self = Self::of(Truth::Unsure(Reason::Malformed));
    pub(super) const LIMIT_OF_FACT: Self = Self::of(Truth::Unsure(Reason::Limit));
    /// Over the limit of a tree or a check. At another place in the tree the value may be known.
    pub(super) const LIMIT: Self = Self { truth: Truth::Unsure(Reason::Limit), until: NEVER, cut: HERE_ONLY };

    const fn of(truth: Truth) -> Self {
        Self { truth, until: NEVER, cut: NEVER_CUT }
    }

    pub(super) const fn granted(by: RelationId) -> Self {
        Self::of(Truth::True(Some(by)))
    }

    pub(super) const fn denied(reason: Reason) -> Self {
        Self::of(Truth::False(reason))
    }

    /// False, as long as the frame at this depth is open.
    pub(super) const fn cut(depth: usize) -> Self {
        Self { truth: Truth::False(Reason::NoGrant), until: NEVER, cut: depth }
    }

    /// The value after the evaluator leaves the frame at this depth: a cycle that was cut off there is closed.
    pub(super) fn after_leaving(self, depth: usize) -> Self {
        // A value that is true although a cycle was cut off is true in any case, as no cycle runs through a `!`.
        let is_free = self.cut == depth || matches!(self.truth, Truth::True(_));
        Self { cut: if is_free { NEVER_CUT } else { self.cut }, ..self }
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
                Self { truth: Truth::False(Reason::Expired), until: until.min(self.until), ..self }
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
    Value { truth, until: left.until.min(right.until), cut: left.cut.min(right.cut) }
}
