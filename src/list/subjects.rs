//! The subjects of a type that may access a resource: candidates that the resource's facts name and that the subjects' own documents
//! lead here, each of which is checked before it is returned.
//!
//! The sets and edges of the resource are expanded once for a page (`graph`). From what they grant follow the candidates (`candidates`)
//! and whether others may, too (`bounds`). Neither decides for a single subject: the evaluator does.

mod bounds;
mod candidates;
mod grants;
mod graph;
mod listings;

use std::{
    collections::BTreeSet,
    ops::Bound,
    time::{Duration, Instant},
};

use bounds::AllBounds;
use candidates::Candidates;
use graph::Graph;

use super::{
    Everybody, ListError, ListedSubject, Lister, SubjectList, SubjectPage,
    resources::{AT_ONCE_MAX, AT_ONCE_MIN},
};
use crate::{
    check::{CheckError, Consistency, Inquiry},
    question::{Answer, Id, PermissionId, Question, RelationId, Resource, Subject, SubjectTypeId},
    schema::{Member, Owner},
    source::Deadline,
};

/// Which subjects of a type have a permission on a resource?
#[derive(Clone, Copy, Debug)]
pub(super) struct SubjectQuestion<'q> {
    pub(super) permission: PermissionId,
    pub(super) resource: &'q Resource,
    pub(super) kind: SubjectTypeId,
}

/// One page of the subjects that a question asks for.
pub(super) async fn page(
    lister: &Lister,
    question: SubjectQuestion<'_>,
    consistency: Consistency,
    page: SubjectPage,
    deadline: Deadline,
) -> Result<SubjectList, ListError> {
    let SubjectQuestion { permission, resource, kind } = question;
    let begun = (consistency, deadline);
    let mut inquiry = Inquiry::begin_for_all_subjects(&lister.checker, begun, lister.fixed_now).await?;
    let member = Member::Permission(permission);
    let source = &*lister.source;
    let graph = Graph::discover(source, &mut inquiry, (resource, member), kind).await?;
    let mut bounds = AllBounds::of(&graph).await;
    let is_within_limits = bounds.is_within_limits();
    let mut candidates = Candidates::of(&graph, &mut bounds).await;
    candidates.list(source, &mut inquiry, &graph).await?;
    let everybody = match bounds.first() {
        first if first.holds_for_all && is_within_limits => Everybody::Yes,
        first if first.may_hold_for_unnamed || candidates.are_incomplete => Everybody::WithExclusions,
        _ => Everybody::No,
    };
    let sets = candidates.sets((0, member)).into_iter();
    let sets = sets.filter_map(|(place, member)| graph.resource(place).map(|of| (of.kind, of.id.clone(), member)));
    let sets = sets.collect();
    let Progress { subjects, next, examined } = checked(&mut inquiry, question, &candidates.ids, page).await?;
    let (as_of, age) = (inquiry.as_of(), inquiry.age());
    Ok(SubjectList { subjects, everybody, sets, next, as_of, age, examined })
}

/// A page so far.
#[derive(Default)]
struct Progress {
    subjects: Vec<ListedSubject>,
    /// The id up to which all candidates were checked; none if there are no more.
    next: Option<Id>,
    /// How many subjects were checked.
    examined: u64,
}

/// Checks candidates in the order of their ids until the page is full or there are no more. Ends early if the time or the facts
/// of the request come to their end and there has been progress.
async fn checked(
    inquiry: &mut Inquiry<'_>,
    question: SubjectQuestion<'_>,
    candidates: &BTreeSet<Id>,
    page: SubjectPage,
) -> Result<Progress, ListError> {
    let mut progress = Progress::default();
    let mut slowest = Duration::ZERO;
    let from = page.after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut left = candidates.range((from, Bound::Unbounded)).peekable();
    while left.peek().is_some() {
        let is_late = inquiry.deadline().left() < slowest * 2;
        if progress.next.is_some() && (is_late || inquiry.is_full()) {
            return Ok(progress);
        }
        let began = Instant::now();
        let count = page.size.saturating_sub(progress.subjects.len()).saturating_add(1);
        let count = count.clamp(AT_ONCE_MIN, AT_ONCE_MAX);
        let questions: Vec<Question> = left.by_ref().take(count).map(|id| question.about(id.clone())).collect();
        let results = inquiry.check(&questions).await;
        for (asked, result) in questions.into_iter().zip(results) {
            let Subject::Known { id, .. } = asked.subject else { continue };
            if progress.subjects.len() >= page.size {
                return Ok(progress);
            }
            match result {
                Ok(checked) => {
                    progress.examined += 1;
                    if let Answer::Allowed { by, valid_until } = checked.answer {
                        progress.subjects.push(ListedSubject { id: id.clone(), granted_by: by, valid_until });
                    }
                    progress.next = Some(id);
                }
                Err(CheckError::DeadlineExceeded | CheckError::TooLarge) if progress.next.is_some() => {
                    return Ok(progress);
                }
                Err(error) => return Err(error.into()),
            }
        }
        slowest = slowest.max(began.elapsed());
    }
    Ok(Progress { next: None, ..progress })
}

impl SubjectQuestion<'_> {
    /// Whether one subject has the permission.
    fn about(self, id: Id) -> Question {
        let subject = Subject::Known { kind: self.kind, id };
        Question { subject, permission: self.permission, resource: self.resource.clone() }
    }
}

impl Graph<'_> {
    /// Those of some relations of subjects that are of the type.
    fn own_relations<'r>(&'r self, relations: &'r [RelationId]) -> impl Iterator<Item = RelationId> + 'r {
        relations.iter().copied().filter(|id| self.schema.relation(*id).owner == Owner::Subject(self.kind))
    }

    /// The flag that subjects of the type have among those of one name.
    fn own_flag(&self, flags: &[RelationId]) -> Option<RelationId> {
        self.own_relations(flags).next()
    }
}
