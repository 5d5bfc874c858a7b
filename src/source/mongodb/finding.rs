//! Findings: what the operator should know about the database, each as a sentence with its remedy.
//!
//! Asks the database nothing: `inspect` does.

use bson::Bson;

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
            Self::Unsuitable { collection, what } if what == "capped" => {
                format!(
                    "copy the documents into a collection that is not capped, and give it the name {}",
                    quoted(collection)
                )
            }
            Self::Unsuitable { what, .. } if what == "a timeseries" => {
                "store the documents in an ordinary collection".to_owned()
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
