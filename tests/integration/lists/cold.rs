//! The cost of lists without cached facts: how many finds they send. The driver's command monitoring counts them.
//!
//! How long a list takes is not measured here.

use std::{sync::Arc, time::Duration};

use mongodb::bson::{Bson, Document, doc};
use permcached::{
    app::{Parts, assemble},
    check::{Consistency, Settings},
    list::{PlanKind, PlanOptions, ResourcePage},
    source::{Deadline, mongodb::MongoDb},
};

use super::{Listing, collections, parsed};
use crate::support::{
    both::{Collections, TIME_MAX, fill},
    monitored::{Monitor, commands, level},
    servers::mongo,
};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"

[resource.folder]
id = "string"
collection = "folders"

[resource.folder.relations]
parent = { field = "parent", resource = "folder" }
guest = { collection = "shares", by = "folder", field = "user" }

[resource.folder.permissions]
read = "guest | parent.read"

[resource.file]
id = "string"
collection = "files"

[resource.file.relations]
folder = { field = "folder", resource = "folder" }

[resource.file.permissions]
read = "folder.read"
"#;

/// Ten trees of folders, each with this depth and three folders in each folder down to the third level.
fn trees(depth: usize) -> Vec<Document> {
    let mut folders = Vec::new();
    let mut level: Vec<String> = (0..10).map(|number| format!("r{number}")).collect();
    folders.extend(level.iter().map(|id| doc! { "_id": id, "parent": Bson::Null }));
    for depth in 1..depth {
        let width = if depth < 3 { 3 } else { 1 };
        let inner: Vec<(String, String)> =
            level.iter().flat_map(|id| (0..width).map(move |number| (format!("{id}.{number}"), id.clone()))).collect();
        folders.extend(inner.iter().map(|(id, parent)| doc! { "_id": id, "parent": parent }));
        level = inner.into_iter().map(|(id, _)| id).collect();
    }
    folders
}

async fn listing(app_name: &str, depth: usize) -> (Listing, Monitor) {
    let shares = (0..10).map(|number| doc! { "folder": format!("r{number}"), "user": "ann" });
    let files = (0..10).map(|number| doc! { "_id": format!("f{number}"), "folder": format!("r{number}") });
    let documents = collections([("folders", trees(depth)), ("shares", shares.collect()), ("files", files.collect())]);
    over(app_name, SCHEMA, &documents).await
}

/// A lister over a new database with these documents, whose commands are recorded.
async fn over(app_name: &str, schema: &str, documents: &Collections) -> (Listing, Monitor) {
    let schema = parsed(schema);
    let database = mongo().database().await;
    fill(&database, &schema, documents).await;
    let monitor = Monitor::default();
    let client = monitor.client(mongo(), app_name).await;
    let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.expect("mongod answers");
    // Long enough that no fact becomes too old, however busy the machine is.
    let settings = Settings { staleness_max: Duration::from_mins(1), ..Settings::default() };
    (Listing::of(assemble(Parts { settings, ..Parts::new(schema, Arc::new(source)) })), monitor)
}

/// The finds that read facts or listings.
fn finds(monitor: &Monitor) -> Vec<String> {
    let finds = commands(&monitor.take(), "find");
    let reads = finds.iter().filter(|find| level(find) == "snapshot");
    reads.map(|find| format!("{} {}", find.get_str("find").unwrap(), find.get("filter").unwrap())).collect()
}

#[tokio::test]
async fn a_plan_takes_three_finds_more_than_the_tree_is_deep() {
    for depth in [1, 4, 16] {
        let (listing, monitor) = listing("cold-plan", depth).await;
        let question = listing.question("user:ann", "read", "file");
        monitor.take();
        let options = PlanOptions { ids_max: 10_000, ..PlanOptions::default() };
        let plan = listing.plan(&question, options.clone()).await.unwrap();
        let cold = finds(&monitor);
        assert_eq!((plan.kind, plan.ids), (PlanKind::Exact, trees(depth).len()));
        println!("depth {depth}: {} finds", cold.len());
        assert!(cold.len() <= depth + 3, "depth {depth}: {} finds: {cold:#?}", cold.len());

        // From memory it takes none.
        let deadline = Deadline::after(TIME_MAX);
        for _ in 0..2 {
            let warm = listing.lister.plan_filter(&question, Consistency::MinimizeLatency, options.clone(), deadline);
            assert_eq!(warm.await.unwrap().filter, plan.filter);
        }
        assert!(finds(&monitor).is_empty());
    }
}

#[tokio::test]
async fn a_page_takes_three_finds_more_than_its_plan() {
    let (listing, monitor) = listing("cold-page", 4).await;
    let question = listing.question("user:ann", "read", "file");
    monitor.take();
    let list = listing.page(&question, ResourcePage { size: 100, after: None, within: None }).await.unwrap();
    let cold = finds(&monitor);
    assert_eq!(list.resources.len(), 10);
    // The query itself, and the files with what they lead to.
    assert!(cold.len() <= 4 + 3 + 2, "{} finds: {cold:#?}", cold.len());
}

/// Teams with files, of which each has more than a fact may have.
const TEAMS: &str = r#"
default_subject = "user"

[subject.user]
id = "string"

[resource.team]
id = "integer"
collection = "teams"

[resource.team.relations]
member = { field = "members" }

[resource.team.permissions]
see = "member"

[resource.file]
id = "integer"
collection = "files"

[resource.file.relations]
team = { collection = "of_teams", by = "file", field = "team", subject = "team.member" }

[resource.file.permissions]
read = "team"
"#;

/// The listings of files of teams.
fn listings(monitor: &Monitor) -> usize {
    let finds = commands(&monitor.take(), "find");
    finds
        .iter()
        .filter(|find| find.get_str("find").is_ok_and(|name| name == "of_teams") && find.contains_key("sort"))
        .count()
}

#[tokio::test]
async fn the_large_facts_of_many_sets_are_listed_together() {
    const TEAMS_COUNT: i64 = 30;
    const FILES: i64 = 1_001;
    let teams = (0..TEAMS_COUNT).map(|number| doc! { "_id": number, "members": ["ann"] });
    let of_teams = (0..TEAMS_COUNT).flat_map(|team| (0..FILES).map(move |file| doc! { "file": file, "team": team }));
    let files = (0..FILES).map(|number| doc! { "_id": number });
    let documents =
        collections([("teams", teams.collect()), ("of_teams", of_teams.collect()), ("files", files.collect())]);
    let (listing, monitor) = over("large-facts", TEAMS, &documents).await;
    let question = listing.question("user:ann", "read", "file");

    // A find for the first documents of a listing, and others if several documents have the same id.
    monitor.take();
    let plan = listing.plan(&question, PlanOptions { ids_max: 10_000, ..PlanOptions::default() }).await.unwrap();
    let count = listings(&monitor);
    assert_eq!(plan.ids, 1_001);
    assert!((1..=3).contains(&count), "{count} finds");

    let list = listing.page(&question, ResourcePage { size: 100, after: None, within: None }).await.unwrap();
    let count = listings(&monitor);
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(list.resources.iter().map(|resource| resource.id.to_string()).collect::<Vec<_>>(), expected);
    assert!((1..=5).contains(&count), "{count} finds");
}
