//! The inspection of the database at the start: whether the schema's collections exist, and the indexes that its lookups
//! require.
//!
//! Changes nothing, and does not decide what a finding leads to: its callers do.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use bson::{Bson, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::{Database, results::CollectionSpecification};

use super::{DriverError, MongoDb, indexes::Indexes, primary};
use crate::schema::Schema;

/// The collation that compares texts byte by byte.
pub(super) const SIMPLE: &str = "simple";

/// Something that the operator should know about the database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// A collection does not exist. A wrong database name has the same effect.
    Missing {
        /// The collection.
        collection: String,
    },
    /// A collection has no documents.
    Empty {
        /// The collection.
        collection: String,
    },
    /// A collection is a view, a time series or capped, so its changes cannot be followed.
    Unsuitable {
        /// The collection.
        collection: String,
        /// What it is.
        what: String,
    },
    /// A collection has a default collation, by which the application compares texts in another way than the schema.
    Collation {
        /// The collection.
        collection: String,
        /// The collation.
        collation: String,
        /// The fields whose texts the schema compares.
        fields: Vec<String>,
    },
    /// A lookup has no index, so it reads its whole collection each time.
    NoIndex {
        /// The collection.
        collection: String,
        /// The field it is looked up by.
        field: String,
        /// Whether the collection has a default collation, which an index must not have.
        has_collation: bool,
    },
    /// A lookup that only lists require has no index.
    NoListIndex {
        /// The collection.
        collection: String,
        /// The field it is looked up by.
        field: String,
        /// Whether the collection has a default collation, which an index must not have.
        has_collation: bool,
    },
}

impl Finding {
    /// The finding as a sentence.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Missing { collection } => format!("the collection `{collection}` is missing"),
            Self::Empty { collection } => format!("the collection `{collection}` is empty"),
            Self::Unsuitable { collection, what } => {
                format!("the collection `{collection}` is {what}, in which changes cannot be followed")
            }
            Self::Collation { collection, collation, fields } => {
                let fields = fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", ");
                format!(
                    "the collection `{collection}` has the default collation {collation}: what the application takes for the same text in {fields}, permcached tells apart"
                )
            }
            Self::NoIndex { collection, field, .. } => {
                format!(
                    "`{collection}` is looked up by `{field}` and has no index for it: each lookup reads the whole collection"
                )
            }
            Self::NoListIndex { collection, field, .. } => format!(
                "lists look `{collection}` up by `{field}`, which has no index: each of them reads the whole collection, or is refused if that has more than 10,000 documents. Checks do not require this index"
            ),
        }
    }

    /// Whether the service cannot work with this: it would not notice changes, or compare in another way than the application.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Unsuitable { .. } | Self::Collation { .. } => true,
            Self::Missing { .. } | Self::Empty { .. } | Self::NoIndex { .. } | Self::NoListIndex { .. } => false,
        }
    }

    /// Whether it concerns lists only.
    #[must_use]
    pub fn is_of_lists(&self) -> bool {
        match self {
            Self::NoListIndex { .. } => true,
            Self::Missing { .. }
            | Self::Empty { .. }
            | Self::Unsuitable { .. }
            | Self::Collation { .. }
            | Self::NoIndex { .. } => false,
        }
    }

    /// What to do about the finding.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Missing { .. } | Self::Empty { .. } => {
                "check the name of the database, in MONGODB_URI or MONGODB_DATABASE, and the schema".to_owned()
            }
            Self::Unsuitable { .. } => "name the collection that it is made of".to_owned(),
            Self::Collation { collection, .. } => {
                format!(
                    "write each of these texts in one form, the one of the schema and of requests; then copy the documents into a collection without a collation, and give it the name {}",
                    quoted(collection)
                )
            }
            Self::NoIndex { collection, field, has_collation: false }
            | Self::NoListIndex { collection, field, has_collation: false } => {
                format!("db.getCollection({}).createIndex({{ {}: 1 }})", quoted(collection), quoted(field))
            }
            Self::NoIndex { collection, field, has_collation: true }
            | Self::NoListIndex { collection, field, has_collation: true } => {
                // With its usual name it would be taken for one with the default collation.
                let options =
                    format!("{{ name: {}, collation: {{ locale: \"simple\" }} }}", quoted(&format!("{field}_simple")));
                format!("db.getCollection({}).createIndex({{ {}: 1 }}, {options})", quoted(collection), quoted(field))
            }
        }
    }
}

/// A text in quotes for the MongoDB shell.
pub(super) fn quoted(text: &str) -> String {
    Bson::String(text.to_owned()).into_relaxed_extjson().to_string()
}

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
