//! Listings: what is read from the source each time, because no fact contains it.
//!
//! Decides nothing: what is listed are candidates.

use bson::Bson;
use futures::future::join_all;

use super::{Asker, ListError};
use crate::{
    check::{CheckError, Inquiry},
    fact::{id_values, key_values, text_value},
    question::{Id, IdForm, RelationId, ResourceTypeId, Subject},
    schema::{Condition, Format, Lookup, Owner, Path, Schema, Target, Test},
    source::{Listed, Listing, Source, SourceError},
};

/// How many values one listing searches for at most. MongoDB merges the index scans of up to 200 values in the order of the ids; of more, it
/// sorts all that they bring.
pub(super) const VALUES_MAX: usize = 200;

/// The remedy if a search lacks the secret that documents contain.
pub(super) const NO_SECRET: &str = "A query needs the secret itself.";

/// What is searched for, without the bounds of one listing.
#[derive(Clone)]
pub(super) struct Search {
    /// A listing from the first id on, without a limit.
    listing: Listing,
}

impl Search {
    /// The resources whose documents lead to one of these values by a relation.
    pub(super) fn by_values(schema: &Schema, relation: RelationId, values: &[Bson]) -> Vec<Self> {
        let chunks = values.chunks(VALUES_MAX);
        chunks.filter_map(|values| Self::by_relation(schema, relation, Some(values.to_vec()))).collect()
    }

    /// The resources that have a flag.
    pub(super) fn by_flag(schema: &Schema, flag: RelationId) -> Option<Self> {
        Self::by_relation(schema, flag, None)
    }

    fn by_relation(schema: &Schema, id: RelationId, values: Option<Vec<Bson>>) -> Option<Self> {
        let relation = schema.relation(id);
        let (Owner::Resource(kind), Some(lookup)) = (relation.owner, relation.lookup()) else { return None };
        let resource = schema.resource(kind);
        let is_own = resource.document == Some(lookup);
        let gate = resource.gate.filter(|_| is_own).and_then(|gate| schema.relation(gate).condition.clone());
        let lookup = schema.lookup(lookup);
        let field = relation.ids.as_ref().map(|ids| relation.path_in_document(&ids.field));
        let named = values.zip(field).map(|(values, field)| Condition::Field(field, Test::In(values)));
        let conditions = named.into_iter().chain(relation.condition_of_document().cloned()).chain(gate);
        Some(Self::of_keys(lookup, conditions.collect(), resource.id))
    }

    /// The resources to which a relation of the subject leads.
    pub(super) fn of_subject(schema: &Schema, id: RelationId, subject: &Id) -> Option<Self> {
        let relation = schema.relation(id);
        let (ids, lookup) = (relation.ids.as_ref()?, schema.lookup(relation.lookup()?));
        let kind = ids.targets.iter().find_map(|target| match target {
            Target::Resource(kind) => Some(*kind),
            Target::Subject(_) | Target::Set(..) => None,
        })?;
        let named = Condition::Field(lookup.by.clone(), Test::In(key_values(lookup, subject)));
        let conditions = [named].into_iter().chain(relation.condition_of_document().cloned()).collect();
        let format = (schema.resource(kind).id, ids.format.clone());
        Some(Self::new(lookup, conditions, relation.path_in_document(&ids.field), format))
    }

    /// The resources of a type with documents of their own that a query finds.
    pub(super) fn of_resources(schema: &Schema, kind: ResourceTypeId, conditions: Vec<Condition>) -> Option<Self> {
        let resource = schema.resource(kind);
        let lookup = schema.lookup(resource.document?);
        let search = Self::new(lookup, conditions, lookup.by.clone(), (resource.id, None));
        Some(Self { listing: Listing { indexed_only: false, ..search.listing } })
    }

    /// The ids by which a lookup finds documents under some conditions.
    pub(super) fn of_keys(lookup: &Lookup, conditions: Vec<Condition>, form: IdForm) -> Self {
        let format = lookup.text_keys.as_ref().map(|keys| keys.format.clone());
        Self::new(lookup, conditions, lookup.by.clone(), (form, format))
    }

    /// The ids in a field of the documents that a lookup finds under some conditions.
    pub(super) fn new(
        lookup: &Lookup,
        conditions: Vec<Condition>,
        field: Path,
        (form, format): (IdForm, Option<Format>),
    ) -> Self {
        let (collection, condition) = (lookup.collection_id, Condition::all(conditions));
        let listing = Listing { collection, condition, field, form, format, after: None, limit: 0, indexed_only: true };
        Self { listing }
    }

    /// At most `limit` ids, after one id.
    pub(super) fn listing(&self, after: Option<&Id>, limit: usize) -> Listing {
        Listing { after: after.cloned(), limit, ..self.listing.clone() }
    }

    /// Whether ids come in the order of ids. Texts with something around the id have another order.
    pub(super) fn is_in_order(&self) -> bool {
        self.listing.format.is_none()
    }
}

/// Reads listings at once. None for one that would have to read more than is allowed.
pub(super) async fn read(
    source: &dyn Source,
    inquiry: &mut Inquiry<'_>,
    listings: impl IntoIterator<Item = Listing>,
) -> Result<Vec<Option<Listed>>, ListError> {
    let (moment, deadline) = (inquiry.moment(), inquiry.deadline());
    let results = join_all(listings.into_iter().map(|listing| source.list(listing, moment, deadline))).await;
    if !inquiry.is_in_its_epoch() {
        return Err(CheckError::Unavailable(SourceError::BrokenOff).into());
    }
    let one = |result: Result<Listed, SourceError>| match result {
        Ok(listed) => {
            inquiry.add_read_at(listed.stamp);
            Ok(Some(listed))
        }
        Err(SourceError::TooMuch) => Ok(None),
        Err(SourceError::NoIndex { collection, command }) => Err(ListError::NoIndex { collection, command }),
        Err(SourceError::TimedOut | SourceError::BrokenOff) if deadline.is_all_but_over() => {
            Err(CheckError::DeadlineExceeded.into())
        }
        Err(error) => Err(CheckError::Unavailable(error).into()),
    };
    results.into_iter().map(one).collect()
}

/// Reads listings at once, each as a whole.
pub(super) async fn read_all(
    source: &dyn Source,
    inquiry: &mut Inquiry<'_>,
    listings: impl IntoIterator<Item = Listing>,
) -> Result<Vec<Listed>, ListError> {
    let listed = read(source, inquiry, listings).await?;
    Ok(listed.into_iter().collect::<Option<Vec<_>>>().ok_or(CheckError::TooLarge)?)
}

/// The values by which documents name the asking subject in a relation, or everybody.
///
/// # Errors
/// [`ListError::NotNarrowable`] if the subject is named by a secret that the request lacks: no document contains its digest.
pub(super) fn values_of_asker(schema: &Schema, id: RelationId, asker: &Asker) -> Result<Vec<Bson>, ListError> {
    let Some(ids) = &schema.relation(id).ids else { return Ok(Vec::new()) };
    let text = |text: &str| text_value(ids.format.as_ref(), text);
    let mut values = match (&asker.secret, &asker.subject) {
        (Some(secret), _) => vec![text(secret.text())],
        (None, Subject::Known { id: Id::Digest(_), .. }) => {
            return Err(ListError::NotNarrowable { part: schema.relation_name(id), remedy: NO_SECRET.to_owned() });
        }
        (None, Subject::Known { id, .. }) => values_of(ids.format.as_ref(), std::slice::from_ref(id)),
        (None, Subject::Anonymous) => Vec::new(),
    };
    if ids.wildcard {
        values.push(text("*"));
    }
    Ok(values)
}

/// The values by which documents name these ids in a relation.
pub(super) fn values_by(schema: &Schema, relation: RelationId, ids: &[Id]) -> Vec<Bson> {
    let format = schema.relation(relation).ids.as_ref().and_then(|ids| ids.format.as_ref());
    values_of(format, ids)
}

/// The values by which documents name these ids.
pub(super) fn values_of(format: Option<&Format>, ids: &[Id]) -> Vec<Bson> {
    ids.iter().flat_map(|id| id_values(format, id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Member;

    const SCHEMA: &str = r#"
default_subject = "user"
[subject.user]
id = "integer"
[resource.file]
id = "integer"
collection = "files"
[resource.file.relations]
guest = { collection = "shares", by = "file", field = "user" }
[resource.file.permissions]
read = "guest"
"#;

    #[test]
    fn a_search_has_a_bounded_number_of_values() {
        let schema = Schema::parse("schema.toml", SCHEMA).unwrap();
        let (_, file) = schema.resources().next().unwrap();
        let Member::Relation(guest) = file.members["guest"] else { panic!("a relation") };
        for (count, expected) in [(0, vec![]), (1, vec![1]), (200, vec![200]), (401, vec![200, 200, 1])] {
            let values: Vec<Bson> = (0..count).map(Bson::Int64).collect();
            let searches = Search::by_values(&schema, guest, &values);
            let of_search = |search: &Search| match &search.listing.condition {
                Condition::Field(_, Test::In(values)) => values.clone(),
                other => panic!("{:?}", other.to_query()),
            };
            assert_eq!(searches.iter().flat_map(of_search).collect::<Vec<_>>(), values);
            assert_eq!(searches.iter().map(|search| of_search(search).len()).collect::<Vec<_>>(), expected);
        }
    }
}
