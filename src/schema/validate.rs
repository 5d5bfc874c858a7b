//! Validates a schema as a whole: no permission refers to itself on the same resource, leads only back to itself or nests too
//! deep, and no secret is the `_id` of a document.
//!
//! Works on the compiled tables. It uses the declarations only for the places of errors.

mod graph;

use std::collections::HashSet;

use graph::{Components, Graph};

use super::{
    Expression, Member, Owner, Schema, Target,
    declaration::Declarations,
    error::{SHOWN_MAX, SchemaError, Span},
    expression::{Name, Syntax},
};
use crate::question::{PermissionId, ResourceTypeId};

/// The maximal depth to which permissions of one resource may refer to each other, including nested expressions. Together
/// with the bound on the depth of a check it bounds the evaluator's stack.
const NESTING_MAX: usize = 32;

/// The maximal number of steps of a path that a message shows.
const STEPS_MAX: usize = 8;

/// Reports the errors of the schema as a whole.
pub(crate) fn check(schema: &Schema, declarations: &Declarations, errors: &mut Vec<SchemaError>) {
    check_secrets(schema, declarations, errors);
    let resources = (0..).map(ResourceTypeId).zip(&declarations.resources);
    let permissions = resources.flat_map(|(kind, resource)| resource.permissions.iter().map(move |one| (kind, one)));
    let permissions = permissions.zip(&schema.permissions).map(|((kind, declaration), permission)| {
        let mut references = Vec::new();
        if let Some(syntax) = &declaration.syntax {
            collect_references(&permission.expression, syntax, &mut references);
        }
        Declared { kind, name: &declaration.name, references }
    });
    let mut checker = Checker { schema, permissions: permissions.collect(), errors };
    if checker.check_cycles() && checker.check_nesting() {
        checker.check_grounding();
    }
}

/// Reports relations that read secret ids from `_id`. A document's `_id` is stored and shown as it is, so it must not be a
/// secret.
fn check_secrets(schema: &Schema, declarations: &Declarations, errors: &mut Vec<SchemaError>) {
    let declared = declarations.resources.iter().flat_map(|resource| &resource.relations);
    for (relation, declaration) in schema.relations.iter().zip(declared) {
        let Some(ids) = relation.ids.as_ref().filter(|ids| relation.each.is_none() && ids.field.top() == "_id") else {
            continue;
        };
        let is_secret = |target: &Target| matches!(target, Target::Subject(kind) if schema.subject(*kind).secret);
        if ids.targets.iter().any(is_secret) {
            let name = &declaration.name;
            let message = format!("relation `{}` reads secret ids from `{}`", name.text, ids.field);
            let help = "do not use a document's `_id` for a secret: it is stored and shown as it is";
            errors.push(SchemaError::new(&name.span, message).help(help));
        }
    }
}

/// A permission, and the references in its expression.
struct Declared<'a> {
    kind: ResourceTypeId,
    name: &'a Name,
    references: Vec<Reference>,
}

/// A reference in an expression: a name, or an edge and a name.
struct Reference {
    edge: Option<Member>,
    member: Member,
    span: Span,
}

/// Collects the references of an expression with their places. `expression` and `syntax` have the same shape.
fn collect_references(expression: &Expression, syntax: &Syntax, found: &mut Vec<Reference>) {
    match (expression, syntax) {
        (Expression::Relation(id), Syntax::Name(name)) => {
            let span = name.span.clone();
            found.push(Reference { edge: None, member: Member::Relation(*id), span });
        }
        (Expression::Permission(id), Syntax::Name(name)) => {
            let span = name.span.clone();
            found.push(Reference { edge: None, member: Member::Permission(*id), span });
        }
        (Expression::Walk { edge, member }, Syntax::Walk { edge: from, member: to }) => {
            let (edge, span) = (Some(Member::Relation(*edge)), from.span.start..to.span.end);
            found.push(Reference { edge, member: *member, span });
        }
        (Expression::Not(inner), Syntax::Not(written)) => collect_references(inner, written, found),
        (Expression::And(sides), Syntax::And(written)) | (Expression::Or(sides), Syntax::Or(written)) => {
            sides.iter().zip(written).for_each(|(side, written)| collect_references(side, written, found));
        }
        // A flag of the subject refers to no permission.
        (Expression::SubjectFlag(_), Syntax::Walk { .. }) => {}
        // The compiler creates no other pair.
        (
            Expression::Relation(_)
            | Expression::Permission(_)
            | Expression::Walk { .. }
            | Expression::SubjectFlag(_)
            | Expression::Not(_)
            | Expression::And(_)
            | Expression::Or(_),
            Syntax::Name(_) | Syntax::Walk { .. } | Syntax::Not(_) | Syntax::And(_) | Syntax::Or(_),
        ) => {}
    }
}

struct Checker<'a> {
    schema: &'a Schema,
    permissions: Vec<Declared<'a>>,
    errors: &'a mut Vec<SchemaError>,
}

impl Checker<'_> {
    /// The node of a member in the graph of all members: permissions come first.
    fn node(&self, member: Member) -> usize {
        match member {
            Member::Permission(id) => id.index(),
            Member::Relation(id) => self.permissions.len() + id.index(),
        }
    }

    /// The graph of references between permissions of the same resource.
    fn same_resource(&self) -> Graph {
        let here = |reference: &Reference| match (reference.edge, reference.member) {
            (None, Member::Permission(id)) => Some(id.index()),
            (None, Member::Relation(_)) | (Some(_), Member::Relation(_) | Member::Permission(_)) => None,
        };
        Graph(self.permissions.iter().map(|one| one.references.iter().filter_map(here).collect()).collect())
    }

    /// Reports permissions that refer to themselves on the same resource. Returns whether there are none.
    fn check_cycles(&mut self) -> bool {
        let graph = self.same_resource();
        let components = graph.components();
        let mut is_valid = true;
        for node in self.first_of_cycles(&graph, &components) {
            is_valid = false;
            let path = self.path(&graph, node, node);
            let next = path.as_ref().and_then(|path| path.get(1)).copied();
            let message = format!("refers to itself{}", self.shown(path.as_deref()));
            self.report(
                node,
                |reference| {
                    reference.edge.is_none()
                        && matches!(reference.member, Member::Permission(id) if Some(id.index()) == next)
                },
                &message,
                "name a relation instead, or follow an edge to another resource in between".to_owned(),
            );
        }
        is_valid
    }

    /// Reports permissions that nest too deep, but not permissions that only contain a reported one. Returns whether it
    /// reported none.
    fn check_nesting(&mut self) -> bool {
        let graph = self.same_resource();
        let mut depths = vec![0; self.permissions.len()];
        let mut is_valid = true;
        for node in graph.components().order {
            let Some(permission) = self.schema.permissions.get(node) else {
                continue;
            };
            let depth = 1 + nesting(&permission.expression, &depths);
            let is_first =
                graph.0.get(node).into_iter().flatten().all(|inner| depths.get(*inner) <= Some(&NESTING_MAX));
            if let Some(place) = depths.get_mut(node) {
                *place = depth;
            }
            if depth > NESTING_MAX && is_first {
                is_valid = false;
                let help =
                    "each permission, `!`, `&` and `|` inside it counts as a level: name relations directly".to_owned();
                self.report(node, |_| false, &format!("nests deeper than {NESTING_MAX}"), help);
            }
        }
        is_valid
    }

    /// Reports permissions that nothing ever grants, because they only lead back to themselves.
    fn check_grounding(&mut self) {
        let grounded = self.grounded();
        let is_loose =
            |member: Member| matches!(member, Member::Permission(id) if grounded.get(id.index()) == Some(&false));
        let loose = |one: &Declared<'_>| -> Vec<usize> {
            let members = one.references.iter().map(|reference| reference.member).filter(|member| is_loose(*member));
            members.map(|member| self.node(member)).collect()
        };
        let graph = Graph(
            self.permissions
                .iter()
                .zip(&grounded)
                .map(|(one, is_grounded)| if *is_grounded { Vec::new() } else { loose(one) })
                .collect(),
        );
        let components = graph.components();
        for node in self.first_of_cycles(&graph, &components) {
            let path = self.path(&graph, node, node);
            let message = format!("only leads back to itself: nothing ever grants it{}", self.shown(path.as_deref()));
            let next = path.and_then(|path| path.get(1).copied()).map_or(node, |next| next);
            let help = "add with `|` the relation that grants it in the first place".to_owned();
            self.report(
                node,
                |reference| matches!(reference.member, Member::Permission(id) if id.index() == next),
                &message,
                help,
            );
        }
    }

    /// The shortest path; none if there are already so many errors that this one will not be shown.
    fn path(&self, graph: &Graph, start: usize, goal: usize) -> Option<Vec<usize>> {
        if self.errors.len() < SHOWN_MAX { graph.path(start, goal) } else { None }
    }

    /// The first permission of each cycle, in the order of the text.
    fn first_of_cycles(&self, graph: &Graph, components: &Components) -> Vec<usize> {
        let leads_back =
            |node: usize| graph.0.get(node).into_iter().flatten().any(|next| components.are_one(node, *next));
        let mut seen = HashSet::new();
        (0..self.permissions.len()).filter(|node| leads_back(*node) && seen.insert(components.of(*node))).collect()
    }

    /// Reports an error at the first reference of the permission that `is_meant` selects or, if there is none, at its name.
    fn report(&mut self, node: usize, is_meant: impl Fn(&Reference) -> bool, message: &str, help: String) {
        let Some(one) = self.permissions.get(node) else { return };
        let reference = one.references.iter().find(|reference| is_meant(reference));
        let span = reference.map_or(&one.name.span, |reference| &reference.span);
        self.errors.push(SchemaError::new(span, format!("permission `{}` {message}", one.name.text)).help(help));
    }

    /// A path as the end of a message, such as ": `read` → `write` → `read`". Empty if no node lies between its ends. Names
    /// include their types unless all nodes are permissions of one type.
    fn shown(&self, path: Option<&[usize]>) -> String {
        let Some(path) = path.filter(|path| path.len() > 2) else {
            return String::new();
        };
        let kinds = || path.iter().filter_map(|node| self.permissions.get(*node)).map(|one| one.kind);
        let is_one_type =
            path.iter().all(|node| *node < self.permissions.len()) && kinds().all(|kind| kinds().next() == Some(kind));
        let name = |node: &usize| match self.permissions.get(*node) {
            Some(one) if is_one_type => format!("`{}`", one.name.text),
            Some(one) => format!("`{}#{}`", self.schema.resource(one.kind).name, one.name.text),
            None => {
                let relation = node.checked_sub(self.permissions.len()).and_then(|at| self.schema.relations.get(at));
                relation.map_or_else(String::new, |relation| match relation.owner {
                    Owner::Resource(kind) => format!("`{}#{}`", self.schema.resource(kind).name, relation.name),
                    Owner::Subject(kind) => format!("`{}#{}`", self.schema.subject(kind).name, relation.name),
                })
            }
        };
        let mut steps: Vec<String> = path.iter().map(name).collect();
        if steps.len() > STEPS_MAX {
            steps.splice(STEPS_MAX / 2..steps.len() - STEPS_MAX / 2, ["…".to_owned()]);
        }
        format!(": {}", steps.join(" → "))
    }

    /// For each permission, whether some relation can grant it, however far away.
    fn grounded(&self) -> Vec<bool> {
        let mut users = vec![Vec::new(); self.permissions.len()];
        for (node, one) in self.permissions.iter().enumerate() {
            for reference in &one.references {
                if let Member::Permission(id) = reference.member
                    && let Some(users) = users.get_mut(id.index())
                {
                    users.push(node);
                }
            }
        }
        let mut grounded = vec![false; self.permissions.len()];
        let mut todo: Vec<usize> = (0..self.permissions.len()).collect();
        while let Some(node) = todo.pop() {
            let Some(permission) = self.schema.permissions.get(node) else {
                continue;
            };
            if grounded.get(node) == Some(&false) && can_hold(&permission.expression, &grounded) {
                if let Some(place) = grounded.get_mut(node) {
                    *place = true;
                }
                todo.extend(users.get(node).into_iter().flatten());
            }
        }
        grounded
    }
}

/// The depth of an expression, given the depths of the permissions that it names.
fn nesting(expression: &Expression, depths: &[usize]) -> usize {
    match expression {
        Expression::Relation(_) | Expression::Walk { .. } | Expression::SubjectFlag(_) => 0,
        Expression::Permission(id) => depths.get(id.index()).copied().unwrap_or_default(),
        Expression::Not(inner) => 1 + nesting(inner, depths),
        Expression::And(sides) | Expression::Or(sides) => {
            1 + sides.iter().map(|side| nesting(side, depths)).max().unwrap_or_default()
        }
    }
}

/// Whether an expression can hold, given which permissions can be granted.
fn can_hold(expression: &Expression, grounded: &[bool]) -> bool {
    let is_grounded = |id: &PermissionId| grounded.get(id.index()).copied().unwrap_or(true);
    match expression {
        Expression::Relation(_)
        | Expression::SubjectFlag(_)
        | Expression::Not(_)
        | Expression::Walk { member: Member::Relation(_), .. } => true,
        Expression::Permission(id) | Expression::Walk { member: Member::Permission(id), .. } => is_grounded(id),
        Expression::And(sides) => sides.iter().all(|side| can_hold(side, grounded)),
        Expression::Or(sides) => sides.iter().any(|side| can_hold(side, grounded)),
    }
}
