//! The schema: defines relations and permissions, and where in MongoDB each relation is read. Compiles TOML into tables
//! (docs/schema.md is the manual).
//!
//! It is pure: it opens no file and calls no database. BSON's types are the only vendor types here.

mod plan;
mod advice;
mod compile;
mod condition;
mod declaration;
mod expression;
mod fingerprint;
mod format;
mod error;
mod node;
mod number;
mod order;
mod path;
mod question;
mod texts;
mod types;
mod unreadable;
mod validate;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bson::Bson;

pub use condition::{BitTest, Comparison, Condition, Element, Mask, Test};
pub use error::{SchemaError, SchemaErrors, suggestion};
pub(crate) use error::{listed, nearest};
pub use format::Format;
pub(crate) use number::whole_number;
pub(crate) use order::compare;
pub(crate) use path::End;
pub use path::Path;
pub use plan::Wanted;
pub(crate) use plan::repeats;
pub use question::{FieldError, SubjectText};
pub(crate) use types::{NUMBER, NUMBERS, comparable_types, id_types, type_name, value_types_except};
pub use unreadable::unreadable;

use crate::question::{
    CollectionId, IdForm, LookupId, PermissionId, RelationId, ResourceTypeId, Subject, SubjectTypeId,
};

/// The maximal length of a schema's text, in bytes.
const TEXT_BYTES_MAX: usize = 1_024 * 1_024;

/// A compiled schema: tables that refer to each other by number. Every number is valid by construction.
#[derive(Debug)]
pub struct Schema {
    default_subject: SubjectTypeId,
    subjects: Box<[SubjectType]>,
    resources: Box<[ResourceType]>,
    relations: Box<[Relation]>,
    permissions: Box<[Permission]>,
    lookups: Box<[Lookup]>,
    collections: Box<[Box<str>]>,
    hidden: HiddenPermissions,
    warnings: Option<Box<SchemaErrors>>,
}

/// The permissions that no request can ask for and that no other permission refers to: a list asks for single relations and edges by
/// them.
#[derive(Debug, Default)]
struct HiddenPermissions {
    /// The number of the first one. Those that the schema declares come before it.
    first: usize,
    /// By the relation that each of them names.
    of_relations: HashMap<RelationId, PermissionId>,
    /// By the edge that each of them follows, and the member there.
    of_walks: HashMap<(RelationId, Member), PermissionId>,
}

/// A subject type: a `[subject.…]`.
#[derive(Debug)]
pub struct SubjectType {
    /// Its name in the schema.
    pub name: Box<str>,
    /// The form of its ids.
    pub id: IdForm,
    /// Whether its ids are bearer secrets, kept only as hashes.
    pub secret: bool,
    /// The relation that a subject's own document must fulfil, if the type has a collection.
    pub gate: Option<RelationId>,
    /// Its relations by name: what its own documents say.
    pub relations: BTreeMap<Box<str>, RelationId>,
}

/// A resource type: a `[resource.…]`.
#[derive(Debug)]
pub struct ResourceType {
    /// Its name in the schema.
    pub name: Box<str>,
    /// The form of its ids.
    pub id: IdForm,
    /// The lookup of its own documents, if the type has a collection.
    pub document: Option<LookupId>,
    /// The relation that a resource's own document must fulfil, if the type has a condition. A document that fails it is as
    /// absent.
    pub gate: Option<RelationId>,
    /// Its relations and permissions by name.
    pub members: BTreeMap<Box<str>, Member>,
}

/// A relation or a permission of a resource type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A relation.
    Relation(RelationId),
    /// A permission.
    Permission(PermissionId),
}

/// The type that a relation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A resource type; the relation is one of its members, or its gate.
    Resource(ResourceTypeId),
    /// A subject type; the relation is its gate, or a relation of the subject.
    Subject(SubjectTypeId),
}

/// What a relation is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The documents that a lookup finds by the id of the resource or, for a relation of a subject type, of the subject.
    Documents(LookupId),
    /// The named relations of the asking subject, which lead to resources of the relation's type (`of`). The relation holds
    /// for a resource to which one of them leads.
    Subject(Box<[RelationId]>),
}

/// A relation, and how it is read from documents.
#[derive(Debug)]
pub struct Relation {
    /// Its name in the schema.
    pub name: Box<str>,
    /// The type that it belongs to.
    pub owner: Owner,
    /// What it is read from.
    pub origin: Origin,
    /// The path of an array of documents. If it is set, the condition, the ids and the dates are read from its elements.
    pub each: Option<Path>,
    /// The condition that the document, or with `each` the element, must fulfil.
    pub condition: Option<Condition>,
    /// With `each`, the condition that the document must fulfil.
    pub document_condition: Option<Condition>,
    /// The ids that it leads to; none for a flag.
    pub ids: Option<Ids>,
    /// The date from which on it grants.
    pub since: Option<DateField>,
    /// The date from which on it no longer grants.
    pub until: Option<DateField>,
    /// Whether a grant is indeterminate if its `since` or `until` is missing in the document.
    pub required: bool,
    /// Whether some permission uses it under a `!`, directly or through a permission or a set.
    pub negated: bool,
    /// What both the field of the lookup and another path of the relation lead through. Where that is an array, different
    /// elements may meet them, and the relation is indeterminate.
    pub shared: Option<Path>,
    /// What shows that a document of the lookup is another type's.
    pub foreign: Box<[Foreign]>,
    /// How a list finds its resources by what it leads to. Empty if a list does not, or has to read the source each time.
    pub reverse: Box<[Reverse]>,
}

/// A way from what a relation leads to back to its resources: to more of them than the relation grants on, never to fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reverse {
    /// The form of the ids that it looks up, if they are written as text. If they are not, it looks up ids of every form.
    pub form: Option<IdForm>,
    /// The reverse lookup. Its key for everybody is [`FactKey::everybody`](crate::fact::FactKey::everybody).
    pub lookup: LookupId,
    /// The hidden relation that leads to the resources.
    pub relation: RelationId,
}

/// The values at a path that the documents of other types have, which have lookups of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreign {
    /// The path.
    pub path: Path,
    /// The values.
    pub values: Box<[Bson]>,
}

/// The ids of a relation: where they are read, and what they can lead to.
#[derive(Debug)]
pub struct Ids {
    /// The field that contains one id or an array of ids.
    pub field: Path,
    /// The form of the ids, if they are written as text.
    pub format: Option<Format>,
    /// What they can lead to. There are several targets only if `subject_type` is set.
    pub targets: Box<[Target]>,
    /// For each target, the value of `subject_type` that means it. If they are not set, the names of the types mean them.
    pub type_values: Option<Box<[Box<str>]>>,
    /// The field that contains the name of the subject's type.
    pub subject_type: Option<Path>,
    /// The field that contains the name of the set's relation.
    pub subject_relation: Option<Path>,
    /// Whether `*` stands for every subject of the type.
    pub wildcard: bool,
    /// For an edge, whether it is indeterminate if it leads to an absent resource.
    pub must_exist: bool,
}

/// A field that contains a date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateField {
    /// Its path.
    pub path: Path,
    /// How the date is written.
    pub unit: DateUnit,
}

/// How a document writes a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateUnit {
    /// As a date of BSON.
    Date,
    /// As a number of seconds since the Unix epoch.
    Seconds,
    /// As a number of milliseconds since the Unix epoch.
    Milliseconds,
    /// As text, in a form of ISO 8601 with a time of day and a time zone.
    Iso8601,
}

impl DateUnit {
    /// The units that a schema can name.
    pub(crate) const NAMED: [(&'static str, Self); 3] =
        [("seconds", Self::Seconds), ("milliseconds", Self::Milliseconds), ("iso8601", Self::Iso8601)];
}

/// The form of the ids in the field of a lookup, if they are written as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TextKeys {
    /// The form of the text.
    pub format: Format,
    /// The form of the ids in it.
    pub id: IdForm,
}

/// What an id leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A subject.
    Subject(SubjectTypeId),
    /// A set of subjects: all that have this member of the resource.
    Set(ResourceTypeId, Member),
    /// Another resource: an edge.
    Resource(ResourceTypeId),
}

/// A permission.
#[derive(Debug)]
pub struct Permission {
    /// Its name in the schema.
    pub name: Box<str>,
    /// The resource type that it belongs to.
    pub resource: ResourceTypeId,
    /// Its meaning.
    pub expression: Expression,
    /// Whether it is only a building block, which no request can ask for.
    pub private: bool,
    /// The maximal age of facts that may answer it while the source is unavailable. Such answers are flagged as stale.
    pub stale_if_error: Option<Duration>,
}

/// The meaning of a permission. The sides of an `Or` are sorted, the cheapest first. The sides of an `And` keep the order of
/// the schema, as the leftmost false side gives the reason.
#[derive(Debug, PartialEq)]
pub enum Expression {
    /// A relation of the same resource.
    Relation(RelationId),
    /// A permission of the same resource.
    Permission(PermissionId),
    /// A member of the resources at the end of an edge.
    Walk {
        /// The edge.
        edge: RelationId,
        /// The member.
        member: Member,
    },
    /// A flag of the asking subject (`subject.NAME`): the relation of that name of each subject type that has one. It does
    /// not hold for subjects of other types.
    SubjectFlag(Box<[RelationId]>),
    /// Holds if the inner expression does not.
    Not(Box<Expression>),
    /// Holds if all sides hold.
    And(Box<[Expression]>),
    /// Holds if at least one side holds.
    Or(Box<[Expression]>),
}

/// Which documents a lookup finds for an id (docs/schema.md, "Ids in another form").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finds {
    /// Those whose field holds the id in its declared form.
    DeclaredForm,
    /// Those whose field holds the id in its declared form or in one of the closed list of other forms. The lookup serves a
    /// relation under a `!`.
    EveryForm,
    /// Those whose field holds a document or an array in an array, which may contain any id. So there is a single key:
    /// [`FactKey::structures`](crate::fact::FactKey::structures).
    Structures,
}

/// A lookup: a collection, and the field by which documents are found.
#[derive(Debug)]
pub struct Lookup {
    /// The collection.
    pub collection: Box<str>,
    /// Its index in [`Schema::collections`].
    pub collection_id: CollectionId,
    /// The field by which documents are found.
    pub by: Path,
    /// How the field writes ids, if it writes them as text.
    pub text_keys: Option<TextKeys>,
    /// Whether another lookup by the same field serves other types, which exclude the types of this one.
    pub is_split_off: bool,
    /// Whether it finds documents by what they lead to, for lists ([`Reverse`]). Then its relations are hidden ones.
    pub is_reverse: bool,
    /// Which values of that field it searches for.
    pub finds: Finds,
    /// The declared forms of the ids that are looked up.
    pub forms: Box<[IdForm]>,
    /// The lookup of the documents in which the field holds documents or nested arrays, if this lookup finds
    /// [`Finds::EveryForm`]. It has the same collection and field.
    pub structures: Option<LookupId>,
    /// The relations that are read from the documents.
    pub relations: Box<[RelationId]>,
    /// The top-level fields that the relations require, including `_id` and the field of the lookup.
    pub projection: Box<[Box<str>]>,
    /// The fields that the relations read, including the field of the lookup. A change to any other field changes no fact.
    pub fields: Box<[Path]>,
    /// The documents that can be of use to a relation, which is pushed down into queries. None if all may be.
    pub wanted: Option<Wanted>,
}

impl Relation {
    /// The condition that the whole document must fulfil.
    #[must_use]
    pub fn condition_of_document(&self) -> Option<&Condition> {
        if self.each.is_some() { self.document_condition.as_ref() } else { self.condition.as_ref() }
    }

    /// The path in the document of a field that is read from the document or, with `each`, from an element.
    #[must_use]
    pub fn path_in_document(&self, field: &Path) -> Path {
        self.each.as_ref().map_or_else(|| field.clone(), |each| each.join(field))
    }

    /// The lookup that finds the documents from which it is read; none if it is read from relations of the subject.
    #[must_use]
    pub fn lookup(&self) -> Option<LookupId> {
        match self.origin {
            Origin::Documents(lookup) => Some(lookup),
            Origin::Subject(_) => None,
        }
    }

    /// A flag that every document sets, without a name.
    fn flag(owner: Owner, origin: Origin) -> Self {
        Self {
            name: Box::default(),
            owner,
            origin,
            each: None,
            condition: None,
            document_condition: None,
            ids: None,
            since: None,
            until: None,
            required: false,
            negated: false,
            shared: None,
            foreign: Box::default(),
            reverse: Box::default(),
        }
    }
}

impl Lookup {
    /// A lookup of a collection's documents by their `_id`.
    pub(crate) fn by_id(collection: &str, collection_id: CollectionId) -> Self {
        Self { collection_id, ..Self::new(collection, Path::id()) }
    }

    /// A lookup that only tests use.
    #[cfg(test)]
    pub(crate) fn by(collection: &str, by: Path) -> Self {
        Self::new(collection, by)
    }

    /// A lookup of which only the collection and the field are known.
    fn new(collection: &str, by: Path) -> Self {
        Self {
            collection: collection.into(),
            collection_id: CollectionId(0),
            by,
            text_keys: None,
            is_split_off: false,
            is_reverse: false,
            finds: Finds::DeclaredForm,
            forms: Box::default(),
            structures: None,
            relations: Box::default(),
            projection: Box::default(),
            fields: Box::default(),
            wanted: None,
        }
    }

    /// Whether a change to the field `changed` can change a fact: whether it is one of the fields, contains one, or is
    /// inside one. `changed` is a dotted path with array positions, as MongoDB reports it.
    #[must_use]
    pub fn reads(&self, changed: &str) -> bool {
        self.fields.iter().any(|field| field.overlaps(changed))
    }

    /// Whether the keys are the `_id`s of documents, so that the lookup finds at most one document for a key.
    #[must_use]
    pub fn is_by_id(&self) -> bool {
        self.by.as_str() == "_id" && self.finds == Finds::DeclaredForm && self.text_keys.is_none()
    }
}

/// Returns an entry of a table by its number.
///
/// The compiler assigns the numbers together with the tables, so the entry always exists.
macro_rules! entry {
    ($table:expr, $id:expr) => {{
        #[expect(clippy::indexing_slicing, reason = "only the compiler assigns numbers, together with the tables")]
        let entry = &$table[$id.index()];
        entry
    }};
}

impl Schema {
    /// Compiles the text of a schema. Error messages use `name` for its file.
    ///
    /// # Errors
    /// Every error in the text, each with its place.
    pub fn parse(name: &str, text: &str) -> Result<Self, SchemaErrors> {
        let mut errors = Vec::new();
        if text.len() > TEXT_BYTES_MAX {
            errors.push(SchemaError::without_place("the schema is larger than 1 MiB"));
            return Err(SchemaErrors::new(name, "", errors));
        }
        let declarations = declaration::read(text, &mut errors);
        let schema = compile::compile(&declarations, &mut errors);
        match schema {
            Some(schema) if errors.is_empty() => {
                let warnings = advice::warnings(&schema, &declarations);
                let shown = || Box::new(SchemaErrors::warnings(name, text, warnings.clone()));
                let warnings = (!warnings.is_empty()).then(shown);
                Ok(Self { warnings, ..schema })
            }
            Some(_) | None => Err(SchemaErrors::new(name, text, errors)),
        }
    }

    /// What the schema says and probably does not mean; none if there is no such thing.
    #[must_use]
    pub fn warnings(&self) -> Option<&SchemaErrors> {
        self.warnings.as_deref()
    }

    /// The subject type of a request that names no type.
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

    /// All permissions that the schema declares.
    pub fn permissions(&self) -> impl Iterator<Item = &Permission> {
        self.permissions.iter().take(self.hidden.first)
    }

    /// A permission that says nothing but this member; none for an edge, which has no truth value.
    #[must_use]
    pub fn permission_of(&self, member: Member) -> Option<PermissionId> {
        match member {
            Member::Permission(id) => Some(id),
            Member::Relation(id) => self.hidden.of_relations.get(&id).copied(),
        }
    }

    /// A permission that says nothing but `edge.member`; none if no permission of the schema follows that edge to the member.
    #[must_use]
    pub fn permission_of_walk(&self, edge: RelationId, member: Member) -> Option<PermissionId> {
        self.hidden.of_walks.get(&(edge, member)).copied()
    }

    /// A lookup.
    #[must_use]
    pub fn lookup(&self, id: LookupId) -> &Lookup {
        entry!(self.lookups, id)
    }

    /// Every lookup with its number, the reverse ones last.
    pub fn lookups(&self) -> impl Iterator<Item = (LookupId, &Lookup)> {
        (0..).map(LookupId).zip(&self.lookups)
    }

    /// Every lookup that checks require, with its number: without the reverse ones.
    pub fn lookups_of_checks(&self) -> impl Iterator<Item = (LookupId, &Lookup)> {
        self.lookups().filter(|(_, lookup)| !lookup.is_reverse)
    }

    /// Every lookup that the schema's text declares: without the reverse ones, without those of structures, and only one of those that
    /// types which exclude each other have by the same field.
    pub fn declared_lookups(&self) -> impl Iterator<Item = &Lookup> {
        let lookups = self.lookups_of_checks().map(|(_, lookup)| lookup);
        lookups.filter(|lookup| lookup.finds != Finds::Structures && !lookup.is_split_off)
    }

    /// The relations that are read by the field of a declared lookup, sorted.
    #[must_use]
    pub fn relations_by(&self, declared: &Lookup) -> Vec<RelationId> {
        let key = |lookup: &Lookup| (lookup.collection_id, lookup.by.clone(), lookup.text_keys.clone());
        let is_alike = |lookup: &&Lookup| {
            let is_declared = lookup.finds == declared.finds || lookup.is_split_off;
            let is_kind = lookup.finds != Finds::Structures && !lookup.is_reverse;
            is_declared && is_kind && key(lookup) == key(declared)
        };
        let mut relations: Vec<RelationId> =
            self.lookups.iter().filter(is_alike).flat_map(|lookup| lookup.relations.iter().copied()).collect();
        relations.sort_unstable();
        relations.dedup();
        relations
    }

    /// Every lookup from which a resource type or one of its relations is read. A lookup may occur more than once.
    pub fn lookups_of(&self, kind: ResourceTypeId) -> impl Iterator<Item = LookupId> {
        let relations = self.resource(kind).members.values().filter_map(|member| match member {
            Member::Relation(id) => self.relation(*id).lookup(),
            Member::Permission(_) => None,
        });
        let relations = relations.flat_map(|id| [Some(id), self.lookup(id).structures]).flatten();
        self.resource(kind).document.into_iter().chain(relations)
    }

    /// The reverse lookups of a type's relations. One may occur more than once.
    pub(crate) fn reverse_lookups_of(&self, kind: ResourceTypeId) -> impl Iterator<Item = LookupId> {
        let members = self.resource(kind).members.values();
        let reverse = members.map(|member| match member {
            Member::Relation(id) => &*self.relation(*id).reverse,
            Member::Permission(_) => &[],
        });
        reverse.flatten().map(|reverse| reverse.lookup)
    }

    /// The lookup of documents that may name a relation's resource inside a document or a nested array; only for relations
    /// under a `!`.
    #[must_use]
    pub fn structures(&self, relation: &Relation) -> Option<LookupId> {
        if relation.negated { self.lookup(relation.lookup()?).structures } else { None }
    }

    /// The lookup of the own documents of a type.
    fn own_lookup(&self, owner: Owner) -> Option<LookupId> {
        match owner {
            Owner::Resource(kind) => self.resource(kind).document,
            Owner::Subject(kind) => self.relation(self.subject(kind).gate?).lookup(),
        }
    }

    /// The form of the ids of a type.
    fn form(&self, owner: Owner) -> IdForm {
        match owner {
            Owner::Resource(kind) => self.resource(kind).id,
            Owner::Subject(kind) => self.subject(kind).id,
        }
    }

    /// The number of lookups.
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

    /// The permissions of a resource type that requests can ask for, sorted by name.
    pub fn public_permissions(&self, kind: ResourceTypeId) -> impl Iterator<Item = PermissionId> {
        self.resource(kind).members.values().filter_map(|member| match member {
            Member::Permission(id) if !self.permission(*id).private => Some(*id),
            Member::Permission(_) | Member::Relation(_) => None,
        })
    }

    /// Every collection that a lookup reads, once each, in the order of their numbers.
    pub fn collections(&self) -> impl Iterator<Item = &str> {
        self.collections.iter().map(|name| &**name)
    }

    /// The number of a collection; none if no lookup reads it.
    #[must_use]
    pub fn collection_id(&self, name: &str) -> Option<CollectionId> {
        let place = self.collections.binary_search_by(|known| (**known).cmp(name)).ok()?;
        u16::try_from(place).ok().map(CollectionId)
    }

    /// The name of a collection.
    #[must_use]
    pub fn collection_name(&self, id: CollectionId) -> &str {
        entry!(self.collections, id)
    }

    /// Whether a relation is one of the subject's type.
    #[must_use]
    pub fn is_of_subject(&self, relation: RelationId, subject: &Subject) -> bool {
        match (self.relation(relation).owner, subject) {
            (Owner::Subject(kind), Subject::Known { kind: asker, .. }) => kind == *asker,
            (Owner::Resource(_), _) | (Owner::Subject(_), Subject::Anonymous) => false,
        }
    }

    /// Whether a relation can lead to a subject of this type. If not, its documents do not have to be read. Flags, edges and
    /// sets can lead to any subject. A relation with `of` can lead to the types whose relations it names. Under a `!`, a relation
    /// with `subject_type` can lead to any subject, because a document may name a type that the relation does not list.
    #[must_use]
    pub fn can_lead_to(&self, relation: RelationId, subject: &Subject, is_negated: bool) -> bool {
        let relation = self.relation(relation);
        if let Origin::Subject(of) = &relation.origin {
            return of.iter().any(|of| self.is_of_subject(*of, subject));
        }
        let Some(ids) = &relation.ids else { return true };
        let names_types = is_negated && ids.subject_type.is_some();
        names_types
            || ids.targets.iter().any(|target| match target {
                Target::Subject(kind) => matches!(subject, Subject::Known { kind: asker, .. } if asker == kind),
                Target::Set(..) | Target::Resource(_) => true,
            })
    }

    /// Whether a relation can lead to a subject of this type somewhere in the permissions.
    #[must_use]
    pub fn can_concern(&self, relation: RelationId, subject: &Subject) -> bool {
        self.can_lead_to(relation, subject, self.relation(relation).negated)
    }

    /// The name of a relation or a permission.
    #[must_use]
    pub fn member_name(&self, member: Member) -> &str {
        match member {
            Member::Relation(id) => &self.relation(id).name,
            Member::Permission(id) => &self.permission(id).name,
        }
    }

    /// The name of a relation in answers: `type#relation`.
    #[must_use]
    pub fn relation_name(&self, id: RelationId) -> String {
        self.relation_name_parts(id).concat()
    }

    /// The name of a relation in answers, in parts.
    #[must_use]
    pub fn relation_name_parts(&self, id: RelationId) -> [&str; 3] {
        let relation = self.relation(id);
        let owner = match relation.owner {
            Owner::Resource(kind) => &self.resource(kind).name,
            Owner::Subject(kind) => &self.subject(kind).name,
        };
        [owner, "#", &relation.name]
    }
}
