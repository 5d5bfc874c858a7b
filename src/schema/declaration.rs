//! A schema as written: TOML read into declarations, each name with its place. Every mistake of form is noted.
//!
//! Whether the names fit together is the compiler's business.

use bson::Bson;

use super::{
    condition::{self, Condition},
    expression::{self, Name, Syntax, is_name},
    mistake::{Mistake, Span},
    node::{Entry, Node, Value},
    path::Path,
};
use crate::question::IdForm;

/// A whole schema.
#[derive(Debug, Default)]
pub(crate) struct Declarations {
    pub(crate) default_subject: Option<Name>,
    pub(crate) subjects: Vec<SubjectDeclaration>,
    pub(crate) resources: Vec<ResourceDeclaration>,
}

/// `[subject.name]`
#[derive(Debug)]
pub(crate) struct SubjectDeclaration {
    pub(crate) name: Name,
    pub(crate) id: IdForm,
    pub(crate) secret: bool,
    pub(crate) collection: Option<Name>,
    pub(crate) condition: Option<Condition>,
}

/// `[resource.name]`
#[derive(Debug)]
pub(crate) struct ResourceDeclaration {
    pub(crate) name: Name,
    pub(crate) id: IdForm,
    pub(crate) collection: Option<Name>,
    pub(crate) relations: Vec<RelationDeclaration>,
    pub(crate) permissions: Vec<PermissionDeclaration>,
}

/// `[resource.….relations]` `name = { … }`
#[derive(Debug)]
pub(crate) struct RelationDeclaration {
    pub(crate) name: Name,
    pub(crate) collection: Option<Name>,
    pub(crate) by: Option<Path>,
    pub(crate) each: Option<Path>,
    pub(crate) field: Option<Path>,
    pub(crate) subjects: Vec<Name>,
    pub(crate) subject_type: Option<Path>,
    pub(crate) subject_relation: Option<Path>,
    pub(crate) resource: Option<Name>,
    pub(crate) wildcard: bool,
    pub(crate) condition: Option<Condition>,
    pub(crate) document_condition: Option<Condition>,
    pub(crate) since: Option<Path>,
    pub(crate) until: Option<Path>,
    pub(crate) required: bool,
}

/// `[resource.….permissions]` `name = "…"`
#[derive(Debug)]
pub(crate) struct PermissionDeclaration {
    pub(crate) name: Name,
    pub(crate) syntax: Option<Syntax>,
    pub(crate) private: bool,
}

/// Reads the text of a schema.
pub(crate) fn read(text: &str, mistakes: &mut Vec<Mistake>) -> Declarations {
    let root = Node::from_toml(text, mistakes);
    if !mistakes.is_empty() {
        return Declarations::default();
    }
    let mut reader = Reader { text, mistakes };
    let mut declarations = Declarations::default();
    reader.table(&root, "a schema", |reader, fields| {
        declarations.default_subject = fields.take("default_subject").and_then(|entry| reader.name_value(entry));
        if declarations.default_subject.is_none() && !fields.was_there("default_subject") {
            reader.wrong(
                Mistake::new(&(0..0), "`default_subject` is missing")
                    .help("say which subject type is meant where none is named, for example: default_subject = \"user\""),
            );
        }
        declarations.subjects = reader.types(fields.take("subject"), "subject", Reader::subject);
        declarations.resources = reader.types(fields.take("resource"), "resource", Reader::resource);
        if declarations.resources.is_empty() && !fields.was_there("resource") {
            reader.wrong(Mistake::new(&(0..0), "there is no resource").help("add a table such as [resource.file]"));
        }
    });
    declarations
}

/// The entries of one table, taken one by one; what is left is unknown.
struct Fields<'a> {
    what: &'a str,
    entries: &'a [Entry],
    taken: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, name: &'static str) -> Option<&'a Entry> {
        self.taken.push(name);
        self.entries.iter().find(|entry| entry.name == name)
    }

    fn was_there(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    fn unknown(&self) -> impl Iterator<Item = Mistake> {
        self.entries.iter().filter(|entry| !self.taken.contains(&entry.name.as_str())).map(|entry| {
            Mistake::new(&entry.span, format!("unknown key `{}` in {}", entry.name, self.what))
                .meant(&entry.name, self.taken.iter().copied())
        })
    }
}

struct Reader<'a> {
    text: &'a str,
    mistakes: &'a mut Vec<Mistake>,
}

impl Reader<'_> {
    fn wrong(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    fn wrong_type(&mut self, entry: &Entry, wanted: &str) {
        let message = format!("`{}` wants {wanted}, not {}", entry.name, entry.node.describe());
        self.wrong(Mistake::new(&entry.node.span, message));
    }

    /// Reads the table in `node`, if it is one, and notes what `read` did not take.
    fn table(&mut self, node: &Node, what: &str, read: impl FnOnce(&mut Self, &mut Fields<'_>)) {
        let Value::Table(entries) = &node.value else {
            self.wrong(Mistake::new(&node.span, format!("{what} is a table, not {}", node.describe())));
            return;
        };
        let mut fields = Fields { what, entries, taken: Vec::new() };
        read(self, &mut fields);
        self.mistakes.extend(fields.unknown());
    }

    fn named(&mut self, entry: &Entry, what: &str) -> Option<Name> {
        if !is_name(&entry.name) {
            let message = format!("`{}` cannot name {what}", entry.name);
            self.wrong(Mistake::new(&entry.span, message).help("names are lower-case letters, digits and `_`"));
            return None;
        }
        Some(Name { text: entry.name.clone(), span: entry.span.clone() })
    }

    /// Every `name = { … }` of a table.
    fn types<T>(
        &mut self,
        entry: Option<&Entry>,
        what: &str,
        mut read: impl FnMut(&mut Self, Name, &Node) -> T,
    ) -> Vec<T> {
        let Some(entry) = entry else { return Vec::new() };
        let Value::Table(entries) = &entry.node.value else {
            self.wrong_type(entry, "a table");
            return Vec::new();
        };
        entries.iter().filter_map(|entry| Some((self.named(entry, &format!("a {what}"))?, entry))).collect::<Vec<_>>()
            .into_iter()
            .map(|(name, entry)| read(self, name, &entry.node))
            .collect()
    }

    fn subject(&mut self, name: Name, node: &Node) -> SubjectDeclaration {
        let mut subject = SubjectDeclaration { name, id: IdForm::ObjectId, secret: false, collection: None, condition: None };
        let what = format!("subject `{}`", subject.name.text);
        self.table(node, &what, |reader, fields| {
            subject.id = reader.id_form(fields);
            subject.secret = fields.take("secret").is_some_and(|entry| reader.flag(entry));
            let collection = fields.take("collection");
            subject.collection = collection.and_then(|entry| reader.collection(entry));
            let condition = fields.take("where");
            subject.condition = condition.and_then(|entry| condition::parse(&entry.node, reader.mistakes));
            if let Some(entry) = condition.filter(|_| collection.is_none()) {
                reader.wrong(
                    Mistake::new(&entry.span, format!("{what} has a `where` and no `collection`"))
                        .help("name the collection that holds its documents"),
                );
            }
            if subject.secret && subject.id != IdForm::String {
                reader.wrong(
                    Mistake::new(&subject.name.span, format!("{what} is secret, and its ids are not strings"))
                        .help("add: id = \"string\""),
                );
            }
            if let Some(entry) = collection.filter(|_| subject.secret) {
                reader.wrong(
                    Mistake::new(&entry.span, format!("{what} is secret, and cannot have a collection"))
                        .help("a secret is kept only as a hash, by which no document is found: read it by a relation"),
                );
            }
        });
        subject
    }

    fn resource(&mut self, name: Name, node: &Node) -> ResourceDeclaration {
        let mut resource = ResourceDeclaration {
            name,
            id: IdForm::ObjectId,
            collection: None,
            relations: Vec::new(),
            permissions: Vec::new(),
        };
        let what = format!("resource `{}`", resource.name.text);
        self.table(node, &what, |reader, fields| {
            resource.id = reader.id_form(fields);
            resource.collection = fields.take("collection").and_then(|entry| reader.collection(entry));
            resource.relations = reader.types(fields.take("relations"), "relation", Reader::relation);
            resource.permissions = reader.types(fields.take("permissions"), "permission", Reader::permission);
        });
        resource
    }

    fn relation(&mut self, name: Name, node: &Node) -> RelationDeclaration {
        let mut relation = RelationDeclaration {
            name,
            collection: None,
            by: None,
            each: None,
            field: None,
            subjects: Vec::new(),
            subject_type: None,
            subject_relation: None,
            resource: None,
            wildcard: false,
            condition: None,
            document_condition: None,
            since: None,
            until: None,
            required: false,
        };
        let what = format!("relation `{}`", relation.name.text);
        self.table(node, &what, |reader, fields| {
            relation.collection = fields.take("collection").and_then(|entry| reader.collection(entry));
            relation.by = fields.take("by").and_then(|entry| reader.path(entry));
            relation.each = fields.take("each").and_then(|entry| reader.path(entry));
            relation.field = fields.take("field").and_then(|entry| reader.path(entry));
            relation.subjects = fields.take("subject").map(|entry| reader.subjects(entry)).unwrap_or_default();
            relation.subject_type = fields.take("subject_type").and_then(|entry| reader.path(entry));
            relation.subject_relation = fields.take("subject_relation").and_then(|entry| reader.path(entry));
            relation.resource = fields.take("resource").and_then(|entry| reader.name_value(entry));
            relation.wildcard = fields.take("wildcard").is_some_and(|entry| reader.flag(entry));
            let condition = fields.take("where");
            relation.condition = condition.and_then(|entry| condition::parse(&entry.node, reader.mistakes));
            let condition = fields.take("document_where");
            relation.document_condition = condition.and_then(|entry| condition::parse(&entry.node, reader.mistakes));
            relation.since = fields.take("since").and_then(|entry| reader.path(entry));
            relation.until = fields.take("until").and_then(|entry| reader.path(entry));
            relation.required = fields.take("required").is_some_and(|entry| reader.flag(entry));
            reader.check_keys(&relation.name, &what, fields);
        });
        relation
    }

    /// Which keys of a relation go together.
    fn check_keys(&mut self, name: &Name, what: &str, fields: &Fields<'_>) {
        const NEEDS: [(&str, &[&str], &str); 10] = [
            ("collection", &["by"], "name the field that holds this resource's id, for example: by = \"file_id\""),
            ("by", &["collection"], "name the collection that is looked up by it"),
            ("subject", &["field"], "name the field that holds the subject's id, for example: field = \"user_id\""),
            ("resource", &["field"], "name the field that holds the other resource's id"),
            ("subject_type", &["field"], "name the field that holds the subject's id"),
            ("subject_type", &["subject"], "list the types that may stand there: subject = [\"user\", \"group.member\"]"),
            ("subject_relation", &["subject_type"], "name the field that holds the subject's type"),
            ("wildcard", &["field"], "name the field that may hold `*`"),
            ("document_where", &["each"], "without `each` there is `where`"),
            ("required", &["since", "until"], "name the field that must hold a date: until = \"expires_at\""),
        ];
        for (key, needed, help) in NEEDS {
            if fields.was_there(key) && !needed.iter().any(|needed| fields.was_there(needed)) {
                let needed = needed.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
                self.wrong(Mistake::new(&name.span, format!("{what} has `{key}` and no {needed}")).help(help));
            }
        }
        for key in ["subject", "subject_type", "subject_relation", "wildcard"] {
            if fields.was_there("resource") && fields.was_there(key) {
                let message = format!("{what} has both `resource` and `{key}`");
                self.wrong(
                    Mistake::new(&name.span, message)
                        .help("a relation leads to subjects or, with `resource`, to other resources"),
                );
            }
        }
        let selects = ["field", "where", "each", "collection"];
        if !selects.iter().any(|key| fields.was_there(key)) {
            self.wrong(
                Mistake::new(&name.span, format!("{what} says nothing"))
                    .help("name the `field` that holds an id or, for a flag, the `where` that makes it true"),
            );
        }
    }

    fn permission(&mut self, name: Name, node: &Node) -> PermissionDeclaration {
        let mut permission = PermissionDeclaration { name, syntax: None, private: false };
        if let Value::Scalar(Bson::String(text)) = &node.value {
            permission.syntax = self.expression(text, &node.span);
            return permission;
        }
        let what = format!("permission `{}`", permission.name.text);
        self.table(node, &what, |reader, fields| {
            permission.private = fields.take("private").is_some_and(|entry| reader.flag(entry));
            match fields.take("is") {
                Some(entry) => match &entry.node.value {
                    Value::Scalar(Bson::String(text)) => permission.syntax = reader.expression(text, &entry.node.span),
                    _ => reader.wrong_type(entry, "an expression in quotes"),
                },
                None => reader.wrong(
                    Mistake::new(&permission.name.span, format!("{what} has no `is`"))
                        .help("for example: { is = \"owner | shared\", private = true }"),
                ),
            }
        });
        permission
    }

    fn expression(&mut self, text: &str, span: &Span) -> Option<Syntax> {
        let written = self.text.get(span.clone()).unwrap_or_default();
        let at = written.find(text).map(|offset| span.start + offset);
        match expression::parse(text, at, span) {
            Ok(syntax) => Some(syntax),
            Err(mistake) => {
                self.wrong(mistake);
                None
            }
        }
    }

    fn id_form(&mut self, fields: &mut Fields<'_>) -> IdForm {
        let Some(entry) = fields.take("id") else { return IdForm::ObjectId };
        let Value::Scalar(Bson::String(text)) = &entry.node.value else {
            self.wrong_type(entry, "the form of the ids in quotes");
            return IdForm::ObjectId;
        };
        IdForm::ALL.into_iter().find(|form| form.as_str() == text).unwrap_or_else(|| {
            let mistake = Mistake::new(&entry.node.span, format!("unknown form of ids `{text}`"));
            self.wrong(mistake.meant(text, IdForm::ALL.map(IdForm::as_str)));
            IdForm::ObjectId
        })
    }

    fn flag(&mut self, entry: &Entry) -> bool {
        let Value::Scalar(Bson::Boolean(flag)) = entry.node.value else {
            self.wrong_type(entry, "true or false");
            return false;
        };
        flag
    }

    fn text<'b>(&mut self, entry: &'b Entry) -> Option<&'b str> {
        let Value::Scalar(Bson::String(text)) = &entry.node.value else {
            self.wrong_type(entry, "a string");
            return None;
        };
        Some(text)
    }

    fn name_value(&mut self, entry: &Entry) -> Option<Name> {
        let text = self.text(entry)?.to_owned();
        Some(Name { text, span: entry.node.span.clone() })
    }

    fn collection(&mut self, entry: &Entry) -> Option<Name> {
        let name = self.name_value(entry)?;
        if name.text.is_empty() || name.text.starts_with("system.") || name.text.contains(['$', '\0']) {
            self.wrong(Mistake::new(&name.span, format!("`{}` cannot be the name of a collection", name.text)));
            return None;
        }
        Some(name)
    }

    fn path(&mut self, entry: &Entry) -> Option<Path> {
        let text = self.text(entry)?;
        match Path::parse(text) {
            Ok(path) => Some(path),
            Err(why) => {
                self.wrong(Mistake::new(&entry.node.span, format!("the field `{text}` {why}")));
                None
            }
        }
    }

    fn subjects(&mut self, entry: &Entry) -> Vec<Name> {
        match &entry.node.value {
            Value::List(items) if !items.is_empty() => items
                .iter()
                .filter_map(|item| match &item.value {
                    Value::Scalar(Bson::String(text)) => Some(Name { text: text.clone(), span: item.span.clone() }),
                    _ => {
                        let message = format!("`subject` lists the names of types, not {}", item.describe());
                        self.wrong(Mistake::new(&item.span, message));
                        None
                    }
                })
                .collect(),
            Value::List(_) => {
                self.wrong(Mistake::new(&entry.node.span, "`subject` lists nothing"));
                Vec::new()
            }
            _ => self.name_value(entry).into_iter().collect(),
        }
    }
}
