//! Reads the TOML of a schema into declarations, in which each name has its place. It reports every error of form.
//!
//! Does not resolve names: the compiler does.

mod keys;
mod reader;
mod subject;

use std::time::Duration;

use reader::{Fields, Reader};

use super::{
    condition::Condition,
    error::SchemaError,
    expression::{Name, Syntax},
    node::{self, Entry, Node, Value, text_start},
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
    pub(crate) since: Option<Path>,
    pub(crate) until: Option<Path>,
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
    pub(crate) by: Option<Path>,
    pub(crate) each: Option<Path>,
    pub(crate) field: Option<Path>,
    pub(crate) subjects: Vec<SubjectName>,
    pub(crate) subject_type: Option<Path>,
    pub(crate) subject_relation: Option<Path>,
    pub(crate) resource: Option<Name>,
    pub(crate) wildcard: bool,
    pub(crate) must_exist: bool,
    pub(crate) condition: Option<Condition>,
    pub(crate) document_condition: Option<Condition>,
    pub(crate) since: Option<Path>,
    pub(crate) until: Option<Path>,
    pub(crate) required: bool,
}

/// One entry of `subject = …`.
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
            declarations.subjects = reader.named(subjects, "a subject", "[subject.user]", Reader::subject);
            let resources = fields.take("resource");
            declarations.resources = reader.named(resources, "a resource", "[resource.file]", Reader::resource);
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
                    reader.named(relations, "a relation", "{ owner = { field = \"owner_id\" } }", Reader::relation);
                let permissions = fields.take("permissions");
                resource.permissions =
                    reader.named(permissions, "a permission", "{ read = \"owner\" }", Reader::permission);
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
            relation.by = reader.path(fields.take("by"));
            relation.each = reader.path(fields.take("each"));
            relation.field = reader.path(fields.take("field"));
            relation.subjects = fields.take("subject").map(|entry| reader.subjects(entry)).unwrap_or_default();
            relation.subject_type = reader.path(fields.take("subject_type"));
            relation.subject_relation = reader.path(fields.take("subject_relation"));
            relation.resource = reader.type_name(fields.take("resource"));
            relation.wildcard = reader.flag(fields.take("wildcard"));
            relation.must_exist = reader.flag(fields.take("must_exist"));
            relation.condition = reader.condition(fields.take("where"));
            relation.document_condition = reader.condition(fields.take("document_where"));
            relation.since = reader.path(fields.take("since"));
            relation.until = reader.path(fields.take("until"));
            relation.required = reader.flag(fields.take("required"));
            check(reader, &relation.name, fields);
        });
        relation
    }

    fn subjects(&mut self, entry: &Entry) -> Vec<SubjectName> {
        let items = match &entry.node.value {
            Value::List(items) => items.as_slice(),
            Value::Scalar(_) | Value::Table(_) => std::slice::from_ref(&entry.node),
        };
        if items.is_empty() {
            self.wrong(
                SchemaError::new(&entry.node.span, "`subject` lists nothing")
                    .help("list the types of the ids in the field, for example: [\"user\", \"team.member\"]"),
            );
        }
        let mut names = Vec::new();
        for item in items {
            if let Some(text) = item.as_text() {
                names.push(self.subject_name(text, item));
            } else {
                let message = format!("`subject` expects types in quotes, not {}", item.describe());
                self.wrong(SchemaError::new(&item.span, message).help("for example: [\"user\", \"team.member\"]"));
            }
        }
        names
    }

    /// Reads a type such as `user`, or a set such as `team.member`.
    fn subject_name(&self, text: &str, node: &Node) -> SubjectName {
        match self.pair(text, node) {
            Some((set, member)) => SubjectName::Set(set, member),
            None => SubjectName::Type(Name { text: text.to_owned(), span: node.span.clone() }),
        }
    }

    /// The names before and after the dot, each with its place. None if there is no dot.
    fn pair(&self, text: &str, node: &Node) -> Option<(Name, Name)> {
        let (first, second) = text.split_once('.')?;
        let whole = |text: &str| Name { text: text.to_owned(), span: node.span.clone() };
        let (mut first, mut second) = (whole(first), whole(second));
        if let Some(start) = text_start(self.text, &node.span, text) {
            let dot = start + first.text.len();
            first.span = start..dot;
            second.span = dot + 1..start + text.len();
        }
        Some((first, second))
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
