//! Compares filters with the evaluator, over random schemas and documents with hostile values: each filter is run by a real mongod, and
//! what it finds is compared with what the evaluator allows, for every subject, permission and resource.
//!
//! Id sets and flags of subjects are found here by asking the evaluator about every resource, so that only the filter is tested.
//!
//! Runs are repeatable. `PROPTEST_RNG_SEED=7` selects other cases, `PROPTEST_CASES=1000` more of them.

mod cases;
mod conditions;
mod fields;
mod finds;
mod fylora;
mod hostile;
mod seen;
mod single;
mod world;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mongodb::Database;
use permcached::{
    list::{ListError, ListQuestion, PlanKind, filter},
    question::Id,
    schema::Schema,
};
use proptest::test_runner::TestCaseError;
use tokio::runtime::Runtime;

use self::{
    cases::Listed,
    finds::{Found, compare_with_mongod},
    seen::Seen,
    world::{World, id_of},
};
use crate::support::{property, servers};

/// The number of random schemas, each with its documents.
const CASES: u32 = 40;
/// The same in the long run (docs/proof.md).
const MANY_CASES: u32 = 1_000;

#[test]
fn a_filter_finds_what_the_evaluator_allows() {
    run(CASES).check();
}

/// A million triples of a subject, a permission and a resource (docs/proof.md): `make lists`.
#[test]
#[ignore = "takes many minutes"]
fn a_filter_finds_what_the_evaluator_allows_at_length() {
    let seen = run(MANY_CASES);
    seen.check();
    assert!(seen.triples > 1_000_000, "{seen:#?}");
}

/// Runs this many cases, or more if the environment sets a higher number. Returns what occurred.
fn run(cases: u32) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let database = runtime.block_on(servers::mongo().database());
    let bench = Bench { runtime, database, seen: RefCell::default(), number: RefCell::new(0) };
    property::run(&cases::listed(), cases, 120_000, |case| bench.case(case));
    let seen = bench.seen.into_inner();
    println!("{seen:#?}");
    seen
}

struct Bench {
    runtime: Runtime,
    database: Database,
    seen: RefCell<Seen>,
    /// The number of cases so far.
    number: RefCell<usize>,
}

impl Bench {
    fn case(&self, listed: &Listed) -> Result<(), TestCaseError> {
        let parsed = Schema::parse("schema.toml", &listed.case.model.to_string());
        if let Err(errors) = &parsed {
            println!("{errors}");
        }
        let Ok(schema) = parsed else {
            self.seen.borrow_mut().refused += 1;
            return Ok(());
        };
        let world = World::new(&self.runtime, Arc::new(schema), &listed.case.collections, listed.case.now);
        let askers = world.askers();
        let mut by_collection: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        for (kind, resource) in world.schema.resources() {
            let Some(lookup) = resource.document else { continue };
            let collection = world.schema.lookup(lookup).collection.to_string();
            for asker in &askers {
                for permission in world.permissions(kind) {
                    let question = ListQuestion { asker: asker.clone(), permission, kind };
                    let found = self.compare(&world, &collection, &question)?;
                    by_collection.entry(collection.clone()).or_default().extend(found);
                }
            }
        }
        for (collection, found) in by_collection {
            let documents = world.documents(&collection);
            let name = format!("case_{}_{collection}", self.number.borrow());
            let collection = self.database.collection(&name);
            let compared = compare_with_mongod(&collection, documents, found);
            self.seen.borrow_mut().finds += self.runtime.block_on(compared).map_err(TestCaseError::fail)?;
        }
        *self.number.borrow_mut() += 1;
        Ok(())
    }

    /// Compares the filter with the evaluator, in process. Returns the filter if it is a query.
    fn compare(
        &self,
        world: &World<'_>,
        collection: &str,
        question: &ListQuestion,
    ) -> Result<Option<Found>, TestCaseError> {
        let known = world.known(question);
        let compiled = filter::compile(&world.schema, question, &known, world.now);
        let documents = world.documents(collection);
        let resources: Vec<(usize, Id)> = documents
            .iter()
            .enumerate()
            .filter_map(|(place, document)| Some((place, id_of(&world.schema, question.kind, &document["_id"])?)))
            .collect();
        let allowed: BTreeSet<usize> =
            resources.iter().filter(|(_, id)| world.allows(question, id)).map(|(place, _)| *place).collect();
        let mut seen = self.seen.borrow_mut();
        seen.triples += resources.len();
        seen.allowed += allowed.len();
        let of = || world.describe(question);
        let filter = match compiled {
            Ok(filter) => filter,
            Err(ListError::NotNarrowable { .. }) => {
                seen.not_narrowable += 1;
                return Ok(None);
            }
            Err(error) => return Err(TestCaseError::fail(format!("{}: {error}", of()))),
        };
        let are_resources: BTreeSet<usize> = resources.iter().map(|(place, _)| *place).collect();
        let ids: BTreeSet<usize> = (0..documents.len())
            .filter(|place| are_resources.contains(place) && filter.condition.matches(&documents[*place]))
            .collect();
        let fail = |what: &str, place: usize| {
            let (query, document) = (filter.condition.to_query(), &documents[place]);
            Err(TestCaseError::fail(format!("{}: {:?} {what}\n  {query}\n  {document}", of(), filter.kind)))
        };
        if let Some(place) = allowed.difference(&ids).next() {
            return fail("does not find what is allowed", *place);
        }
        match filter.kind {
            PlanKind::None if !filter.condition.to_query().is_empty() => {}
            PlanKind::All if filter.condition.to_query().is_empty() => {}
            PlanKind::Exact | PlanKind::Superset if !filter.condition.to_query().is_empty() => {}
            _ => return Err(TestCaseError::fail(format!("{}: an empty filter, or none", of()))),
        }
        if filter.kind != PlanKind::Superset
            && let Some(place) = ids.difference(&allowed).next()
        {
            return fail("finds what is denied", *place);
        }
        seen.filter(&filter, documents.len(), ids.len(), allowed.len());
        Ok(Some(Found { condition: filter.condition, ids, of: of() }))
    }
}
