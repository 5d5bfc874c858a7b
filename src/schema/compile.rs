//! Compiles declarations into tables: resolves every name, and assigns each relation its lookup.
//!
//! It does not look at a schema as a whole: `validate` checks recursion and negation, and `plan` decides the order of work
//! and what is pushed down into queries.

mod names;
mod subjects;

use std::collections::HashMap;

use names::{Names, Symbol};

use super::{
    Expression, HiddenPermissions, Ids, Lookup, Member, Origin, Owner, Path, Permission, Relation, ResourceType,
    Schema, SubjectType, Target, TextKeys,
    declaration::{
        Declarations, ListedSubject, PermissionDeclaration, RelationDeclaration, ResourceDeclaration, SubjectName,
    },
    error::{SHOWN_MAX, SchemaError, listed},
    expression::{Name, OF_SUBJECT, Syntax},
    plan, validate,
};
use crate::question::{IdForm, LookupId, RelationId, ResourceTypeId, SubjectTypeId};

/// The maximal number of targets (subject types and sets) of a relation: a fact stores the index of a target in one byte.
const TARGETS_MAX: usize = 200;

/// Compiles declarations. Returns none if `errors` contains an error afterwards, found here or before.
pub(crate) fn compile(declarations: &Declarations, errors: &mut Vec<SchemaError>) -> Option<Schema> {
    if !fits(declarations) {
        errors.push(SchemaError::without_place(
            "the schema has 60,000 or more permissions, relations of resources and `edge.name`s together, or types and relations together, where a relation that names a collection counts four times, and one with `format` up to eight times",
        ));
        return None;
    }
    let names = Names::of(declarations, errors);
    let mut compiler = Compiler {
        names,
        errors,
        lookups: Vec::new(),
        lookup_ids: HashMap::new(),
        default_subject: None,
        permission: "",
        collections: declarations
            .resources
            .iter()
            .map(|resource| resource.collection.is_some() || !resource.is_whole)
            .collect(),
    };
    compiler.default_subject = declarations.default_subject.as_ref().and_then(|name| compiler.subject_type(name));
    let mut relations = Vec::new();
    let mut resources = Vec::new();
    let mut permissions = Vec::new();
    for (kind, declaration) in (0..).map(ResourceTypeId).zip(&declarations.resources) {
        let document = declaration.collection.as_ref().map(|name| compiler.lookup(&name.text, &Path::id(), None));
        let (name, collection) = (declaration.name.text.as_str(), declaration.collection.as_ref());
        let (id, is_whole) = (declaration.id, declaration.is_whole);
        let owner = Declared { owner: Owner::Resource(kind), name, id, collection, is_whole };
        for relation in &declaration.relations {
            relations.extend(compiler.relation_of_resource(kind, &owner, relation));
        }
        for permission in &declaration.permissions {
            permissions.extend(compiler.permission(kind, permission));
        }
        let members = compiler.names.by_name(kind);
        resources.push(ResourceType {
            name: declaration.name.text.as_str().into(),
            id: declaration.id,
            document,
            gate: None,
            members,
        });
    }
    relations.extend(compiler.relations_of_subjects(declarations));
    let mut subjects = Vec::new();
    for (kind, declaration) in (0..).map(SubjectTypeId).zip(&declarations.subjects) {
        let gate = compiler.gate(kind, declaration).map(|gate| {
            let id = number(relations.len(), RelationId);
            relations.push(gate);
            id
        });
        let name = declaration.name.text.as_str().into();
        let relations = compiler.names.relations_of(kind);
        subjects.push(SubjectType { name, id: declaration.id, secret: declaration.secret, gate, relations });
    }
    for ((kind, declaration), resource) in (0..).map(ResourceTypeId).zip(&declarations.resources).zip(&mut resources) {
        resource.gate = resource_gate(kind, declaration, resource.document).map(|gate| {
            let id = number(relations.len(), RelationId);
            relations.push(gate);
            id
        });
    }
    if !compiler.errors.is_empty() {
        return None;
    }
    let mut schema = Schema {
        default_subject: compiler.default_subject?,
        subjects: subjects.into(),
        resources: resources.into(),
        relations: relations.into(),
        permissions: permissions.into(),
        lookups: compiler.lookups.into(),
        collections: Box::default(),
        hidden: HiddenPermissions::default(),
        warnings: None,
    };
    validate::check(&schema, declarations, errors);
    if !errors.is_empty() {
        return None;
    }
    plan::plan(&mut schema);
    Some(schema)
}

/// Whether every number fits in its 16 bits.
fn fits(declarations: &Declarations) -> bool {
    const MAX: usize = 60_000;
    let of_resources = || declarations.resources.iter().flat_map(|resource| &resource.relations);
    let of_subjects = || declarations.subjects.iter().flat_map(|subject| &subject.relations);
    let relations = of_resources().chain(of_subjects()).count();
    let permissions = || declarations.resources.iter().flat_map(|resource| &resource.permissions);
    let walks: usize = permissions().filter_map(|permission| Some(permission.syntax.as_ref()?.walks())).sum();
    let types = declarations.resources.len() + declarations.subjects.len();
    let elsewhere = of_resources().chain(of_subjects()).filter(|relation| relation.collection.is_some()).count();
    // A list may look up what a relation leads to, each form of ids as text by a lookup of its own, and reads a hidden relation there.
    let reverse: usize = of_resources().map(reverse_lookups_max).sum();
    // Each type may add a relation, the gate of a subject type, and a lookup by `_id`. Each relation that names a collection
    // may have a lookup of its own, one that searches for every form of an id, and one of structures.
    let (relations, lookups) = (relations + types + reverse, 3 * elsewhere + types + reverse);
    // A list asks for relations and for what edges lead to by hidden permissions.
    let permissions = permissions().count() + of_resources().count() + walks;
    [types, relations, permissions, lookups].into_iter().all(|count| count < MAX)
}

/// How many reverse lookups a relation has at most.
fn reverse_lookups_max(relation: &RelationDeclaration) -> usize {
    match (&relation.field, &relation.format) {
        (None, _) => 0,
        (Some(_), None) => 1,
        (Some(_), Some(_)) => relation.subjects.len().clamp(1, IdForm::ALL.len()),
    }
}

/// The relation that a resource's own document must fulfil, if the type has a condition.
fn resource_gate(
    kind: ResourceTypeId,
    declaration: &ResourceDeclaration,
    document: Option<LookupId>,
) -> Option<Relation> {
    let condition = declaration.condition.clone()?;
    Some(Relation {
        name: "exists".into(),
        condition: Some(condition),
        ..Relation::flag(Owner::Resource(kind), Origin::Documents(document?))
    })
}

/// For each target, the value of `subject_type` that means it, if the relation has a table of them.
fn type_values(subjects: &[ListedSubject]) -> Option<Box<[Box<str>]>> {
    subjects.first()?.value.as_ref()?;
    Some(subjects.iter().map(|subject| subject.value_text().unwrap_or_default().into()).collect())
}

fn number<T>(count: usize, make: fn(u16) -> T) -> T {
    make(u16::try_from(count).unwrap_or(u16::MAX))
}

/// The type that declares a relation.
struct Declared<'a> {
    owner: Owner,
    name: &'a str,
    /// The form of its ids.
    id: IdForm,
    /// The collection of its own documents.
    collection: Option<&'a Name>,
    /// Whether all of the type could be read.
    is_whole: bool,
}

/// The place at which a schema names a member.
#[derive(Clone, Copy)]
enum Place {
    /// In an expression, by itself.
    Here,
    /// In an expression, after an edge.
    BehindEdge,
    /// In `subject`, after a resource type.
    InSet,
}

struct Compiler<'a> {
    names: Names<'a>,
    errors: &'a mut Vec<SchemaError>,
    lookups: Vec<Lookup>,
    lookup_ids: HashMap<(&'a str, Path, Option<TextKeys>), LookupId>,
    default_subject: Option<SubjectTypeId>,
    /// The permission that is being compiled.
    permission: &'a str,
    /// For each resource type, whether it has a collection or may have one that could not be read.
    collections: Vec<bool>,
}

impl<'a> Compiler<'a> {
    /// Records an error and returns none.
    fn wrong<T>(&mut self, error: SchemaError) -> Option<T> {
        self.errors.push(error);
        None
    }

    fn subject_type(&mut self, name: &Name) -> Option<SubjectTypeId> {
        let found = self.names.subjects.get(name.text.as_str()).copied();
        if found.is_some() || !self.names.is_whole || self.names.subjects.is_empty() {
            return found;
        }
        let error = SchemaError::new(&name.span, format!("unknown subject type `{}`", name.text));
        self.wrong(error.suggesting(&name.text, self.names.subjects.keys().copied()))
    }

    fn resource_type(&mut self, name: &Name) -> Option<ResourceTypeId> {
        let found = self.names.resources.get(name.text.as_str()).copied();
        if found.is_some() || !self.names.is_whole {
            return found;
        }
        if self.names.subjects.contains_key(name.text.as_str()) {
            let message = format!("`{}` is a subject type, not a resource type", name.text);
            let help = format!("for a field that holds subjects: subject = \"{}\"", name.text);
            return self.wrong(SchemaError::new(&name.span, message).help(help));
        }
        let error = SchemaError::new(&name.span, format!("unknown resource type `{}`", name.text));
        self.wrong(error.suggesting(&name.text, self.names.resources.keys().copied()))
    }

    /// The lookup of a collection by a field. It is created when it is first used.
    fn lookup(&mut self, collection: &'a str, by: &Path, text_keys: Option<TextKeys>) -> LookupId {
        let lookups = &mut self.lookups;
        *self.lookup_ids.entry((collection, by.clone(), text_keys.clone())).or_insert_with(|| {
            lookups.push(Lookup { text_keys, ..Lookup::new(collection, by.clone()) });
            number(lookups.len() - 1, LookupId)
        })
    }

    fn relation_of_resource(
        &mut self,
        kind: ResourceTypeId,
        owner: &Declared<'a>,
        declaration: &'a RelationDeclaration,
    ) -> Option<Relation> {
        let name = &declaration.name;
        if declaration.resource.is_some() && name.text == OF_SUBJECT {
            return self.wrong(
                SchemaError::new(&name.span, format!("an edge cannot be named `{OF_SUBJECT}`"))
                    .help(format!("`{OF_SUBJECT}.NAME` is a flag of the asking subject: give the edge another name")),
            );
        }
        match &declaration.of {
            Some(of) => self.of(kind, name, of),
            None => self.relation(owner, declaration),
        }
    }

    /// A relation that is read from documents.
    fn relation(&mut self, owner: &Declared<'a>, declaration: &'a RelationDeclaration) -> Option<Relation> {
        let name = &declaration.name;
        let lookup = match (&declaration.collection, &declaration.by, owner.collection) {
            (Some(collection), Some(by), _) => {
                let text_keys = by.format.clone().map(|format| TextKeys { format, id: owner.id });
                self.lookup(&collection.text, &by.path, text_keys)
            }
            (None, None, Some(collection)) => self.lookup(&collection.text, &Path::id(), None),
            (None, None, None) if owner.is_whole => {
                let what = match owner.owner {
                    Owner::Resource(_) => "resource",
                    Owner::Subject(_) => "subject",
                };
                let message = format!("relation `{}` has no collection, and neither does `{}`", name.text, owner.name);
                let help = format!("add `collection` and `by` to the relation, or `collection` to the {what}");
                return self.wrong(SchemaError::new(&name.span, message).help(help));
            }
            _ => return None,
        };
        let ids = match &declaration.field {
            Some(field) => Some(self.ids(declaration, field)?),
            None => None,
        };
        Some(Relation {
            name: name.text.as_str().into(),
            owner: owner.owner,
            origin: Origin::Documents(lookup),
            each: declaration.each.clone(),
            condition: declaration.condition.clone(),
            document_condition: declaration.document_condition.clone(),
            ids,
            since: declaration.since.clone(),
            until: declaration.until.clone(),
            required: declaration.required,
            negated: false,
            shared: None,
            foreign: Box::default(),
            reverse: Box::default(),
        })
    }

    fn ids(&mut self, declaration: &RelationDeclaration, field: &Path) -> Option<Ids> {
        let before = self.errors.len();
        let mut targets = Vec::new();
        if let Some(name) = &declaration.resource {
            targets.extend(self.resource_type(name).map(Target::Resource));
            self.check_must_exist(declaration, name, &targets);
        } else if declaration.subjects.is_empty() {
            targets.extend(self.default_subject.map(Target::Subject));
        } else {
            let mut before = Vec::new();
            for subject in &declaration.subjects {
                if let Some(target) = self.target(&subject.name) {
                    self.check_target(declaration, subject, target, &before);
                    before.push((subject, target));
                    targets.push(target);
                }
            }
        }
        if declaration.wildcard
            && declaration.resource.is_none()
            && !targets.is_empty()
            && !targets.iter().any(|target| matches!(target, Target::Subject(_)))
        {
            let name = &declaration.name;
            self.errors.push(
                SchemaError::new(
                    &name.span,
                    format!("relation `{}` has `wildcard`, but leads only to sets of subjects", name.text),
                )
                .help("`*` stands for all subjects of a type: list that type in `subject`"),
            );
        }
        (self.errors.len() == before).then(|| Ids {
            field: field.clone(),
            format: declaration.format.clone(),
            targets: targets.into(),
            type_values: type_values(&declaration.subjects),
            subject_type: declaration.subject_type.clone(),
            subject_relation: declaration.subject_relation.clone(),
            wildcard: declaration.wildcard,
            must_exist: declaration.must_exist,
        })
    }

    /// Records an error if a relation demands that resources exist whose type has no documents: all of them exist.
    fn check_must_exist(&mut self, declaration: &RelationDeclaration, name: &Name, targets: &[Target]) {
        let is_always_there = targets.iter().any(|target| match target {
            Target::Resource(kind) => self.collections.get(kind.index()) == Some(&false),
            Target::Subject(_) | Target::Set(..) => false,
        });
        if declaration.must_exist && is_always_there {
            let message = format!(
                "relation `{}` has `must_exist`, but `{}` has no collection of its own",
                declaration.name.text, name.text
            );
            let help = format!("without documents of its own every `{}` exists: omit `must_exist`", name.text);
            self.errors.push(SchemaError::new(&name.span, message).help(help));
        }
    }

    fn target(&mut self, name: &SubjectName) -> Option<Target> {
        match name {
            SubjectName::Type(name) => {
                let resource = self.names.resources.get(name.text.as_str());
                match resource.filter(|_| !self.names.subjects.contains_key(name.text.as_str())) {
                    None => self.subject_type(name).map(Target::Subject),
                    Some(kind) => {
                        let has_member =
                            self.names.members(*kind).is_some_and(|members| members.has_condition("member"));
                        let member = if has_member { "member" } else { "NAME" };
                        let help = format!("name a set of subjects: `{}.{member}`", name.text);
                        let message = format!("`{}` is a resource type, not a subject type", name.text);
                        self.wrong(SchemaError::new(&name.span, message).help(help))
                    }
                }
            }
            SubjectName::Set(set, member) => {
                let kind = self.resource_type(set)?;
                Some(Target::Set(kind, self.member(kind, member, Place::InSet)?))
            }
        }
    }

    /// Records an error if this target is listed twice, if documents cannot distinguish it from those listed before it, or if
    /// there are too many.
    fn check_target(
        &mut self,
        relation: &RelationDeclaration,
        subject: &ListedSubject,
        target: Target,
        before: &[(&ListedSubject, Target)],
    ) {
        let (text, span) = (subject.name.text(), subject.name.span());
        // Targets that different values of `subject_type` mean are distinguished by these.
        let mut alike = before.iter().filter(|(other, _)| other.value_text() == subject.value_text());
        let is_same_set =
            |(_, other): &(_, Target)| matches!((other, target), (Target::Set(a, _), Target::Set(b, _)) if *a == b);
        let has_same_member = |(other, _): &(&ListedSubject, Target)| {
            subject.value.is_some() && other.name.member() == subject.name.member()
        };
        let error = if alike.clone().any(|(_, other)| *other == target) {
            SchemaError::new(&span, format!("`{text}` is listed twice"))
        } else if before.len() == 1 && relation.subject_type.is_none() && subject.value.is_none() {
            let message =
                format!("relation `{}` has several types of subjects, but no `subject_type`", relation.name.text);
            SchemaError::new(&span, message)
                .help("name the field that holds the type of the id, or write one relation for each type")
        } else if relation.subject_type.is_some()
            && relation.subject_relation.is_none()
            && (alike.clone().any(is_same_set) || subject.value.is_some() && alike.clone().next().is_some())
        {
            let message =
                format!("relation `{}` has several sets of one type, but no `subject_relation`", relation.name.text);
            SchemaError::new(&span, message).help("name the field that holds the name of the set's relation")
        } else if let Some((other, _)) = alike.find(|one| has_same_member(one)) {
            let message = format!("documents cannot distinguish `{text}` from `{}`", other.name.text());
            SchemaError::new(&span, message).help("give each of them a value of `subject_type` of its own")
        } else if before.len() == TARGETS_MAX {
            SchemaError::new(
                &span,
                format!("relation `{}` has more than {TARGETS_MAX} types of subjects", relation.name.text),
            )
        } else {
            return;
        };
        self.errors.push(error);
    }

    fn permission(&mut self, kind: ResourceTypeId, declaration: &'a PermissionDeclaration) -> Option<Permission> {
        self.permission = &declaration.name.text;
        Some(Permission {
            name: declaration.name.text.as_str().into(),
            resource: kind,
            expression: self.expression(kind, declaration.syntax.as_ref()?)?,
            private: declaration.private,
            stale_if_error: declaration.stale_if_error,
        })
    }

    fn expression(&mut self, kind: ResourceTypeId, syntax: &Syntax) -> Option<Expression> {
        match syntax {
            Syntax::Name(name) => Some(match self.member(kind, name, Place::Here)? {
                Member::Relation(id) => Expression::Relation(id),
                Member::Permission(id) => Expression::Permission(id),
            }),
            Syntax::Walk { edge, member } if edge.text == OF_SUBJECT => {
                self.subject_flag(member).map(Expression::SubjectFlag)
            }
            Syntax::Walk { edge, member } => {
                let (edge, target) = self.edge(kind, edge)?;
                Some(Expression::Walk { edge, member: self.member(target, member, Place::BehindEdge)? })
            }
            Syntax::Not(inner) => Some(Expression::Not(Box::new(self.expression(kind, inner)?))),
            Syntax::And(sides) => self.sides(kind, sides).map(Expression::And),
            Syntax::Or(sides) => self.sides(kind, sides).map(Expression::Or),
        }
    }

    fn sides(&mut self, kind: ResourceTypeId, sides: &[Syntax]) -> Option<Box<[Expression]>> {
        let compiled: Vec<_> = sides.iter().filter_map(|side| self.expression(kind, side)).collect();
        (compiled.len() == sides.len()).then(|| compiled.into())
    }

    /// Resolves the name of a relation or permission that has a truth value. An edge has none by itself, so naming one is an
    /// error.
    fn member(&mut self, kind: ResourceTypeId, name: &Name, place: Place) -> Option<Member> {
        let members = self.names.members(kind)?;
        let error = match members.symbols.get(name.text.as_str()) {
            Some(Symbol::Condition(member)) => return Some(*member),
            Some(Symbol::Edge(_, target)) => {
                let help = match place {
                    Place::Here => {
                        let there = target.and_then(|target| self.names.members(target));
                        let has_same = there.is_some_and(|members| members.has_condition(self.permission));
                        let member = if has_same { self.permission } else { "NAME" };
                        format!("name what to check there: `{}.{member}`", name.text)
                    }
                    Place::BehindEdge => {
                        format!("give `{}` a permission that follows the edge, and name it here", members.of)
                    }
                    Place::InSet => {
                        "name a relation that holds subjects, or a permission that follows the edge".to_owned()
                    }
                };
                SchemaError::new(&name.span, format!("`{}` is an edge to other resources", name.text)).help(help)
            }
            None if !members.is_whole => return None,
            None => {
                let message = format!("`{}` has no relation or permission `{}`", members.of, name.text);
                let error = SchemaError::new(&name.span, message);
                let is_itself = |other: &&str| matches!(place, Place::Here) && *other == self.permission;
                // The search for a similar name takes time, so it is skipped for errors that are not shown.
                match self.errors.len() {
                    ..SHOWN_MAX => error.suggesting(&name.text, members.conditions().filter(|other| !is_itself(other))),
                    _ => error,
                }
            }
        };
        self.wrong(error)
    }

    /// Resolves the name of an edge.
    fn edge(&mut self, kind: ResourceTypeId, name: &Name) -> Option<(RelationId, ResourceTypeId)> {
        let members = self.names.members(kind)?;
        let (message, is_known) = match members.symbols.get(name.text.as_str()) {
            Some(Symbol::Edge(id, target)) => return Some((*id, (*target)?)),
            None if !members.is_whole => return None,
            Some(Symbol::Condition(_)) => (format!("`{}` is not an edge", name.text), true),
            None => (format!("`{}` has no edge `{}`", members.of, name.text), false),
        };
        let error = SchemaError::new(&name.span, message);
        if self.names.subjects.contains_key(name.text.as_str()) && !is_known {
            return self.wrong(
                error.help(format!("`{OF_SUBJECT}.NAME` names a flag of the asking subject, whatever its type")),
            );
        }
        let edges: Vec<&str> = if self.errors.len() < SHOWN_MAX { members.edges().collect() } else { Vec::new() };
        let error = match edges.as_slice() {
            [] => error.help("an edge is a relation with `resource`: it leads to other resources"),
            edges if is_known => {
                error.help(format!("only a relation with `resource` leads to other resources: {}", listed(edges)))
            }
            edges => error.suggesting(&name.text, edges.iter().copied()),
        };
        self.wrong(error)
    }
}
