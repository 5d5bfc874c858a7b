//! Compares conditions with a real mongod: over generated conditions and documents, a condition matches in process exactly
//! the documents that mongod finds.
//!
//! Tests only matching. Whether values have the right types is permcached's own rule, which mongod does not have.

pub mod generate;
mod tally;
pub mod values;

use std::env;

use bson::{Bson, Document, doc};
use futures::{StreamExt, stream};
use mongodb::Collection;
use permcached::schema::{Condition, Member, Path, Schema};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngSeed, TestRunner},
};

use self::tally::Tallies;
use crate::support::servers;

/// Each round has its own documents and conditions, and tests every condition on every document.
const ROUNDS: usize = 40;
const DOCUMENTS: usize = 100;
const CONDITIONS: usize = 100;

/// The maximal number of finds that wait for mongod while other results are compared.
const FINDS_MAX: usize = 8;

/// One condition in this many is also written to a schema and parsed.
const PARSED_EVERY: usize = 4;

/// The maximal number of differences that a failure shows.
const SHOWN_MAX: usize = 5;

/// The seed is fixed, so that a failure is repeatable. The variable sets another one.
const SEED: u64 = 1;
const SEED_VARIABLE: &str = "PERMCACHED_TEST_SEED";

#[tokio::test]
async fn generated_conditions_match_as_in_mongod() {
    let seed = env::var(SEED_VARIABLE).map_or(SEED, |text| text.parse().unwrap());
    let mut generator = Generator::new(seed);
    let database = servers::mongo().database().await;
    let mut tallies = Tallies::default();
    let mut differences = Vec::new();
    for round in 0..ROUNDS {
        let stock = generator.one(&generate::stock());
        let documents = generator.many(&stock.document(), DOCUMENTS);
        let conditions = generator.many(&stock.condition(), CONDITIONS);
        let collection = database.collection(&format!("round_{round}"));
        differences.extend(compare(&collection, documents, &conditions, &mut tallies).await);
    }
    println!("{tallies}");
    assert_none(differences, &format!("{SEED_VARIABLE}={seed}"));
    tallies.check_operators();
}

/// Every operator with every operand on every value, and every pair of values in a comparison of two fields. The random test
/// above combines these only now and then.
#[tokio::test]
async fn every_operator_compares_every_two_values_as_in_mongod() {
    let database = servers::mongo().database().await;
    let mut tallies = Tallies::default();

    let values = values::all();
    let alone = values.iter().map(|value| doc! { "a": value }).collect();
    let tests = generate::tests(&values);
    let differences = compare(&database.collection("alone"), alone, &tests, &mut tallies).await;
    assert_none(differences, "one value");

    let each = || values.iter().map(Some).chain([None]);
    let pairs = each().flat_map(|a| each().map(move |b| pair(a, b))).collect();
    let exprs = generate::COMPARISONS.map(|comparison| Condition::Expr(comparison, path("a"), path("b")));
    let differences = compare(&database.collection("pairs"), pairs, &exprs, &mut tallies).await;
    assert_none(differences, "two values");

    println!("{tallies}");
    tallies.check_operands();
}

fn pair(a: Option<&Bson>, b: Option<&Bson>) -> Document {
    let fields = [("a", a), ("b", b)].into_iter();
    fields.filter_map(|(name, value)| Some((name.to_owned(), value?.clone()))).collect()
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

/// Panics with the shortest of the differences if there are any.
fn assert_none(mut differences: Vec<String>, with: &str) {
    differences.sort_by_key(String::len);
    let shown: String = differences.iter().take(SHOWN_MAX).map(String::as_str).collect();
    let count = differences.len();
    assert_eq!(count, 0, "{count} differences with {with}, the shortest of them:{shown}");
}

/// Stores the documents, asks mongod which of them each condition finds, and describes the differences from what the
/// condition matches.
async fn compare(
    collection: &Collection<Document>,
    documents: Vec<Document>,
    conditions: &[Condition],
    tallies: &mut Tallies,
) -> Vec<String> {
    let documents = stored(collection, documents).await;
    let finds =
        conditions.iter().map(async |condition| (condition, find(collection, condition, documents.len()).await));
    let mut finds = stream::iter(finds).buffered(FINDS_MAX).enumerate();
    let mut differences = Vec::new();
    while let Some((at, (condition, found))) = finds.next().await {
        tallies.add(condition, &found);
        let parsed = at.is_multiple_of(PARSED_EVERY).then(|| parsed(condition));
        for (document, found) in documents.iter().zip(found) {
            if condition.matches(document) != found {
                differences.push(describe("as built", condition, document, found));
            }
            if let Some(parsed) = parsed.as_ref().filter(|parsed| parsed.matches(document) != found) {
                differences.push(describe("as parsed", parsed, document, found));
            }
        }
    }
    differences
}

fn describe(origin: &str, condition: &Condition, document: &Document, found: bool) -> String {
    let (mongod, in_process) = if found { ("finds", "does not match") } else { ("does not find", "matches") };
    let query = condition.to_query();
    format!("\n  {query}\n  {document}\n    mongod {mongod} it, the condition {origin} {in_process}")
}

/// Generates values of strategies. The same seed gives the same values.
struct Generator(TestRunner);

impl Generator {
    fn new(seed: u64) -> Self {
        let rng_seed = RngSeed::Fixed(seed);
        Self(TestRunner::new(Config { rng_seed, failure_persistence: None, ..Config::default() }))
    }

    fn one<S: Strategy>(&mut self, strategy: &S) -> S::Value {
        strategy.new_tree(&mut self.0).unwrap().current()
    }

    fn many<S: Strategy>(&mut self, strategy: &S, count: usize) -> Vec<S::Value> {
        (0..count).map(|_| self.one(strategy)).collect()
    }
}

/// Stores the documents with an `_id` from 0 on, and returns them as mongod returns them.
async fn stored(collection: &Collection<Document>, mut documents: Vec<Document>) -> Vec<Document> {
    for (id, document) in (0_i32..).zip(&mut documents) {
        document.insert("_id", id);
    }
    collection.insert_many(&documents).await.unwrap();
    let mut cursor = collection.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
    let mut stored = Vec::new();
    while cursor.advance().await.unwrap() {
        stored.push(cursor.deserialize_current().unwrap());
    }
    assert_eq!(stored.len(), documents.len());
    stored
}

/// For each of the `count` documents, whether mongod finds it.
async fn find(collection: &Collection<Document>, condition: &Condition, count: usize) -> Vec<bool> {
    let query = condition.to_query();
    let batch_max = u32::try_from(count + 1).unwrap();
    let find = collection.find(query.clone()).projection(doc! { "_id": 1 }).batch_size(batch_max);
    let mut cursor = find.await.unwrap_or_else(|error| panic!("mongod refuses {query}: {error}"));
    let mut found = vec![false; count];
    while cursor.advance().await.unwrap() {
        let id = cursor.current().get_i32("_id").unwrap();
        found[usize::try_from(id).unwrap()] = true;
    }
    found
}

/// The condition after it was written to a schema as Extended JSON and parsed.
fn parsed(condition: &Condition) -> Condition {
    let json = Bson::Document(condition.to_query()).into_canonical_extjson().to_string();
    // TOML can read a string in JSON's quotes.
    let quoted = Bson::String(json).into_canonical_extjson().to_string();
    let text = format!(
        "default_subject = \"user\"\n[subject.user]\n[resource.file]\ncollection = \"files\"\n\
         [resource.file.relations]\nflag = {{ where = {quoted} }}\n"
    );
    let schema = Schema::parse("generated.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let (_, file) = schema.resources().next().unwrap();
    let Some(Member::Relation(flag)) = file.members.get("flag") else { panic!("no flag in\n{text}") };
    schema.relation(*flag).condition.clone().unwrap()
}
