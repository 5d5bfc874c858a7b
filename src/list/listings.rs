//! Listings: what is read from the source each time, because no fact contains it.
//!
//! Decides nothing: what is listed are candidates.

use bson::Bson;

use super::{Asker, ListError};
use crate::{
    check::{CheckError, Inquiry},
    fact::{id_to_bson, key_values},
    question::{Id, RelationId, ResourceTypeId, Subject},
    schema::{Condition, Format, Lookup, Owner, Path, Relation, Schema, Test},
    source::{Listed, Listing, ListingError, Source, SourceError},
};

/// What is searched for, without the bounds of one listing.
#[derive(Clone)]
pub(super) struct Search {
    /// A listing from the first id on, without a limit.
    listing: Listing,
}

impl Search {
    /// The resources whose documents lead to one of these values by a relation, or all that have the flag.
    pub(super) fn by_relation(schema: &Schema, id: RelationId, values: Option<Vec<Bson>>) -> Option<Self> {
        let relation = schema.relation(id);
        let (Owner::Resource(kind), Some(lookup)) = (relation.owner, relation.lookup()) else { return None };
        let resource = schema.resource(kind);
        let is_own = resource.document == Some(lookup);
        let gate = resource.gate.filter(|_| is_own).and_then(|gate| schema.relation(gate).condition.clone());
        let lookup = schema.lookup(lookup);
        let field = relation.ids.as_ref().map(|ids| field(relation, &ids.field));
        let named = values.zip(field).map(|(values, field)| Condition::Field(field, Test::In(values)));
        let conditions = named.into_iter().chain(of_document(relation).cloned()).chain(gate);
        let format = lookup.text_keys.as_ref().map(|keys| keys.format.clone());
        Some(Self::new(lookup, conditions.collect(), lookup.by.clone(), (resource.id, format)))
    }

    /// The resources to which a relation of the subject leads.
    pub(super) fn of_subject(schema: &Schema, id: RelationId, subject: &Id) -> Option<Self> {
        let relation = schema.relation(id);
        let (ids, lookup) = (relation.ids.as_ref()?, schema.lookup(relation.lookup()?));
        let kind = ids.targets.iter().find_map(|target| match target {
            crate::schema::Target::Resource(kind) => Some(*kind),
            crate::schema::Target::Subject(_) | crate::schema::Target::Set(..) => None,
        })?;
        let named = Condition::Field(lookup.by.clone(), Test::In(key_values(lookup, subject)));
        let conditions = [named].into_iter().chain(of_document(relation).cloned()).collect();
        let format = (schema.resource(kind).id, ids.format.clone());
        Some(Self::new(lookup, conditions, field(relation, &ids.field), format))
    }

    /// The resources of a type with documents of their own that a query finds.
    pub(super) fn of_resources(schema: &Schema, kind: ResourceTypeId, conditions: Vec<Condition>) -> Option<Self> {
        let resource = schema.resource(kind);
        let lookup = schema.lookup(resource.document?);
        let search = Self::new(lookup, conditions, lookup.by.clone(), (resource.id, None));
        Some(Self { listing: Listing { indexed_only: false, ..search.listing } })
    }

    fn new(
        lookup: &Lookup,
        conditions: Vec<Condition>,
        field: Path,
        (form, format): (crate::question::IdForm, Option<Format>),
    ) -> Self {
        let listing = Listing {
            collection: lookup.collection_id,
            condition: joined(conditions),
            field,
            form,
            format,
            after: None,
            limit: 0,
            indexed_only: true,
        };
        Self { listing }
    }

    /// Whether ids come in the order of ids. Texts with something around the id have another order.
    pub(super) fn is_in_order(&self) -> bool {
        self.listing.format.is_none()
    }
}

/// Reads listings at once: at most `limit` ids of each, after one id.
pub(super) async fn read(
    source: &dyn Source,
    inquiry: &mut Inquiry<'_>,
    searches: &[Search],
    after: Option<&Id>,
    limit: usize,
) -> Result<Vec<Listed>, ListError> {
    let (moment, deadline) = (inquiry.moment(), inquiry.deadline());
    let epoch = inquiry.epoch();
    let reads = searches.iter().map(|search| {
        let listing = Listing { after: after.cloned(), limit, ..search.listing.clone() };
        source.list(listing, moment, deadline)
    });
    let results = futures::future::join_all(reads).await;
    if epoch != inquiry.epoch() {
        return Err(CheckError::Unavailable(SourceError::BrokenOff).into());
    }
    let mut listed = Vec::with_capacity(results.len());
    for result in results {
        let one = result.map_err(|error| refused(error, inquiry))?;
        inquiry.add_read_at(one.stamp);
        listed.push(one);
    }
    Ok(listed)
}

pub(super) fn refused(error: ListingError, inquiry: &Inquiry<'_>) -> ListError {
    match error {
        ListingError::NoIndex { collection, command } => ListError::NoIndex { collection, command },
        ListingError::Source(SourceError::TimedOut | SourceError::BrokenOff)
            if inquiry.deadline().is_all_but_over() =>
        {
            CheckError::DeadlineExceeded.into()
        }
        ListingError::Source(SourceError::TooMuch) => CheckError::TooLarge.into(),
        ListingError::Source(error) => CheckError::Unavailable(error).into(),
    }
}

/// The values by which documents name the asking subject in a relation, or everybody.
pub(super) fn values_of_asker(schema: &Schema, id: RelationId, asker: &Asker) -> Vec<Bson> {
    let Some(ids) = &schema.relation(id).ids else { return Vec::new() };
    let text =
        |text: &str| Bson::String(ids.format.as_ref().map_or_else(|| text.to_owned(), |format| format.text(text)));
    let mut values = match (&asker.secret, &asker.subject) {
        (Some(secret), _) => vec![text(secret.text())],
        (None, Subject::Known { id, .. }) => values_of(ids.format.as_ref(), std::slice::from_ref(id)),
        (None, Subject::Anonymous) => Vec::new(),
    };
    if ids.wildcard {
        values.push(text("*"));
    }
    values
}

/// The values by which documents name these ids in a relation.
pub(super) fn values_by(schema: &Schema, relation: RelationId, ids: &[Id]) -> Vec<Bson> {
    let format = schema.relation(relation).ids.as_ref().and_then(|ids| ids.format.as_ref());
    values_of(format, ids)
}

pub(super) fn values_of(format: Option<&Format>, ids: &[Id]) -> Vec<Bson> {
    let Some(format) = format else { return ids.iter().map(id_to_bson).collect() };
    let texts = ids.iter().flat_map(|id| {
        let plain = id.to_string();
        let upper = matches!(id, Id::ObjectId(_) | Id::Uuid(_)).then(|| plain.to_ascii_uppercase());
        [Some(plain), upper].into_iter().flatten().map(|plain| Bson::String(format.text(&plain)))
    });
    texts.collect()
}

/// The field of a relation's ids in its documents.
pub(super) fn field(relation: &Relation, ids: &Path) -> Path {
    relation.each.as_ref().map_or_else(|| ids.clone(), |each| each.join(ids))
}

/// What the whole document must fulfil for the relation.
pub(super) fn of_document(relation: &Relation) -> Option<&Condition> {
    if relation.each.is_some() { relation.document_condition.as_ref() } else { relation.condition.as_ref() }
}

/// All of the conditions.
pub(super) fn joined(mut conditions: Vec<Condition>) -> Condition {
    match conditions.pop() {
        Some(only) if conditions.is_empty() => only,
        Some(last) => {
            conditions.push(last);
            Condition::And(conditions)
        }
        None => Condition::And(conditions),
    }
}
