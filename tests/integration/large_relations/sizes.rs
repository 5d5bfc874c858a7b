//! The sizes at which facts were over their limit: more than a thousand documents, and arrays of tens of thousands of ids.

use bson::{Bson, Document, doc, oid::ObjectId};

use super::MANY;
use crate::support::both::{Both, Collections, question, schema, shown};

const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    [resource.org]
    id = "integer"
    collection = "orgs"
    [resource.org.relations]
    admin = { field = "admins" }
    staff = { field = "staff.ids" }
    [resource.hall]
    id = "integer"
    collection = "halls"
    [resource.hall.relations]
    owner   = { field = "owner" }
    org     = { field = "org", resource = "org" }
    member  = { collection = "memberships", by = "hall", field = "user" }
    listed  = { field = "users" }
    writer  = { each = "people", field = "user", where = { role = "writer" } }
    banned  = { collection = "bans", by = "hall", field = "user" }
    barred  = { field = "barred" }
    locked  = { collection = "locks", by = "hall" }
    [resource.hall.permissions]
    read  = "!banned & !barred & (owner | org.admin | member | listed)"
    write = "writer"
    staff = "org.staff"
    lock  = "locked"
"#;

fn user(number: i32) -> ObjectId {
    let mut bytes = [0x0a; 12];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// The documents of `count` members, and of `listed` ids in each array, beside those of a few users.
fn collections(count: i32, listed: i32) -> Collections {
    let others = |from: i32, count: i32| (from..from + count).map(user);
    let array = |extra: i32, count: i32| -> Vec<Bson> {
        others(1_000_000, count).chain([user(extra)]).map(Bson::from).collect()
    };
    let related = |extra: i32| -> Vec<Document> {
        let users = others(2_000_000, count).chain([user(extra)]);
        (0_i32..).zip(users).map(|(id, user)| doc! { "_id": id, "hall": 1, "user": user }).collect()
    };
    let people = others(1_000_000, listed).map(|user| doc! { "user": user, "role": "writer" });
    let people = people.chain([doc! { "user": user(6), "role": "writer" }, doc! { "user": user(7), "role": "reader" }]);
    let hall = doc! {
        "_id": 1, "owner": user(1), "org": 1, "users": array(4, listed), "barred": array(8, listed),
        "people": people.collect::<Vec<_>>(),
    };
    let org = doc! { "_id": 1, "admins": array(2, listed), "staff": { "ids": array(9, listed) } };
    let locks: Vec<Document> = (0..count).map(|id| doc! { "_id": id, "hall": 1 }).collect();
    Collections::from([
        ("orgs".to_owned(), vec![org]),
        ("halls".to_owned(), vec![hall]),
        ("memberships".to_owned(), related(3)),
        ("bans".to_owned(), related(5)),
        ("locks".to_owned(), locks),
    ])
}

const CASES: [(i32, &str, &str); 14] = [
    (1, "read", "allowed by hall#owner"),
    (2, "read", "allowed by org#admin"),
    (3, "read", "allowed by hall#member"),
    (4, "read", "allowed by hall#listed"),
    (5, "read", "denied EXCLUDED"),
    (8, "read", "denied EXCLUDED"),
    (10, "read", "denied NO_GRANT"),
    (6, "write", "allowed by hall#writer"),
    (7, "write", "denied NO_GRANT"),
    (1, "write", "denied NO_GRANT"),
    (9, "staff", "allowed by org#staff"),
    (2, "staff", "denied NO_GRANT"),
    (1, "lock", "allowed by hall#locked"),
    (10, "lock", "allowed by hall#locked"),
];

async fn assert_answers(both: &Both, what: &str) {
    for (number, permission, expected) in CASES {
        let asked = question(&both.schema, &format!("user:{}", user(number)), permission, "hall:1");
        let answers = both.ask(&[asked], super::NOW).await;
        let texts = answers[0].map(|answer| shown(&both.schema, answer));
        assert_eq!(texts, [expected, expected], "{what}: user {number} {permission}");
    }
}

#[tokio::test]
async fn others_lock_nobody_out_and_let_nobody_in_however_many_they_are() {
    for (count, listed) in [(10, 10), (MANY, 10), (5_000, 10), (10, 25_000)] {
        let both = Both::new(schema("halls.toml", SCHEMA), &collections(count, listed)).await;
        assert_answers(&both, &format!("{count} documents and {listed} ids")).await;
    }
}
