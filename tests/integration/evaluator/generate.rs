//! Random schemas, documents and questions, made of tapes: lists of random bytes that say which way each choice goes.
//!
//! A zero is always the plainest choice, and so is whatever stands after a tape's end. Proptest shrinks the bytes, and
//! takes out whole tapes: relations, permissions, documents and questions. Whether a schema is accepted is not known here.

pub mod circles;
mod documents;
mod tape;

use std::{collections::BTreeMap, fmt};

use bson::{Binary, Bson, Document, oid::ObjectId, spec::BinarySubtype};
use permcached::{
    question::IdForm,
    schema::{Comparison, Condition, Path, Test},
};
use proptest::{collection::vec, prelude::*};

use self::tape::Tape;
use super::model::{Expression, Model, Permission, Relation, ResourceType, SubjectType, Target};

/// The time around which all dates lie.
const EPOCH_MS: i64 = 1_790_000_000_000;
/// How far dates lie apart.
const STEP_MS: i64 = 1_000;
/// How many dates there are.
const DATES: u8 = 7;
/// How many ids each type has.
const IDS: usize = 3;

/// A schema, documents, and what is asked.
pub struct Case {
    pub model: Model,
    pub collections: BTreeMap<String, Vec<Document>>,
    pub questions: Vec<Asked>,
    pub now: i64,
    /// Which facts are at hand, where not all are.
    pub hands: Vec<u8>,
}

/// A question. Ids are numbers: see [`id_text`].
#[derive(Debug)]
pub struct Asked {
    pub subject: Option<(&'static str, usize)>,
    pub permission: String,
    pub resource: (&'static str, usize),
}

pub fn case() -> impl Strategy<Value = Case> {
    let tape = |length: usize| vec(any::<u8>(), length);
    let schema = (tape(24), vec(tape(32), 2..=14), vec(tape(24), 2..=9));
    let rest = (vec(tape(48), 4..=28), vec(tape(7), 1..=8), any::<u8>(), tape(32));
    (schema, rest).prop_map(|((types, relations, permissions), (documents, questions, now, hands))| {
        let model = model(&types, &relations, &permissions);
        let collections = documents::documents(&model, &documents);
        let questions = questions.iter().filter_map(|tape| asked(&model, &collections, &mut Tape::new(tape))).collect();
        let now = date(&mut Tape::new(&[now])) + i64::from(now % 3) - 1;
        Case { model, collections, questions, now, hands }
    })
}

impl Case {
    pub fn subject_form(&self, name: &str) -> IdForm {
        self.model.subject(name).expect("a subject type of the model").form
    }

    pub fn resource_form(&self, name: &str) -> IdForm {
        self.model.resource(name).expect("a resource type of the model").form
    }
}

/// All but the questions: the one that failed is told with the failure.
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

/// The same as a document has it.
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

/// All dates that documents have.
pub fn dates() -> impl Iterator<Item = i64> {
    (0..DATES).map(|number| EPOCH_MS + STEP_MS * i64::from(number))
}

fn date(tape: &mut Tape<'_>) -> i64 {
    dates().nth(tape.below(DATES.into())).expect("a date")
}

/// A question, mostly about what is there.
fn asked(model: &Model, collections: &BTreeMap<String, Vec<Document>>, tape: &mut Tape<'_>) -> Option<Asked> {
    let id = |collection: Option<&str>, form: IdForm, tape: &mut Tape<'_>| {
        let is_there = |number: &usize| {
            let id = id_value(form, *number);
            let documents = collection.and_then(|name| collections.get(name));
            documents.is_none_or(|documents| documents.iter().any(|document| document.get("_id") == Some(&id)))
        };
        let there: Vec<usize> = (0..IDS).filter(is_there).collect();
        if tape.rarely(12) || there.is_empty() { tape.id() } else { there[tape.below(there.len())] }
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

fn model(types: &[u8], relations: &[Vec<u8>], permissions: &[Vec<u8>]) -> Model {
    let mut tape = Tape::new(types);
    let mut model = Model { subjects: subjects(&mut tape), resources: resources(&mut tape) };
    // Names come first, so that everything can be named by everything.
    let mut relation_tapes = vec![Vec::new(); model.resources.len()];
    for tape in relations {
        let mut tape = Tape::new(tape);
        let at = tape.below(model.resources.len());
        let names = &mut model.resources[at].relations;
        // The first relation of a type is no edge, so that permissions have something to name.
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
            let stand = Stand { depth: 0, is_under: false, may_recur: false };
            model.resources[at].permissions[place].meaning = Meaning { model: &model, at, place }.of(tape, stand);
        }
    }
    for resource in &mut model.resources {
        add_late(resource);
    }
    model
}

/// Gives each permission a twin that means the same, but only after much work that comes to
/// nothing: from so many steps on, the crate remembers values.
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
        SubjectType { name, form, is_secret, collection, condition }
    };
    names.map(one).collect()
}

fn resources(tape: &mut Tape<'_>) -> Vec<ResourceType> {
    let count = 2 + tape.below(3);
    let names = [("doc", "docs"), ("folder", "folders"), ("group", "groups"), ("org", "orgs")].into_iter().take(count);
    let one = |(name, collection)| {
        let form = if tape.rarely(60) { IdForm::ALL[tape.below(4)] } else { IdForm::ObjectId };
        let collection = (!tape.rarely(25)).then_some(collection);
        ResourceType { name, form, collection, relations: Vec::new(), permissions: Vec::new() }
    };
    names.map(one).collect()
}

/// One relation of the type at `at`.
fn relation(model: &Model, at: usize, name: String, tape: &mut Tape<'_>) -> Relation {
    let kind = &model.resources[at];
    let is_edge = name.starts_with("edge");
    let mut relation = Relation { name, ..Relation::default() };
    if kind.collection.is_none() || tape.rarely(45) {
        let others = model.resources.iter().filter_map(|other| other.collection).filter(|_| tape.rarely(15));
        let collection = others.last().unwrap_or(["shares", "tuples"][tape.below(2)]);
        let by =
            if tape.rarely(5) { "_id".to_owned() } else { format!("{}{}", ["of_", "ref."][tape.below(2)], kind.name) };
        relation.lookup = Some((collection, by));
    }
    relation.each = tape.rarely(25).then(|| ["people", "meta.people"][tape.below(2)].to_owned());
    if is_edge {
        relation.targets = vec![Target::Resource(model.resources[tape.below(model.resources.len())].name)];
    } else if !tape.rarely(25) {
        leads(model, &mut relation, tape);
    }
    if let Some(target) = relation.targets.first() {
        let (Target::Subject(name) | Target::Set(name, _) | Target::Resource(name)) = target;
        let name = if relation.subject_type.is_some() { "holder" } else { name };
        relation.field = Some(format!("{}{name}", ["", "all_", "meta.", "people."][tape.below(4)]));
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
    relation.required = (relation.until.is_some() || relation.since.is_some()) && tape.rarely(25);
    relation
}

/// To whom a relation that is no edge and no flag leads.
fn leads(model: &Model, relation: &mut Relation, tape: &mut Tape<'_>) {
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
    // Only where it can mean somebody: the schema says so.
    let leads_to_subjects = relation.targets.iter().any(|target| matches!(target, Target::Subject(_)));
    relation.wildcard = tape.rarely(20) && leads_to_subjects;
}

/// What documents are tested for. Each field has its own type, see `documents`.
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

/// Makes the meaning of one permission.
struct Meaning<'a> {
    model: &'a Model,
    at: usize,
    place: usize,
}

/// Where in a meaning something stands.
#[derive(Clone, Copy)]
struct Stand {
    depth: usize,
    is_under: bool,
    /// Whether something beside it can grant the permission, so that it may lead back to the same one.
    may_recur: bool,
}

impl Meaning<'_> {
    fn of(&self, tape: &mut Tape<'_>, stand: Stand) -> Expression {
        let Stand { depth, is_under, may_recur } = stand;
        let inside = Stand { depth: depth + 1, ..stand };
        if depth < 3 && tape.rarely(if is_under { 20 } else { 65 }) {
            let count = 2 + tape.below(2);
            return if tape.below(2) == 0 {
                let sides = (0..count).map(|at| self.of(tape, Stand { may_recur: may_recur || at > 0, ..inside }));
                Expression::Or(sides.collect())
            } else {
                Expression::And((0..count).map(|_| self.of(tape, inside)).collect())
            };
        }
        if tape.rarely(if is_under { 25 } else { 30 }) {
            return Expression::Not(Box::new(self.of(tape, Stand { is_under: true, ..inside })));
        }
        self.name(tape, stand)
    }

    fn name(&self, tape: &mut Tape<'_>, Stand { is_under, may_recur, .. }: Stand) -> Expression {
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
        // Only permissions that stand before: none may run in circles.
        if self.place > 0 && tape.rarely(if is_under { 20 } else { 25 }) {
            return Expression::Member(kind.permissions[tape.below(self.place)].name.clone());
        }
        Expression::Member(relations[tape.below(relations.len())].name.clone())
    }
}
