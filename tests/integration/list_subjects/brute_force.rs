//! Compares lists with the checks of all subjects, over random schemas and documents.
//!
//! Runs are repeatable. `PROPTEST_RNG_SEED=7` selects other cases, `PROPTEST_CASES=100000` more of them.

use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

use bson::Document;
use mongodb::Database;
use permcached::{
    app::{Parts, assemble},
    check::{Checker, Consistency, Inquiry},
    evaluate::OfSubject,
    list::{Everybody, Lister, SubjectList},
    question::{Answer, Id, Millis, Question, Resource, Subject},
    schema::{Schema, SubjectText},
    source::{Deadline, Source, documents::Documents, mongodb::MongoDb},
};
use proptest::{strategy::Strategy, test_runner::TestCaseError};
use tokio::runtime::Runtime;

use super::Asked;
use crate::{
    evaluator::{
        generate::{self, Case, id_text},
        oversized::Oversized,
    },
    support::{
        both::{TIME_MAX, fill},
        property,
        servers::mongo,
    },
};

/// The number of random schemas, each with its documents and questions.
const CASES: u32 = 500;
/// The number of random graphs with cycles.
const CYCLE_CASES: u32 = 256;
/// The number of random schemas whose documents are written to mongod.
const CASES_OF_MONGOD: u32 = 24;
/// The number of subjects of each type that are checked. No document names the last one.
const SUBJECTS: usize = 4;

/// Counts what occurred in all cases. A test in which something hardly occurred has shown nothing about it.
#[derive(Debug, Default)]
struct Seen {
    refused: u32,
    lists: u32,
    listed: usize,
    allowed: usize,
    several_pages: u32,
    everybody: u32,
    with_exclusions: u32,
    /// Lists that say that some of everybody may be excluded although nobody is.
    vain_exclusions: u32,
    /// Lists that say that others may be allowed although nobody is who is not named.
    vain_others: u32,
    /// Lists with sets, and allowed subjects that only these cover.
    with_sets: u32,
    covered_by_sets: u32,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.lists += other.lists;
        self.listed += other.listed;
        self.allowed += other.allowed;
        self.several_pages += other.several_pages;
        self.everybody += other.everybody;
        self.with_exclusions += other.with_exclusions;
        self.vain_exclusions += other.vain_exclusions;
        self.vain_others += other.vain_others;
        self.with_sets += other.with_sets;
        self.covered_by_sets += other.covered_by_sets;
    }
}

struct Bench {
    runtime: Runtime,
    /// The database that the documents are written to; none if they are in memory.
    database: Option<Database>,
    /// Over documents, and over the same documents with some whole facts over their limit.
    seen: [RefCell<Seen>; 2],
}

#[test]
fn a_list_has_all_subjects_that_checks_allow_and_no_others() {
    let ([seen, with_large], cases) = run(generate::case(), CASES, false);
    assert!(seen.refused * 10 < cases, "nearly all schemas are accepted");
    assert!(seen.lists > cases && seen.allowed > seen.lists as usize / 2, "many subjects are allowed");
    assert!(seen.listed * 20 > seen.allowed, "many of them are named");
    for count in [seen.several_pages, seen.everybody, seen.with_exclusions] {
        assert!(count * 40 > cases, "{seen:?}");
    }
    assert!(seen.vain_exclusions * 8 < seen.everybody && seen.vain_others * 3 < seen.with_exclusions, "{seen:?}");
    assert!(with_large.with_sets * 20 > cases && with_large.covered_by_sets > 0, "{with_large:?}");
}

#[test]
fn a_list_has_all_subjects_that_checks_allow_although_the_data_has_cycles() {
    let ([seen, _], cases) = run(generate::cycles::case(), CYCLE_CASES, false);
    assert_eq!(seen.refused, 0, "there is one schema, and it is valid");
    assert!(seen.listed > cases as usize / 3, "{seen:?}");
}

#[test]
fn a_list_over_mongod_has_all_subjects_that_checks_allow_and_no_others() {
    let ([seen, _], cases) = run(generate::case(), CASES_OF_MONGOD, true);
    assert!(seen.lists > cases && seen.listed * 4 > cases as usize, "{seen:?}");
}

/// Runs this many cases, or more if the environment sets a higher number. Returns what occurred, and the number of cases.
fn run(strategy: impl Strategy<Value = Case>, cases: u32, is_over_mongod: bool) -> ([Seen; 2], u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let database = is_over_mongod.then(|| runtime.block_on(mongo().database()));
    let bench = Bench { runtime, database, seen: [RefCell::default(), RefCell::default()] };
    let cases = property::run(&strategy, cases, 30_000, |case| bench.case(case));
    let seen = bench.seen.map(RefCell::into_inner);
    println!("{seen:#?}");
    (seen, cases)
}

impl Bench {
    fn case(&self, case: &Case) -> Result<(), TestCaseError> {
        let Ok(schema) = Schema::parse("schema.toml", &case.model.to_string()) else {
            self.seen[0].borrow_mut().refused += 1;
            return Ok(());
        };
        let schema = Arc::new(schema);
        if let Some(database) = &self.database {
            let source = self.runtime.block_on(mongodb(database, &schema, case));
            return self.compare(case, &schema, Arc::new(source), &self.seen[0]);
        }
        let documents = Arc::new(Documents::new(&schema, &case.collections));
        self.compare(case, &schema, Arc::<Documents>::clone(&documents), &self.seen[0])?;
        let oversized = Arc::new(Oversized::new(&schema, documents, &case.available));
        self.compare(case, &schema, oversized, &self.seen[1])
            .map_err(|error| TestCaseError::fail(format!("with some whole facts over their limit: {error}")))
    }

    /// Compares the lists over a source with checks over the same source.
    fn compare(
        &self,
        case: &Case,
        schema: &Arc<Schema>,
        source: Arc<dyn Source>,
        counts: &RefCell<Seen>,
    ) -> Result<(), TestCaseError> {
        let app = assemble(Parts::new(Arc::clone(schema), source));
        let lister = Lister { fixed_now: Some(case.now), ..app.lister };
        let single = Single { schema, checker: &app.checker, now: case.now };
        let mut seen = BTreeSet::new();
        for asked in &case.questions {
            let (kind, id) = asked.resource;
            if !seen.insert((&asked.permission, asked.resource)) {
                continue;
            }
            let id = id_text(case.resource_form(kind), id);
            let question = schema.question(SubjectText::Anonymous, &asked.permission, kind, &id).expect("a question");
            for (subject_kind, declared) in schema.subjects() {
                let form = case.subject_form(&declared.name);
                let subjects: Vec<Id> = (0..SUBJECTS)
                    .map(|number| Id::parse(&id_text(form, number), form, declared.secret).expect("an id"))
                    .collect();
                let Question { permission, resource, .. } = question.clone();
                let asked = Asked { permission, resource, kind: subject_kind };
                let list = self.runtime.block_on(compare_list(&asked, &lister, &single, &subjects));
                let list = list.map_err(|what| TestCaseError::fail(format!("{asked:?} {}: {what}", declared.name)))?;
                counts.borrow_mut().add(&list);
            }
        }
        Ok(())
    }
}

/// The documents of a case in a database that has no others.
async fn mongodb(database: &Database, schema: &Arc<Schema>, case: &Case) -> MongoDb {
    for name in database.list_collection_names().await.expect("mongod answers") {
        database.collection::<Document>(&name).drop().await.expect("mongod answers");
    }
    fill(database, schema, &case.collections).await;
    MongoDb::open(Arc::clone(schema), database.clone()).await.expect("mongod answers")
}

/// Compares one list with checks.
async fn compare_list(asked: &Asked, lister: &Lister, single: &Single<'_>, subjects: &[Id]) -> Result<Seen, String> {
    let list =
        asked.page(lister, 1_000, None, Consistency::FullyConsistent).await.map_err(|error| error.to_string())?;
    if list.next.is_some() || !list.subjects.is_sorted_by(|one, next| one.id < next.id) {
        return Err(format!("{list:?}"));
    }
    for size in [1, 2] {
        let paged = asked.pages(lister, size, Consistency::FullyConsistent).await.map_err(|error| error.to_string())?;
        if plain(&paged) != plain(&list) {
            return Err(format!("by pages of {size} {paged:?}, at once {list:?}"));
        }
    }
    let mut seen = Seen::default();
    seen.lists += 1;
    seen.listed += list.subjects.len();
    seen.several_pages += u32::from(list.subjects.len() > 1);
    seen.with_sets += u32::from(!list.sets.is_empty());
    for listed in &list.subjects {
        let answer = single.answer(asked, &listed.id).await;
        let Answer::Allowed { by, valid_until } = answer else {
            return Err(format!("{:?} is listed, and the check says {answer:?}", listed.id));
        };
        if (listed.granted_by.is_some(), listed.valid_until) != (by.is_some(), valid_until) {
            return Err(format!("listed as {listed:?}, and the check says {answer:?}"));
        }
    }
    let is_listed = |id: &Id| list.subjects.iter().any(|listed| listed.id == *id);
    let mut others = Vec::new();
    for id in subjects {
        let answer = single.answer(asked, id).await;
        if !matches!(answer, Answer::Allowed { .. }) {
            others.push((id, answer));
            continue;
        }
        seen.allowed += 1;
        if is_listed(id) || list.everybody != Everybody::No {
            continue;
        }
        if !single.is_in_a_set(&list, asked, id).await {
            return Err(format!("{id:?} is allowed, and {list:?} does not say so"));
        }
        seen.covered_by_sets += 1;
    }
    match list.everybody {
        Everybody::Yes => {
            seen.everybody += 1;
            for (id, answer) in others {
                if single.is_active(asked, id).await {
                    return Err(format!("everybody may, and {id:?} may not: {answer:?}"));
                }
            }
        }
        Everybody::WithExclusions => {
            seen.with_exclusions += 1;
            let has_gate = single.schema.subject(asked.kind).gate.is_some();
            seen.vain_exclusions += u32::from(others.is_empty());
            seen.vain_others += u32::from(!has_gate && others.iter().any(|(id, _)| Some(*id) == subjects.last()));
        }
        Everybody::No => {}
    }
    Ok(seen)
}

/// Checks of single subjects.
struct Single<'a> {
    schema: &'a Schema,
    checker: &'a Checker,
    now: Millis,
}

impl Single<'_> {
    async fn answer(&self, asked: &Asked, id: &Id) -> Answer {
        let Asked { permission, resource, .. } = asked.clone();
        self.of(Question { subject: subject(asked, id), permission, resource }).await
    }

    async fn of(&self, question: Question) -> Answer {
        let (questions, deadline, now) = (&[question], Deadline::after(TIME_MAX), self.now);
        let checked = self.checker.check_at(questions, Consistency::FullyConsistent, deadline, move || now).await;
        checked.into_iter().next().expect("a result").expect("documents in memory are always there").answer
    }

    /// Whether a subject belongs to a set of a list.
    async fn is_in_a_set(&self, list: &SubjectList, asked: &Asked, id: &Id) -> bool {
        for (kind, set, member) in &list.sets {
            let permission = self.schema.permission_of(*member).expect("a set has a truth value");
            let resource = Resource { kind: *kind, id: set.clone() };
            let answer = self.of(Question { subject: subject(asked, id), permission, resource }).await;
            if matches!(answer, Answer::Allowed { .. }) {
                return true;
            }
        }
        false
    }

    /// Whether a subject passes the gate of its type.
    async fn is_active(&self, asked: &Asked, id: &Id) -> bool {
        let subject = subject(asked, id);
        let begun = (Consistency::FullyConsistent, Deadline::after(TIME_MAX));
        let inquiry = Inquiry::begin(self.checker, std::slice::from_ref(&subject), begun, Some(self.now)).await;
        let value = inquiry.expect("documents in memory").ask_of_subject(&subject, OfSubject::Gate).await;
        value.expect("a value").holds == Some(true)
    }
}

fn subject(asked: &Asked, id: &Id) -> Subject {
    Subject::Known { kind: asked.kind, id: id.clone() }
}

/// What a list says, without the relations that grant, of which there may be several.
fn plain(list: &SubjectList) -> impl PartialEq {
    let ids: Vec<Id> = list.subjects.iter().map(|listed| listed.id.clone()).collect();
    (ids, list.everybody, list.sets.clone())
}
