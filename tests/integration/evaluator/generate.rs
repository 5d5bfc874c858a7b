//! Generates random schemas, documents and questions from tapes: lists of random bytes, each of which makes one choice.
//!
//! The byte zero always makes the simplest choice, and so does the end of a tape. Proptest shrinks the bytes, and removes
//! whole tapes: relations, permissions, documents and questions. The generator does not know whether a schema is valid.

pub mod cycles;
mod documents;
mod tape;

use std::{collections::BTreeMap, fmt};

use bson::{
    Binary, Bson, Document,
    oid::ObjectId,
    spec::{BinarySubtype, ElementType},
};
use permcached::{
    question::IdForm,
    schema::{BitTest, Comparison, Condition, Element, Mask, Path, Test},
};
use proptest::{collection::vec, prelude::*};

pub use self::tape::Tape;
use super::model::{Expression, Model, Permission, Relation, ResourceType, SubjectType, Target};

/// The first of all dates, in milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_790_000_000_000;
/// The distance between two dates.
const STEP_MS: i64 = 1_000;
/// The number of dates.
const DATES: u8 = 7;
/// Forms of ids as text.
const FORMATS: [&str; 3] = ["{id}", "k:{id}", "_{id}$"];
/// The number of ids of each type.
const IDS: usize = 3;

/// A schema, documents and questions.
pub struct Case {
    pub model: Model,
    pub collections: BTreeMap<String, Vec<Document>>,
    pub questions: Vec<Asked>,
    pub now: i64,
    /// Which facts are available if not all are: those for which the byte is at least 128.
    pub available: Vec<u8>,
}

/// A question. Ids are numbers: see [`id_text`].
#[derive(Debug)]
pub struct Asked {
    pub subject: Option<(&'static str, usize)>,
    pub permission: String,
    pub resource: (&'static str, usize),
}

pub fn case() -> impl Strategy<Value = Case> {
    tapes().prop_map(|tapes| tapes.case(|_| {}))
}

/// A case whose schema is changed before documents are generated for it.
pub fn case_of(change: fn(&mut Model, &mut Tape<'_>)) -> impl Strategy<Value = Case> {
    (tapes(), vec(any::<u8>(), 120))
        .prop_map(move |(tapes, bytes)| tapes.case(|model| change(model, &mut Tape::new(&bytes))))
}

/// The tapes of a case.
#[derive(Debug)]
struct Tapes {
    types: Vec<u8>,
    relations: Vec<Vec<u8>>,
    permissions: Vec<Vec<u8>>,
    of_subjects: Vec<Vec<u8>>,
    documents: Vec<Vec<u8>>,
    questions: Vec<Vec<u8>>,
    now: u8,
    available: Vec<u8>,
}

fn tapes() -> impl Strategy<Value = Tapes> {
    let tape = |length: usize| vec(any::<u8>(), length);
    let schema = (tape(24), vec(tape(32), 2..=14), vec(tape(24), 2..=9));
    let of_subjects = vec(tape(32), 0..=4);
    let rest = (vec(tape(80), 4..=28), vec(tape(7), 1..=8), any::<u8>(), tape(32));
    (schema, of_subjects, rest).prop_map(|((types, relations, permissions), of_subjects, rest)| {
        let (documents, questions, now, available) = rest;
        Tapes { types, relations, permissions, of_subjects, documents, questions, now, available }
    })
}

impl Tapes {
    fn case(self, change: impl FnOnce(&mut Model)) -> Case {
        let mut model = model(&self.types, &self.of_subjects, &self.relations, &self.permissions);
        change(&mut model);
        let collections = documents::documents(&model, &self.documents);
        let questions = self.questions.iter();
        let questions = questions.filter_map(|tape| asked(&model, &collections, &mut Tape::new(tape))).collect();
        let now = date(&mut Tape::new(&[self.now])) + i64::from(self.now % 3) - 1;
        Case { model, collections, questions, now, available: self.available }
    }
}

impl Case {
    pub fn subject_form(&self, name: &str) -> IdForm {
        self.model.subject(name).expect("a subject type of the model").form
    }

    pub fn resource_form(&self, name: &str) -> IdForm {
        self.model.resource(name).expect("a resource type of the model").form
    }
}

/// Shows everything except the questions: the failure names the question that failed.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\nnow: {}", self.model, Bson::from(bson::DateTime::from_millis(self.now)))?;
        for (name, documents) in &self.collections {
            for document in documents {
                writeln!(f, "{name}: {}", Bson::from(document.clone()).into_relaxed_extjson())?;
            }
        }
        Ok(())
    }
}

/// One of the ids of a type, as a request writes it.
pub fn id_text(form: IdForm, number: usize) -> String {
    match form {
        IdForm::ObjectId => format!("65f00000000000000000000{number:x}"),
        IdForm::String => format!("s{number}"),
        IdForm::Integer => number.to_string(),
        IdForm::Uuid => format!("123e4567-e89b-12d3-a456-42661417400{number:x}"),
    }
}

/// The same id in a document.
pub fn id_value(form: IdForm, number: usize) -> Bson {
    let text = id_text(form, number);
    match form {
        IdForm::ObjectId => Bson::ObjectId(ObjectId::parse_str(text).expect("24 hex digits")),
        IdForm::String => Bson::String(text),
        IdForm::Integer => Bson::Int64(i64::try_from(number).expect("a small number")),
        IdForm::Uuid => {
            let uuid = bson::Uuid::parse_str(text).expect("a UUID");
            Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: uuid.bytes().to_vec() })
        }
    }
}

/// All dates that documents contain.
pub fn dates() -> impl Iterator<Item = i64> {
    (0..DATES).map(|number| EPOCH_MS + STEP_MS * i64::from(number))
}

fn date(tape: &mut Tape<'_>) -> i64 {
    dates().nth(tape.below(DATES.into())).expect("a date")
}

/// A question, mostly about documents that exist.
fn asked(model: &Model, collections: &BTreeMap<String, Vec<Document>>, tape: &mut Tape<'_>) -> Option<Asked> {
    let id = |collection: Option<&str>, form: IdForm, tape: &mut Tape<'_>| {
        let exists = |number: &usize| {
            let id = id_value(form, *number);
            let documents = collection.and_then(|name| collections.get(name));
            documents.is_none_or(|documents| documents.iter().any(|document| document.get("_id") == Some(&id)))
        };
        let existing: Vec<usize> = (0..IDS).filter(exists).collect();
        if tape.rarely(12) || existing.is_empty() { tape.id() } else { existing[tape.below(existing.len())] }
    };
    let public = |kind: &&ResourceType| kind.permissions.iter().any(|permission| !permission.is_private);
    let kinds: Vec<_> = model.resources.iter().filter(public).collect();
    let kind = kinds.get(tape.below(kinds.len()))?;
    let permissions: Vec<_> = kind.permissions.iter().filter(|permission| !permission.is_private).collect();
    let permission = permissions.get(tape.below(permissions.len()))?.name.clone();
    let resource = (kind.name, id(kind.collection, kind.form, tape));
    let subject = (!tape.rarely(8)).then(|| {
        let kind = if tape.rarely(35) { &model.subjects[tape.below(model.subjects.len())] } else { &model.subjects[0] };
        (kind.name, id(kind.collection, kind.form, tape))
    });
    Some(Asked { subject, permission, resource })
}

fn model(types: &[u8], of_subjects: &[Vec<u8>], relations: &[Vec<u8>], permissions: &[Vec<u8>]) -> Model {
    let mut tape = Tape::new(types);
    let mut model = Model { subjects: subjects(&mut tape), resources: resources(&mut tape) };
    for tape in of_subjects {
        add_relation_of_subject(&mut model, &mut Tape::new(tape));
    }
    // All names come first, so that every expression can name every member.
    let mut relation_tapes = vec![Vec::new(); model.resources.len()];
    for tape in relations {
        let mut tape = Tape::new(tape);
        let at = tape.below(model.resources.len());
        let names = &mut model.resources[at].relations;
        // The first relation of a type is not an edge, so that permissions have something to name.
        let name = if !names.is_empty() && tape.rarely(35) { "edge" } else { "rel" };
        names.push(Relation { name: format!("{name}{}", names.len()), ..Relation::default() });
        relation_tapes[at].push(tape);
    }
    for (resource, tapes) in model.resources.iter_mut().zip(&mut relation_tapes) {
        if resource.relations.is_empty() {
            resource.relations.push(Relation { name: "rel0".to_owned(), ..Relation::default() });
            tapes.push(Tape::new(&[]));
        }
    }
    let mut permission_tapes = vec![Vec::new(); model.resources.len()];
    for tape in permissions {
        let mut tape = Tape::new(tape);
        let at = tape.below(model.resources.len());
        let names = &mut model.resources[at].permissions;
        let is_private = !names.is_empty() && tape.rarely(20);
        let meaning = Expression::Member("rel0".to_owned());
        names.push(Permission { name: format!("perm{}", names.len()), meaning, is_private });
        permission_tapes[at].push(tape);
    }
    for (at, tapes) in relation_tapes.iter_mut().enumerate() {
        for (place, tape) in tapes.iter_mut().enumerate() {
            let name = model.resources[at].relations[place].name.clone();
            model.resources[at].relations[place] = relation(&model, at, name, tape);
        }
    }
    for (at, tapes) in permission_tapes.iter_mut().enumerate() {
        for (place, tape) in tapes.iter_mut().enumerate() {
            let position = Position { depth: 0, is_under: false, may_recur: false };
            model.resources[at].permissions[place].meaning = Meaning { model: &model, at, place }.of(tape, position);
        }
    }
    for resource in &mut model.resources {
        add_late(resource);
    }
    model
}

/// Gives each permission a twin with the same meaning, but with much work before it that has no effect: after that many
/// steps the crate memoizes values.
fn add_late(resource: &mut ResourceType) {
    let any_of = |names: Vec<String>| Expression::Or(names.into_iter().map(Expression::Member).collect());
    let permission = |name: String, is_private, meaning| Permission { name, meaning, is_private };
    let twins = resource.permissions.iter();
    let twins = twins.map(|twin| (format!("late_{}", twin.name), vec!["work".to_owned(), twin.name.clone()]));
    let mut late: Vec<_> = twins.map(|(name, sides)| permission(name, false, any_of(sides))).collect();
    for (name, part) in [("task", "nothing"), ("work", "task")] {
        late.push(permission(name.to_owned(), true, any_of(vec![part.to_owned(); 8])));
    }
    resource.permissions.extend(late);
    resource.relations.push(Relation {
        name: "nothing".to_owned(),
        lookup: Some(("nothing", format!("of_{}", resource.name))),
        ..Relation::default()
    });
}

fn subjects(tape: &mut Tape<'_>) -> Vec<SubjectType> {
    let count = 1 + tape.below(3);
    let names = ["user", "link", "bot"].into_iter().take(count);
    let one = |name| {
        let form = if tape.rarely(60) { IdForm::ALL[tape.below(4)] } else { IdForm::ObjectId };
        let is_secret = name == "link" && form == IdForm::String;
        let collection = match name {
            "user" if tape.rarely(50) => Some("users"),
            "bot" if tape.rarely(30) => Some("bots"),
            _ => None,
        };
        let condition = (collection.is_some() && tape.rarely(60)).then(|| leaf(tape));
        let date = |path: &str, percent, tape: &mut Tape<'_>| {
            (collection.is_some() && tape.rarely(percent)).then(|| path.to_owned())
        };
        let (since, until) = (date("since", 15, tape), date("until", 20, tape));
        SubjectType { name, form, is_secret, collection, condition, since, until, relations: Vec::new() }
    };
    names.map(one).collect()
}

fn resources(tape: &mut Tape<'_>) -> Vec<ResourceType> {
    let count = 2 + tape.below(3);
    let names = [("doc", "docs"), ("folder", "folders"), ("group", "groups"), ("org", "orgs")].into_iter().take(count);
    let one = |(name, collection)| {
        let form = if tape.rarely(60) { IdForm::ALL[tape.below(4)] } else { IdForm::ObjectId };
        let collection = (!tape.rarely(25)).then_some(collection);
        let condition = (collection.is_some() && tape.rarely(30)).then(|| leaf(tape));
        ResourceType { name, form, collection, condition, relations: Vec::new(), permissions: Vec::new() }
    };
    names.map(one).collect()
}

/// Gives a subject type that is not secret one more relation.
fn add_relation_of_subject(model: &mut Model, tape: &mut Tape<'_>) {
    let open: Vec<usize> = (0..model.subjects.len()).filter(|at| !model.subjects[*at].is_secret).collect();
    let Some(at) = open.get(if tape.rarely(35) { tape.below(open.len()) } else { 0 }) else { return };
    let kind = &model.subjects[*at];
    let number = kind.relations.len();
    let mut relation = Relation::default();
    if kind.collection.is_none() || tape.rarely(40) {
        let collection = ["shares", "tuples", "docs"][tape.below(3)];
        relation.lookup = Some((collection, format!("{}{}", ["of_", "ref."][tape.below(2)], kind.name)));
    }
    relation.each = tape.rarely(30).then(|| ["people", "meta.people"][tape.below(2)].to_owned());
    if tape.rarely(60) {
        let end = model.resources[tape.below(model.resources.len())].name;
        relation.targets = vec![Target::Resource(end)];
        relation.field = Some(format!("{}{end}", ["", "all_", "meta."][tape.below(3)]));
    }
    relation.name = format!("{}{number}", if relation.field.is_some() { "leads" } else { "flag" });
    let has_to = relation.field.is_none() && relation.each.is_none() && relation.lookup.is_none();
    if has_to || tape.rarely(70) {
        relation.condition = Some(condition(tape));
    }
    relation.until = tape.rarely(30).then(|| "until".to_owned());
    relation.since = tape.rarely(15).then(|| "since".to_owned());
    relation.required = (relation.until.is_some() || relation.since.is_some()) && tape.rarely(25);
    model.subjects[*at].relations.push(relation);
}

/// The relations of subjects that lead to a resource type: the types and the names.
fn leading_to(model: &Model, end: &'static str) -> Vec<(&'static str, String)> {
    let subjects = model.subjects.iter();
    let leads = subjects.flat_map(|kind| kind.relations.iter().map(move |relation| (kind.name, relation)));
    let here = leads.filter(|(_, relation)| relation.targets == [Target::Resource(end)]);
    here.map(|(kind, relation)| (kind, relation.name.clone())).collect()
}

/// One relation of the type at `at`.
fn relation(model: &Model, at: usize, name: String, tape: &mut Tape<'_>) -> Relation {
    let kind = &model.resources[at];
    let is_edge = name.starts_with("edge");
    let mut of = leading_to(model, kind.name);
    if !is_edge && !of.is_empty() && tape.rarely(50) {
        of.truncate(1 + tape.below(of.len()));
        return Relation { name, of, ..Relation::default() };
    }
    let mut relation = Relation { name, ..Relation::default() };
    if kind.collection.is_none() || tape.rarely(45) {
        let others = model.resources.iter().filter_map(|other| other.collection).filter(|_| tape.rarely(15));
        let collection = others.last().unwrap_or(["shares", "tuples"][tape.below(2)]);
        let by =
            if tape.rarely(5) { "_id".to_owned() } else { format!("{}{}", ["of_", "ref."][tape.below(2)], kind.name) };
        relation.lookup = Some((collection, by));
        relation.by_format = tape.rarely(20).then(|| FORMATS[tape.below(FORMATS.len())]);
    }
    relation.each = tape.rarely(25).then(|| ["people", "meta.people"][tape.below(2)].to_owned());
    if is_edge {
        let end = &model.resources[tape.below(model.resources.len())];
        relation.targets = vec![Target::Resource(end.name)];
        relation.must_exist = end.collection.is_some() && tape.rarely(25);
    } else if !tape.rarely(25) {
        add_targets(model, &mut relation, tape);
    }
    if let Some(target) = relation.targets.first() {
        let (Target::Subject(name) | Target::Set(name, _) | Target::Resource(name)) = target;
        let name = if relation.subject_type.is_some() { "holder" } else { name };
        relation.field = Some(format!("{}{name}", ["", "all_", "meta.", "people."][tape.below(4)]));
        relation.format = tape.rarely(20).then(|| FORMATS[tape.below(FORMATS.len())]);
    }
    let has_to = relation.field.is_none() && relation.each.is_none() && relation.lookup.is_none();
    if has_to || tape.rarely(40) {
        relation.condition = Some(condition(tape));
    }
    if relation.each.is_some() && tape.rarely(40) {
        relation.document_condition = Some(condition(tape));
    }
    relation.until = tape.rarely(45).then(|| ["until", "meta.until"][tape.below(2)].to_owned());
    relation.since = tape.rarely(20).then(|| "since".to_owned());
    relation.unit = tape.rarely(15).then(|| ["seconds", "milliseconds", "iso8601"][tape.below(3)]);
    relation.required = (relation.until.is_some() || relation.since.is_some()) && tape.rarely(25);
    relation
}

/// Gives a relation that is neither an edge nor a flag its targets.
fn add_targets(model: &Model, relation: &mut Relation, tape: &mut Tape<'_>) {
    let set = |tape: &mut Tape<'_>| {
        let kind = &model.resources[tape.below(model.resources.len())];
        let relations = kind.relations.iter().map(|relation| &relation.name).filter(|name| name.starts_with("rel"));
        let permissions = kind.permissions.iter().map(|permission| &permission.name).filter(|_| tape.rarely(30));
        let names: Vec<_> = relations.chain(permissions).collect();
        Target::Set(kind.name, names[tape.below(names.len())].clone())
    };
    let is_polymorphic = tape.rarely(30);
    let count = if is_polymorphic { 1 + tape.below(3) } else { 1 };
    let has_relation = is_polymorphic && tape.rarely(60);
    for _ in 0..count {
        let target = if tape.rarely(35) {
            set(tape)
        } else {
            Target::Subject(model.subjects[tape.below(model.subjects.len())].name)
        };
        let is_repeated = relation.targets.iter().any(|other| match (other, &target) {
            (Target::Set(a, _), Target::Set(b, _)) => a == b && !has_relation || *other == target,
            _ => *other == target,
        });
        if !is_repeated {
            relation.targets.push(target);
        }
    }
    relation.subject_type = is_polymorphic.then(|| ["kind", "meta.kind"][tape.below(2)].to_owned());
    relation.subject_relation = has_relation.then(|| "role".to_owned());
    if is_polymorphic && tape.rarely(40) {
        relation.type_values = ["User", "Set", "other"].into_iter().take(relation.targets.len()).collect();
    }
    // A wildcard is valid only if one of the targets is a type of subjects.
    let leads_to_subjects = relation.targets.iter().any(|target| matches!(target, Target::Subject(_)));
    relation.wildcard = tape.rarely(20) && leads_to_subjects;
}

/// A condition on documents. Each field has its own type, see `documents`.
fn condition(tape: &mut Tape<'_>) -> Condition {
    if tape.rarely(25) {
        let both = vec![leaf(tape), leaf(tape)];
        return if tape.rarely(50) { Condition::Or(both) } else { Condition::And(both) };
    }
    leaf(tape)
}

fn leaf(tape: &mut Tape<'_>) -> Condition {
    let path = |text: &str| Path::parse(text).expect("a path");
    let test = |name: &str, test: Test| Condition::Field(path(name), test);
    if tape.rarely(25) {
        return array_leaf(tape);
    }
    match tape.below(12) {
        0..=3 => test("gone", Test::Ne(true.into())),
        4 => test("gone", Test::Eq(true.into())),
        5 => test("state", Test::In(vec!["on".into(), "new".into()])),
        6 => test("state", Test::Nin(vec!["off".into(), Bson::Null])),
        7 => test("meta.level", Test::Compare(Comparison::Gte, 2.into())),
        8 => test("level", Test::Not(vec![Test::Compare(Comparison::Lt, 2.into())])),
        9 => test("meta.level", Test::Eq(Bson::Null)),
        10 => test("state", Test::Exists(true)),
        _ => Condition::Expr(Comparison::Lt, path("level"), path("meta.level")),
    }
}

/// A test of arrays, bits or types.
fn array_leaf(tape: &mut Tape<'_>) -> Condition {
    let path = |text: &str| Path::parse(text).expect("a path");
    let test = |name: &str, test: Test| Condition::Field(path(name), test);
    let is_on = || Condition::Field(path("state"), Test::Eq("on".into()));
    let is_high = || Condition::Field(path("level"), Test::Compare(Comparison::Gte, 2.into()));
    let document = |condition: Condition| Element::Document(Box::new(condition));
    match tape.below(10) {
        0 => test("marks", Test::Element(document(Condition::And(vec![is_on(), is_high()])))),
        1 => test("marks", Test::Not(vec![Test::Element(document(is_on()))])),
        2 => test("marks", Test::AllElements(vec![document(is_on()), document(is_high())])),
        3 => test(
            "scores",
            Test::Element(Element::Value(vec![Test::Ne(2.into()), Test::Compare(Comparison::Lt, 3.into())])),
        ),
        4 => test("scores", Test::All(vec![1.into(), 2.into()])),
        5 => test("scores", Test::Not(vec![Test::Size(2)])),
        6 => test("marks", Test::Size(1)),
        7 => {
            let tests = [BitTest::AllSet, BitTest::AnySet, BitTest::AllClear, BitTest::AnyClear];
            let bits = Test::Bits(tests[tape.below(4)], Mask::of_number(3));
            let name = ["level", "scores", "meta.level"][tape.below(3)];
            test(name, if tape.rarely(30) { Test::Not(vec![bits]) } else { bits })
        }
        8 => test("level", Test::Type(vec![ElementType::Int32, ElementType::Double])),
        _ => test("state", Test::Type(vec![ElementType::String])),
    }
}

/// Generates the meaning of one permission.
struct Meaning<'a> {
    model: &'a Model,
    at: usize,
    place: usize,
}

/// The position of an expression in a meaning.
#[derive(Clone, Copy)]
struct Position {
    depth: usize,
    is_under: bool,
    /// Whether another side of an `|` can grant the permission, so that this one may lead back to the same permission.
    may_recur: bool,
}

impl Meaning<'_> {
    fn of(&self, tape: &mut Tape<'_>, position: Position) -> Expression {
        let Position { depth, is_under, may_recur } = position;
        let inside = Position { depth: depth + 1, ..position };
        if depth < 3 && tape.rarely(if is_under { 20 } else { 65 }) {
            let count = 2 + tape.below(2);
            return if tape.below(2) == 0 {
                let sides = (0..count).map(|at| self.of(tape, Position { may_recur: may_recur || at > 0, ..inside }));
                Expression::Or(sides.collect())
            } else {
                Expression::And((0..count).map(|_| self.of(tape, inside)).collect())
            };
        }
        if tape.rarely(if is_under { 25 } else { 30 }) {
            return Expression::Not(Box::new(self.of(tape, Position { is_under: true, ..inside })));
        }
        self.name(tape, position)
    }

    fn name(&self, tape: &mut Tape<'_>, Position { is_under, may_recur, .. }: Position) -> Expression {
        let kind = &self.model.resources[self.at];
        let (edges, relations): (Vec<_>, Vec<_>) = kind.relations.iter().partition(|relation| relation.is_edge());
        if !edges.is_empty() && tape.rarely(50) {
            let edge = edges[tape.below(edges.len())];
            let Some(Target::Resource(end)) = edge.targets.first() else { unreachable!("an edge leads to a resource") };
            let end = self.model.resource(end).expect("a resource type of the model");
            let relations = end.relations.iter().filter(|relation| !relation.is_edge()).map(|relation| &relation.name);
            let permissions = end.permissions.iter().map(|permission| &permission.name);
            let wants_permission = may_recur && tape.rarely(if is_under { 10 } else { 70 });
            let names: Vec<_> = if wants_permission && !end.permissions.is_empty() {
                permissions.collect()
            } else {
                relations.collect()
            };
            return Expression::Walk(edge.name.clone(), names[tape.below(names.len())].clone());
        }
        let flags: Vec<&str> = self
            .model
            .subjects
            .iter()
            .flat_map(|kind| &kind.relations)
            .filter(|relation| relation.field.is_none())
            .map(|relation| relation.name.as_str())
            .collect();
        if !flags.is_empty() && tape.rarely(20) {
            return Expression::SubjectFlag(flags[tape.below(flags.len())].to_owned());
        }
        // Only permissions that come before this one, so that there are no cycles.
        if self.place > 0 && tape.rarely(if is_under { 20 } else { 25 }) {
            return Expression::Member(kind.permissions[tape.below(self.place)].name.clone());
        }
        Expression::Member(relations[tape.below(relations.len())].name.clone())
    }
}
