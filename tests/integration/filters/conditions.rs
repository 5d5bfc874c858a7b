//! Filters of conditions: over generated conditions and documents, what a filter finds is what the evaluator allows where the condition is
//! that of a flag, of an element of an array, or of a type, and where it stands under a `!`.
//!
//! The conditions and documents are those of `conditions`, which compares them with mongod without types.

use std::collections::BTreeMap;

use bson::{Bson, Document};
use permcached::{
    list::PlanKind,
    question::Subject,
    schema::{Condition, Schema},
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngSeed, TestRunner},
};

use super::{
    finds::{Found, compare_with_mongod},
    single::{self, Compared},
};
use crate::{conditions::generate, support::servers};

/// Each round has its own documents and conditions, and tests every condition on every document.
const ROUNDS: usize = 12;
const DOCUMENTS: usize = 60;
const CONDITIONS: usize = 30;
/// The seed of all rounds, unless the variable sets one. `PERMCACHED_TEST_ROUNDS` sets another number of rounds.
const SEED: u64 = 1;
const SEED_VARIABLE: &str = "PERMCACHED_TEST_SEED";
const ROUNDS_VARIABLE: &str = "PERMCACHED_TEST_ROUNDS";

/// The permissions of the schema, with the resource type that has them.
const PERMISSIONS: [(&str, &str); 5] =
    [("file", "yes"), ("file", "no"), ("file", "inside"), ("file", "outside"), ("gated", "all")];

#[derive(Debug, Default)]
struct Counts {
    exact: usize,
    superset: usize,
    none: usize,
    not_narrowable: usize,
    /// The filters that find some documents and not all.
    some: usize,
    /// What supersets find, and what of it is allowed.
    found: usize,
    allowed: usize,
}

#[tokio::test]
async fn the_filter_of_a_condition_finds_what_the_evaluator_allows() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<usize>().expect("a number"));
    let seed = number(SEED_VARIABLE).map_or(SEED, |seed| seed as u64);
    let config = Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let database = servers::mongo().database().await;
    let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
    for round in 0..number(ROUNDS_VARIABLE).unwrap_or(ROUNDS) {
        let stock = one(&generate::stock(), &mut runner);
        let documents: Vec<Document> = (0..DOCUMENTS)
            .map(|number| {
                let mut document = bson::doc! { "_id": i64::try_from(number).expect("a small number") };
                document.extend(one(&stock.document(), &mut runner));
                document
            })
            .collect();
        let mut found = Vec::new();
        for _ in 0..CONDITIONS {
            let condition = one(&stock.condition(), &mut runner);
            let schema = schema(&condition);
            for (kind, permission) in PERMISSIONS {
                let counts = counts.entry(permission).or_default();
                found.extend(compare(&schema, kind, permission, &documents, counts));
            }
        }
        let name = format!("conditions_{round}");
        let finds = compare_with_mongod(&database.collection(&name), &documents, found).await;
        finds.unwrap_or_else(|error| panic!("{error}\n{SEED_VARIABLE}={seed}"));
    }
    println!("{counts:#?}");
    for (permission, counts) in &counts {
        let total = counts.exact + counts.superset + counts.none + counts.not_narrowable;
        assert!(counts.exact * 3 > total && counts.some * 3 > total, "{permission}: {counts:#?}");
        assert!(counts.superset * 5 > total && counts.found < 3 * counts.allowed, "{permission}: {counts:#?}");
    }
}

fn one<S: Strategy>(strategy: &S, runner: &mut TestRunner) -> S::Value {
    strategy.new_tree(runner).expect("a value").current()
}

fn schema(condition: &Condition) -> Schema {
    let json = Bson::Document(condition.to_query()).into_canonical_extjson().to_string();
    // TOML can read a string in JSON's quotes.
    let quoted = Bson::String(json).into_canonical_extjson().to_string();
    let text = format!(
        r#"
        default_subject = "user"
        [subject.user]
        [resource.file]
        id = "integer"
        collection = "files"
        [resource.file.relations]
        flag = {{ where = {quoted} }}
        item = {{ each = "a", where = {quoted} }}
        [resource.file.permissions]
        yes = "flag"
        no = "!flag"
        inside = "item"
        outside = "!item"
        [resource.gated]
        id = "integer"
        collection = "files"
        where = {quoted}
        [resource.gated.relations]
        exists = {{ where = {{ _id = {{ "$exists" = true }} }} }}
        [resource.gated.permissions]
        all = "exists"
        "#
    );
    Schema::parse("generated.toml", &text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Compares a filter with the evaluator. Returns it if it is a query.
fn compare(
    schema: &Schema,
    kind: &str,
    permission: &str,
    documents: &[Document],
    counts: &mut Counts,
) -> Option<Found> {
    let asked = single::question(schema, Subject::Anonymous, kind, permission);
    let Some(Compared { kind, found, denied }) = single::compare(schema, &asked, 0, documents) else {
        counts.not_narrowable += 1;
        return None;
    };
    match kind {
        PlanKind::None => counts.none += 1,
        PlanKind::Exact | PlanKind::All => counts.exact += 1,
        PlanKind::Superset => {
            counts.superset += 1;
            counts.found += found.ids.len();
            counts.allowed += found.ids.len() - denied.len();
        }
    }
    counts.some += usize::from((1..documents.len()).contains(&found.ids.len()));
    Some(found)
}
