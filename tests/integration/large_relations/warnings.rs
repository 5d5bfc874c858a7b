//! What the log says of large facts: of the first key before the limit, beyond it, and beyond it even for one subject.

use bson::{Document, doc};
use tokio::task::spawn_blocking;

use super::cost::SCHEMA;
use crate::support::{
    both::{Collections, fill, schema},
    command::{Serving, schema_file},
    servers::mongo,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_the_first_key_of_each_size_from_three_quarters_of_the_limit_on() {
    let sizes = [("749", 749), ("750", 750), ("1000", 1_000), ("1001", 1_001)];
    let members = sizes.into_iter().flat_map(|(group, count)| (0..count).map(move |number| (group, number)));
    let mut members: Vec<Document> =
        members.map(|(group, number)| doc! { "group": group, "user": format!("m{number}") }).collect();
    // A number could mean any user.
    members.extend((0..1_001).map(|number| doc! { "group": "numbers", "user": number }));
    let database = mongo().database().await;
    fill(&database, &schema("cost.toml", SCHEMA), &Collections::from([("memberships".to_owned(), members)])).await;
    let (_directory, file) = schema_file(SCHEMA);
    let (uri, name) = (mongo().uri(), database.name().to_owned());
    let serving = move || {
        let variables = [("MONGODB_URI", uri.as_str()), ("MONGODB_DATABASE", &name)];
        let serving = Serving::start_with(&["--schema", &file], &variables);
        let ask = |group: &str| {
            let (code, errors) = serving.start_client(&["check", "user:m7", "enter", &format!("group:{group}")]).wait();
            assert_eq!(code, Some(i32::from(group == "numbers")), "{group}: {errors}");
        };
        let warned = |beginning: &str| {
            let line = serving.logged_with(beginning);
            assert_eq!(line["level"], "WARN", "{line}");
            ["collection", "field", "key"].map(|name| line[name].as_str().expect("a text").to_owned())
        };
        ask("749");
        ask("750");
        assert_eq!(warned("three quarters of the documents"), ["memberships", "group", "750"]);
        ask("1000");
        ask("1001");
        assert_eq!(warned("it is read for each subject"), ["memberships", "group", "1001"]);
        ask("numbers");
        assert_eq!(warned("even for one subject"), ["memberships", "group", "numbers"]);
    };
    spawn_blocking(serving).await.expect("no panic");
}

/// No index helps to read one document.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_recommends_no_index_for_a_document_with_many_ids() {
    const LISTED: &str = r#"
        default_subject = "user"
        [subject.user]
        id = "integer"
        [resource.group]
        id = "string"
        collection = "groups"
        [resource.group.relations]
        member = { field = "members" }
        [resource.group.permissions]
        enter = "member"
    "#;
    let members: Vec<i64> = (0..25_000).collect();
    let groups = vec![doc! { "_id": "g", "members": members }];
    let database = mongo().database().await;
    fill(&database, &schema("listed.toml", LISTED), &Collections::from([("groups".to_owned(), groups)])).await;
    let (_directory, file) = schema_file(LISTED);
    let (uri, name) = (mongo().uri(), database.name().to_owned());
    let serving = move || {
        let variables = [("MONGODB_URI", uri.as_str()), ("MONGODB_DATABASE", &name)];
        let serving = Serving::start_with(&["--schema", &file], &variables);
        let (code, errors) = serving.start_client(&["check", "user:7", "enter", "group:g"]).wait();
        assert_eq!(code, Some(0), "{errors}");
        let line = serving.logged_with("it is read for each subject");
        assert_eq!((line["collection"].as_str(), line["key"].as_str()), (Some("groups"), Some("g")), "{line}");
        assert!(!line.to_string().contains("index"), "{line}");
    };
    spawn_blocking(serving).await.expect("no panic");
}
