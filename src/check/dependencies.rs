//! The dependencies of an answer, for callers that keep it until one of these changes (docs/freshness.md, "Kept answers").
//!
//! Keeps no answers. A check whose caller does not ask for this does no work for it.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use super::{CheckResult, Checked, Checker, request::Request, slice::Turn, tracked_facts::TrackedFacts};
use crate::{
    evaluate::{AvailableFacts, Verdict, evaluate_in_time},
    fact::Fact,
    freshness::{Clock, DEPENDENCIES_MAX, Moment, add_names_of_fact, name_of_subject},
    question::{Answer, Id, LookupId, Millis, Question, Reason, Subject},
    schema::Schema,
};

/// The dependencies of an answer. It stays right until a change has one of the names, or its time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependencies {
    /// The names of everything whose change may change the answer, sorted: 1 to 64 of them.
    pub names: Box<[u64]>,
    /// Every fact of the answer is true as of this moment or later: the oldest as-of moment among them.
    pub oldest: Moment,
    /// How long the clock alone leaves the answer as it is; none if it never changes it.
    pub valid_for: Option<Duration>,
}

/// Whether an answer may be kept at all. A stale one is older than the bound. The data behind an indeterminate one is
/// to be corrected, and is read again so that the correction shows.
fn may_be_kept(checked: &Checked) -> bool {
    let is_decided = match checked.answer {
        Answer::Allowed { .. } => true,
        Answer::Denied(reason) => match reason {
            Reason::SubjectInactive | Reason::NotFound | Reason::Excluded | Reason::Expired | Reason::NoGrant => true,
            Reason::Malformed | Reason::Limit | Reason::Cycle => false,
        },
    };
    is_decided && !checked.is_stale
}

impl Checker {
    /// Finds what each answer depends on, in the order of the questions: none for an answer that must not be kept. The answers after the
    /// deadline are left out.
    ///
    /// Evaluates each question once more, with the facts that the request has, and records which ones that takes.
    pub(super) async fn find_dependencies(
        &self,
        questions: &[Question],
        results: &[CheckResult],
        request: &mut Request,
        now: &(impl Fn() -> Millis + Send + Sync),
    ) -> Vec<Option<Dependencies>> {
        let mut found = Vec::with_capacity(questions.len());
        // Without a common time of all instances, no stream of changes confirms that an answer is right.
        if self.clock != Clock::Cluster {
            return found;
        }
        let mut turn = Turn::begin(request.deadline);
        for (question, result) in questions.iter().zip(results) {
            if turn.is_late() {
                break;
            }
            let (dependencies, looked_at) = match result {
                Some(Ok(checked)) if may_be_kept(checked) => self.dependencies(question, checked, request, now()),
                Some(Ok(_) | Err(_)) | None => (None, 0),
            };
            found.push(dependencies);
            turn.pause_if_over_after(looked_at).await;
        }
        found
    }

    /// The dependencies of one answer, and how many facts were looked at to find that out.
    fn dependencies(
        &self,
        question: &Question,
        checked: &Checked,
        request: &Request,
        now: Millis,
    ) -> (Option<Dependencies>, u32) {
        let tracked = TrackedFacts::new(&request.facts, &self.facts, request.requirement)
            .presuming(request.presumed_large(&question.subject));
        let recorder = Recorder { schema: &self.schema, facts: &tracked, names: RefCell::new(Some(BTreeSet::new())) };
        let mut missing = Vec::new();
        let (verdict, may_change_at) = evaluate_in_time(&self.schema, question, &recorder, now, &mut missing);
        let is_same = match (verdict, checked.answer) {
            (Verdict::Decided(Answer::Allowed { .. }), Answer::Allowed { .. }) => true,
            (Verdict::Decided(Answer::Denied(again)), Answer::Denied(reason)) => again == reason,
            (Verdict::Decided(Answer::Allowed { .. }), Answer::Denied(_))
            | (Verdict::Decided(Answer::Denied(_)), Answer::Allowed { .. })
            | (Verdict::Missing, _) => false,
        };
        recorder.add(name_of_subject(&self.schema, &question.subject));
        let names = recorder.names.into_inner().filter(|_| is_same);
        let remaining = may_change_at.map(|at| u64::try_from(at.saturating_sub(now)).unwrap_or(0));
        let dependencies = names.map(|names| Dependencies {
            names: names.into_iter().collect(),
            oldest: tracked.seen().oldest,
            valid_for: remaining.map(Duration::from_millis),
        });
        (dependencies, tracked.asked())
    }
}

/// The facts of a request, with a record of the names of those that were used.
struct Recorder<'a> {
    schema: &'a Schema,
    facts: &'a TrackedFacts<'a>,
    /// None once there are too many, or something has no name.
    names: RefCell<Option<BTreeSet<u64>>>,
}

impl Recorder<'_> {
    fn add(&self, name: u64) {
        let mut names = self.names.borrow_mut();
        if let Some(all) = &mut *names {
            all.insert(name);
            if all.len() > DEPENDENCIES_MAX {
                *names = None;
            }
        }
    }
}

impl AvailableFacts for Recorder<'_> {
    fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&Fact> {
        let fact = self.facts.get(lookup, id, subject)?;
        if !add_names_of_fact(self.schema, fact, &mut |name| self.add(name)) {
            self.names.replace(None);
        }
        Some(fact)
    }
}
