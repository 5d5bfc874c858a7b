//! Plans: the query that an application combines with its own.
//!
//! A plan that cannot be computed is an error, never a query that finds everything.

use bson::Document;

use super::{
    ListError, ListQuestion, Note, Plan, PlanKind, PlanOptions,
    filter::{self, FILTER_BYTES_MAX, Filter, MANY_VALUES},
    request::{ListRequest, Standing},
    resources,
};
use crate::{
    fact::id_to_bson,
    question::{Id, Millis},
    schema::{Condition, Path, Test},
};

/// The plan for a question.
pub(super) async fn plan(
    request: &mut ListRequest<'_>,
    question: &ListQuestion,
    options: &PlanOptions,
) -> Result<Plan, ListError> {
    let has_documents = request.schema().resource(question.kind).document.is_some();
    if !has_documents && options.reference.is_none() {
        return Err(ListError::NoCollection(question.kind));
    }
    let filter = match (request.standing().await?, &options.reference) {
        (Standing::Inactive, _) => Filter { notes: vec![Note::SubjectInactive], ..Filter::nothing() },
        (Standing::Indeterminate, _) => Filter::nothing(),
        (Standing::Active, None) => filter(request, question, options.ids_max).await?,
        (Standing::Active, Some(reference)) => by_reference(request, question, reference, options.ids_max).await?,
    };
    finish(request, filter)
}

/// The filter on the resources' own documents.
async fn filter(request: &mut ListRequest<'_>, question: &ListQuestion, ids_max: usize) -> Result<Filter, ListError> {
    let id_sets = request.required_id_sets(question).await?;
    request.learn_id_sets(&id_sets, ids_max).await?;
    filter::compile(request.schema(), question, &request.known, request.inquiry.now())
}

/// The filter on another collection, by a field that contains the ids of the resources.
async fn by_reference(
    request: &mut ListRequest<'_>,
    question: &ListQuestion,
    reference: &Path,
    ids_max: usize,
) -> Result<Filter, ListError> {
    let ids = resources::all(request, question, ids_max).await?;
    if ids.is_empty() {
        return Ok(Filter::nothing());
    }
    let name = || question.name(request.schema());
    if ids.iter().map(Id::size).sum::<usize>() > FILTER_BYTES_MAX {
        return Err(ListError::TooManyIds { relation: name(), count: ids.len(), max: ids_max });
    }
    let is_many = ids.len() > MANY_VALUES;
    let notes = is_many.then(|| Note::ManyValues { branch: name(), count: ids.len() }).into_iter().collect();
    let condition = Condition::Field(reference.clone(), Test::In(ids.iter().map(id_to_bson).collect()));
    Ok(Filter { kind: PlanKind::Exact, condition, compares_times: false, ids: ids.len(), notes })
}

/// The plan of a filter.
fn finish(request: &mut ListRequest<'_>, filter: Filter) -> Result<Plan, ListError> {
    let Filter { kind, condition, compares_times, ids, notes } = filter;
    let now = request.inquiry.now();
    if compares_times {
        let staleness_max = request.lister.checker.staleness_max.as_millis();
        let until = now.saturating_add(Millis::try_from(staleness_max).unwrap_or(Millis::MAX));
        request.limit(Some(until));
    }
    let filter = match kind {
        PlanKind::All => Document::new(),
        PlanKind::None | PlanKind::Exact | PlanKind::Superset => condition.to_query(),
    };
    // The client of a plan may take an empty query for one that is not there.
    if filter.is_empty() && kind != PlanKind::All {
        let part = "the filter is empty although not everything is allowed".to_owned();
        return Err(ListError::NotNarrowable { part, remedy: "This is a bug: check each resource.".to_owned() });
    }
    let (valid_until, as_of, age) = (request.valid_until, request.inquiry.as_of(), request.inquiry.age());
    Ok(Plan { kind, filter, now, valid_until, as_of, age, ids, notes })
}
