//! Turns documents into the parts of a fact: reads each relation of a lookup from each document.
//!
//! Records values of a wrong type, but does not decide what follows from them: the evaluator does.

use bson::{Bson, Document};

use super::{
    Certainty, DOCUMENTS_MAX, DocumentId, FactKey, Grant, Grantee, Part, SHOWN_BYTES_MAX, UNBOUNDED, Window,
    date::Date,
    grants::Grants,
    keys::has_declared_key,
    value::{id_from_bson, id_of_text},
};
use crate::{
    question::{ID_BYTES_MAX, IdForm, RelationId},
    schema::{Condition, End, Finds, Ids, Lookup, Path, Relation, Schema, Target},
};

/// The parts of a fact, whole or filtered to a subject; none if there is more than a fact may contain. The relations in `beyond` are
/// not read: there is more than a fact may contain for each, and one of their documents is given.
pub(super) fn parts(
    schema: &Schema,
    key: &FactKey,
    documents: &[&Document],
    beyond: &[(RelationId, DocumentId)],
) -> Option<Vec<Part>> {
    let subject = key.subject();
    if subject.is_none() && documents.len() > DOCUMENTS_MAX {
        return None;
    }
    let lookup = schema.lookup(key.lookup);
    let mut sorted: Vec<(DocumentId, &Document)> =
        documents.iter().map(|document| (DocumentId::of(document), *document)).collect();
    sorted.sort_by(|(left, _), (right, _)| left.cmp(right));
    let mut grants = Grants::new(schema, lookup, subject);
    for (relation, document) in beyond {
        let place = sorted.partition_point(|(id, _)| id < document);
        grants.push(place, Grant::over_limit(*relation), Window::default());
    }
    for (place, (_, document)) in sorted.iter().enumerate() {
        // A document whose key cannot be read may have been found by a key that it does not have.
        let is_unreadable = lookup.by.meets_unreadable(document);
        let has_other_form = match lookup.finds {
            Finds::DeclaredForm => false,
            Finds::EveryForm => !is_unreadable && !has_declared_key(lookup, document, &key.id),
            Finds::Structures => true,
        };
        let found = if is_unreadable || has_other_form { Certainty::Doubtful } else { Certainty::Sure };
        for id in lookup.relations.iter().filter(|id| subject.is_none_or(|subject| schema.can_concern(**id, subject))) {
            let relation = schema.relation(*id);
            // For a relation that only grants, such a document is as if it were not found.
            if has_other_form && !relation.negated {
                continue;
            }
            let before = grants.count();
            // The key and what the relation reads may be in different elements of one array.
            let is_ambiguous = relation.shared.as_ref().is_some_and(|shared| shared.meets_array(document));
            let found = if is_ambiguous { found.max(Certainty::Doubtful) } else { found };
            Reader { schema, lookup, relation, id: *id, place, found, is_ambiguous, grants: &mut grants }
                .document(document);
            grants.deduplicate(before);
            if grants.are_too_many() {
                return None;
            }
        }
    }
    grants.into_parts(sorted.into_iter().map(|(id, _)| id).collect())
}

/// Reads one relation from one document.
struct Reader<'a, 'b> {
    schema: &'a Schema,
    lookup: &'a Lookup,
    relation: &'a Relation,
    id: RelationId,
    place: usize,
    /// The certainty that the document has the key.
    found: Certainty,
    /// Whether what the relation reads may belong to another resource in the same array.
    is_ambiguous: bool,
    grants: &'a mut Grants<'b>,
}

impl Reader<'_, '_> {
    fn document(&mut self, document: &Document) {
        let Some(each) = &self.relation.each else {
            if let Some(certainty) = self.test(self.relation.condition.as_ref(), document) {
                self.part(document, self.found.max(certainty));
            }
            return;
        };
        let Some(certainty) = self.test(self.relation.document_condition.as_ref(), document) else { return };
        let certainty = self.found.max(certainty);
        each.ends(document, &mut |end| match end {
            End::Value(Bson::Array(items)) => items.iter().for_each(|item| self.element(item, certainty)),
            End::Missing => {}
            End::Value(_) | End::Blocked => self.grant(Grantee::Unreadable, 0, certainty, Window::default()),
        });
    }

    fn element(&mut self, item: &Bson, certainty: Certainty) {
        match item {
            Bson::Document(element) => {
                if let Some(own) = self.test(self.relation.condition.as_ref(), element) {
                    self.part(element, certainty.max(own));
                }
            }
            Bson::Null | Bson::Undefined => {}
            _ => self.grant(Grantee::Unreadable, 0, certainty, Window::default()),
        }
    }

    /// The certainty with which a condition counts. None if the document does not match, except if a value has a wrong type
    /// and the relation stands under a `!`. If a value cannot be read, the document may match or not.
    fn test(&self, condition: Option<&Condition>, document: &Document) -> Option<Certainty> {
        let Some(condition) = condition else { return Some(Certainty::Sure) };
        if condition.meets_unreadable(document) {
            return Some(Certainty::Doubtful);
        }
        match (condition.matches(document), condition.is_typed(document) && !self.is_ambiguous) {
            (true, true) => Some(Certainty::Sure),
            (true, false) => Some(Certainty::Doubtful),
            (false, false) if self.relation.negated => Some(Certainty::Suspect),
            (false, _) => None,
        }
    }

    /// Reads ids and dates from a document or an element that fulfils the condition.
    fn part(&mut self, part: &Document, certainty: Certainty) {
        let (window, is_malformed) = self.window(part);
        let certainty = if is_malformed { certainty.max(Certainty::Doubtful) } else { certainty };
        let Some(ids) = &self.relation.ids else {
            self.grant(Grantee::Flag, 0, certainty, window);
            return;
        };
        let target = match target(self.schema, ids, part) {
            Kind::Nothing => return,
            Kind::Unreadable => Err(Grantee::Unreadable),
            Kind::Unknown(name) => Err(Grantee::Unknown(shown(&name))),
            Kind::Target(place, target) => Ok((place, target)),
        };
        let one = |reader: &mut Self, value: &Bson| {
            if let Some(grantee) = reader.grantee(ids, &target, value) {
                reader.grant(grantee, target.as_ref().map_or(0, |(place, _)| *place), certainty, window);
            }
        };
        ids.field.ends(part, &mut |end| match end {
            End::Value(Bson::Array(items)) => items.iter().for_each(|item| one(self, item)),
            End::Value(value) => one(self, value),
            End::Missing => {}
            End::Blocked => self.grant(Grantee::Unreadable, 0, certainty, window),
        });
    }

    /// The grantee that a value means; none if it is null, empty, too long for any id, or a text without the fixed parts of
    /// the relation's format. `target` is an error if the document does not name a valid type for its ids.
    fn grantee(&self, ids: &Ids, target: &Result<(u8, Target), Grantee>, value: &Bson) -> Option<Grantee> {
        match value {
            Bson::Null | Bson::Undefined => return None,
            Bson::String(text) if text.is_empty() => return None,
            _ => {}
        }
        let target = match target {
            Ok((_, target)) => *target,
            Err(grantee) => return Some(grantee.clone()),
        };
        // In MongoDB a symbol equals a string, so the relation that this one reverses finds a document by it.
        let text_of_symbol = match value {
            Bson::Symbol(text) if self.lookup.is_reverse => Some(Bson::String(text.clone())),
            _ => None,
        };
        let value = text_of_symbol.as_ref().unwrap_or(value);
        let (form, is_secret) = match target {
            Target::Subject(kind) => (self.schema.subject(kind).id, self.schema.subject(kind).secret),
            Target::Set(kind, _) | Target::Resource(kind) => (self.schema.resource(kind).id, false),
        };
        let text = match (&ids.format, value) {
            (Some(format), Bson::String(text)) => Some(format.id_in(text)?),
            (None, Bson::String(text)) => Some(text.as_str()),
            (_, _) => None,
        };
        if text == Some("*") {
            return Some(match target {
                Target::Subject(_) if ids.wildcard => Grantee::Everyone,
                Target::Subject(_) | Target::Set(..) | Target::Resource(_) => Grantee::Unreadable,
            });
        }
        if form == IdForm::String && text.is_some_and(|text| text.len() > ID_BYTES_MAX) {
            return None;
        }
        let id = match (&ids.format, text) {
            (None, _) => id_from_bson(value, form, is_secret),
            (Some(_), Some(text)) => id_of_text(text, form, is_secret),
            (Some(_), None) => None,
        };
        Some(match (id, value) {
            (Some(id), _) => Grantee::Id(id),
            (None, Bson::String(text)) if ids.format.is_some() && !is_secret => Grantee::Unknown(shown(text)),
            (None, _) => Grantee::Unreadable,
        })
    }

    /// The window of a document or an element, and whether one of its dates is malformed.
    fn window(&self, part: &Document) -> (Window, bool) {
        let mut window = Window::default();
        let mut is_malformed = false;
        for (field, bound) in [(&self.relation.since, &mut window.since), (&self.relation.until, &mut window.until)] {
            let Some(field) = field else { continue };
            match Date::read(field, part) {
                Date::At(moment) => *bound = moment,
                Date::Missing => is_malformed |= self.relation.required,
                Date::Malformed => is_malformed = true,
            }
        }
        (window, is_malformed)
    }

    fn grant(&mut self, grantee: Grantee, target: u8, certainty: Certainty, window: Window) {
        let grant = Grant { relation: self.id, document: 0, certainty, grantee, target, window: UNBOUNDED };
        self.grants.push(self.place, grant, window);
    }
}

/// What the ids of a document lead to.
enum Kind {
    /// One of the relation's targets, with its index.
    Target(u8, Target),
    /// Nobody: the document names no type.
    Nothing,
    /// The document names a type that is not one of the targets.
    Unknown(String),
    /// The name of the type has a wrong type.
    Unreadable,
}

/// Which of the relation's targets the ids of a document or an element mean.
fn target(schema: &Schema, ids: &Ids, part: &Document) -> Kind {
    let Some(type_field) = &ids.subject_type else {
        return ids.targets.first().map_or(Kind::Nothing, |target| Kind::Target(0, *target));
    };
    let (kind, relation) = match (name(Some(type_field), part), name(ids.subject_relation.as_ref(), part)) {
        (Text::Missing, _) => return Kind::Nothing,
        (Text::Malformed, _) | (_, Text::Malformed) => return Kind::Unreadable,
        (Text::Is(kind), Text::Is(relation)) => (kind, Some(relation)),
        (Text::Is(kind), Text::Missing) => (kind, None),
    };
    let is_named = |place: u8, name: &str| match &ids.type_values {
        Some(values) => values.get(usize::from(place)).is_some_and(|value| **value == *kind),
        None => name == kind,
    };
    let is_meant = |(place, target): &(u8, &Target)| match **target {
        Target::Subject(id) => is_named(*place, &schema.subject(id).name) && relation.is_none(),
        Target::Set(id, member) => {
            let is_relation = match relation {
                Some(name) => schema.resource(id).members.get(name) == Some(&member),
                None => ids.subject_relation.is_none(),
            };
            is_named(*place, &schema.resource(id).name) && is_relation
        }
        Target::Resource(_) => false,
    };
    let mut places = (0..).zip(&ids.targets);
    match (places.find(is_meant), relation) {
        (Some((place, target)), _) => Kind::Target(place, *target),
        (None, Some(relation)) => Kind::Unknown(format!("{kind}#{relation}")),
        (None, None) => Kind::Unknown(kind.to_owned()),
    }
}

/// The beginning of a text, no longer than a fact keeps.
fn shown(text: &str) -> Box<str> {
    text.get(..text.floor_char_boundary(SHOWN_BYTES_MAX)).unwrap_or_default().into()
}

/// What stands at the path of a name.
enum Text<'a> {
    Is(&'a str),
    Missing,
    Malformed,
}

/// Reads a field that holds a name. An empty name counts as missing.
fn name<'a>(path: Option<&Path>, part: &'a Document) -> Text<'a> {
    let mut found = Text::Missing;
    let mut count = 0;
    let Some(path) = path else { return found };
    path.ends(part, &mut |end| {
        count += 1;
        found = match end {
            End::Value(Bson::String(text)) if text.is_empty() => Text::Missing,
            End::Value(Bson::String(text)) => Text::Is(text),
            End::Missing => Text::Missing,
            End::Value(_) | End::Blocked => Text::Malformed,
        };
    });
    if count > 1 { Text::Malformed } else { found }
}
