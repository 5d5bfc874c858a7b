//! Relations that are larger than a fact may be: a fact that is filtered to a subject decides as the whole fact would, had it no
//! limit. Documents of others change no answer, however many they are.
//!
//! Which documents mean what is tested elsewhere.

mod batches;
mod cost;
mod guesses;
mod one_of_many;
mod own_lookups;
mod shapes;
mod sizes;
mod together;
mod warnings;

use std::{collections::BTreeMap, sync::Arc};

use bson::{Bson, Document, doc};
use permcached::{
    evaluate::{AvailableFacts, Verdict, evaluate},
    fact::{Fact, FactKey},
    freshness::Moment,
    question::{Id, LookupId, Question, Subject},
    schema::Schema,
    source::{Deadline, Source, documents::Documents, mongodb::MongoDb},
};

use crate::support::{
    both::{Collections, TIME_MAX, fill, question, schema},
    servers::mongo,
};

/// More documents than a fact may contain.
const MANY: i32 = 1_001;

/// The time at which everything is asked.
const NOW: i64 = 1_790_000_000_000;

/// One way to write a relation, and documents for it.
struct Shape<'a> {
    /// The types of subjects, other than `user`, and of sets.
    types: &'a str,
    /// The form of the ids of users.
    id: &'a str,
    /// The relation, without braces, and without its collection.
    relation: &'a str,
    /// Who asks: `type:id`.
    subjects: &'a [&'a str],
    /// Documents. There is a resource for each.
    documents: Vec<Document>,
}

impl Shape<'_> {
    /// Asserts that filtered facts, from documents and from mongod, decide as whole facts do: for a relation of documents of
    /// another collection and of the resource's own one, that grants and that stands under a `!`.
    async fn assert_filtered_facts_decide(&self) {
        self.assert_of(r#"collection = "in", by = "thing", "#, r#"collection = "out", by = "thing", "#, "").await;
        self.assert_of("", "", r#"collection = "things""#).await;
    }

    async fn assert_of(&self, place_in: &str, place_out: &str, own: &str) {
        let Self { types, id, relation, .. } = self;
        let text = format!(
            r#"
            default_subject = "user"
            [subject.user]
            id = "{id}"
            {types}
            [resource.thing]
            id = "integer"
            {own}
            [resource.thing.relations]
            in  = {{ {place_in} {relation} }}
            out = {{ {place_out} {relation} }}
            [resource.thing.permissions]
            is     = "in"
            is_not = "!out"
            "#
        );
        let mut documents = Vec::new();
        for (number, document) in (0..).zip(&self.documents) {
            let mut document = document.clone();
            document.insert("thing", number);
            document.insert("_id", number);
            documents.push(document);
        }
        let names = ["in", "out", "things"];
        let mut collections = Collections::from(names.map(|name| (name.to_owned(), documents.clone())));
        collections.insert("members".to_owned(), vec![doc! { "_id": 1, "team": "t1", "user": "me" }]);
        let schema = Arc::new(schema("shape.toml", &text));
        let database = mongo().database().await;
        fill(&database, &schema, &collections).await;
        let mongodb = MongoDb::open(Arc::clone(&schema), database).await.expect("mongod answers");
        let memory = Documents::new(&schema, &collections);
        let questions: Vec<Question> = ["is", "is_not"]
            .iter()
            .flat_map(|permission| self.subjects.iter().chain(&["anonymous"]).map(move |subject| (permission, subject)))
            .flat_map(|asked| (0..self.documents.len()).map(move |number| (asked, format!("thing:{number}"))))
            .map(|((permission, subject), thing)| question(&schema, subject, permission, &thing))
            .collect();
        let whole = Answers { schema: &schema, source: &memory, is_filtered: false }.of(&questions).await;
        for (source, name) in [(&memory as &dyn Source, "documents"), (&mongodb, "mongod")] {
            let filtered = Answers { schema: &schema, source, is_filtered: true }.of(&questions).await;
            for (question, (whole, filtered)) in questions.iter().zip(whole.iter().zip(filtered)) {
                let is_asked = |document: &&Document| {
                    document.get_i32("_id").is_ok_and(|id| Id::Integer(id.into()) == question.resource.id)
                };
                let document = documents.iter().find(is_asked);
                assert_eq!(filtered, *whole, "{name}: {question:?}, {relation}, {}", document.expect("it exists"));
            }
        }
    }
}

/// Answers questions from whole facts, or as if every whole fact of things were over its limit.
struct Answers<'a> {
    schema: &'a Schema,
    source: &'a dyn Source,
    is_filtered: bool,
}

impl Answers<'_> {
    async fn of(&self, questions: &[Question]) -> Vec<Verdict> {
        let mut facts = Loaded::default();
        loop {
            let mut missing = Vec::new();
            let verdicts: Vec<_> =
                questions.iter().map(|question| evaluate(self.schema, question, &facts, NOW, &mut missing)).collect();
            if missing.is_empty() {
                return verdicts;
            }
            missing.sort_unstable();
            missing.dedup();
            let is_large =
                |key: &FactKey| self.is_filtered && key.subject.is_none() && matches!(key.id, Id::Integer(_));
            let (large, small): (Vec<_>, Vec<_>) = missing.into_iter().partition(is_large);
            facts.0.extend(large.into_iter().map(|key| (key.clone(), Fact::over_limit(key, Moment::default()))));
            let moment = self.source.probe(Deadline::after(TIME_MAX)).await.expect("a moment");
            for (key, fact) in self.source.load(small, &[], moment, Deadline::after(TIME_MAX)).await {
                facts.0.insert(key, fact.expect("a fact"));
            }
        }
    }
}

#[derive(Default)]
struct Loaded(BTreeMap<FactKey, Fact>);

impl AvailableFacts for Loaded {
    fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&Fact> {
        self.0.get(&FactKey { lookup, id: id.clone(), subject: subject.cloned().map(Box::new) })
    }
}

/// Values that are no id of any form.
fn no_ids() -> Vec<Bson> {
    vec![
        Bson::Null,
        "".into(),
        true.into(),
        5.5.into(),
        f64::NAN.into(),
        1e300.into(),
        Bson::Decimal128("0.5".parse().unwrap()),
        Bson::Decimal128("9223372036854775808".parse().unwrap()),
        Bson::DateTime(bson::DateTime::from_millis(0)),
        doc! { "_id": 1 }.into(),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Symbol("x".to_owned()),
        Bson::Timestamp(bson::Timestamp { time: 1, increment: 1 }),
        bson::Binary { subtype: bson::spec::BinarySubtype::UuidOld, bytes: vec![7; 16] }.into(),
        bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![7; 20] }.into(),
        Bson::Array(Vec::new()),
        Bson::Array(vec![Bson::Null]),
        Bson::Array(vec![Bson::Array(Vec::new())]),
    ]
}
