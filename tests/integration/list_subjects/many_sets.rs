//! Lists of subjects whose own documents lead to many sets: one listing for all of them.

use std::sync::Arc;

use bson::{Document, doc};
use permcached::{
    app::{Parts, assemble},
    check::Consistency,
    source::mongodb::MongoDb,
};

use super::{Asked, shown};
use crate::support::{
    both::{Collections, fill, schema},
    monitored::{Monitor, commands},
    servers::mongo,
};

const SCHEMA: &str = r#"
default_subject = "user"
[subject.user]
id = "integer"
collection = "users"
[subject.user.relations]
teams = { field = "teams", resource = "team" }
[resource.team]
id = "integer"
[resource.team.relations]
member = { of = "user.teams" }
[resource.doc]
id = "integer"
collection = "docs"
[resource.doc.relations]
team = { field = "teams", subject = "team.member" }
[resource.doc.permissions]
read = "team"
"#;

/// User 1 is in team 10, user 2 in team 20, and so on.
#[tokio::test]
async fn the_subjects_of_many_sets_are_listed_together() {
    let counts = [100, 101, 500, 1_000];
    let doc = |count: i64| doc! { "_id": count, "teams": (0..count).collect::<Vec<_>>() };
    let users = (0..=120i64).map(|number| doc! { "_id": number, "teams": [10 * number, 5_000 + number] });
    let documents: Collections =
        [("docs".to_owned(), counts.map(doc).into()), ("users".to_owned(), users.collect())].into();
    let (database, schema) = (mongo().database().await, Arc::new(schema("many_sets.toml", SCHEMA)));
    fill(&database, &schema, &documents).await;
    let index = doc! { "createIndexes": "users", "indexes": [{ "key": { "teams": 1 }, "name": "teams" }] };
    database.run_command(index).await.unwrap();
    let monitor = Monitor::default();
    let client = monitor.client(mongo(), "many-sets").await;
    let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.expect("mongod answers");
    let app = assemble(Parts::new(Arc::clone(&schema), Arc::new(source)));
    for count in counts {
        monitor.take();
        let asked = Asked::parse(&schema, &format!("read doc:{count} user"));
        let list = asked.pages(&app.lister, 1_000, Consistency::FullyConsistent).await.expect("a list");
        let expected: Vec<String> =
            (0..=120).filter(|number| 10 * number < count).map(|user| user.to_string()).collect();
        assert_eq!(shown(&schema, &list), format!("{} NO", expected.join(" ")), "{count} sets");
        let finds = commands(&monitor.take(), "find");
        let is_listing =
            |find: &&Document| find.get_str("find").is_ok_and(|name| name == "users") && find.contains_key("sort");
        let listings = finds.iter().filter(is_listing).count();
        assert_eq!(listings, if count <= 100 { 100 } else { 1 }, "{count} sets");
    }
}
