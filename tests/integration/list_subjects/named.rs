//! Lists of subjects for schemas of the usual kinds. Each list is the same over documents and over mongod.

use std::{sync::Arc, thread};

use bson::{Document, doc};
use permcached::{
    app::{Parts, assemble},
    check::Consistency,
    list::Lister,
    source::{documents::Documents, mongodb::MongoDb},
};

use super::{Asked, shown};
use crate::support::both::{Asked as AskedOf, Both, Collections, schema};

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

/// The lister over a source.
fn lister(asked: &AskedOf) -> Lister {
    Lister { checker: asked.checker.clone(), source: Arc::clone(&asked.source), fixed_now: Some(NOW) }
}

/// Asserts lists such as `read doc:1 user`: the subjects, whether everybody may, and the sets.
async fn assert_lists(text: &str, documents: Vec<(&str, Vec<Document>)>, expected: &[(&str, &str)]) {
    assert_lists_by(text, documents, expected, &[1, 2, 1_000]).await;
}

/// The same, by pages of these sizes.
pub(super) async fn assert_lists_by(
    text: &str,
    documents: Vec<(&str, Vec<Document>)>,
    expected: &[(&str, &str)],
    sizes: &[usize],
) {
    let both = Both::new(schema("lists.toml", text), &collections(documents)).await;
    let mut wrong = Vec::new();
    for (name, source) in [("documents", &both.documents), ("mongod", &both.mongodb)] {
        let lister = lister(source);
        for (asked, expected) in expected {
            for size in sizes.iter().copied() {
                let list = Asked::parse(&both.schema, asked).pages(&lister, size, Consistency::FullyConsistent).await;
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
        let schema = Arc::new(schema("lists.toml", GROUPS));
        let documents = Documents::new(&schema, &collections(nested(40)));
        let app = assemble(Parts::new(Arc::clone(&schema), Arc::new(documents)));
        let asked = Asked::parse(&schema, "read doc:1 user");
        shown(&schema, &runtime.block_on(asked.pages(&app.lister, 1_000, Consistency::FullyConsistent)).unwrap())
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

/// Users who say which teams they are in and whether they are administrators, and a relation in a collection of its own.
const TEAMS: &str = r#"
default_subject = "user"
[subject.user]
id = "string"
collection = "users"
[subject.user.relations]
teams = { field = "teams", resource = "team" }
admin = { where = { admin = true } }
[subject.robot]
id = "string"
[subject.robot.relations]
runs = { collection = "robots", by = "robot", field = "team", resource = "team" }

[resource.team]
id = "integer"
[resource.team.relations]
member = { of = ["user.teams", "robot.runs"] }
[resource.team.permissions]
see = "member | subject.admin"

[resource.doc]
id = "integer"
collection = "docs"
[resource.doc.relations]
team = { field = "team", subject = "team.member" }
public = { where = { public = true } }
viewer = { collection = "grants", by = "doc", field = "who", subject = ["user", "team.member"], subject_type = "kind", wildcard = true }
[resource.doc.permissions]
read = "team | subject.admin"
both = "team & subject.admin"
open = "public & subject.admin"
view = "viewer"
unless = "viewer & !subject.admin"

[resource.memo]
id = "integer"
collection = "memos"
where = { sent = true }
[resource.memo.relations]
owner = { field = "owner" }
[resource.memo.permissions]
read = "owner | subject.admin"
"#;

#[tokio::test]
async fn subjects_are_listed_whose_own_documents_lead_here() {
    let users = vec![
        doc! { "_id": "ann", "teams": [1_i64, 2_i64] },
        doc! { "_id": "bob", "teams": 1_i64, "admin": true },
        doc! { "_id": "cy", "teams": [3_i64], "admin": true },
        doc! { "_id": "dan", "teams": [2_i64], "admin": "true" },
        doc! { "_id": "eve", "teams": ["1"], "admin": false },
    ];
    let robots = vec![
        doc! { "_id": 1, "robot": ["r1", "r2"], "team": 1_i64 },
        doc! { "_id": 2, "robot": "r3", "team": [2_i64, 1_i64] },
    ];
    let docs = vec![
        doc! { "_id": 1_i64, "team": 1_i64 },
        doc! { "_id": 2_i64, "team": [2_i64, 7], "public": true },
        doc! { "_id": 3_i64 },
    ];
    let expected = [
        ("see team:1 user", "ann bob cy NO"),
        ("see team:2 user", "ann bob cy dan NO"),
        ("see team:9 user", "bob cy NO"),
        ("see team:1 robot", "r1 r2 r3 NO"),
        ("see team:3 robot", "NO"),
        ("read doc:1 user", "ann bob cy NO"),
        ("read doc:2 robot", "r3 NO"),
        ("both doc:1 user", "bob NO"),
        ("both doc:1 robot", "NO"),
        ("open doc:2 user", "bob cy NO"),
        ("open doc:3 user", "NO"),
        ("open doc:2 robot", "NO"),
    ];
    assert_lists(TEAMS, vec![("users", users), ("robots", robots), ("docs", docs)], &expected).await;
}

#[tokio::test]
async fn a_relation_that_is_larger_than_a_fact_is_listed() {
    let grant = |doc: i64, number: i64, kind: &str, who: bson::Bson| {
        doc! { "_id": doc * 100_000 + number, "doc": doc, "kind": kind, "who": who }
    };
    let user = |number: i64| format!("u{number:04}");
    let of_users = |doc: i64, count: i64| (0..count).map(move |number| grant(doc, number, "user", user(number).into()));
    let grants: Vec<Document> = of_users(1, 1_500)
        .chain((0..1_500).map(|number| grant(2, number, "team", number.into())))
        .chain(of_users(3, 1_500))
        .chain([grant(3, 9_999, "user", "*".into())])
        .chain(of_users(4, 10_001))
        .chain([grant(4, 20_000, "team", 7_i64.into())])
        .collect();
    let users = (0..1_500).map(|number| doc! { "_id": user(number) });
    let members = (7..=8_i64).map(|team| doc! { "_id": format!("member{team}"), "teams": team, "admin": team == 8 });
    let docs = (1..=4_i64).map(|number| doc! { "_id": number }).collect();
    let all: Vec<String> = (0..1_500).map(user).collect();
    let all = all.join(" ");
    let (users, grants) = (users.chain(members).collect(), ("grants", grants));
    let expected = [
        ("view doc:1 user", &*format!("{all} NO")),
        // A check of any member exceeds the limit of sets, too.
        ("view doc:2 user", "NO"),
        ("unless doc:2 user", "NO"),
        ("view doc:3 user", &format!("{all} WITH_EXCLUSIONS")),
        ("view doc:4 user", "member7 NO doc:4#viewer"),
    ];
    assert_lists_by(TEAMS, vec![("users", users), grants, ("docs", docs)], &expected, &[1_000]).await;
}

#[tokio::test]
async fn more_subjects_than_a_list_may_have_are_a_set_or_some_of_everybody() {
    let user = |number: i64| doc! { "_id": format!("u{number:05}"), "teams": [1_i64], "admin": true };
    let users: Vec<Document> = (0..10_001).map(user).collect();
    let docs = vec![doc! { "_id": 1_i64, "team": 1_i64 }, doc! { "_id": 2_i64, "team": 2_i64 }];
    let memos = vec![
        doc! { "_id": 1_i64, "sent": true },
        doc! { "_id": 2_i64, "sent": false },
        doc! { "_id": 3_i64, "sent": "true" },
    ];
    let all = collections(vec![("users", users), ("docs", docs), ("memos", memos)]);
    let both = Both::new(schema("lists.toml", TEAMS), &all).await;
    let list = async |lister: &Lister, question: &str| {
        let list = Asked::parse(&both.schema, question).pages(lister, 1_000, Consistency::FullyConsistent).await;
        list.map_or_else(|error| error.to_string(), |list| shown(&both.schema, &list))
    };
    let [documents, mongodb] = [lister(&both.documents), lister(&both.mongodb)];
    for (question, expected, missing) in [
        ("see team:1 user", "WITH_EXCLUSIONS team:1#member", "teams"),
        ("both doc:1 user", "NO team:1#member", "teams"),
        ("both doc:2 user", "NO", "teams"),
        ("open doc:1 user", "NO", ""),
        ("read memo:1 user", "WITH_EXCLUSIONS", "admin"),
        // Nobody has a permission on a resource that does not exist, or that has a value of a wrong type.
        ("read doc:9 user", "NO", ""),
        ("read memo:2 user", "NO", ""),
        ("read memo:3 user", "NO", ""),
        ("read memo:9 user", "NO", ""),
    ] {
        assert_eq!(list(&documents, question).await, expected, "{question}");
        let without_index = list(&mongodb, question).await;
        if missing.is_empty() {
            assert_eq!(without_index, expected, "{question} needs no index");
        } else {
            assert!(without_index.contains("no index") && without_index.contains("createIndex"), "{without_index}");
        }
    }
    for field in ["teams", "admin"] {
        let index = doc! { "key": { field: 1 }, "name": field };
        both.database.run_command(doc! { "createIndexes": "users", "indexes": [index] }).await.expect("an index");
    }
    let source = MongoDb::open(Arc::clone(&both.schema), both.database.clone()).await.expect("mongod answers");
    let mongodb = lister(&AskedOf::new(&both.schema, Arc::new(source)));
    assert_eq!(list(&mongodb, "see team:1 user").await, "WITH_EXCLUSIONS team:1#member");
    assert_eq!(list(&mongodb, "both doc:1 user").await, "NO team:1#member");
}
