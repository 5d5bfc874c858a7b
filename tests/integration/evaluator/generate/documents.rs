//! Generates documents that contain grants for the relations of a schema, and a few wrong values.
//!
//! Does not compute what the documents allow.

use std::collections::BTreeMap;

use bson::{Bson, DateTime, Document, doc};
use permcached::question::IdForm;

use super::{IDS, Tape, date, id_text, id_value};
use crate::evaluator::{
    model::{Model, Relation, Target},
    naive::same_id,
};

pub fn documents(model: &Model, tapes: &[Vec<u8>]) -> BTreeMap<String, Vec<Document>> {
    let mut names = model.collections();
    names.retain(|name| *name != "nothing");
    let mut collections: BTreeMap<String, Vec<Document>> = BTreeMap::new();
    for (number, tape) in tapes.iter().enumerate() {
        let mut tape = Tape::new(tape);
        let Some(name) = names.get(tape.below(names.len())) else {
            continue;
        };
        let document = Writer { model, tape: &mut tape }.document(name, number);
        let others = collections.entry((*name).to_owned()).or_default();
        if !others.iter().any(|other| same_id(&other["_id"], &document["_id"])) {
            others.push(document);
        }
    }
    collections
}

struct Writer<'a, 'b> {
    model: &'a Model,
    tape: &'a mut Tape<'b>,
}

impl Writer<'_, '_> {
    fn document(&mut self, collection: &str, number: usize) -> Document {
        let mut document = doc! { "_id": self.own_id(collection, number) };
        let mut relations = Vec::new();
        for kind in &self.model.resources {
            let reads = |relation: &&Relation| match &relation.lookup {
                Some((other, _)) => *other == collection,
                None => kind.collection == Some(collection),
            };
            relations.extend(kind.relations.iter().filter(reads).map(|relation| (kind.name, relation)));
        }
        for kind in &self.model.subjects {
            let reads = |relation: &&Relation| match &relation.lookup {
                Some((other, _)) => *other == collection,
                None => kind.collection == Some(collection),
            };
            relations.extend(kind.relations.iter().filter(reads).map(|relation| (kind.name, relation)));
            if kind.collection == Some(collection) {
                self.times(&mut document, [&kind.since, &kind.until], None);
            }
        }
        let first = self.tape.below(relations.len());
        relations.rotate_left(first);
        self.conditioned(&mut document);
        for (kind, relation) in relations {
            if !self.tape.rarely(20) {
                self.serve(&mut document, kind, relation);
            }
        }
        if self.tape.rarely(15) {
            self.spoil(&mut document);
        }
        document
    }

    /// The `_id` of a document: mostly an id of the subject or resource type whose documents are in the collection.
    fn own_id(&mut self, collection: &str, number: usize) -> Bson {
        let subject = self.model.subjects.iter().find(|kind| kind.collection == Some(collection)).map(|kind| kind.form);
        let resource = self.model.resources.iter().find(|kind| {
            let is_by_id =
                |relation: &Relation| relation.lookup.as_ref().is_some_and(|(c, by)| *c == collection && by == "_id");
            kind.collection == Some(collection) || kind.relations.iter().any(is_by_id)
        });
        match subject.or(resource.map(|kind| kind.form)) {
            Some(form) if !self.tape.rarely(3) => id_value(form, self.tape.below(IDS)),
            _ => Bson::String(format!("d{number}")),
        }
    }

    /// Writes the fields that conditions test.
    fn conditioned(&mut self, document: &mut Document) {
        for name in ["gone", "state", "level", "meta.level", "marks", "scores"] {
            if self.tape.rarely(70) {
                let value = match name {
                    "gone" => (self.tape.below(2) == 1).into(),
                    "state" => ["on", "off", "new"][self.tape.below(3)].into(),
                    "marks" => Bson::Array((0..self.tape.below(3)).map(|_| self.mark()).collect()),
                    "scores" => Bson::Array((0..self.tape.below(4)).map(|_| self.level()).collect()),
                    _ => self.level(),
                };
                let value = if self.tape.rarely(7) { self.wrong() } else { value };
                self.set(document, name, value);
            }
        }
    }

    fn level(&mut self) -> Bson {
        [Bson::Int32(1), Bson::Int64(2), Bson::Double(3.0)][self.tape.below(3)].clone()
    }

    /// An element of an array that conditions test.
    fn mark(&mut self) -> Bson {
        if self.tape.rarely(7) {
            return self.wrong();
        }
        let state = ["on", "on", "off"][self.tape.below(3)].into();
        let state = if self.tape.rarely(7) { self.wrong() } else { state };
        doc! { "state": state, "level": self.level() }.into()
    }

    /// Writes the fields that the relation reads.
    fn serve(&mut self, document: &mut Document, kind: &str, relation: &Relation) {
        if let Some((_, by)) = &relation.lookup {
            let resource = self.model.resource(kind).map(|kind| kind.form);
            let subject = self.model.subject(kind).map(|kind| kind.form);
            let form = resource.or(subject).expect("a type of the model");
            let id = id_value(form, self.tape.id());
            let id = match self.tape.below(20) {
                0..=15 => id,
                16 | 17 => Bson::Array(vec![id, id_value(form, self.tape.id())]),
                18 => id_text(form, self.tape.id()).into(),
                _ => doc! { "_id": id }.into(),
            };
            let id = match relation.by_format {
                Some(format) if !self.tape.rarely(15) => self.text(format, form),
                Some(_) | None => id,
            };
            self.set(document, by, id);
        }
        let Some(each) = &relation.each else {
            self.serve_in(document, relation);
            return;
        };
        let elements = (0..=self.tape.below(3)).map(|_| {
            let mut element = Document::new();
            self.conditioned(&mut element);
            self.serve_in(&mut element, relation);
            if self.tape.rarely(4) { self.wrong() } else { Bson::Document(element) }
        });
        let elements = elements.collect();
        self.set(document, each, Bson::Array(elements));
    }

    fn serve_in(&mut self, document: &mut Document, relation: &Relation) {
        let target = relation.targets.get(self.tape.below(relation.targets.len()));
        if let (Some(field), Some(target)) = (&relation.field, target) {
            let value = match self.tape.below(10) {
                0..=7 => self.id(relation, target),
                _ => Bson::Array((0..self.tape.below(4)).map(|_| self.id(relation, target)).collect()),
            };
            self.set(document, field, value);
            let (name, member) = match target {
                Target::Subject(name) | Target::Resource(name) => (*name, ""),
                Target::Set(name, member) => (*name, member.as_str()),
            };
            if let Some(path) = &relation.subject_type {
                let place = relation.targets.iter().position(|other| other == target);
                let value = place.and_then(|place| relation.type_values.get(place));
                self.set(document, path, (*value.unwrap_or(&name)).into());
            }
            if let Some(path) = &relation.subject_relation
                && !(member.is_empty() && self.tape.rarely(50))
            {
                self.set(document, path, member.into());
            }
        }
        self.times(document, [&relation.since, &relation.until], relation.unit);
    }

    fn times(&mut self, document: &mut Document, paths: [&Option<String>; 2], unit: Option<&str>) {
        for path in paths.into_iter().flatten() {
            if self.tape.rarely(75) {
                let date = date(self.tape);
                let date = match unit {
                    Some("seconds") if date % 2_000 == 0 => {
                        Bson::Double(f64::from(i32::try_from(date / 1_000).expect("a date before 2038")))
                    }
                    Some("seconds") => Bson::Int64(date / 1_000),
                    Some("milliseconds") => Bson::Int64(date),
                    Some(_) => DateTime::from_millis(date).try_to_rfc3339_string().expect("a date").into(),
                    None => DateTime::from_millis(date).into(),
                };
                self.set(document, path, date);
            }
        }
    }

    fn id(&mut self, relation: &Relation, target: &Target) -> Bson {
        let form = match target {
            Target::Subject(name) => self.model.subject(name).map(|kind| kind.form),
            Target::Set(name, _) | Target::Resource(name) => self.model.resource(name).map(|kind| kind.form),
        };
        let form = form.expect("a type of the model");
        if let Some(format) = relation.format
            && !self.tape.rarely(10)
        {
            if relation.wildcard && self.tape.rarely(25) {
                return format.replace("{id}", "*").into();
            }
            return self.text(format, form);
        }
        if relation.wildcard && self.tape.rarely(25) {
            return "*".into();
        }
        let number = self.tape.id();
        match self.tape.below(40) {
            0..=36 => id_value(form, number),
            37 => Bson::Double(f64::from(u8::try_from(number).expect("a small number"))),
            38 => id_text(form, number).into(),
            _ => self.wrong(),
        }
    }

    /// An id as text, mostly in the given format.
    fn text(&mut self, format: &str, form: IdForm) -> Bson {
        let id = id_text(form, self.tape.id());
        let id = match self.tape.below(16) {
            0..=9 => id,
            10..=12 => id.to_uppercase(),
            13 => String::new(),
            14 => format!("{id}x"),
            _ => return id.into(),
        };
        format.replace("{id}", &id).into()
    }

    /// Sets the value at a path, if there is none and nothing blocks the path. One time in twenty it sets a wrong value.
    fn set(&mut self, document: &mut Document, path: &str, value: Bson) {
        let value = if self.tape.rarely(5) { self.wrong() } else { value };
        match path.split_once('.') {
            None if document.contains_key(path) => {}
            None => {
                document.insert(path, value);
            }
            Some((first, rest)) => {
                let inner = document.entry(first.to_owned()).or_insert_with(|| Bson::Document(Document::new()));
                if let Bson::Document(inner) = inner
                    && !inner.contains_key(rest)
                {
                    inner.insert(rest, value);
                }
            }
        }
    }

    /// Removes a field, or replaces its value with a wrong one.
    fn spoil(&mut self, document: &mut Document) {
        let names: Vec<_> = document.keys().filter(|name| *name != "_id").cloned().collect();
        let Some(name) = names.get(self.tape.below(names.len())) else {
            return;
        };
        let old = document.remove(name).unwrap_or(Bson::Null);
        match self.tape.below(3) {
            0 => {}
            1 => {
                document.insert(name, Bson::Array(vec![old]));
            }
            _ => {
                document.insert(name, self.wrong());
            }
        }
    }

    /// A value that is wrong for most fields.
    fn wrong(&mut self) -> Bson {
        let all = [
            Bson::Null,
            "".into(),
            "*".into(),
            "other".into(),
            7.into(),
            1.5.into(),
            true.into(),
            Bson::Array(Vec::new()),
            Bson::Array(vec![Bson::Null]),
            Bson::Array(vec![Bson::Array(vec!["s1".into()])]),
            Document::new().into(),
            DateTime::from_millis(date(self.tape)).into(),
        ];
        all[self.tape.below(all.len())].clone()
    }
}
