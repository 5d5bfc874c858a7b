//! Compiles what subjects declare: the gate of each subject type and its relations; and where resources use them: `of` and
//! `subject.NAME`.
//!
//! Relations that are read from documents are compiled in the parent module, whoever declares them.

use super::{
    Compiler, Declared, Relation,
    names::{SubjectRelations, SubjectSymbol},
};
use crate::{
    question::{RelationId, ResourceTypeId, SubjectTypeId},
    schema::{
        Origin, Owner, Path,
        declaration::{Declarations, OfName, SubjectDeclaration},
        error::SchemaError,
        expression::Name,
    },
};

impl<'a> Compiler<'a> {
    /// The relations of all subject types, in the order of the declarations.
    pub(super) fn relations_of_subjects(&mut self, declarations: &'a Declarations) -> Vec<Relation> {
        let mut relations = Vec::new();
        for (kind, declaration) in (0..).map(SubjectTypeId).zip(&declarations.subjects) {
            let (name, collection) = (declaration.name.text.as_str(), declaration.collection.as_ref());
            let (id, is_whole) = (declaration.id, declaration.is_whole);
            let owner = Declared { owner: Owner::Subject(kind), name, id, collection, is_whole };
            relations.extend(declaration.relations.iter().filter_map(|relation| self.relation(&owner, relation)));
        }
        relations
    }

    /// The relation that a subject's own document must fulfil, if the type has a collection.
    pub(super) fn gate(&mut self, kind: SubjectTypeId, declaration: &'a SubjectDeclaration) -> Option<Relation> {
        let collection = declaration.collection.as_ref()?;
        let origin = Origin::Documents(self.lookup(&collection.text, &Path::id(), None));
        Some(Relation {
            name: "active".into(),
            condition: declaration.condition.clone(),
            since: declaration.since.clone(),
            until: declaration.until.clone(),
            ..Relation::flag(Owner::Subject(kind), origin)
        })
    }

    /// A relation with `of`: it holds for subjects whose relation leads to the resource.
    pub(super) fn of(&mut self, kind: ResourceTypeId, name: &Name, of: &[OfName]) -> Option<Relation> {
        let mut relations = Vec::new();
        for name in of {
            let Some(relation) = self.of_name(kind, name) else { continue };
            if relations.contains(&relation) {
                let (span, text) = (name.subject.span.start..name.relation.span.end, shown(name));
                self.errors.push(SchemaError::new(&span, format!("`{text}` is listed twice")));
            }
            relations.push(relation);
        }
        (relations.len() == of.len() && !of.is_empty()).then(|| Relation {
            name: name.text.as_str().into(),
            ..Relation::flag(Owner::Resource(kind), Origin::Subject(relations.into()))
        })
    }

    /// Resolves one entry of `of`: a relation of a subject that leads to this resource type.
    fn of_name(&mut self, kind: ResourceTypeId, name: &OfName) -> Option<RelationId> {
        let is_resource = !self.names.subjects.contains_key(name.subject.text.as_str())
            && self.names.resources.contains_key(name.subject.text.as_str());
        if is_resource {
            let message = format!("`{}` is a resource type, not a subject type", name.subject.text);
            let help = "`of` names a relation of the asking subject: declare it under [subject.….relations]";
            return self.wrong(SchemaError::new(&name.subject.span, message).help(help));
        }
        let subject = self.subject_type(&name.subject)?;
        let relations = self.names.of_subjects.get(subject.index())?;
        let here = self.names.members(kind)?.of;
        let wanted = name.relation.text.as_str();
        let leads_here = |symbol: &SubjectSymbol<'_>| match symbol {
            SubjectSymbol::Leads(_, Some(target)) => target.text == here,
            SubjectSymbol::Leads(_, None) | SubjectSymbol::Flag(_) => false,
        };
        let (message, help) = match relations.symbols.get(wanted) {
            Some(SubjectSymbol::Leads(id, Some(target))) if target.text == here => return Some(*id),
            // The relation itself is reported.
            Some(SubjectSymbol::Leads(_, None)) => return None,
            Some(SubjectSymbol::Leads(_, Some(target))) => {
                (format!("`{}` leads to `{}`, not to `{here}`", shown(name), target.text), None)
            }
            Some(SubjectSymbol::Flag(_)) => (
                format!("`{}` is a flag, so it leads to no resource", shown(name)),
                Some(format!("a permission names a flag of the subject as `subject.{wanted}`")),
            ),
            None if !relations.is_whole => return None,
            None => (format!("subject `{}` has no relation `{wanted}`", relations.of), None),
        };
        let error = SchemaError::new(&name.relation.span, message);
        let others: Vec<&str> =
            relations.symbols.iter().filter(|(_, symbol)| leads_here(symbol)).map(|(name, _)| *name).collect();
        self.wrong(match help {
            Some(help) => error.help(help),
            None if others.is_empty() => {
                error.help(format!("no relation of `{}` has resource = \"{here}\"", relations.of))
            }
            None => error.suggesting(wanted, others),
        })
    }

    /// Resolves the name in `subject.NAME`: the flag of that name of each subject type that has one.
    pub(super) fn subject_flag(&mut self, name: &Name) -> Option<Box<[RelationId]>> {
        let symbols = |kind: &SubjectRelations<'a>| kind.symbols.get(name.text.as_str()).copied();
        let found: Vec<SubjectSymbol<'a>> = self.names.of_subjects.iter().filter_map(symbols).collect();
        let flags = found.iter().filter_map(|symbol| match symbol {
            SubjectSymbol::Flag(id) => Some(*id),
            SubjectSymbol::Leads(..) => None,
        });
        let flags: Box<[RelationId]> = flags.collect();
        if !flags.is_empty() {
            return Some(flags);
        }
        let is_whole = self.names.is_whole && self.names.of_subjects.iter().all(|kind| kind.is_whole);
        let error = match found.first() {
            Some(_) => SchemaError::new(
                &name.span,
                format!("`{}` of the subject is not a flag: it leads to resources", name.text),
            )
            .help("a relation of the resource that it leads to names it with `of`"),
            None if !is_whole => return None,
            None => {
                let error = SchemaError::new(&name.span, format!("no subject type has a flag `{}`", name.text));
                let known = self.names.of_subjects.iter().flat_map(|kind| &kind.symbols);
                let flags = known.filter(|(_, symbol)| matches!(symbol, SubjectSymbol::Flag(_)));
                let flags: Vec<&str> = flags.map(|(name, _)| *name).collect();
                if flags.is_empty() {
                    error.help("a flag of the subject is a relation without `field` under [subject.….relations]")
                } else {
                    error.suggesting(&name.text, flags)
                }
            }
        };
        self.wrong(error)
    }
}

fn shown(name: &OfName) -> String {
    format!("{}.{}", name.subject.text, name.relation.text)
}
