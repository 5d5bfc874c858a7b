//! Work and memory are bounded for any documents: long arrays, ids that are repeated many times, wide trees.
//!
//! The limits of facts and trees are not tested here, but in `evaluator/limits.rs`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bson::{Bson, Document, doc};
use permcached::{
    app::{App, Parts, assemble},
    check::{CheckError, Consistency},
    evaluate::{GRANTS_SHOWN, STEPS_MAX, Tree},
    question::{Answer, Question, Reason},
    schema::{Schema, SubjectText},
    source::{Deadline, documents::Documents},
};

const SCHEMA: &str = r#"
default_subject = "user"
[subject.user]
id = "integer"
[resource.node]
id = "string"
collection = "nodes"
[resource.node.relations]
member = { field = "members" }
up     = { field = "up", resource = "node" }
[resource.node.permissions]
read = "member | up.read"
"#;

fn app(nodes: Vec<Document>) -> App {
    let schema = Arc::new(Schema::parse("schema.toml", SCHEMA).unwrap());
    let documents = Documents::new(&schema, &BTreeMap::from([("nodes".to_owned(), nodes)]));
    assemble(Parts::new(schema, Arc::new(documents)))
}

fn may_read(app: &App, user: i64, node: &str) -> Question {
    let subject = SubjectText::Known { kind: "", id: &user.to_string() };
    app.schema.question(subject, "read", "node", node).unwrap()
}

fn steps(tree: &Tree) -> usize {
    1 + tree.children.iter().map(steps).sum::<usize>()
}

fn most_grants(tree: &Tree) -> usize {
    tree.children.iter().map(most_grants).max().unwrap_or(0).max(tree.grants.len())
}

#[tokio::test]
async fn an_id_that_an_array_repeats_counts_once() {
    let up: Vec<&str> = std::iter::repeat_n("a", 11_000).chain(["good"]).collect();
    let app = app(vec![
        doc! { "_id": "root", "up": up },
        doc! { "_id": "a", "members": [1] },
        doc! { "_id": "good", "members": [7] },
    ]);
    let questions = [may_read(&app, 7, "root"), may_read(&app, 8, "root")];
    let answers =
        app.checker.check(&questions, Consistency::FullyConsistent, Deadline::after(Duration::from_secs(30))).await;
    let answers: Vec<Answer> = answers.into_iter().map(|checked| checked.unwrap().answer).collect();
    assert!(matches!(answers[0], Answer::Allowed { .. }), "{answers:?}");
    assert_eq!(answers[1], Answer::Denied(Reason::NoGrant));
}

#[tokio::test]
async fn an_explanation_stays_small_however_much_the_evaluator_looks_at() {
    // Eight levels of three nodes. Each node leads to all nodes of the next level, and has many members.
    let members: Vec<i64> = (0..20_000).collect();
    let mut nodes = vec![doc! { "_id": "root", "up": ["0-0", "0-1", "0-2"] }];
    for level in 0..8 {
        let up: Vec<String> = (0..3).map(|next| format!("{}-{next}", level + 1)).collect();
        nodes.extend((0..3).map(|at| doc! { "_id": format!("{level}-{at}"), "up": &up, "members": &members }));
    }
    let app = app(nodes);
    let question = may_read(&app, -1, "root");
    let deadline = Deadline::after(Duration::from_mins(2));
    let explained = app.checker.explain(&question, Consistency::FullyConsistent, deadline).await.unwrap();
    assert!(steps(&explained.tree) <= STEPS_MAX);
    assert!(most_grants(&explained.tree) <= 2 * GRANTS_SHOWN);
    assert!(matches!(explained.checked.answer, Answer::Denied(_)));
}

#[tokio::test]
async fn questions_after_the_deadline_are_not_evaluated() {
    let wide = |of: &str| (0..95).map(|at| Bson::String(format!("{of}{at}."))).collect::<Vec<_>>();
    let mut nodes = vec![doc! { "_id": "root", "up": wide("") }];
    nodes.extend((0..95).map(|at| doc! { "_id": format!("{at}."), "up": wide(&format!("{at}.")) }));
    let app = app(nodes);
    let questions: Vec<Question> = (0..5_000).map(|user| may_read(&app, user, "root")).collect();
    let answers =
        app.checker.check(&questions, Consistency::FullyConsistent, Deadline::after(Duration::from_millis(100))).await;
    assert_eq!(answers.len(), questions.len());
    let late = answers.iter().filter(|answer| matches!(answer, Err(CheckError::DeadlineExceeded))).count();
    assert!(late > 0, "five thousand wide trees take longer than a tenth of a second");
    assert!(answers.iter().flatten().all(|checked| matches!(checked.answer, Answer::Denied(_))));
}
