//! Checks while lists wait for the source: lists take only some of the finds that may run at once.

use std::{sync::Arc, time::Duration};

use mongodb::bson::doc;
use permcached::{
    app::{App, Parts, assemble},
    check::{Consistency, Settings},
    list::{ListError, ResourcePage},
    source::{Deadline, mongodb::MongoDb},
};
use tokio::task::JoinSet;

use super::{Listing, collections, parsed};
use crate::support::{
    both::{TIME_MAX, fill, question, shown},
    live::in_the_end,
    monitored::{FailPoint, Monitor, commands},
    servers::mongo,
};

/// Shares are found by the token of a link, by no fact.
const SCHEMA: &str = r#"
default_subject = "user"
[subject.user]
id = "string"
[subject.link]
id = "string"
secret = true
[resource.file]
id = "integer"
collection = "files"
[resource.file.relations]
owner = { field = "owner" }
link = { collection = "shares", by = "file", field = "token", subject = "link" }
[resource.file.permissions]
read = "owner | link"
"#;

/// More lists than finds may run at once.
const LISTS: usize = 100;

/// How many listings are read at once.
const AT_ONCE: usize = 16;

/// The name of the client whose finds wait.
const APP_NAME: &str = "lists-beside-checks";

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_wait_for_the_source_leave_finds_to_checks() {
    let (schema, database) = (parsed(SCHEMA), mongo().database().await);
    let documents = collections([
        ("files", (0..50).map(|number| doc! { "_id": number, "owner": "ann" }).collect()),
        ("shares", (0..50).map(|number| doc! { "file": number, "token": format!("t{number}") }).collect()),
    ]);
    fill(&database, &schema, &documents).await;
    let index = doc! { "createIndexes": "shares", "indexes": [{ "key": { "token": 1 }, "name": "token" }] };
    database.run_command(index).await.unwrap();
    let monitor = Monitor::default();
    // As many connections as the service has.
    let uri = format!("{}&maxPoolSize=88", mongo().uri());
    let client = monitor.client_of(&uri, APP_NAME).await;
    let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.expect("mongod answers");
    // One probe is enough for the whole test. A probe may read any collection.
    let settings = Settings { staleness_max: Duration::from_mins(5), ..Settings::default() };
    let app: App = assemble(Parts { settings, ..Parts::new(Arc::clone(&schema), Arc::new(source)) });
    let (checker, listing) = (app.checker.clone(), Listing::of(app));

    let first = question(&schema, "user:ann", "read", "file:0");
    checker.check_one(&first, Consistency::MinimizeLatency, Deadline::after(TIME_MAX)).await.expect("an answer");

    // mongod does not begin these finds, so they take nothing from others there.
    let namespace = format!("{}.shares", database.name());
    let blocked =
        doc! { "failCommands": ["find"], "namespace": namespace, "blockConnection": true, "blockTimeMS": 10_000 };
    let blocked = FailPoint::on(mongo(), APP_NAME, "alwaysOn", blocked).await;
    let mut lists = JoinSet::new();
    for number in 0..LISTS {
        let (lister, question) = (listing.lister.clone(), listing.question(&format!("link:t{number}"), "read", "file"));
        lists.spawn(async move {
            let page = ResourcePage { size: 10, after: None, within: None };
            lister.list_resources(&question, Consistency::MinimizeLatency, page, Deadline::after(TIME_MAX)).await
        });
    }
    let mut waiting = 0;
    in_the_end(async {
        while waiting < AT_ONCE {
            let finds = commands(&monitor.take(), "find");
            waiting += finds.iter().filter(|find| find.get_str("find").is_ok_and(|name| name == "shares")).count();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;

    // Each of a file that is not cached.
    for number in 1..50 {
        let asked = question(&schema, "user:ann", "read", &format!("file:{number}"));
        let checked = checker.check_one(&asked, Consistency::MinimizeLatency, Deadline::after(Duration::from_secs(5)));
        assert_eq!(shown(&schema, checked.await.expect("an answer").answer), "allowed by file#owner");
    }
    assert!(lists.try_join_next().is_none(), "no list has ended");
    blocked.off().await;
    while let Some(list) = lists.join_next().await {
        let list: Result<_, ListError> = list.expect("no panic");
        assert!(list.expect("a list").resources.len() <= 1);
    }
}
