//! Whether a schema as a whole means anything and keeps its secrets: no permission runs in circles or reaches itself through
//! a `!`, and no secret is a document's `_id`.
//!
//! Works on the compiled tables; the declarations only say where to point.

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

/// How deep the permissions of one resource may be made of each other, expressions included. It bounds the evaluator's
/// stack, together with the depth of a resource tree.
const NESTING_MAX: usize = 32;

/// How many steps of a way a message shows at most.
const STEPS_MAX: usize = 8;

/// Notes what is wrong with the schema as a whole.
pub(crate) fn check(schema: &Schema, declarations: &Declarations, errors: &mut Vec<SchemaError>) {
    secrets(schema, declarations, errors);
    let resources = (0..).map(ResourceTypeId).zip(&declarations.resources);
    let permissions = resources.flat_map(|(kind, resource)| resource.permissions.iter().map(move |one| (kind, one)));
    let permissions = permissions.zip(&schema.permissions).map(|((kind, declaration), permission)| {
        let mut references = Vec::new();
        if let Some(syntax) = &declaration.syntax {
            refer(&permission.expression, syntax, false, &mut references);
        }
        Declared { kind, name: &declaration.name, references }
    });
    let mut checker = Checker { schema, permissions: permissions.collect(), errors };
    if checker.circles() && checker.nesting() {
        checker.ground();
        checker.exclusion();
    }
}

/// A document's `_id` is kept and shown as it is, so it cannot be what a secret subject is known by.
fn secrets(schema: &Schema, declarations: &Declarations, errors: &mut Vec<SchemaError>) {
    let declared = declarations.resources.iter().flat_map(|resource| &resource.relations);
    for (relation, declaration) in schema.relations.iter().zip(declared) {
        let Some(ids) = relation.ids.as_ref().filter(|ids| relation.each.is_none() && ids.field.top() == "_id") else {
            continue;
        };
        let is_secret = |target: &Target| matches!(target, Target::Subject(kind) if schema.subject(*kind).secret);
        if ids.targets.iter().any(is_secret) {
            let name = &declaration.name;
            let message = format!("relation `{}` reads secret ids from `{}`", name.text, ids.field);
            let help = "the `_id` of a document is no place for a secret: it is kept and shown as it is";
            errors.push(SchemaError::new(&name.span, message).help(help));
        }
    }
}

/// A permission, and where its expression names what.
struct Declared<'a> {
    kind: ResourceTypeId,
    name: &'a Name,
    references: Vec<Reference>,
}

/// A name in an expression, or an edge and a name.
struct Reference {
    edge: Option<Member>,
    member: Member,
    is_excluded: bool,
    span: Span,
}

/// Finds the references of an expression and their places. Both trees have the same shape.
fn refer(expression: &Expression, syntax: &Syntax, is_excluded: bool, found: &mut Vec<Reference>) {
    match (expression, syntax) {
        (Expression::Relation(id), Syntax::Name(name)) => {
            let span = name.span.clone();
            found.push(Reference { edge: None, member: Member::Relation(*id), is_excluded, span });
        }
        (Expression::Permission(id), Syntax::Name(name)) => {
            let span = name.span.clone();
            found.push(Reference { edge: None, member: Member::Permission(*id), is_excluded, span });
        }
        (Expression::Walk { edge, member }, Syntax::Walk { edge: from, member: to }) => {
            let (edge, span) = (Some(Member::Relation(*edge)), from.span.start..to.span.end);
            found.push(Reference { edge, member: *member, is_excluded, span });
        }
        (Expression::Not(inner), Syntax::Not(written)) => refer(inner, written, true, found),
        (Expression::And(sides), Syntax::And(written)) | (Expression::Or(sides), Syntax::Or(written)) => {
            sides.iter().zip(written).for_each(|(side, written)| refer(side, written, is_excluded, found));
        }
        _ => {}
    }
}

struct Checker<'a> {
    schema: &'a Schema,
    permissions: Vec<Declared<'a>>,
    errors: &'a mut Vec<SchemaError>,
}

impl Checker<'_> {
    /// The place of a member in the graph of all: permissions first.
    fn node(&self, member: Member) -> usize {
        match member {
            Member::Permission(id) => id.index(),
            Member::Relation(id) => self.permissions.len() + id.index(),
        }
    }

    /// Which permissions name which of the same resource.
    fn same_resource(&self) -> Graph {
        let here = |reference: &Reference| match (reference.edge, reference.member) {
            (None, Member::Permission(id)) => Some(id.index()),
            _ => None,
        };
        Graph(self.permissions.iter().map(|one| one.references.iter().filter_map(here).collect()).collect())
    }

    /// Notes permissions that are made of themselves on the same resource. Whether there are none.
    fn circles(&mut self) -> bool {
        let graph = self.same_resource();
        let components = graph.components();
        let mut is_valid = true;
        for node in self.first_of_circles(&graph, &components) {
            is_valid = false;
            let way = self.way(&graph, node, node);
            let next = way.as_ref().and_then(|way| way.get(1)).copied();
            let message = format!("refers to itself{}", self.shown(way.as_deref()));
            self.note(
                node,
                |reference| {
                    reference.edge.is_none()
                        && matches!(reference.member, Member::Permission(id) if Some(id.index()) == next)
                },
                &message,
                "name a relation instead, or follow an edge to another resource on the way".to_owned(),
            );
        }
        is_valid
    }

    /// Notes permissions that nest too deep, only the first of those that are made of each other. Whether there are none.
    fn nesting(&mut self) -> bool {
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
                    "each permission, `!`, `&` and `|` that it is made of counts: name relations directly".to_owned();
                self.note(node, |_| false, &format!("nests deeper than {NESTING_MAX}"), help);
            }
        }
        is_valid
    }

    /// Notes permissions that nothing ever grants: they only lead back to themselves.
    fn ground(&mut self) {
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
        for node in self.first_of_circles(&graph, &components) {
            let way = self.way(&graph, node, node);
            let message = format!("only leads back to itself: nothing ever grants it{}", self.shown(way.as_deref()));
            let next = way.and_then(|way| way.get(1).copied()).map_or(node, |next| next);
            let help = self.permissions.get(node).map_or_else(String::new, |one| {
                let members = &self.schema.resource(one.kind).members;
                let is_ground = |member: &Member| {
                    let Member::Relation(id) = member else { return false };
                    let targets = self.schema.relation(*id).ids.iter().flat_map(|ids| &ids.targets);
                    targets.clone().next().is_some()
                        && !targets.clone().any(|target| matches!(target, Target::Resource(_)))
                };
                let ground = members.iter().find(|(_, member)| is_ground(member)).map_or("owner", |(name, _)| name);
                format!("join by `|` what grants it in the first place, for example `{ground}`")
            });
            self.note(
                node,
                |reference| matches!(reference.member, Member::Permission(id) if id.index() == next),
                &message,
                help,
            );
        }
    }

    /// Notes permissions of which something excluded depends on themselves.
    fn exclusion(&mut self) {
        let relations = self.schema.relations.iter().map(|relation| {
            let targets = relation.ids.iter().flat_map(|ids| &ids.targets);
            let sets = targets.filter_map(|target| match target {
                Target::Set(_, member) => Some(self.node(*member)),
                _ => None,
            });
            sets.collect()
        });
        let permissions = self.permissions.iter().map(|one| {
            one.references
                .iter()
                .flat_map(|one| one.edge.into_iter().chain([one.member]))
                .map(|one| self.node(one))
                .collect()
        });
        let graph = Graph(permissions.chain(relations).collect());
        let components = graph.components();
        let mut found = Vec::new();
        for (node, one) in self.permissions.iter().enumerate() {
            let leads_back =
                |reference: &&Reference| reference.is_excluded && components.are_one(node, self.node(reference.member));
            if let Some(reference) = one.references.iter().find(leads_back) {
                found.push((node, self.node(reference.member), reference.span.clone()));
            }
        }
        for (node, excluded, span) in found {
            let rest = if node == excluded { Some(vec![node]) } else { self.way(&graph, excluded, node) };
            let way = rest.map(|rest| [vec![node], rest].concat());
            let message = format!("reaches itself through a `!`{}", self.shown(way.as_deref()));
            self.note(
                node,
                |reference| reference.span == span,
                &message,
                "what is excluded must not depend on what is granted: exclude by a relation".to_owned(),
            );
        }
    }

    /// The shortest way, unless so much is wrong already that nobody would read it.
    fn way(&self, graph: &Graph, start: usize, goal: usize) -> Option<Vec<usize>> {
        if self.errors.len() < SHOWN_MAX { graph.way(start, goal) } else { None }
    }

    /// The first permission of each circle, in the order of the text.
    fn first_of_circles(&self, graph: &Graph, components: &Components) -> Vec<usize> {
        let leads_back =
            |node: usize| graph.0.get(node).into_iter().flatten().any(|next| components.are_one(node, *next));
        let mut seen = HashSet::new();
        (0..self.permissions.len()).filter(|node| leads_back(*node) && seen.insert(components.of(*node))).collect()
    }

    /// Notes a mistake where the permission refers to what is meant or, if it does not, at its name.
    fn note(&mut self, node: usize, is_meant: impl Fn(&Reference) -> bool, message: &str, help: String) {
        let Some(one) = self.permissions.get(node) else { return };
        let reference = one.references.iter().find(|reference| is_meant(reference));
        let span = reference.map_or(&one.name.span, |reference| &reference.span);
        self.errors.push(SchemaError::new(span, format!("permission `{}` {message}", one.name.text)).help(help));
    }

    /// ": `read` → `write` → `read`", if there is something on the way; names of several types with their types.
    fn shown(&self, way: Option<&[usize]>) -> String {
        let Some(way) = way.filter(|way| way.len() > 2) else {
            return String::new();
        };
        let kinds = || way.iter().filter_map(|node| self.permissions.get(*node)).map(|one| one.kind);
        let is_one_type =
            way.iter().all(|node| *node < self.permissions.len()) && kinds().all(|kind| kinds().next() == Some(kind));
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
        let mut steps: Vec<String> = way.iter().map(name).collect();
        if steps.len() > STEPS_MAX {
            steps.splice(STEPS_MAX / 2..steps.len() - STEPS_MAX / 2, ["…".to_owned()]);
        }
        format!(": {}", steps.join(" → "))
    }

    /// Which permissions can be granted at all: by some relation, however far away.
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

/// How deep an expression nests, by the depths of the permissions that it names.
fn nesting(expression: &Expression, depths: &[usize]) -> usize {
    match expression {
        Expression::Relation(_) | Expression::Walk { .. } => 0,
        Expression::Permission(id) => depths.get(id.index()).copied().unwrap_or_default(),
        Expression::Not(inner) => 1 + nesting(inner, depths),
        Expression::And(sides) | Expression::Or(sides) => {
            1 + sides.iter().map(|side| nesting(side, depths)).max().unwrap_or_default()
        }
    }
}

fn can_hold(expression: &Expression, grounded: &[bool]) -> bool {
    let is_grounded = |id: &PermissionId| grounded.get(id.index()).copied().unwrap_or(true);
    match expression {
        Expression::Relation(_) | Expression::Not(_) | Expression::Walk { member: Member::Relation(_), .. } => true,
        Expression::Permission(id) | Expression::Walk { member: Member::Permission(id), .. } => is_grounded(id),
        Expression::And(sides) => sides.iter().all(|side| can_hold(side, grounded)),
        Expression::Or(sides) => sides.iter().any(|side| can_hold(side, grounded)),
    }
}
