//! Which fields of a collection the schema compares as text. A collection with a collation of its own compares these in
//! another way than permcached does.
//!
//! Asks no database: `source::mongodb` knows which collections have a collation.

use std::collections::BTreeSet;

use super::{Ids, Lookup, Path, Relation, Schema, Target};
use crate::question::IdForm;

impl Schema {
    /// The fields of a collection whose texts decide answers: ids that are texts, names of types, and what conditions compare
    /// with texts. Two fields that a condition compares with each other are not among them, because their type is not known.
    #[must_use]
    pub fn compared_texts(&self, collection: &str) -> BTreeSet<String> {
        let mut texts = BTreeSet::new();
        for (_, lookup) in self.lookups_of_checks().filter(|(_, lookup)| &*lookup.collection == collection) {
            if lookup.has_text_keys() {
                texts.insert(lookup.by.to_string());
            }
            for relation in lookup.relations.iter().map(|id| self.relation(*id)) {
                self.texts_of(relation, &mut |path| {
                    texts.insert(path);
                });
            }
        }
        texts
    }

    fn texts_of(&self, relation: &Relation, visit: &mut dyn FnMut(String)) {
        if let Some(condition) = &relation.document_condition {
            condition.text_paths(&mut |path| visit(path.to_string()));
        }
        let mut visit = |path: &Path| visit(relation.path_in_document(path).to_string());
        if let Some(condition) = &relation.condition {
            condition.text_paths(&mut visit);
        }
        if let Some(ids) = &relation.ids {
            if self.has_texts(ids) {
                visit(&ids.field);
            }
            ids.subject_type.iter().chain(&ids.subject_relation).for_each(visit);
        }
    }

    /// Whether some of the ids are texts, or a text that stands for everybody.
    fn has_texts(&self, ids: &Ids) -> bool {
        let form = |target: &Target| match *target {
            Target::Subject(kind) => self.subject(kind).id,
            Target::Set(kind, _) | Target::Resource(kind) => self.resource(kind).id,
        };
        ids.format.is_some() || ids.wildcard || ids.targets.iter().any(|target| form(target) == IdForm::String)
    }
}

impl Lookup {
    /// Whether some of the ids that it looks up are texts.
    pub(crate) fn has_text_keys(&self) -> bool {
        self.text_keys.is_some() || self.forms.contains(&IdForm::String)
    }
}
