//! Rounds: evaluate every open question, then load every fact that they lack, until each question has its result.

use std::time::Duration;

use super::{
    CheckError, CheckResult, Checked, Checker,
    request::{Missing, Request},
    request_facts::FACTS_MAX,
    slice::Turn,
    tracked_facts::{Seen, TrackedFacts},
};
use crate::{
    evaluate::{Verdict, evaluate_in_time},
    freshness::Token,
    question::{Answer, Millis, Question},
};

/// How many facts a round lacks at most if some of them are presumed to be over their limit.
const PRESUMING_MAX: usize = 100;

impl Checker {
    /// Evaluates and loads in turn until each question has its result.
    pub(super) async fn answer_all(
        &self,
        questions: &[Question],
        results: &mut [CheckResult],
        request: &mut Request,
        now: &(impl Fn() -> Millis + Send + Sync),
    ) {
        loop {
            let now = now();
            let mut missing = Missing::default();
            let mut turn = Turn::begin(request.deadline);
            for (question, result) in questions.iter().zip(&mut *results).filter(|(_, result)| result.is_none()) {
                if turn.is_late() {
                    *result = Some(Err(CheckError::DeadlineExceeded));
                } else if missing.len() < FACTS_MAX {
                    let looked_at = {
                        let tracked = TrackedFacts::new(&request.facts, &self.facts, request.requirement)
                            .presuming(request.presumed_large(&question.subject));
                        *result = self.try_answer(question, request, &tracked, now, &mut missing);
                        tracked.asked()
                    };
                    turn.pause_if_over_after(looked_at).await;
                }
            }
            if results.iter().all(Option::is_some) {
                return;
            }
            request.load(&self.facts, missing).await;
        }
    }

    /// The result, if the available facts decide the question or a missing one cannot be loaded. Otherwise adds the missing
    /// facts to `missing`.
    pub(super) fn try_answer(
        &self,
        question: &Question,
        request: &Request,
        tracked: &TrackedFacts<'_>,
        now: Millis,
        missing: &mut Missing,
    ) -> CheckResult {
        let mut wanted = Vec::new();
        match evaluate_in_time(&self.schema, question, tracked, now, &mut wanted) {
            (Verdict::Decided(answer), may_change_at) => {
                let seen = tracked.seen();
                Some(Ok(self.checked((answer, may_change_at), seen, request.age(&self.freshness, seen.oldest))))
            }
            (Verdict::Missing, _) => match request.next(&mut wanted) {
                Some(Ok(())) => {
                    if missing.len() + wanted.len() <= PRESUMING_MAX {
                        request.presume(&self.facts, &question.subject, &mut wanted, missing);
                    }
                    missing.extend(wanted);
                    None
                }
                Some(Err(error)) => Some(Err(error)),
                None => Some(Err(CheckError::DeadlineExceeded)),
            },
        }
    }

    /// An answer with the age, tier and token of the facts that were used.
    pub(super) fn checked(
        &self,
        (answer, may_change_at): (Answer, Option<Millis>),
        seen: Seen,
        age: Duration,
    ) -> Checked {
        let as_of = Token { clock: self.clock, moment: seen.newest };
        Checked { answer, may_change_at, tier: seen.tier, as_of, age, is_stale: false }
    }
}
