//! Pages: the caller's own condition, candidates from several places, pages that end early, and what each resource on them shows.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use mongodb::bson::{DateTime, Document, doc};
use permcached::{
    check::{CheckError, Consistency},
    fact::{Fact, FactKey},
    freshness::Moment,
    list::{ListError, Note, PlanKind, PlanOptions, ResourcePage},
    schema::{Condition, Path, Test},
    source::{Deadline, Source, SourceError, documents::Documents},
};

use super::{Listing, both, collections, parsed};
use crate::support::{
    both::Collections,
    wrapper::{Wrapped, Wrapper},
};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"
collection = "users"
where = { active = { "$ne" = false } }
until = "until"

[subject.user.relations]
admin = { where = { admin = true } }
teams = { field = "teams", resource = "team" }

[resource.team]
id = "string"

[resource.team.relations]
member = { of = "user.teams" }

[resource.team.permissions]
see = "member"

[resource.file]
id = "integer"
collection = "files"

[resource.file.relations]
owner = { field = "owner" }
team = { field = "team", subject = "team.member" }
guest = { collection = "shares", by = "file", field = "user", until = "until", wildcard = true }
deleted = { where = { deleted = true } }

[resource.file.permissions]
read = "!deleted & (owner | team | guest)"
all = "subject.admin | owner"
rest = "!owner"
"#;

fn documents() -> Collections {
    let file = |number: i64| {
        let mut file = doc! { "_id": number, "kind": if number % 3 == 0 { "note" } else { "image" } };
        match number % 5 {
            0 => file.insert("owner", "ann"),
            1 => file.insert("team", "red"),
            2 => file.insert("team", "blue"),
            _ => file.insert("owner", "bob"),
        };
        if number % 7 == 0 {
            file.insert("deleted", true);
        }
        file
    };
    let share = |number: i64, user: &str, until: i64| {
        doc! { "file": number, "user": user, "until": DateTime::from_millis(until) }
    };
    let later = super::now() + 3_600_000;
    let shares = vec![share(3, "ann", later), share(4, "ann", 1_000), share(8, "*", later + 1), share(7, "*", later)];
    let users = vec![
        doc! { "_id": "ann", "teams": ["red"], "admin": true },
        doc! { "_id": "bob", "teams": ["red", "blue"], "admin": "true" },
        doc! { "_id": "gone", "teams": ["red"], "admin": true, "active": false },
        doc! { "_id": "odd", "teams": ["red"], "admin": true, "active": "no" },
        doc! { "_id": "until", "until": DateTime::from_millis(later) },
    ];
    collections([("files", (0..200).map(file).collect()), ("shares", shares), ("users", users)])
}

fn numbers(ids: &[permcached::question::Id]) -> Vec<i64> {
    ids.iter().map(|id| id.to_string().parse().unwrap()).collect()
}

#[tokio::test]
async fn candidates_of_all_branches_are_merged_in_their_order() {
    for listing in both(SCHEMA, &documents()).await {
        let question = listing.question("user:ann", "read", "file");
        let is_read = |number: &i64| number % 7 != 0 && (number % 5 <= 1 || [3, 8].contains(number));
        let expected: Vec<i64> = (0..200).filter(is_read).collect();
        for size in [1, 2, 10, 83, 1_000] {
            assert_eq!(numbers(&listing.pages(&question, size, None).await.unwrap()), expected, "pages of {size}");
        }
        let page = ResourcePage { size: 10, after: None, within: None };
        let list = listing.page(&question, page).await.unwrap();
        let share = list.resources.iter().find(|resource| resource.id.to_string() == "3").unwrap();
        let by = share.granted_by.map(|by| listing.schema.relation_name(by));
        assert_eq!(by.as_deref(), Some("file#guest"));
        assert!(share.valid_until.is_some(), "until the share ends");
        assert_eq!(list.resources[0].valid_until, None);
        // Types without documents of their own have lists, too.
        assert_eq!(listing.texts("user:bob", "see", "team").await.unwrap(), ["blue", "red"]);
    }
}

#[tokio::test]
async fn the_condition_of_the_caller_narrows_every_branch_down() {
    let notes = Condition::Field(Path::parse("kind").unwrap(), Test::Eq("note".into()));
    for listing in both(SCHEMA, &documents()).await {
        let question = listing.question("user:ann", "read", "file");
        let all = numbers(&listing.pages(&question, 1_000, None).await.unwrap());
        let expected: Vec<i64> = all.into_iter().filter(|number| number % 3 == 0).collect();
        assert!(expected.contains(&3), "one of a branch from elsewhere");
        for size in [1, 7, 1_000] {
            assert_eq!(numbers(&listing.pages(&question, size, Some(&notes)).await.unwrap()), expected);
        }
        let without_documents = listing.question("user:ann", "see", "team");
        let error = listing.pages(&without_documents, 10, Some(&notes)).await;
        assert!(matches!(error, Err(ListError::NoCollection(_))), "{error:?}");
    }
}

#[tokio::test]
async fn a_subject_that_is_not_active_gets_nothing_whatever_grants_it() {
    for listing in both(SCHEMA, &documents()).await {
        for (subject, notes) in [
            ("user:gone", vec![Note::SubjectInactive]),
            ("user:nobody", vec![Note::SubjectInactive]),
            ("user:odd", vec![]),
        ] {
            for permission in ["read", "all", "rest"] {
                let question = listing.question(subject, permission, "file");
                let plan = listing.plan(&question, PlanOptions::default()).await.unwrap();
                assert_eq!((plan.kind, plan.notes), (PlanKind::None, notes.clone()), "{subject} {permission}");
                assert_eq!(plan.filter, doc! { "_id": { "$in": [] } });
                assert!(listing.pages(&question, 10, None).await.unwrap().is_empty());
            }
        }
        let plan = listing.plan(&listing.question("user:until", "read", "file"), PlanOptions::default()).await.unwrap();
        assert!(plan.valid_until.is_some_and(|until| until > plan.now), "until the user is suspended: {plan:?}");
    }
}

#[tokio::test]
async fn a_flag_of_the_subject_decides_a_plan_as_it_decides_a_check() {
    for listing in both(SCHEMA, &documents()).await {
        let plan = async |subject: &str, permission: &str| {
            let question = listing.question(subject, permission, "file");
            listing.plan(&question, PlanOptions::default()).await
        };
        let all = plan("user:ann", "all").await.unwrap();
        assert_eq!((all.kind, all.filter), (PlanKind::All, Document::new()));
        let question = listing.question("user:ann", "all", "file");
        assert_eq!(listing.pages(&question, 64, None).await.unwrap().len(), 200);
        // Indeterminate is neither true nor false.
        let own = plan("user:bob", "all").await.unwrap();
        assert_eq!(own.kind, PlanKind::Exact, "{own:?}");
        assert!(!own.filter.is_empty());
        let plan = plan("user:bob", "rest").await;
        assert!(plan.is_ok_and(|plan| plan.kind == PlanKind::Exact), "a field of the own document can be excluded");
    }
}

#[tokio::test]
async fn ids_for_another_collection_are_those_of_the_list() {
    for listing in both(SCHEMA, &documents()).await {
        let question = listing.question("user:ann", "read", "file");
        let listed = listing.pages(&question, 1_000, None).await.unwrap();
        let reference = |ids_max| PlanOptions { ids_max, reference: Some(Path::parse("file_id").unwrap()) };
        let plan = listing.plan(&question, reference(1_000)).await.unwrap();
        assert_eq!((plan.kind, plan.ids), (PlanKind::Exact, listed.len()));
        let numbers: Vec<i64> = numbers(&listed);
        assert_eq!(plan.filter, doc! { "file_id": { "$in": numbers } });
        assert!(plan.valid_until.is_some(), "until the first share ends");
        let exactly = listing.plan(&question, reference(listed.len())).await.unwrap();
        assert_eq!(exactly.ids, listed.len());
        let error = listing.plan(&question, reference(listed.len() - 1)).await;
        assert!(matches!(&error, Err(ListError::TooManyIds { .. })), "{error:?}");
        let nothing = listing.plan(&listing.question("user:until", "see", "team"), reference(10)).await.unwrap();
        assert_eq!((nothing.kind, nothing.filter), (PlanKind::None, doc! { "_id": { "$in": [] } }));
        let teams = listing.plan(&listing.question("user:bob", "see", "team"), reference(10)).await.unwrap();
        assert_eq!(teams.filter, doc! { "file_id": { "$in": ["blue", "red"] } });
    }
}

/// Documents that cannot be loaded from the lookups of some collection, after a number of loads.
struct Failing {
    documents: Arc<Documents>,
    schema: Arc<permcached::schema::Schema>,
    collection: &'static str,
}

#[async_trait]
impl Wrapper for Failing {
    fn inner(&self) -> &dyn Source {
        &*self.documents
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        if_large: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let loaded = self.documents.load(keys, if_large, at, deadline).await;
        let fails = |key: &FactKey| &*self.schema.lookup(key.lookup).collection == self.collection;
        let result = |key: FactKey, result| {
            let is_failed = fails(&key);
            (key, if is_failed { Err(SourceError::TimedOut) } else { result })
        };
        loaded.into_iter().map(|(key, loaded)| result(key, loaded)).collect()
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_no_shorter_list() {
    let schema = parsed(SCHEMA);
    for collection in ["users", "files", "shares"] {
        let documents = Arc::new(Documents::new(&schema, &documents()));
        let source = Wrapped(Failing { documents, schema: Arc::clone(&schema), collection });
        let listing = Listing::new(&schema, Arc::new(source));
        let question = listing.question("user:ann", "read", "file");
        let page = listing.page(&question, ResourcePage { size: 10, after: None, within: None }).await;
        assert!(matches!(&page, Err(ListError::Check(CheckError::Unavailable(_)))), "{collection}: {page:?}");
        let plan = listing.plan(&question, PlanOptions::default()).await;
        match (collection, plan) {
            // The filter asks for the files themselves.
            ("files", Ok(_)) => {}
            (_, Err(ListError::Check(CheckError::Unavailable(_)))) => {}
            (_, other) => panic!("{collection}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_deadline_that_is_over_is_an_error() {
    for listing in both(SCHEMA, &documents()).await {
        let question = listing.question("user:ann", "read", "file");
        let over = Deadline::after(Duration::ZERO);
        let page = ResourcePage { size: 10, after: None, within: None };
        let list = listing.lister.list_resources(&question, Consistency::FullyConsistent, page, over).await;
        assert!(matches!(&list, Err(ListError::Check(CheckError::DeadlineExceeded))), "{list:?}");
        let plan =
            listing.lister.plan_filter(&question, Consistency::FullyConsistent, PlanOptions::default(), over).await;
        assert!(matches!(&plan, Err(ListError::Check(CheckError::DeadlineExceeded))), "{plan:?}");
    }
}
