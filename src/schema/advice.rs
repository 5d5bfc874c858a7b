//! Warnings about a well-formed schema: what it says is allowed, and probably not meant. Each says how to write what is
//! meant.
//!
//! Refuses nothing, and changes nothing.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};

use super::{
    Condition, DateUnit, Ids, Owner, Path, Relation, Schema, Target,
    declaration::Declarations,
    error::{SchemaError, Span},
    path::CLOCK_HELP,
};
use crate::question::SubjectTypeId;

/// The warnings about a compiled schema. The declarations have the places.
pub(super) fn warnings(schema: &Schema, declarations: &Declarations) -> Vec<SchemaError> {
    // The compiler numbers relations in this order, and gates after them.
    let of_resources = declarations.resources.iter().flat_map(|resource| &resource.relations);
    let declared = of_resources.chain(declarations.subjects.iter().flat_map(|subject| &subject.relations));
    let mut warnings = Vec::new();
    for (relation, declaration) in schema.relations.iter().zip(declared) {
        if let (Some(shared), Some(lookup)) = (&relation.shared, relation.lookup()) {
            let by = &schema.lookup(lookup).by;
            let message = format!(
                "relation `{}` finds documents by `{by}`, and reads more of `{shared}`: where `{shared}` is an array, the id may \
                 be in one element and the rest in another, so the relation is then indeterminate",
                relation.name
            );
            let error = SchemaError::new(&declaration.name.span, message);
            let help = as_subject_relation(schema, relation, shared).unwrap_or_else(|| {
                format!(
                    "write a document for each element of `{shared}`; or store the elements in the resource's own document, and \
                     read them with `each`"
                )
            });
            warnings.push(error.help(help));
        }
        let name = format!("relation `{}`", relation.name);
        warnings.extend(of_paths(schema, relation, &name, &declaration.name.span));
        let conditions = [&declaration.condition, &declaration.document_condition];
        warnings.extend(of_conditions(schema, &name, &declaration.name.span, CLOCK_HELP, conditions));
    }
    for subject in &declarations.subjects {
        let (name, span) = (format!("subject `{}`", subject.name.text), &subject.name.span);
        let gate = schema.subjects().find(|(_, kind)| *kind.name == *subject.name.text).and_then(|(_, kind)| kind.gate);
        warnings.extend(gate.into_iter().flat_map(|gate| of_paths(schema, schema.relation(gate), &name, span)));
        warnings.extend(of_conditions(schema, &name, span, SUBJECT_HELP, [&subject.condition]));
    }
    for resource in &declarations.resources {
        let (name, span) = (format!("resource `{}`", resource.name.text), &resource.name.span);
        warnings.extend(of_conditions(schema, &name, span, FLAG_HELP, [&resource.condition]));
    }
    warnings
}

/// The help about the clock in the condition of a subject type.
const SUBJECT_HELP: &str =
    "for the clock, name the date's field as `since` or `until` of this subject type; a missing date sets no bound";

/// The help about the clock in the condition of a resource type, which has no times.
const FLAG_HELP: &str = "a resource type has no times: for the clock, write a flag of the resource with `where`, `since` or `until`, and \
                         `required = true`, and require it in each permission";

/// Warns of fields whose names have signs in them that are probably meant as something else, and of dates that are.
fn of_paths(schema: &Schema, relation: &Relation, name: &str, span: &Span) -> Vec<SchemaError> {
    let mut paths: BTreeSet<&str> =
        relation.lookup().map(|lookup| schema.lookup(lookup).by.as_str()).into_iter().collect();
    let ids = relation
        .ids
        .iter()
        .flat_map(|ids| [Some(&ids.field), ids.subject_type.as_ref(), ids.subject_relation.as_ref()]);
    paths.extend(ids.flatten().chain(&relation.each).map(Path::as_str));
    let dates: BTreeSet<&str> =
        [&relation.since, &relation.until].into_iter().flatten().map(|date| date.path.as_str()).collect();
    paths.extend(&dates);
    let mut in_conditions = BTreeSet::new();
    for condition in [&relation.condition, &relation.document_condition].into_iter().flatten() {
        condition.paths(&mut |path| {
            in_conditions.insert(path.clone());
        });
    }
    paths.extend(in_conditions.iter().map(Path::as_str));
    let of_signs = paths.into_iter().filter_map(|path| {
        let has_space = path.split('.').any(|part| part.trim() != part);
        let sign = path.chars().find(|letter| "|,<>(){}*\"'`/\\".contains(*letter));
        let what = match sign {
            Some(sign) => format!("has `{sign}` in it"),
            None if has_space => "begins or ends with white space".to_owned(),
            None => return None,
        };
        let message = format!("{name} reads the field `{path}`, whose name {what}: nothing in a name has a meaning but dots");
        let help = "a path has names with dots between them, and leads through every element of an array; for several fields, write a \
                    relation for each, and `a | b` in the permission";
        Some(SchemaError::new(span, message).help(help))
    });
    let of_dates = dates.iter().filter(|path| **path != "date" && means_the_clock(path)).map(|path| {
        SchemaError::new(span, format!("{name} compares the clock with a date in the field `{path}` of the document"))
            .help(
                "name the field that has the date: each check compares it with the clock; a missing date sets no bound",
            )
    });
    of_signs.chain(of_dates).collect()
}

/// Warns of values that conditions compare with and that are probably not meant.
fn of_conditions<'a>(
    schema: &Schema,
    name: &str,
    span: &Span,
    clock_help: &str,
    conditions: impl IntoIterator<Item = &'a Option<Condition>>,
) -> Vec<SchemaError> {
    let (mut fields, mut texts, mut nulls) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for condition in conditions.into_iter().flatten() {
        compared_fields(condition, &mut fields);
        let query = condition.to_query();
        ordered_texts(&query, &mut texts);
        nulls.extend(with_null(&query));
    }
    let of_nulls = nulls.into_iter().map(|(query, text)| {
        let help = match as_json(query) {
            Some(json) => format!("for null, write the condition as Extended JSON: '{json}'"),
            None => "for null, write the condition as Extended JSON, with null without quotes".to_owned(),
        };
        SchemaError::new(span, format!("{name} compares with the text `{text}` itself, not with null")).help(help)
    });
    let of_fields = fields.into_iter().filter(|path| means_who_asks(schema, path)).map(|path| {
        let message =
            format!("{name} compares with the field `{path}` of the document, not of the subject that asks");
        let help = "to compare with who asks, write relations of the subject and of the resource that lead to the same resource";
        SchemaError::new(span, message).help(help)
    });
    let of_texts = texts.into_iter().filter(|text| means_the_clock(text)).map(|text| {
        SchemaError::new(span, format!("{name} compares with the text `{text}` itself, not with the clock"))
            .help(clock_help)
    });
    of_fields.chain(of_texts).chain(of_nulls).collect()
}

/// Whether a text looks as if it meant null, which TOML cannot write.
fn means_null(text: &str) -> bool {
    ["null", "NULL", "undefined", "nil"].contains(&text)
}

/// The query with null in place of texts that look as if they meant it, and one of these texts; none if there is none.
fn with_null(query: &Document) -> Option<(Document, String)> {
    let mut found = None;
    let replaced = nulls_in(query, &mut found);
    Some((replaced, found?))
}

fn nulls_in(query: &Document, found: &mut Option<String>) -> Document {
    let replaced = query.iter().map(|(name, value)| {
        // The names of types are texts, that of null among them.
        let value = if name == "$type" { value.clone() } else { null_for(value, found) };
        (name.clone(), value)
    });
    replaced.collect()
}

fn null_for(value: &Bson, found: &mut Option<String>) -> Bson {
    match value {
        Bson::String(text) if means_null(text) => {
            found.get_or_insert_with(|| text.clone());
            Bson::Null
        }
        Bson::Document(inner) => Bson::Document(nulls_in(inner, found)),
        Bson::Array(all) => Bson::Array(all.iter().map(|value| null_for(value, found)).collect()),
        value => value.clone(),
    }
}

/// The texts that a query requires values to be before or after.
fn ordered_texts(query: &Document, texts: &mut BTreeSet<String>) {
    for (operator, operand) in query {
        match operand {
            Bson::String(text) if ["$gt", "$gte", "$lt", "$lte"].contains(&operator.as_str()) => {
                texts.insert(text.clone());
            }
            Bson::Document(inner) => ordered_texts(inner, texts),
            Bson::Array(all) => all.iter().filter_map(Bson::as_document).for_each(|one| ordered_texts(one, texts)),
            _ => {}
        }
    }
}

/// Whether a text looks as if it meant the current time: `now`, `NOW()`, `new Date()`.
fn means_the_clock(text: &str) -> bool {
    let letters: String = text.chars().filter(char::is_ascii_alphabetic).collect();
    let words =
        ["now", "today", "date", "newdate", "datenow", "isodate", "currentdate", "currenttime", "currenttimestamp"];
    words.contains(&letters.to_ascii_lowercase().as_str())
}

/// The fields that a condition compares with each other.
fn compared_fields<'a>(condition: &'a Condition, fields: &mut BTreeSet<&'a Path>) {
    match condition {
        Condition::And(all) | Condition::Or(all) => all.iter().for_each(|one| compared_fields(one, fields)),
        Condition::Expr(_, left, right) => fields.extend([left, right]),
        Condition::Field(..) => {}
    }
}

/// Whether a path looks as if it led into the subject that asks: `subject.org`, or `user.org` with a type `user`.
fn means_who_asks(schema: &Schema, path: &Path) -> bool {
    let is_subject = |name: &str| name == "subject" || schema.subjects().any(|(_, kind)| &*kind.name == name);
    path.as_str().split_once('.').is_some_and(|(first, _)| is_subject(first))
}

/// The same as a relation of the subject, which reads each element of the array by itself. None if it cannot be written so.
fn as_subject_relation(schema: &Schema, relation: &Relation, shared: &Path) -> Option<String> {
    let (kind, ids) = only_subject(relation)?;
    let (subject, lookup) = (schema.subject(kind), schema.lookup(relation.lookup()?));
    let gate = schema.lookup(schema.relation(subject.gate?).lookup()?);
    let Owner::Resource(resource) = relation.owner else { return None };
    if gate.collection != lookup.collection
        || ids.field.as_str() != "_id"
        || ids.format.is_some()
        || relation.each.is_some()
    {
        return None;
    }
    let resource = &schema.resource(resource).name;
    let mut keys = vec![format!("each = \"{shared}\""), format!("field = \"{}\"", lookup.by.inside(shared)?)];
    if let Some(text_keys) = &lookup.text_keys {
        keys.push(format!("format = {:?}", text_keys.format.text("{id}")));
    }
    keys.push(format!("resource = \"{resource}\""));
    if let Some(condition) = &relation.condition {
        let (element, document) = split(condition, shared)?;
        let written = [("where", element), ("document_where", document)];
        for (key, query) in written.into_iter().filter(|(_, query)| !query.is_empty()) {
            keys.push(format!("{key} = '{}'", as_json(query)?));
        }
    }
    for (key, date) in [("since", &relation.since), ("until", &relation.until)] {
        if let Some(date) = date {
            let path = date.path.inside(shared)?;
            keys.push(match DateUnit::NAMED.iter().find(|(_, unit)| *unit == date.unit) {
                Some((unit, _)) => format!("{key} = {{ field = \"{path}\", unit = \"{unit}\" }}"),
                None => format!("{key} = \"{path}\""),
            });
        }
    }
    if relation.required {
        keys.push("required = true".to_owned());
    }
    let (subject, name) = (&subject.name, &relation.name);
    Some(format!(
        "a relation of the subject reads each element by itself. In `[subject.{subject}.relations]`:\n{name} = {{ {} }}\nand \
         in `[resource.{resource}.relations]`, in place of this one:\n{name} = {{ of = \"{subject}.{name}\" }}",
        keys.join(", ")
    ))
}

/// The only target of a relation, if it is a subject type.
fn only_subject(relation: &Relation) -> Option<(SubjectTypeId, &Ids)> {
    let ids = relation.ids.as_ref().filter(|ids| ids.subject_type.is_none())?;
    match *ids.targets {
        [Target::Subject(kind)] => Some((kind, ids)),
        _ => None,
    }
}

/// The parts of a condition about an element of the array, with paths relative to it, and about the rest of the document.
/// None if they cannot be told apart.
fn split(condition: &Condition, shared: &Path) -> Option<(Document, Document)> {
    let all = match condition {
        Condition::And(all) => all.as_slice(),
        condition => std::slice::from_ref(condition),
    };
    let (mut element, mut document) = (Vec::new(), Vec::new());
    for one in all {
        let (mut is_inside, mut is_outside) = (false, false);
        one.paths(&mut |path| match path.inside(shared) {
            Some(_) => is_inside = true,
            None => is_outside |= shared.shared(path).is_none() && path != shared,
        });
        match (is_inside, is_outside) {
            (true, false) => element.push(Bson::Document(relative(&one.to_query(), shared)?)),
            (false, true) => document.push(Bson::Document(one.to_query())),
            _ => return None,
        }
    }
    let joined = |mut all: Vec<Bson>| match (all.len(), all.pop()) {
        (0 | 1, Some(Bson::Document(only))) => only,
        (_, Some(last)) => {
            all.push(last);
            doc! { "$and": all }
        }
        (_, None) => Document::new(),
    };
    Some((joined(element), joined(document)))
}

/// A query about an element of the array; none if it compares fields with each other.
fn relative(query: &Document, shared: &Path) -> Option<Document> {
    if let Some(inner) = of_element(query, shared) {
        return Some(inner);
    }
    let mut relative_to_element = Document::new();
    for (key, value) in query {
        let (key, value) = match (key.as_str(), value) {
            ("$and" | "$or", Bson::Array(all)) => {
                let all = all.iter().map(|one| Some(Bson::Document(relative(one.as_document()?, shared)?)));
                (key.clone(), Bson::Array(all.collect::<Option<_>>()?))
            }
            (path, value) => (Path::parse(path).ok()?.inside(shared)?.to_string(), value.clone()),
        };
        relative_to_element.insert(key, value);
    }
    Some(relative_to_element)
}

/// The condition on the fields of an element, if the query is an `$elemMatch` with such a condition at this path.
fn of_element(query: &Document, shared: &Path) -> Option<Document> {
    let test = query.get_document(shared.as_str()).ok().filter(|test| query.len() == 1 && test.len() == 1)?;
    let inner = test.get_document("$elemMatch").ok()?;
    let is_condition = inner.keys().all(|name| !name.starts_with('$') || ["$and", "$or"].contains(&name.as_str()));
    is_condition.then(|| inner.clone())
}

/// The query as Extended JSON for a TOML string in single quotes; none if it contains one.
fn as_json(query: Document) -> Option<String> {
    let text = Bson::Document(query).into_relaxed_extjson().to_string();
    (!text.contains('\'')).then_some(text)
}
