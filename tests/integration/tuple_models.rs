//! Models as SpiceDB and OpenFGA have them, in the schema language over one collection of tuples: groups in groups, parents,
//! exclusions, wildcards, intersections.
//!
//! `tuple_models/NAME.toml` is the model. `NAME.txt` holds its tuples, one a line, as SpiceDB writes them
//! (`document:plan#viewer@group:eng#member[expiration:…]`), and between them what is asked and answered:
//! `subject permission resource -> relation` for what is allowed, by which relation, or `-> REASON` for what is denied. All
//! tuples are there before anything is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bson::{DateTime, Document, doc};
use permcached::{
    check::{Checker, Consistency, Settings},
    question::{Answer, Question},
    schema::{Schema, SubjectText},
    source::{Deadline, documents::Documents},
    telemetry::Metrics,
};

/// When everything is asked.
const NOON: &str = "2026-11-23T12:00:00Z";

#[tokio::test]
async fn google_drive() {
    Model::read("google_drive").answers_as_told().await;
}

#[tokio::test]
async fn github() {
    Model::read("github").answers_as_told().await;
}

#[tokio::test]
async fn exclusions() {
    Model::read("exclusions").answers_as_told().await;
}

#[tokio::test]
async fn wildcards() {
    Model::read("wildcards").answers_as_told().await;
}

#[tokio::test]
async fn groups_in_groups() {
    Model::read("groups").answers_as_told().await;
}

#[tokio::test]
async fn parents() {
    Model::read("parents").answers_as_told().await;
}

#[tokio::test]
async fn intersections() {
    Model::read("intersections").answers_as_told().await;
}

#[tokio::test]
async fn people() {
    Model::read("people").answers_as_told().await;
}

#[tokio::test]
async fn thirty_groups_deep_is_found_and_forty_is_a_limit() {
    let mut model = Model::read("groups");
    let chain = (0..45).map(|at| format!("group:g{at}#member@group:g{}#member", at + 1));
    model.tuples.extend(chain.map(|tuple| tuple_of(&tuple)));
    model.tuples.push(tuple_of("group:g30#member@user:ada"));
    model.tuples.push(tuple_of("group:g45#member@user:zoe"));
    model.told =
        ["user:ada member group:g0 -> group#direct_member", "user:zoe member group:g0 -> LIMIT"].map(told_of).into();
    assert_eq!(model.wrong().await, Vec::<String>::new());
}

#[tokio::test]
async fn groups_that_all_hold_each_other_are_searched_in_bounds() {
    for (count, is_within_bounds) in [(6, true), (12, false)] {
        let mut model = Model::read("groups");
        let pairs = (0..count).flat_map(|a| (0..count).map(move |b| format!("group:g{a}#member@group:g{b}#member")));
        model.tuples.extend(pairs.map(|tuple| tuple_of(&tuple)));
        model.tuples.push(tuple_of(&format!("group:g{}#member@user:ada", count - 1)));
        model.told = ["user:ada member group:g0 -> group#direct_member", "user:zoe member group:g0 -> NO_GRANT"]
            .map(told_of)
            .into();
        let mut wrong = model.wrong().await;
        // There are as many ways through them as orders of them. What is too much to search is never answered wrong.
        wrong.retain(|line| is_within_bounds || !line.ends_with("(it is LIMIT)"));
        assert_eq!(wrong, Vec::<String>::new());
    }
}

/// A model, what its tuples say, and what it should answer.
struct Model {
    schema: Arc<Schema>,
    tuples: Vec<Document>,
    told: Vec<Told>,
}

/// A question and its answer.
struct Told {
    line: String,
    subject: String,
    permission: String,
    resource: String,
    answer: String,
}

impl Model {
    fn read(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/tuple_models");
        let schema = fs::read_to_string(directory.join(format!("{name}.toml"))).unwrap();
        let schema = Schema::parse(name, &schema).unwrap_or_else(|errors| panic!("{errors}"));
        let story = fs::read_to_string(directory.join(format!("{name}.txt"))).unwrap();
        let lines = story.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("# "));
        let (told, tuples): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.contains(" -> "));
        Self {
            schema: Arc::new(schema),
            tuples: tuples.into_iter().map(tuple_of).collect(),
            told: told.into_iter().map(told_of).collect(),
        }
    }

    async fn answers_as_told(self) {
        assert_eq!(self.wrong().await, Vec::<String>::new());
        self.tells_both_sides_of_each_permission();
    }

    /// What is answered otherwise.
    async fn wrong(&self) -> Vec<String> {
        let tuples = self.tuples.iter().zip(0..).map(|(tuple, id)| {
            let mut document = doc! { "_id": id };
            document.extend(tuple.clone());
            document
        });
        let collections = BTreeMap::from([("tuples".to_owned(), tuples.collect())]);
        let source = Documents::new(&self.schema, &collections);
        let checker =
            Checker::new(Arc::clone(&self.schema), Arc::new(source), Arc::new(Metrics::default()), Settings::default());
        let questions: Vec<Question> = self.told.iter().map(|told| self.question(told)).collect();
        let noon = DateTime::parse_rfc3339_str(NOON).unwrap().timestamp_millis();
        let deadline = Deadline::after(Duration::from_secs(30));
        let answers = checker.check_at(&questions, Consistency::FullyConsistent, deadline, || noon).await;
        let mut wrong = Vec::new();
        for (told, answer) in self.told.iter().zip(answers) {
            let answer = match answer.unwrap().answer {
                Answer::Allowed { by, .. } => by.map_or("allowed".to_owned(), |by| self.schema.relation_name(by)),
                Answer::Denied(reason) => reason.as_str().to_owned(),
            };
            if answer != told.answer {
                wrong.push(format!("{} (it is {answer})", told.line));
            }
        }
        wrong
    }

    fn question(&self, told: &Told) -> Question {
        let subject = match told.subject.split_once(':') {
            Some((kind, id)) => SubjectText::Known { kind, id },
            None => SubjectText::Anonymous,
        };
        let (kind, id) = told.resource.split_once(':').unwrap();
        self.schema
            .question(subject, &told.permission, kind, id)
            .unwrap_or_else(|errors| panic!("{}: {errors:?}", told.line))
    }

    /// A permission that is only ever allowed, or only ever denied, is not tested.
    fn tells_both_sides_of_each_permission(&self) {
        let seen: BTreeSet<(&str, &str, bool)> = self
            .told
            .iter()
            .map(|told| (told.resource.split(':').next().unwrap(), &*told.permission, told.answer.contains('#')))
            .collect();
        for (kind, resource) in self.schema.resources() {
            for permission in self.schema.public_permissions(kind) {
                let name = &*self.schema.permission(permission).name;
                for is_allowed in [true, false] {
                    let word = if is_allowed { "allowed" } else { "denied" };
                    assert!(
                        seen.contains(&(&resource.name, name, is_allowed)),
                        "`{name}` of {} is never {word}",
                        resource.name
                    );
                }
            }
        }
    }
}

/// `subject permission resource -> answer   # why`
fn told_of(line: &str) -> Told {
    let told = line.split(" # ").next().unwrap();
    let words: Vec<&str> = told.split_whitespace().collect();
    let [subject, permission, resource, "->", answer] = words.as_slice() else { panic!("not a question: {line}") };
    let [subject, permission, resource, answer] =
        [subject, permission, resource, answer].map(|word| (*word).to_owned());
    Told { line: told.trim().to_owned(), subject, permission, resource, answer }
}

/// `object_type:object_id#relation@subject_type:subject_id#subject_relation[expiration:date]`
fn tuple_of(line: &str) -> Document {
    let read = || {
        let (line, expiration) = line.strip_suffix(']').map_or((line, None), |line| {
            line.split_once("[expiration:").map_or((line, None), |(line, date)| (line, Some(date)))
        });
        let (object, subject) = line.split_once('@')?;
        let (object, relation) = object.rsplit_once('#')?;
        let (object_type, object_id) = object.split_once(':')?;
        let (subject, subject_relation) =
            subject.split_once('#').map_or((subject, None), |(subject, relation)| (subject, Some(relation)));
        let (subject_type, subject_id) = subject.split_once(':')?;
        let mut tuple = doc! {
            "object_type": object_type, "object_id": object_id, "relation": relation,
            "subject_type": subject_type, "subject_id": subject_id,
        };
        tuple.extend(subject_relation.map(|relation| ("subject_relation".to_owned(), relation.into())));
        tuple.extend(
            expiration.map(|date| ("expires_at".to_owned(), DateTime::parse_rfc3339_str(date).unwrap().into())),
        );
        Some(tuple)
    };
    read().unwrap_or_else(|| panic!("not a tuple: {line}"))
}
