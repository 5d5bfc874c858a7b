//! `stale_if_error`: answers from older cached facts while the source does not answer, for the permissions whose schema
//! allows it.

use super::{CheckError, Checked, Checker, Consistency, RequestFacts, tracked_facts::TrackedFacts};
use crate::{
    evaluate::{DEPTH_MAX, Verdict, evaluate},
    fact::{Fact, FactKey},
    facts::{CachedFact, FreshnessRequirement},
    freshness::LocalTime,
    question::{Millis, Question, Subject},
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
        let mut facts = RequestFacts::default();
        // Each round may reach facts that are one edge farther.
        for _ in 0..=DEPTH_MAX {
            let tracked = TrackedFacts::new(&facts, &self.facts, requirement);
            let mut missing = Vec::new();
            if let Verdict::Decided(answer) = evaluate(&self.schema, question, &tracked, now, &mut missing) {
                let seen = tracked.seen();
                let age = self.freshness.age(seen.oldest, arrived);
                return Some(Checked { is_stale: true, ..self.checked(answer, seen, age) });
            }
            let stand_ins: Vec<_> =
                missing.iter().filter_map(|key| self.stand_in(key, &question.subject, requirement)).collect();
            if stand_ins.is_empty() || facts.is_full() {
                return None;
            }
            for fact in stand_ins {
                facts.insert(fact);
            }
        }
        None
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
