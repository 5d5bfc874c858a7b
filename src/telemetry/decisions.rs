//! Counts answers by permission, outcome and caller. Counting takes no lock and allocates nothing, except for the first
//! answer with a combination of these.
//!
//! Logs nothing (`transport/record.rs` does), and counts no errors.

use std::sync::{Arc, OnceLock};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use crate::question::{Answer, PermissionId, Reason};

/// How many callers are counted by name. Further ones are counted together, as `other`.
pub const CALLERS_MAX: usize = 256;

/// The number of outcomes: allowed, and denied for each reason.
const OUTCOMES: usize = 1 + Reason::ALL.len();

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DecisionLabels {
    resource_type: Arc<str>,
    permission: Arc<str>,
    decision: &'static str,
    reason: &'static str,
    caller: Arc<str>,
}

/// Counts answers by the permissions of one schema.
#[derive(Clone, Debug)]
pub struct Decisions(Arc<Table>);

#[derive(Debug)]
struct Table {
    family: Family<DecisionLabels, Counter>,
    /// The resource type and the name of each permission, by the permission's number.
    permissions: Box<[(Arc<str>, Arc<str>)]>,
    /// In the order of their first answers.
    callers: Box<[OnceLock<DecisionsOfCaller>]>,
    /// The callers beyond [`CALLERS_MAX`].
    others: DecisionsOfCaller,
}

/// Counts the answers to one caller.
#[derive(Debug)]
pub struct DecisionsOfCaller {
    caller: Arc<str>,
    /// A counter for each outcome of each permission, made at the first answer.
    counters: Box<[OnceLock<Counter>]>,
}

impl DecisionsOfCaller {
    fn new(caller: &str, permissions: usize) -> Self {
        let counters = (0..permissions * OUTCOMES).map(|_| OnceLock::new()).collect();
        Self { caller: caller.into(), counters }
    }
}

impl Decisions {
    pub(super) fn new(
        family: Family<DecisionLabels, Counter>,
        permissions: impl IntoIterator<Item = (Arc<str>, Arc<str>)>,
    ) -> Self {
        let permissions: Box<[_]> = permissions.into_iter().collect();
        let callers = (0..CALLERS_MAX).map(|_| OnceLock::new()).collect();
        let others = DecisionsOfCaller::new("other", permissions.len());
        Self(Arc::new(Table { family, permissions, callers, others }))
    }

    /// The counters of the answers to this caller.
    #[must_use]
    pub fn to(&self, caller: &str) -> &DecisionsOfCaller {
        let Table { permissions, callers, others, .. } = &*self.0;
        let known = callers.iter().map(|slot| slot.get_or_init(|| DecisionsOfCaller::new(caller, permissions.len())));
        known.into_iter().find(|known| *known.caller == *caller).unwrap_or(others)
    }

    /// Counts an answer.
    pub fn count(&self, to: &DecisionsOfCaller, permission: PermissionId, answer: Answer) {
        let outcome = match answer {
            Answer::Allowed { .. } => 0,
            Answer::Denied(denied) => 1 + Reason::ALL.iter().take_while(|reason| **reason != denied).count(),
        };
        let Some((counter, (resource_type, name))) =
            to.counters.get(permission.index() * OUTCOMES + outcome).zip(self.0.permissions.get(permission.index()))
        else {
            return;
        };
        let first = || {
            let (decision, reason) = match answer {
                Answer::Allowed { .. } => ("allowed", ""),
                Answer::Denied(reason) => ("denied", reason.as_str()),
            };
            self.0.family.get_or_create_owned(&DecisionLabels {
                resource_type: Arc::clone(resource_type),
                permission: Arc::clone(name),
                decision,
                reason,
                caller: Arc::clone(&to.caller),
            })
        };
        counter.get_or_init(first).inc();
    }
}
