//! Queries for facts that are filtered to subjects: the documents and the array elements that can concern one of them
//! (docs/schema.md, "Large relations").
//!
//! A query may return more than that, never less: `fact` filters again. Each part of a filter can use an index on the field of
//! the lookup and the field of the ids. Runs no command.

use std::collections::BTreeMap;

use bson::{
    Binary, Bson, Document, doc,
    oid::ObjectId,
    spec::{BinarySubtype, ElementType},
};

use super::{decode::REPEATED, keys::has_key};
use crate::{
    fact::{FactKey, id_texts, id_to_bson},
    question::{Id, IdForm, RelationId, Subject, SubjectTypeId},
    schema::{Format, Ids, Lookup, Path, Relation, Schema, Target, id_types, repeats, type_name, value_types_except},
};

/// How many bytes of keys are repeated in the parts of a filter.
const KEY_BYTES_MAX: usize = 1_024 * 1_024;

/// How many bytes the keys and subjects of a command have that surely is small.
const SMALL_BYTES_MAX: usize = 8 * 1_024;

/// How long the parts of a format may be that are part of a regular expression, in bytes.
const FORMAT_BYTES_MAX: usize = 1_024;

/// The types of no value in expressions.
const NOTHING: [&str; 3] = ["missing", "null", "undefined"];

/// How documents say which type the ids of a relation are of.
enum Naming<'a> {
    /// They do not: all ids are of one type of subjects.
    Only(SubjectTypeId),
    /// By name. These are the names of types of subjects; other names mean sets, or nothing.
    Types(Vec<(&'a str, SubjectTypeId)>),
    /// It does not matter: every id has to be followed.
    Followed,
}

/// The query for some filtered facts of one lookup.
pub(super) struct FilteredQuery<'a> {
    schema: &'a Schema,
    lookup: &'a Lookup,
    subjects: Vec<&'a Subject>,
    /// The documents that have one of the keys.
    has_key: Document,
    /// How many bytes the keys and the subjects have.
    key_bytes: usize,
}

/// Whether the query for facts of a lookup finds few documents, whoever the subject is, and leaves out all others.
pub(super) fn is_selective(schema: &Schema, lookup: &Lookup) -> bool {
    let query = FilteredQuery::new(schema, lookup, &[]);
    lookup.relations.iter().all(|id| query.exact_selectors(schema.relation(*id)).is_some())
}

impl<'a> FilteredQuery<'a> {
    pub(super) fn new(schema: &'a Schema, lookup: &'a Lookup, keys: &'a [FactKey]) -> Self {
        let mut subjects: Vec<&Subject> = keys.iter().filter_map(FactKey::subject).collect();
        subjects.sort_unstable();
        subjects.dedup();
        let mut ids: Vec<Id> = keys.iter().map(|key| key.id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        let of_subjects = subjects.iter().map(|subject| match subject {
            Subject::Known { id, .. } => id.size(),
            Subject::Anonymous => 0,
        });
        let key_bytes = of_subjects.chain(ids.iter().map(Id::size)).sum();
        Self { schema, lookup, subjects, has_key: has_key(lookup, &ids), key_bytes }
    }

    /// The documents to read: for each relation, those of the keys that match its condition and can concern a subject.
    pub(super) fn filter(&self) -> Document {
        self.filter_for(self.relations().map(|(_, relation)| relation))
    }

    /// The documents to read for some of the relations.
    pub(super) fn filter_for(&self, relations: impl Iterator<Item = &'a Relation>) -> Document {
        if self.lookup.is_by_id() {
            return self.has_key.clone();
        }
        let mut any: Vec<Document> = Vec::new();
        for relation in relations {
            let wanted = relation.wanted().map(|wanted| wanted.query().clone());
            match self.selectors(relation) {
                None if wanted.is_none() => return self.has_key.clone(),
                None => any.extend(wanted),
                Some(selectors) => any.extend(selectors.into_iter().map(|selector| match &wanted {
                    Some(wanted) => doc! { "$and": [wanted.clone(), selector] },
                    None => selector,
                })),
            }
        }
        let mut distinct: Vec<Document> = Vec::new();
        for branch in any {
            if !distinct.contains(&branch) {
                distinct.push(branch);
            }
        }
        if distinct.is_empty() {
            // No relation can lead to a subject.
            return doc! { "_id": { "$in": [] } };
        }
        if self.key_bytes * distinct.len() > KEY_BYTES_MAX {
            return doc! { "$and": [self.has_key.clone(), { "$or": distinct }] };
        }
        // With the key in each of them, each can use an index of both fields.
        let with_key = |branch: Document| doc! { "$and": [self.has_key.clone(), branch] };
        doc! { "$or": distinct.into_iter().map(with_key).collect::<Vec<_>>() }
    }

    /// Whether the keys and the subjects may make the command too large.
    pub(super) fn may_be_large(&self) -> bool {
        self.key_bytes > SMALL_BYTES_MAX
    }

    /// The documents that set a flag from the beginning of time: at all times, or until some date. The types of values are not
    /// tested.
    pub(super) fn setting_filter(&self, flag: &Relation, has_end: bool) -> Document {
        let dates = [(&flag.since, false), (&flag.until, has_end)];
        let dates = dates.into_iter().filter_map(|(date, has_date)| Some((date.as_ref()?, has_date)));
        let dates = dates.map(|(date, has_date)| {
            let test = if has_date {
                doc! { "$ne": Bson::Null }
            } else {
                doc! { "$eq": Bson::Null }
            };
            doc! { date.path.as_str(): test }
        });
        let condition = flag.condition.as_ref().map(crate::schema::Condition::to_query);
        let all: Vec<Document> = [self.has_key.clone()].into_iter().chain(condition).chain(dates).collect();
        doc! { "$and": all }
    }

    /// Whether the query leaves out what cannot concern the subjects, for all relations.
    pub(super) fn is_selective(&self) -> bool {
        self.lookup.is_by_id() || self.relations().all(|(_, relation)| self.exact_selectors(relation).is_some())
    }

    /// The relations that can lead to a subject.
    pub(super) fn relations(&self) -> impl Iterator<Item = (RelationId, &'a Relation)> {
        let can_lead = |id| self.subjects.iter().any(|subject| self.schema.can_concern(id, subject));
        let ids: Vec<_> = self.lookup.relations.iter().copied().filter(|id| can_lead(*id)).collect();
        ids.into_iter().map(|id| (id, self.schema.relation(id)))
    }

    /// Conditions, each of which selects documents that can concern a subject; none if every document can.
    fn selectors(&self, relation: &'a Relation) -> Option<Vec<Document>> {
        self.exact_selectors(relation).or_else(|| {
            // If the values cannot be told apart, those documents that have any.
            let path = relation.each.as_ref().or(relation.ids.as_ref().map(|ids| &ids.field))?;
            let mut selectors = blocked(path);
            let types: Vec<&str> = value_types_except(&[]).map(type_name).collect();
            selectors.push(doc! { path.as_str(): { "$type": types } });
            Some(selectors)
        })
    }

    /// As [`FilteredQuery::selectors`], without documents that name other subjects only; none if no conditions tell.
    fn exact_selectors(&self, relation: &'a Relation) -> Option<Vec<Document>> {
        let ids = relation.ids.as_ref().filter(|_| relation.each.is_none())?;
        let mut selectors = blocked(&ids.field);
        let names = match self.names(ids) {
            Naming::Types(names) => names,
            Naming::Only(kind) => {
                selectors.extend(self.values(ids, kind)?);
                return Some(selectors);
            }
            Naming::Followed => return None,
        };
        let (type_field, relation_field) = (ids.subject_type.as_ref()?, ids.subject_relation.as_ref());
        for (name, kind) in &names {
            let values = self.values(ids, *kind)?;
            selectors.extend(values.into_iter().map(|value| doc! { "$and": [{ type_field.as_str(): *name }, value] }));
        }
        let types: Vec<Bson> = names.iter().map(|(name, _)| (*name).into()).chain([Bson::Null, "".into()]).collect();
        selectors.push(doc! { type_field.as_str(): { "$nin": types } });
        // A symbol equals a text for `$nin`, and names no type.
        selectors.push(doc! { type_field.as_str(): { "$type": other_types(&[ElementType::String]) } });
        selectors.push(doc! { type_field.as_str(): { "$type": "array" } });
        if let Some(field) = relation_field {
            selectors.push(doc! { field.as_str(): { "$gt": "" } });
            selectors.push(doc! { field.as_str(): { "$type": other_types(&[ElementType::String]) } });
            selectors.push(doc! { field.as_str(): { "$type": "array" } });
        }
        Some(selectors)
    }

    /// How documents say which type their ids are of.
    fn names(&self, ids: &'a Ids) -> Naming<'a> {
        let Some(type_field) = &ids.subject_type else {
            return match *ids.targets {
                [Target::Subject(kind)] => Naming::Only(kind),
                _ => Naming::Followed,
            };
        };
        let is_nested = |path: &Path| path.as_str().contains('.');
        if is_nested(type_field) || ids.subject_relation.as_ref().is_some_and(is_nested) {
            return Naming::Followed;
        }
        let value = |place: usize| ids.type_values.as_ref().and_then(|values| values.get(place)).map(|value| &**value);
        let kinds = ids.targets.iter().enumerate().filter_map(|(place, target)| match target {
            Target::Subject(kind) => Some((value(place).unwrap_or(&self.schema.subject(*kind).name), *kind)),
            Target::Set(..) | Target::Resource(_) => None,
        });
        let kinds: Vec<_> = kinds.collect();
        if kinds.is_empty() { Naming::Followed } else { Naming::Types(kinds) }
    }

    /// Conditions, each of which selects values at a path: those that mean a subject of the type, and those that are no id.
    /// None if no condition can, because the type is secret.
    fn values(&self, ids: &Ids, kind: SubjectTypeId) -> Option<Vec<Document>> {
        let field = ids.field.as_str();
        let subject_type = self.schema.subject(kind);
        if subject_type.secret {
            return None;
        }
        if let Some(format) = &ids.format {
            return self.texts(&ids.field, format, kind);
        }
        let (least, greatest) = range(subject_type.id);
        // An element of an array that has another type, an array among them.
        let mut within = doc! { "$gte": &least };
        let mut values = vec![
            doc! { field: { "$in": self.ids_of(kind) } },
            doc! { field: { "$type": other_types(id_types(subject_type.id)) } },
        ];
        match subject_type.id {
            IdForm::ObjectId | IdForm::String => {}
            IdForm::Uuid => {
                within.insert("$lte", &greatest);
                values.push(doc! { field: { "$lt": &least } });
                values.push(doc! { field: { "$gt": &greatest } });
            }
            IdForm::Integer => {
                // Among doubles, bitwise operators match whole numbers of 64 bits only. No index helps to find the others. Of
                // decimals they match fractions too, so all decimals are read.
                let other = doc! { "$type": "number", "$not": { "$bitsAllClear": 0 } };
                values.push(doc! { field: other.clone() });
                values.push(doc! { field: { "$elemMatch": other } });
                values.push(doc! { field: { "$type": "decimal" } });
                values.extend(arrays_on_the_way(&ids.field));
            }
        }
        values.push(doc! { field: { "$elemMatch": { "$not": within } } });
        Some(values)
    }

    /// As [`FilteredQuery::values`], where ids are written as text. None if the format is too long for an expression.
    fn texts(&self, path: &Path, format: &Format, kind: SubjectTypeId) -> Option<Vec<Document>> {
        let field = path.as_str();
        let form = self.schema.subject(kind).id;
        let ids = self.ids_of_kind(kind).flat_map(|id| id_texts(format, id));
        let exact: Vec<String> = ids.chain(["*", ""].map(|text| format.text(text))).collect();
        let mut values = vec![
            doc! { field: { "$in": exact } },
            doc! { field: { "$type": other_types(&[ElementType::String]) } },
            // Elements are not told apart.
            doc! { field: { "$type": "array" } },
        ];
        let is_id = match form {
            IdForm::ObjectId => "(?:[0-9a-f]{24}|[0-9A-F]{24})",
            IdForm::Uuid => {
                "(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})"
            }
            // Longer numbers may be out of range.
            IdForm::Integer => "(?:0|-?[1-9][0-9]{0,17})",
            IdForm::String => return Some(values),
        };
        let [before, after] = format.parts().map(escaped);
        let (before, after) = (before?, after?);
        let pattern = |id: &str| format!("^{before}{id}{after}\\z");
        let no_id = doc! { "$regex": pattern("[\\s\\S]*"), "$not": { "$regex": pattern(is_id) } };
        values.push(doc! { field: no_id });
        values.extend(arrays_on_the_way(path));
        Some(values)
    }

    /// The ids of the subjects of a type.
    fn ids_of_kind(&self, kind: SubjectTypeId) -> impl Iterator<Item = &'a Id> {
        self.subjects.iter().filter_map(move |subject| match subject {
            Subject::Known { kind: asker, id } if *asker == kind => Some(id),
            Subject::Known { .. } | Subject::Anonymous => None,
        })
    }

    /// The ids of the subjects of a type, and `*`.
    fn ids_of(&self, kind: SubjectTypeId) -> Vec<Bson> {
        self.ids_of_kind(kind).map(id_to_bson).chain(["*".into()]).collect()
    }

    /// The fields to return. Of an array of ids, or of documents with ids, only the elements that can concern a subject.
    pub(super) fn projection(&self) -> Document {
        let arrays = self.arrays();
        let mut projection = Document::new();
        for field in &self.lookup.projection {
            let mut within = arrays.iter().filter(|(path, _)| path.top() == &**field);
            match (within.next(), within.next()) {
                (Some((path, Some(any))), None) => {
                    let parts: Vec<&str> = path.as_str().split('.').skip(1).collect();
                    let selected = select(&format!("${field}"), &parts, any);
                    projection.insert(&**field, selected);
                }
                _ => {
                    projection.insert(&**field, 1);
                }
            }
        }
        let objects = arrays.keys().flat_map(|path| {
            let path = path.as_str();
            path.match_indices('.').filter_map(|(end, _)| path.get(..end)).map(|part| format!("${part}"))
        });
        let repeated: Vec<Bson> =
            ["$$ROOT".to_owned()].into_iter().chain(objects).map(|object| repeats(&object)).collect();
        projection.insert(REPEATED, doc! { "$or": repeated });
        projection
    }

    /// The arrays of which not every element has to be returned, each with conditions on an element (`$$this`), one of which
    /// has to hold. None in their place if the whole array has to be returned.
    fn arrays(&self) -> BTreeMap<Path, Option<Vec<Bson>>> {
        let mut arrays: BTreeMap<Path, Option<Vec<Bson>>> = BTreeMap::new();
        let mut others: Vec<Path> = vec![self.lookup.by.clone()];
        for id in &self.lookup.relations {
            let relation = self.schema.relation(*id);
            let can_lead = self.subjects.iter().any(|subject| self.schema.can_concern(*id, subject));
            if let Some(condition) = relation.condition_of_document() {
                condition.paths(&mut |path| others.push(path.clone()));
            }
            let array = match (&relation.each, &relation.ids) {
                (Some(each), _) => Some(each),
                (None, Some(ids)) => {
                    others.extend([&ids.subject_type, &ids.subject_relation].into_iter().flatten().cloned());
                    Some(&ids.field)
                }
                (None, None) => None,
            };
            if relation.each.is_none() {
                others.extend([&relation.since, &relation.until].into_iter().flatten().map(|date| date.path.clone()));
            }
            let Some(array) = array else { continue };
            let wanted = if can_lead { self.elements(relation) } else { Some(Vec::new()) };
            let all = arrays.entry(array.clone()).or_insert_with(|| Some(Vec::new()));
            match (all.as_mut(), wanted) {
                (Some(all), Some(wanted)) => all.extend(wanted),
                _ => *all = None,
            }
        }
        let paths: Vec<Path> = arrays.keys().cloned().collect();
        for (path, elements) in &mut arrays {
            let overlaps = |other: &&Path| other.overlaps(path.as_str());
            if others.iter().any(|other| overlaps(&other)) || paths.iter().filter(overlaps).count() > 1 {
                *elements = None;
            }
        }
        arrays
    }

    /// Conditions on the element of an array (`$$this`), one of which holds if it can concern a subject; none if every element
    /// can.
    fn elements(&self, relation: &'a Relation) -> Option<Vec<Bson>> {
        let ids = relation.ids.as_ref().filter(|ids| ids.format.is_none())?;
        // No expression can name the fields of a `DBRef`.
        let paths = [Some(&ids.field), ids.subject_type.as_ref(), ids.subject_relation.as_ref()];
        if relation.each.iter().chain(paths.into_iter().flatten()).any(|path| path.as_str().contains('$')) {
            return None;
        }
        let Some(_) = &relation.each else {
            // The type is that of the document. If it is not what the schema lists, every element counts.
            if ids.subject_type.is_some() {
                return None;
            }
            let kinds = ids.targets.iter().map(|target| match target {
                Target::Subject(kind) => Some(*kind),
                Target::Set(..) | Target::Resource(_) => None,
            });
            let kinds: Vec<SubjectTypeId> = kinds.collect::<Option<_>>()?;
            return kinds.into_iter().map(|kind| self.element("$$this", kind)).collect();
        };
        let field = ids.field.as_str();
        let value = format!("$$this.{field}");
        let mut any = vec![is_not_of("$$this", &[ElementType::EmbeddedDocument])];
        for (end, _) in field.match_indices('.') {
            let (part, _) = field.split_at(end);
            any.push(is_not_of(&format!("$$this.{part}"), &[ElementType::EmbeddedDocument]));
        }
        let names = match self.names(ids) {
            Naming::Types(names) => names,
            Naming::Only(kind) => {
                any.push(self.element(&value, kind)?);
                return Some(any);
            }
            Naming::Followed => return None,
        };
        let type_value = format!("$$this.{}", ids.subject_type.as_ref()?);
        for (name, kind) in &names {
            any.push(doc! { "$and": [{ "$eq": [&type_value, literal(*name)] }, self.element(&value, *kind)?] }.into());
        }
        let known: Vec<Bson> = names.iter().map(|(name, _)| literal(*name)).chain([literal("")]).collect();
        let other = doc! { "$not": [{ "$in": [&type_value, known] }] };
        any.push(doc! { "$and": [is_not_of(&type_value, &[]), other] }.into());
        any.push(is_not_of(&type_value, &[ElementType::String]));
        if let Some(relation_field) = &ids.subject_relation {
            let relation_value = format!("$$this.{relation_field}");
            let other = doc! { "$ne": [&relation_value, ""] };
            any.push(doc! { "$and": [is_not_of(&relation_value, &[]), other] }.into());
        }
        Some(any)
    }

    /// Whether the value of an expression means a subject of the type, or is no id. None if no expression can tell, because the
    /// type is secret.
    fn element(&self, value: &str, kind: SubjectTypeId) -> Option<Bson> {
        let subject_type = self.schema.subject(kind);
        if subject_type.secret {
            return None;
        }
        let ids: Vec<Bson> = self.ids_of(kind).into_iter().map(literal).collect();
        let mut any = vec![doc! { "$in": [value, ids] }.into(), is_not_of(value, id_types(subject_type.id))];
        let (least, greatest) = range(subject_type.id);
        let outside = doc! { "$or": [{ "$lt": [value, &least] }, { "$gt": [value, &greatest] }] };
        match subject_type.id {
            IdForm::ObjectId | IdForm::String => {}
            IdForm::Uuid => any.push(doc! { "$and": [{ "$eq": [{ "$type": value }, "binData"] }, outside] }.into()),
            IdForm::Integer => {
                let is_broken = doc! { "$or": [outside, { "$ne": [value, { "$trunc": value }] }] };
                let may_be = doc! { "$in": [{ "$type": value }, ["double", "decimal"]] };
                any.push(doc! { "$cond": [may_be, is_broken, false] }.into());
            }
        }
        Some(doc! { "$or": any }.into())
    }
}

/// Conditions, one of which holds for each document in which something blocks the path.
fn blocked(path: &Path) -> Vec<Document> {
    let of_part = |part: String| {
        let is_other = doc! { part.as_str(): { "$type": other_types(&[ElementType::EmbeddedDocument]) } };
        [is_other, doc! { part: { "$elemMatch": { "$not": { "$gte": {} } } } }]
    };
    path.outer().flat_map(of_part).collect()
}

/// Conditions, one of which holds for each document with an array on the way to the end of the path. Where a condition on a value
/// contains a negation, it says nothing about one of several values.
fn arrays_on_the_way(path: &Path) -> impl Iterator<Item = Document> {
    path.outer().map(|part| doc! { part: { "$type": "array" } })
}

/// A text for a regular expression; none if it is too long for one, or contains what it may not.
fn escaped(text: &str) -> Option<String> {
    let escape = |letter: char| (letter.is_ascii_punctuation().then_some('\\'), letter);
    let letters = text.chars().map(escape).flat_map(|(escape, letter)| escape.into_iter().chain([letter]));
    (text.len() <= FORMAT_BYTES_MAX && !text.contains('\0')).then(|| letters.collect())
}

/// The types of values that are neither of these nor arrays.
fn other_types(types: &[ElementType]) -> Vec<&'static str> {
    value_types_except(types).filter(|kind| *kind != ElementType::Array).map(type_name).collect()
}

/// The least and the greatest value of an id's form. For texts there is no greatest one.
fn range(form: IdForm) -> (Bson, Bson) {
    let uuid = |byte| Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: vec![byte; 16] });
    match form {
        IdForm::ObjectId => (ObjectId::from_bytes([0; 12]).into(), ObjectId::from_bytes([0xff; 12]).into()),
        IdForm::String => ("".into(), Bson::MaxKey),
        IdForm::Integer => (i64::MIN.into(), i64::MAX.into()),
        IdForm::Uuid => (uuid(0), uuid(0xff)),
    }
}

/// A value that no expression takes for a field or an operator.
fn literal(value: impl Into<Bson>) -> Bson {
    doc! { "$literal": value.into() }.into()
}

/// Whether an expression has a value, and of none of these types.
fn is_not_of(value: &str, types: &[ElementType]) -> Bson {
    let types: Vec<&str> = types.iter().copied().map(type_name).chain(NOTHING).collect();
    doc! { "$not": [{ "$in": [{ "$type": value }, types] }] }.into()
}

/// The value of an expression, with the array at a path in it reduced to the elements for which one of the conditions holds.
/// Anything else on the way, an array among it, stays whole.
fn select(value: &str, path: &[&str], any: &[Bson]) -> Bson {
    match path.split_first() {
        None => {
            let elements = doc! { "$filter": { "input": value, "cond": { "$or": any } } };
            doc! { "$cond": [{ "$isArray": value }, elements, value] }.into()
        }
        Some((first, rest)) => {
            let inner = Document::from_iter([((*first).to_owned(), select(&format!("{value}.{first}"), rest, any))]);
            let merged = doc! { "$mergeObjects": [value, inner] };
            doc! { "$cond": [{ "$eq": [{ "$type": value }, "object"] }, merged, value] }.into()
        }
    }
}
