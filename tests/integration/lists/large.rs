//! More candidates than an id set may have: lists read them page by page, and plans are refused.

use std::{sync::Arc, time::Instant};

use mongodb::bson::{Document, doc};
use permcached::{
    list::{ListError, ListQuestion, PlanKind, PlanOptions, ResourcePage},
    question::Id,
    schema::{Condition, Path, Test},
    source::mongodb::MongoDb,
};

use super::{Listing, both, collections, parsed};
use crate::support::{both::fill, servers::mongo};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"

[subject.user.relations]
places = { collection = "memberships", by = "user", field = "hall", resource = "place" }

[resource.team]
id = "string"
collection = "teams"

[resource.team.relations]
member = { field = "members" }

[resource.team.permissions]
see = "member"

[resource.file]
id = "integer"
collection = "files"

[resource.file.relations]
owner = { field = "owner" }
guest = { collection = "shares", by = "file", field = "user", where = { active = { "$ne" = false } } }
team = { collection = "of_teams", by = "file", field = "team", subject = "team.member" }

[resource.file.permissions]
read = "owner | guest"
shared = "guest & !owner"
seen = "owner | team"
any = "owner | guest | team"

[resource.place]
id = "string"

[resource.place.relations]
member = { of = "user.places" }

[resource.place.permissions]
enter = "member"

# Without documents of its own.
[resource.thing]
id = "integer"

[resource.thing.relations]
guest = { collection = "shares", by = "file", field = "user", where = { active = { "$ne" = false } } }

[resource.thing.permissions]
read = { is = "any", private = false }
any = { is = "guest", private = true }
"#;

/// How many shares one user has.
const SHARES: i64 = 100_000;

/// A user with 100,000 shares of as many files. A thousandth of the shares is revoked, and a tenth of the files is an image.
async fn shared() -> Listing {
    let schema = parsed(SCHEMA);
    let database = mongo().database().await;
    fill(&database, &schema, &collections([])).await;
    let index = doc! { "createIndexes": "shares", "indexes": [{ "key": { "user": 1, "file": 1 }, "name": "both" }] };
    database.run_command(index).await.unwrap();
    let share = |number: i64| {
        doc! { "_id": number, "file": number, "user": "ann", "active": number % 1_000 != 7 }
    };
    let file = |number: i64| {
        doc! { "_id": number, "owner": if number % 2 == 0 { "bob" } else { "eve" }, "image": number % 10 == 0 }
    };
    let mut shares: Vec<Document> = (0..SHARES).map(share).collect();
    shares.extend((0..5).map(|number| doc! { "file": number, "user": "dan" }));
    database.collection::<Document>("shares").insert_many(shares).await.unwrap();
    // Files beside those that are shared.
    let files: Vec<Document> = (-10..SHARES).map(file).collect();
    database.collection::<Document>("files").insert_many(files).await.unwrap();
    // One team with more files than an id set may have, in several facts none of which is over its limit.
    let teams = (0..15).map(|number| doc! { "_id": format!("t{number:02}"), "members": ["tom"] });
    database.collection::<Document>("teams").insert_many(teams).await.unwrap();
    let of_teams = (0..12_000i64).map(|number| doc! { "file": number, "team": format!("t{:02}", number / 800) });
    database.collection::<Document>("of_teams").insert_many(of_teams).await.unwrap();
    Listing::new(&schema, Arc::new(MongoDb::open(Arc::clone(&schema), database).await.expect("mongod answers")))
}

fn is_active(number: i64) -> bool {
    number % 1_000 != 7
}

async fn numbers(listing: &Listing, subject: &str, permission: &str, kind: &str, size: usize) -> Vec<i64> {
    let ids = listing.pages(&listing.question(subject, permission, kind), size, None).await.unwrap();
    ids.iter().map(|id| id.to_string().parse().unwrap()).collect()
}

#[tokio::test]
async fn a_subject_with_100000_shares_pages_through_all_of_them() {
    let listing = shared().await;
    let all: Vec<i64> = (0..SHARES).filter(|number| is_active(*number)).collect();
    assert_eq!(numbers(&listing, "user:ann", "read", "file", 1_000).await, all);
    assert_eq!(numbers(&listing, "user:ann", "read", "thing", 1_000).await, all);
    assert_eq!(numbers(&listing, "user:ann", "shared", "file", 999).await, all);
    // Others pay nothing for that.
    assert_eq!(numbers(&listing, "user:dan", "read", "file", 100).await, [0, 1, 2, 3, 4]);

    // Pages from anywhere on.
    let question = listing.question("user:ann", "read", "file");
    let after = Id::Integer(99_000);
    let began = Instant::now();
    let page = ResourcePage { size: 100, after: Some(after), within: None };
    let list = listing.page(&question, page).await.unwrap();
    println!("a page took {:?}", began.elapsed());
    assert_eq!(list.resources.len(), 100);
    assert_eq!(list.resources[0].id.to_string(), "99001");
    assert!(list.examined <= 102, "{}", list.examined);

    // With a condition of the caller.
    let images = Condition::Field(Path::parse("image").unwrap(), Test::Eq(true.into()));
    let page = ResourcePage { size: 1_000, after: None, within: Some(images) };
    let list = listing.page(&question, page).await.unwrap();
    let expected: Vec<String> = (0..10_000).step_by(10).map(|number: i64| number.to_string()).collect();
    assert_eq!(list.resources.iter().map(|resource| resource.id.to_string()).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn branches_of_different_density_are_merged_without_a_gap() {
    // Every second id is owned, every third is in one of three facts, and every fifth in a fact that is over its limit.
    let files = (0..9_000i64).map(|number| {
        let mut file = doc! { "_id": number };
        if number % 2 == 0 {
            file.insert("owner", "ann");
        }
        file
    });
    let shares = (0..9_000i64).step_by(5).map(|number| doc! { "file": number, "user": "ann" });
    let of_teams = (0..9_000i64).step_by(7).map(|number| doc! { "file": number, "team": format!("t{}", number % 3) });
    let teams = (0..3).map(|number| doc! { "_id": format!("t{number}"), "members": ["ann"] });
    let documents = collections([
        ("files", files.collect()),
        ("shares", shares.collect()),
        ("of_teams", of_teams.collect()),
        ("teams", teams.collect()),
    ]);
    let schema = parsed(SCHEMA);
    let listing = Listing::over_documents(&schema, &documents);
    let is_listed = |number: &i64| number % 2 == 0 || number % 5 == 0 || number % 7 == 0;
    let expected: Vec<i64> = (0..9_000).filter(is_listed).collect();
    for size in [50, 1_000] {
        assert_eq!(numbers(&listing, "user:ann", "any", "file", size).await, expected, "pages of {size}");
    }
}

#[tokio::test]
async fn a_relation_of_the_subject_that_is_over_its_limit_leads_where_checks_find_it() {
    let memberships = (0..1_500).map(|number| doc! { "user": "ann", "hall": format!("r{number:04}") });
    let documents = collections([("memberships", memberships.collect())]);
    for listing in both(SCHEMA, &documents).await {
        let ids = (0..1_500).map(|number| Id::String(format!("r{number:04}").into()));
        let question = listing.question("user:ann", "enter", "place");
        let allowed = listing.allowed(&question, ids).await;
        assert_eq!(listing.pages(&question, 400, None).await.unwrap(), allowed);
    }
}

#[tokio::test]
async fn no_plan_has_more_ids_than_an_id_set_may_have() {
    let listing = shared().await;
    for (subject, permission, relation) in [("user:ann", "read", "file#guest"), ("user:tom", "seen", "file#team")] {
        let question = listing.question(subject, permission, "file");
        let error = listing.plan(&question, PlanOptions { ids_max: 10_000, ..PlanOptions::default() }).await;
        let Err(ListError::TooManyIds { relation: named, count, max }) = error else { panic!("{error:?}") };
        assert_eq!((named.as_str(), max), (relation, 10_000));
        assert!(count > max, "{count}");
    }
    let reference = PlanOptions { ids_max: 10_000, reference: Some(Path::parse("file_id").unwrap()) };
    let error = listing.plan(&listing.question("user:ann", "read", "file"), reference).await;
    assert!(matches!(&error, Err(ListError::TooManyIds { max: 10_000, .. })), "{error:?}");
    // Branches that are each small enough may be too large together, and are read page by page.
    assert_eq!(numbers(&listing, "user:tom", "seen", "file", 1_000).await, (0..12_000).collect::<Vec<_>>());
}

/// Everything that a plan for another collection has, with as many ids as that and with one fewer.
async fn assert_counted(listing: &Listing, question: &ListQuestion, count: usize) {
    let options = |ids_max| PlanOptions { ids_max, reference: Some(Path::parse("file_id").unwrap()) };
    let plan = listing.plan(question, options(count)).await.unwrap();
    assert_eq!((plan.kind, plan.ids), (PlanKind::Exact, count));
    let error = listing.plan(question, options(count - 1)).await;
    let Err(ListError::TooManyIds { count: found, max, .. }) = error else { panic!("{error:?}") };
    assert_eq!((found, max), (count, count - 1));
}

#[tokio::test]
async fn a_plan_for_another_collection_may_have_exactly_as_many_ids_as_are_allowed() {
    // The last ones are shared, too, but are owned by her, which excludes them.
    let file = |number: i64| doc! { "_id": number, "owner": if number < 1_000 { "bob" } else { "ann" } };
    let share = |number: i64| doc! { "file": number, "user": "ann" };
    let documents =
        collections([("files", (0..1_100).map(file).collect()), ("shares", (0..1_100).map(share).collect())]);
    for listing in both(SCHEMA, &documents).await {
        assert_counted(&listing, &listing.question("user:ann", "shared", "file"), 1_000).await;
        assert_counted(&listing, &listing.question("user:bob", "read", "file"), 1_000).await;
        assert_counted(&listing, &listing.question("user:ann", "any", "file"), 1_100).await;
    }
}

/// Each candidate requires eleven facts, and a request may use 100,000.
#[tokio::test]
async fn a_plan_for_which_a_request_may_not_use_enough_facts_has_too_many_ids() {
    let names: Vec<String> = (0..11).map(|number| format!("ban{number}")).collect();
    let relations: String = names
        .iter()
        .map(|name| format!("{name} = {{ collection = \"{name}\", by = \"thing\", field = \"user\" }}\n"))
        .collect();
    let excluded: String = names.iter().map(|name| format!(" & !{name}")).collect();
    let schema = format!(
        r#"
default_subject = "user"
[subject.user]
id = "string"
[resource.thing]
id = "integer"
[resource.thing.relations]
guest = {{ collection = "shares", by = "thing", field = "user" }}
{relations}
[resource.thing.permissions]
read = "guest{excluded}"
[resource.box]
id = "integer"
collection = "boxes"
[resource.box.relations]
thing = {{ field = "thing", resource = "thing" }}
[resource.box.permissions]
read = "thing.read"
"#
    );
    let shares = (0..10_000i64).map(|number| doc! { "thing": number, "user": "ann" });
    let documents = collections([("shares", shares.collect())]);
    let listing = Listing::over_documents(&parsed(&schema), &documents);
    let reference = PlanOptions { ids_max: 10_000, reference: Some(Path::parse("thing_id").unwrap()) };
    for (kind, options) in [("thing", reference), ("box", PlanOptions { ids_max: 10_000, ..PlanOptions::default() })] {
        let error = listing.plan(&listing.question("user:ann", "read", kind), options).await;
        assert!(
            matches!(&error, Err(ListError::TooManyIds { relation, .. }) if relation == "thing#read"),
            "{kind}: {error:?}"
        );
    }
}

/// Relations of files to teams whose field may contain secrets, too, so that no fact is looked up by it.
#[tokio::test]
async fn a_list_searches_for_a_bounded_number_of_ids() {
    let names = ["a", "b", "c", "d"];
    let relations: String = names
        .iter()
        .map(|name| {
            let field = format!(r#"field = "{name}", subject = ["link", "team.member"], subject_type = "type""#);
            format!("{name} = {{ collection = \"shares\", by = \"file\", {field} }}\n")
        })
        .collect();
    let schema = format!(
        r#"
default_subject = "user"
[subject.user]
id = "integer"
[subject.user.relations]
teams = {{ collection = "memberships", by = "user", field = "hall", resource = "team" }}
[subject.link]
id = "string"
secret = true
[resource.team]
id = "integer"
[resource.team.relations]
member = {{ of = "user.teams" }}
[resource.file]
id = "integer"
collection = "files"
[resource.file.relations]
{relations}
[resource.file.permissions]
three = "a | b | c"
four = "a | b | c | d"
"#
    );
    // As many as a fact may have, in few documents.
    let teams = (0..6i64).map(|part| doc! { "user": 1, "hall": (850 * part..850 * (part + 1)).collect::<Vec<_>>() });
    let share = |number: i64| doc! { "file": number, "type": "team", names[usize::try_from(number).unwrap() % 4]: 1_000 * number };
    let documents = collections([
        ("memberships", teams.collect()),
        ("files", (0..4).map(|number| doc! { "_id": number }).collect()),
        ("shares", (0..4).map(share).collect()),
    ]);
    let listing = Listing::over_documents(&parsed(&schema), &documents);
    assert_eq!(numbers(&listing, "user:1", "three", "file", 100).await, [0, 1, 2]);
    let question = listing.question("user:1", "four", "file");
    let page = ResourcePage { size: 100, after: None, within: None };
    let errors = [
        listing.page(&question, page).await.map(drop),
        listing.plan(&question, PlanOptions { ids_max: 10_000, ..PlanOptions::default() }).await.map(drop),
    ];
    for error in errors {
        let Err(ListError::TooManyIds { count, max, .. }) = error else { panic!("{error:?}") };
        assert_eq!((count, max), (20_001, 20_000));
    }
}
