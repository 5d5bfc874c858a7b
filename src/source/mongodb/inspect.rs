//! The inspection of the database at the start: whether the schema's collections exist, and the indexes that its lookups
//! require.
//!
//! Changes nothing, and does not decide what a finding leads to: its callers do.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use bson::{RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::{Database, results::CollectionSpecification};

use super::{
    DriverError, MongoDb,
    finding::{Finding, SIMPLE},
    indexes::Indexes,
    primary,
};
use crate::schema::Schema;

impl MongoDb {
    /// Inspects the collections and indexes that the schema requires.
    ///
    /// # Errors
    /// The database cannot be asked, or the user does not have the `read` role.
    pub async fn inspect(&self) -> Result<Vec<Finding>, DriverError> {
        inspect(&self.schema, &self.client.database()).await
    }
}

/// See [`MongoDb::inspect`].
pub(super) async fn inspect(schema: &Schema, database: &Database) -> Result<Vec<Finding>, DriverError> {
    let mut findings = BTreeSet::new();
    let names: Vec<&str> = schema.collections().collect();
    let mut existing = BTreeMap::new();
    let mut collations = BTreeMap::new();
    let mut listed = database.list_collections().filter(doc! { "name": { "$in": names.clone() } }).await?;
    while let Some(specification) = listed.try_next().await? {
        let is_capped = specification.options.capped.unwrap_or(false);
        let kind = format!("{:?}", specification.collection_type).to_lowercase();
        if let Some(collation) = specification.options.collation.filter(|collation| collation.locale != SIMPLE) {
            collations.insert(specification.name.clone(), collation);
        }
        existing.insert(specification.name, (kind, is_capped));
    }
    for name in names {
        let collection = name.to_owned();
        match existing.get(name) {
            None => findings.insert(Finding::Missing { collection }),
            Some((_, true)) => findings.insert(Finding::Unsuitable { collection, what: "capped".to_owned() }),
            Some((kind, _)) if kind != "collection" => {
                findings.insert(Finding::Unsuitable { collection, what: format!("a {kind}") })
            }
            Some(_) => is_empty(database, name).await? && findings.insert(Finding::Empty { collection }),
        };
    }
    for (name, collation) in &collations {
        let fields: Vec<String> = schema.compared_texts(name).into_iter().collect();
        if !fields.is_empty() {
            let strength = collation.strength.map(|strength| format!(", strength {}", u32::from(strength)));
            let collation = format!("`{}`{}", collation.locale, strength.unwrap_or_default());
            findings.insert(Finding::Collation { collection: name.clone(), collation, fields });
        }
    }
    let mut known: BTreeMap<&str, Indexes> = BTreeMap::new();
    // Reverse lookups come last: an index that checks require is not named once more.
    for (_, lookup) in schema.lookups() {
        let exists = existing.get(&*lookup.collection).is_some_and(|(kind, _)| kind == "collection");
        if lookup.is_by_id() || !exists {
            continue;
        }
        let indexes = match known.entry(&lookup.collection) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Indexes::of(database, &lookup.collection).await?),
        };
        if !indexes.serve(lookup) {
            let (collection, field) = (lookup.collection.to_string(), lookup.by.to_string());
            let has_collation = collations.contains_key(&collection);
            let (of_checks, of_lists) = (
                Finding::NoIndex { collection: collection.clone(), field: field.clone(), has_collation },
                Finding::NoListIndex { collection, field, has_collation },
            );
            if !lookup.is_reverse {
                findings.insert(of_checks);
            } else if !findings.contains(&of_checks) {
                findings.insert(of_lists);
            }
        }
    }
    Ok(findings.into_iter().collect())
}

/// The UUIDs of the schema's collections that exist.
pub(super) async fn uuids(schema: &Schema, database: &Database) -> Result<BTreeMap<String, [u8; 16]>, DriverError> {
    let names: Vec<&str> = schema.collections().collect();
    let listed = database.list_collections().filter(doc! { "name": { "$in": names } }).await?;
    let uuid = |specification: CollectionSpecification| {
        let uuid = specification.info.uuid.and_then(|uuid| uuid.bytes.try_into().ok());
        uuid.map(|uuid| (specification.name, uuid))
    };
    Ok(listed.try_collect::<Vec<_>>().await?.into_iter().filter_map(uuid).collect())
}

async fn is_empty(database: &Database, collection: &str) -> Result<bool, DriverError> {
    let collection = database.collection::<RawDocumentBuf>(collection);
    let found = collection.find_one(doc! {}).projection(doc! { "_id": 1 }).selection_criteria(primary()).await?;
    Ok(found.is_none())
}
