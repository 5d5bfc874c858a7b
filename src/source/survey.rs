//! A survey of documents: what stands at the paths that the schema reads, and what follows from it. A value of a wrong type, a
//! misspelt field and roles that are stored as names of fields lead to denials that look like any other.
//!
//! Reads no document itself, and changes no answer. `edges` counts edges that lead nowhere.

mod edges;

use std::collections::{BTreeMap, BTreeSet};

use bson::{
    Bson, Document,
    spec::{BinarySubtype, ElementType},
};
use edges::Edge;

use crate::{
    diagnosis::{Diagnosis, Subject},
    fact::{DocumentId, id_of_text},
    question::{Id, IdForm},
    schema::{
        self, Condition, DateUnit, End, Finds, NUMBER, Path, Relation, Schema, Target, TextKeys, listed, nearest,
    },
};

/// How many names of fields are kept for one place, and how many types for one path.
const NAMES_MAX: usize = 200;

/// How the schema uses a path.
#[derive(Clone, Debug)]
enum Use {
    /// A lookup finds documents by it. The names are those of the relations under a `!` that it serves.
    Key { forms: Vec<IdForm>, text_keys: Option<TextKeys>, negated: Vec<String> },
    /// It contains ids, as text in these forms if there are any.
    Ids { forms: Vec<IdForm>, texts: Vec<TextKeys>, wildcard: bool },
    /// It contains documents, which a relation reads one by one.
    Each,
    /// It contains a date.
    Date(DateUnit),
    /// It contains a name of a type or of a relation: one of these, if there are any.
    Name(Vec<String>),
    /// A condition compares its value: one on the documents, or on the elements of the array at this path.
    Condition(Condition, Option<Path>),
}

/// A path of a collection, and what was found there.
#[derive(Debug)]
struct Surveyed {
    path: Path,
    uses: Use,
    relation: String,
    /// In how many documents there is a value.
    present: usize,
    /// The types that were found, each with the number of documents and the `_id` of one.
    types: BTreeMap<String, (usize, String)>,
    /// Names of fields of documents that were found in place of a value.
    keys: BTreeSet<String>,
}

/// What was found in the documents of one collection.
#[derive(Debug)]
pub(super) struct Survey {
    collection: String,
    documents: usize,
    /// The `_id`s of the documents.
    seen: BTreeSet<String>,
    paths: Vec<Surveyed>,
    /// The names of fields, by the place where they stand: an empty path is the document itself.
    names: BTreeMap<String, BTreeSet<String>>,
    edges: Vec<Edge>,
    /// What its findings are about.
    subject: Subject,
}

impl Survey {
    /// A survey of a collection without any documents yet.
    pub(super) fn new(schema: &Schema, collection: &str, subject: Subject) -> Self {
        let mut paths = Vec::new();
        let mut edges = Vec::new();
        let mut add = |path: Path, uses: Use, relation: &str| {
            let (relation, keys) = (relation.to_owned(), BTreeSet::new());
            paths.push(Surveyed { path, uses, relation, present: 0, types: BTreeMap::new(), keys });
        };
        for (_, lookup) in schema.lookups_of_checks().filter(|(_, lookup)| *lookup.collection == *collection) {
            if lookup.finds == Finds::Structures {
                continue;
            }
            let named = |wanted: bool| {
                let ids = lookup.relations.iter().filter(move |id| !wanted || schema.relation(**id).negated);
                ids.map(|id| schema.relation_name(*id)).collect::<Vec<_>>()
            };
            let negated = if lookup.finds == Finds::EveryForm { named(true) } else { Vec::new() };
            let first = named(false).into_iter().next().unwrap_or_default();
            let is_text = lookup.text_keys.is_some();
            // Types that exclude each other have lookups of their own by the same field.
            let alike = schema.lookups_of_checks().filter(|(_, other)| {
                (&other.collection, &other.by, &other.text_keys) == (&lookup.collection, &lookup.by, &lookup.text_keys)
            });
            let forms = if is_text {
                vec![IdForm::String]
            } else {
                let mut forms: Vec<IdForm> = alike.flat_map(|(_, other)| other.forms.iter().copied()).collect();
                forms.sort_unstable_by_key(|form| form.as_str());
                forms.dedup();
                forms
            };
            let text_keys = lookup.text_keys.clone();
            add(lookup.by.clone(), Use::Key { forms, text_keys, negated }, &first);
            for id in &lookup.relations {
                edges.extend(Edge::of(schema, schema.relation(*id), &schema.relation_name(*id)));
                uses(schema, schema.relation(*id), &mut |path, used| add(path, used, &schema.relation_name(*id)));
            }
        }
        let (seen, names) = (BTreeSet::new(), BTreeMap::new());
        Self { collection: collection.to_owned(), documents: 0, seen, paths, names, edges, subject }
    }

    /// The top-level fields that are read.
    pub(super) fn fields(&self) -> BTreeSet<&str> {
        self.paths.iter().map(|surveyed| surveyed.path.top()).collect()
    }

    /// Adds a document, of which only the fields that are read have to be there, and the names of all its fields.
    /// A document that was added before is ignored.
    pub(super) fn add(&mut self, document: &Document, names: impl Iterator<Item = String>) {
        let id = DocumentId::of(document).to_string();
        if !self.seen.insert(id.clone()) {
            return;
        }
        self.documents += 1;
        add_names(&mut self.names, "", names);
        for surveyed in &mut self.paths {
            surveyed.add(document, &id);
            collect_names(document, surveyed.path.as_str(), "", &mut self.names);
        }
        for edge in &mut self.edges {
            edge.add(document, &id);
        }
    }

    /// The edges in its documents, of which the source has to say which lead to a document.
    pub(super) fn edges(&mut self) -> &mut [Edge] {
        &mut self.edges
    }

    /// The fields that the schema reads and no document has.
    pub(super) fn missing_fields(&self) -> Vec<Diagnosis> {
        let missing = self.paths.iter().filter(|surveyed| self.documents > 0 && surveyed.present == 0);
        let mut diagnoses: Vec<Diagnosis> = missing.filter_map(|surveyed| self.missing(surveyed)).collect();
        diagnoses.dedup();
        diagnoses
    }

    /// What the operator should know.
    pub(super) fn diagnoses(&self) -> Vec<Diagnosis> {
        let mut diagnoses: Vec<Diagnosis> = Vec::new();
        for surveyed in &self.paths {
            let found = match surveyed.present {
                _ if self.documents == 0 => None,
                0 => self.missing(surveyed),
                _ => self.wrong_types(surveyed),
            };
            diagnoses.extend(found.filter(|found| !diagnoses.contains(found)));
        }
        for edge in &self.edges {
            let found = edge.diagnosis(self.subject, &self.collection, self.documents);
            diagnoses.extend(found.filter(|found| !diagnoses.contains(found)));
        }
        diagnoses
    }

    /// No document has the field.
    fn missing(&self, surveyed: &Surveyed) -> Option<Diagnosis> {
        let path = surveyed.path.as_str();
        let mut place = String::new();
        for part in path.split('.') {
            let names = self.names.get(&place)?;
            if names.contains(part) {
                place = joined(&place, part);
                continue;
            }
            let message = format!(
                "no document of `{}` ({} looked at) has `{path}`, which `{}` reads",
                self.collection, self.documents, surveyed.relation
            );
            let names: Vec<&str> =
                names.iter().map(String::as_str).filter(|name| !(place.is_empty() && *name == "_id")).collect();
            return match nearest(part, names.iter().copied()) {
                Some(meant) => {
                    let meant = joined(&place, meant);
                    let remedy = format!("write `{meant}` in the schema, if that is meant");
                    Some(Diagnosis::wrong(self.subject, format!("{message}; there is `{meant}`"), remedy))
                }
                // Many applications write a field only once it has a value.
                None if matches!(surveyed.uses, Use::Condition(..) | Use::Date(_) | Use::Name(_)) => None,
                None => {
                    let there = if names.is_empty() { String::new() } else { format!("; there is {}", listed(&names)) };
                    let remedy = "check the name of the field in the schema: until a document has it, the relation grants nothing";
                    Some(Diagnosis::warning(self.subject, message + &there, remedy))
                }
            };
        }
        None
    }

    /// Some documents have a value of another type.
    fn wrong_types(&self, surveyed: &Surveyed) -> Option<Diagnosis> {
        let is_wrong = |name: &str| !surveyed.uses.is_right(name);
        let mut wrong = surveyed.types.iter().filter(|(name, _)| is_wrong(name));
        let (first, (_, example)) = wrong.next()?;
        let count: usize = surveyed.types.iter().filter(|(name, _)| is_wrong(name)).map(|(_, (count, _))| count).sum();
        let all: Vec<String> =
            surveyed.types.iter().map(|(name, (count, _))| format!("{count} {}", name.trim_end())).collect();
        let place = format!("{}.{}", self.collection, surveyed.path);
        let mut message = format!(
            "`{place}`: {}, of {} documents looked at (e.g. `_id` {example} has {first}): {}",
            all.join(", "),
            self.documents,
            surveyed.consequence(count)
        );
        if !surveyed.keys.is_empty() {
            let keys: Vec<&str> = surveyed.keys.iter().map(String::as_str).collect();
            message += &format!(". Its fields have names such as {}", listed(&keys));
        }
        let path = surveyed.path.as_str();
        let is_found = |kind: &str| surveyed.types.contains_key(kind);
        let remedy = match (&surveyed.uses, surveyed.keys.first()) {
            (Use::Name(names), _) if surveyed.types.keys().any(|name| name.starts_with(UNLISTED)) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                format!(
                    "the schema expects {}: say what each value means in a table, subject = {{ VALUE = \"type\" }}",
                    listed(&names)
                )
            }
            (Use::Date(DateUnit::Date), _) if is_found("number") => format!(
                "store dates; or, if all are numbers, write {{ field = \"{path}\", unit = \"seconds\" }}, or \"milliseconds\""
            ),
            (Use::Date(DateUnit::Date), _) if is_found("string") => {
                format!("store dates; or, if all are text, write {{ field = \"{path}\", unit = \"iso8601\" }}")
            }
            (Use::Key { .. } | Use::Ids { .. }, _) if is_found(MIXED) => {
                format!("write the hex digits of each id in lower case; see the document with the `_id` {example}")
            }
            (Use::Ids { forms, .. }, _) if is_found("string") && !forms.contains(&IdForm::String) => format!(
                "store one type; if all are text, add format = \"{{id}}\" to the relation. This finds those that are text: \
                 db.getCollection(\"{}\").find({{ \"{path}\": {{ $type: \"string\" }} }})",
                self.collection
            ),
            (Use::Condition(..), Some(key)) => format!(
                "if the value of each such field says whether it applies: where = {{ \"{path}.{key}\" = true }}; else store a list of texts"
            ),
            (Use::Ids { .. } | Use::Each, Some(_)) => {
                "ids that are names of fields cannot be read: store an array of documents, and read it with `each`"
                    .to_owned()
            }
            _ => match surveyed.types.keys().filter(|name| is_wrong(name)).find_map(|name| shell_type(name)) {
                Some(name) => format!(
                    "store one type; this finds the others: db.getCollection(\"{}\").find({{ \"{path}\": {{ $type: \"{name}\" }} }})",
                    self.collection
                ),
                None => format!("store one type; see the document with the `_id` {example}"),
            },
        };
        Some(Diagnosis::warning(self.subject, message, remedy))
    }
}

impl Surveyed {
    fn add(&mut self, document: &Document, id: &str) {
        let mut found: BTreeSet<String> = BTreeSet::new();
        let mut is_present = false;
        let keys = &mut self.keys;
        let is_condition_met = match &self.uses {
            Use::Condition(condition, each) => is_typed(condition, each.as_ref(), document),
            Use::Key { .. } | Use::Ids { .. } | Use::Each | Use::Date(_) | Use::Name(_) => false,
        };
        self.path.ends(document, &mut |end| match end {
            End::Missing => {}
            End::Blocked => {
                is_present = true;
                found.insert("a value on the way to it that is no document".to_owned());
            }
            End::Value(value) => {
                is_present = true;
                let items = match value {
                    Bson::Array(items) => items.as_slice(),
                    value => std::slice::from_ref(value),
                };
                if matches!(self.uses, Use::Each) && value.as_array().is_none() {
                    found.insert(format!("{} in place of an array", type_name(value)));
                }
                for item in items {
                    if let (Bson::Document(inner), false) =
                        (item, matches!(self.uses, Use::Each) && value.as_array().is_some())
                    {
                        keys.extend(inner.keys().take(2).cloned());
                    }
                    found.insert(match (&self.uses, item) {
                        (Use::Name(names), Bson::String(text)) if !names.is_empty() && !names.contains(text) => {
                            unlisted(text)
                        }
                        (Use::Key { text_keys: Some(keys), .. }, Bson::String(text)) if is_mixed(keys, text) => {
                            MIXED.to_owned()
                        }
                        (Use::Ids { texts, .. }, Bson::String(text))
                            if texts.iter().any(|keys| is_mixed(keys, text)) =>
                        {
                            MIXED.to_owned()
                        }
                        _ => type_name(item),
                    });
                }
            }
        });
        if is_condition_met {
            // The types that the condition compares with.
            found = found.into_iter().map(|name| format!("{name}{RIGHT}")).collect();
            self.keys.clear();
        }
        while self.keys.len() > 3 {
            self.keys.pop_last();
        }
        self.present += usize::from(is_present);
        for name in found {
            if name != "null" && (self.types.len() < NAMES_MAX || self.types.contains_key(&name)) {
                self.types.entry(name).or_insert_with(|| (0, id.to_owned())).0 += 1;
            }
        }
    }

    /// What follows for the documents with a value of another type.
    fn consequence(&self, count: usize) -> String {
        let (those, are) = if count == 1 { ("that one".to_owned(), "is") } else { (format!("those {count}"), "are") };
        match &self.uses {
            Use::Key { .. } if self.types.contains_key(MIXED) => {
                format!("{those} {are} never found, not even under a `!`, as no index finds hex digits in mixed case")
            }
            Use::Key { negated, .. } if !negated.is_empty() => {
                let names: Vec<&str> = negated.iter().map(String::as_str).collect();
                format!(
                    "{those} {are} not found as written; if one may name a resource in another form, {} is indeterminate under its `!`",
                    listed(&names)
                )
            }
            Use::Key { .. } => format!("{those} {are} never found"),
            Use::Ids { .. } | Use::Each | Use::Date(_) | Use::Name(_) | Use::Condition(..) => {
                format!("for {those}, `{}` is indeterminate, and denied with MALFORMED", self.relation)
            }
        }
    }
}

/// How a name that the schema does not expect is shown.
const UNLISTED: &str = "the text ";

/// The most characters of it that are shown.
const TEXT_MAX: usize = 40;

fn unlisted(text: &str) -> String {
    format!("{UNLISTED}{:?}", text.chars().take(TEXT_MAX).collect::<String>())
}

/// What a text is called whose hex digits are in lower case and in upper case.
const MIXED: &str = "string in mixed case";

/// Whether a text has the form of an id, with hex digits in both cases.
fn is_mixed(keys: &TextKeys, text: &str) -> bool {
    let id = keys.format.id_in(text).filter(|id| Id::parse(id, keys.id, false).is_ok());
    id.is_some_and(|id| id_of_text(id, keys.id, false).is_none())
}

/// Marks a type that a condition compares with.
const RIGHT: &str = " ";

impl Use {
    /// Whether a type is one that the schema expects there.
    fn is_right(&self, name: &str) -> bool {
        let is_of = |forms: &[IdForm]| forms.iter().any(|form| name == name_of(*form));
        match self {
            Self::Key { forms, .. } => is_of(forms),
            Self::Ids { forms, wildcard, .. } => is_of(forms) || *wildcard && name == "string",
            Self::Each => name == "document",
            Self::Date(unit) => match unit {
                DateUnit::Date => name == "date",
                DateUnit::Seconds | DateUnit::Milliseconds => name == "number",
                DateUnit::Iso8601 => name == "string",
            },
            Self::Name(_) => name == "string",
            Self::Condition(..) => name.ends_with(RIGHT),
        }
    }
}

/// Visits every path that a relation reads, with its use.
fn uses(schema: &Schema, relation: &Relation, add: &mut impl FnMut(Path, Use)) {
    let each = relation.each.as_ref();
    let mut within = |path: &Path, used: Use| {
        let whole = each.map_or_else(|| Ok(path.clone()), |each| Path::parse(&format!("{each}.{path}")));
        if let Ok(path) = whole {
            add(path, used.clone());
        }
    };
    if let Some(ids) = &relation.ids {
        let forms = ids.targets.iter().map(|target| match target {
            Target::Subject(kind) => schema.subject(*kind).id,
            Target::Set(kind, _) | Target::Resource(kind) => schema.resource(*kind).id,
        });
        // A format is of text, whatever the ids are.
        let (forms, texts) = match &ids.format {
            Some(format) => (vec![IdForm::String], forms.map(|id| TextKeys { format: format.clone(), id }).collect()),
            None => (forms.collect(), Vec::new()),
        };
        within(&ids.field, Use::Ids { forms, texts, wildcard: ids.wildcard });
        if let Some(path) = &ids.subject_type {
            let of_types = ids.targets.iter().map(|target| match target {
                Target::Subject(kind) => schema.subject(*kind).name.to_string(),
                Target::Set(kind, _) | Target::Resource(kind) => schema.resource(*kind).name.to_string(),
            });
            let written = ids.type_values.as_ref().map(|values| values.iter().map(ToString::to_string).collect());
            within(path, Use::Name(written.unwrap_or_else(|| of_types.collect())));
        }
        if let Some(path) = &ids.subject_relation {
            within(path, Use::Name(Vec::new()));
        }
    }
    for date in [&relation.since, &relation.until].into_iter().flatten() {
        within(&date.path, Use::Date(date.unit));
    }
    if let Some(each) = each {
        add(each.clone(), Use::Each);
        if let Some(condition) = &relation.condition {
            condition.paths(&mut |path| add(each.join(path), Use::Condition(condition.clone(), Some(each.clone()))));
        }
    }
    if let Some(condition) = relation.condition_of_document() {
        condition.paths(&mut |path| add(path.clone(), Use::Condition(condition.clone(), None)));
    }
}

/// Whether what a condition looks at has the right types, in the document or in each element of the array.
fn is_typed(condition: &Condition, each: Option<&Path>, document: &Document) -> bool {
    let Some(each) = each else { return condition.is_typed(document) };
    let mut is_typed = true;
    each.ends(document, &mut |end| {
        if let End::Value(Bson::Array(elements)) = end {
            is_typed &= elements.iter().filter_map(Bson::as_document).all(|element| condition.is_typed(element));
        }
    });
    is_typed
}

/// Collects the names of fields along a path.
fn collect_names(document: &Document, path: &str, place: &str, names: &mut BTreeMap<String, BTreeSet<String>>) {
    let Some((first, rest)) = path.split_once('.') else { return };
    let place = joined(place, first);
    let items = match document.get(first) {
        Some(Bson::Array(items)) => items.as_slice(),
        Some(value) => std::slice::from_ref(value),
        None => return,
    };
    for inner in items.iter().filter_map(Bson::as_document) {
        add_names(names, &place, inner.keys().cloned());
        collect_names(inner, rest, &place, names);
    }
}

fn add_names(all: &mut BTreeMap<String, BTreeSet<String>>, place: &str, names: impl Iterator<Item = String>) {
    let known = all.entry(place.to_owned()).or_default();
    for name in names {
        if known.len() < NAMES_MAX {
            known.insert(name);
        }
    }
}

fn joined(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

/// The name of the type that ids of a form have.
fn name_of(form: IdForm) -> &'static str {
    match form {
        IdForm::ObjectId => "ObjectId",
        IdForm::String => "string",
        IdForm::Integer => "number",
        IdForm::Uuid => "UUID",
    }
}

fn type_name(value: &Bson) -> String {
    match value {
        Bson::ObjectId(_) => "ObjectId",
        Bson::String(_) => "string",
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => "number",
        Bson::Binary(binary) if binary.subtype == BinarySubtype::Uuid => "UUID",
        Bson::Binary(binary) => return format!("binary of subtype {}", u8::from(binary.subtype)),
        Bson::Document(_) => "document",
        Bson::Array(_) => "array in an array",
        Bson::DateTime(_) => "date",
        Bson::Boolean(_) => "boolean",
        Bson::Null | Bson::Undefined => "null",
        _ => "value of another type",
    }
    .to_owned()
}

/// The name of a type in MongoDB's shell.
fn shell_type(name: &str) -> Option<&'static str> {
    let kind = match name {
        "number" => return Some(NUMBER),
        "ObjectId" => ElementType::ObjectId,
        "string" => ElementType::String,
        "document" => ElementType::EmbeddedDocument,
        "date" => ElementType::DateTime,
        "boolean" => ElementType::Boolean,
        _ if name == "UUID" || name.starts_with("binary") => ElementType::Binary,
        _ => return None,
    };
    Some(schema::type_name(kind))
}
