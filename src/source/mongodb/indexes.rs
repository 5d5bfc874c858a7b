//! Which queries of lists an index serves, as of a short time ago. A list that no index serves reads a whole collection each time, so
//! it is refused unless the collection is small.
//!
//! Creates no index. Lookups of checks are not refused: `inspect` reports those without an index at the start.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;
use mongodb::{Database, IndexModel};
use tokio::time::timeout_at;

use super::{
    DriverError, MongoDb,
    finding::{Finding, SIMPLE},
    primary,
};
use crate::{
    moment::Moment,
    question::CollectionId,
    schema::{Condition, Element, Finds, Lookup, Path, Test},
    source::{Deadline, Listing, SourceError},
};

/// How many documents a list may look at without an index.
const UNINDEXED_MAX: usize = 10_000;

/// How many parts of a condition are tried in place of the first one.
const PARTS_MAX: usize = 4;

/// How long what is known of a collection counts, and how long if a query is refused because of it.
const KNOWN_TIME: Duration = Duration::from_secs(30);
const REFUSED_TIME: Duration = Duration::from_secs(1);

/// The error code of a collection that does not exist.
const NO_COLLECTION: i32 = 26;

/// What is known of the collections' indexes.
#[derive(Debug, Default)]
pub(super) struct KnownIndexes(Mutex<HashMap<CollectionId, (Instant, Arc<Indexes>)>>);

impl KnownIndexes {
    fn get(&self, collection: CollectionId, age_max: Duration) -> Option<Arc<Indexes>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, indexes) = known.get(&collection)?;
        (at.elapsed() < age_max).then(|| Arc::clone(indexes))
    }

    fn put(&self, collection: CollectionId, indexes: &Arc<Indexes>) {
        let known = (Instant::now(), Arc::clone(indexes));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(collection, known);
    }
}

/// The indexes of a collection, and how many documents it has.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    all: Vec<IndexModel>,
    documents: u64,
}

impl Indexes {
    /// Reads the indexes of a collection.
    pub(super) async fn of(database: &Database, name: &str) -> Result<Self, DriverError> {
        let collection = database.collection::<Document>(name);
        let listed = match collection.list_indexes().await {
            Ok(listed) => listed.try_collect().await,
            Err(error) => Err(error),
        };
        let all = match listed {
            Err(error) => match DriverError::of(&error) {
                DriverError::Refused { code: NO_COLLECTION, .. } => return Ok(Self::default()),
                error => return Err(error),
            },
            Ok(all) => all,
        };
        let documents = collection.estimated_document_count().selection_criteria(primary()).await?;
        Ok(Self { all, documents })
    }

    /// Whether an index serves a lookup.
    pub(super) fn serve(&self, lookup: &Lookup) -> bool {
        // An index of hashes serves equalities only, and no search for structures. An index with a collation serves only what compares
        // no text.
        let has_text = lookup.finds != Finds::DeclaredForm || lookup.has_text_keys();
        self.any(&lookup.by, has_text, lookup.finds != Finds::Structures)
    }

    /// Whether an index has the field first, and has every document.
    fn any(&self, field: &Path, has_text: bool, may_be_hashed: bool) -> bool {
        self.all.iter().any(|index| {
            let options = index.options.as_ref();
            let is_partial = options.is_some_and(|options| options.partial_filter_expression.is_some());
            let is_hidden = options.and_then(|options| options.hidden).unwrap_or(false);
            let collation = options.and_then(|options| options.collation.as_ref());
            let is_simple = collation.is_none_or(|collation| collation.locale == SIMPLE) || !has_text;
            let is_first = index.keys.iter().next().is_some_and(|(name, kind)| {
                let is_ordered = matches!(kind, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_));
                name == field.as_str() && (is_ordered || may_be_hashed && kind.as_str() == Some("hashed"))
            });
            is_first && !is_partial && !is_hidden && is_simple
        })
    }

    /// Whether the collection has a default collation. Its index by `_id` then has it.
    fn has_collation(&self) -> bool {
        let is_by_id = |index: &&IndexModel| index.keys.keys().eq(["_id"]);
        let options = self.all.iter().find(is_by_id).and_then(|index| index.options.as_ref());
        let collation = options.and_then(|options| options.collation.as_ref());
        collation.is_some_and(|collation| collation.locale != SIMPLE)
    }
}

/// The fields by which a condition selects documents, all of which need an index. The first part of a conjunction counts that selects by
/// equality: it is what a list searches for. None if no part does.
fn searched(condition: &Condition, within: Option<&Path>) -> Option<Vec<Path>> {
    let at = |path: &Path| within.map_or_else(|| path.clone(), |within| within.join(path));
    let is_equality = |test: &Test| matches!(test, Test::Eq(_) | Test::In(_) | Test::All(_));
    match condition {
        Condition::And(all) => all.iter().find_map(|one| searched(one, within)),
        Condition::Or(any) => {
            let fields: Option<Vec<Vec<Path>>> = any.iter().map(|one| searched(one, within)).collect();
            fields.map(|fields| fields.into_iter().flatten().collect())
        }
        Condition::Field(path, Test::Element(Element::Document(inner))) => searched(inner, Some(&at(path))),
        Condition::Field(path, Test::Element(Element::Value(tests))) => {
            tests.iter().any(is_equality).then(|| vec![at(path)])
        }
        Condition::Field(path, test) => is_equality(test).then(|| vec![at(path)]),
        Condition::Expr(..) => None,
    }
}

/// The parts of a condition that all have to hold.
fn parts(condition: &Condition) -> Vec<&Condition> {
    match condition {
        Condition::And(all) => all.iter().flat_map(parts).collect(),
        Condition::Or(_) | Condition::Field(..) | Condition::Expr(..) => vec![condition],
    }
}

/// Any field that a condition looks at.
fn looked_at(condition: &Condition) -> Option<Path> {
    let mut first = None;
    condition.paths(&mut |path| {
        first.get_or_insert_with(|| path.clone());
    });
    first
}

impl MongoDb {
    /// Refuses a listing that no index serves, unless the collection is small.
    pub(super) async fn require_index_for(
        &self,
        listing: &Listing,
        at: Moment,
        deadline: Deadline,
    ) -> Result<(), SourceError> {
        let fields =
            searched(&listing.condition, None).or_else(|| looked_at(&listing.condition).map(|path| vec![path]));
        // Without a condition, documents are read in the order of their ids.
        let may_be_hashed = fields.is_some();
        let fields = fields.unwrap_or_else(|| vec![listing.field.clone()]);
        let missing = |indexes: &Indexes| fields.iter().find(|field| !indexes.any(field, true, may_be_hashed)).cloned();
        match self.require(listing.collection, missing, deadline).await {
            Err(refused @ SourceError::NoIndex { .. }) => {
                let is_served = self.is_served_by_another_part(listing, at, deadline).await?;
                if is_served { Ok(()) } else { Err(refused) }
            }
            result => result,
        }
    }

    /// Whether an index serves another part of the condition than the one that the list searches for, and few documents match that part.
    async fn is_served_by_another_part(
        &self,
        listing: &Listing,
        at: Moment,
        deadline: Deadline,
    ) -> Result<bool, SourceError> {
        let indexes = self.known_indexes(listing.collection, KNOWN_TIME, deadline).await?;
        let lookup = Lookup::by_id(self.schema.collection_name(listing.collection), listing.collection);
        let is_served = |part: &&Condition| {
            searched(part, None).is_some_and(|fields| fields.iter().all(|field| indexes.any(field, true, true)))
        };
        for part in parts(&listing.condition).into_iter().filter(is_served).take(PARTS_MAX) {
            let of_part = part.to_query();
            let more = self.has_more_than(UNINDEXED_MAX, &lookup, of_part, doc! { "_id": 1 }, at, deadline).await?;
            if more.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses a reverse lookup that no index serves, unless the collection is small.
    pub(super) async fn require_index_of(&self, lookup: &Lookup, deadline: Deadline) -> Result<(), SourceError> {
        let missing = |indexes: &Indexes| (!indexes.serve(lookup)).then(|| lookup.by.clone());
        self.require(lookup.collection_id, missing, deadline).await
    }

    async fn require(
        &self,
        collection: CollectionId,
        missing: impl Fn(&Indexes) -> Option<Path>,
        deadline: Deadline,
    ) -> Result<(), SourceError> {
        let wanted = |indexes: &Indexes| {
            missing(indexes).filter(|_| usize::try_from(indexes.documents).unwrap_or(usize::MAX) > UNINDEXED_MAX)
        };
        // An index may have been created since.
        for age_max in [KNOWN_TIME, REFUSED_TIME] {
            let indexes = self.known_indexes(collection, age_max, deadline).await?;
            let Some(field) = wanted(&indexes) else { return Ok(()) };
            if age_max == REFUSED_TIME {
                let collection = self.schema.collection_name(collection).to_owned();
                let (field, has_collation) = (field.to_string(), indexes.has_collation());
                let finding = Finding::NoListIndex { collection: collection.clone(), field, has_collation };
                return Err(SourceError::NoIndex { collection, command: finding.remedy() });
            }
        }
        Ok(())
    }

    /// The indexes of a collection as of a short time ago.
    async fn known_indexes(
        &self,
        collection: CollectionId,
        age_max: Duration,
        deadline: Deadline,
    ) -> Result<Arc<Indexes>, SourceError> {
        if let Some(known) = self.indexes.get(collection, age_max) {
            return Ok(known);
        }
        let (database, name) = (self.client.database(), self.schema.collection_name(collection));
        let read = timeout_at(deadline.instant(), Indexes::of(&database, name)).await;
        let failed = |error| SourceError::Find { collection: name.to_owned(), source: Arc::new(error) };
        let indexes = Arc::new(read.map_err(|_| SourceError::TimedOut)?.map_err(failed)?);
        self.indexes.put(collection, &indexes);
        Ok(indexes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn eq(field: &str) -> Condition {
        Condition::Field(path(field), Test::Eq(1.into()))
    }

    fn ne(field: &str) -> Condition {
        Condition::Field(path(field), Test::Ne(1.into()))
    }

    #[test]
    fn a_condition_selects_by_the_first_equality_or_by_each_side_of_an_or() {
        let of = |condition: &Condition| {
            searched(condition, None).map(|fields| fields.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let element = |inner| Condition::Field(path("a"), Test::Element(Element::Document(Box::new(inner))));
        for (condition, expected) in [
            (eq("a"), Some(vec!["a"])),
            (ne("a"), None),
            (Condition::And(vec![ne("a"), eq("b"), eq("c")]), Some(vec!["b"])),
            (Condition::And(vec![]), None),
            (Condition::Or(vec![eq("a"), Condition::And(vec![eq("b"), eq("c")])]), Some(vec!["a", "b"])),
            (Condition::Or(vec![eq("a"), ne("b")]), None),
            (element(Condition::And(vec![ne("b"), eq("c")])), Some(vec!["a.c"])),
            (element(element(eq("c"))), Some(vec!["a.a.c"])),
            (element(ne("c")), None),
        ] {
            assert_eq!(
                of(&condition),
                expected.map(|fields| fields.into_iter().map(str::to_owned).collect()),
                "{condition:?}"
            );
        }
    }

    #[test]
    fn an_index_serves_if_the_field_is_its_first_and_it_has_every_document() {
        let index = |keys: Document, options: Document| -> IndexModel {
            let mut index = doc! { "key": keys, "name": "x" };
            index.extend(options);
            bson::deserialize_from_document(index).unwrap()
        };
        let serves = |keys: Document, options: Document, has_text, may_be_hashed| {
            let indexes = Indexes { all: vec![index(keys, options)], documents: 0 };
            indexes.any(&path("a.b"), has_text, may_be_hashed)
        };
        assert!(serves(doc! { "a.b": 1 }, doc! {}, true, false));
        assert!(serves(doc! { "a.b": -1, "c": 1 }, doc! {}, true, false));
        assert!(serves(doc! { "a.b": "hashed" }, doc! {}, true, true));
        assert!(!serves(doc! { "a.b": "hashed" }, doc! {}, true, false));
        assert!(!serves(doc! { "a.b": "text" }, doc! {}, true, true));
        assert!(!serves(doc! { "c": 1, "a.b": 1 }, doc! {}, true, true));
        assert!(!serves(doc! { "a": 1 }, doc! {}, true, true));
        assert!(!serves(doc! { "a.b": 1 }, doc! { "hidden": true }, true, true));
        assert!(!serves(doc! { "a.b": 1 }, doc! { "partialFilterExpression": { "c": 1 } }, true, true));
        let collated = doc! { "collation": { "locale": "en" } };
        assert!(!serves(doc! { "a.b": 1 }, collated.clone(), true, true));
        assert!(serves(doc! { "a.b": 1 }, collated, false, true));
    }
}
