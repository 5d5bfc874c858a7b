//! Hints: what a caller of `Invalidate` named as outdated, by the schema's names, as bytes. So instances with another schema
//! or version understand it too.
//!
//! Marks nothing: each receiver maps a hint to its own lookups, and marks those.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    fact::{DocumentId, FactKey},
    freshness::{Changed, Moment},
    question::{CollectionId, Id, IdForm, Resource, Subject},
    schema::{Finds, Lookup, Schema},
};

/// How many bytes a hint has at most. A larger one becomes a hint that everything is outdated.
pub(super) const BYTES_MAX: usize = 64 * 1_024;

/// What is outdated, and as of which moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hint {
    /// Facts that were read before this moment are outdated. In seconds and an increment.
    at: (u32, u32),
    #[serde(default)]
    all: bool,
    #[serde(default)]
    resources: Vec<Named>,
    #[serde(default)]
    subjects: Vec<Named>,
    #[serde(default)]
    documents: Vec<Documents>,
    /// Fields of a later version.
    #[serde(flatten)]
    unknown: BTreeMap<String, serde_json::Value>,
}

/// A resource or a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    #[serde(rename = "type")]
    kind: String,
    id: IdText,
}

/// Documents of a collection, and the keys under which lookups find them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Documents {
    collection: String,
    ids: Vec<IdText>,
    /// The fields whose values in these documents are listed in `keys`: all by which the sender looks the collection up.
    fields: Vec<String>,
    /// The values of these fields, each with its field.
    keys: Vec<(String, IdText)>,
}

/// An id: the name of its form, and its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IdText(String, String);

/// The name for the form of digests. No schema can declare it.
const DIGEST: &str = "sha256";

impl IdText {
    fn new(id: &Id) -> Self {
        let form = match id {
            Id::ObjectId(_) => IdForm::ObjectId.as_str(),
            Id::Integer(_) => IdForm::Integer.as_str(),
            Id::Uuid(_) => IdForm::Uuid.as_str(),
            Id::String(_) => IdForm::String.as_str(),
            Id::Digest(_) => DIGEST,
        };
        let text = id.to_string();
        Self(form.to_owned(), text.strip_prefix("sha256:").filter(|_| form == DIGEST).unwrap_or(&text).to_owned())
    }

    fn digest(&self) -> Option<Id> {
        (self.0 == DIGEST).then(|| Id::parse_digest(&self.1)).flatten()
    }

    /// The id of a key, which may also be one that stands for everybody or for all keys.
    fn parse_key(&self) -> Option<Id> {
        let is_special = self.0 == IdForm::String.as_str() && matches!(self.1.as_str(), "" | "*");
        if is_special { Some(Id::String(self.1.as_str().into())) } else { self.parse() }
    }

    /// The id, in the form it was written in; none if it is not of that form.
    fn parse(&self) -> Option<Id> {
        let form = IdForm::ALL.into_iter().find(|form| form.as_str() == self.0);
        form.and_then(|form| Id::parse(&self.1, form, false).ok()).or_else(|| self.digest())
    }
}

impl Hint {
    /// A hint that everything read before `at` is outdated.
    #[must_use]
    pub fn all(at: Moment) -> Self {
        Self { all: true, ..Self::empty(at) }
    }

    /// A hint that names nothing yet.
    #[must_use]
    pub fn empty(at: Moment) -> Self {
        Self { at: (at.seconds(), at.increment()), ..Self::default() }
    }

    /// Adds every fact that is looked up by a resource.
    pub fn add_resource(&mut self, schema: &Schema, resource: &Resource) {
        let kind = schema.resource(resource.kind).name.to_string();
        self.resources.push(Named { kind, id: IdText::new(&resource.id) });
    }

    /// Adds every fact, as used for this subject.
    pub fn add_subject(&mut self, schema: &Schema, subject: &Subject) {
        if let Subject::Known { kind, id } = subject {
            let kind = schema.subject(*kind).name.to_string();
            self.subjects.push(Named { kind, id: IdText::new(id) });
        }
    }

    /// Adds documents of a collection, and the keys under which they are found now.
    pub fn add_documents(&mut self, schema: &Schema, collection: CollectionId, ids: &[Id], keys: &[FactKey]) {
        let lookups = schema.lookups().filter(|(_, lookup)| lookup.collection_id == collection);
        let keys =
            keys.iter().map(|FactKey { lookup, id, subject: _ }| (field_name(schema.lookup(*lookup)), IdText::new(id)));
        self.documents.push(Documents {
            collection: schema.collection_name(collection).to_owned(),
            ids: ids.iter().map(IdText::new).collect(),
            fields: lookups.map(|(_, lookup)| field_name(lookup)).collect(),
            keys: keys.collect(),
        });
    }

    /// The moment before which facts are outdated.
    #[must_use]
    pub fn at(&self) -> Moment {
        Moment::new(self.at.0, self.at.1)
    }

    /// The changes in terms of a schema. Everything, if the sender's version or schema differs so that the changes cannot be
    /// determined.
    #[must_use]
    pub fn changed(&self, schema: &Schema) -> Vec<Changed> {
        let mut changed = Vec::new();
        if self.all || !self.unknown.is_empty() {
            return vec![Changed::Everything];
        }
        for Named { kind, id } in &self.resources {
            // A type that this schema lacks has no lookups here.
            if schema.resources().any(|(_, known)| *known.name == **kind) {
                match schema.read_resource(kind, &id.1) {
                    Ok(resource) => changed.extend(FactKey::outdated_with(schema, &resource).map(Changed::Key)),
                    Err(_) => return vec![Changed::Everything],
                }
            }
        }
        for Named { kind, id } in &self.subjects {
            if let Some((kind, known)) = schema.subjects().find(|(_, known)| *known.name == **kind) {
                let id = match id.digest() {
                    Some(digest) => known.secret.then_some(digest),
                    None => Id::parse(&id.1, known.id, known.secret).ok(),
                };
                match id {
                    Some(id) => changed.push(Changed::Subject(Subject::Known { kind, id })),
                    None => return vec![Changed::Everything],
                }
            }
        }
        for documents in &self.documents {
            match documents.changed(schema) {
                Some(of_documents) => changed.extend(of_documents),
                None => return vec![Changed::Everything],
            }
        }
        changed
    }

    /// Encodes the hint.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match serde_json::to_vec(self) {
            Ok(bytes) if bytes.len() <= BYTES_MAX => bytes,
            _ => serde_json::to_vec(&Self::all(self.at())).unwrap_or_default(),
        }
    }

    /// Decodes a hint; none if the bytes are no hint.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The name of the field of a lookup in a hint. A sender that does not search for other forms of ids, as its schema does not
/// need them or its version does not know them, has not determined the keys of such lookups.
fn field_name(lookup: &Lookup) -> String {
    let by = match &lookup.text_keys {
        None => lookup.by.to_string(),
        Some(keys) => format!("{} as {:?} in {}", lookup.by, keys.id, keys.format.text("{id}")),
    };
    if lookup.is_reverse {
        return format!("{by} (reverse)");
    }
    match lookup.finds {
        Finds::DeclaredForm => by,
        Finds::EveryForm => format!("{by} (every form of {:?})", lookup.forms),
        Finds::Structures => format!("{by} (structures)"),
    }
}

impl Documents {
    fn changed(&self, schema: &Schema) -> Option<Vec<Changed>> {
        let Some(collection) = schema.collection_id(&self.collection) else { return Some(Vec::new()) };
        let lookups = || schema.lookups().filter(|(_, lookup)| lookup.collection_id == collection);
        // For lookups by other fields, the sender did not determine the documents' keys.
        if lookups().any(|(_, lookup)| !self.fields.contains(&field_name(lookup))) {
            return None;
        }
        let mut changed = Vec::new();
        for id in &self.ids {
            changed.push(Changed::Document { collection, id: DocumentId::Id(id.parse()?) });
        }
        for (field, id) in &self.keys {
            let id = id.parse_key()?;
            let found = lookups().filter(|(_, lookup)| field_name(lookup) == *field);
            changed.extend(found.map(|(lookup, _)| Changed::Key(FactKey::whole(lookup, id.clone()))));
        }
        Some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{LookupId, SubjectTypeId};

    const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]

[subject.link]
id = "string"
secret = true

[resource.file]
collection = "files"

[resource.file.relations]
owner = { field = "owner_id" }
guest = { collection = "shares", by = "file_id", field = "user_id" }
link = { collection = "shares", by = "file_id", field = "token", subject = "link" }

[resource.file.permissions]
read = "owner | guest | link"
"#;

    fn schema(text: &str) -> Schema {
        Schema::parse("schema.toml", text).unwrap()
    }

    fn hint(schema: &Schema) -> Hint {
        let mut hint = Hint::empty(Moment::new(1_763_900_000, 7));
        let id = Id::ObjectId([7; 12]);
        hint.add_resource(schema, &schema.read_resource("file", &id.to_string()).unwrap());
        hint.add_subject(schema, &schema.read_subject("user", &id.to_string()).unwrap());
        hint.add_subject(schema, &schema.read_subject("link", "s3cret").unwrap());
        let shares = schema.collection_id("shares").unwrap();
        let (lookup, _) = schema.lookups().find(|(_, lookup)| lookup.by.as_str() == "file_id").unwrap();
        hint.add_documents(schema, shares, &[Id::Integer(5), id.clone()], &[FactKey::whole(lookup, id)]);
        hint
    }

    fn received(bytes: &[u8], schema: &Schema) -> Vec<Changed> {
        let hint = Hint::decode(bytes).unwrap();
        assert_eq!(hint.at(), Moment::new(1_763_900_000, 7));
        hint.changed(schema)
    }

    #[test]
    fn a_receiver_with_the_same_schema_marks_what_was_named_and_no_secret_is_sent() {
        let schema = schema(SCHEMA);
        let bytes = hint(&schema).encode();
        assert!(!String::from_utf8_lossy(&bytes).contains("s3cret"));
        let changed = received(&bytes, &schema);
        let id = Id::ObjectId([7; 12]);
        let key = |lookup| Changed::Key(FactKey::whole(LookupId(lookup), id.clone()));
        let subject = |kind, id| Changed::Subject(Subject::Known { kind: SubjectTypeId(kind), id });
        let number = |name: &str| schema.subjects().find(|(_, kind)| &*kind.name == name).unwrap().0.0;
        for wanted in [
            key(0),
            key(1),
            subject(number("user"), id.clone()),
            subject(number("link"), Id::digest("s3cret")),
            Changed::Document {
                collection: schema.collection_id("shares").unwrap(),
                id: DocumentId::Id(Id::Integer(5)),
            },
        ] {
            assert!(changed.contains(&wanted), "{wanted:?} in {changed:?}");
        }
        assert!(!changed.contains(&Changed::Everything));
    }

    #[test]
    fn a_resource_marks_all_keys_of_the_reverse_lookups_that_may_lead_to_it() {
        let schema = schema(SCHEMA);
        let mut hint = Hint::empty(Moment::new(1_763_900_000, 7));
        let id = Id::ObjectId([7; 12]);
        hint.add_resource(&schema, &schema.read_resource("file", &id.to_string()).unwrap());
        let changed = received(&hint.encode(), &schema);
        let mut reverse = schema.lookups().filter(|(_, lookup)| lookup.is_reverse).peekable();
        assert!(reverse.peek().is_some());
        for (lookup, _) in reverse {
            assert!(changed.contains(&Changed::Key(FactKey::all_reverse(lookup))), "{changed:?}");
        }
    }

    #[test]
    fn a_receiver_with_another_schema_marks_its_own_lookups_or_everything() {
        let own = schema(SCHEMA);
        let bytes = hint(&own).encode();
        let more = SCHEMA
            .replace("link = {", "badge = { collection = \"badges\", by = \"file\", field = \"user\" }\nlink = {");
        let more = schema(&more.replace("| link", "| link | badge"));
        let badges = more.collection_id("badges").unwrap();
        let of_badges =
            |changed: &Changed| matches!(changed, Changed::Key(key) if more.lookup(key.lookup).collection_id == badges);
        assert!(received(&bytes, &more).iter().any(of_badges), "the receiver's own lookup of the resource is marked");
        // The sender did not determine the shares' values of the other field.
        let other = schema(&SCHEMA.replace("by = \"file_id\"", "by = \"document_id\""));
        assert_eq!(received(&bytes, &other), [Changed::Everything]);
        // The id has another form, or the sender's digest cannot be compared with plain ids.
        let other = schema(&SCHEMA.replace("[resource.file]", "[resource.file]\nid = \"uuid\""));
        assert_eq!(received(&bytes, &other), [Changed::Everything]);
        let other = schema(&SCHEMA.replace("secret = true", ""));
        assert_eq!(received(&bytes, &other), [Changed::Everything]);
        // A receiver ignores resources and documents that its schema lacks.
        let other = schema(&SCHEMA.replace("file", "paper").replace("files", "papers").replace("shares", "grants"));
        assert!(received(&bytes, &other).iter().all(|changed| matches!(changed, Changed::Subject(_))));
    }

    #[test]
    fn a_receiver_that_searches_for_other_forms_marks_their_keys_or_everything() {
        let own = schema(SCHEMA);
        let searching = schema(&SCHEMA.replace("owner | guest", "owner & !guest"));
        // The sender does not search, so it has not determined these keys.
        assert_eq!(received(&hint(&own).encode(), &searching), [Changed::Everything]);
        let shares = searching.collection_id("shares").unwrap();
        let structures = searching.lookups().find_map(|(_, lookup)| lookup.structures).unwrap();
        let mut hint = Hint::empty(Moment::new(1_763_900_000, 7));
        hint.add_documents(&searching, shares, &[Id::Integer(5)], &[FactKey::structures(structures)]);
        let changed = received(&hint.encode(), &searching);
        assert!(changed.contains(&Changed::Key(FactKey::structures(structures))), "{changed:?}");
        let mut hint = Hint::empty(Moment::new(1_763_900_000, 7));
        let id = Id::ObjectId([7; 12]);
        hint.add_resource(&own, &own.read_resource("file", &id.to_string()).unwrap());
        let changed = received(&hint.encode(), &searching);
        assert!(changed.contains(&Changed::Key(FactKey::structures(structures))), "{changed:?}");
    }

    #[test]
    fn keys_of_reverse_lookups_that_stand_for_everybody_or_for_all_are_named() {
        let schema = schema(SCHEMA);
        let (lookup, _) = schema.lookups().find(|(_, lookup)| lookup.is_reverse).unwrap();
        let collection = schema.collection_id("shares").unwrap();
        let mut hint = Hint::empty(Moment::new(1_763_900_000, 7));
        let keys = [FactKey::everybody(lookup), FactKey::all_reverse(lookup), FactKey::whole(lookup, Id::Integer(7))];
        hint.add_documents(&schema, collection, &[Id::Integer(1)], &keys);
        let changed = Hint::decode(&hint.encode()).unwrap().changed(&schema);
        let document = Changed::Document { collection, id: DocumentId::Id(Id::Integer(1)) };
        assert_eq!(changed, [document].into_iter().chain(keys.map(Changed::Key)).collect::<Vec<_>>());
    }

    #[test]
    fn fields_of_a_later_version_and_hints_that_are_too_long_mean_everything() {
        let schema = schema(SCHEMA);
        let later = br#"{"at":[1763900000,7],"relations":["file#owner"]}"#;
        assert_eq!(received(later, &schema), [Changed::Everything]);
        let mut long = hint(&schema);
        for number in 0..20_000 {
            let shares = schema.collection_id("shares").unwrap();
            long.add_documents(&schema, shares, &[Id::Integer(number)], &[]);
        }
        let bytes = long.encode();
        assert!(bytes.len() < BYTES_MAX);
        assert_eq!(received(&bytes, &schema), [Changed::Everything]);
        assert_eq!(Hint::decode(b"{}"), None);
    }
}
