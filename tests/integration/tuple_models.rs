//! Models that SpiceDB and OpenFGA use, written in the schema language over one collection of tuples: groups in groups,
//! parents, exclusions, wildcards, intersections. Everything is in memory: no server takes part.
//!
//! `tuple_models/NAME.toml` is the model. `NAME.txt` contains its tuples, one per line, in SpiceDB's notation
//! (`document:plan#viewer@group:eng#member[expiration:…]`). Between them it contains questions with the expected answers:
//! `subject permission resource -> relation` if the relation allows it, or `-> REASON` if it is denied. All tuples are
//! stored before the first question is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bson::{DateTime, Document, doc};
use permcached::{
    app::{Parts, assemble},
    check::Consistency,
    question::{Answer, Question},
    schema::{Schema, SubjectText},
    source::{Deadline, documents::Documents},
};

/// The time of all questions.
const NOON: &str = "2026-11-23T12:00:00Z";

#[tokio::test]
async fn the_model_of_google_drive_gives_the_expected_answers() {
    Model::read("google_drive").assert_answers().await;
}

#[tokio::test]
async fn the_model_of_github_gives_the_expected_answers() {
    Model::read("github").assert_answers().await;
}

#[tokio::test]
async fn the_model_with_exclusions_gives_the_expected_answers() {
    Model::read("exclusions").assert_answers().await;
}

#[tokio::test]
async fn the_model_with_wildcards_gives_the_expected_answers() {
    Model::read("wildcards").assert_answers().await;
}

#[tokio::test]
async fn the_model_with_groups_in_groups_gives_the_expected_answers() {
    Model::read("groups").assert_answers().await;
}

#[tokio::test]
async fn the_model_with_parents_gives_the_expected_answers() {
    Model::read("parents").assert_answers().await;
}

#[tokio::test]
async fn the_model_with_intersections_gives_the_expected_answers() {
    Model::read("intersections").assert_answers().await;
}

#[tokio::test]
async fn the_model_of_people_gives_the_expected_answers() {
    Model::read("people").assert_answers().await;
}

#[tokio::test]
async fn a_member_thirty_groups_deep_is_found_and_one_forty_five_deep_is_over_the_limit() {
    let mut model = Model::read("groups");
    let chain = (0..45).map(|at| format!("group:g{at}#member@group:g{}#member", at + 1));
    model.tuples.extend(chain.map(|tuple| tuple_of(&tuple)));
    model.tuples.push(tuple_of("group:g30#member@user:ada"));
    model.tuples.push(tuple_of("group:g45#member@user:zoe"));
    model.expectations = ["user:ada member group:g0 -> group#direct_member", "user:zoe member group:g0 -> LIMIT"]
        .map(expectation_of)
        .into();
    assert_eq!(model.wrong().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_search_of_groups_that_all_contain_each_other_is_bounded() {
    for (count, is_within_bounds) in [(6, true), (12, false)] {
        let mut model = Model::read("groups");
        let pairs = (0..count).flat_map(|a| (0..count).map(move |b| format!("group:g{a}#member@group:g{b}#member")));
        model.tuples.extend(pairs.map(|tuple| tuple_of(&tuple)));
        model.tuples.push(tuple_of(&format!("group:g{}#member@user:ada", count - 1)));
        model.expectations =
            ["user:ada member group:g0 -> group#direct_member", "user:zoe member group:g0 -> NO_GRANT"]
                .map(expectation_of)
                .into();
        let mut wrong = model.wrong().await;
        // There are as many paths through the groups as permutations of them. If that is too much work, the answer is
        // `LIMIT`, never a wrong one.
        wrong.retain(|line| is_within_bounds || !line.ends_with("(it is LIMIT)"));
        assert_eq!(wrong, Vec::<String>::new());
    }
}

/// A model, its tuples, and the questions with their expected answers.
struct Model {
    schema: Arc<Schema>,
    tuples: Vec<Document>,
    expectations: Vec<Expectation>,
}

/// A question and its expected answer.
struct Expectation {
    /// The line of the file.
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
        let (expectations, tuples): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.contains(" -> "));
        Self {
            schema: Arc::new(schema),
            tuples: tuples.into_iter().map(tuple_of).collect(),
            expectations: expectations.into_iter().map(expectation_of).collect(),
        }
    }

    async fn assert_answers(self) {
        assert_eq!(self.wrong().await, Vec::<String>::new());
        self.assert_each_permission_has_both_answers();
    }

    /// The questions whose answer differs from the expected one.
    async fn wrong(&self) -> Vec<String> {
        let tuples = self.tuples.iter().zip(0..).map(|(tuple, id)| {
            let mut document = doc! { "_id": id };
            document.extend(tuple.clone());
            document
        });
        let collections = BTreeMap::from([("tuples".to_owned(), tuples.collect())]);
        let source = Documents::new(&self.schema, &collections);
        let checker = assemble(Parts::new(Arc::clone(&self.schema), Arc::new(source))).checker;
        let questions: Vec<Question> = self.expectations.iter().map(|expectation| self.question(expectation)).collect();
        let noon = DateTime::parse_rfc3339_str(NOON).unwrap().timestamp_millis();
        let deadline = Deadline::after(Duration::from_secs(30));
        let answers = checker.check_at(&questions, Consistency::FullyConsistent, deadline, || noon).await;
        let mut wrong = Vec::new();
        for (expectation, answer) in self.expectations.iter().zip(answers) {
            let answer = match answer.unwrap().answer {
                Answer::Allowed { by, .. } => by.map_or("allowed".to_owned(), |by| self.schema.relation_name(by)),
                Answer::Denied(reason) => reason.as_str().to_owned(),
            };
            if answer != expectation.answer {
                wrong.push(format!("{} (it is {answer})", expectation.line));
            }
        }
        wrong
    }

    fn question(&self, expectation: &Expectation) -> Question {
        let subject = match expectation.subject.split_once(':') {
            Some((kind, id)) => SubjectText::Known { kind, id },
            None => SubjectText::Anonymous,
        };
        let (kind, id) = expectation.resource.split_once(':').unwrap();
        self.schema
            .question(subject, &expectation.permission, kind, id)
            .unwrap_or_else(|errors| panic!("{}: {errors:?}", expectation.line))
    }

    /// Panics if some permission is never allowed or never denied: such a permission is not tested.
    fn assert_each_permission_has_both_answers(&self) {
        let seen: BTreeSet<(&str, &str, bool)> = self
            .expectations
            .iter()
            .map(|one| (one.resource.split(':').next().unwrap(), &*one.permission, one.answer.contains('#')))
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
fn expectation_of(line: &str) -> Expectation {
    let text = line.split(" # ").next().unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let [subject, permission, resource, "->", answer] = words.as_slice() else { panic!("not a question: {line}") };
    let [subject, permission, resource, answer] =
        [subject, permission, resource, answer].map(|word| (*word).to_owned());
    Expectation { line: text.trim().to_owned(), subject, permission, resource, answer }
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
