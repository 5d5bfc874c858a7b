//! The relations of a model that stand under a `!`, directly or through permissions, edges and sets, and the documents that
//! may name a resource in another form of its id. Only such relations take notice of these documents.

use std::collections::BTreeSet;

use bson::{Binary, Bson, Document, spec::BinarySubtype};

use super::{
    model::{Expression, Model, Target},
    naive::{End, ends, same_id},
};

/// A member of a resource type, or a relation of a subject type, whose type is then written as [`of_subject`] does.
type Named = (String, String);

/// The name that stands for a subject type. A resource type may have the same name.
pub fn of_subject(kind: &str) -> String {
    format!("subject.{kind}")
}

/// Every relation under a `!`.
pub fn negated(model: &Model) -> BTreeSet<Named> {
    let mut todo = Vec::new();
    for kind in &model.resources {
        for permission in &kind.permissions {
            visit(model, kind.name, &permission.meaning, false, &mut todo);
        }
    }
    let mut seen = BTreeSet::new();
    while let Some((kind, member)) = todo.pop() {
        if !seen.insert((kind.clone(), member.clone())) {
            continue;
        }
        // The relations of subjects lead to resources, and to no further relation.
        let Some(resource) = model.resource(&kind) else { continue };
        if let Some(permission) = resource.permission(&member) {
            visit(model, &kind, &permission.meaning, true, &mut todo);
        }
        for (subject, name) in resource.relation(&member).into_iter().flat_map(|relation| &relation.of) {
            todo.push((of_subject(subject), name.clone()));
        }
        for target in resource.relation(&member).into_iter().flat_map(|relation| &relation.targets) {
            if let Target::Set(kind, member) = target {
                todo.push(((*kind).to_owned(), member.clone()));
            }
        }
    }
    seen
}

/// Collects the members that an expression names under a `!`.
fn visit(model: &Model, kind: &str, expression: &Expression, under: bool, found: &mut Vec<Named>) {
    match expression {
        Expression::Not(inner) => visit(model, kind, inner, true, found),
        Expression::And(sides) | Expression::Or(sides) => {
            for side in sides {
                visit(model, kind, side, under, found);
            }
        }
        Expression::Member(name) if under => found.push((kind.to_owned(), name.clone())),
        Expression::Walk(edge, member) if under => {
            found.push((kind.to_owned(), edge.clone()));
            let relation = model.resource(kind).and_then(|kind| kind.relation(edge));
            for target in relation.into_iter().flat_map(|relation| &relation.targets) {
                if let Target::Resource(end) = target {
                    found.push(((*end).to_owned(), member.clone()));
                }
            }
        }
        Expression::SubjectFlag(name) if under => {
            found.extend(model.subjects.iter().map(|subject| (of_subject(subject.name), name.clone())));
        }
        Expression::Member(_) | Expression::Walk(..) | Expression::SubjectFlag(_) => {}
    }
}

/// Whether a field may name the id in another form than its declared one.
pub fn names_otherwise(document: &Document, field: &str, format: Option<&str>, id: &Bson) -> bool {
    let texts = texts(id);
    // A field that holds ids as text holds no other text that means an id.
    let is_text = |value: &Bson| match (format, value.as_str()) {
        (None, Some(text)) => texts.iter().any(|other| other == text),
        (None, None) | (Some(_), Some(_)) => false,
        (Some(_), None) => same_id(value, id),
    };
    let is_structure = |value: &Bson| value.as_document().is_some();
    ends(document, field).into_iter().any(|end| match end {
        End::Value(Bson::Array(items)) => {
            items.iter().any(|item| is_text(item) || is_structure(item) || item.as_array().is_some())
        }
        End::Value(value) => is_text(value) || is_structure(value),
        End::Missing | End::Blocked => false,
    })
}

/// The texts that mean an id that is no text. The generator's text ids have no other form.
fn texts(id: &Bson) -> Vec<String> {
    let lower = match id {
        Bson::ObjectId(id) => id.to_hex(),
        Bson::Int64(number) => number.to_string(),
        Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes }) => {
            bson::Uuid::from_bytes(bytes.as_slice().try_into().expect("16 bytes")).to_string()
        }
        _ => return Vec::new(),
    };
    let digits = lower.replace('-', "");
    vec![lower.to_uppercase(), digits.to_uppercase(), lower, digits]
}
