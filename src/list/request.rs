//! One list request: what it knows of the subject, and the id sets that it has computed.
//!
//! Every id of an id set was checked in this request. Does not compile filters.

use std::collections::BTreeSet;

use super::{
    Asker, ListError, ListQuestion, Lister,
    candidates::{Finder, Found},
    earliest,
    filter::{self, FlagValue, IdSet, Known},
    listings::Search,
    ways::{self, Flags, Ways},
};
use crate::{
    check::{CheckError, Checked, Consistency, Inquiry},
    evaluate::{OfSubject, SubjectValue},
    question::{Answer, Id, Millis, PermissionId, Question, RelationId, Resource, ResourceTypeId},
    schema::Schema,
    source::Deadline,
};

/// The state of one list request.
pub(super) struct ListRequest<'a> {
    pub(super) lister: &'a Lister,
    pub(super) inquiry: Inquiry<'a>,
    pub(super) asker: &'a Asker,
    pub(super) known: Known,
    /// The earliest time at which something that was used may change although no document does.
    pub(super) valid_until: Option<Millis>,
}

/// Whether a subject may be allowed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It passes the gate of its type.
    Active,
    /// It has no document, or its document fails the condition of its type.
    Inactive,
    /// Its document has a value of a wrong type.
    Indeterminate,
}

/// Candidates of one set, of which some may be unread.
pub(super) struct Branch {
    /// Sorted.
    pub(super) ids: Vec<Id>,
    pub(super) unread: Vec<Search>,
}

impl<'a> ListRequest<'a> {
    /// Begins a request.
    pub(super) async fn begin(
        lister: &'a Lister,
        asker: &'a Asker,
        consistency: Consistency,
        deadline: Deadline,
    ) -> Result<Self, ListError> {
        let subjects = std::slice::from_ref(&asker.subject);
        let inquiry = Inquiry::begin(&lister.checker, subjects, (consistency, deadline), lister.fixed_now).await?;
        Ok(Self { lister, inquiry, asker, known: Known::default(), valid_until: None })
    }

    pub(super) fn schema(&self) -> &'a Schema {
        self.inquiry.schema()
    }

    /// Whether the subject may be allowed anything.
    pub(super) async fn standing(&mut self) -> Result<Standing, ListError> {
        let SubjectValue { holds, valid_until } =
            self.inquiry.ask_of_subject(&self.asker.subject, OfSubject::Gate).await?;
        self.limit(valid_until);
        Ok(match holds {
            Some(true) => Standing::Active,
            Some(false) => Standing::Inactive,
            None => Standing::Indeterminate,
        })
    }

    /// Learns whether the subject has these flags.
    pub(super) async fn learn_flags(&mut self, flags: &[RelationId]) -> Result<(), ListError> {
        for flag in flags {
            if self.known.flags.contains_key(flag) {
                continue;
            }
            let asked = OfSubject::Flag { flags: std::slice::from_ref(flag), is_negated: true };
            let SubjectValue { holds, valid_until } = self.inquiry.ask_of_subject(&self.asker.subject, asked).await?;
            self.limit(valid_until);
            let value = match holds {
                Some(true) => FlagValue::Holds,
                Some(false) => FlagValue::Fails,
                None => FlagValue::Indeterminate,
            };
            self.known.flags.insert(*flag, value);
        }
        Ok(())
    }

    /// The id sets that the filter for a question requires, once the flags of the subject are known.
    pub(super) async fn required_id_sets(&mut self, question: &ListQuestion) -> Result<Vec<IdSet>, ListError> {
        let first = filter::required(self.schema(), question, &self.known);
        if first.flags.is_empty() {
            return Ok(first.id_sets);
        }
        self.learn_flags(&first.flags).await?;
        Ok(filter::required(self.schema(), question, &self.known).id_sets)
    }

    /// Computes id sets, and leaves out those that nothing narrows down.
    ///
    /// # Errors
    /// [`ListError::TooManyIds`] if one of them has more than `ids_max` ids.
    pub(super) async fn learn_id_sets(&mut self, sets: &[IdSet], ids_max: usize) -> Result<(), ListError> {
        let ways = self.ways(sets).await?;
        let mut found = self.find(&ways, &[]).await?;
        let schema = self.schema();
        let mut places = Vec::new();
        let mut questions = Vec::new();
        for (set, place) in sets.iter().zip(&ways.roots) {
            let Some(permission) = set.permission(schema).filter(|_| !ways.is_everything(*place)) else {
                continue;
            };
            let ids = found.get_mut(*place).map(|found| found.ids.iter().cloned()).into_iter().flatten();
            let before = questions.len();
            questions.extend(self.questions(permission, set.kind, ids));
            places.push((*set, questions.len() - before));
        }
        let results = self.inquiry.check(&questions).await;
        let mut checked = questions.into_iter().zip(results);
        for (set, count) in places {
            let too_many = |count: usize, max| ListError::TooManyIds { relation: set.name(schema), count, max };
            let ids = self.allowed(checked.by_ref().take(count)).map_err(|error| match error {
                // The request may not use as many facts as it takes to check all of them.
                ListError::Check(CheckError::TooLarge) => too_many(count, count.saturating_sub(1)),
                error => error,
            })?;
            if ids.len() > ids_max {
                return Err(too_many(ids.len(), ids_max));
            }
            self.known.id_sets.insert(set, ids);
        }
        Ok(())
    }

    /// The candidates of sets, each of which is all that leads to its resources: unread where they are not in facts. None for a set
    /// that nothing narrows down.
    pub(super) async fn branches(&mut self, sets: &[IdSet]) -> Result<Vec<Option<Branch>>, ListError> {
        let ways = self.ways(sets).await?;
        let may_stay_unread = ways.dead_ends();
        let found = self.find(&ways, &may_stay_unread).await?;
        let branches = ways.roots.iter().map(|root| {
            let same = ways.same_as(*root);
            let found = || same.iter().filter_map(|place| found.get(*place));
            let ids: BTreeSet<&Id> = found().flat_map(|found| &found.ids).collect();
            let unread = found().flat_map(|found| found.unread.iter().cloned()).collect();
            (!ways.is_everything(*root)).then(|| Branch { ids: ids.into_iter().cloned().collect(), unread })
        });
        Ok(branches.collect())
    }

    async fn ways(&mut self, sets: &[IdSet]) -> Result<Ways, ListError> {
        let (schema, subject) = (self.schema(), &self.asker.subject);
        self.learn_flags(&ways::flags(schema, subject, sets)).await?;
        let flags: &Flags = &self.known.flags;
        Ok(Ways::new(schema, subject, flags, sets))
    }

    async fn find(&mut self, ways: &Ways, may_stay_unread: &[bool]) -> Result<Vec<Found>, ListError> {
        let (source, asker) = (&*self.lister.source, self.asker);
        let mut finder = Finder {
            source,
            inquiry: &mut self.inquiry,
            asker,
            ways,
            may_stay_unread,
            begins_at: None,
            searches_count: 0,
        };
        let found = finder.find().await?;
        let begins_at = finder.begins_at;
        self.limit(begins_at);
        Ok(found)
    }

    /// Asks whether the subject has a permission on resources of one type.
    pub(super) fn questions(
        &self,
        permission: PermissionId,
        kind: ResourceTypeId,
        ids: impl IntoIterator<Item = Id>,
    ) -> Vec<Question> {
        let subject = &self.asker.subject;
        let question = |id| Question { subject: subject.clone(), permission, resource: Resource { kind, id } };
        ids.into_iter().map(question).collect()
    }

    /// The resources that are surely allowed, sorted. An error of one of them is an error of all.
    fn allowed(
        &mut self,
        checked: impl Iterator<Item = (Question, Result<Checked, CheckError>)>,
    ) -> Result<Vec<Id>, ListError> {
        let mut ids = Vec::new();
        for (question, result) in checked {
            let checked = result?;
            self.limit(checked.may_change_at);
            match checked.answer {
                Answer::Allowed { .. } => ids.push(question.resource.id),
                Answer::Denied(_) => {}
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Notes that something that was used may change at a time.
    pub(super) fn limit(&mut self, until: Option<Millis>) {
        self.valid_until = earliest(self.valid_until, until);
    }
}
