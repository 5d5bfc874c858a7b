//! Random graphs of a few groups that contain each other, with one schema: many cycles, reached by several paths.
//!
//! The schema itself is fixed.

use std::collections::BTreeMap;

use bson::{Bson, DateTime, Document, doc};
use permcached::{
    question::IdForm,
    schema::{Condition, Path, Test},
};
use proptest::{arbitrary::any as random, collection::vec, strategy::Strategy};

use super::{Asked, Case, Tape, add_late, date, dates, id_value};
use crate::evaluator::model::{Expression, Model, Permission, Relation, ResourceType, SubjectType, Target};

/// The maximal number of groups.
const GROUPS: usize = 5;

pub fn case() -> impl Strategy<Value = Case> {
    let groups = vec(vec(random::<u8>(), 24), 1..=GROUPS);
    (groups, vec(vec(random::<u8>(), 3), 1..=6), vec(random::<u8>(), 8)).prop_map(|(groups, questions, available)| {
        let model = model();
        let groups = (0..).zip(&groups).map(|(number, tape)| group(number, &mut Tape::new(tape)));
        let groups: Vec<Document> = groups.collect();
        let questions = questions.iter().map(|tape| asked(&model, groups.len(), &mut Tape::new(tape)));
        let questions = questions.collect();
        let now = dates().nth(3).expect("a date");
        let collections = BTreeMap::from([("groups".to_owned(), groups)]);
        Case { model, collections, questions, now, available }
    })
}

/// Every question about these groups.
pub fn all_of(groups: Vec<Document>) -> Case {
    let model = model();
    let public = model.resources[0].permissions.iter().filter(|permission| !permission.is_private);
    let asked = |permission: &Permission, number| Asked {
        subject: Some(("user", 0)),
        permission: permission.name.clone(),
        resource: ("group", number),
    };
    let questions =
        public.flat_map(|permission| (0..groups.len()).map(move |number| asked(permission, number))).collect();
    let now = dates().nth(3).expect("a date");
    Case {
        model,
        collections: BTreeMap::from([("groups".to_owned(), groups)]),
        questions,
        now,
        available: vec![200, 0, 130],
    }
}

fn asked(model: &Model, groups: usize, tape: &mut Tape<'_>) -> Asked {
    let permissions = &model.resources[0].permissions;
    let public: Vec<_> = permissions.iter().filter(|permission| !permission.is_private).collect();
    let permission = public[tape.below(public.len())].name.clone();
    Asked { subject: Some(("user", 0)), permission, resource: ("group", tape.below(groups)) }
}

/// A group with edges to other groups, and perhaps an owner.
fn group(number: usize, tape: &mut Tape<'_>) -> Document {
    let mut group = doc! { "_id": id_value(IdForm::Integer, number) };
    for (name, percent) in [("next", 35), ("other", 30)] {
        let mut ids = Vec::new();
        for number in 0..GROUPS {
            if tape.rarely(percent) {
                ids.push(id_value(IdForm::Integer, number));
            }
        }
        if tape.rarely(50) {
            ids.reverse();
        }
        group.insert(name, ids);
    }
    if tape.rarely(30) {
        group.insert("owner", id_value(IdForm::String, 0));
        if tape.rarely(50) {
            group.insert("until", DateTime::from_millis(date(tape)));
        }
        if tape.rarely(10) {
            group.insert("until", "never");
        }
    }
    if tape.rarely(40) {
        let values = [Bson::Boolean(true), "true".into(), 1.into()];
        group.insert("gone", values[tape.below(values.len())].clone());
    }
    group
}

fn model() -> Model {
    let relation = |name: &str, field: &str, target: Target| Relation {
        name: name.to_owned(),
        field: Some(field.to_owned()),
        targets: vec![target],
        ..Relation::default()
    };
    let gone = Condition::Field(Path::parse("gone").expect("a path"), Test::Eq(true.into()));
    let relations = vec![
        Relation { until: Some("until".to_owned()), ..relation("owner", "owner", Target::Subject("user")) },
        relation("next", "next", Target::Resource("group")),
        relation("other", "other", Target::Resource("group")),
        relation("member", "next", Target::Set("group", "joined".to_owned())),
        relation("guest", "other", Target::Set("group", "open".to_owned())),
        relation("let_in", "next", Target::Set("group", "let".to_owned())),
        relation("let_out", "other", Target::Set("group", "let".to_owned())),
        Relation { name: "gone".to_owned(), condition: Some(gone), ..Relation::default() },
    ];
    let permissions = [
        ("reach", any([name("owner"), walk("next", "reach")])),
        ("joined", any([name("owner"), name("member")])),
        ("open", all([not(name("gone")), any([name("owner"), walk("next", "open"), walk("other", "open")])])),
        ("both", all([walk("next", "reach"), walk("other", "reach")])),
        ("sets", all([name("member"), name("guest")])),
        ("deep", any([name("both"), walk("next", "deep"), walk("other", "deep")])),
        ("apart", all([walk("other", "open"), not(walk("next", "joined"))])),
        ("dead", any([walk("next", "gone"), not(walk("other", "gone"))])),
        ("sure", all([not(not(walk("next", "open"))), walk("other", "open"), name("reach")])),
        // These reach themselves through a `!`.
        ("let", any([name("owner"), all([name("let_in"), not(name("let_out"))])])),
        ("even", not(walk("next", "odd"))),
        ("odd", any([not(walk("other", "even")), walk("next", "odd")])),
        ("alone", all([not(walk("next", "alone")), any([name("owner"), walk("other", "reach")])])),
        ("barred", any([name("gone"), all([walk("next", "barred"), not(walk("other", "spared"))])])),
        ("spared", any([all([name("owner"), not(walk("next", "barred"))]), walk("other", "spared")])),
        (
            "mixed",
            any([
                all([walk("next", "mixed"), walk("other", "reach")]),
                all([walk("other", "mixed"), name("owner")]),
                name("owner"),
            ]),
        ),
    ];
    let permissions =
        permissions.map(|(name, meaning)| Permission { name: name.to_owned(), meaning, is_private: false });
    let mut group = ResourceType {
        name: "group",
        form: IdForm::Integer,
        collection: Some("groups"),
        condition: None,
        relations,
        permissions: permissions.into(),
    };
    add_late(&mut group);
    let user = SubjectType {
        name: "user",
        form: IdForm::String,
        is_secret: false,
        collection: None,
        condition: None,
        since: None,
        until: None,
        relations: Vec::new(),
    };
    Model { subjects: vec![user], resources: vec![group] }
}

fn name(name: &str) -> Expression {
    Expression::Member(name.to_owned())
}

fn walk(edge: &str, member: &str) -> Expression {
    Expression::Walk(edge.to_owned(), member.to_owned())
}

fn not(inner: Expression) -> Expression {
    Expression::Not(Box::new(inner))
}

fn all(sides: impl Into<Vec<Expression>>) -> Expression {
    Expression::And(sides.into())
}

fn any(sides: impl Into<Vec<Expression>>) -> Expression {
    Expression::Or(sides.into())
}
