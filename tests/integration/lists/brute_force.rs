//! Lists of random schemas and documents, compared with a check of each resource: over documents in memory, and over mongod, where
//! also the filters of plans are run.
//!
//! Runs are repeatable. `PROPTEST_RNG_SEED=7` selects other cases, `PROPTEST_CASES=1000` more of them. The cases are those of `evaluator`. A list that cannot be narrowed down is not compared, and how many are compared is asserted.

use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

use bson::{Bson, Document};
use futures::TryStreamExt as _;
use mongodb::Database;
use permcached::{
    list::{ListError, ListQuestion, PlanKind, PlanOptions},
    question::{Id, IdForm},
    schema::{Path, Schema, SubjectText},
    source::{Source, documents::Documents, mongodb::MongoDb},
};
use proptest::{strategy::Strategy, test_runner::TestCaseError};
use tokio::runtime::Runtime;

use super::{Listing, list_question};
use crate::{
    evaluator::generate::{self, Case, id_text},
    support::{both::fill, property, servers::mongo},
};

/// How many cases are compared over documents in memory, and over mongod.
const CASES: u32 = 120;
const CYCLE_CASES: u32 = 60;
const CASES_OF_MONGOD: u32 = 12;

/// How many ids each type has.
const IDS: usize = 3;

/// What occurred.
#[derive(Debug, Default)]
struct Seen {
    refused: u32,
    /// Lists that were compared, those that were neither empty nor everything, and the ids on them.
    lists: u32,
    partial: u32,
    ids: usize,
    not_narrowable: u32,
    /// Plans by kind, and by why there is none.
    exact: u32,
    superset: u32,
    all: u32,
    none: u32,
    /// Documents that a superset found beside those that are allowed.
    surplus: usize,
    no_collection: u32,
}

struct Bench {
    runtime: Runtime,
    database: Option<Database>,
    seen: RefCell<Seen>,
}

#[test]
fn lists_contain_what_checks_allow_over_documents() {
    let seen = run(generate::case(), CASES, false);
    assert!(seen.lists > 20 * CASES, "{seen:#?}");
    assert!(seen.partial > CASES, "{seen:#?}");
    assert!(seen.not_narrowable < seen.lists / 4, "{seen:#?}");
}

#[test]
fn lists_contain_what_checks_allow_in_cycles() {
    let seen = run(generate::cycles::case(), CYCLE_CASES, false);
    assert!(seen.partial > CYCLE_CASES, "{seen:#?}");
}

#[test]
fn lists_and_plans_contain_what_checks_allow_over_mongod() {
    let seen = run(generate::case(), CASES_OF_MONGOD, true);
    assert!(seen.exact > CASES_OF_MONGOD && seen.superset > CASES_OF_MONGOD / 2 && seen.none > 0, "{seen:#?}");
}

/// Runs this many cases, over documents in memory or over mongod.
fn run(strategy: impl Strategy<Value = Case>, cases: u32, is_over_mongod: bool) -> Seen {
    let runtime = runtime();
    let database = is_over_mongod.then(|| runtime.block_on(mongo().database()));
    let bench = Bench { runtime, database, seen: RefCell::default() };
    property::run(&strategy, cases, 30_000, |case| bench.case(case));
    let seen = bench.seen.into_inner();
    println!("{seen:#?}");
    seen
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

impl Bench {
    fn case(&self, case: &Case) -> Result<(), TestCaseError> {
        let Ok(schema) = Schema::parse("schema.toml", &case.model.to_string()) else {
            self.seen.borrow_mut().refused += 1;
            return Ok(());
        };
        let schema = Arc::new(schema);
        self.runtime.block_on(self.compare(case, &schema)).map_err(TestCaseError::fail)
    }

    async fn compare(&self, case: &Case, schema: &Arc<Schema>) -> Result<(), String> {
        let source: Arc<dyn Source> = match &self.database {
            None => Arc::new(Documents::new(schema, &case.collections)),
            Some(database) => {
                for name in database.list_collection_names().await.expect("mongod answers") {
                    database.collection::<Document>(&name).drop().await.expect("mongod answers");
                }
                fill(database, schema, &case.collections).await;
                Arc::new(MongoDb::open(Arc::clone(schema), database.clone()).await.expect("mongod answers"))
            }
        };
        let mut listing = Listing::new(schema, source);
        listing.lister.fixed_now = Some(case.now);
        for kind in &case.model.resources {
            let known = known_ids(case, kind.form);
            let public = kind.permissions.iter().filter(|permission| !permission.is_private);
            for permission in public.filter(|permission| !permission.name.starts_with("late_")) {
                for subject in subjects(case) {
                    let text =
                        subject.as_ref().map_or(SubjectText::Anonymous, |(kind, id)| SubjectText::Known { kind, id });
                    let question = list_question(schema, text, &permission.name, kind.name);
                    let allowed = listing.allowed(&question, known.iter().cloned()).await;
                    let what = |what: String| format!("{subject:?} {} {}: {what}", permission.name, kind.name);
                    self.list(&listing, &question, (&known, &allowed)).await.map_err(what)?;
                    self.plan(&listing, &question, (kind.collection, &allowed)).await.map_err(what)?;
                }
            }
        }
        Ok(())
    }

    /// Compares the pages of a list with what is allowed.
    async fn list(
        &self,
        listing: &Listing,
        question: &ListQuestion,
        (known, allowed): (&BTreeSet<Id>, &[Id]),
    ) -> Result<(), String> {
        for size in [1, 2, 100] {
            match listing.pages(question, size, None).await {
                Ok(listed) if listed == allowed => {}
                Ok(listed) => return Err(format!("in pages of {size}: listed {listed:?}, allowed {allowed:?}")),
                Err(ListError::NotNarrowable { .. }) => {
                    self.seen.borrow_mut().not_narrowable += 1;
                    return Ok(());
                }
                Err(error) => return Err(format!("in pages of {size}: {error}")),
            }
        }
        let mut seen = self.seen.borrow_mut();
        seen.lists += 1;
        seen.ids += allowed.len();
        seen.partial += u32::from(!allowed.is_empty() && allowed.len() < known.len());
        Ok(())
    }

    /// Compares what the filter of a plan finds with what is allowed, and the ids of a plan for another collection.
    async fn plan(
        &self,
        listing: &Listing,
        question: &ListQuestion,
        (collection, allowed): (Option<&str>, &[Id]),
    ) -> Result<(), String> {
        let reference =
            PlanOptions { reference: Some(Path::parse("of.it").expect("a path")), ..PlanOptions::default() };
        match listing.plan(question, reference).await {
            Ok(plan) if plan.kind == PlanKind::None && allowed.is_empty() => {}
            Ok(plan) if plan.kind == PlanKind::Exact && plan.ids == allowed.len() && plan.ids > 0 => {
                let values = plan.filter.get_document("of.it").and_then(|ids| ids.get_array("$in"));
                assert_eq!(values.expect("a list of ids").len(), allowed.len());
            }
            Ok(plan) => return Err(format!("{plan:?} {} for another collection, allowed {allowed:?}", plan.filter)),
            Err(ListError::NotNarrowable { .. }) => {}
            Err(error) => return Err(format!("a plan for another collection: {error}")),
        }
        let plan = match (listing.plan(question, PlanOptions::default()).await, collection) {
            (Err(ListError::NoCollection(_)), None) => {
                self.seen.borrow_mut().no_collection += 1;
                return Ok(());
            }
            (Err(ListError::NotNarrowable { .. }), Some(_)) => return Ok(()),
            (Ok(plan), Some(_)) => plan,
            (other, _) => return Err(format!("the plan is {other:?}")),
        };
        if plan.filter.is_empty() != (plan.kind == PlanKind::All) {
            return Err(format!("{plan:?} {}", plan.filter));
        }
        let (Some(database), Some(collection)) = (&self.database, collection) else { return Ok(()) };
        let form = listing.schema.resource(question.kind).id;
        let found = database.collection::<Document>(collection).find(plan.filter.clone()).await;
        let found: Vec<Document> = found.expect("the filter is valid").try_collect().await.expect("mongod answers");
        // A check asks about ids of the type's form only.
        let found = found.iter().filter_map(|document| id_of(document.get("_id")?, form));
        let found: BTreeSet<Id> = found.collect();
        let allowed: BTreeSet<Id> = allowed.iter().cloned().collect();
        let is_right = match plan.kind {
            PlanKind::Exact | PlanKind::All => found == allowed,
            PlanKind::Superset => allowed.is_subset(&found),
            PlanKind::None => found.is_empty() && allowed.is_empty(),
        };
        if !is_right {
            return Err(format!("{plan:?} {} finds {found:?}, allowed {allowed:?}", plan.filter));
        }
        let mut seen = self.seen.borrow_mut();
        match plan.kind {
            PlanKind::Exact => seen.exact += 1,
            PlanKind::Superset => {
                seen.superset += 1;
                seen.surplus += found.len() - allowed.len();
            }
            PlanKind::All => seen.all += 1,
            PlanKind::None => seen.none += 1,
        }
        Ok(())
    }
}

/// Every subject of a case, as its type and its id. None for an anonymous one.
fn subjects(case: &Case) -> Vec<Option<(&'static str, String)>> {
    let known = case
        .model
        .subjects
        .iter()
        .flat_map(|kind| (0..IDS).map(|number| Some((kind.name, id_text(kind.form, number)))));
    known.chain([None]).collect()
}

/// The ids of a form that occur in the documents of a case, and those that questions ask about.
fn known_ids(case: &Case, form: IdForm) -> BTreeSet<Id> {
    let mut ids: BTreeSet<Id> =
        (0..IDS).map(|number| Id::parse(&id_text(form, number), form, false).expect("an id")).collect();
    for document in case.collections.values().flatten() {
        add_ids(&Bson::Document(document.clone()), form, &mut ids);
    }
    ids
}

/// Adds the values that are ids of a form, also those that stand in a text.
fn add_ids(value: &Bson, form: IdForm, ids: &mut BTreeSet<Id>) {
    match value {
        Bson::Document(document) => document.values().for_each(|value| add_ids(value, form, ids)),
        Bson::Array(items) => items.iter().for_each(|item| add_ids(item, form, ids)),
        Bson::String(text) => {
            let inner = [text.strip_prefix("k:"), text.strip_prefix('_').and_then(|text| text.strip_suffix('$'))];
            let texts = inner.into_iter().flatten().chain([text.as_str()]);
            ids.extend(texts.filter_map(|text| Id::parse(text, form, false).ok()));
        }
        value => ids.extend(id_of(value, form)),
    }
}

/// A value as an id of a form.
fn id_of(value: &Bson, form: IdForm) -> Option<Id> {
    let text = match (form, value) {
        (IdForm::ObjectId, Bson::ObjectId(id)) => id.to_hex(),
        (IdForm::String, Bson::String(text)) => text.clone(),
        (IdForm::Integer, Bson::Int32(number)) => number.to_string(),
        (IdForm::Integer, Bson::Int64(number)) => number.to_string(),
        (IdForm::Integer, Bson::Double(number)) if number.fract() == 0.0 => format!("{number:.0}"),
        (IdForm::Uuid, Bson::Binary(binary)) => {
            bson::Uuid::from_bytes(binary.bytes.clone().try_into().ok()?).to_string()
        }
        _ => return None,
    };
    Id::parse(&text, form, false).ok()
}
