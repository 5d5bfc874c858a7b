//! What is over its limit makes only that indeterminate: one relation of several that read the same documents, one type of several
//! whose documents are in one collection.

use bson::{Bson, Document, doc};

use super::{MANY, NOW};
use crate::support::{
    both::{Both, Collections, question, schema, shown},
    raw::{Raw, insert},
};

/// More documents than MongoDB returns for one fact.
const VERY_MANY: i32 = 40_100;

const LIMIT: &str = "denied LIMIT";
const EXCLUDED: &str = "denied EXCLUDED";
const EXPIRED: &str = "denied EXPIRED";
const MALFORMED: &str = "denied MALFORMED";
const NO_GRANT: &str = "denied NO_GRANT";

/// A question and its answers, over documents and over mongod.
type Asked<'a> = (&'a str, &'a str, &'a str, [&'a str; 2]);

async fn assert_answers(text: &str, all: Vec<(&str, Vec<Document>)>, asked: &[Asked<'_>]) {
    let collections: Collections = all.into_iter().map(|(name, documents)| (name.to_owned(), documents)).collect();
    let both = Both::new(schema("one_of_many.toml", text), &collections).await;
    let questions: Vec<_> = asked
        .iter()
        .map(|(subject, permission, resource, _)| question(&both.schema, subject, permission, resource))
        .collect();
    let answers = both.ask(&questions, NOW).await;
    for ((subject, permission, resource, expected), answers) in asked.iter().zip(answers) {
        let texts = answers.map(|answer| shown(&both.schema, answer));
        let is_right = texts.iter().zip(expected).all(|(text, expected)| text.starts_with(expected));
        assert!(is_right, "{subject} {permission} {resource}: expected {expected:?}, got {texts:?}");
    }
}

fn same(expected: &str) -> [&str; 2] {
    [expected; 2]
}

fn date(millis: i64) -> Bson {
    bson::DateTime::from_millis(millis).into()
}

const TUPLES: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "string"
    [resource.group]
    id = "string"
    [resource.group.relations]
    member = { collection = "tuples", by = "object", field = "who", where = { type = "group", relation = "member" }, subject = ["user", "group.member"], subject_type = "kind", subject_relation = "role" }
    [resource.group.permissions]
    enter = "member"
    [resource.doc]
    id = "string"
    [resource.doc.relations]
    viewer = { collection = "tuples", by = "object", field = "who", where = { type = "doc", relation = "viewer" } }
    banned = { collection = "tuples", by = "object", field = "who", where = { type = "doc", relation = "banned" } }
    locked = { collection = "tuples", by = "object", where = { type = "doc", relation = "locked" } }
    [resource.doc.permissions]
    read = "!banned & !locked & viewer"
    list = "viewer"
"#;

#[tokio::test]
async fn documents_of_another_type_do_not_count_even_under_a_negation() {
    let tuple = |object: &str, kind: Bson, relation: Bson, who: &str| {
        doc! { "object": object, "type": kind, "relation": relation, "who": who, "kind": "user" }
    };
    let nested = |object: &str, count: i32| -> Vec<Document> {
        let set = |number: i32| doc! { "object": object, "type": "group", "relation": "member", "who": format!("g{number}"), "kind": "group", "role": "member" };
        (0..count).map(set).collect()
    };
    let mut tuples = [nested("x", VERY_MANY), nested("y", MANY), nested("z", MANY), nested("w", MANY)].concat();
    for object in ["x", "y", "z", "w"] {
        for who in ["ann", "bob", "dan"] {
            tuples.push(tuple(object, "doc".into(), "viewer".into(), who));
        }
        tuples.push(tuple(object, "doc".into(), "banned".into(), "bob"));
    }
    // Values of a wrong type count, whatever else the document says.
    tuples.push(tuple("y", 5.into(), "banned".into(), "ann"));
    tuples.push(tuple("y", "group".into(), 7.into(), "dan"));
    tuples.push(tuple("z", vec!["group"].into(), "locked".into(), "nobody"));
    tuples.push(tuple("w", doc! { "is": "doc" }.into(), "banned".into(), "dan"));
    let viewer = same("allowed by doc#viewer");
    let asked = [
        ("user:ann", "read", "doc:x", same("allowed")),
        ("user:bob", "read", "doc:x", same(EXCLUDED)),
        ("user:carl", "read", "doc:x", same(NO_GRANT)),
        ("user:ann", "list", "doc:x", viewer),
        ("user:ann", "enter", "group:x", same(LIMIT)),
        ("user:ann", "read", "doc:y", same(MALFORMED)),
        ("user:bob", "read", "doc:y", same(EXCLUDED)),
        ("user:dan", "read", "doc:y", same(MALFORMED)),
        ("user:dan", "list", "doc:y", viewer),
        ("user:ann", "read", "doc:z", same("allowed")),
        ("user:dan", "read", "doc:z", same("allowed")),
        // It may as well be a lock.
        ("user:ann", "read", "doc:w", same(MALFORMED)),
        ("user:dan", "read", "doc:w", same(MALFORMED)),
    ];
    assert_answers(TUPLES, vec![("tuples", tuples)], &asked).await;
}

const HALLS: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "string"
    [subject.link]
    id = "string"
    secret = true
    [resource.hall]
    id = "integer"
    [resource.hall.relations]
    host    = { collection = "halls", by = "hall", field = "host" }
    member  = { collection = "halls", by = "hall", field = "team", subject = "hall.host" }
    blocked = { collection = "halls", by = "hall", field = "blocked", subject = "hall.host" }
    guest   = { collection = "halls", by = "hall", field = "guest", format = "user:{id}" }
    link    = { collection = "halls", by = "hall", field = "token", subject = "link" }
    dated   = { collection = "halls", by = "hall", field = "dated", since = "from", until = "to" }
    closed  = { collection = "halls", by = "hall", where = { closed = true }, since = "from", until = "to" }
    [resource.hall.permissions]
    enter = "host | member"
    speak = "!blocked & host"
    visit = "host | guest"
    follow = "host | link"
    stay  = "dated"
    shut  = "closed"
    open  = "!closed & host"
"#;

fn halls(hall: i32, count: i32, document: impl Fn(i32) -> Document) -> Vec<Document> {
    let with_hall = |number| {
        let mut document = document(number);
        document.insert("hall", hall);
        document
    };
    (0..count).map(with_hall).chain([doc! { "hall": hall, "host": "ann" }]).collect()
}

#[tokio::test]
async fn a_relation_over_its_limit_locks_nobody_out_whom_another_allows() {
    let host = same("allowed by hall#host");
    let mut all = Vec::new();
    let mut asked = Vec::new();
    for (hall, count) in [(1, MANY), (2, VERY_MANY)] {
        all.extend(halls(hall, count, |number| doc! { "team": 1_000 + number }));
        all.extend(halls(10 + hall, count, |number| doc! { "blocked": 1_000 + number }));
        let (teams, blocks) = (format!("hall:{hall}"), format!("hall:{}", 10 + hall));
        asked.extend([
            ("user:ann", "enter", teams.clone(), host),
            ("user:bob", "enter", teams.clone(), same(LIMIT)),
            ("user:ann", "speak", teams.clone(), same("allowed")),
            ("user:ann", "speak", blocks.clone(), same(LIMIT)),
            ("user:ann", "enter", blocks.clone(), host),
            ("user:bob", "speak", blocks, same(NO_GRANT)),
        ]);
    }
    let asked: Vec<Asked<'_>> =
        asked.iter().map(|(who, what, hall, expected)| (*who, *what, hall.as_str(), *expected)).collect();
    assert_answers(HALLS, vec![("halls", all)], &asked).await;
}

#[tokio::test]
async fn ids_as_text_are_filtered_and_secrets_lock_nobody_out() {
    let host = same("allowed by hall#host");
    let mut all = Vec::new();
    all.extend(halls(3, VERY_MANY, |number| doc! { "guest": format!("user:u{number}") }));
    all.extend(halls(4, VERY_MANY, |number| doc! { "token": format!("t{number}") }));
    let asked = [
        ("user:ann", "visit", "hall:3", host),
        ("user:u7", "visit", "hall:3", same("allowed by hall#guest")),
        ("user:bob", "visit", "hall:3", same(NO_GRANT)),
        ("user:ann", "follow", "hall:4", host),
        ("user:bob", "follow", "hall:4", same(NO_GRANT)),
        ("link:t7", "follow", "hall:4", ["allowed by hall#link", LIMIT]),
    ];
    assert_answers(HALLS, vec![("halls", all)], &asked).await;
}

#[tokio::test]
async fn dates_of_many_documents_are_put_together() {
    let hour = |number: i32| NOW + i64::from(number) * 3_600_000;
    let dated = |number: i32| doc! { "dated": "bob", "from": date(hour(number)), "to": date(hour(number + 2)) };
    let mut all = Vec::new();
    // One begins while another holds.
    all.extend(halls(1, MANY, |number| dated(number - 500)));
    all.extend(halls(2, MANY, |number| dated(-number - 10)));
    all.extend(halls(3, MANY, |number| dated(number + 1)));
    // Between them are gaps, so none can be left out.
    all.extend(halls(4, MANY, |number| dated(3 * number)));
    let closed = |number: i32| doc! { "closed": true, "to": date(hour(number)) };
    all.extend(halls(5, MANY, |number| closed(number - 1_000)));
    all.extend(halls(6, MANY, |number| closed(-number)));
    all.extend(halls(7, VERY_MANY, |number| closed(number - VERY_MANY + 2)));
    all.extend(halls(8, VERY_MANY, |number| closed(-number)));
    all.extend(halls(9, VERY_MANY, |_| doc! { "closed": true }));
    all.extend(halls(10, MANY, |_| doc! { "closed": "yes" }));
    let stays = same("allowed by hall#dated");
    let shuts = same("allowed by hall#closed");
    let asked = [
        ("user:bob", "stay", "hall:1", stays),
        ("user:ann", "stay", "hall:1", same(NO_GRANT)),
        ("user:bob", "stay", "hall:2", same(EXPIRED)),
        ("user:bob", "stay", "hall:3", same(EXPIRED)),
        ("user:bob", "stay", "hall:4", same(LIMIT)),
        ("user:ann", "enter", "hall:4", same("allowed by hall#host")),
        ("user:bob", "shut", "hall:5", same(EXPIRED)),
        ("user:bob", "shut", "hall:6", same(EXPIRED)),
        ("user:ann", "open", "hall:6", same("allowed")),
        ("user:bob", "shut", "hall:7", shuts),
        ("user:ann", "open", "hall:7", same(EXCLUDED)),
        ("user:ann", "enter", "hall:7", same("allowed by hall#host")),
        ("user:bob", "shut", "hall:8", [EXPIRED, LIMIT]),
        ("user:ann", "open", "hall:8", ["allowed", LIMIT]),
        ("user:ann", "enter", "hall:8", same("allowed by hall#host")),
        ("user:bob", "shut", "hall:9", shuts),
        ("user:ann", "open", "hall:9", same(EXCLUDED)),
        ("user:ann", "enter", "hall:9", same("allowed by hall#host")),
        ("user:ann", "open", "hall:10", same(MALFORMED)),
    ];
    assert_answers(HALLS, vec![("halls", all)], &asked).await;
}

/// An `_id` is unique in a shard only, and text that is not UTF-8 is shown as other such text.
#[tokio::test]
async fn documents_whose_ids_look_the_same_are_read_both() {
    const TEXT: &str = r#"
        default_subject = "user"
        [subject.user]
        id = "string"
        [resource.hall]
        id = "integer"
        [resource.hall.relations]
        closed = { collection = "halls", by = "hall", where = { closed = true } }
        banned = { collection = "halls", by = "hall", field = "banned" }
        host   = { collection = "halls", by = "hall", field = "host" }
        member = { collection = "halls", by = "hall", field = "team", subject = "hall.host" }
        [resource.hall.permissions]
        open  = "!closed & host"
        speak = "!banned & host"
        enter = "host | member"
    "#;
    let teams = |hall: i32| (0..VERY_MANY).map(move |number| doc! { "hall": hall, "team": 1_000 + number });
    let all = (1..=2).flat_map(teams).collect();
    let both = Both::new(schema("same.toml", TEXT), &Collections::from([("halls".to_owned(), all)])).await;
    let documents = [
        (b"\xf0", doc! { "hall": 1, "closed": true }),
        (b"\xf1", doc! { "hall": 1, "host": "ann" }),
        (b"\xf2", doc! { "hall": 2, "banned": "ann" }),
        (b"\xf3", doc! { "hall": 2, "host": "ann" }),
    ];
    for (id, document) in documents {
        insert(&both.database, "halls", &Raw::default().text(b"_id", id).and(&document)).await;
    }
    let asked = [("open", 1, EXCLUDED), ("speak", 1, "allowed"), ("speak", 2, EXCLUDED)];
    let asked = asked.into_iter().chain([1, 2].map(|hall| ("enter", hall, "allowed by hall#host")));
    for (permission, hall, expected) in asked {
        let question = question(&both.schema, "user:ann", permission, &format!("hall:{hall}"));
        let answers = both.mongodb.check(&[question], NOW).await;
        for checked in answers {
            let text = shown(&both.schema, checked.expect("an answer").answer);
            assert!(text.starts_with(expected), "{permission} hall {hall}: expected {expected}, got {text}");
        }
    }
}

/// Whatever stands in place of the constant, the answers are those of a schema in which no other type reads the collection.
#[tokio::test]
async fn lookups_of_their_own_change_no_answer() {
    let values = || {
        let texts = ["doc", "group", "other", ""].map(Bson::from);
        let lists = [vec!["doc", "group"], vec!["group"], vec!["doc"]].map(Bson::from);
        super::no_ids().into_iter().chain(texts).chain(lists).chain([doc! { "is": "doc" }.into(), 5.into()])
    };
    let mut tuples = Vec::new();
    let mut count = 0;
    for kind in values() {
        for relation in ["banned".into(), "locked".into(), Bson::Null, 7.into(), vec!["banned"].into(), "viewer".into()]
        {
            let object = format!("o{count}");
            tuples.push(
                doc! { "object": &object, "type": kind.clone(), "relation": relation, "who": "ann", "kind": "user" },
            );
            tuples.push(doc! { "object": &object, "type": "doc", "relation": "viewer", "who": "ann" });
            tuples.push(doc! { "object": object, "type": "doc", "relation": "viewer", "who": "bob" });
            count += 1;
        }
    }
    let (before, rest) = TUPLES.split_once("[resource.group]").expect("there are groups");
    let (_, after) = rest.split_once("[resource.doc]").expect("there are documents");
    let alone = format!("{before}[resource.doc]{after}");
    let collections = Collections::from([("tuples".to_owned(), tuples)]);
    let (split, alone) = (schema("split.toml", TUPLES), schema("alone.toml", &alone));
    let [in_all, without_groups] = [&split, &alone].map(|schema| schema.lookups().count());
    assert!(in_all > without_groups, "groups have a lookup of their own");
    assert_eq!(split.declared_lookups().count(), 1, "which the schema does not declare");
    let split = Both::new(split, &collections).await;
    let alone = Both::new(alone, &collections).await;
    let asks = |both: &Both| -> Vec<_> {
        let objects = (0..count).flat_map(|number| [("ann", number), ("bob", number)]);
        objects
            .map(|(who, number)| question(&both.schema, &format!("user:{who}"), "read", &format!("doc:o{number}")))
            .collect()
    };
    let [split_answers, alone_answers] = [split.ask(&asks(&split), NOW).await, alone.ask(&asks(&alone), NOW).await];
    let mut malformed = 0;
    for ((answers, others), asked) in split_answers.iter().zip(&alone_answers).zip(asks(&split)) {
        let texts =
            [answers.map(|answer| shown(&split.schema, answer)), others.map(|answer| shown(&alone.schema, answer))];
        let [split, alone] = texts;
        assert!(split.iter().chain(&alone).all(|text| *text == split[0]), "{asked:?}: {split:?}, {alone:?}");
        malformed += usize::from(split[0] == MALFORMED);
    }
    assert!(malformed > 100, "{malformed} are indeterminate");
}
