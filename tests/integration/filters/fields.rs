//! Filters of single fields: ids of every form and dates of every unit, at paths of every depth, beside values that are easily mistaken
//! for them. Every value is tested at every place, so nothing here depends on what is generated.
//!
//! Generated schemas and conditions are tested in `filters` and `conditions`.

use std::fmt::Write as _;

use bson::{Bson, DateTime, Document, Timestamp, doc, spec::BinarySubtype};
use permcached::{
    list::PlanKind,
    question::{Id, IdForm, Subject},
    schema::Schema,
};

use super::{
    finds::compare_with_mongod,
    single::{self, Compared},
};
use crate::{
    conditions::values,
    evaluator::generate::{id_text, id_value},
    support::servers,
};

/// The time for which filters are compiled, in milliseconds.
const NOW: i64 = 1_790_000_000_250;

/// The paths at which values stand. A query cannot tell the arrays apart through which the last one leads.
const PATHS: [&str; 4] = ["f", "p.f", "q.r.f", "s.t.u.f"];

/// How documents are nested in each other on the way to a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Array,
    BesideGranting,
    ArrayInArray,
    BesideValue,
    Value,
    Empty,
}

const WAYS: [Way; 6] = [Way::Array, Way::BesideGranting, Way::ArrayInArray, Way::BesideValue, Way::Value, Way::Empty];

/// What the fields of a document are, and what would grant there.
struct Place<'v> {
    leaf: &'v Bson,
    granting: &'v Bson,
    way: Way,
    /// Whether the way leads through the last document, or else the first one.
    is_last: bool,
}

impl Place<'_> {
    /// A document with the value at a path.
    fn at(&self, parts: &[&str], is_first: bool) -> Document {
        let Some((first, rest)) = parts.split_first() else { return Document::new() };
        if rest.is_empty() {
            return doc! { *first: self.leaf.clone() };
        }
        let is_here = if self.is_last { rest.len() == 1 } else { is_first };
        let inner = Bson::Document(self.at(rest, false));
        let value = match self.way {
            _ if !is_here => inner,
            Way::Plain => inner,
            Way::Array => Bson::Array(vec![inner]),
            Way::BesideGranting => {
                let place = Place { leaf: self.granting, way: Way::Plain, ..*self };
                Bson::Array(vec![inner, place.at(rest, false).into()])
            }
            Way::ArrayInArray => Bson::Array(vec![Bson::Array(vec![inner])]),
            Way::BesideValue => Bson::Array(vec![inner, 5.into()]),
            Way::Value => 5.into(),
            Way::Empty => Bson::Array(Vec::new()),
        };
        doc! { *first: value }
    }

    fn document(&self) -> Document {
        let mut document = Document::new();
        for path in PATHS {
            document.extend(self.at(&path.split('.').collect::<Vec<_>>(), true));
        }
        document
    }
}

/// A document for each value at each place.
fn documents(hostile: &[Bson], granting: &Bson) -> Vec<Document> {
    let place = |leaf: &Bson, way, is_last| Place { leaf, granting, way, is_last }.document();
    let mut documents = vec![Document::new()];
    for value in hostile {
        let array = |values: &[&Bson]| Bson::Array(values.iter().map(|value| (*value).clone()).collect());
        let nested = array(&[value]);
        let leaves = [value.clone(), array(&[value, granting]), array(&[&nested]), nested.clone()];
        documents.extend(leaves.each_ref().map(|leaf| place(leaf, Way::Plain, false)));
        documents.extend(WAYS.map(|way| place(value, way, false)));
        documents.extend([Way::BesideGranting, Way::Value].map(|way| place(value, way, true)));
    }
    documents.extend(values::all().iter().map(|value| place(value, Way::Plain, false)));
    for (document, number) in documents.iter_mut().zip(0_i64..) {
        document.insert("_id", number);
    }
    documents
}

/// Compares the filters of some relations, and of their opposites, with the evaluator and with mongod. Returns them.
async fn compare(
    schema: &Schema,
    subject: &Subject,
    names: &[String],
    documents: &[Document],
) -> Vec<(String, Compared)> {
    let mut all = Vec::new();
    for name in names.iter().flat_map(|name| [name.clone(), format!("not_{name}")]) {
        let asked = single::question(schema, subject.clone(), "file", &name);
        all.extend(single::compare(schema, &asked, NOW, documents).map(|compared| (name, compared)));
    }
    let database = servers::mongo().database().await;
    let found = all.iter().map(|(_, compared)| compared.found.clone()).collect();
    let compared = compare_with_mongod(&database.collection("files"), documents, found).await;
    compared.unwrap_or_else(|error| panic!("{error}"));
    all
}

/// A schema with these relations of a file, and a permission for each and for its opposite.
fn schema(subjects: &str, relations: &[(String, String)]) -> (Schema, Vec<String>) {
    let mut text = format!("default_subject = \"user\"\n{subjects}\n");
    text.push_str("[resource.file]\nid = \"integer\"\ncollection = \"files\"\n[resource.file.relations]\n");
    for (name, relation) in relations {
        writeln!(text, "r_{name} = {{ {relation} }}").expect("a line");
    }
    text.push_str("[resource.file.permissions]\n");
    for (name, _) in relations {
        writeln!(text, "{name} = \"r_{name}\"\nnot_{name} = \"!r_{name}\"").expect("a line");
    }
    let schema = Schema::parse("fields.toml", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    (schema, relations.iter().map(|(name, _)| name.clone()).collect())
}

fn form_name(form: IdForm) -> &'static str {
    match form {
        IdForm::ObjectId => "objectid",
        IdForm::String => "string",
        IdForm::Integer => "integer",
        IdForm::Uuid => "uuid",
    }
}

/// What may stand in place of an id of a form.
fn hostile_ids(form: IdForm) -> Vec<Bson> {
    let text = id_text(form, 0);
    let mut all = vec![id_value(form, 0), id_value(form, 1), Bson::Symbol(text.clone()), Bson::Symbol("*".into())];
    for format in ["{id}", "k:{id}"] {
        let texts =
            [text.clone(), text.to_uppercase(), id_text(form, 1), "*".into(), String::new(), "!".into(), "zz".into()];
        all.extend(texts.iter().map(|text| Bson::String(format.replace("{id}", text))));
    }
    let binary = |subtype, length| bson::Binary { subtype, bytes: vec![7; length] };
    let binaries = [(BinarySubtype::Uuid, 16), (BinarySubtype::UuidOld, 16), (BinarySubtype::Md5, 16)];
    let lengths = [(BinarySubtype::Generic, 4), (BinarySubtype::Generic, 20)];
    all.extend(binaries.into_iter().chain(lengths).map(|(subtype, length)| binary(subtype, length).into()));
    all.extend([0.0, 0.5, f64::NAN, 1e19, -1e19].map(Bson::Double));
    all.extend(["0", "0.5", "NaN", "1E+20"].map(|text| Bson::Decimal128(text.parse().expect("a decimal"))));
    all.extend([Bson::Null, Bson::Undefined, true.into(), Document::new().into(), Bson::Array(Vec::new())]);
    all
}

/// Relations with every writing of ids at every path.
fn relations_with_ids() -> Vec<(String, String)> {
    let mut relations = Vec::new();
    for (number, path) in PATHS.iter().enumerate() {
        relations.push((format!("bot_{number}"), format!("field = {path:?}, subject = \"bot\", wildcard = true")));
        for (writing, format) in [("plain", ""), ("text", ", format = \"k:{id}\"")] {
            let relation = format!("field = {path:?}, subject = \"user\"{format}");
            relations.push((format!("{writing}_or_everybody_{number}"), format!("{relation}, wildcard = true")));
            relations.push((format!("{writing}_{number}"), relation));
        }
    }
    for (number, each) in ["p", "q.r", "s.t.u"].iter().enumerate() {
        relations.push((format!("item_{number}"), format!("each = {each:?}, field = \"f\"")));
    }
    relations.push(("item_deep".into(), "each = \"s.t.u.f\", field = \"g\"".into()));
    for kind in ["p", "q.r.f", "missing"] {
        let relation = format!("field = \"f\", subject = [\"user\", \"bot\"], subject_type = {kind:?}");
        relations.push((format!("typed_{}", kind.replace('.', "_")), relation));
    }
    relations
}

#[tokio::test]
async fn ids_of_every_form_are_not_taken_for_other_values_at_any_place() {
    for form in [IdForm::ObjectId, IdForm::String, IdForm::Integer, IdForm::Uuid] {
        let subjects = ["user", "bot"].map(|name| format!("[subject.{name}]\nid = {:?}\n", form_name(form))).concat();
        let (schema, names) = schema(&subjects, &relations_with_ids());
        let granting = id_value(form, 0);
        let documents = documents(&hostile_ids(form), &granting);
        let id = Id::parse(&id_text(form, 0), form, false).expect("an id");
        let subject = Subject::Known { kind: schema.default_subject(), id };
        let compared = compare(&schema, &subject, &names, &documents).await;
        let exact = compared.iter().filter(|(_, compared)| compared.kind == PlanKind::Exact).count();
        assert!(exact * 3 > compared.len(), "{form:?}: {exact} of {}", compared.len());
        for (name, Compared { denied, .. }) in compared {
            let documents = denied.iter().map(|place| Bson::Document(documents[*place].clone()));
            let document = documents.filter(|_| !is_deep(&name)).find(|document| !has_hard_value(document));
            assert!(document.is_none(), "{form:?}: {name} finds what is denied: {document:?}");
        }
    }
}

/// Whether a relation reads a field to which a path leads through too much for exact queries.
fn is_deep(name: &str) -> bool {
    name.ends_with("_3") || name.ends_with("_deep")
}

/// Whether a document has a value that no query tells from an id: a fraction, or a text.
fn has_hard_value(value: &Bson) -> bool {
    match value {
        Bson::Document(document) => document.values().any(has_hard_value),
        Bson::Array(items) => items.iter().any(has_hard_value),
        Bson::String(text) => text.starts_with("k:"),
        Bson::Double(double) => double.fract() != 0.0,
        Bson::Decimal128(decimal) => [".", "E-"].iter().any(|part| decimal.to_string().contains(part)),
        _ => false,
    }
}

/// What may stand in place of a date.
fn hostile_dates() -> Vec<Bson> {
    let mut all = Vec::new();
    for millis in [NOW - 1_000, NOW - 1, NOW, NOW + 1, NOW + 1_000, NOW / 1_000 * 1_000] {
        let double: f64 = millis.to_string().parse().expect("a number");
        all.extend([DateTime::from_millis(millis).into(), Bson::Int64(millis), Bson::Int64(millis / 1_000)]);
        all.extend([Bson::Double(double + 0.25), Bson::Double(double / 1_000.0)]);
        let seconds = format!("{}.{:03}", millis / 1_000, millis % 1_000);
        all.push(Bson::Decimal128(seconds.parse().expect("a decimal")));
        all.push(DateTime::from_millis(millis).try_to_rfc3339_string().expect("a date").into());
    }
    all.extend([DateTime::MIN, DateTime::MAX].map(Bson::from));
    all.extend([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e16, -1e16, 1e300].map(Bson::Double));
    all.extend(["NaN", "Infinity", "-1E+20", "1E+20"].map(|text| Bson::Decimal128(text.parse().expect("a decimal"))));
    all.extend([Bson::Null, Bson::Undefined, true.into(), "".into(), "soon".into(), Bson::Symbol("soon".into())]);
    all.push(Timestamp { time: 1_790_000_000, increment: 1 }.into());
    all
}

#[tokio::test]
async fn dates_of_every_unit_are_compared_with_the_time_at_every_place() {
    let mut relations = Vec::new();
    for (number, path) in PATHS[..3].iter().enumerate() {
        // No query compares texts, at whatever path.
        let units = if number == 0 { 4 } else { 3 };
        for unit in &["date", "seconds", "milliseconds", "iso8601"][..units] {
            let date = match *unit {
                "date" => format!("{path:?}"),
                unit => format!("{{ field = {path:?}, unit = {unit:?} }}"),
            };
            let other = PATHS[(number + 1) % 3];
            for (name, dates) in [
                ("since", format!("since = {date}")),
                ("until", format!("until = {date}")),
                ("both", format!("since = {date}, until = {other:?}")),
                ("required", format!("until = {date}, required = true")),
            ] {
                let relation = format!("where = {{ _id = {{ \"$exists\" = true }} }}, {dates}");
                relations.push((format!("{name}_{unit}_{number}"), relation));
            }
        }
    }
    let (schema, names) = schema("[subject.user]", &relations);
    let granting = DateTime::from_millis(NOW + 1_000).into();
    let documents = documents(&hostile_dates(), &granting);
    let compared = compare(&schema, &Subject::Anonymous, &names, &documents).await;
    let exact = compared.iter().filter(|(_, compared)| compared.kind == PlanKind::Exact).count();
    assert!(exact * 3 > compared.len(), "{exact} of {}", compared.len());
}
