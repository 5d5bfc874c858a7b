//! Lists of subjects for schemas of the usual kinds. Each list is the same over documents and over mongod.

use std::thread;

use bson::{Document, doc};
use permcached::{
    app::{Parts, assemble},
    list::Lister,
    source::documents::Documents,
};

use super::{Asked, shown};
use crate::support::both::{Both, Collections, schema};

/// The time at which everything is asked.
const NOW: i64 = 1_790_000_000_000;

/// Groups that contain users and other groups, and documents for users and groups.
const GROUPS: &str = r#"
default_subject = "user"
[subject.user]
id = "string"

[resource.group]
id = "integer"
collection = "groups"
[resource.group.relations]
user = { field = "users" }
sub = { field = "groups", subject = "group.all" }
member = { collection = "memberships", by = "group", field = "user" }
[resource.group.permissions]
all = "user | sub"

[resource.doc]
id = "integer"
collection = "docs"
[resource.doc.relations]
owner = { field = "owner" }
viewer = { field = "viewers", subject = ["user", "group.all"], each = "shares", subject_type = "type", wildcard = true }
team = { field = "team", subject = "group.member" }
banned = { field = "banned" }
public = { where = { public = true } }
archived = { where = { archived = true } }
[resource.doc.permissions]
read = "owner | viewer"
allowed = "(read | public) & !banned"
live = "(owner | public) & !archived"
meet = "team"
both = "team & owner"
"#;

fn collections(all: Vec<(&str, Vec<Document>)>) -> Collections {
    all.into_iter().map(|(name, documents)| (name.to_owned(), documents)).collect()
}

/// Asserts lists such as `read doc:1 user`: the subjects, whether everybody may, and the sets.
async fn assert_lists(text: &str, documents: Vec<(&str, Vec<Document>)>, expected: &[(&str, &str)]) {
    let both = Both::new(schema("lists.toml", text), &collections(documents)).await;
    let mut wrong = Vec::new();
    for (name, source) in [("documents", &both.documents), ("mongod", &both.mongodb)] {
        let (checker, source) = (source.checker.clone(), std::sync::Arc::clone(&source.source));
        let lister = Lister { checker, source, fixed_now: Some(NOW) };
        for (asked, expected) in expected {
            for size in [1, 2, 1_000] {
                let list = Asked::parse(&both.schema, asked).pages(&lister, size).await;
                let list = list.map_or_else(|error| error.to_string(), |list| shown(&both.schema, &list));
                if list != *expected {
                    wrong.push(format!("{name}, {asked}, pages of {size}: expected {expected:?}, got {list:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// As many groups, each of which contains the next one.
fn nested(count: i64) -> Vec<(&'static str, Vec<Document>)> {
    let group = |number: i64| doc! { "_id": number, "users": [format!("u{number:02}")], "groups": [number + 1] };
    let share = doc! { "type": "group", "viewers": 1_i64 };
    // A value of `viewers` names the group by its type.
    let docs = vec![doc! { "_id": 1_i64, "owner": "ann", "shares": [share] }];
    vec![("groups", (1..=count).map(group).collect()), ("docs", docs)]
}

#[test]
fn groups_in_groups_are_expanded_as_deep_as_a_check_goes_on_a_small_stack() {
    let small = thread::Builder::new().stack_size(768 * 1_024);
    let test = small.spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let schema = std::sync::Arc::new(schema("lists.toml", GROUPS));
        let documents = Documents::new(&schema, &collections(nested(40)));
        let app = assemble(Parts::new(std::sync::Arc::clone(&schema), std::sync::Arc::new(documents)));
        let asked = Asked::parse(&schema, "read doc:1 user");
        shown(&schema, &runtime.block_on(asked.pages(&app.lister, 1_000)).unwrap())
    });
    let users: Vec<String> = (1..=32).map(|number| format!("u{number:02}")).collect();
    assert_eq!(test.unwrap().join().unwrap(), format!("ann {} NO", users.join(" ")));
}

#[tokio::test]
async fn groups_that_contain_each_other_are_expanded_once() {
    let groups = vec![
        doc! { "_id": 1_i64, "users": ["ann"], "groups": [2_i64, 1_i64] },
        doc! { "_id": 2_i64, "users": ["bob", "ann"], "groups": [3_i64] },
        doc! { "_id": 3_i64, "users": ["cy"], "groups": [1_i64] },
    ];
    let share = |kind: &str, id: bson::Bson| doc! { "type": kind, "viewers": id };
    let docs = vec![
        doc! { "_id": 1_i64, "shares": [share("group", 3_i64.into())] },
        doc! { "_id": 2_i64, "shares": [share("group", 3_i64.into()), share("user", "dan".into())] },
        doc! { "_id": 3_i64, "shares": [share("group", 4_i64.into())] },
    ];
    let expected = [
        ("read doc:1 user", "ann bob cy NO"),
        ("read doc:2 user", "ann bob cy dan NO"),
        ("read doc:3 user", "NO"),
        ("read doc:4 user", "NO"),
        ("all group:2 user", "ann bob cy NO"),
    ];
    assert_lists(GROUPS, vec![("groups", groups), ("docs", docs)], &expected).await;
}

#[tokio::test]
async fn whoever_is_excluded_from_everybody_is_not_listed() {
    let share = |id: &str| doc! { "type": "user", "viewers": id };
    let everyone = vec![share("*"), share("bob"), share("cy")];
    let docs = vec![
        doc! { "_id": 1_i64, "owner": "ann", "shares": &everyone, "banned": ["bob", "eve"] },
        doc! { "_id": 2_i64, "owner": "ann", "shares": &everyone },
        doc! { "_id": 3_i64, "owner": "ann", "public": true, "banned": ["ann"] },
        doc! { "_id": 4_i64, "owner": "ann", "public": true, "archived": false },
        doc! { "_id": 5_i64, "owner": "ann", "public": true, "archived": true },
        doc! { "_id": 6_i64, "owner": "ann", "public": "true", "archived": "true" },
        doc! { "_id": 7_i64, "owner": "ann", "banned": ["bob"] },
        doc! { "_id": 8_i64, "owner": "ann", "public": true, "banned": [5] },
    ];
    let expected = [
        ("allowed doc:1 user", "ann cy WITH_EXCLUSIONS"),
        ("read doc:1 user", "ann bob cy YES"),
        ("allowed doc:2 user", "ann bob cy YES"),
        ("allowed doc:3 user", "WITH_EXCLUSIONS"),
        ("live doc:4 user", "ann YES"),
        ("live doc:5 user", "NO"),
        ("live doc:6 user", "NO"),
        ("allowed doc:7 user", "ann NO"),
        // A value that cannot be read could exclude anybody.
        ("allowed doc:8 user", "NO"),
    ];
    assert_lists(GROUPS, vec![("docs", docs)], &expected).await;
}

#[tokio::test]
async fn a_set_that_is_too_large_is_named_instead_of_its_subjects() {
    let membership = |group: i64, number: i64| {
        doc! { "_id": group * 1_000_000 + number, "group": group, "user": format!("u{number:06}") }
    };
    let memberships =
        (0..100_000).map(|number| membership(1, number)).chain((0..3).map(|number| membership(2, number)));
    let docs = vec![
        doc! { "_id": 1_i64, "owner": "ann", "team": [1_i64, 2] },
        doc! { "_id": 2_i64, "owner": "u000002", "team": [1_i64] },
    ];
    let groups = vec![doc! { "_id": 1_i64 }, doc! { "_id": 2_i64 }];
    let expected = [
        ("meet doc:1 user", "u000000 u000001 u000002 NO group:1#member"),
        // The other side of the `&` is small.
        ("both doc:1 user", "NO"),
        ("both doc:2 user", "u000002 NO"),
    ];
    assert_lists(GROUPS, vec![("groups", groups), ("docs", docs), ("memberships", memberships.collect())], &expected)
        .await;
}

#[tokio::test]
async fn edges_are_followed_up_a_tree() {
    let text = r#"
        default_subject = "user"
        [subject.user]
        id = "string"
        [resource.folder]
        id = "integer"
        collection = "folders"
        where = { deleted = { "$ne" = true } }
        [resource.folder.relations]
        owner = { field = "owner" }
        parent = { field = "parent", resource = "folder" }
        guest = { collection = "guests", by = "folder", field = "user", until = "until" }
        [resource.folder.permissions]
        read = "owner | guest | parent.read"
        [resource.file]
        id = "integer"
        collection = "files"
        [resource.file.relations]
        folder = { field = "folder", resource = "folder" }
        [resource.file.permissions]
        read = "folder.read"
    "#;
    let folders = vec![
        doc! { "_id": 1_i64, "owner": "root" },
        doc! { "_id": 2_i64, "owner": "mid", "parent": 1_i64 },
        doc! { "_id": 3_i64, "owner": "low", "parent": [2_i64, 4] },
        doc! { "_id": 4_i64, "owner": "gone", "deleted": true, "parent": 1_i64 },
        doc! { "_id": 5_i64, "owner": "loop", "parent": 5_i64 },
    ];
    let date = bson::DateTime::from_millis;
    let guests = vec![
        doc! { "_id": 1, "folder": 2_i64, "user": "now", "until": date(NOW + 1) },
        doc! { "_id": 2, "folder": 2_i64, "user": "past", "until": date(NOW) },
    ];
    let files = vec![doc! { "_id": 1_i64, "folder": 3_i64 }, doc! { "_id": 2_i64, "folder": 5_i64 }];
    let expected =
        [("read file:1 user", "low mid now root NO"), ("read file:2 user", "loop NO"), ("read folder:4 user", "NO")];
    assert_lists(text, vec![("folders", folders), ("guests", guests), ("files", files)], &expected).await;
}

#[tokio::test]
async fn only_active_subjects_of_the_type_are_listed() {
    let text = r#"
        default_subject = "user"
        [subject.user]
        id = "string"
        collection = "users"
        where = { active = true }
        [subject.robot]
        id = "string"
        [resource.doc]
        id = "integer"
        collection = "docs"
        [resource.doc.relations]
        viewer = { each = "shares", field = "id", subject = ["user", "robot"], subject_type = "type", wildcard = true }
        [resource.doc.permissions]
        read = "viewer"
    "#;
    let users = vec![
        doc! { "_id": "ann", "active": true },
        doc! { "_id": "bob", "active": false },
        doc! { "_id": "cy", "active": "true" },
    ];
    let share = |kind: &str, id: &str| doc! { "type": kind, "id": id };
    let mut shares: Vec<Document> = ["ann", "bob", "cy", "dan"].iter().map(|id| share("user", id)).collect();
    shares.extend([share("robot", "ann"), share("robot", "r2"), share("user", "*")]);
    let docs = vec![doc! { "_id": 1_i64, "shares": shares }];
    let expected = [("read doc:1 user", "ann YES"), ("read doc:1 robot", "ann r2 NO")];
    assert_lists(text, vec![("users", users), ("docs", docs)], &expected).await;
}

#[tokio::test]
async fn secrets_are_listed_as_their_digests() {
    let text = r#"
        default_subject = "user"
        [subject.user]
        [subject.link]
        id = "string"
        secret = true
        [resource.doc]
        id = "integer"
        collection = "docs"
        [resource.doc.relations]
        link = { collection = "links", by = "doc", field = "token", subject = "link" }
        [resource.doc.permissions]
        read = "link"
    "#;
    let link = |number: i64, doc: i64| doc! { "_id": number, "doc": doc, "token": format!("token {number}") };
    let links = (0..2).map(|number| link(number, 1)).chain((2..1_100).map(|number| link(number, 2))).collect();
    let docs = vec![doc! { "_id": 1_i64 }, doc! { "_id": 2_i64 }];
    let mut digests: Vec<String> =
        (0..2).map(|number| permcached::question::Id::digest(&format!("token {number}")).to_string()).collect();
    digests.sort();
    let expected = [
        ("read doc:1 link", &*format!("{} NO", digests.join(" "))),
        // A query for a large relation would bring the secrets themselves.
        ("read doc:2 link", "NO doc:2#link"),
        ("read doc:1 user", "NO"),
    ];
    assert_lists(text, vec![("links", links), ("docs", docs)], &expected).await;
}
