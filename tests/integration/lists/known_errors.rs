//! Errors that lists of other authorization services had in public: none of them happens here.
//!
//! A client that combines a plan by `$or` is tested with the clients, page tokens that cannot be parsed and permissions that the schema
//! does not have with `transport`, and lists of subjects who are excluded from everybody with `list_subjects`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use mongodb::{
    Database,
    bson::{Bson, Document, doc},
};
use permcached::{
    check::{CheckError, Consistency},
    freshness::Moment,
    list::{Asker, ListError, ListQuestion, PlanKind, PlanOptions, ResourcePage},
    question::{Id, Subject},
    schema::Path,
    source::{self, Deadline, Listed, Source, SourceError, documents::Documents, mongodb::MongoDb},
};

use super::{Listing, both, collections, list_question, parsed};
use crate::support::{
    both::{Collections, TIME_MAX, fill, subject_text},
    live::Live,
    servers::mongo,
    wrapper::{Wrapped, Wrapper},
};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"

[subject.robot]
id = "string"

[resource.file]
id = "integer"
collection = "files"

[resource.file.relations]
owner = { field = "owner" }
viewer = { field = "viewers", wildcard = true }
guest = { collection = "shares", by = "file", field = "user", wildcard = true }
banned = { collection = "bans", by = "file", field = "user" }
blocked = { field = "blocked" }

[resource.file.permissions]
read = "owner"
view = "viewer & !blocked"
visit = "guest & !banned"
open = "!banned"
either = "owner | guest"
"#;

fn documents() -> Collections {
    let file = |number: i64| match number % 4 {
        0 => doc! { "_id": number, "owner": "ann", "viewers": ["*"], "blocked": ["bob"] },
        1 => doc! { "_id": number, "owner": "bob", "viewers": ["*"] },
        2 => doc! { "_id": number, "owner": "ann", "viewers": "bob" },
        _ => doc! { "_id": number, "viewers": ["ann", "*"], "blocked": 7 },
    };
    let shares = (0..2_500i64).map(|number| doc! { "file": number, "user": if number % 2 == 0 { "*" } else { "ann" } });
    let bans = (0..2_500i64).step_by(3).map(|number| doc! { "file": number, "user": "bob" });
    collections([("files", (0..2_500).map(file).collect()), ("shares", shares.collect()), ("bans", bans.collect())])
}

fn numbers(wanted: impl Fn(i64) -> bool) -> Vec<Id> {
    (0..2_500).filter(|number| wanted(*number)).map(Id::Integer).collect()
}

#[tokio::test]
async fn a_plan_that_denies_has_a_filter_that_finds_nothing() {
    for listing in both(SCHEMA, &documents()).await {
        for subject in ["robot:1", "anonymous"] {
            for permission in ["read", "view", "visit"] {
                let question = listing.question(subject, permission, "file");
                let plan = listing.plan(&question, PlanOptions::default()).await.unwrap();
                assert_eq!((plan.kind, plan.filter), (PlanKind::None, doc! { "_id": { "$in": [] } }));
                assert_eq!(listing.pages(&question, 10, None).await.unwrap(), []);
            }
        }
    }
}

#[tokio::test]
async fn no_list_is_cut_off_at_a_thousand() {
    for listing in both(SCHEMA, &documents()).await {
        let expected = numbers(|number| number % 4 == 0 || number % 4 == 2);
        assert!(expected.len() > 1_000);
        for size in [999, 1_000] {
            let question = listing.question("user:ann", "read", "file");
            assert_eq!(listing.pages(&question, size, None).await.unwrap(), expected);
        }
        let question = listing.question("user:ann", "visit", "file");
        assert_eq!(listing.pages(&question, 1_000, None).await.unwrap().len(), 2_500, "nobody banned her");
    }
}

#[tokio::test]
async fn what_excludes_a_subject_excludes_it_from_what_everybody_has() {
    for listing in both(SCHEMA, &documents()).await {
        let view = listing.question("user:bob", "view", "file");
        let expected = numbers(|number| number % 4 == 1 || number % 4 == 2);
        assert_eq!(listing.pages(&view, 1_000, None).await.unwrap(), expected, "7 blocks nobody for certain");
        let visit = listing.question("user:bob", "visit", "file");
        let expected = numbers(|number| number % 2 == 0 && number % 3 != 0);
        assert_eq!(listing.pages(&visit, 1_000, None).await.unwrap(), expected);
        // A plan never finds less than is allowed. What it finds beside that is checked.
        let options = PlanOptions { ids_max: 10_000, ..PlanOptions::default() };
        let plan = listing.plan(&visit, options).await.unwrap();
        assert!(matches!(plan.kind, PlanKind::Exact | PlanKind::Superset), "{plan:?} {}", plan.filter);
    }
}

/// A lister over mongod, with its database.
async fn stored(documents: &Collections) -> (Listing, Database) {
    let (schema, database) = (parsed(SCHEMA), mongo().database().await);
    fill(&database, &schema, documents).await;
    let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.expect("mongod answers");
    (Listing::new(&schema, Arc::new(source)), database)
}

#[tokio::test]
async fn a_plan_excludes_whom_a_check_excludes_or_its_results_must_be_checked() {
    let (listing, database) = stored(&documents()).await;
    for (permission, kind) in [("view", PlanKind::Exact), ("visit", PlanKind::Superset)] {
        for subject in ["user:ann", "user:bob", "user:cat"] {
            let question = listing.question(subject, permission, "file");
            let allowed = listing.allowed(&question, numbers(|_| true)).await;
            let options = PlanOptions { ids_max: 10_000, ..PlanOptions::default() };
            let plan = listing.plan(&question, options).await.unwrap();
            assert_eq!(plan.kind, kind, "{subject} {permission}");
            let found = database.collection::<Document>("files").distinct("_id", plan.filter).await.unwrap();
            let found: Vec<Id> = found.iter().filter_map(Bson::as_i64).map(Id::Integer).collect();
            match kind {
                PlanKind::Exact => assert_eq!(found, allowed, "{subject} {permission}"),
                _ => assert!(allowed.iter().all(|id| found.contains(id)), "{subject} {permission}"),
            }
        }
    }
}

/// Documents of which a listing that goes on hangs.
struct Hanging(Documents);

#[async_trait]
impl Wrapper for Hanging {
    fn inner(&self) -> &dyn Source {
        &self.0
    }

    async fn list(&self, listing: source::Listing, at: Moment, deadline: Deadline) -> Result<Listed, SourceError> {
        if listing.after.is_some() {
            tokio::time::sleep_until(deadline.instant()).await;
            return Err(SourceError::TimedOut);
        }
        self.0.list(listing, at, deadline).await
    }
}

#[tokio::test]
async fn a_list_that_ends_after_3_s_has_a_token_for_the_rest_or_is_an_error() {
    let schema = parsed(SCHEMA);
    let documents = documents();
    let hanging = Listing::new(&schema, Arc::new(Wrapped(Hanging(Documents::new(&schema, &documents)))));
    let question = hanging.question("user:bob", "visit", "file");
    let deadline = || Deadline::after(Duration::from_secs(3));
    let page = |after| ResourcePage { size: 1_000, after, within: None };
    let list = hanging.lister.list_resources(&question, Consistency::FullyConsistent, page(None), deadline());
    let reference = PlanOptions { ids_max: 10_000, reference: Some(Path::parse("file").unwrap()) };
    let plan = hanging.lister.plan_filter(&question, Consistency::FullyConsistent, reference, deadline());
    let (list, plan) = tokio::join!(list, plan);
    assert!(matches!(&plan, Err(ListError::Check(CheckError::DeadlineExceeded))), "{plan:?}");
    let list = list.unwrap();
    let mut listed: Vec<Id> = list.resources.into_iter().map(|resource| resource.id).collect();
    let expected = numbers(|number| number % 2 == 0 && number % 3 != 0);
    assert!(!listed.is_empty() && listed.len() < expected.len(), "{listed:?}");
    assert!(list.next.is_some(), "it says that there are more");
    let whole = Listing::over_documents(&schema, &documents);
    let rest = whole.page(&question, page(list.next)).await.unwrap();
    listed.extend(rest.resources.into_iter().map(|resource| resource.id));
    assert_eq!(listed, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_skip_and_repeat_nothing_while_resources_come_and_go() {
    // Every second file is the subject's own, and the others are shared with it.
    let is_own = |number: i64| number % 20 == 0;
    let file = |number: i64| doc! { "_id": number, "owner": if is_own(number) { "ann" } else { "bob" } };
    let share = |number: i64| doc! { "file": number, "user": if is_own(number) { "bob" } else { "ann" } };
    let throughout: Vec<i64> = (1..=10).map(|number| 10 * number).collect();
    let [files, shares] = [
        throughout.iter().map(|number| file(*number)).collect(),
        throughout.iter().map(|number| share(*number)).collect(),
    ];
    let live = Live::new(SCHEMA, &[("files", files), ("shares", shares)]).await;
    let question = list_question(&live.schema, subject_text("user:ann"), "either", "file");
    let (mut after, mut listed) = (None, Vec::new());
    for round in 1..20 {
        let (page, deadline) = (ResourcePage { size: 2, after: after.take(), within: None }, Deadline::after(TIME_MAX));
        let list =
            live.app.lister.list_resources(&question, Consistency::FullyConsistent, page, deadline).await.unwrap();
        listed.extend(list.resources.iter().map(|resource| resource.id.clone()));
        after = list.next;
        if after.is_none() {
            break;
        }
        // Before and after the place that the list has reached.
        for number in [round - 100, 50 + round] {
            live.insert("files", vec![doc! { "_id": number, "owner": "ann" }]).await;
            live.insert("shares", vec![doc! { "file": number, "user": "ann" }]).await;
        }
        live.delete("files", doc! { "_id": round - 100 }).await;
    }
    assert!(after.is_none(), "the list ends");
    assert!(listed.is_sorted_by(|one, next| one < next), "nothing is repeated: {listed:?}");
    let missing: Vec<&i64> = throughout.iter().filter(|number| !listed.contains(&Id::Integer(**number))).collect();
    assert!(missing.is_empty(), "{missing:?} are skipped: {listed:?}");
}

#[tokio::test]
async fn an_exclusion_alone_is_refused_and_nothing_is_taken_for_allowed() {
    for listing in both(SCHEMA, &documents()).await {
        let question = listing.question("user:bob", "open", "file");
        match listing.plan(&question, PlanOptions::default()).await {
            Ok(plan) => assert_ne!(plan.kind, PlanKind::All),
            Err(ListError::NotNarrowable { part, remedy }) => {
                assert!(part.contains("banned") && !remedy.is_empty(), "{part}: {remedy}");
            }
            Err(error) => panic!("{error}"),
        }
        match listing.pages(&question, 1_000, None).await {
            Ok(listed) => assert_eq!(listed, numbers(|number| number % 3 != 0)),
            Err(ListError::NotNarrowable { part, remedy }) => assert!(!part.is_empty() && !remedy.is_empty()),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_list_starts_from_what_the_subject_has() {
    // Two files of a million that somebody may read: as many candidates are looked at.
    let mut documents = documents();
    documents
        .insert("shares".to_owned(), vec![doc! { "file": 3, "user": "cat" }, doc! { "file": 2_400, "user": "cat" }]);
    for listing in both(SCHEMA, &documents).await {
        let question = listing.question("user:cat", "visit", "file");
        let list = listing.page(&question, ResourcePage { size: 100, after: None, within: None }).await.unwrap();
        assert_eq!((list.resources.len(), list.examined), (2, 2));
    }
}

#[tokio::test]
async fn the_secret_of_a_link_is_in_the_query_only() {
    const LINKS: &str = r#"
default_subject = "link"
[subject.link]
id = "string"
secret = true
[resource.file]
id = "integer"
collection = "files"
[resource.file.relations]
link = { field = "token" }
shared = { collection = "shares", by = "file", field = "token" }
[resource.file.permissions]
read = "link | shared"
"#;
    let files: Vec<Document> =
        (0..10).map(|number| doc! { "_id": number, "token": format!("t0ken-{number}") }).collect();
    let shares = vec![doc! { "file": 7, "token": "t0ken-3" }, doc! { "file": 8, "token": "t0ken-4" }];
    let documents = collections([("files", files), ("shares", shares)]);
    for listing in both(LINKS, &documents).await {
        let question = listing.question("link:t0ken-3", "read", "file");
        assert!(matches!(&question.asker.subject, Subject::Known { id: Id::Digest(_), .. }));
        assert_eq!(listing.texts("link:t0ken-3", "read", "file").await.unwrap(), ["3", "7"]);
        assert!(listing.texts("link:t0ken-33", "read", "file").await.unwrap().is_empty());
        let plan = listing.plan(&question, PlanOptions::default()).await.unwrap();
        assert_eq!(plan.kind, PlanKind::Exact);
        assert!(plan.filter.to_string().contains("t0ken-3"), "a query must contain it");
        assert!(!format!("{question:?}").contains("t0ken"));

        // Documents contain no digest, so there is nothing to search for without the secret.
        let asker = Asker::new(question.asker.subject.clone());
        let question = ListQuestion { asker, ..question };
        let page = ResourcePage { size: 10, after: None, within: None };
        let errors = [
            listing.plan(&question, PlanOptions::default()).await.map(drop),
            listing.page(&question, page).await.map(drop),
        ];
        for error in errors {
            let Err(ListError::NotNarrowable { part, remedy }) = error else { panic!("{error:?}") };
            assert_eq!((part.as_str(), remedy.as_str()), ("file#shared", "A query needs the secret itself."));
        }
    }
}
