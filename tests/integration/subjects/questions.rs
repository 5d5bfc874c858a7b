//! Questions that are drawn from a database for load tests: half of them are asked by a subject that the resource leads to, also
//! if only the subject's own document names the team.

use std::sync::Arc;

use bson::{Document, doc};
use permcached::{question::Subject, sample::draw, source::mongodb::MongoDb};

use crate::support::both::{Both, Collections, schema};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"
collection = "users"
relations.teams = { field = "team_ids", resource = "team" }

[resource.team]
id = "string"
relations.member = { of = "user.teams" }

[resource.project]
id = "string"
collection = "projects"
relations.team    = { field = "team_id", resource = "team" }
permissions.read  = "team.member"
"#;

#[tokio::test]
async fn half_of_the_drawn_questions_are_asked_by_a_member_that_only_the_subject_names() {
    let users = (0..200).map(|number| doc! { "_id": format!("u{number}"), "team_ids": [format!("t{}", number % 100)] });
    let projects: Vec<Document> = vec![doc! { "_id": "site", "team_id": "t7" }];
    let collections = Collections::from([("users".to_owned(), users.collect()), ("projects".to_owned(), projects)]);
    let both = Both::new(schema("subjects.toml", SCHEMA), &collections).await;
    let source = MongoDb::open(Arc::clone(&both.schema), both.database.clone()).await.unwrap();
    let drawn = draw(&both.schema, &source, 200, 1, &|_| ()).await.unwrap();
    let is_member = |subject: &Subject| match subject {
        Subject::Known { id, .. } => ["u7", "u107"].contains(&id.to_string().as_str()),
        Subject::Anonymous => false,
    };
    let count = drawn.questions.iter().filter(|question| is_member(&question.subject)).count();
    assert_eq!(drawn.questions.len(), 200);
    assert!((60..=140).contains(&count), "{count} of 200 questions are asked by a member");
}
