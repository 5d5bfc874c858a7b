//! Lists of subjects whose type has more than one name in the documents, as after a model was renamed.

use bson::{Document, doc};

use super::named::assert_lists_by;

const SCHEMA: &str = r#"
default_subject = "user"
[subject.user]
id = "string"

[resource.file]
id = "integer"
collection = "files"
[resource.file.relations]
viewer = { collection = "shares", by = "file", field = "who", subject_type = "kind", subject = { User = "user", user = "user" } }
[resource.file.permissions]
read = "viewer"
"#;

/// A fact of at most 1,000 documents has the shares of file 1; there are more of file 2.
#[tokio::test]
async fn subjects_of_each_name_are_listed_however_many_there_are() {
    let share = |file: i64, number: i64| {
        let id = file * 10_000 + number;
        doc! { "_id": id, "file": file, "kind": "User", "who": format!("u{number:04}") }
    };
    let shares = (0..3).map(|number| share(1, number)).chain((0..1_000).map(|number| share(2, number)));
    let renamed = [1_i64, 2].map(|file| doc! { "_id": file, "file": file, "kind": "user", "who": "zoe" });
    let shares: Vec<Document> = shares.chain(renamed).collect();
    let files = vec![doc! { "_id": 1_i64 }, doc! { "_id": 2_i64 }];
    let all: Vec<String> = (0..1_000).map(|number| format!("u{number:04}")).collect();
    let expected =
        [("read file:1 user", "u0000 u0001 u0002 zoe NO"), ("read file:2 user", &format!("{} zoe NO", all.join(" ")))];
    assert_lists_by(SCHEMA, vec![("files", files), ("shares", shares)], &expected, &[1_000]).await;
}
