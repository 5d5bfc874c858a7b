//! Reads what subjects declare: `[subject.name]`, the relations of subjects, and `of`, which names them.
//!
//! The keys of relations are read in the parent module.

use super::{OfName, SubjectDeclaration, is_table_if_any, reader::Reader};
use crate::{
    question::IdForm,
    schema::{
        error::SchemaError,
        expression::{Name, Named},
        node::{Entry, Node},
    },
};

/// An example of a relation of a subject.
const EXAMPLE: &str = "{ teams = { field = \"team_ids\", resource = \"team\" } }";

impl Reader<'_> {
    pub(super) fn subject(&mut self, name: Name, node: &Node) -> SubjectDeclaration {
        let mut subject = SubjectDeclaration {
            name,
            id: IdForm::ObjectId,
            secret: false,
            collection: None,
            condition: None,
            since: None,
            until: None,
            relations: Vec::new(),
            is_whole: false,
        };
        let what = format!("subject `{}`", subject.name.text);
        let example = format!("[subject.{}]", subject.name.text);
        self.table(
            node,
            &what,
            |_| example,
            |reader, fields| {
                subject.id = reader.id_form(fields);
                let secret = fields.take("secret");
                subject.secret = reader.flag(secret);
                let collection = fields.take("collection");
                subject.collection = reader.collection(collection);
                subject.condition = reader.condition(fields.take("where"));
                subject.since = fields.take("since").and_then(|entry| reader.date_field(entry));
                subject.until = fields.take("until").and_then(|entry| reader.date_field(entry));
                reader.check_conditions(&what, fields, &["where", "since", "until"], "users");
                let relations = fields.take("relations");
                subject.relations = reader.named(relations, Named::Relation, EXAMPLE, |reader, name, node| {
                    reader.any_relation(name, node, Self::check_subject_keys)
                });
                subject.is_whole = fields.unknown().next().is_none() && is_table_if_any(relations);
                if let Some(entry) = secret.filter(|_| subject.secret && subject.id != IdForm::String) {
                    let place = fields.get("id").map_or(&entry.span, |id| &id.node.span);
                    reader.wrong(
                        SchemaError::new(place, format!("{what} is secret, but its ids are not strings"))
                            .help("a secret is a string: id = \"string\""),
                    );
                }
                if let Some(entry) = collection.filter(|_| subject.secret) {
                    reader.wrong(
                        SchemaError::new(&entry.span, format!("{what} is secret, so it cannot have a collection"))
                            .help("a secret is kept only as a hash, which finds no document: read it with a relation"),
                    );
                }
                if let Some(entry) = relations.filter(|_| subject.secret) {
                    reader.wrong(
                        SchemaError::new(&entry.span, format!("{what} is secret, so it cannot have relations"))
                            .help("a secret is kept only as a hash, which finds no document: read it with a relation of a resource"),
                    );
                }
            },
        );
        subject
    }

    /// Reads `of`: one or more relations of subjects, such as `user.teams`.
    pub(super) fn of(&mut self, entry: &Entry) -> Vec<OfName> {
        const EXAMPLE: &str = "name the subject's type and its relation, for example: of = \"user.teams\"";
        let items = entry.node.items();
        if items.is_empty() {
            self.wrong(SchemaError::new(&entry.node.span, "`of` lists nothing").help(EXAMPLE));
        }
        let mut names = Vec::new();
        for item in items {
            let message = match item.as_text() {
                None => format!("`of` expects relations in quotes, not {}", item.describe()),
                Some(text) => match self.pair(text, item) {
                    Some((subject, relation)) => {
                        names.push(OfName { subject, relation });
                        continue;
                    }
                    None => format!("`{text}` names no relation of a subject"),
                },
            };
            self.wrong(SchemaError::new(&item.span, message).help(EXAMPLE));
        }
        names
    }
}
