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
    both::{TIME_MAX, fill},
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
    let schema = parsed(SCHEMA);
    let database = mongo().database().await;
    let shares = (0..10).map(|number| doc! { "folder": format!("r{number}"), "user": "ann" });
    let files = (0..10).map(|number| doc! { "_id": format!("f{number}"), "folder": format!("r{number}") });
    let documents = collections([("folders", trees(depth)), ("shares", shares.collect()), ("files", files.collect())]);
    fill(&database, &schema, &documents).await;
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
