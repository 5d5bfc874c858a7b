//! The edges in the documents of a survey: how many of them lead to a resource that has no document.
//!
//! Reads nothing: the source is asked which documents exist.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};

use crate::{
    diagnosis::{Diagnosis, Subject},
    fact::DocumentId,
    question::IdForm,
    schema::{End, Owner, Path, Relation, Schema, Target},
};

/// How many edges of one relation are looked at.
pub(in crate::source) const EDGES_MAX: usize = 200;

/// A relation that leads to resources with documents of their own, and some of its edges.
#[derive(Debug)]
pub(in crate::source) struct Edge {
    /// Its name, with that of its type.
    relation: String,
    path: Path,
    /// The collection of the resources.
    target: String,
    form: IdForm,
    must_exist: bool,
    negated: bool,
    /// The ids that it leads to, each with the `_id` of the document.
    found: Vec<(Bson, String)>,
    /// The ids that have a document; none until the source was asked.
    existing: Option<BTreeSet<String>>,
}

impl Edge {
    /// The edges of a relation. None if it is no edge, or one whose resources exist without documents. Ids that are written as
    /// text in a form of their own are left out.
    pub(super) fn of(schema: &Schema, relation: &Relation, name: &str) -> Option<Self> {
        let ids = relation.ids.as_ref().filter(|ids| ids.format.is_none())?;
        let kind = ids.targets.iter().find_map(|target| match target {
            Target::Resource(kind) => Some(*kind),
            Target::Subject(_) | Target::Set(..) => None,
        })?;
        if !matches!(relation.owner, Owner::Resource(_)) {
            return None;
        }
        let resource = schema.resource(kind);
        Some(Self {
            relation: name.to_owned(),
            path: relation.path_in_document(&ids.field),
            target: schema.lookup(resource.document?).collection.to_string(),
            form: resource.id,
            must_exist: ids.must_exist,
            negated: relation.negated,
            found: Vec::new(),
            existing: None,
        })
    }

    /// Adds the edges of a document.
    pub(super) fn add(&mut self, document: &Document, id: &str) {
        let form = super::name_of(self.form);
        let found = &mut self.found;
        self.path.ends(document, &mut |end| {
            let End::Value(value) = end else { return };
            for value in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
                if found.len() < EDGES_MAX && super::type_name(value) == form {
                    found.push((value.clone(), id.to_owned()));
                }
            }
        });
    }

    /// The collection of the resources, and the ids that it leads to.
    pub(in crate::source) fn targets(&self) -> (&str, Vec<Bson>) {
        (&self.target, self.found.iter().map(|(id, _)| id.clone()).collect())
    }

    /// Sets which of the ids have a document: these `_id`s.
    pub(in crate::source) fn set_existing(&mut self, ids: impl IntoIterator<Item = Bson>) {
        self.existing = Some(ids.into_iter().map(|id| shown(&id)).collect());
    }

    /// What follows from the edges that lead nowhere.
    pub(super) fn diagnosis(&self, subject: Subject, collection: &str, documents: usize) -> Option<Diagnosis> {
        let existing = self.existing.as_ref()?;
        let mut dangling = self.found.iter().filter(|(id, _)| !existing.contains(&shown(id)));
        let (id, document) = dangling.next()?;
        let count = dangling.count() + 1;
        let Self { relation, path, target, .. } = self;
        let consequence = match (self.must_exist, self.negated) {
            (true, _) => format!("for them, `{relation}` is indeterminate, and denied with MALFORMED"),
            (false, true) => "they grant nothing, and what would exclude beyond them, under a `!`, does not".to_owned(),
            (false, false) => "they grant nothing".to_owned(),
        };
        let message = format!(
            "`{collection}.{path}`: {count} of {} edges, in {documents} documents looked at, lead to no document of `{target}` (e.g. `_id` {document} leads to \
             {}): {consequence}",
            self.found.len(),
            shown(id)
        );
        let repair = format!("store the `_id` of a document of `{target}` there, or unset the field");
        let remedy = if self.negated && !self.must_exist {
            format!("must_exist = true, on `{relation}`, so that such an edge does not lift what excludes; or {repair}")
        } else {
            repair
        };
        Some(Diagnosis::warning(subject, message, remedy))
    }
}

/// An id as text, by which ids of one form are compared.
fn shown(id: &Bson) -> String {
    DocumentId::of(&doc! { "_id": id.clone() }).to_string()
}
