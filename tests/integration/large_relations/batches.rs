//! Several subjects in one batch: none is answered by a fact that is filtered to another.

use bson::doc;

use super::MANY;
use crate::support::both::{Both, Collections, question, schema, shown};

const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "string"
    [subject.robot]
    id = "string"
    [subject.link]
    id = "string"
    secret = true
    [resource.file]
    id = "integer"
    collection = "files"
    [resource.file.relations]
    owner  = { field = "owner" }
    banned = { collection = "bans", by = "file", field = "user" }
    unfit  = { collection = "bans", by = "file", field = "robot", subject = "robot" }
    dead   = { collection = "bans", by = "file", field = "link", subject = "link" }
    [resource.file.permissions]
    read = "!banned & !unfit & !dead"
    edit = "owner & !banned"
"#;

#[tokio::test]
async fn in_a_batch_no_subject_is_answered_by_the_fact_of_another() {
    let mut bans: Vec<_> =
        (0..MANY).map(|number| doc! { "_id": number, "file": 1, "user": format!("u{number}") }).collect();
    bans.push(doc! { "_id": 5_000, "file": 1, "robot": "same" });
    bans.push(doc! { "_id": 5_001, "file": 1, "link": "u7" });
    let files = vec![doc! { "_id": 1, "owner": "anna" }];
    let collections = Collections::from([("bans".to_owned(), bans), ("files".to_owned(), files)]);
    let both = Both::new(schema("bans.toml", SCHEMA), &collections).await;
    let cases = [
        ("user:u7", "denied EXCLUDED"),
        ("user:anna", "allowed"),
        ("user:u8", "denied EXCLUDED"),
        ("user:same", "allowed"),
        ("robot:same", "denied EXCLUDED"),
        ("robot:u7", "allowed"),
        ("link:u7", "denied EXCLUDED"),
        ("link:u8", "allowed"),
        ("anonymous", "allowed"),
        ("user:none", "allowed"),
    ];
    // In both orders, together and one by one, cold and warm.
    for _ in 0..2 {
        for reversed in [false, true] {
            let mut cases = cases.to_vec();
            if reversed {
                cases.reverse();
            }
            let questions: Vec<_> =
                cases.iter().map(|(subject, _)| question(&both.schema, subject, "read", "file:1")).collect();
            let answers = both.ask(&questions, super::NOW).await;
            for ((subject, expected), answers) in cases.iter().zip(answers) {
                for answer in answers {
                    assert_eq!(shown(&both.schema, answer), *expected, "{subject}");
                }
            }
            for (subject, expected) in cases {
                let question = question(&both.schema, subject, "read", "file:1");
                let answers = both.ask(&[question], super::NOW).await;
                assert_eq!(answers[0].map(|answer| shown(&both.schema, answer)), [expected, expected], "{subject}");
            }
        }
    }
    let owner = question(&both.schema, "user:anna", "edit", "file:1");
    let answers = both.ask(&[owner], super::NOW).await;
    assert_eq!(answers[0].map(|answer| shown(&both.schema, answer)), ["allowed by file#owner"; 2]);
}
