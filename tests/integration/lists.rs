//! Lists: which resources a subject may access, over documents in memory and over real servers.
//!
//! What a filter finds is tested in `filters`; what is tested here are candidates, id sets, pages and freshness.

mod beside_checks;
mod brute_force;
mod cold;
mod hostile;
mod known_errors;
mod large;
mod pages;
mod revoked;
mod times;
mod trees;

use std::{collections::BTreeMap, sync::Arc};

use mongodb::bson::Document;
use permcached::{
    app::{App, Parts, assemble},
    check::{CheckError, Checker, Consistency},
    list::{Asker, ListError, ListQuestion, Lister, Plan, PlanOptions, ResourceList, ResourcePage, Secret},
    question::{Answer, Id, IdForm, Question, Resource, Subject},
    schema::{Condition, Schema, SubjectText},
    source::{Deadline, Source, documents::Documents, mongodb::MongoDb},
};

use crate::support::{
    both::{Collections, TIME_MAX, fill, schema, subject_text},
    servers::mongo,
};

/// A lister over one source.
pub struct Listing {
    pub schema: Arc<Schema>,
    pub lister: Lister,
    pub checker: Checker,
}

impl Listing {
    pub fn new(schema: &Arc<Schema>, source: Arc<dyn Source>) -> Self {
        Self::of(assemble(Parts::new(Arc::clone(schema), source)))
    }

    pub fn of(app: App) -> Self {
        let App { schema, lister, checker, .. } = app;
        Self { schema, lister, checker }
    }

    /// Over documents in memory.
    pub fn over_documents(schema: &Arc<Schema>, collections: &Collections) -> Self {
        Self::new(schema, Arc::new(Documents::new(schema, collections)))
    }

    /// Over a new database with these documents, and the indexes of all lookups.
    pub async fn over_mongodb(schema: &Arc<Schema>, collections: &Collections) -> Self {
        let database = mongo().database().await;
        fill(&database, schema, collections).await;
        let source = MongoDb::open(Arc::clone(schema), database).await.expect("mongod answers");
        Self::new(schema, Arc::new(source))
    }

    /// A list question from texts such as `user:1`, `read` and `file`.
    pub fn question(&self, subject: &str, permission: &str, kind: &str) -> ListQuestion {
        list_question(&self.schema, subject_text(subject), permission, kind)
    }

    pub async fn plan(&self, question: &ListQuestion, options: PlanOptions) -> Result<Plan, ListError> {
        self.lister.plan_filter(question, Consistency::FullyConsistent, options, Deadline::after(TIME_MAX)).await
    }

    pub async fn page(&self, question: &ListQuestion, page: ResourcePage) -> Result<ResourceList, ListError> {
        self.lister.list_resources(question, Consistency::FullyConsistent, page, Deadline::after(TIME_MAX)).await
    }

    /// The ids on all pages of this size. Asserts what holds for each page.
    pub async fn pages(
        &self,
        question: &ListQuestion,
        size: usize,
        within: Option<&Condition>,
    ) -> Result<Vec<Id>, ListError> {
        let mut all: Vec<Id> = Vec::new();
        let mut after = None;
        loop {
            let page = ResourcePage { size, after: after.clone(), within: within.cloned() };
            let list = self.page(question, page).await?;
            assert!(list.resources.len() <= size, "{} on a page of {size}", list.resources.len());
            assert!(list.resources.len() == size || list.next.is_none(), "a short page although there is time");
            assert!(list.examined >= list.resources.len() as u64, "each was examined");
            all.extend(list.resources.into_iter().map(|resource| resource.id));
            assert!(all.is_sorted_by(|one, next| one < next), "sorted, and each once: {all:?}");
            let Some(next) = list.next else { return Ok(all) };
            assert!(after.is_none_or(|after| after < next), "there is progress");
            assert!(all.last().is_none_or(|last| *last <= next), "no id is returned twice");
            after = Some(next);
        }
    }

    /// The ids of a list as texts, in pages of 100.
    pub async fn texts(&self, subject: &str, permission: &str, kind: &str) -> Result<Vec<String>, ListError> {
        let ids = self.pages(&self.question(subject, permission, kind), 100, None).await?;
        Ok(ids.iter().map(ToString::to_string).collect())
    }

    /// Those of these resources that a check allows at the time of the lister.
    pub async fn allowed(&self, question: &ListQuestion, ids: impl IntoIterator<Item = Id>) -> Vec<Id> {
        let ListQuestion { asker, permission, kind } = question;
        let one = |id| {
            let resource = Resource { kind: *kind, id };
            Question { subject: asker.subject.clone(), permission: *permission, resource }
        };
        let questions: Vec<Question> = ids.into_iter().map(one).collect();
        let deadline = Deadline::after(TIME_MAX);
        let now = self.lister.fixed_now.unwrap_or_else(crate::lists::now);
        let checked = self.checker.check_at(&questions, Consistency::FullyConsistent, deadline, || now).await;
        let is_allowed = |result: Result<permcached::check::Checked, CheckError>| {
            matches!(result.expect("an answer").answer, Answer::Allowed { .. })
        };
        let results = questions.into_iter().zip(checked);
        results.filter_map(|(question, checked)| is_allowed(checked).then_some(question.resource.id)).collect()
    }
}

/// Milliseconds since the epoch.
pub fn now() -> i64 {
    mongodb::bson::DateTime::now().timestamp_millis()
}

/// A list question. The subject's text is its secret, if its type has secrets.
pub fn list_question(schema: &Schema, subject: SubjectText<'_>, permission: &str, kind: &str) -> ListQuestion {
    let form = schema.resources().find(|(_, resource)| &*resource.name == kind).expect("a type").1.id;
    let id = match form {
        IdForm::ObjectId => "000000000000000000000000",
        IdForm::String | IdForm::Integer => "0",
        IdForm::Uuid => "00000000-0000-4000-8000-000000000000",
    };
    let asked = schema.question(subject, permission, kind, id);
    let asked = asked.unwrap_or_else(|wrong| panic!("{subject:?} {permission} {kind}: {wrong:?}"));
    let is_secret = matches!(&asked.subject, Subject::Known { kind, .. } if schema.subject(*kind).secret);
    let secret = match subject {
        SubjectText::Known { id, .. } if is_secret => Some(Secret::new(id)),
        SubjectText::Known { .. } | SubjectText::Anonymous => None,
    };
    let asker = Asker { secret, ..Asker::new(asked.subject) };
    ListQuestion { asker, permission: asked.permission, kind: asked.resource.kind }
}

/// Documents by collection.
pub fn collections(of: impl IntoIterator<Item = (&'static str, Vec<Document>)>) -> Collections {
    of.into_iter().map(|(name, documents)| (name.to_owned(), documents)).collect::<BTreeMap<_, _>>()
}

/// A schema that must be valid.
pub fn parsed(text: &str) -> Arc<Schema> {
    Arc::new(schema("lists.toml", text))
}

/// A lister over documents in memory and one over MongoDB, with the same documents.
pub async fn both(text: &str, documents: &Collections) -> [Listing; 2] {
    let schema = parsed(text);
    [Listing::over_documents(&schema, documents), Listing::over_mongodb(&schema, documents).await]
}
