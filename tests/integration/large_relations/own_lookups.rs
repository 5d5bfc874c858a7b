//! Types whose documents in one collection exclude each other have lookups of their own: what a document says is an answer's only
//! reason, and not whether another type reads the collection.

use bson::{Bson, Document, doc};
use permcached::question::Question;

use super::{NOW, no_ids};
use crate::support::{
    both::{Both, Collections, question, schema, shown},
    raw::{Raw, insert},
};

/// A relation under a `!`, and another type's in the same collection.
struct Relations<'a> {
    /// `by` and what is read from the documents.
    read: &'a str,
    /// The condition of the relation under the `!`.
    own: &'a str,
    /// The condition of the other type.
    other: &'a str,
}

impl Relations<'_> {
    fn text(&self, others: &str) -> String {
        let Self { read, own, .. } = self;
        format!(
            r#"
            default_subject = "user"
            [subject.user]
            id = "string"
            [resource.file]
            id = "integer"
            [resource.file.relations]
            owner = {{ collection = "owners", by = "file", field = "user" }}
            banned = {{ collection = "bans", {read}, {own} }}
            [resource.file.permissions]
            read = "!banned & owner"
            {others}
            "#
        )
    }

    /// Asserts that the answers are those of a schema without the other type. There is a file for each document. Returns how many
    /// of the owners may not read their file.
    async fn assert_alone_is_same(&self, documents: &[Raw]) -> usize {
        let Self { read, other, .. } = self;
        let others = format!(
            r#"
            [resource.doc]
            id = "integer"
            [resource.doc.relations]
            banned = {{ collection = "bans", {read}, {other} }}
            [resource.doc.permissions]
            read = "banned"
            "#
        );
        let [split, alone] = [&*others, ""].map(|others| schema("bans.toml", &self.text(others)));
        assert!(split.lookups().count() > split.declared_lookups().count(), "{read}: types have lookups of their own");
        let files = 0..i32::try_from(documents.len()).unwrap();
        let owners = files.clone().map(|file| doc! { "file": file, "user": "ann" }).collect();
        // Documents that no driver can read are in the database only.
        let readable: Vec<Option<Document>> =
            documents.iter().map(|raw| bson::deserialize_from_slice(&raw.bytes()).ok()).collect();
        let is_whole = |(raw, read): &(&Raw, &Option<Document>)| {
            read.as_ref().is_some_and(|document| Raw::of(document).bytes() == raw.bytes())
        };
        let whole: Vec<bool> = documents.iter().zip(&readable).map(|pair| is_whole(&pair)).collect();
        let bans = readable.into_iter().zip(&whole).filter_map(|(document, is_whole)| document.filter(|_| *is_whole));
        let collections =
            Collections::from([("owners".to_owned(), owners), ("bans".to_owned(), bans.collect::<Vec<_>>())]);
        let mut answers = Vec::new();
        for schema in [split, alone] {
            let both = Both::new(schema, &collections).await;
            for (raw, _) in documents.iter().zip(&whole).filter(|(_, is_whole)| !**is_whole) {
                insert(&both.database, "bans", raw).await;
            }
            let asked: Vec<Question> =
                files.clone().map(|file| question(&both.schema, "user:ann", "read", &format!("file:{file}"))).collect();
            let answered = both.ask(&asked, NOW).await;
            let texts = answered.into_iter().map(|pair| pair.map(|answer| shown(&both.schema, answer)));
            answers.push(texts.collect::<Vec<_>>());
        }
        let mut denied = 0;
        let [split, alone]: [Vec<[String; 2]>; 2] = answers.try_into().expect("two schemas");
        for (number, ((split, alone), is_whole)) in split.iter().zip(&alone).zip(whole).enumerate() {
            let (document, text) = (&documents[number], self.text(""));
            assert_eq!(split[1], alone[1], "over mongod: {document:?}, {text}");
            assert!(
                !is_whole || split.iter().chain(alone).all(|one| *one == split[0]),
                "{split:?}, {alone:?}: {document:?}"
            );
            denied += usize::from(split[1].starts_with("denied"));
        }
        denied
    }
}

/// What may stand in place of a constant.
fn values() -> Vec<Bson> {
    let lists: [&[&str]; 3] = [&["doc", "file"], &["doc"], &["file"]];
    let lists = lists.map(|list| Bson::Array(list.iter().map(|text| Bson::from(*text)).collect()));
    let with_null = Bson::Array(vec!["doc".into(), Bson::Null]);
    let texts = ["doc", "file", "other"].map(Bson::from);
    let more = [with_null, 5.into(), doc! { "is": "file" }.into(), Bson::Undefined];
    no_ids().into_iter().chain(texts).chain(lists).chain(more).collect()
}

fn numbered(documents: impl IntoIterator<Item = Raw>, of: impl Fn(i32) -> Document) -> Vec<Raw> {
    (0..).zip(documents).map(|(number, raw)| Raw::of(&of(number)).and_all(raw)).collect()
}

const READ: &str = r#"by = "of", field = "who""#;

fn by_ann(documents: impl IntoIterator<Item = Raw>) -> Vec<Raw> {
    numbered(documents, |number| doc! { "_id": number, "of": number, "who": "ann" })
}

#[tokio::test]
async fn a_constant_may_be_null() {
    let documents = by_ann(values().into_iter().map(|kind| Raw::of(&doc! { "kind": kind })).chain([Raw::default()]));
    for [own, other] in
        [[r#"'{"kind": null}'"#, r#"{ kind = "doc" }"#], [r#"{ kind = "file" }"#, r#"'{"kind": null}'"#]]
    {
        let [own, other] = [own, other].map(|condition| format!("where = {condition}"));
        let denied = Relations { read: READ, own: &own, other: &other }.assert_alone_is_same(&documents).await;
        assert!(denied > 4, "{own}: {denied}");
    }
}

#[tokio::test]
async fn a_constant_may_be_behind_a_path() {
    let mut kinds = values();
    for kind in values() {
        kinds.push(doc! { "is": kind.clone() }.into());
        kinds.push(vec![Bson::from(doc! { "is": "doc" }), doc! { "is": kind.clone() }.into()].into());
        kinds.push(vec![Bson::from(doc! { "is": "doc" }), kind].into());
    }
    let documents = by_ann(kinds.into_iter().map(|kind| Raw::of(&doc! { "kind": kind })));
    for own in [r#"where = { "kind.is" = "file" }"#, r#"where = '{"kind.is": null}'"#] {
        let relations = Relations { read: READ, own, other: r#"where = { "kind.is" = "doc" }"# };
        assert!(relations.assert_alone_is_same(&documents).await > 20);
    }
}

/// The key and the id may be in different elements of one array.
#[tokio::test]
async fn the_key_may_be_in_an_array_with_the_ids() {
    let of_place = |number: i32, kind: &Bson| {
        let one = doc! { "id": number, "user": "ann" };
        let inner = doc! { "t": &one };
        [
            doc! { "kind": kind, "t": [&one] },
            doc! { "kind": kind, "t": &one },
            doc! { "kind": kind, "t": [&one, { "id": -1, "user": "bob" }] },
            doc! { "kind": kind, "s": { "t": [&one] } },
            doc! { "kind": kind, "s": [inner] },
        ]
    };
    for (read, path) in [(r#"by = "t.id", field = "t.user""#, "t"), (r#"by = "s.t.id", field = "s.t.user""#, "s")] {
        let mut number = -1;
        let mut documents = Vec::new();
        for kind in values() {
            for place in 0..5 {
                number += 1;
                documents.push(Raw::of(&of_place(number, &kind)[place]));
            }
        }
        let own = r#"where = { kind = "file" }"#;
        let denied =
            Relations { read, own, other: r#"where = { kind = "doc" }"# }.assert_alone_is_same(&documents).await;
        assert!(denied > 20, "{path}: {denied}");
    }
}

/// Of a name that occurs twice, mongod compares the first value.
#[tokio::test]
async fn a_name_may_occur_twice() {
    let twice = |name: &str, [first, second]: [&str; 2]| Raw::of(&doc! { name: first }).and(&doc! { name: second });
    let kinds = [["doc", "file"], ["file", "doc"], ["doc", "doc"]];
    let mut top: Vec<Raw> = kinds.iter().map(|kinds| twice("kind", *kinds)).collect();
    top.push(Raw::of(&doc! { "kind": "doc", "role": "x" }).and(&doc! { "role": "y" }));
    top.push(Raw::of(&doc! { "kind": "doc", "role": "y" }).and(&doc! { "who": "bob" }));
    let own = r#"where = { kind = "file", role = { "$in" = ["x", "y"] } }"#;
    let relations = Relations { read: READ, own, other: r#"where = { kind = "doc" }"# };
    assert!(relations.assert_alone_is_same(&by_ann(top)).await >= 3);

    let mut inner: Vec<Raw> =
        kinds.iter().map(|kinds| Raw::default().document(b"kind", &twice("is", *kinds))).collect();
    inner.push(Raw::of(&doc! { "kind": { "is": "doc" } }).and(&doc! { "kind": { "is": "file" } }));
    let deep: Vec<Raw> = inner.iter().map(|inner| Raw::default().document(b"k", inner)).collect();
    for (path, documents) in [("kind.is", inner), ("k.kind.is", deep)] {
        let [own, other] = ["file", "doc"].map(|kind| format!(r#"where = {{ "{path}" = "{kind}" }}"#));
        let relations = Relations { read: READ, own: &own, other: &other };
        assert!(relations.assert_alone_is_same(&by_ann(documents)).await >= 3, "{path}");
    }
}

#[tokio::test]
async fn ids_may_be_in_elements_of_an_array() {
    let all =
        [doc! { "user": "ann", "role": "x" }, doc! { "user": "ann", "role": 5 }, doc! { "user": "bob", "role": "x" }];
    let of_kind = |kind: Bson| all.clone().map(|one| Raw::of(&doc! { "kind": kind.clone(), "all": [one] }));
    let documents: Vec<Raw> = values().into_iter().flat_map(of_kind).collect();
    let documents = numbered(documents, |number| doc! { "_id": number, "of": number });
    let [own, other] =
        ["file", "doc"].map(|kind| format!(r#"where = {{ role = "x" }}, document_where = {{ kind = "{kind}" }}"#));
    let read = r#"by = "of", each = "all", field = "user""#;
    assert!(Relations { read, own: &own, other: &other }.assert_alone_is_same(&documents).await > 20);
}
