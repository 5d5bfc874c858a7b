//! `stale_if_error`: answers from older cached facts while the source does not answer, for the permissions whose schema
//! allows it.

use super::{CheckError, Checked, Checker, Consistency, RequestFacts, tracked_facts::TrackedFacts};
use crate::{
    evaluate::{Verdict, evaluate},
    facts::FreshnessRequirement,
    freshness::LocalTime,
    question::{Millis, Question},
    source::SourceError,
};

impl Checker {
    /// An answer from cached facts that are older than the bound. None unless the permission allows it, the request asks for
    /// nothing stricter than the default, and the error means that the source is not answering.
    pub(super) fn stale_answer(
        &self,
        question: &Question,
        consistency: Consistency,
        arrived: LocalTime,
        now: Millis,
        error: &CheckError,
    ) -> Option<Checked> {
        let age_max = self.schema.permission(question.permission).stale_if_error?;
        let is_outage = match error {
            // A load of another request that broke off is no outage.
            CheckError::Unavailable(SourceError::BrokenOff) => false,
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
        let requirement = FreshnessRequirement { as_of, stamp: self.freshness.subject_mark(&question.subject) };
        let facts = RequestFacts::new(self.schema.lookup_count());
        let tracked = TrackedFacts::new(&facts, &self.facts, requirement);
        match evaluate(&self.schema, question, &tracked, now, &mut Vec::new()) {
            Verdict::Decided(answer) => Some(Checked { is_stale: true, ..self.checked(answer, &tracked, arrived) }),
            Verdict::Missing => None,
        }
    }
}
