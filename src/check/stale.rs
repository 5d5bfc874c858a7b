//! `stale_if_error`: answers from older cached facts while the source does not answer, for the permissions whose schema
//! allows it.

use std::ops::ControlFlow;

use super::{
    CheckError, CheckResult, Checked, Checker, Consistency, RequestFacts, slice::Turn, tracked_facts::TrackedFacts,
};
use crate::{
    evaluate::{DEPTH_MAX, Verdict, evaluate_in_time},
    fact::{Fact, FactKey},
    facts::{CachedFact, FreshnessRequirement},
    freshness::LocalTime,
    question::{Millis, Question, Subject},
    source::{Deadline, SourceError},
};

/// The facts that the stale answer of a question is based on.
struct StaleFacts<'a> {
    subject: &'a Subject,
    requirement: FreshnessRequirement,
    facts: RequestFacts,
}

impl Checker {
    /// Replaces errors by answers from cached facts that are older than the bound, where the permission allows that. Pauses as the
    /// rounds do. Errors that are left when the deadline is over stay.
    pub(super) async fn answer_stale(
        &self,
        questions: &[Question],
        results: &mut [CheckResult],
        (consistency, arrived, deadline): (Consistency, LocalTime, Deadline),
        now: &(impl Fn() -> Millis + Send + Sync),
    ) {
        let mut turn = Turn::begin(deadline);
        let mut last: Option<StaleFacts<'_>> = None;
        for (question, result) in questions.iter().zip(results) {
            if turn.is_late() {
                return;
            }
            let Some(Err(error)) = result else { continue };
            let Some(requirement) = self.stale_requirement(question, consistency, arrived, error) else {
                turn.pause_if_over_after(0).await;
                continue;
            };
            // Facts that stand for whole ones do so for one subject only.
            let mut stale =
                last.take().filter(|last| last.serves(&question.subject, requirement)).unwrap_or_else(|| StaleFacts {
                    subject: &question.subject,
                    requirement,
                    facts: RequestFacts::default(),
                });
            if let Some(checked) = self.stale_answer(question, arrived, now(), &mut stale, &mut turn).await {
                *result = Some(Ok(checked));
            }
            last = Some(stale);
        }
    }

    /// The freshness that an answer in place of this error requires of each fact. None unless the permission allows such an answer, the
    /// request asks for nothing stricter than the default, and the error means that the source is not answering.
    fn stale_requirement(
        &self,
        question: &Question,
        consistency: Consistency,
        arrived: LocalTime,
        error: &CheckError,
    ) -> Option<FreshnessRequirement> {
        let age_max = self.schema.permission(question.permission).stale_if_error?;
        let is_outage = match error {
            // A load of another request that broke off is no outage.
            CheckError::Unavailable(SourceError::BrokenOff | SourceError::NoIndex { .. }) => false,
            CheckError::Unavailable(
                SourceError::TimedOut
                | SourceError::Probe(_)
                | SourceError::Find { .. }
                | SourceError::TooMuch
                | SourceError::Answer { .. },
            ) => true,
            // A short deadline is no outage, unless the probes, which are sent all the time, got no answer either.
            CheckError::DeadlineExceeded => self.freshness.required_moment(arrived.minus(self.staleness_max)).is_none(),
            CheckError::ForeignToken { .. } | CheckError::FutureToken | CheckError::TooLarge => false,
        };
        if !is_outage || consistency != Consistency::MinimizeLatency {
            return None;
        }
        let as_of = self.freshness.required_moment(arrived.minus(age_max))?;
        Some(FreshnessRequirement { as_of, stamp: self.freshness.subject_mark(&question.subject) })
    }

    /// The answer from cached facts, if they decide.
    async fn stale_answer(
        &self,
        question: &Question,
        arrived: LocalTime,
        now: Millis,
        stale: &mut StaleFacts<'_>,
        turn: &mut Turn,
    ) -> Option<Checked> {
        // Each round may reach facts that are one edge farther.
        for _ in 0..=DEPTH_MAX {
            let (step, looked_at) = self.stale_step(question, arrived, now, stale);
            turn.pause_if_over_after(looked_at).await;
            match step {
                ControlFlow::Break(answer) => return answer,
                ControlFlow::Continue(()) if turn.is_late() => return None,
                ControlFlow::Continue(()) => {}
            }
        }
        None
    }

    /// Evaluates once, and adds filtered facts that may stand for whole ones if that lacks some. Returns also how many facts the
    /// evaluation has looked at.
    fn stale_step(
        &self,
        question: &Question,
        arrived: LocalTime,
        now: Millis,
        stale: &mut StaleFacts<'_>,
    ) -> (ControlFlow<Option<Checked>>, u32) {
        let tracked = TrackedFacts::new(&stale.facts, &self.facts, stale.requirement);
        let mut missing = Vec::new();
        let (verdict, may_change_at) = evaluate_in_time(&self.schema, question, &tracked, now, &mut missing);
        let (seen, looked_at) = (tracked.seen(), tracked.asked());
        if let Verdict::Decided(answer) = verdict {
            let age = self.freshness.age(seen.oldest, arrived);
            let checked = Checked { is_stale: true, ..self.checked((answer, may_change_at), seen, age) };
            return (ControlFlow::Break(Some(checked)), looked_at);
        }
        let stand_ins = missing.iter().filter_map(|key| self.stand_in(key, &question.subject, stale.requirement));
        let stand_ins: Vec<_> = stand_ins.collect();
        if stand_ins.is_empty() || stale.facts.is_full() {
            return (ControlFlow::Break(None), looked_at);
        }
        for fact in stand_ins {
            stale.facts.insert(fact);
        }
        (ControlFlow::Continue(()), looked_at)
    }

    /// A whole fact that is not in memory, as if it were over its limit, if the filtered one is in memory and may stand for it. Earlier
    /// requests have read it in place of the whole one.
    fn stand_in(&self, key: &FactKey, subject: &Subject, requirement: FreshnessRequirement) -> Option<CachedFact> {
        if key.subject.is_some() || !self.facts.may_stand_for_whole(key.lookup) {
            return None;
        }
        let filtered = self.facts.cached(key.lookup, &key.id, Some(subject), requirement)?;
        let fact = Fact::over_limit(key.clone(), filtered.fact.stamp());
        (!filtered.fact.is_doubtful()).then_some(CachedFact { fact, ..filtered })
    }
}

impl StaleFacts<'_> {
    /// Whether another question may use these facts too.
    fn serves(&self, subject: &Subject, requirement: FreshnessRequirement) -> bool {
        let FreshnessRequirement { as_of, stamp } = self.requirement;
        self.subject == subject && (as_of, stamp) == (requirement.as_of, requirement.stamp) && !self.facts.is_full()
    }
}
