//! Serves the same documents from both sources: from memory, and from a database of a real replica set with the indexes that
//! the schema requires.
//!
//! It asks both sources and returns both answers. It does not compare them unless a test calls [`Both::objection`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use mongodb::{
    Database,
    bson::{Document, doc},
};
use permcached::{
    app::{App, Parts, assemble},
    check::{CheckError, Checked, Checker, Consistency},
    diagnosis::Diagnosis,
    question::{Answer, Millis, Question},
    schema::{Schema, SubjectText},
    source::{Deadline, Source, documents::Documents, mongodb::MongoDb},
    telemetry::Metrics,
};

use super::servers::mongo;

/// Documents by collection.
pub type Collections = BTreeMap<String, Vec<Document>>;

/// The maximal duration of a test's request: so long that only a fault exceeds it.
pub const TIME_MAX: Duration = Duration::from_mins(1);

/// One of the shipped schemas, by the name of its file.
pub fn shipped_schema(name: &str) -> Schema {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    schema(name, &text)
}

/// Parses a schema, and panics with its errors if it has any.
pub fn schema(name: &str, text: &str) -> Schema {
    Schema::parse(name, text).unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

/// Creates a question from texts such as `user:65f…` (or `anonymous`), `read` and `file:65f…`.
pub fn question(schema: &Schema, subject: &str, permission: &str, resource: &str) -> Question {
    let (kind, id) = resource.split_once(':').expect("type:id");
    let asked = schema.question(subject_text(subject), permission, kind, id);
    asked.unwrap_or_else(|wrong| panic!("{subject} {permission} {resource}: {wrong:?}"))
}

/// Reads a subject such as `user:65f…` or `anonymous`.
pub fn subject_text(subject: &str) -> SubjectText<'_> {
    match subject.split_once(':') {
        Some((kind, id)) => SubjectText::Known { kind, id },
        None => SubjectText::Anonymous,
    }
}

/// The answer as text: `allowed by file#owner`, or `denied NO_GRANT`.
pub fn shown(schema: &Schema, answer: Answer) -> String {
    match answer {
        Answer::Allowed { by: Some(relation), .. } => format!("allowed by {}", schema.relation_name(relation)),
        Answer::Allowed { by: None, .. } => "allowed".to_owned(),
        Answer::Denied(reason) => format!("denied {}", reason.as_str()),
    }
}

/// Stores documents in a database, and creates the indexes that the schema's lookups require.
pub async fn fill(database: &Database, schema: &Schema, collections: &Collections) {
    for (name, documents) in collections.iter().filter(|(_, documents)| !documents.is_empty()) {
        let inserted = database.collection::<Document>(name).insert_many(documents).await;
        inserted.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // Lookups of one field share its index.
    let lookups: BTreeSet<_> = schema.lookups().map(|(_, lookup)| (&*lookup.collection, lookup.by.as_str())).collect();
    for (collection, field) in lookups.into_iter().filter(|(_, field)| *field != "_id") {
        let index = doc! { "key": { field: 1 }, "name": field };
        let command = doc! { "createIndexes": collection, "indexes": [index] };
        database.run_command(command).await.expect("an index");
    }
}

/// A checker over one source, with its own metrics.
pub struct Asked {
    pub schema: Arc<Schema>,
    pub checker: Checker,
    pub metrics: Arc<Metrics>,
    pub source: Arc<dyn Source>,
}

impl Asked {
    pub fn new(schema: &Arc<Schema>, source: Arc<dyn Source>) -> Self {
        let App { schema, checker, metrics, .. } = assemble(Parts::new(Arc::clone(schema), Arc::clone(&source)));
        Self { schema, checker, metrics, source }
    }

    /// Lets the source look at some documents, as at the start of the service.
    pub async fn survey(&self) -> Vec<Diagnosis> {
        self.source.survey().await
    }

    /// Answers the questions in order, at the time `now`.
    pub async fn check(&self, questions: &[Question], now: Millis) -> Vec<Result<Checked, CheckError>> {
        let deadline = Deadline::after(TIME_MAX);
        self.checker.check_at(questions, Consistency::FullyConsistent, deadline, move || now).await
    }

    /// The value of a metric of the service, as [`counted`] finds it.
    pub fn metric(&self, series: &str) -> u64 {
        counted(&self.metrics, series)
    }
}

/// The value of a metric in the format of `/metrics`: of the first series with this name and these labels.
pub fn counted(metrics: &Metrics, series: &str) -> u64 {
    let text = metrics.render();
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = found.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    value.strip_suffix(".0").unwrap_or(value).parse().unwrap_or_else(|_| panic!("{series} {value}"))
}

/// The number of facts that were found in a tier.
pub fn found_in(metrics: &Metrics, tier: &str) -> u64 {
    counted(metrics, &format!("permcached_facts_found_total{{tier=\"{tier}\"}}"))
}

/// The number of facts that were requested from a tier.
pub fn asked_of(metrics: &Metrics, tier: &str) -> u64 {
    found_in(metrics, tier) + counted(metrics, &format!("permcached_facts_missed_total{{tier=\"{tier}\"}}"))
}

/// A checker over each of the two sources, with the same documents.
pub struct Both {
    pub schema: Arc<Schema>,
    pub database: Database,
    pub documents: Asked,
    pub mongodb: Asked,
}

impl Both {
    pub async fn new(schema: Schema, collections: &Collections) -> Self {
        let schema = Arc::new(schema);
        let database = mongo().database().await;
        fill(&database, &schema, collections).await;
        let documents = Asked::new(&schema, Arc::new(Documents::new(&schema, collections)));
        let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.expect("mongod answers");
        let mongodb = Asked::new(&schema, Arc::new(source));
        Self { schema, database, documents, mongodb }
    }

    /// The answers of both sources to each question, in order: first from documents in memory, then from MongoDB.
    pub async fn ask(&self, questions: &[Question], now: Millis) -> Vec<[Answer; 2]> {
        let documents = self.documents.check(questions, now).await;
        let mongodb = self.mongodb.check(questions, now).await;
        let answer = |checked: Result<Checked, CheckError>| checked.expect("an answer").answer;
        documents.into_iter().zip(mongodb).map(|(left, right)| [answer(left), answer(right)]).collect()
    }

    /// The objection to a pair of answers, if there is one: they differ, or `wanted` rejects their text. [`shown`] gives the
    /// text.
    pub fn objection(&self, answers: [Answer; 2], wanted: impl Fn(&str) -> bool) -> Option<String> {
        let [documents, mongodb] = answers;
        let text = shown(&self.schema, documents);
        if documents != mongodb {
            return Some(format!("over documents {documents:?}, over mongod {mongodb:?}"));
        }
        (!wanted(&text)).then_some(text)
    }
}
