//! Adds documents with hostile values: variants of the documents of a case, in which fields that the schema reads have been replaced.
//!
//! Does not know what the documents allow.

use bson::{Bson, DateTime, Document, doc};
use permcached::question::IdForm;

use crate::{
    conditions::values,
    evaluator::generate::{Case, Tape, id_text, id_value},
};

/// The number of ids that documents can have.
pub const IDS: usize = 16;
/// How many of these the case's own documents have.
const CASE_IDS: usize = 3;

/// Adds a variant of some document for each tape.
pub fn add_documents(case: &mut Case, tapes: &[Vec<u8>]) {
    let kinds: Vec<(&'static str, IdForm, Vec<String>)> = case
        .model
        .resources
        .iter()
        .filter_map(|kind| Some((kind.collection?, kind.form, paths(case, kind.collection?))))
        .collect();
    for (number, tape) in tapes.iter().enumerate() {
        let tape = &mut Tape::new(tape);
        let Some((collection, form, paths)) = kinds.get(number % kinds.len().max(1)) else { continue };
        let id = CASE_IDS + number / kinds.len();
        if id >= IDS {
            continue;
        }
        let id = id_value(*form, id);
        let values = stock(case, tape);
        let documents = case.collections.entry((*collection).to_owned()).or_default();
        let mut document = match documents.len() {
            0 => Document::new(),
            count => documents[tape.below(count)].clone(),
        };
        document.remove("_id");
        for _ in 0..=tape.below(4) {
            if let Some(path) = paths.get(tape.below(paths.len())) {
                let parts: Vec<&str> = path.split('.').collect();
                plant(&mut document, &parts, &values, tape);
            }
        }
        let mut whole = doc! { "_id": id };
        whole.extend(document);
        documents.push(whole);
    }
}

/// The paths of the fields that something reads in the documents of a collection.
fn paths(case: &Case, collection: &str) -> Vec<String> {
    let mut paths: Vec<String> =
        ["gone", "state", "level", "meta.level", "marks", "scores", "marks.state", "marks.level"]
            .map(str::to_owned)
            .into();
    let kinds = case.model.resources.iter().filter(|kind| kind.collection == Some(collection));
    for relation in kinds.flat_map(|kind| &kind.relations).filter(|relation| relation.lookup.is_none()) {
        let inner =
            [&relation.field, &relation.since, &relation.until, &relation.subject_type, &relation.subject_relation];
        let inner = inner.into_iter().flatten();
        match &relation.each {
            None => paths.extend(inner.cloned()),
            Some(each) => {
                paths.extend([each.clone(), format!("{each}._id")]);
                paths.extend(inner.map(|inner| format!("{each}.{inner}")));
                paths.extend(["gone", "state", "level", "meta.level", "scores"].map(|inner| format!("{each}.{inner}")));
            }
        }
    }
    // The fields of relations are what most filters are about.
    let own: Vec<String> = paths.iter().skip(8).cloned().collect();
    paths.extend(own.iter().cloned());
    paths.extend(own);
    paths
}

/// Values that mean something to one of the types, or are easily mistaken for such values.
fn stock(case: &Case, tape: &mut Tape<'_>) -> Vec<Bson> {
    let mut stock = Vec::new();
    for form in
        case.model.subjects.iter().map(|kind| kind.form).chain(case.model.resources.iter().map(|kind| kind.form))
    {
        for number in 0..4 {
            let text = id_text(form, number);
            stock.push(id_value(form, number));
            stock.push(Bson::Symbol(text.clone()));
            for format in ["k:{id}", "_{id}$", "{id}"] {
                stock.push(format.replace("{id}", &text).into());
                stock.push(format.replace("{id}", &text.to_uppercase()).into());
                let mixed: String = text.chars().enumerate().map(|(at, c)| mixed(at, c)).collect();
                stock.push(format.replace("{id}", &mixed).into());
            }
        }
    }
    let names =
        case.model.subjects.iter().map(|kind| kind.name).chain(case.model.resources.iter().map(|kind| kind.name));
    stock.extend(names.map(Bson::from));
    stock.extend(["User", "Set", "other", "rel0", "rel1", "perm0", "*", "", "k:", "k:*", "_$", "_*$"].map(Bson::from));
    stock.extend([
        Bson::Symbol("*".into()),
        Bson::Symbol(String::new()),
        Bson::Symbol("on".into()),
        "x".repeat(1_025).into(),
    ]);
    stock.extend(["on", "off", "new"].map(Bson::from));
    stock.extend([
        Bson::Double(1.0),
        Bson::Double(1.5),
        Bson::Double(2.0),
        Bson::Double(-0.0),
        Bson::Int32(0),
        Bson::Int32(2),
    ]);
    stock.extend(["0", "1.0", "2.5", "1E+3", "NaN"].map(|text| Bson::Decimal128(text.parse().expect("a decimal"))));
    stock.extend([
        true.into(),
        false.into(),
        Bson::Null,
        Bson::Undefined,
        Bson::Array(Vec::new()),
        Document::new().into(),
    ]);
    for step in [-1_000_i64, -1, 0, 1, 1_000] {
        let millis = case.now + step;
        let double: f64 = millis.to_string().parse().expect("a number");
        stock.extend([
            Bson::Double(double + 0.25),
            Bson::Double(double / 1_000.0),
            Bson::Double(double / 1_000.0 + 0.0002),
        ]);
        let date = DateTime::from_millis(millis);
        stock.extend([date.into(), Bson::Int64(millis), Bson::Int64(millis / 1_000), millis_as_seconds(millis)]);
        stock.push(date.try_to_rfc3339_string().expect("a date").into());
    }
    stock.extend([
        Bson::Int64(253_402_300_800),
        Bson::Double(f64::NAN),
        Bson::Double(f64::INFINITY),
        Bson::Int64(i64::MIN),
    ]);
    let all = values::all();
    stock.extend((0..6).map(|_| all[tape.below(all.len())].clone()));
    stock
}

fn mixed(at: usize, letter: char) -> char {
    if at.is_multiple_of(2) { letter.to_ascii_uppercase() } else { letter }
}

fn millis_as_seconds(millis: i64) -> Bson {
    format!("{}.{:03}", millis / 1_000, millis % 1_000).parse().map_or(Bson::Null, Bson::Decimal128)
}

/// Replaces the value at a path. On the way there may be documents, arrays of documents, and other values.
fn plant(document: &mut Document, parts: &[&str], values: &[Bson], tape: &mut Tape<'_>) {
    let Some((first, rest)) = parts.split_first() else { return };
    if tape.rarely(8) {
        document.remove(first);
        return;
    }
    if rest.is_empty() {
        document.insert(*first, value(values, tape));
        return;
    }
    match tape.below(8) {
        0..=3 => {
            let mut inner = document.get_document(first).cloned().unwrap_or_default();
            plant(&mut inner, rest, values, tape);
            document.insert(*first, inner);
        }
        4..=6 => {
            let mut items = document.get_array(first).cloned().unwrap_or_default();
            items.truncate(tape.below(3));
            for _ in 0..=tape.below(2) {
                let mut inner = match items.last() {
                    Some(Bson::Document(inner)) => inner.clone(),
                    _ => document.get_document(first).cloned().unwrap_or_default(),
                };
                plant(&mut inner, rest, values, tape);
                let inner = Bson::Document(inner);
                items.push(if tape.rarely(10) { Bson::Array(vec![inner]) } else { inner });
            }
            if tape.rarely(15) {
                items.push(value(values, tape));
            }
            document.insert(*first, items);
        }
        _ => {
            document.insert(*first, value(values, tape));
        }
    }
}

/// A value of the stock, or an array of some.
fn value(values: &[Bson], tape: &mut Tape<'_>) -> Bson {
    let one = |tape: &mut Tape<'_>| {
        let first = tape.below(values.len());
        // One byte cannot choose among more than 256 values.
        values[(first + tape.below(2) * 7) % values.len()].clone()
    };
    match tape.below(10) {
        0..=5 => one(tape),
        6..=8 => Bson::Array((0..tape.below(4)).map(|_| one(tape)).collect()),
        _ => Bson::Array(vec![one(tape), Bson::Array(vec![one(tape)])]),
    }
}
