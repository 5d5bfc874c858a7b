//! Reads the TOML of a schema into declarations, in which each name has its place. It reports every error of form.
//!
//! Does not resolve names: the compiler does.

mod keys;
mod reader;
mod subject;
mod subjects;
mod values;

use std::time::Duration;

use reader::{Fields, Reader};

use super::{
    DateField, Format,
    condition::Condition,
    error::{SchemaError, Span},
    expression::{Name, Named, Syntax},
    node::{self, Entry, Node, Value},
    path::{Path, is_field},
};
use crate::question::IdForm;

/// A whole schema.
#[derive(Debug, Default)]
pub(crate) struct Declarations {
    pub(crate) default_subject: Option<Name>,
    pub(crate) subjects: Vec<SubjectDeclaration>,
    pub(crate) resources: Vec<ResourceDeclaration>,
    /// Whether everything could be read. If not, a type that is missing here may be in the text.
    pub(crate) is_whole: bool,
}

/// `[subject.name]`
#[derive(Debug)]
pub(crate) struct SubjectDeclaration {
    pub(crate) name: Name,
    pub(crate) id: IdForm,
    pub(crate) secret: bool,
    pub(crate) collection: Option<Name>,
    pub(crate) condition: Option<Condition>,
    pub(crate) since: Option<DateField>,
    pub(crate) until: Option<DateField>,
    pub(crate) relations: Vec<RelationDeclaration>,
    /// Whether everything could be read. If not, a name that is missing here may be in the text.
    pub(crate) is_whole: bool,
}

/// `[resource.name]`
#[derive(Debug)]
pub(crate) struct ResourceDeclaration {
    pub(crate) name: Name,
    pub(crate) id: IdForm,
    pub(crate) collection: Option<Name>,
    pub(crate) condition: Option<Condition>,
    pub(crate) relations: Vec<RelationDeclaration>,
    pub(crate) permissions: Vec<PermissionDeclaration>,
    /// Whether everything could be read. If not, a name that is missing here may be in the text.
    pub(crate) is_whole: bool,
}

/// `[resource.….relations]` or `[subject.….relations]` `name = { … }`
#[derive(Debug)]
pub(crate) struct RelationDeclaration {
    pub(crate) name: Name,
    /// The relations of subjects that it stands for. If they are set, nothing else is.
    pub(crate) of: Option<Vec<OfName>>,
    pub(crate) collection: Option<Name>,
    pub(crate) by: Option<KeyField>,
    pub(crate) each: Option<Path>,
    pub(crate) field: Option<Path>,
    pub(crate) format: Option<Format>,
    pub(crate) subjects: Vec<ListedSubject>,
    pub(crate) subject_type: Option<Path>,
    pub(crate) subject_relation: Option<Path>,
    pub(crate) resource: Option<Name>,
    pub(crate) wildcard: bool,
    pub(crate) must_exist: bool,
    pub(crate) condition: Option<Condition>,
    pub(crate) document_condition: Option<Condition>,
    pub(crate) since: Option<DateField>,
    pub(crate) until: Option<DateField>,
    pub(crate) required: bool,
}

/// `by = …`
#[derive(Debug)]
pub(crate) struct KeyField {
    pub(crate) path: Path,
    pub(crate) format: Option<Format>,
}

/// One entry of `subject = …`.
#[derive(Debug)]
pub(crate) struct ListedSubject {
    pub(crate) name: SubjectName,
    /// The value of `subject_type` that means it, if `subject` is a table.
    pub(crate) value: Option<Name>,
}

/// What an entry of `subject = …` names.
#[derive(Debug)]
pub(crate) enum SubjectName {
    /// `user`
    Type(Name),
    /// `team.member`
    Set(Name, Name),
}

/// One entry of `of = …`: `user.teams`.
#[derive(Debug)]
pub(crate) struct OfName {
    pub(crate) subject: Name,
    pub(crate) relation: Name,
}

impl ListedSubject {
    /// The value of `subject_type` that means it.
    pub(crate) fn value_text(&self) -> Option<&str> {
        self.value.as_ref().map(|value| value.text.as_str())
    }
}

impl SubjectName {
    /// The name as it is written.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Type(name) => name.text.clone(),
            Self::Set(set, member) => format!("{}.{}", set.text, member.text),
        }
    }

    /// Its place.
    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Type(name) => name.span.clone(),
            Self::Set(set, member) => set.span.start..member.span.end,
        }
    }

    /// The member of a set.
    pub(crate) fn member(&self) -> Option<&str> {
        match self {
            Self::Type(_) => None,
            Self::Set(_, member) => Some(&member.text),
        }
    }
}

/// `[resource.….permissions]` `name = "…"`
#[derive(Debug)]
pub(crate) struct PermissionDeclaration {
    pub(crate) name: Name,
    pub(crate) syntax: Option<Syntax>,
    pub(crate) private: bool,
    pub(crate) stale_if_error: Option<Duration>,
}

/// Reads the text of a schema.
pub(crate) fn read(text: &str, errors: &mut Vec<SchemaError>) -> Declarations {
    let mut declarations = Declarations::default();
    let Some(root) = node::from_toml(text, errors) else {
        return declarations;
    };
    let unreadable: Vec<_> = errors.iter().map(|error| error.span.clone()).collect();
    let mut reader = Reader { text, errors };
    reader.table(
        &root,
        "the schema",
        |_| String::new(),
        |reader, fields| {
            let default = fields.take("default_subject");
            declarations.default_subject = reader.type_name(default);
            let subjects = fields.take("subject");
            declarations.subjects = reader.named(subjects, Named::Subject, "[subject.user]", Reader::subject);
            let resources = fields.take("resource");
            declarations.resources = reader.named(resources, Named::Resource, "[resource.file]", Reader::resource);
            declarations.is_whole =
                fields.unknown().next().is_none() && [subjects, resources].into_iter().all(is_table_if_any);
            if default.is_none() && !fields.is_misspelt("default_subject") {
                let name = declarations.subjects.first().map_or("user", |subject| &subject.name.text);
                reader.wrong(SchemaError::without_place("`default_subject` is missing").help(format!(
                    "add the type that is meant if a request names none, at the top: default_subject = \"{name}\""
                )));
            }
            for (what, example, is_missing) in [
                ("subject", "user", declarations.subjects.is_empty()),
                ("resource", "file", declarations.resources.is_empty()),
            ] {
                if is_missing && declarations.is_whole {
                    let help = format!("add a table such as [{what}.{example}]");
                    reader.wrong(SchemaError::without_place(format!("there is no {what}")).help(help));
                }
            }
        },
    );
    // For a value that could not be read, keep only the first error: its user reports a wrong type as well.
    let mut place = 0..;
    errors.retain(|error| {
        place.next().is_some_and(|place: usize| place < unreadable.len()) || !unreadable.contains(&error.span)
    });
    declarations
}

fn is_table_if_any(entry: Option<&Entry>) -> bool {
    entry.is_none_or(|entry| matches!(entry.node.value, Value::Table(_)))
}

impl Reader<'_> {
    fn resource(&mut self, name: Name, node: &Node) -> ResourceDeclaration {
        let mut resource = ResourceDeclaration {
            name,
            id: IdForm::ObjectId,
            collection: None,
            condition: None,
            relations: Vec::new(),
            permissions: Vec::new(),
            is_whole: false,
        };
        let what = format!("resource `{}`", resource.name.text);
        let example = format!("[resource.{}]", resource.name.text);
        self.table(
            node,
            &what,
            |_| example,
            |reader, fields| {
                resource.id = reader.id_form(fields);
                resource.collection = reader.collection(fields.take("collection"));
                resource.condition = reader.condition(fields.take("where"));
                let relations = fields.take("relations");
                resource.relations =
                    reader.named(relations, Named::Relation, "{ owner = { field = \"owner_id\" } }", Reader::relation);
                let permissions = fields.take("permissions");
                resource.permissions =
                    reader.named(permissions, Named::Permission, "{ read = \"owner\" }", Reader::permission);
                reader.check_conditions(&what, fields, &["where"], "files");
                resource.is_whole =
                    fields.unknown().next().is_none() && [relations, permissions].into_iter().all(is_table_if_any);
            },
        );
        resource
    }

    fn relation(&mut self, name: Name, node: &Node) -> RelationDeclaration {
        self.any_relation(name, node, Self::check_keys)
    }

    /// Reads a relation of a resource or of a subject. `check` reports the keys that it must not have, or that it lacks.
    fn any_relation(
        &mut self,
        name: Name,
        node: &Node,
        check: impl FnOnce(&mut Self, &Name, &Fields<'_>),
    ) -> RelationDeclaration {
        let mut relation = RelationDeclaration {
            name,
            of: None,
            collection: None,
            by: None,
            each: None,
            field: None,
            format: None,
            subjects: Vec::new(),
            subject_type: None,
            subject_relation: None,
            resource: None,
            wildcard: false,
            must_exist: false,
            condition: None,
            document_condition: None,
            since: None,
            until: None,
            required: false,
        };
        let what = format!("relation `{}`", relation.name.text);
        let example = |node: &Node| {
            let field = node.as_text().filter(|text| is_field(text)).unwrap_or("user_id");
            format!("{{ field = \"{field}\" }}; an expression belongs into `permissions`")
        };
        self.table(node, &what, example, |reader, fields| {
            relation.of = fields.take("of").map(|entry| reader.of(entry));
            relation.collection = reader.collection(fields.take("collection"));
            relation.by = fields.take("by").and_then(|entry| reader.key_field(entry));
            relation.each = reader.path(fields.take("each"));
            relation.field = reader.path(fields.take("field"));
            relation.format = fields.take("format").and_then(|entry| reader.format(entry));
            relation.subjects = fields.take("subject").map(|entry| reader.subjects(entry)).unwrap_or_default();
            relation.subject_type = reader.path(fields.take("subject_type"));
            relation.subject_relation = reader.path(fields.take("subject_relation"));
            relation.resource = reader.type_name(fields.take("resource"));
            relation.wildcard = reader.flag(fields.take("wildcard"));
            relation.must_exist = reader.flag(fields.take("must_exist"));
            relation.condition = reader.condition(fields.take("where"));
            relation.document_condition = reader.condition(fields.take("document_where"));
            relation.since = fields.take("since").and_then(|entry| reader.date_field(entry));
            relation.until = fields.take("until").and_then(|entry| reader.date_field(entry));
            relation.required = reader.flag(fields.take("required"));
            check(reader, &relation.name, fields);
        });
        relation
    }

    fn permission(&mut self, name: Name, node: &Node) -> PermissionDeclaration {
        let mut permission = PermissionDeclaration { name, syntax: None, private: false, stale_if_error: None };
        if let Some(text) = node.as_text() {
            permission.syntax = self.expression(text, &node.span);
            return permission;
        }
        let what = format!("permission `{}`", permission.name.text);
        if !matches!(node.value, Value::Table(_)) {
            let message = format!("{what} expects an expression in quotes, not {}", node.describe());
            self.wrong(SchemaError::new(&node.span, message).help("for example: \"owner | reader\""));
            return permission;
        }
        self.table(
            node,
            &what,
            |_| String::new(),
            |reader, fields| {
                permission.private = reader.flag(fields.take("private"));
                permission.stale_if_error = fields.take("stale_if_error").and_then(|entry| reader.stale_time(entry));
                match fields.take("is") {
                    Some(entry) => match entry.node.as_text() {
                        Some(text) => permission.syntax = reader.expression(text, &entry.node.span),
                        None => reader.wrong_type(entry, "an expression in quotes"),
                    },
                    None if fields.is_misspelt("is") => {}
                    None => reader.wrong(
                        SchemaError::new(&permission.name.span, format!("{what} has no `is`"))
                            .help("for example: { is = \"owner | shared\", private = true }"),
                    ),
                }
            },
        );
        permission
    }
}
