//! All names of a schema, and what they stand for.
//!
//! Reports a name that stands for two things. An unknown name is reported where it is used.

use std::collections::BTreeMap;

use crate::{
    question::{PermissionId, RelationId, ResourceTypeId, SubjectTypeId},
    schema::{Member, declaration::Declarations, error::SchemaError, expression::Name},
};

/// What a name of a resource type stands for.
#[derive(Clone, Copy)]
pub(super) enum Symbol {
    /// A relation to subjects, a flag or a permission: it holds for a resource or does not.
    Condition(Member),
    /// An edge, and the resource type that it leads to, if that type is known.
    Edge(RelationId, Option<ResourceTypeId>),
}

/// All names of a schema.
pub(super) struct Names<'a> {
    pub(super) subjects: BTreeMap<&'a str, SubjectTypeId>,
    pub(super) resources: BTreeMap<&'a str, ResourceTypeId>,
    pub(super) members: Vec<Members<'a>>,
    /// The relations of each subject type.
    pub(super) of_subjects: Vec<SubjectRelations<'a>>,
    /// Whether all declarations could be read. If not, a type that is missing here may still be declared.
    pub(super) is_whole: bool,
}

/// All names of a resource type.
pub(super) struct Members<'a> {
    pub(super) of: &'a str,
    pub(super) symbols: BTreeMap<&'a str, Symbol>,
    /// Whether all of the type could be read. If not, a name that is missing here may still be declared.
    pub(super) is_whole: bool,
}

/// The relations of a subject type.
pub(super) struct SubjectRelations<'a> {
    pub(super) of: &'a str,
    pub(super) symbols: BTreeMap<&'a str, SubjectSymbol<'a>>,
    /// Whether all of the type could be read. If not, a name that is missing here may still be declared.
    pub(super) is_whole: bool,
}

/// What a name of a subject type stands for.
#[derive(Clone, Copy)]
pub(super) enum SubjectSymbol<'a> {
    /// A flag.
    Flag(RelationId),
    /// A relation that leads to resources, and the name of their type, if there is one.
    Leads(RelationId, Option<&'a Name>),
}

impl Members<'_> {
    pub(super) fn edges(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().filter(|(_, symbol)| matches!(symbol, Symbol::Edge(..))).map(|(name, _)| *name)
    }

    /// The names of all members except edges.
    pub(super) fn conditions(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().filter(|(_, symbol)| matches!(symbol, Symbol::Condition(_))).map(|(name, _)| *name)
    }

    /// Whether this is the name of a member that is not an edge.
    pub(super) fn has_condition(&self, name: &str) -> bool {
        matches!(self.symbols.get(name), Some(Symbol::Condition(_)))
    }
}

impl<'a> Names<'a> {
    /// Collects the names of the declarations.
    pub(super) fn of(declarations: &'a Declarations, errors: &mut Vec<SchemaError>) -> Self {
        let subjects = (0..).map(SubjectTypeId).zip(&declarations.subjects);
        let subjects = subjects.map(|(id, subject)| (subject.name.text.as_str(), id)).collect();
        let resources = (0..).map(ResourceTypeId).zip(&declarations.resources);
        let resources: BTreeMap<_, _> = resources.map(|(id, resource)| (resource.name.text.as_str(), id)).collect();
        let mut members = Vec::new();
        let (mut relation_ids, mut permission_ids) = ((0..).map(RelationId), (0..).map(PermissionId));
        for resource in &declarations.resources {
            let mut symbols = BTreeMap::new();
            for (relation, id) in resource.relations.iter().zip(&mut relation_ids) {
                let symbol = match &relation.resource {
                    None => Symbol::Condition(Member::Relation(id)),
                    Some(name) => Symbol::Edge(id, resources.get(name.text.as_str()).copied()),
                };
                symbols.insert(relation.name.text.as_str(), symbol);
            }
            for (permission, id) in resource.permissions.iter().zip(&mut permission_ids) {
                let name = &permission.name;
                let symbol = Symbol::Condition(Member::Permission(id));
                if symbols.insert(name.text.as_str(), symbol).is_some() {
                    let message =
                        format!("`{}` is both a relation and a permission of `{}`", name.text, resource.name.text);
                    errors.push(SchemaError::new(&name.span, message).help("give one of them another name"));
                }
            }
            members.push(Members { of: &resource.name.text, symbols, is_whole: resource.is_whole });
        }
        let of_subjects = declarations.subjects.iter().map(|subject| {
            let relations = subject.relations.iter().zip(&mut relation_ids);
            let symbols = relations.map(|(relation, id)| {
                let symbol = match relation.field {
                    None => SubjectSymbol::Flag(id),
                    Some(_) => SubjectSymbol::Leads(id, relation.resource.as_ref()),
                };
                (relation.name.text.as_str(), symbol)
            });
            SubjectRelations { of: &subject.name.text, symbols: symbols.collect(), is_whole: subject.is_whole }
        });
        let of_subjects = of_subjects.collect();
        Self { subjects, resources, members, of_subjects, is_whole: declarations.is_whole }
    }

    pub(super) fn members(&self, kind: ResourceTypeId) -> Option<&Members<'a>> {
        self.members.get(kind.index())
    }

    /// The relations of a subject type by name.
    pub(super) fn relations_of(&self, kind: SubjectTypeId) -> BTreeMap<Box<str>, RelationId> {
        let symbols = self.of_subjects.get(kind.index()).into_iter().flat_map(|relations| &relations.symbols);
        let relation = |symbol: &SubjectSymbol<'_>| match *symbol {
            SubjectSymbol::Flag(id) | SubjectSymbol::Leads(id, _) => id,
        };
        symbols.map(|(name, symbol)| ((*name).into(), relation(symbol))).collect()
    }

    /// The members of a resource type by name.
    pub(super) fn by_name(&self, kind: ResourceTypeId) -> BTreeMap<Box<str>, Member> {
        let symbols = self.members(kind).into_iter().flat_map(|members| &members.symbols);
        let member = |symbol: &Symbol| match *symbol {
            Symbol::Condition(member) => member,
            Symbol::Edge(id, _) => Member::Relation(id),
        };
        symbols.map(|(name, symbol)| ((*name).into(), member(symbol))).collect()
    }
}
