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
        self.add(to, permission, reason_of(answer), 1);
    }

    /// A tally of answers to one caller. To count many answers with it costs a fraction of counting each of them.
    #[must_use]
    pub fn tally<'a>(&'a self, to: &'a DecisionsOfCaller) -> DecisionTally<'a> {
        DecisionTally { decisions: self, to, kept: [None; KEPT] }
    }

    /// Counts answers with the same permission and outcome: allowed, or denied for a reason.
    fn add(&self, to: &DecisionsOfCaller, permission: PermissionId, denied: Option<Reason>, answers: u64) {
        let outcome = denied.map_or(0, |denied| 1 + Reason::ALL.iter().take_while(|reason| **reason != denied).count());
        let Some((counter, (resource_type, name))) =
            to.counters.get(permission.index() * OUTCOMES + outcome).zip(self.0.permissions.get(permission.index()))
        else {
            return;
        };
        let first = || {
            let (decision, reason) = denied.map_or(("allowed", ""), |reason| ("denied", reason.as_str()));
            self.0.family.get_or_create_owned(&DecisionLabels {
                resource_type: Arc::clone(resource_type),
                permission: Arc::clone(name),
                decision,
                reason,
                caller: Arc::clone(&to.caller),
            })
        };
        counter.get_or_init(first).inc_by(answers);
    }
}

/// Why an answer denies; none if it allows.
fn reason_of(answer: Answer) -> Option<Reason> {
    match answer {
        Answer::Allowed { .. } => None,
        Answer::Denied(reason) => Some(reason),
    }
}

/// How many combinations of permission and outcome a tally keeps. Most batches have fewer.
const KEPT: usize = 8;

/// Answers to one caller that are counted here first ([`Decisions::tally`]). They are added to the counters when the tally is
/// dropped, and earlier those of a combination of permission and outcome that it has no room for.
#[derive(Debug)]
pub struct DecisionTally<'a> {
    decisions: &'a Decisions,
    to: &'a DecisionsOfCaller,
    /// How many answers each combination has. Free places come last.
    kept: [Option<(PermissionId, Option<Reason>, u64)>; KEPT],
}

impl DecisionTally<'_> {
    /// Counts an answer.
    pub fn count(&mut self, permission: PermissionId, answer: Answer) {
        let denied = reason_of(answer);
        for place in &mut self.kept {
            match place {
                Some((of, reason, answers)) if (*of, *reason) == (permission, denied) => return *answers += 1,
                Some(_) => {}
                None => return *place = Some((permission, denied, 1)),
            }
        }
        self.decisions.add(self.to, permission, denied, 1);
    }
}

impl Drop for DecisionTally<'_> {
    fn drop(&mut self) {
        for (permission, denied, answers) in self.kept.iter().flatten() {
            self.decisions.add(self.to, *permission, *denied, *answers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_as_counting_each_answer_does() {
        let answers: Vec<(PermissionId, Answer)> = (0..500_u16)
            .map(|number| {
                let reason = Reason::ALL.get(usize::from(number % 11)).copied();
                let answer = reason.map_or(Answer::Allowed { by: None, valid_until: None }, Answer::Denied);
                (PermissionId(number % 7), answer)
            })
            .collect();
        let permissions = || (0..7).map(|number| (Arc::from("file"), Arc::from(format!("permission {number}"))));
        let [each, tallied] = [(); 2].map(|()| Decisions::new(Family::default(), permissions()));
        let mut tally = tallied.tally(tallied.to("web"));
        for (permission, answer) in answers {
            each.count(each.to("web"), permission, answer);
            tally.count(permission, answer);
        }
        drop(tally);
        let counts = |decisions: &Decisions| {
            let counters = &decisions.to("web").counters;
            counters.iter().map(|counter| counter.get().map_or(0, Counter::get)).collect::<Vec<u64>>()
        };
        assert_eq!(counts(&tallied), counts(&each));
        assert_eq!(counts(&each).iter().sum::<u64>(), 500);
    }
}
