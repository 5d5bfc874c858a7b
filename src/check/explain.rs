//! Explanations: one question, answered as a check answers it, with the whole evaluation.

use std::time::Instant;

use super::{
    CheckError, Checked, Checker, Consistency, RequestFacts,
    request::{Missing, Request},
    tracked_facts::TrackedFacts,
    wall_clock,
};
use crate::{
    evaluate::{Tree, explain},
    fact::FactKey,
    freshness::LocalTime,
    question::{Millis, Question},
    source::Deadline,
};

/// An answer, and how the evaluation arrived at it.
#[derive(Debug)]
pub struct Explained {
    /// The answer, as a check gives it.
    pub checked: Checked,
    /// Every step of the evaluation.
    pub tree: Tree,
    /// The facts that the evaluation used.
    pub facts: RequestFacts,
}

impl Checker {
    /// Answers one question and explains the answer.
    ///
    /// # Errors
    /// Those of a check.
    pub async fn explain(
        &self,
        question: &Question,
        consistency: Consistency,
        deadline: Deadline,
    ) -> Result<Explained, CheckError> {
        let started = Instant::now();
        let mut request = self.begin([&question.subject], consistency, LocalTime::now(), deadline).await?;
        loop {
            let now = wall_clock();
            let mut missing = Vec::new();
            let tree = self.explain_from(question, &request, now, &mut missing);
            match request.next(&mut missing) {
                Some(Err(error)) => return Err(error),
                Some(Ok(())) => request.load(&self.facts, missing.into()).await,
                None => {
                    let tracked = TrackedFacts::new(&request.facts, &self.facts, request.requirement);
                    let answer = self.try_answer(question, &request, &tracked, now, &mut Missing::default());
                    let checked = answer.unwrap_or(Err(CheckError::DeadlineExceeded))?;
                    self.metrics.worked(request.work(), started.elapsed());
                    return Ok(Explained { checked, tree, facts: request.facts });
                }
            }
        }
    }

    fn explain_from(&self, question: &Question, request: &Request, now: Millis, missing: &mut Vec<FactKey>) -> Tree {
        let tracked = TrackedFacts::new(&request.facts, &self.facts, request.requirement);
        explain(&self.schema, question, &tracked, now, missing)
    }
}
