//! The schema: which relations and permissions there are, and where in MongoDB each relation is read. TOML in, compiled
//! tables out (design section 3; `docs/schema.md` is its manual).
//!
//! Pure: opens no file and asks no database. BSON's types are the only vendor types here.

mod plan;
mod compile;
mod condition;
mod declaration;
mod expression;
mod fingerprint;
mod error;
mod node;
mod order;
mod path;
mod question;
mod validate;

use std::{collections::BTreeMap, time::Duration};

pub use condition::{Comparison, Condition, Test};
pub(crate) use error::nearest;
pub use error::{SchemaError, SchemaErrors, suggestion};
pub(crate) use path::End;
pub use path::Path;
pub use question::{FieldError, SubjectText};

use crate::question::{
    CollectionId, IdForm, LookupId, PermissionId, RelationId, ResourceTypeId, Subject, SubjectTypeId,
};

/// How long the text of a schema is at most, in bytes.
const TEXT_BYTES_MAX: usize = 1_024 * 1_024;

/// A compiled schema: tables that refer to each other by number. Every number in it is valid by construction.
#[derive(Debug)]
pub struct Schema {
    default_subject: SubjectTypeId,
    subjects: Box<[SubjectType]>,
    resources: Box<[ResourceType]>,
    relations: Box<[Relation]>,
    permissions: Box<[Permission]>,
    lookups: Box<[Lookup]>,
    collections: Box<[Box<str>]>,
}

/// A `[subject.…]`.
#[derive(Debug)]
pub struct SubjectType {
    /// Its name in the schema.
    pub name: Box<str>,
    /// How its ids are written.
    pub id: IdForm,
    /// Whether its ids are bearer secrets, kept only as hashes.
    pub secret: bool,
    /// The relation that a subject's own document must fulfil, where the type has a collection.
    pub gate: Option<RelationId>,
}

/// A `[resource.…]`.
#[derive(Debug)]
pub struct ResourceType {
    /// Its name in the schema.
    pub name: Box<str>,
    /// How its ids are written.
    pub id: IdForm,
    /// Where its own documents are, if it has any.
    pub document: Option<LookupId>,
    /// Its relations and permissions by name.
    pub members: BTreeMap<Box<str>, Member>,
}

/// A relation or a permission: what can be asked of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// A relation.
    Relation(RelationId),
    /// A permission.
    Permission(PermissionId),
}

/// Whose relation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A resource type's.
    Resource(ResourceTypeId),
    /// A subject type's: its gate.
    Subject(SubjectTypeId),
}

/// A relation, and how it is read from documents.
#[derive(Debug)]
pub struct Relation {
    /// Its name in the schema.
    pub name: Box<str>,
    /// Whose it is.
    pub owner: Owner,
    /// Which documents it is read from.
    pub lookup: LookupId,
    /// An array of documents in the document: then the condition, the ids and the dates are read from its elements.
    pub each: Option<Path>,
    /// What the document or the element must fulfil.
    pub condition: Option<Condition>,
    /// With `each`, what the document must fulfil.
    pub document_condition: Option<Condition>,
    /// The ids it leads to; none for a flag.
    pub ids: Option<Ids>,
    /// The date from which it grants.
    pub since: Option<Path>,
    /// The date from which it no longer grants.
    pub until: Option<Path>,
    /// Whether those dates must be there.
    pub required: bool,
    /// Whether it stands under a `!` in some permission.
    pub negated: bool,
}

/// Where a relation's ids stand, and what they can be.
#[derive(Debug)]
pub struct Ids {
    /// The field that holds one id, or an array of them.
    pub field: Path,
    /// What they lead to. Several only where `subject_type` tells which.
    pub targets: Box<[Target]>,
    /// The field that names the type.
    pub subject_type: Option<Path>,
    /// The field that names the set's relation.
    pub subject_relation: Option<Path>,
    /// Whether `*` stands for every subject of the type.
    pub wildcard: bool,
}

/// What an id leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A subject.
    Subject(SubjectTypeId),
    /// A set of subjects: those who have `member` of the resource.
    Set(ResourceTypeId, Member),
    /// Another resource: an edge.
    Resource(ResourceTypeId),
}

/// A permission.
#[derive(Debug)]
pub struct Permission {
    /// Its name in the schema.
    pub name: Box<str>,
    /// Whose it is.
    pub resource: ResourceTypeId,
    /// What it means.
    pub expression: Expression,
    /// Whether it is only a building block, not to be asked for.
    pub private: bool,
    /// How old the facts may be that it is answered from while the source cannot be asked. Such answers are flagged.
    pub stale_if_error: Option<Duration>,
}

/// A permission's meaning. The sides of an `Or` stand cheapest first; those of an `And` as written, since the leftmost
/// false one gives the reason.
#[derive(Debug, PartialEq)]
pub enum Expression {
    /// A relation of the same resource.
    Relation(RelationId),
    /// A permission of the same resource.
    Permission(PermissionId),
    /// What is asked of the resources at the end of an edge.
    Walk {
        /// The edge.
        edge: RelationId,
        /// What is asked there.
        member: Member,
    },
    /// Holds where the inner one does not.
    Not(Box<Expression>),
    /// Holds where all do.
    And(Box<[Expression]>),
    /// Holds where one does.
    Or(Box<[Expression]>),
}

/// A collection and the field it is looked up by.
#[derive(Debug)]
pub struct Lookup {
    /// The collection.
    pub collection: Box<str>,
    /// Its place in [`Schema::collections`].
    pub collection_id: CollectionId,
    /// The field.
    pub by: Path,
    /// The relations that are read from what is found.
    pub relations: Box<[RelationId]>,
    /// The top-level fields that the relations need, `_id` and the field itself included.
    pub projection: Box<[Box<str>]>,
    /// The fields that the relations read, the one that is looked up by included: a change to any other changes no fact.
    pub fields: Box<[Path]>,
    /// What a document must fulfil to be of use to any relation; none where all are fetched.
    pub pushed: Option<Condition>,
}

impl Lookup {
    /// A lookup of a collection's documents by their ids.
    pub(crate) fn by_id(collection: &str, collection_id: CollectionId) -> Self {
        Self { collection_id, ..Self::new(collection, Path::id()) }
    }

    /// A lookup of which nothing else is known yet.
    fn new(collection: &str, by: Path) -> Self {
        Self {
            collection: collection.into(),
            collection_id: CollectionId(0),
            by,
            relations: Box::default(),
            projection: Box::default(),
            fields: Box::default(),
            pushed: None,
        }
    }

    /// Whether a change to the field `changed`, dotted and with positions as MongoDB reports it, may change what is read:
    /// it is, holds or stands in one of the fields.
    #[must_use]
    pub fn reads(&self, changed: &str) -> bool {
        self.fields.iter().any(|field| field.overlaps(changed))
    }

    /// Whether documents are found by their own id: then there is at most one.
    #[must_use]
    pub fn is_by_id(&self) -> bool {
        self.by.as_str() == "_id"
    }
}

/// Reads an entry of a table by its number.
///
/// The numbers are given out by the compiler for the same schema, so the entry is always there.
macro_rules! entry {
    ($table:expr, $id:expr) => {{
        #[expect(
            clippy::indexing_slicing,
            reason = "numbers are given out together with the tables, by the compiler alone"
        )]
        let entry = &$table[$id.index()];
        entry
    }};
}

impl Schema {
    /// Reads and compiles the text of a schema; `name` is what messages call it.
    ///
    /// # Errors
    /// Every mistake in it, each with its place.
    pub fn parse(name: &str, text: &str) -> Result<Self, SchemaErrors> {
        let mut errors = Vec::new();
        if text.len() > TEXT_BYTES_MAX {
            errors.push(SchemaError::of_the_whole("the schema is larger than 1 MiB"));
            return Err(SchemaErrors::new(name, "", errors));
        }
        let declarations = declaration::read(text, &mut errors);
        let schema = compile::compile(&declarations, &mut errors);
        match schema {
            Some(schema) if errors.is_empty() => Ok(schema),
            _ => Err(SchemaErrors::new(name, text, errors)),
        }
    }

    /// The type that is meant where a request names none.
    #[must_use]
    pub fn default_subject(&self) -> SubjectTypeId {
        self.default_subject
    }

    /// A subject type.
    #[must_use]
    pub fn subject(&self, id: SubjectTypeId) -> &SubjectType {
        entry!(self.subjects, id)
    }

    /// A resource type.
    #[must_use]
    pub fn resource(&self, id: ResourceTypeId) -> &ResourceType {
        entry!(self.resources, id)
    }

    /// A relation.
    #[must_use]
    pub fn relation(&self, id: RelationId) -> &Relation {
        entry!(self.relations, id)
    }

    /// A permission.
    #[must_use]
    pub fn permission(&self, id: PermissionId) -> &Permission {
        entry!(self.permissions, id)
    }

    /// All permissions.
    pub fn permissions(&self) -> impl Iterator<Item = &Permission> {
        self.permissions.iter()
    }

    /// A lookup.
    #[must_use]
    pub fn lookup(&self, id: LookupId) -> &Lookup {
        entry!(self.lookups, id)
    }

    /// Every lookup with its number.
    pub fn lookups(&self) -> impl Iterator<Item = (LookupId, &Lookup)> {
        (0..).map(LookupId).zip(&self.lookups)
    }

    /// Every lookup by which something of a resource type is read.
    pub fn lookups_of(&self, kind: ResourceTypeId) -> impl Iterator<Item = LookupId> {
        let relations = self.resource(kind).members.values().filter_map(|member| match member {
            Member::Relation(id) => Some(self.relation(*id).lookup),
            Member::Permission(_) => None,
        });
        self.resource(kind).document.into_iter().chain(relations)
    }

    /// How many lookups there are.
    #[must_use]
    pub fn lookup_count(&self) -> usize {
        self.lookups.len()
    }

    /// Every resource type with its number.
    pub fn resources(&self) -> impl Iterator<Item = (ResourceTypeId, &ResourceType)> {
        (0..).map(ResourceTypeId).zip(&self.resources)
    }

    /// Every subject type with its number.
    pub fn subjects(&self) -> impl Iterator<Item = (SubjectTypeId, &SubjectType)> {
        (0..).map(SubjectTypeId).zip(&self.subjects)
    }

    /// The permissions of a resource type that can be asked for, by name.
    pub fn public_permissions(&self, kind: ResourceTypeId) -> impl Iterator<Item = PermissionId> {
        self.resource(kind).members.values().filter_map(|member| match member {
            Member::Permission(id) if !self.permission(*id).private => Some(*id),
            _ => None,
        })
    }

    /// Every collection that is read, once each, by number.
    pub fn collections(&self) -> impl Iterator<Item = &str> {
        self.collections.iter().map(|name| &**name)
    }

    /// The number of a collection that is read.
    #[must_use]
    pub fn collection_id(&self, name: &str) -> Option<CollectionId> {
        let place = self.collections.binary_search_by(|known| (**known).cmp(name)).ok()?;
        u16::try_from(place).ok().map(CollectionId)
    }

    /// The name of a collection by its number.
    #[must_use]
    pub fn collection_name(&self, id: CollectionId) -> &str {
        entry!(self.collections, id)
    }

    /// Whether a relation can lead to a subject, by its type: if not, its documents need not be read. Flags and edges lead to
    /// anybody, and so may sets.
    #[must_use]
    pub fn can_lead_to(&self, relation: RelationId, subject: &Subject) -> bool {
        let Some(ids) = &self.relation(relation).ids else { return true };
        ids.targets.iter().any(|target| match target {
            Target::Subject(kind) => matches!(subject, Subject::Known { kind: asker, .. } if asker == kind),
            Target::Set(..) | Target::Resource(_) => true,
        })
    }

    /// The name of a relation or a permission.
    #[must_use]
    pub fn member_name(&self, member: Member) -> &str {
        match member {
            Member::Relation(id) => &self.relation(id).name,
            Member::Permission(id) => &self.permission(id).name,
        }
    }

    /// `type#relation`, as answers name it.
    #[must_use]
    pub fn relation_name(&self, id: RelationId) -> String {
        let relation = self.relation(id);
        let owner = match relation.owner {
            Owner::Resource(kind) => &self.resource(kind).name,
            Owner::Subject(kind) => &self.subject(kind).name,
        };
        format!("{owner}#{}", relation.name)
    }
}
