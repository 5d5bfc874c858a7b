//! The random schemas and documents of the evaluator's tests, with a permission for everything that a filter may ask for, and with more
//! documents that have hostile values.
//!
//! Computes nothing.

use std::fmt;

use permcached::{
    question::IdForm,
    schema::{Condition, Path, Test},
};
use proptest::{collection::vec, prelude::*};

use super::hostile;
use crate::evaluator::{
    generate::{Case, Tape, case_of, id_value},
    model::{Expression, Model, Permission, Relation, ResourceType, Target},
};

/// The resource type whose only purpose are permissions about the subject. It has no documents.
pub const PROBE: &str = "probe";
/// The permission of [`PROBE`] that every active subject has.
pub const ALWAYS: &str = "always";

/// A case whose schema has the permissions that [`super::world`] asks for.
pub struct Listed {
    pub case: Case,
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.case)
    }
}

pub fn listed() -> impl Strategy<Value = Listed> {
    let tapes = vec(vec(any::<u8>(), 40), 12..=45);
    (case_of(change), tapes).prop_map(|(mut case, tapes)| {
        hostile::add_documents(&mut case, &tapes);
        Listed { case }
    })
}

/// Makes most relations those of the resource's own document, and adds permissions.
fn change(model: &mut Model, tape: &mut Tape<'_>) {
    let main = model.subjects[0].name;
    for resource in &mut model.resources {
        let is_late = |name: &str| name.starts_with("late_") || name == "task" || name == "work";
        resource.permissions.retain(|permission| !is_late(&permission.name));
        let has_documents = resource.collection.is_some();
        for relation in &mut resource.relations {
            let is_defined = relation.field.is_some() || relation.each.is_some() || relation.condition.is_some();
            if has_documents && is_defined && tape.rarely(60) {
                relation.lookup = None;
                relation.by_format = None;
            }
            change_paths(relation, tape);
            if relation.subject_type.is_none()
                && let Some(Target::Subject(name)) = relation.targets.first_mut()
                && tape.rarely(60)
            {
                *name = main;
            }
        }
    }
    add_permissions(model, tape.rarely(60));
}

/// Uses paths through more documents, into `DBRefs`, and to the `_id` of elements.
fn change_paths(relation: &mut Relation, tape: &mut Tape<'_>) {
    let is_id = tape.rarely(15);
    if let (Some(_), Some(field)) = (&relation.each, &mut relation.field)
        && is_id
    {
        "_id".clone_into(field);
        if tape.rarely(50) {
            let forms = [IdForm::ObjectId, IdForm::Integer, IdForm::String];
            let ids = forms.into_iter().flat_map(|form| [id_value(form, 0), id_value(form, 1)]);
            let path = Path::parse("_id").expect("a path");
            relation.condition = Some(Condition::Field(path, Test::In(ids.collect())));
        }
        return;
    }
    if let Some(field) = &mut relation.field
        && !relation.each.as_ref().is_some_and(|each| each.starts_with("meta"))
    {
        match tape.below(20) {
            17 => "ref.$id".clone_into(field),
            18 => *field = format!("meta.{field}"),
            19 => *field = format!("meta.inner.{field}"),
            _ => {}
        }
    }
    if let Some(until) = &mut relation.until
        && tape.rarely(10)
    {
        "meta.inner.until".clone_into(until);
    }
}

/// The name of the permission that means the end of an edge, or one that means a relation.
pub fn hidden(edge: Option<&str>, member: &str) -> String {
    edge.map_or_else(|| format!("only_{member}"), |edge| format!("walk_{edge}_{member}"))
}

/// Adds a permission for every relation, for every edge and member of its ends, and for every flag of subjects; if `negated`, also one
/// for the opposite of each.
fn add_permissions(model: &mut Model, negated: bool) {
    let plain = |name: &str| Expression::Member(name.to_owned());
    let mut added: Vec<Vec<(String, Expression)>> = Vec::new();
    for resource in &model.resources {
        let mut of_resource = Vec::new();
        for relation in &resource.relations {
            let Some(Target::Resource(end)) = relation.targets.first() else {
                of_resource.push((hidden(None, &relation.name), plain(&relation.name)));
                continue;
            };
            for member in members(model.resource(end).expect("a resource type of the model")) {
                let walk = Expression::Walk(relation.name.clone(), member.clone());
                of_resource.push((hidden(Some(&relation.name), &member), walk));
            }
        }
        added.push(of_resource);
    }
    for (resource, of_resource) in model.resources.iter_mut().zip(added) {
        for (name, meaning) in of_resource {
            if negated {
                let inner = match &meaning {
                    Expression::Walk(edge, member) => Expression::Walk(edge.clone(), member.clone()),
                    _ => plain(&name),
                };
                let meaning = Expression::Not(Box::new(inner));
                resource.permissions.push(Permission { name: format!("not_{name}"), meaning, is_private: false });
            }
            resource.permissions.push(Permission { name, meaning, is_private: false });
        }
    }
    add_probe(model);
}

/// What can be asked for at the end of an edge.
fn members(resource: &ResourceType) -> Vec<String> {
    let relations = resource.relations.iter().filter(|relation| !relation.is_edge()).map(|relation| &relation.name);
    relations.chain(resource.permissions.iter().map(|permission| &permission.name)).cloned().collect()
}

fn add_probe(model: &mut Model) {
    let flags = model.subjects.iter().flat_map(|kind| &kind.relations);
    let mut flags: Vec<String> =
        flags.filter(|relation| relation.field.is_none()).map(|relation| relation.name.clone()).collect();
    flags.sort_unstable();
    flags.dedup();
    let none = || Expression::Member("nothing".to_owned());
    let permission = |name: String, meaning| Permission { name, meaning, is_private: false };
    let always = Expression::Or(vec![none(), Expression::Not(Box::new(none()))]);
    let mut permissions = vec![permission(ALWAYS.to_owned(), always)];
    for flag in flags {
        let of_subject = || Expression::SubjectFlag(flag.clone());
        permissions.push(permission(format!("has_{flag}"), of_subject()));
        permissions.push(permission(format!("lacks_{flag}"), Expression::Not(Box::new(of_subject()))));
    }
    let nothing = Relation {
        name: "nothing".to_owned(),
        lookup: Some(("nothing", "of_probe".to_owned())),
        ..Relation::default()
    };
    let form = IdForm::String;
    model.resources.push(ResourceType {
        name: PROBE,
        form,
        collection: None,
        condition: None,
        relations: vec![nothing],
        permissions,
    });
}
