//! Pages of resources: candidates in the order of their ids, each of which is checked before it is returned.
//!
//! A page is shorter than asked for only if there are no more candidates, or with the id after which the next one begins.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    CANDIDATES_MAX, ListError, ListQuestion, ListedResource, PlanKind, ResourceList, ResourcePage, earliest,
    filter::{self, IdSet},
    listings::{self, Search},
    request::{Branch, ListRequest, Standing},
    ways::sets_in_fields,
};
use crate::{
    check::{CheckError, Checked},
    fact::id_to_bson,
    question::{Answer, Id, Millis, ResourceTypeId},
    schema::{Condition, Member, Origin, Path, Schema, Test},
};

/// How many candidates are read at once, at least and at most.
pub(super) const AT_ONCE_MIN: usize = 64;
pub(super) const AT_ONCE_MAX: usize = 1_000;

/// The page that a question asks for.
pub(super) async fn page(
    request: &mut ListRequest<'_>,
    question: &ListQuestion,
    page: ResourcePage,
) -> Result<ResourceList, ListError> {
    let mut pager = match request.standing().await? {
        Standing::Active => Pager::new(request, question, page.within).await?,
        Standing::Inactive | Standing::Indeterminate => Pager::nothing(question),
    };
    let Progress { resources, next, examined, .. } = pager.page(request, page.size, page.after).await?;
    let (as_of, age) = (request.inquiry.as_of(), request.inquiry.age());
    Ok(ResourceList { resources, next, as_of, age, examined })
}

/// All resources, if there are no more than `ids_max`.
pub(super) async fn all(
    request: &mut ListRequest<'_>,
    question: &ListQuestion,
    ids_max: usize,
) -> Result<Vec<Id>, ListError> {
    let mut pager = Pager::new(request, question, None).await?;
    let progress = pager.page(request, ids_max.saturating_add(1), None).await?;
    let Progress { resources, next, examined, is_full, may_change_at } = progress;
    let too_many = |count, max| Err(ListError::TooManyIds { relation: question.name(request.schema()), count, max });
    if resources.len() > ids_max {
        return too_many(resources.len(), ids_max);
    }
    if next.is_some() && is_full {
        let examined = usize::try_from(examined).unwrap_or(usize::MAX);
        return too_many(examined.saturating_add(1), examined);
    }
    if next.is_some() {
        return Err(CheckError::DeadlineExceeded.into());
    }
    request.limit(may_change_at);
    Ok(resources.into_iter().map(|resource| resource.id).collect())
}

/// Where the candidates of a question come from.
struct Pager<'q> {
    question: &'q ListQuestion,
    /// The query on the resources' own documents; none if it finds nothing, or if they have none.
    own: Option<Search>,
    /// Candidates from elsewhere, sorted.
    ids: Vec<Id>,
    /// Candidates from elsewhere that are read page by page.
    unread: Vec<Search>,
    /// The condition of the caller.
    within: Option<Condition>,
}

/// A page so far.
#[derive(Default)]
struct Progress {
    resources: Vec<ListedResource>,
    /// The id up to which all candidates were examined; none if there are no more.
    next: Option<Id>,
    examined: u64,
    /// Whether it ended early because the request may use no more facts.
    is_full: bool,
    /// The earliest time at which the answer about one of those that were examined may change.
    may_change_at: Option<Millis>,
}

/// Candidates in the order of their ids.
struct Batch {
    ids: Vec<Id>,
    /// The id up to which all candidates were read; none if there are no more.
    read_to: Option<Id>,
}

impl<'q> Pager<'q> {
    /// Finds nothing.
    fn nothing(question: &'q ListQuestion) -> Self {
        Self { question, own: None, ids: Vec::new(), unread: Vec::new(), within: None }
    }

    /// Finds out where the candidates of a question are.
    async fn new(
        request: &mut ListRequest<'_>,
        question: &'q ListQuestion,
        within: Option<Condition>,
    ) -> Result<Self, ListError> {
        let schema = request.schema();
        let has_documents = schema.resource(question.kind).document.is_some();
        let (branches, own) = if has_documents {
            let (elsewhere, id_sets) = split(schema, question, request.required_id_sets(question).await?);
            request.learn_id_sets(&id_sets, CANDIDATES_MAX).await?;
            let branches = request.branches(&elsewhere).await?;
            let branches = elsewhere.into_iter().zip(branches).filter_map(|(set, branch)| Some((set, branch?)));
            let (sets, branches): (Vec<IdSet>, Vec<Branch>) = branches.unzip();
            // What a branch leads to does not have to be found by the query, too.
            request.known.id_sets.extend(sets.into_iter().map(|set| (set, Vec::new())));
            let filter = filter::compile(schema, question, &request.known, request.inquiry.now())?;
            let is_nothing = filter.kind == PlanKind::None;
            let conditions = [filter.condition].into_iter().chain(within.clone()).collect();
            (branches, Search::of_resources(schema, question.kind, conditions).filter(|_| !is_nothing))
        } else if within.is_some() {
            return Err(ListError::NoCollection(question.kind));
        } else {
            let set = IdSet::of(question.kind, Member::Permission(question.permission));
            let branch = request.branches(&[set]).await?.pop().flatten();
            let branch = branch.ok_or_else(|| not_narrowable(schema, question))?;
            (vec![branch], None)
        };
        let mut ids: Vec<Id> = branches.iter().flat_map(|branch| branch.ids.iter().cloned()).collect();
        ids.sort_unstable();
        ids.dedup();
        let unread = branches.into_iter().flat_map(|branch| branch.unread).collect();
        Ok(Self { question, own, ids, unread, within })
    }

    /// Reads candidates and checks them until the page is full or there are no more. Ends early if the time or the facts of the request
    /// come to their end and there has been progress.
    async fn page(
        &mut self,
        request: &mut ListRequest<'_>,
        size: usize,
        mut after: Option<Id>,
    ) -> Result<Progress, ListError> {
        let mut progress = Progress::default();
        let mut slowest = Duration::ZERO;
        loop {
            let began = Instant::now();
            let limit = size.saturating_sub(progress.resources.len()).saturating_add(1);
            let batch = self.batch(request, after.as_ref(), limit.clamp(AT_ONCE_MIN, AT_ONCE_MAX)).await;
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return progress.despite(error),
            };
            let questions = request.questions(self.question.permission, self.question.kind, batch.ids.iter().cloned());
            let results = request.inquiry.check(&questions).await;
            for (id, result) in batch.ids.into_iter().zip(results) {
                if progress.resources.len() >= size {
                    return Ok(progress);
                }
                match result {
                    Ok(checked) => progress.add(id, checked),
                    Err(error) => return progress.despite(error.into()),
                }
            }
            progress.next.clone_from(&batch.read_to);
            if batch.read_to.is_none() {
                return Ok(progress);
            }
            after = batch.read_to;
            slowest = slowest.max(began.elapsed());
            progress.is_full = request.inquiry.is_full();
            let is_late = request.inquiry.deadline().left() < slowest * 2;
            if progress.resources.len() >= size || is_late || progress.is_full {
                return Ok(progress);
            }
        }
    }

    /// Reads the next candidates.
    async fn batch(&self, request: &mut ListRequest<'_>, after: Option<&Id>, limit: usize) -> Result<Batch, ListError> {
        let source = &*request.lister.source;
        let all = self.own.iter().chain(&self.unread).map(|search| search.listing(after, limit));
        let listed = listings::read_all(source, &mut request.inquiry, all).await?;
        let from = self.ids.partition_point(|id| after.is_some_and(|after| id <= after));
        let known = self.ids.get(from..).unwrap_or_default();
        // All candidates up to this id were read.
        let mut read_to = known.get(limit.saturating_sub(1)).filter(|_| known.len() > limit).cloned();
        for listed in listed.iter().filter(|listed| !listed.is_complete) {
            let last = listed.ids.last().ok_or(CheckError::DeadlineExceeded)?;
            if read_to.as_ref().is_none_or(|read_to| last < read_to) {
                read_to = Some(last.clone());
            }
        }
        let is_read = |id: &&Id| read_to.as_ref().is_none_or(|read_to| *id <= read_to);
        let (own, others) = listed.split_at(usize::from(self.own.is_some()));
        let mut ids: BTreeSet<Id> = own.iter().flat_map(|listed| &listed.ids).filter(is_read).cloned().collect();
        let elsewhere = others.iter().flat_map(|listed| &listed.ids).chain(known.iter().take(limit)).filter(is_read);
        let elsewhere: Vec<Id> = elsewhere.filter(|id| !ids.contains(*id)).cloned().collect();
        ids.extend(self.within(request, elsewhere).await?);
        Ok(Batch { ids: ids.into_iter().collect(), read_to })
    }

    /// Those of the candidates from elsewhere that fulfil the condition of the caller.
    async fn within(&self, request: &mut ListRequest<'_>, mut ids: Vec<Id>) -> Result<Vec<Id>, ListError> {
        let Some(within) = self.within.as_ref().filter(|_| !ids.is_empty()) else { return Ok(ids) };
        ids.sort_unstable();
        ids.dedup();
        let these = Condition::Field(Path::id(), Test::In(ids.iter().map(id_to_bson).collect()));
        let search = Search::of_resources(request.schema(), self.question.kind, vec![these, within.clone()]);
        let source = &*request.lister.source;
        let all = search.iter().map(|search| search.listing(None, ids.len()));
        let listed = listings::read_all(source, &mut request.inquiry, all).await?;
        if listed.iter().any(|listed| !listed.is_complete && listed.ids.len() < ids.len()) {
            return Err(CheckError::DeadlineExceeded.into());
        }
        Ok(listed.into_iter().flat_map(|listed| listed.ids).collect())
    }
}

impl Progress {
    fn add(&mut self, id: Id, checked: Checked) {
        self.examined += 1;
        self.may_change_at = earliest(self.may_change_at, checked.may_change_at);
        match checked.answer {
            Answer::Allowed { by, valid_until } => {
                self.resources.push(ListedResource { id: id.clone(), granted_by: by, valid_until });
            }
            Answer::Denied(_) => {}
        }
        self.next = Some(id);
    }

    /// The page so far, if there has been progress and only the bounds of the request stop it.
    fn despite(self, error: ListError) -> Result<Self, ListError> {
        match error {
            ListError::Check(CheckError::DeadlineExceeded) if self.next.is_some() => Ok(self),
            ListError::Check(CheckError::TooLarge) if self.next.is_some() => Ok(Self { is_full: true, ..self }),
            error => Err(error),
        }
    }
}

/// The id sets that lead to the resources themselves, and those that a field of the resources' documents contains.
fn split(schema: &Schema, question: &ListQuestion, sets: Vec<IdSet>) -> (Vec<IdSet>, Vec<IdSet>) {
    let in_fields = sets_in_fields(schema, question.kind, question.permission);
    sets.into_iter().partition(|set| {
        let is_elsewhere = set.edge.is_some() || is_elsewhere(schema, question.kind, *set);
        is_elsewhere && !in_fields.contains(set)
    })
}

/// Whether a set of the resources' own type is read from elsewhere than their own documents.
fn is_elsewhere(schema: &Schema, kind: ResourceTypeId, set: IdSet) -> bool {
    let Member::Relation(relation) = set.member else { return false };
    set.kind == kind
        && match schema.relation(relation).origin {
            Origin::Subject(_) => true,
            Origin::Documents(lookup) => schema.resource(kind).document != Some(lookup),
        }
}

fn not_narrowable(schema: &Schema, question: &ListQuestion) -> ListError {
    let part = question.name(schema);
    let remedy = "Name by a relation or an edge who has the permission, and exclude with `!` only some of these.";
    ListError::NotNarrowable { part, remedy: remedy.to_owned() }
}
