//! Reverse lookups: by the field in which a relation has its subjects, its sets or the ends of its edges. A list finds there on
//! which resources a subject may have a permission.
//!
//! They find candidates only: more resources than the relation grants on, never fewer. No answer to a check depends on them.

use std::collections::{BTreeSet, HashMap};

use super::{Condition, Ids, Lookup, Origin, Owner, Path, Relation, Schema, Target};
use crate::{
    question::{IdForm, LookupId, RelationId, ResourceTypeId},
    schema::{Reverse, TextKeys},
};

/// What distinguishes reverse lookups: the collection, the field, and how it writes ids.
type Field = (Box<str>, Path, Option<TextKeys>);

/// Adds reverse lookups for every relation whose resources a list has to find, and to each a hidden relation that leads to them.
pub(super) fn add_reverse_lookups(schema: &mut Schema) {
    let mut added = Added { lookups: Vec::new(), relations: Vec::new(), known: HashMap::new() };
    let (targets, secrets) = (targets(schema), secret_fields(schema));
    let reverses: Vec<Box<[Reverse]>> = schema
        .relations
        .iter()
        .map(|relation| match reversed(schema, relation, &targets, &secrets) {
            Some(reversed) => added.reverse(schema, relation, &reversed),
            None => Box::default(),
        })
        .collect();
    for (relation, reverse) in schema.relations.iter_mut().zip(reverses) {
        relation.reverse = reverse;
    }
    let Added { lookups, relations, .. } = added;
    schema.lookups = std::mem::take(&mut schema.lookups).into_iter().chain(lookups).collect();
    schema.relations = std::mem::take(&mut schema.relations).into_iter().chain(relations).collect();
}

/// A relation that has reverse lookups.
struct Reversed<'a> {
    /// The lookup from which the relation is read.
    lookup: &'a Lookup,
    ids: &'a Ids,
    /// The type of its resources.
    kind: ResourceTypeId,
    /// The field of its ids in the documents of the lookup.
    field: Path,
}

/// What is added to the schema.
struct Added {
    lookups: Vec<Lookup>,
    relations: Vec<Relation>,
    known: HashMap<Field, LookupId>,
}

impl Added {
    /// Adds the reverse lookups of a relation: one, or one for each form of ids that are written as text.
    fn reverse(&mut self, schema: &Schema, relation: &Relation, reversed: &Reversed<'_>) -> Box<[Reverse]> {
        let forms = forms(schema, reversed.ids);
        let keys: Vec<Option<TextKeys>> = match &reversed.ids.format {
            None => vec![None],
            Some(format) => forms.iter().map(|id| Some(TextKeys { format: format.clone(), id: *id })).collect(),
        };
        let reverse = keys.into_iter().map(|text_keys| {
            let form = text_keys.as_ref().map(|keys| keys.id);
            let lookup = self.lookup(schema, reversed, text_keys, &forms);
            let id = number(schema.relations.len() + self.relations.len(), RelationId);
            self.relations.push(hidden(schema, relation, reversed, lookup));
            Reverse { form, lookup, relation: id }
        });
        reverse.collect()
    }

    /// The reverse lookup by a field. It is created when it is first used.
    fn lookup(
        &mut self,
        schema: &Schema,
        reversed: &Reversed<'_>,
        text_keys: Option<TextKeys>,
        forms: &[IdForm],
    ) -> LookupId {
        let (collection, first) = (&reversed.lookup.collection, schema.lookups.len());
        let field = (collection.clone(), reversed.field.clone(), text_keys.clone());
        let id = *self.known.entry(field).or_insert_with(|| {
            let lookup = Lookup::new(collection, reversed.field.clone());
            self.lookups.push(Lookup { text_keys, is_reverse: true, ..lookup });
            number(first + self.lookups.len() - 1, LookupId)
        });
        if let Some(lookup) = self.lookups.get_mut(id.index().saturating_sub(first)) {
            let more = forms.iter().copied().filter(|form| !lookup.forms.contains(form));
            lookup.forms = lookup.forms.iter().copied().chain(more.collect::<Vec<_>>()).collect();
        }
        id
    }
}

/// The compiler has made sure that the numbers fit.
fn number<T>(count: usize, make: fn(u16) -> T) -> T {
    make(u16::try_from(count).unwrap_or(u16::MAX))
}

/// The relation as its reverse lookups serve it; none if no list needs them, or if their keys would be secrets.
fn reversed<'a>(
    schema: &'a Schema,
    relation: &'a Relation,
    targets: &BTreeSet<ResourceTypeId>,
    secrets: &BTreeSet<(&str, Path)>,
) -> Option<Reversed<'a>> {
    let (Owner::Resource(kind), Some(ids), Some(lookup)) = (relation.owner, &relation.ids, relation.lookup()) else {
        return None;
    };
    let is_own = schema.resource(kind).document == Some(lookup);
    let (lookup, field) = (schema.lookup(lookup), relation.path_in_document(&ids.field));
    let is_listed = !is_own || targets.contains(&kind);
    let is_secret = secrets.contains(&(&*lookup.collection, field.clone()));
    (is_listed && !is_secret).then_some(Reversed { lookup, ids, kind, field })
}

/// The types that an edge or a set leads to.
fn targets(schema: &Schema) -> BTreeSet<ResourceTypeId> {
    let of_resources = schema.relations.iter().filter(|relation| matches!(relation.owner, Owner::Resource(_)));
    let targets = of_resources.filter_map(|relation| relation.ids.as_ref()).flat_map(|ids| &ids.targets);
    let kind = |target: &Target| match target {
        Target::Set(kind, _) | Target::Resource(kind) => Some(*kind),
        Target::Subject(_) => None,
    };
    targets.filter_map(kind).collect()
}

/// The fields that contain secrets, by collection. As keys they would be stored in Redis, whichever relation they belong to.
fn secret_fields(schema: &Schema) -> BTreeSet<(&str, Path)> {
    let is_secret = |target: &Target| match target {
        Target::Subject(kind) => schema.subject(*kind).secret,
        Target::Set(..) | Target::Resource(_) => false,
    };
    let secret = |relation: &Relation| {
        let ids = relation.ids.as_ref().filter(|ids| ids.targets.iter().any(is_secret))?;
        Some((&*schema.lookup(relation.lookup()?).collection, relation.path_in_document(&ids.field)))
    };
    schema.relations.iter().filter_map(secret).collect()
}

/// The forms of the ids of a relation's targets.
fn forms(schema: &Schema, ids: &Ids) -> Vec<IdForm> {
    let mut forms = Vec::new();
    for target in &ids.targets {
        let form = match *target {
            Target::Subject(kind) => schema.subject(kind).id,
            Target::Set(kind, _) | Target::Resource(kind) => schema.resource(kind).id,
        };
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

/// The relation that is read from the documents of a reverse lookup. It leads from the id that is looked up to the resources on which
/// the relation may grant it something.
///
/// It drops no document from which the relation grants. So it keeps only conditions on whole documents, and dates only where
/// they are the document's.
fn hidden(schema: &Schema, relation: &Relation, reversed: &Reversed<'_>, reverse: LookupId) -> Relation {
    let Reversed { lookup, kind, .. } = reversed;
    let ids = Ids {
        field: lookup.by.clone(),
        format: lookup.text_keys.as_ref().map(|keys| keys.format.clone()),
        targets: [Target::Resource(*kind)].into(),
        type_values: None,
        subject_type: None,
        subject_relation: None,
        wildcard: false,
        must_exist: false,
    };
    let own = schema.resource(*kind);
    // Several types may share a collection. Nothing is granted on a resource whose document is another type's.
    let gate = own.gate.filter(|_| own.document == relation.lookup());
    let gate = gate.and_then(|gate| schema.relation(gate).condition.clone());
    let conditions: Vec<Condition> = relation.condition_of_document().cloned().into_iter().chain(gate).collect();
    let condition = (!conditions.is_empty()).then(|| Condition::all(conditions));
    let is_of_document = relation.each.is_none();
    Relation {
        name: relation.name.clone(),
        condition,
        ids: Some(ids),
        since: relation.since.clone().filter(|_| is_of_document),
        until: relation.until.clone().filter(|_| is_of_document),
        ..Relation::flag(relation.owner, Origin::Documents(reverse))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Member;

    const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
collection = "users"
[subject.user.relations]
teams = { field = "team_ids", resource = "team" }
[subject.robot]
id = "string"
[subject.link]
id = "string"
secret = true

[resource.team]
collection = "teams"
[resource.team.relations]
member = { of = "user.teams" }
lead = { field = "lead_id" }
[resource.team.permissions]
see = "member | lead"

[resource.folder]
collection = "items"
where = { kind = "folder" }
[resource.folder.relations]
owner = { field = "owner_id" }
parent = { field = "parent_id", resource = "folder" }
open = { where = { open = true } }
[resource.folder.permissions]
read = "owner | open | parent.read"

[resource.file]
collection = "items"
where = { kind = "file" }
[resource.file.relations]
owner = { field = "owner_id" }
folder = { field = "parent_id", resource = "folder" }
writer = { each = "shared", field = "user_id", document_where = { kind = "file" }, until = "until" }
guest = { collection = "shares", by = "file_id", field = "user_id", where = { kind = 1 }, until = "until" }
element = { collection = "shares", by = "file_id", each = "to", field = "user_id", where = { right = 1 }, document_where = { on = true }, since = "since" }
link = { collection = "shares", by = "file_id", field = "token", subject = "link" }
other = { collection = "shares", by = "file_id", field = "token", where = { kind = 2 } }
kept = { collection = "holds", by = "file_id" }
viewer = { collection = "grants", by = { field = "on", format = "file:{id}" }, field = "who", format = "to:{id}", subject = ["user", "robot", "team.member"], subject_type = "t", subject_relation = "r", wildcard = true }
[resource.file.permissions]
read = "owner | writer | guest | element | link | other | viewer | folder.read & !kept"

[resource.bare]
id = "string"
[resource.bare.relations]
owner = { collection = "bares", by = "bare", field = "owner" }
[resource.bare.permissions]
read = "owner"
"#;

    fn schema() -> Schema {
        Schema::parse("schema.toml", SCHEMA).unwrap()
    }

    fn relation<'a>(schema: &'a Schema, kind: &str, name: &str) -> (RelationId, &'a Relation) {
        let (_, kind) = schema.resources().find(|(_, resource)| *resource.name == *kind).unwrap();
        match kind.members.get(name) {
            Some(Member::Relation(id)) => (*id, schema.relation(*id)),
            other => panic!("{name} is {other:?}"),
        }
    }

    /// The reverse lookups of a relation, as collection, field and format.
    fn fields(schema: &Schema, kind: &str, name: &str) -> Vec<String> {
        let reverse = relation(schema, kind, name).1.reverse.iter().map(|reverse| {
            let lookup = schema.lookup(reverse.lookup);
            assert!(lookup.is_reverse && lookup.finds == crate::schema::Finds::DeclaredForm);
            assert!(lookup.relations.contains(&reverse.relation));
            assert_eq!(schema.relation(reverse.relation).lookup(), Some(reverse.lookup));
            let text = lookup.text_keys.as_ref().map(|keys| format!(" as {} of {:?}", keys.format.text("…"), keys.id));
            format!("{} by {}{}", lookup.collection, lookup.by, text.unwrap_or_default())
        });
        reverse.collect()
    }

    #[test]
    fn relations_whose_resources_must_be_found_have_reverse_lookups() {
        let schema = schema();
        for (kind, name, expected) in [
            ("folder", "owner", &["items by owner_id"][..]),
            ("folder", "parent", &["items by parent_id"]),
            ("team", "lead", &["teams by lead_id"]),
            ("file", "guest", &["shares by user_id"]),
            ("file", "element", &["shares by to.user_id"]),
            ("bare", "owner", &["bares by owner"]),
            // In an order that does not matter.
            ("file", "viewer", &["grants by who as to:… of ObjectId", "grants by who as to:… of String"]),
            // The filter on its own collection finds these.
            ("file", "owner", &[]),
            ("file", "folder", &[]),
            ("file", "writer", &[]),
            // They lead to no id.
            ("folder", "open", &[]),
            ("file", "kept", &[]),
            ("team", "member", &[]),
            // Secrets, and another relation of the same field.
            ("file", "link", &[]),
            ("file", "other", &[]),
        ] {
            assert_eq!(fields(&schema, kind, name), expected, "{kind}#{name}");
        }
    }

    #[test]
    fn a_hidden_relation_leads_back_and_keeps_only_what_loses_no_document() {
        let schema = schema();
        let hidden = |kind: &str, name: &str| schema.relation(relation(&schema, kind, name).1.reverse[0].relation);
        let field = |relation: &Relation| relation.ids.as_ref().unwrap().field.to_string();
        let shown = |relation: &Relation| format!("{:?}", relation.condition.as_ref().map(Condition::to_query));

        let guest = hidden("file", "guest");
        assert_eq!((field(guest), guest.until.is_some()), ("file_id".to_owned(), true));
        assert_eq!(guest.condition, relation(&schema, "file", "guest").1.condition);

        // The dates and the condition of an element would be read from the document.
        let element = hidden("file", "element");
        assert_eq!((field(element), &element.since, &element.each), ("file_id".to_owned(), &None, &None));
        assert_eq!(element.condition, relation(&schema, "file", "element").1.document_condition);

        let viewer = hidden("file", "viewer");
        assert_eq!(viewer.ids.as_ref().unwrap().format.as_ref().unwrap().text("1"), "file:1");

        // Files in a folder are no folders.
        let parent = hidden("folder", "parent");
        assert_eq!(field(parent), "_id");
        assert!(shown(parent).contains("folder"), "{}", shown(parent));
        let reads =
            |lookup: LookupId| schema.lookup(lookup).wanted.as_ref().unwrap().matches(&bson::doc! { "kind": "file" });
        assert!(!reads(relation(&schema, "folder", "parent").1.reverse[0].lookup));
    }

    #[test]
    fn reverse_lookups_are_the_last_and_checks_do_not_see_them() {
        let schema = schema();
        let first = schema.lookups().position(|(_, lookup)| lookup.is_reverse).unwrap();
        assert!(schema.lookups().skip(first).all(|(_, lookup)| lookup.is_reverse));
        assert_eq!(schema.lookups_of_checks().count(), first);
        assert!(schema.declared_lookups().all(|lookup| !lookup.is_reverse));
        for (kind, resource) in schema.resources() {
            assert!(schema.lookups_of(kind).all(|lookup| !schema.lookup(lookup).is_reverse), "{}", resource.name);
        }
        let hidden: BTreeSet<RelationId> =
            schema.relations.iter().flat_map(|relation| &relation.reverse).map(|reverse| reverse.relation).collect();
        for (_, lookup) in schema.lookups_of_checks() {
            assert!(lookup.relations.iter().all(|id| !hidden.contains(id)), "{lookup:?}");
        }
    }
}
