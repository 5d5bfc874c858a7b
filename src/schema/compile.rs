//! Declarations into tables: every name is looked up, every relation finds its lookup.
//!
//! What permissions mean as a whole (recursion, negation) is checked in `soundness`; what follows from them for the order of
//! work and for queries is settled in `arrange`.

use std::collections::BTreeMap;

use super::{
    Expression, Ids, Lookup, Member, Owner, Path, Permission, Relation, ResourceType, Schema, SubjectType, Target,
    arrange,
    declaration::{Declarations, RelationDeclaration, ResourceDeclaration, SubjectDeclaration},
    expression::{Name, Syntax},
    mistake::{Mistake, Span},
    soundness,
};
use crate::question::{LookupId, PermissionId, RelationId, ResourceTypeId, SubjectTypeId};

/// Compiles declarations. Nothing comes back where `mistakes` has grown.
pub(crate) fn compile(declarations: &Declarations, mistakes: &mut Vec<Mistake>) -> Option<Schema> {
    if !fits(declarations) {
        mistakes.push(Mistake::new(&(0..0), "the schema has more than 60,000 types, relations or permissions"));
        return None;
    }
    let names = Names::of(declarations, mistakes);
    let mut compiler = Compiler { names, mistakes, lookups: Vec::new(), default_subject: None };
    compiler.default_subject = declarations.default_subject.as_ref().and_then(|name| compiler.subject_type(name));
    let mut relations = Vec::new();
    let mut resources = Vec::new();
    let mut permissions = Vec::new();
    for (kind, declaration) in (0..).map(ResourceTypeId).zip(&declarations.resources) {
        let document = declaration.collection.as_ref().map(|name| compiler.lookup(&name.text, &own_id()));
        for relation in &declaration.relations {
            relations.extend(compiler.relation(kind, declaration, relation));
        }
        for permission in &declaration.permissions {
            let expression = permission.syntax.as_ref().and_then(|syntax| compiler.expression(kind, syntax));
            let name = permission.name.text.as_str().into();
            let private = permission.private;
            permissions.extend(expression.map(|expression| Permission { name, resource: kind, expression, private }));
        }
        let members = compiler.names.members(kind);
        resources.push(ResourceType { name: declaration.name.text.as_str().into(), id: declaration.id, document, members });
    }
    let mut subjects = Vec::new();
    for (kind, declaration) in (0..).map(SubjectTypeId).zip(&declarations.subjects) {
        let gate = compiler.gate(kind, declaration).map(|gate| {
            let id = number(relations.len(), RelationId);
            relations.push(gate);
            id
        });
        let name = declaration.name.text.as_str().into();
        subjects.push(SubjectType { name, id: declaration.id, secret: declaration.secret, gate });
    }
    if !compiler.mistakes.is_empty() {
        return None;
    }
    let mut schema = Schema {
        default_subject: compiler.default_subject?,
        subjects: subjects.into(),
        resources: resources.into(),
        relations: relations.into(),
        permissions: permissions.into(),
        lookups: compiler.lookups.into(),
    };
    soundness::check(&schema, declarations, mistakes);
    if !mistakes.is_empty() {
        return None;
    }
    arrange::arrange(&mut schema);
    Some(schema)
}

/// Whether every number fits where it is kept.
fn fits(declarations: &Declarations) -> bool {
    const MAX: usize = 60_000;
    let relations: usize = declarations.resources.iter().map(|resource| resource.relations.len()).sum();
    let permissions: usize = declarations.resources.iter().map(|resource| resource.permissions.len()).sum();
    let types = declarations.resources.len() + declarations.subjects.len();
    [types, relations + types, permissions, relations + types].into_iter().all(|count| count < MAX)
}

fn number<T>(count: usize, make: fn(u16) -> T) -> T {
    make(u16::try_from(count).unwrap_or(u16::MAX))
}

#[expect(clippy::expect_used, reason = "a constant that is a path")]
fn own_id() -> Path {
    Path::parse("_id").expect("`_id` is a path")
}

/// What a name of a resource type stands for.
#[derive(Clone, Copy)]
struct Symbol {
    member: Member,
    /// For an edge, where it leads to, if that is known.
    edge: Option<Option<ResourceTypeId>>,
}

/// Every name of the schema.
struct Names {
    subjects: BTreeMap<String, SubjectTypeId>,
    resources: BTreeMap<String, ResourceTypeId>,
    symbols: BTreeMap<(ResourceTypeId, String), Symbol>,
}

impl Names {
    fn of(declarations: &Declarations, mistakes: &mut Vec<Mistake>) -> Self {
        let subjects = (0..).map(SubjectTypeId).zip(&declarations.subjects);
        let subjects = subjects.map(|(id, subject)| (subject.name.text.clone(), id)).collect();
        let resources = (0..).map(ResourceTypeId).zip(&declarations.resources);
        let resources: BTreeMap<_, _> = resources.map(|(id, resource)| (resource.name.text.clone(), id)).collect();
        let mut symbols = BTreeMap::new();
        let (mut relation_ids, mut permission_ids) = ((0..).map(RelationId), (0..).map(PermissionId));
        for (kind, resource) in (0..).map(ResourceTypeId).zip(&declarations.resources) {
            for (relation, id) in resource.relations.iter().zip(&mut relation_ids) {
                let edge = relation.resource.as_ref().map(|name| resources.get(&name.text).copied());
                let symbol = Symbol { member: Member::Relation(id), edge };
                symbols.insert((kind, relation.name.text.clone()), symbol);
            }
            for (permission, id) in resource.permissions.iter().zip(&mut permission_ids) {
                let symbol = Symbol { member: Member::Permission(id), edge: None };
                if symbols.insert((kind, permission.name.text.clone()), symbol).is_some() {
                    let name = &permission.name;
                    let message = format!("`{}` is both a relation and a permission of `{}`", name.text, resource.name.text);
                    mistakes.push(Mistake::new(&name.span, message).help("give one of them another name"));
                }
            }
        }
        Self { subjects, resources, symbols }
    }

    fn symbol(&self, kind: ResourceTypeId, name: &str) -> Option<Symbol> {
        self.symbols.get(&(kind, name.to_owned())).copied()
    }

    fn of_resource(&self, kind: ResourceTypeId) -> impl Iterator<Item = (&str, Symbol)> {
        let all = self.symbols.iter().filter(move |((owner, _), _)| *owner == kind);
        all.map(|((_, name), symbol)| (name.as_str(), *symbol))
    }

    fn members(&self, kind: ResourceTypeId) -> BTreeMap<Box<str>, Member> {
        self.of_resource(kind).map(|(name, symbol)| (name.into(), symbol.member)).collect()
    }

    fn resource_name(&self, kind: ResourceTypeId) -> &str {
        self.resources.iter().find(|(_, id)| **id == kind).map_or("", |(name, _)| name)
    }
}

struct Compiler<'a> {
    names: Names,
    mistakes: &'a mut Vec<Mistake>,
    lookups: Vec<Lookup>,
    default_subject: Option<SubjectTypeId>,
}

impl Compiler<'_> {
    fn wrong<T>(&mut self, mistake: Mistake) -> Option<T> {
        self.mistakes.push(mistake);
        None
    }

    fn subject_type(&mut self, name: &Name) -> Option<SubjectTypeId> {
        let found = self.names.subjects.get(&name.text).copied();
        if found.is_none() {
            let mistake = Mistake::new(&name.span, format!("unknown subject type `{}`", name.text));
            self.mistakes.push(mistake.meant(&name.text, self.names.subjects.keys().map(String::as_str)));
        }
        found
    }

    fn resource_type(&mut self, name: &str, span: &Span) -> Option<ResourceTypeId> {
        let found = self.names.resources.get(name).copied();
        if found.is_none() {
            let mistake = Mistake::new(span, format!("unknown resource type `{name}`"));
            self.mistakes.push(mistake.meant(name, self.names.resources.keys().map(String::as_str)));
        }
        found
    }

    /// The lookup of a collection by a field; the first relation that needs it makes it.
    fn lookup(&mut self, collection: &str, by: &Path) -> LookupId {
        let same = |lookup: &Lookup| &*lookup.collection == collection && lookup.by == *by;
        let at = self.lookups.iter().position(same).unwrap_or_else(|| {
            let (relations, projection) = (Box::default(), Box::default());
            self.lookups.push(Lookup { collection: collection.into(), by: by.clone(), relations, projection, pushed: None });
            self.lookups.len() - 1
        });
        number(at, LookupId)
    }

    fn relation(
        &mut self,
        kind: ResourceTypeId,
        resource: &ResourceDeclaration,
        declaration: &RelationDeclaration,
    ) -> Option<Relation> {
        let name = &declaration.name;
        let lookup = match (&declaration.collection, &declaration.by, &resource.collection) {
            (Some(collection), Some(by), _) => self.lookup(&collection.text, by),
            (None, None, Some(collection)) => self.lookup(&collection.text, &own_id()),
            (None, None, None) => {
                let message = format!("relation `{}` has no collection, and neither has `{}`", name.text, resource.name.text);
                return self.wrong(
                    Mistake::new(&name.span, message)
                        .help("add `collection` and `by` to the relation, or `collection` to the resource"),
                );
            }
            _ => return None,
        };
        let ids = match &declaration.field {
            Some(field) => Some(self.ids(declaration, field)?),
            None => None,
        };
        Some(Relation {
            name: name.text.as_str().into(),
            owner: Owner::Resource(kind),
            lookup,
            each: declaration.each.clone(),
            condition: declaration.condition.clone(),
            document_condition: declaration.document_condition.clone(),
            ids,
            since: declaration.since.clone(),
            until: declaration.until.clone(),
            required: declaration.required,
            negated: false,
        })
    }

    fn ids(&mut self, declaration: &RelationDeclaration, field: &Path) -> Option<Ids> {
        let before = self.mistakes.len();
        let mut targets = Vec::new();
        if let Some(name) = &declaration.resource {
            targets.extend(self.resource_type(&name.text, &name.span).map(Target::Resource));
        } else if declaration.subjects.is_empty() {
            targets.extend(self.default_subject.map(Target::Subject));
        } else {
            for name in &declaration.subjects {
                targets.extend(self.target(name));
            }
        }
        self.check_targets(declaration, &targets);
        (self.mistakes.len() == before).then(|| Ids {
            field: field.clone(),
            targets: targets.into(),
            subject_type: declaration.subject_type.clone(),
            subject_relation: declaration.subject_relation.clone(),
            wildcard: declaration.wildcard,
        })
    }

    /// `user`, or the set `team.member`.
    fn target(&mut self, name: &Name) -> Option<Target> {
        let Some((set, member)) = name.text.split_once('.') else {
            if self.names.resources.contains_key(&name.text) && !self.names.subjects.contains_key(&name.text) {
                let message = format!("`{}` is a resource type, not a subject type", name.text);
                let help = format!("name the set of subjects that is meant, for example `{}.member`", name.text);
                return self.wrong(Mistake::new(&name.span, message).help(help));
            }
            return self.subject_type(name).map(Target::Subject);
        };
        let kind = self.resource_type(set, &name.span)?;
        let member = Name { text: member.to_owned(), span: name.span.clone() };
        Some(Target::Set(kind, self.member(kind, &member)?))
    }

    fn check_targets(&mut self, declaration: &RelationDeclaration, targets: &[Target]) {
        let name = &declaration.name;
        let same_type = |a: &Target, b: &Target| match (a, b) {
            (Target::Set(a, _), Target::Set(b, _)) => a == b,
            (Target::Subject(a), Target::Subject(b)) => a == b,
            _ => false,
        };
        let repeats = (1..targets.len()).any(|at| {
            targets.split_at_checked(at).is_some_and(|(before, after)| {
                after.first().is_some_and(|target| before.iter().any(|other| same_type(other, target)))
            })
        });
        let mistake = if targets.len() > 1 && declaration.subject_type.is_none() {
            Mistake::new(&name.span, format!("relation `{}` has several types of subjects and no `subject_type`", name.text))
                .help("name the field that says which type an id is of, or make a relation of each")
        } else if repeats && declaration.subject_relation.is_none() {
            Mistake::new(&name.span, format!("relation `{}` has several sets of one type and no `subject_relation`", name.text))
                .help("name the field that says which relation of the type is meant")
        } else if targets.len() > 200 {
            Mistake::new(&name.span, format!("relation `{}` has more than 200 types of subjects", name.text))
        } else {
            return;
        };
        self.mistakes.push(mistake);
    }

    /// The document that a subject must have.
    fn gate(&mut self, kind: SubjectTypeId, declaration: &SubjectDeclaration) -> Option<Relation> {
        let collection = declaration.collection.as_ref()?;
        Some(Relation {
            name: "active".into(),
            owner: Owner::Subject(kind),
            lookup: self.lookup(&collection.text, &own_id()),
            each: None,
            condition: declaration.condition.clone(),
            document_condition: None,
            ids: None,
            since: None,
            until: None,
            required: false,
            negated: false,
        })
    }

    fn expression(&mut self, kind: ResourceTypeId, syntax: &Syntax) -> Option<Expression> {
        match syntax {
            Syntax::Name(name) => Some(match self.member(kind, name)? {
                Member::Relation(id) => Expression::Relation(id),
                Member::Permission(id) => Expression::Permission(id),
            }),
            Syntax::Walk { edge, member } => {
                let (edge, target) = self.edge(kind, edge)?;
                Some(Expression::Walk { edge, member: self.member(target, member)? })
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

    /// A name that stands for something that holds or not: anything but an edge.
    fn member(&mut self, kind: ResourceTypeId, name: &Name) -> Option<Member> {
        match self.names.symbol(kind, &name.text) {
            Some(Symbol { member, edge: None }) => Some(member),
            Some(Symbol { edge: Some(target), .. }) => {
                let there = target.and_then(|target| self.names.of_resource(target).next());
                let example = there.map_or("read", |(name, _)| name);
                let help = format!("say what is asked there, for example `{}.{example}`", name.text);
                self.wrong(Mistake::new(&name.span, format!("`{}` is an edge to other resources", name.text)).help(help))
            }
            None => {
                let message =
                    format!("`{}` has no relation or permission `{}`", self.names.resource_name(kind), name.text);
                let names = self.names.of_resource(kind).filter(|(_, symbol)| symbol.edge.is_none()).map(|(name, _)| name);
                let mistake = Mistake::new(&name.span, message).meant(&name.text, names);
                self.wrong(mistake)
            }
        }
    }

    fn edge(&mut self, kind: ResourceTypeId, name: &Name) -> Option<(RelationId, ResourceTypeId)> {
        match self.names.symbol(kind, &name.text) {
            Some(Symbol { member: Member::Relation(id), edge: Some(target) }) => Some((id, target?)),
            Some(_) => self.wrong(
                Mistake::new(&name.span, format!("`{}` is not an edge", name.text))
                    .help("only a relation with `resource` leads to other resources"),
            ),
            None => {
                let message = format!("`{}` has no edge `{}`", self.names.resource_name(kind), name.text);
                let names = self.names.of_resource(kind).filter(|(_, symbol)| symbol.edge.is_some()).map(|(name, _)| name);
                let mistake = Mistake::new(&name.span, message).meant(&name.text, names);
                self.wrong(mistake)
            }
        }
    }
}
